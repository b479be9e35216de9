//! Cases of what a packet looks like: which are ours, which are sound.

use kplb_common::{
    net::{TCP, UDP},
    verdict::{DropReason, PassReason, Verdict},
};
use kplb_tests::{
    frames::{ACK, Frame, SYN},
    testbed::Hook,
};

use crate::{
    case::Case,
    scene::{CLIENT_MAC, Family, Flow, KEPT_PORT, Kind, NODE_MAC},
};

/// All of them.
pub fn cases(family: Family) -> Vec<Case> {
    [ethernet(family), not_ours(family), cut(family), unsound(family), odd_but_sound(family)].concat_all()
}

/// Puts lists of cases together.
pub trait ConcatAll {
    fn concat_all(self) -> Vec<Case>;
}

impl<const N: usize> ConcatAll for [Vec<Case>; N] {
    fn concat_all(self) -> Vec<Case> {
        self.into_iter().flatten().collect()
    }
}

fn remote(family: Family, protocol: u8) -> Flow {
    Flow::new(family, protocol, Kind::Remote)
}

fn ethernet(family: Family) -> Vec<Case> {
    let flow = remote(family, TCP);
    let syn = flow.client_sends(SYN);
    let not_ip = Verdict::Pass(PassReason::NotIp);
    let mut cases = vec![
        Case { verdict: not_ip, ..Case::new("ARP", Hook::Xdp, &syn.clone().with(|f| f.ethertype = Some(0x0806))) },
        Case { verdict: not_ip, ..Case::new("VLAN", Hook::Xdp, &syn.clone().with(|f| f.ethertype = Some(0x8100))) },
        Case { verdict: not_ip, ..Case::new("ARP, TC", Hook::Tc, &syn.clone().with(|f| f.ethertype = Some(0x0806))) },
    ];
    let others = [
        ("another host's MAC address", [2, 0, 0, 0, 9, 9]),
        ("one bit off in the MAC address", [2, 0, 0, 0, 1, 0]),
        ("broadcast", [0xff; 6]),
        ("multicast", [1, 0, 0x5e, 0, 0, 1]),
    ];
    for (name, mac) in others {
        let frame = syn.clone().between([CLIENT_MAC, mac]);
        cases.push(Case::new(format!("to {name}"), Hook::Xdp, &frame));
        cases.push(Case::new(format!("not IP to {name}"), Hook::Xdp, &frame.with(|f| f.ethertype = Some(0x0806))));
    }
    cases
}

fn not_ours(family: Family) -> Vec<Case> {
    let (tcp, udp) = (remote(family, TCP), remote(family, UDP));
    let syn = tcp.client_sends(SYN);
    let icmp = if family == Family::V4 { 1 } else { 58 };
    let pass = |name: &str, frame: &Frame| Case::new(name, Hook::Xdp, frame);
    let from_backend = [tcp.backend_sends(ACK), udp.backend_sends(0)];
    let mut cases = vec![
        pass("another port of the VIP", &syn.clone().to(family.at(100, 22))),
        pass("the VIP's TCP port over UDP", &udp.client_sends(0).to(tcp.vip)),
        pass("the VIP's UDP port over TCP", &syn.clone().to(udp.vip)),
        pass("another address", &syn.clone().to(family.at(99, 6443))),
        pass("ICMP to the VIP", &syn.clone().with_ip(|ip| ip.protocol = Some(icmp))),
        pass("ESP to the VIP", &syn.clone().with_ip(|ip| ip.protocol = Some(50))),
        pass("no next header to the VIP", &syn.clone().with_ip(|ip| ip.protocol = Some(59))),
        pass("SSH to the node", &syn.clone().to((family.node(), 22).into())),
        pass("to a NAT port, not from a backend", &syn.clone().to((family.node(), KEPT_PORT).into())),
        pass("to a backend on the node, not by the VIP", &syn.clone().to(family.at(11, 8443))),
    ];
    for (protocol, frame) in ["TCP", "UDP"].into_iter().zip(from_backend) {
        let node = family.node();
        let backend = frame.ip.source;
        let backend_port = if protocol == "TCP" { 8443 } else { 5353 };
        cases.extend([
            pass(&format!("{protocol} from a backend below the NAT ports"), &frame.clone().to((node, 19_999).into())),
            pass(&format!("{protocol} from a backend above the NAT ports"), &frame.clone().to((node, 20_040).into())),
            pass(&format!("{protocol} from a backend to another address"), &frame.clone().to(family.at(99, KEPT_PORT))),
            pass(&format!("{protocol} from another port of a backend"), &frame.clone().from((backend, 8444).into())),
            pass(&format!("{protocol} from a backend to another one"), &frame.clone().to((node, backend_port).into())),
            pass(
                &format!("{protocol} from a backend to one behind the wire"),
                &frame.clone().to(family.at(13, backend_port)),
            ),
        ]);
    }
    let local = Flow::new(family, TCP, Kind::Local);
    let macs = [CLIENT_MAC, NODE_MAC];
    cases.push(
        Case::new("the reply of the node's backend by the wire", Hook::Xdp, &local.backend_sends(ACK).between(macs))
            .after(local.established()),
    );
    cases
}

