//! Cases of what a packet looks like: which are ours, which are sound.

use kplb_common::{
    net::{TCP, UDP},
    verdict::{DropReason, PassReason, ResetReason, Verdict},
};
use kplb_tests::{
    frames::{ACK, FIN, Frame, RST, SYN},
    testbed::Hook,
};

use crate::{
    case::Case,
    scene::{CLIENT_MAC, Family, Flow, KEPT_PORT, Kind, NODE_MAC},
    traffic::{BACKEND_ISN, reset_of},
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
        Case { verdict: not_ip, ..Case::new("ARP", Hook::Ingress, &syn.clone().with(|f| f.ethertype = Some(0x0806))) },
        Case {
            verdict: not_ip,
            ..Case::new("ARP, TC", Hook::Egress, &syn.clone().with(|f| f.ethertype = Some(0x0806)))
        },
    ];
    let unicast =
        [("another host's MAC address", [2, 0, 0, 0, 9, 9]), ("one bit off in the MAC address", [2, 0, 0, 0, 1, 0])];
    let group = [("broadcast", [0xff; 6]), ("multicast", [1, 0, 0x5e, 0, 0, 1])];
    // It may be the node's new one, which the kernel has told of already.
    for flow in [TCP, UDP].map(|protocol| remote(family, protocol)) {
        let kind = if flow.protocol == TCP { "TCP" } else { "UDP" };
        let [data, reply] = [flow.data(), flow.reply_data()];
        for (name, mac) in unicast {
            let [data, reply] = [&data, &reply].map(|frame| frame.clone().between([CLIENT_MAC, mac]));
            cases.push(Case::forward(format!("established {kind} to {name}"), &flow, &data).after(flow.established()));
            cases.push(Case::reply(format!("{kind} reply to {name}"), &flow, &reply).after(flow.established()));
        }
        for (name, mac) in group {
            let data = data.clone().between([CLIENT_MAC, mac]);
            let case = Case::new(format!("established {kind} to {name}"), Hook::Ingress, &data);
            cases.push(case.after(flow.established()));
        }
    }
    for (name, mac) in unicast {
        let end = flow.client_sends(FIN | ACK).between([CLIENT_MAC, mac]);
        let case = Case::new(format!("an end to {name}"), Hook::Ingress, &end);
        cases.push(case.after(flow.established()));
    }
    for (name, mac) in unicast.into_iter().chain(group) {
        let frame = syn.clone().between([CLIENT_MAC, mac]);
        cases.push(Case::new(format!("to {name}"), Hook::Ingress, &frame));
        cases.push(Case::new(format!("not IP to {name}"), Hook::Ingress, &frame.with(|f| f.ethertype = Some(0x0806))));
    }
    cases
}

fn not_ours(family: Family) -> Vec<Case> {
    let (tcp, udp) = (remote(family, TCP), remote(family, UDP));
    let syn = tcp.client_sends(SYN);
    let icmp = if family == Family::V4 { 1 } else { 58 };
    let pass = |name: &str, frame: &Frame| Case::new(name, Hook::Ingress, frame);
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
        Case::new(
            "the reply of the node's backend by the wire",
            Hook::Ingress,
            &local.backend_sends(ACK).between(macs),
        )
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
            let mut case = Case::of_bytes(format!("{name} cut to {length}"), Hook::Ingress, frame.clone());
            // From here on its destination is known. TC gets no packet without an IP header, which the kernel takes
            // for granted there.
            if length >= family.l4_offset() {
                case.verdict = Verdict::Drop(DropReason::Malformed);
                cases.push(Case::of_bytes(format!("{name} cut to {length}, TC"), Hook::Egress, frame));
            }
            cases.push(case);
        }
    }
    cases
}

