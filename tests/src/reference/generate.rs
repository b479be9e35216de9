//! Random packets for the comparison of programs and model: mostly such as belong to the life of a flow.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
};

use kplb::model::Desired;
use kplb_common::{
    flow::Direction,
    flow_state::{ACK, FIN, FlowState, RST, SYN},
    net::{TCP, UDP},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{
    Reference,
    flows::{Flow, Place, Tuple},
    frame::{self, Draft},
    mutate::{self, LONGEST, SHORTEST},
    pieces,
    question::question,
    world::{self, NAT_PORTS, NODE_MAC, ip4, ip6},
};
use crate::testbed::Hook;

/// How often each kind of packet comes, in percent; the rest are packets of flows.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// IPv6, of new flows and strangers.
    pub ipv6: u32,
    /// First packets of flows.
    pub opening: u32,
    /// Packets of no flow, to endpoints that are ours or nearly.
    pub stranger: u32,
    /// Other protocols, fragments, extension headers.
    pub odd: u32,
    /// Random bytes.
    pub garbage: u32,
    /// Questions for a MAC address, and claims to an address.
    pub asking: u32,
    /// ICMP errors, about packets of flows and of none.
    pub errors: u32,
    /// Of all of the above, those with IPv4 options or IPv6 extension headers.
    pub headers: u32,
    /// Of all of the above, those that are cut into fragments.
    pub pieces: u32,
    /// Of all of the above, those that have VLAN tags although they need none.
    pub tags: u32,
    /// Of all of the above, those that are damaged.
    pub damaged: u32,
    /// Of the flows, those that prefer to be of a backend on this node.
    pub local: u32,
}

/// A source of packets.
#[derive(Debug)]
pub struct Generator {
    rng: StdRng,
    profile: Profile,
    services: Vec<(SocketAddr, u8)>,
    backends: Vec<(SocketAddr, u8)>,
    /// The tags that frames need, outermost first.
    vlan: Vec<u16>,
    /// Fragments that are still on their way.
    pending: VecDeque<(Hook, Vec<u8>)>,
}

