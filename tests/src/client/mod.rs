//! The lab's clients. All of it is to be run inside the client's namespace (`Namespace::block_on`), and everything has
//! a deadline: nothing here waits for ever.

mod connection;
mod load;
mod udp;
mod wrong;

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;

pub use self::{
    connection::{Answer, Connection, Transfer, Watch},
    load::{Load, Report},
    udp::{UdpAnswer, UdpFlow, udp_exchange},
    wrong::Wrong,
};

/// How long a connection may take to be set up, TLS included. More than the first two retransmissions of a lost SYN.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How long one answer may take.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// How long a transfer of many bytes may take.
pub const TRANSFER_DEADLINE: Duration = Duration::from_secs(60);

/// One request on a connection of its own, from the address the kernel chooses.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    let mut connection = Connection::open(address).await?;
    let answer = connection.get(path).await?;
    connection.close().await?;
    Ok(answer)
}
