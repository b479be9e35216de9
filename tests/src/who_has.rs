//! Asks a segment all the time who has a VIP, and keeps every answer: ARP for IPv4, neighbour discovery for IPv6.
//!
//! The kernel takes whoever answers last, and does not tell. Here two that answer at once are seen.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use etherparse::{ArpEthIpv4Packet, ArpOperation, EtherType, Ethernet2Header, Icmpv6Type, PacketBuilder};

use crate::{
    capture::{Claim, Occasion},
    lab::Host,
    packet_socket::{Direction, Frame, PacketSocket},
};

/// Time between two questions.
pub const CADENCE: Duration = Duration::from_millis(10);

/// Only who knows that no router has forwarded it believes a neighbour's word (RFC 4861, section 7.1.1).
const HOP_LIMIT: u8 = 255;

/// An answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answer {
    /// When it came.
    pub at: Instant,
    /// The number of the last question before it.
    pub question: usize,
    /// The MAC address that it says has the VIP.
    pub mac: [u8; 6],
}

/// The answers, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Answers(Vec<Answer>);

/// Asks until it is stopped or dropped.
///
/// The host's own kernel hears the answers as well, and may believe them: measure how long a client is without a VIP
/// from another host.
#[derive(Debug)]
pub struct WhoHas {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<Vec<Answer>>,
    is_over: AtomicBool,
}

impl WhoHas {
    /// Starts to ask from a host.
    pub fn start(host: &Host, vip: IpAddr) -> Result<Self> {
        let socket = PacketSocket::open(host.namespace(), "eth0")?;
        let question = match vip {
            IpAddr::V4(vip) => arp_request(host, vip),
            IpAddr::V6(vip) => solicitation(host, vip),
        };
        let shared = Arc::<Shared>::default();
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || ask(&socket, &question, vip, &shared)
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The answers so far.
    pub fn answers(&self) -> Answers {
        Answers(self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Asks no more.
    ///
    /// # Errors
    /// If it could not ask all the time.
    pub fn stop(mut self) -> Result<Answers> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("asking does not panic")?;
        }
        Ok(self.answers())
    }
}

impl Drop for WhoHas {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ask(socket: &PacketSocket, question: &[u8], vip: IpAddr, shared: &Shared) -> Result<()> {
    let mut number = 0;
    let mut next = Instant::now();
    while !shared.is_over.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            socket.send(question).with_context(|| format!("ask who has {vip}"))?;
            (number, next) = (number + 1, Instant::now() + CADENCE);
        }
        let Some(frame) = socket.receive(next.saturating_duration_since(Instant::now()))? else { continue };
        if let Some(mac) = answer(&frame, vip) {
            let answer = Answer { at: frame.at, question: number, mac };
            shared.answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
        }
    }
    Ok(())
}

impl Answers {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Answer> {
        self.0.iter()
    }

    /// Who answered after `moment`.
    pub fn macs_after(&self, moment: Instant) -> BTreeSet<[u8; 6]> {
        self.0.iter().filter(|answer| answer.at > moment).map(|answer| answer.mac).collect()
    }

    /// How many questions were answered by more than one.
    pub fn n_contested(&self) -> usize {
        let by_question = self.0.chunk_by(|a, b| a.question == b.question);
        by_question.filter(|answers| answers.iter().any(|answer| answer.mac != answers[0].mac)).count()
    }
}

/// RFC 826.
fn arp_request(host: &Host, vip: Ipv4Addr) -> Vec<u8> {
    let ethernet = Ethernet2Header { source: host.mac(), destination: [0xff; 6], ether_type: EtherType::ARP };
    let arp = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: host.mac(),
        sender_ipv4: host.ipv4().octets(),
        target_mac: [0; 6],
        target_ipv4: vip.octets(),
    };
    [ethernet.to_bytes().as_slice(), arp.to_bytes().as_slice()].concat()
}

/// RFC 4861, section 4.3, to the VIP's solicited-node group (RFC 4291, section 2.7.1).
fn solicitation(host: &Host, vip: Ipv6Addr) -> Vec<u8> {
    /// Option type and length, in units of eight bytes (RFC 4861, section 4.6.1).
    const SOURCE_LINK_LAYER_ADDRESS: [u8; 2] = [1, 1];
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&vip.octets()[13..]);
    let group_mac = [0x33, 0x33, group[12], group[13], group[14], group[15]];
    let payload = [vip.octets().as_slice(), &SOURCE_LINK_LAYER_ADDRESS, &host.mac()].concat();
    let builder = PacketBuilder::ethernet2(host.mac(), group_mac)
        .ipv6(host.ipv6().octets(), group, HOP_LIMIT)
        .icmpv6(Icmpv6Type::NeighborSolicitation);
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, &payload).expect("a vector takes every write, and the payload is short");
    frame
}

/// The MAC address that a frame says has the VIP, if it is an answer to this host.
fn answer(frame: &Frame, vip: IpAddr) -> Option<[u8; 6]> {
    let claim = Claim::of(frame).filter(|claim| claim.address == vip && claim.occasion == Occasion::Answer)?;
    (frame.direction == Direction::Received).then_some(claim.mac)
}
