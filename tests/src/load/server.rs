//! The server: one thread, one epoll instance, no allocation for a request.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::Result;
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use super::{ANSWER, ASK_BULK, CHUNK, REQUEST, pin};
use crate::lab::Host;

/// Which is the listener's; connections have those after it.
const LISTENER: u64 = 0;
/// Milliseconds after which the thread looks whether it is to end.
const LOOK: u16 = 50;

/// A server that runs until it is dropped.
pub struct Server {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Starts it on a host, at this address, on this processor.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start(host: &Host, address: SocketAddr, processor: usize) -> Result<Self> {
        let listener = host.namespace().run(|| TcpListener::bind(address))?;
        listener.set_nonblocking(true)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let signal = Arc::clone(&is_over);
        let thread = host.namespace().thread(move || {
            pin(processor)?;
            serve(&listener, &signal)
        })?;
        Ok(Self { is_over, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whoever asked it has noticed if it failed.
            let _ = thread.join();
        }
    }
}

/// A connection.
struct Connection {
    stream: TcpStream,
    /// Bytes of the request that have come.
    n_read: usize,
    kind: u8,
}

fn serve(listener: &TcpListener, is_over: &AtomicBool) -> Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut next = LISTENER + 1;
    let mut events = [EpollEvent::empty(); 64];
    let (mut request, answer, chunk) = ([0; REQUEST], [b'A'; ANSWER], vec![b'B'; CHUNK]);
    while !is_over.load(Ordering::Relaxed) {
        let n_events = epoll.wait(&mut events, EpollTimeout::from(LOOK))?;
        for event in &events[..n_events] {
            if event.data() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, next))?;
                    connections.insert(next, Connection { stream, n_read: 0, kind: 0 });
                    next += 1;
                }
                continue;
            }
            let Some(connection) = connections.get_mut(&event.data()) else { continue };
            let goes_on = if connection.kind == ASK_BULK {
                pour(&connection.stream, &chunk)
            } else {
                answer_one(connection, &mut request, &answer)
            };
            if !goes_on {
                connections.remove(&event.data());
            } else if connection.kind == ASK_BULK {
                let event = &mut EpollEvent::new(EpollFlags::EPOLLOUT, event.data());
                epoll.modify(connection.stream.as_fd(), event)?;
            }
        }
    }
    Ok(())
}

/// Reads, and answers if that ends a request; whether the connection goes on.
fn answer_one(connection: &mut Connection, request: &mut [u8; REQUEST], answer: &[u8]) -> bool {
    match connection.stream.read(&mut request[connection.n_read..]) {
        Ok(0) => false,
        Ok(n) => {
            connection.n_read += n;
            connection.kind = request[0];
            if connection.n_read < REQUEST || connection.kind == ASK_BULK {
                return true;
            }
            connection.n_read = 0;
            // Never more than fits a socket's buffer: the client waits for each answer.
            connection.stream.write_all(answer).is_ok()
        }
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Writes as much as there is room for; whether the connection goes on.
fn pour(stream: &TcpStream, chunk: &[u8]) -> bool {
    // How much went does not matter: there is no end.
    matches!(nix::unistd::write(stream, chunk), Ok(_) | Err(Errno::EAGAIN))
}
