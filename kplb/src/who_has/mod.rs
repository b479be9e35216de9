//! Asking the segment who has an address.

pub mod pacing;
pub mod question;

use std::{
    io::Read as _,
    net::IpAddr,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use etherparse::EtherType;
use kplb_common::net::Mac;
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use socket2::{Domain, Protocol, Socket, Type};

use self::question::{Answer, Question};
use crate::packet_socket::PacketSocket;

/// Longer than any answer.
const BUFFER_BYTES: usize = 1500;

/// Questions that were asked, and whoever answers them.
pub struct Inquiry {
    own: Mac,
    arp: Option<Socket>,
    discovery: Option<Socket>,
}

impl Inquiry {
    /// Asks once each of the questions, by the interface whose MAC address is `own`.
    ///
    /// # Errors
    /// If a socket cannot be opened or used.
    pub fn start(interface: &str, own: Mac, questions: &[Question]) -> Result<Self> {
        let is_arp = |question: &Question| matches!(question, Question::V4 { .. });
        // Of the families in use only: a node may have no IPv6 at all.
        let arp = questions.iter().any(is_arp).then(arp_socket).transpose()?;
        let has_discovery = !questions.iter().all(is_arp);
        let discovery = has_discovery.then(|| discovery_socket(interface)).transpose()?;
        let wire = PacketSocket::open(interface)?;
        for question in questions {
            wire.send(&question.frame(own)).with_context(|| format!("ask who has {}", question.target()))?;
        }
        Ok(Self { own, arp, discovery })
    }

    /// Waits for answers, to whatever question, and returns those that have come; none if there are none within
    /// `patience`. Blocks.
    ///
    /// # Errors
    /// If the sockets cannot be used.
    pub fn answers(&self, patience: Duration) -> Result<Vec<Answer>> {
        let sockets = self.arp.iter().chain(&self.discovery);
        let mut descriptors: Vec<_> = sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        ppoll(&mut descriptors, Some(TimeSpec::from(patience)), None).context("wait for answers")?;
        let mut answers = Vec::new();
        let mut buffer = [0; BUFFER_BYTES];
        while let Some(Ok(n)) = self.arp.as_ref().map(|mut socket| socket.read(&mut buffer)) {
            answers.extend(question::arp_reply(&buffer[..n], self.own));
        }
        while let Some(Ok(n)) = self.discovery.as_ref().map(|mut socket| socket.read(&mut buffer)) {
            answers.extend(question::advertisement(&buffer[..n]));
        }
        Ok(answers)
    }

    /// Who first answers for an address; nobody, if none does within `patience`. Blocks.
    ///
    /// # Errors
    /// If the sockets cannot be used.
    pub fn first_answer(&self, address: IpAddr, patience: Duration) -> Result<Option<Mac>> {
        let deadline = Instant::now() + patience;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            if let Some(answer) = self.answers(left)?.iter().find(|answer| answer.address == address) {
                return Ok(Some(answer.mac));
            }
        }
        Ok(None)
    }
}

fn arp_socket() -> Result<Socket> {
    let protocol = ethertype(EtherType::ARP);
    Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(protocol)).context("open a packet socket")
}

fn discovery_socket(interface: &str) -> Result<Socket> {
    let socket =
        Socket::new(Domain::IPV6, Type::RAW.nonblocking(), Some(Protocol::ICMPV6)).context("open a raw socket")?;
    socket.bind_device(Some(interface.as_bytes())).context("bind a raw socket")?;
    Ok(socket)
}

fn ethertype(ethertype: EtherType) -> Protocol {
    // packet(7): in network byte order.
    Protocol::from(i32::from(ethertype.0.to_be()))
}
