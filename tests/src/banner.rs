//! The smallest server that a client can tell from another: it says its node's name, and closes.

use std::{
    io::{self, Write as _},
    net::{Ipv6Addr, TcpListener},
    os::fd::AsRawFd as _,
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{Shutdown, shutdown};

use crate::lab::Host;

/// A server on every address of a host, of both families. It ends when this is dropped.
#[derive(Debug)]
pub struct Banner {
    listener: Arc<TcpListener>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Banner {
    /// Starts it.
    pub fn start(host: &Host, port: u16) -> Result<Self> {
        let listener = host.namespace().run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)));
        let listener = Arc::new(listener.with_context(|| format!("{}: listen on port {port}", host.name()))?);
        let (name, accepting) = (format!("{}\n", host.name()), Arc::clone(&listener));
        let thread = thread::spawn(move || {
            loop {
                match accepting.accept() {
                    // A client that is gone does not want to know.
                    Ok((mut stream, _)) => drop(stream.write_all(name.as_bytes())),
                    // It was shut down.
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
                    // What went wrong with one connection is no matter of the next one (accept(2)).
                    Err(_) => {}
                }
            }
        });
        Ok(Self { listener, thread: Some(thread) })
    }
}

impl Drop for Banner {
    fn drop(&mut self) {
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
