//! The client: as many connections as it is told to have, each of which waits for what it has asked for.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        socket::{
            AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt::TcpNoDelay,
        },
    },
};

use super::{ANSWER, ASK_ANSWER, ASK_BULK, CHUNK, Cpu, REQUEST, pin};
use crate::lab::Host;

/// What the connections are for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Task {
    /// A request after the other on each.
    Requests,
    /// One request on each, and then another connection.
    Connections,
    /// Bytes without end.
    Bulk,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Answers, or connections with one.
    pub n_answers: u64,
    /// Bytes of bulk.
    pub n_bytes: u64,
    /// Connections that failed.
    pub n_failed: u64,
    /// How long it took.
    pub time: Duration,
    /// How long the machine's processors were busy meanwhile.
    pub cpu: Cpu,
    /// From request to answer, sorted; of connections from before they were opened.
    pub latencies: Vec<Duration>,
}

impl Outcome {
    /// The latency that so many percent of the answers did not exceed.
    pub fn percentile(&self, percent: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * percent / 100.0).round() as usize).copied().unwrap_or_default()
    }

    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.n_answers as f64 / self.time.as_secs_f64()
    }

    /// Bytes a second.
    pub fn byte_rate(&self) -> f64 {
        self.n_bytes as f64 / self.time.as_secs_f64()
    }
}

/// A client of a host.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    /// Where it is.
    pub host: &'a Host,
    /// Whom it asks.
    pub address: SocketAddr,
    /// Where its thread runs.
    pub processor: usize,
}

struct Connection {
    stream: TcpStream,
    /// Bytes of the answer that are still to come.
    n_left: usize,
    asked: Instant,
    /// Whether the request is still to be sent, once it is connected.
    is_opening: bool,
}

impl Client<'_> {
    /// Does something for so long with so many connections.
    ///
    /// # Errors
    /// If no connection can be opened.
    pub fn run(&self, task: Task, n_connections: usize, time: Duration) -> Result<Outcome> {
        let Self { host, address, processor } = *self;
        host.namespace().run(move || {
            pin(processor)?;
            run(address, task, n_connections, time)
        })
    }
}

fn run(address: SocketAddr, task: Task, n_connections: usize, time: Duration) -> Result<Outcome> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut request = [0; REQUEST];
    request[0] = if task == Task::Bulk { ASK_BULK } else { ASK_ANSWER };
    let mut connections = Vec::with_capacity(n_connections);
    for place in 0..n_connections {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
            .with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, place as u64))?;
        connections.push(Connection { stream, n_left: ANSWER, asked: Instant::now(), is_opening: false });
    }
    let mut outcome = Outcome {
        n_answers: 0,
        n_bytes: 0,
        n_failed: 0,
        time: Duration::ZERO,
        cpu: Cpu::default(),
        latencies: Vec::with_capacity(1 << 20),
    };
    let (start, cpu) = (Instant::now(), Cpu::now()?);
    for connection in &mut connections {
        connection.asked = Instant::now();
        connection.stream.write_all(&request)?;
    }
    let mut events = [EpollEvent::empty(); 64];
    let mut chunk = vec![0; CHUNK];
    while start.elapsed() < time {
        let n_events = epoll.wait(&mut events, EpollTimeout::from(100_u16))?;
        for event in &events[..n_events] {
            let place = event.data() as usize;
            let connection = &mut connections[place];
            if connection.is_opening {
                connection.is_opening = false;
                if connection.stream.write_all(&request).is_err() {
                    outcome.n_failed += 1;
                    *connection = open(&epoll, address, place)?;
                    continue;
                }
                epoll.modify(&connection.stream, &mut EpollEvent::new(EpollFlags::EPOLLIN, place as u64))?;
                continue;
            }
            match connection.stream.read(&mut chunk) {
                Ok(0) => {
                    outcome.n_failed += 1;
                    *connection = open(&epoll, address, place)?;
                }
                Ok(n) if task == Task::Bulk => outcome.n_bytes += n as u64,
                Ok(n) if n < connection.n_left => connection.n_left -= n,
                Ok(_) => {
                    outcome.n_answers += 1;
                    outcome.latencies.push(connection.asked.elapsed());
                    if task == Task::Connections {
                        *connection = open(&epoll, address, place)?;
                    } else {
                        connection.n_left = ANSWER;
                        connection.asked = Instant::now();
                        connection.stream.write_all(&request)?;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => {
                    outcome.n_failed += 1;
                    *connection = open(&epoll, address, place)?;
                }
            }
        }
    }
    outcome.time = start.elapsed();
    outcome.cpu = Cpu::now()?.since(cpu);
    outcome.latencies.sort_unstable();
    if outcome.n_answers == 0 && outcome.n_bytes == 0 {
        bail!("{address} has answered nothing");
    }
    Ok(outcome)
}

/// Opens another connection, which is not waited for.
fn open(epoll: &Epoll, address: SocketAddr, place: usize) -> Result<Connection> {
    let asked = Instant::now();
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, TcpNoDelay, &true)?;
    match connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(error) => return Err(error).with_context(|| format!("connect to {address}")),
    }
    epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLOUT, place as u64))?;
    Ok(Connection { stream: TcpStream::from(socket), n_left: ANSWER, asked, is_opening: true })
}