/// Packets that contradict themselves: dropped if to a VIP, and passed if not.
fn unsound(family: Family) -> Vec<Case> {
    use DropReason::{ExtensionHeader, IpOptions, Malformed};

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
        let options = |options: &[u8]| {
            let mut options = options.to_vec();
            options.resize(options.len().next_multiple_of(4), 0);
            syn.clone().with_ip(|ip| ip.options = options)
        };
        table.extend([
            ("version 6 in IPv4", syn.clone().with_ip(|ip| ip.first_byte = Some(0x65)), Malformed),
            ("version 0", syn.clone().with_ip(|ip| ip.first_byte = Some(0x05)), Malformed),
            ("IHL of 4", syn.clone().with_ip(|ip| ip.first_byte = Some(0x44)), Malformed),
            ("IHL of 0", syn.clone().with_ip(|ip| ip.first_byte = Some(0x40)), Malformed),
            ("IHL beyond the packet", syn.clone().with_ip(|ip| ip.first_byte = Some(0x4f)), Malformed),
            ("a loose source route", options(&[131, 7, 4, 198, 18, 0, 12]), IpOptions),
            ("a strict source route behind fillers", options(&[1, 1, 1, 137, 7, 4, 198, 18, 0, 12]), IpOptions),
            ("a source route behind a time stamp", options(&[68, 8, 5, 0, 0, 0, 0, 0, 131, 3, 4]), IpOptions),
            ("an option of no length", options(&[148, 0, 0, 0]), Malformed),
            ("an option of one byte with a length", options(&[148, 1, 0, 0]), Malformed),
            ("an option beyond the header", options(&[148, 5, 0, 0]), Malformed),
            ("an option longer than all can be", options(&[148, 255, 0, 0]), Malformed),
            ("an option cut off", options(&[1, 1, 1, 148]), Malformed),
            ("IP length within its header", syn.clone().with_ip(|ip| ip.length = Some(header - 1)), Malformed),
            ("IP length of 0", syn.clone().with_ip(|ip| ip.length = Some(0)), Malformed),
        ]);
    } else {
        table.extend([
            ("version 4 in IPv6", syn.clone().with_ip(|ip| ip.first_byte = Some(0x40)), Malformed),
            ("version 7", syn.clone().with_ip(|ip| ip.first_byte = Some(0x70)), Malformed),
            ("a header beyond the packet", extended(&syn, &[(60, 1)]).with_ip(|ip| ip.length = Some(12)), Malformed),
            ("TCP cut off behind a header", extended(&syn, &[(0, 0)]).with_ip(|ip| ip.length = Some(27)), Malformed),
            ("six headers", extended(&syn, &[(0, 0), (60, 0), (43, 0), (60, 0), (60, 0), (60, 0)]), ExtensionHeader),
            ("a header that is too long", extended(&syn, &[(60, 30)]), ExtensionHeader),
            ("headers that are too long together", extended(&syn, &[(0, 9), (60, 9)]), ExtensionHeader),
            ("two fragment headers", extended(&syn, &[(44, 0), (44, 0)]), ExtensionHeader),
            (
                "a routing header with a hop to go",
                extended(&syn, &[(43, 0)]).with_ip(|ip| ip.options[3] = 1),
                ExtensionHeader,
            ),
        ]);
        table.extend(
            [("authentication header", 51), ("mobility header", 135), ("HIP header", 139), ("shim6 header", 140)]
                .map(|(name, number)| (name, extended(&syn, &[(number, 0)]), ExtensionHeader)),
        );
        table.push(("an authentication header behind others", extended(&syn, &[(0, 0), (51, 0)]), ExtensionHeader));
    }
    let mut cases = Vec::new();
    for (name, frame, reason) in table {
        let elsewhere = frame.clone().with_ip(|ip| ip.destination = family.ip(99));
        cases.push(Case::drop(name, &frame, reason));
        cases.push(Case::new(format!("{name}, not to a VIP"), Hook::Ingress, &elsewhere));
        // What this node sends is not our business.
        cases.push(Case::new(format!("{name}, TC"), Hook::Egress, &frame));
    }
    if family == Family::V6 {
        for number in [0, 43, 44, 60] {
            let mut cut = extended(&syn, &[(number, 0)]).build();
            cut.truncate(61);
            let verdict = Verdict::Drop(Malformed);
            cases.push(Case { verdict, ..Case::of_bytes(format!("header {number} cut off"), Hook::Ingress, cut) });
            let esp = extended(&syn, &[(number, 0)]).with_ip(|ip| ip.options[0] = 50);
            cases.push(Case::new(format!("ESP behind header {number}"), Hook::Ingress, &esp));
        }
    } else {
        let icmp = syn.with_ip(|ip| (ip.options, ip.protocol) = (vec![1; 4], Some(1)));
        cases.push(Case::new("ICMP with options to the VIP", Hook::Ingress, &icmp));
    }
    cases
}

