//! The packets of a flow, before and after kplb.

use kplb_common::{
    flow::Direction,
    net::TCP,
    verdict::{ForwardReason, Verdict},
};
use kplb_tests::{
    frames::{ACK, FIN, Frame, Ip, PSH, RST, SYN, Tcp, Transport},
    testbed::Hook,
};

use crate::{
    case::Step,
    scene::{Flow, NODE_MAC, Place},
};

/// The client's initial sequence number.
pub const CLIENT_ISN: u32 = 0x1000_0000;
/// The backend's; the next one wraps.
pub const BACKEND_ISN: u32 = 0xffff_ffff;

impl Flow {
    /// A packet of the client: a TCP segment with these flags, or a datagram.
    pub fn client_sends(&self, flags: u8) -> Frame {
        let macs = [self.client_mac, NODE_MAC];
        if self.protocol != TCP {
            return Frame::udp(macs, self.client, self.vip);
        }
        Frame::tcp(macs, self.client, self.vip, flags).with_tcp(|tcp| {
            tcp.sequence = if flags & SYN != 0 { CLIENT_ISN } else { CLIENT_ISN.wrapping_add(1) };
            tcp.acknowledgement = if flags & ACK != 0 { BACKEND_ISN.wrapping_add(1) } else { 0 };
        })
    }

    /// The client's packet as the backend gets it.
    pub fn backend_gets(&self, frame: &Frame) -> Frame {
        let frame = frame.clone().from(self.nat).to(self.backend);
        match self.place {
            Place::Local => frame,
            Place::Remote => frame.between([NODE_MAC, self.backend_mac]).one_hop_on(),
        }
    }

    /// A packet of the backend.
    pub fn backend_sends(&self, flags: u8) -> Frame {
        let macs = match self.place {
            Place::Local => [NODE_MAC, self.client_mac],
            Place::Remote => [self.backend_mac, NODE_MAC],
        };
        if self.protocol != TCP {
            return Frame::udp(macs, self.backend, self.nat);
        }
        Frame::tcp(macs, self.backend, self.nat, flags).with_tcp(|tcp| {
            tcp.sequence = if flags & SYN != 0 { BACKEND_ISN } else { BACKEND_ISN.wrapping_add(1) };
            tcp.acknowledgement = if flags & ACK != 0 { CLIENT_ISN.wrapping_add(1) } else { 0 };
        })
    }

    /// The backend's packet as the client gets it.
    pub fn client_gets(&self, frame: &Frame) -> Frame {
        let frame = frame.clone().from(self.vip).to(self.client);
        match self.place {
            Place::Local => frame,
            Place::Remote => frame.between([NODE_MAC, self.client_mac]).one_hop_on(),
        }
    }

    /// Where the backend's packets meet kplb.
    pub fn reply_hook(&self) -> Hook {
        match self.place {
            Place::Local => Hook::Egress,
            Place::Remote => Hook::Ingress,
        }
    }

    /// Of a packet that goes on in this direction.
    pub fn verdict(&self, direction: Direction) -> Verdict {
        Verdict::Forward(match (direction, self.place) {
            (Direction::ToBackend, Place::Remote) => ForwardReason::ToBackend,
            (Direction::ToBackend, Place::Local) => ForwardReason::ToLocalBackend,
            (Direction::ToClient, Place::Remote) => ForwardReason::ToClient,
            (Direction::ToClient, Place::Local) => ForwardReason::ToClientLocal,
        })
    }

    /// The client has sent this.
    pub fn client_sent(&self, frame: &Frame) -> Step {
        Step::Send(Hook::Ingress, frame.build(), self.verdict(Direction::ToBackend))
    }

    /// The backend has sent this.
    pub fn backend_sent(&self, frame: &Frame) -> Step {
        Step::Send(self.reply_hook(), frame.build(), self.verdict(Direction::ToClient))
    }

    /// The client has sent its first packet.
    pub fn opened(&self) -> Vec<Step> {
        vec![self.client_sent(&self.client_sends(SYN))]
    }

    /// The backend has answered.
    pub fn answered(&self) -> Vec<Step> {
        let mut steps = self.opened();
        steps.push(self.backend_sent(&self.backend_sends(SYN | ACK)));
        steps
    }

    /// The client has proved that it is there.
    pub fn established(&self) -> Vec<Step> {
        let mut steps = self.answered();
        steps.push(self.client_sent(&self.client_sends(ACK)));
        steps
    }

    /// The client will send no more.
    pub fn ended_by_client(&self) -> Vec<Step> {
        let mut steps = self.established();
        steps.push(self.client_sent(&self.client_sends(FIN | ACK)));
        steps
    }

    /// The backend will send no more.
    pub fn ended_by_backend(&self) -> Vec<Step> {
        let mut steps = self.established();
        steps.push(self.backend_sent(&self.backend_sends(FIN | ACK)));
        steps
    }

    /// Both will send no more.
    pub fn closed(&self) -> Vec<Step> {
        let mut steps = self.ended_by_client();
        steps.push(self.backend_sent(&self.backend_sends(FIN | ACK)));
        steps
    }

    /// The client has reset the connection.
    pub fn reset(&self) -> Vec<Step> {
        let mut steps = self.established();
        steps.push(self.client_sent(&self.client_sends(RST)));
        steps
    }

    /// Data of the client.
    pub fn data(&self) -> Frame {
        self.client_sends(ACK | PSH).carrying(*b"GET /version")
    }

    /// Data of the backend.
    pub fn reply_data(&self) -> Frame {
        self.backend_sends(ACK | PSH).carrying(*b"200 OK, odd")
    }
}

/// The frame that resets the sender of a TCP segment: RFC 9293, 3.10.7.1, with the rest of the frame left as padding.
pub fn reset_of(frame: &Frame, sequence: u32, acknowledgement: u32, flags: u8) -> Frame {
    let Transport::Tcp(tcp) = &frame.transport else { panic!("only TCP is reset") };
    let length = if frame.ip.source.is_ipv4() { 14 + 20 + 20 } else { 14 + 40 + 20 };
    let answer = Tcp {
        source: tcp.destination,
        destination: tcp.source,
        sequence,
        acknowledgement,
        flags,
        window: 0,
        ..Tcp::default()
    };
    Frame {
        destination_mac: frame.source_mac,
        source_mac: frame.destination_mac,
        ethertype: None,
        ip: Ip {
            source: frame.ip.destination,
            destination: frame.ip.source,
            hops: 64,
            class: 0,
            id: 0,
            fragment: 0x4000,
            first_byte: None,
            length: None,
            protocol: None,
            checksum: None,
            options: Vec::new(),
        },
        transport: Transport::Tcp(answer),
        payload: Vec::new(),
        padding: frame.build()[length..].to_vec(),
    }
}