impl Generator {
    /// A source of packets that only depends on its seed and on what the model knows.
    pub fn new(seed: u64, profile: Profile, desired: &Desired) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            profile,
            services: desired.services.keys().map(world::address_and_protocol).collect(),
            backends: world::backends(desired),
            vlan: desired.node.vlan.0.into_iter().filter(|identifier| *identifier != 0).collect(),
            pending: VecDeque::new(),
        }
    }

    /// The random numbers, for other decisions of the same run.
    pub fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    fn percent(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    /// The next frame and where it appears.
    pub fn next(&mut self, reference: &Reference) -> (Hook, Vec<u8>) {
        let Profile { headers, pieces, tags, damaged, .. } = self.profile;
        let pending = if self.percent(70) { self.pending.pop_front() } else { None };
        let (hook, mut frame) = pending.unwrap_or_else(|| {
            let (hook, mut frame) = self.packet(reference);
            if frame.len() > 54 && self.percent(headers) {
                pieces::with_headers(&mut self.rng, &mut frame);
            }
            if !self.percent(pieces) {
                return (hook, frame);
            }
            let id = self.rng.random_range(0..8);
            let mut pieces = pieces::cut(&mut self.rng, &frame, id).into_iter();
            frame = pieces.next().expect("a frame has a piece at least");
            self.pending.extend(pieces.map(|piece| (hook, piece)));
            (hook, frame)
        });
        if !self.vlan.is_empty() || self.percent(tags) {
            pieces::tag_all(&mut self.rng, &mut frame, &self.vlan);
        }
        if self.percent(damaged) {
            mutate::mutate(&mut self.rng, &mut frame);
        }
        if hook == Hook::Egress && !mutate::fits_tc(&frame) {
            return (Hook::Ingress, frame);
        }
        (hook, frame)
    }

    fn packet(&mut self, reference: &Reference) -> (Hook, Vec<u8>) {
        let Profile { ipv6, opening, stranger, odd, garbage, asking, errors, .. } = self.profile;
        let kind = self.rng.random_range(0..100);
        if kind < garbage {
            (self.any_hook(10), self.garbage())
        } else if kind < garbage + odd {
            (self.any_hook(20), self.odd())
        } else if kind < garbage + odd + stranger {
            (self.any_hook(15), self.stranger().write())
        } else if kind < garbage + odd + stranger + opening {
            (self.any_hook(2), self.opening().write())
        } else if kind < garbage + odd + stranger + opening + asking {
            let is_ipv6 = self.percent(ipv6);
            (self.any_hook(50), question(&mut self.rng, is_ipv6))
        } else if kind < garbage + odd + stranger + opening + asking + errors {
            self.error(reference)
        } else {
            match self.flow(reference) {
                Some(flow) => self.step(&flow),
                None => (Hook::Ingress, self.opening().write()),
            }
        }
    }

    fn any_hook(&mut self, tc_percent: u32) -> Hook {
        if self.percent(tc_percent) { Hook::Egress } else { Hook::Ingress }
    }

    fn flow(&mut self, reference: &Reference) -> Option<Flow> {
        let local = self.percent(self.profile.local);
        let picks: Vec<_> = (0..4).filter_map(|_| reference.flows().pick(self.rng.random::<u32>() as usize)).collect();
        let preferred = picks.iter().find(|flow| local && flow.place == Place::Local);
        preferred.or(picks.first()).copied()
    }

    fn ip(&mut self, last: u8) -> IpAddr {
        if self.percent(self.profile.ipv6) { ip6(last) } else { ip4(last) }
    }

    fn port(&mut self) -> u16 {
        match self.rng.random_range(0..10) {
            0..4 => self.rng.random_range(NAT_PORTS.0..=NAT_PORTS.1),
            4 => *[NAT_PORTS.0 - 1, NAT_PORTS.0, NAT_PORTS.1, NAT_PORTS.1 + 1].choose(&mut self.rng).expect("four"),
            5 => *[0, 1, 53, 6443, 0xffff].choose(&mut self.rng).expect("five"),
            _ => self.rng.random_range(32_768..=60_999),
        }
    }

    fn client(&mut self, is_ipv6: bool) -> SocketAddr {
        // Now and then the node itself, or another node's backend.
        let last = if self.percent(4) { self.rng.random_range(11..16) } else { self.rng.random_range(120..250) };
        SocketAddr::new(if is_ipv6 { ip6(last) } else { ip4(last) }, self.port())
    }

    /// A draft with this 5-tuple, with all else at random.
    fn draft(&mut self, tuple: Tuple, flags: u8) -> Draft {
        let last = match tuple.source.ip() {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[15],
        };
        let from = if self.percent(97) { [2, 0, 0, 0, 0, last] } else { [2, 0, 0, 0, 1, self.rng.random()] };
        let to = if self.percent(98) {
            NODE_MAC
        } else {
            *[[0xff; 6], [0; 6], [2, 0, 0, 0, 0, 12]].choose(&mut self.rng).expect("three")
        };
        let length = match self.rng.random_range(0..10) {
            0..4 => 0,
            4..9 => self.rng.random_range(1..100),
            _ => self.rng.random_range(100..1400),
        };
        Draft {
            to,
            from,
            tuple,
            hops: if self.percent(94) { 64 } else { *[0, 1, 2, 255].choose(&mut self.rng).expect("four") },
            flags,
            sequence: self.rng.random(),
            acknowledgement: self.rng.random(),
            payload: (0..length).map(|_| self.rng.random()).collect(),
            options: self.rng.random_range(0..=10) * 4,
        }
    }

    /// A SYN or datagram to a service.
    fn opening(&mut self) -> Draft {
        let is_ipv6 = self.percent(self.profile.ipv6);
        let fitting: Vec<_> = self.services.iter().filter(|(vip, _)| vip.is_ipv6() == is_ipv6).copied().collect();
        let (destination, protocol) = *fitting.choose(&mut self.rng).expect("both families have services");
        let source = self.client(is_ipv6);
        let flags = if self.percent(90) { SYN } else { self.rng.random() };
        self.draft(Tuple { source, destination, protocol }, flags)
    }

    /// A packet from or to an endpoint of ours, or nearly.
    fn stranger(&mut self) -> Draft {
        let is_ipv6 = self.percent(self.profile.ipv6);
        let client = self.client(is_ipv6);
        let mut choose = |endpoints: &[(SocketAddr, u8)]| {
            let fitting: Vec<_> = endpoints.iter().filter(|(ip, _)| ip.is_ipv6() == is_ipv6).copied().collect();
            *fitting.choose(&mut self.rng).expect("both families have services")
        };
        let (service, backend, other) = (choose(&self.services), choose(&self.backends), choose(&self.backends));
        let node = SocketAddr::new(if is_ipv6 { ip6(11) } else { ip4(11) }, self.port());
        let (source, destination, mut protocol) = match self.rng.random_range(0..8) {
            // To a service.
            0 => (client, service.0, service.1),
            // From a backend to this node.
            1 | 2 => (backend.0, node, backend.1),
            // From a backend to a client.
            3 => (backend.0, client, backend.1),
            // To a backend.
            4 => (client, backend.0, backend.1),
            // Between a service's endpoints.
            5 => (backend.0, other.0, backend.1),
            6 => (backend.0, service.0, service.1),
            // To another port of the VIP.
            _ => (client, SocketAddr::new(service.0.ip(), self.port()), service.1),
        };
        if self.percent(5) {
            protocol = if protocol == TCP { UDP } else { TCP };
        }
        let flags =
            *[SYN, SYN | ACK, ACK, RST, RST | ACK, FIN | ACK, SYN | FIN, 0, 0xff].choose(&mut self.rng).expect("nine");
        self.draft(Tuple { source, destination, protocol }, flags)
    }

    /// A packet of a flow: mostly the one that moves it on.
    fn step(&mut self, flow: &Flow) -> (Hook, Vec<u8>) {
        use Direction::{ToBackend, ToClient};
        let likely = self.percent(75);
        let either = if self.percent(50) { ToBackend } else { ToClient };
        let data = *[ACK, ACK | 8, ACK, 0x30 | ACK, FIN | ACK, RST, RST | ACK, SYN, SYN | ACK]
            .choose(&mut self.rng)
            .expect("nine");
        let data = if self.percent(70) { ACK } else { data };
        let (direction, flags) = match flow.state {
            FlowState::SynSent if likely => (ToClient, SYN | ACK),
            FlowState::SynAcked if likely => (ToBackend, ACK),
            FlowState::FinFromClient if likely && self.percent(30) => (ToClient, FIN | ACK),
            FlowState::FinFromBackend if likely && self.percent(30) => (ToBackend, FIN | ACK),
            FlowState::Closing if self.percent(20) => (either, SYN),
            FlowState::UdpUnreplied if likely => (ToClient, 0),
            FlowState::UdpReplied if likely => (ToBackend, 0),
            _ if likely => (either, data),
            _ => (either, self.rng.random()),
        };
        let tuple = if direction == ToBackend { flow.from_client } else { flow.from_backend };
        let mut draft = self.draft(tuple, flags);
        if direction == ToBackend && self.percent(90) {
            draft.from = flow.client_mac;
        }
        if self.percent(80) {
            let near = if self.percent(80) { 0 } else { self.rng.random_range(-3..4_i32) };
            draft.acknowledgement = flow.acknowledged[0].wrapping_add_signed(near);
        }
        if self.percent(5) {
            draft.sequence = u32::MAX;
        }
        let mut frame = draft.write();
        if self.percent(12) {
            self.spoil_checksum(&tuple, &mut frame);
        }
        let leaves = direction == ToClient && flow.place == Place::Local;
        (if leaves == self.percent(95) { Hook::Egress } else { Hook::Ingress }, frame)
    }

    /// An error about a packet that was sent on, or might have been.
    fn error(&mut self, reference: &Reference) -> (Hook, Vec<u8>) {
        use Direction::{ToBackend, ToClient};
        let flow = if self.percent(85) { self.flow(reference) } else { None };
        let direction = if self.percent(50) { ToBackend } else { ToClient };
        let tuple = match &flow {
            Some(flow) => flow.rewritten(direction),
            None => self.stranger().tuple.reversed(),
        };
        let mut quoted = self.draft(tuple, ACK).write();
        if self.percent(12) {
            self.spoil_checksum(&tuple, &mut quoted);
        }
        if self.percent(8) {
            frame::insert_header(&mut quoted, 60);
        }
        if self.percent(4) {
            frame::fragment(&mut quoted, *[0x2000, 1, 0x2001].choose(&mut self.rng).expect("three"));
        }
        let quoted = &quoted[14..];
        let l4 = if tuple.source.is_ipv4() { 20 } else { 40 };
        let length = match self.rng.random_range(0..4) {
            0 => l4 + 8,
            1 => self.rng.random_range(l4..l4 + 24),
            _ => quoted.len(),
        };
        let quoted = &quoted[..length.min(quoted.len())];

        let kinds: &[u8] =
            if tuple.source.is_ipv4() { &[3, 3, 3, 11, 12, 4, 5, 8] } else { &[1, 2, 2, 3, 4, 0, 5, 128] };
        let kind = [*kinds.choose(&mut self.rng).expect("eight"), self.rng.random_range(0..6)];
        let reporter = if self.percent(50) { tuple.destination } else { self.client(tuple.source.is_ipv6()) };
        let told = if self.percent(95) { tuple.source } else { self.client(tuple.source.is_ipv6()) };
        let hops = if self.percent(94) { 64 } else { *[0, 1, 2, 255].choose(&mut self.rng).expect("four") };
        let to = if self.percent(98) { NODE_MAC } else { [2, 0, 0, 0, 0, 12] };
        let mut frame = frame::icmp([[2, 0, 0, 0, 1, 1], to], [reporter.ip(), told.ip()], hops, kind, quoted);
        if self.percent(10) {
            let at = l4 + 16;
            let checksum: u16 = *[0, 0xffff, self.rng.random()].choose(&mut self.rng).expect("three");
            frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        let leaves = direction == ToBackend && flow.is_some_and(|flow| flow.place == Place::Local);
        (if leaves == self.percent(90) { Hook::Egress } else { Hook::Ingress }, frame)
    }

    /// None, a wrong one, or one of the two zeros.
    fn spoil_checksum(&mut self, tuple: &Tuple, frame: &mut [u8]) {
        let l4 = if tuple.source.is_ipv4() { 34 } else { 54 };
        let at = match self.rng.random_range(0..4) {
            0 if tuple.source.is_ipv4() => 24,
            _ if tuple.protocol == TCP => l4 + 16,
            _ => l4 + 6,
        };
        let checksum: u16 = *[0, 0, 0xffff, self.rng.random()].choose(&mut self.rng).expect("four");
        frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    /// What the data path does not forward.
    fn odd(&mut self) -> Vec<u8> {
        let draft = if self.percent(70) { self.opening() } else { self.stranger() };
        let mut frame = draft.write();
        let number = *[0, 43, 44, 51, 60, 135, 139, 140, 50, 59, 41].choose(&mut self.rng).expect("eleven");
        match self.rng.random_range(0..7) {
            0 => frame::insert_header(&mut frame, number),
            1 => frame::fragment(
                &mut frame,
                *[0x2000, 1, 0x2001, 0x8000, 0x4000, 0x1fff].choose(&mut self.rng).expect("six"),
            ),
            // ICMP, ICMPv6, others.
            2 => {
                frame::set_protocol(&mut frame, *[1, 58, 2, 47, 50, 132, number].choose(&mut self.rng).expect("seven"))
            }
            3 => frame[12..14].copy_from_slice(&[8, 6]),
            4 => frame[12..14].copy_from_slice(&self.rng.random::<[u8; 2]>()),
            // The other family's.
            5 => {
                let other = if frame[12] == 8 { [0x86, 0xdd] } else { [8, 0] };
                frame[12..14].copy_from_slice(&other);
            }
            _ => {
                frame::insert_header(&mut frame, number);
                frame::set_protocol(&mut frame, number);
            }
        }
        frame
    }

    fn garbage(&mut self) -> Vec<u8> {
        let length = self.rng.random_range(SHORTEST..=LONGEST);
        let mut frame: Vec<u8> = (0..length).map(|_| self.rng.random()).collect();
        if self.percent(80) {
            frame[..6].copy_from_slice(&NODE_MAC);
            frame[12..14].copy_from_slice(if self.percent(50) { &[8, 0] } else { &[0x86, 0xdd] });
        }
        if self.percent(40) && length > 54 {
            match self.ip(100) {
                IpAddr::V4(v4) => frame[30..34].copy_from_slice(&v4.octets()),
                IpAddr::V6(v6) => frame[38..54].copy_from_slice(&v6.octets()),
            }
            frame[14] = if frame[12] == 8 { 0x45 } else { 0x60 };
        }
        frame
    }
}