/// Frames that end too early, of every length.
fn cut(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, flow) in [("TCP", remote(family, TCP)), ("UDP", remote(family, UDP))] {
        let whole = flow.client_sends(SYN).build();
        for length in 14..whole.len() {
            let frame = whole[..length].to_vec();
            let mut case = Case::of_bytes(format!("{name} cut to {length}"), Hook::Xdp, frame.clone());
            // From here on its destination is known. TC gets no packet without an IP header, which the kernel takes
            // for granted there.
            if length >= family.l4_offset() {
                case.verdict = Verdict::Drop(DropReason::Malformed);
                cases.push(Case::of_bytes(format!("{name} cut to {length}, TC"), Hook::Tc, frame));
            }
            cases.push(case);
        }
    }
    cases
}

/// Packets that contradict themselves: dropped if to a VIP, and passed if not.
fn unsound(family: Family) -> Vec<Case> {
    use DropReason::{ExtensionHeader, Fragment, IpOptions, Malformed};

    let (syn, datagram) = (remote(family, TCP).client_sends(SYN), remote(family, UDP).client_sends(0));
    let header = family.l4_offset() as u16 - 14;
    let tcp_length = if family == Family::V4 { 40 } else { 20 };
    let mut table = vec![
        ("IP length beyond the frame", syn.clone().with_ip(|ip| ip.length = Some(tcp_length + 1)), Malformed),
        ("IP length of 64 KiB", syn.clone().with_ip(|ip| ip.length = Some(0xffff)), Malformed),
        ("IP length within the TCP header", syn.clone().with_ip(|ip| ip.length = Some(tcp_length - 1)), Malformed),
        ("IP length of no TCP", syn.clone().with_ip(|ip| ip.length = Some(tcp_length - 20)), Malformed),
        ("data offset of 4", syn.clone().with_tcp(|tcp| tcp.data_offset = Some(4)), Malformed),
        ("data offset of 0", syn.clone().with_tcp(|tcp| tcp.data_offset = Some(0)), Malformed),
        ("data offset beyond the packet", syn.clone().with_tcp(|tcp| tcp.data_offset = Some(6)), Malformed),
        (
            "data offset beyond the packet but in the frame",
            syn.clone().with_tcp(|tcp| tcp.data_offset = Some(6)).with(|f| f.padding = vec![1; 20]),
            Malformed,
        ),
        ("UDP length of 7", datagram.clone().with_udp(|udp| udp.length = Some(7)), Malformed),
        ("UDP length of 0", datagram.clone().with_udp(|udp| udp.length = Some(0)), Malformed),
        ("UDP length beyond the packet", datagram.clone().with_udp(|udp| udp.length = Some(17)), Malformed),
        (
            "UDP length beyond the packet but in the frame",
            datagram.clone().with_udp(|udp| udp.length = Some(17)).with(|f| f.padding = vec![1; 20]),
            Malformed,
        ),
        (
            "IP length within the UDP header",
            datagram.clone().with_ip(|ip| ip.length = Some(tcp_length - 20 + 7)),
            Malformed,
        ),
    ];
    if family == Family::V4 {
        let options = |n: usize| syn.clone().with_ip(|ip| ip.options = vec![1; n]);
        table.extend([
            ("version 6 in IPv4", syn.clone().with_ip(|ip| ip.first_byte = Some(0x65)), Malformed),
            ("version 0", syn.clone().with_ip(|ip| ip.first_byte = Some(0x05)), Malformed),
            ("IHL of 4", syn.clone().with_ip(|ip| ip.first_byte = Some(0x44)), Malformed),
            ("IHL of 0", syn.clone().with_ip(|ip| ip.first_byte = Some(0x40)), Malformed),
            ("IHL of 6, options", options(4), IpOptions),
            ("IHL of 15, options", options(40), IpOptions),
            ("IHL beyond the frame", syn.clone().with_ip(|ip| ip.first_byte = Some(0x4f)), IpOptions),
            ("IP length within its header", syn.clone().with_ip(|ip| ip.length = Some(header - 1)), Malformed),
            ("IP length of 0", syn.clone().with_ip(|ip| ip.length = Some(0)), Malformed),
            ("first fragment", syn.clone().with_ip(|ip| ip.fragment = 0x2000), Fragment),
            ("last fragment", syn.clone().with_ip(|ip| ip.fragment = 0x0001), Fragment),
            ("fragment at the end", syn.clone().with_ip(|ip| ip.fragment = 0x1fff), Fragment),
            ("fragment of UDP", datagram.clone().with_ip(|ip| ip.fragment = 0x2000), Fragment),
        ]);
    } else {
        table.extend([
            ("version 4 in IPv6", syn.clone().with_ip(|ip| ip.first_byte = Some(0x40)), Malformed),
            ("version 7", syn.clone().with_ip(|ip| ip.first_byte = Some(0x70)), Malformed),
            ("fragment of TCP", extended(&syn, 44, 6), Fragment),
            ("fragment of UDP", extended(&datagram, 44, 17), Fragment),
        ]);
        table.extend(
            [
                ("hop-by-hop options", 0),
                ("routing header", 43),
                ("authentication header", 51),
                ("destination options", 60),
                ("mobility header", 135),
                ("HIP header", 139),
                ("shim6 header", 140),
            ]
            .map(|(name, number)| (name, extended(&syn, number, 6), ExtensionHeader)),
        );
    }
    let mut cases = Vec::new();
    for (name, frame, reason) in table {
        let elsewhere = frame.clone().with_ip(|ip| ip.destination = family.ip(99));
        cases.push(Case::drop(name, &frame, reason));
        cases.push(Case::new(format!("{name}, not to a VIP"), Hook::Xdp, &elsewhere));
        // What this node sends is not our business.
        cases.push(Case::new(format!("{name}, TC"), Hook::Tc, &frame));
    }
    if family == Family::V6 {
        cases.push(Case::new("fragment of ICMPv6", Hook::Xdp, &extended(&syn, 44, 58)));
        let mut cut = extended(&syn, 44, 6).build();
        cut.truncate(54);
        let verdict = Verdict::Drop(Malformed);
        cases.push(Case { verdict, ..Case::of_bytes("fragment header cut off", Hook::Xdp, cut) });
    } else {
        let icmp = syn.with_ip(|ip| (ip.options, ip.protocol) = (vec![1; 4], Some(1)));
        cases.push(Case::new("ICMP with options to the VIP", Hook::Xdp, &icmp));
    }
    cases
}