/// With these IPv6 extension headers: number, and length in units of eight bytes without the first.
fn extended(frame: &Frame, headers: &[(u8, u8)]) -> Frame {
    let mut next = frame.transport.protocol();
    let mut chain = Vec::new();
    for &(number, length) in headers.iter().rev() {
        let mut header = vec![0; 8 + usize::from(length) * 8];
        header[..2].copy_from_slice(&[next, length]);
        chain.splice(0..0, header);
        next = number;
    }
    frame.clone().with_ip(|ip| (ip.protocol, ip.options) = (Some(next), chain))
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
        let options: [(&str, &[u8]); 6] = [
            ("a filler", &[1]),
            ("forty fillers", &[1; 40]),
            ("an end of options, and what is none", &[0, 131, 7, 4]),
            ("a router alert", &[148, 4, 0, 0]),
            ("a time stamp", &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("a record of the route", &[1, 7, 39, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ];
        for (name, options) in options {
            let length = if options.len() > 20 { 40 } else { options.len().next_multiple_of(4) };
            let with_options = |frame: &Frame| {
                frame.clone().with_ip(|ip| {
                    ip.options = options.to_vec();
                    ip.options.resize(length, 0);
                })
            };
            cases.extend(odd_headers(family, name, with_options));
        }
    } else {
        let chains: [(&str, &[(u8, u8)]); 8] = [
            ("hop-by-hop options", &[(0, 0)]),
            ("long destination options", &[(60, 4)]),
            ("a routing header that has been used", &[(43, 2)]),
            ("a fragment header of a whole datagram", &[(44, 0)]),
            ("all headers that there may be", &[(0, 0), (60, 0), (43, 0), (44, 0), (60, 0)]),
            ("headers as long as is looked at", &[(0, 9), (60, 6)]),
            ("two of a kind", &[(60, 0), (60, 1)]),
            ("hop-by-hop options in the wrong place", &[(60, 0), (0, 0)]),
        ];
        for (name, chain) in chains {
            cases.extend(odd_headers(family, name, |frame| extended(frame, chain)));
        }
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

/// Packets of every kind with odd headers.
fn odd_headers(family: Family, name: &str, with_headers: impl Fn(&Frame) -> Frame) -> Vec<Case> {
    let mut cases = Vec::new();
    for (protocol_name, protocol) in [("TCP", TCP), ("UDP", UDP)] {
        for (place, kind) in [("remote", Kind::Remote), ("local", Kind::Local)] {
            let flow = Flow::new(family, protocol, kind);
            let name = |what: &str| format!("{what} with {name}, {protocol_name}, {place}");
            let (data, reply_data) = (with_headers(&flow.data()), with_headers(&flow.reply_data()));
            cases.extend([
                Case::forward(name("a first packet"), &flow, &with_headers(&flow.client_sends(SYN))).opens(),
                Case::forward(name("data"), &flow, &data).after(flow.established()),
                Case::reply(name("reply data"), &flow, &reply_data).after(flow.established()),
            ]);
        }
    }
    let data = with_headers(&remote(family, TCP).data());
    let mut answer = reset_of(&data, BACKEND_ISN.wrapping_add(1), 0, RST);
    answer.padding = data.build()[family.l4_offset() + 20..].to_vec();
    cases.push(Case::reset(format!("data of no flow with {name}"), &data, ResetReason::UnknownFlow, &answer));
    cases
}
