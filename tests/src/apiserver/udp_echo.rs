//! Answers every datagram with the node's name, the client's address and the datagram itself.

use tokio::net::UdpSocket;

/// The largest payload of a datagram, rounded up.
const MAX_DATAGRAM: usize = 65_536;

/// Answers until the runtime ends.
pub(super) async fn echo(socket: UdpSocket, name: String) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        // Errors are what earlier answers met, such as a client that is gone: they do not concern the next datagram.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let mut answer = format!("{name} {client} ").into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        let _ = socket.send_to(&answer, client).await;
    }
}