/// With an IPv6 extension header of eight bytes.
fn extended(frame: &Frame, number: u8, next: u8) -> Frame {
    frame.clone().with_ip(|ip| (ip.protocol, ip.options) = (Some(number), vec![next, 0, 0, 0, 0, 0, 0, 0]))
}

/// Packets that look odd and are sent on, with all of what is odd about them.
fn odd_but_sound(family: Family) -> Vec<Case> {
    let (flow, udp) = (remote(family, TCP), remote(family, UDP));
    let (syn, datagram) = (flow.client_sends(SYN), udp.client_sends(0));
    let padded = |frame: &Frame, n: usize| frame.clone().with(|f| f.padding = vec![0xee; n]);
    let forward = |name: &str, frame: Frame| Case::forward(name, &flow, &frame).opens();
    let mut cases = vec![
        forward("padding of a byte", padded(&syn, 1)),
        forward("padding of many bytes", padded(&syn, 300)),
        forward("TCP options", syn.clone().with_tcp(|tcp| tcp.options = vec![2, 4, 5, 0xb4, 1, 1, 4, 2])),
        forward("most TCP options", syn.clone().with_tcp(|tcp| tcp.options = vec![1; 40])),
        forward("a SYN with data", syn.clone().carrying(*b"early")),
        forward("ECN set-up", syn.clone().with_tcp(|tcp| tcp.flags = SYN | 0xc0)),
        forward("a SYN with PSH and URG", syn.clone().with_tcp(|tcp| (tcp.flags, tcp.urgent) = (SYN | 0x28, 0xabcd))),
        forward("DSCP and ECN", syn.clone().with_ip(|ip| ip.class = 0xbb)),
        forward("identification of 0", syn.clone().with_ip(|ip| ip.id = 0)),
        forward("from a multicast MAC address", syn.clone().between([[3, 0, 0, 0, 0, 1], NODE_MAC])),
        Case::forward("an empty datagram", &udp, &datagram.clone().carrying([])).opens(),
        Case::forward("a datagram with padding", &udp, &padded(&datagram, 9)).opens(),
        Case::forward("UDP length within the packet", &udp, &datagram.clone().with_udp(|u| u.length = Some(10)))
            .opens(),
    ];
    if family == Family::V4 {
        cases.push(forward("may be fragmented", syn.clone().with_ip(|ip| ip.fragment = 0)));
        cases.push(forward("the reserved bit", syn.clone().with_ip(|ip| ip.fragment = 0x8000)));
    }
    // More than a page: the program sees the first part only.
    for length in [1446, 3000, 5001, 9000] {
        let frame = flow.client_sends(ACK).carrying(vec![0x5a; length]);
        cases.push(Case::forward(format!("{length} bytes of data"), &flow, &frame).after(flow.established()));
        let cut = frame.clone().with_ip(|ip| ip.length = Some(length as u16 + 41));
        cases.push(Case::drop(format!("{length} bytes of data, one missing"), &cut, DropReason::Malformed));
    }
    cases
}
