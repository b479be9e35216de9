//! The sockets of one virtual router: adverts out and in, on one interface.
//!
//! Raw IP sockets, so that the kernel makes the IP header and answers ARP for peers. The source address is set for each
//! packet instead of by `bind(2)`: a bound raw socket would not receive what is sent to the group.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use anyhow::{Context as _, Result};
use etherparse::Ipv4HeaderSlice;
use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
        setsockopt, sockopt,
    },
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use crate::vrrp::{
    checksum::PROTOCOL,
    receive::Header,
    settings::{Settings, Transport},
};

/// The group of VRRP routers (RFC 9568, section 5.1.1.2).
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// The same over IPv6 (RFC 9568, section 5.1.2.2).
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// Sent and demanded: a packet that has passed a router has a smaller one (RFC 9568, sections 5.1.1.3 and 5.1.2.3).
const HOP_LIMIT: u32 = 255;
/// Internetwork control, as routing protocols have it (RFC 4594, section 3.1: CS6), and keepalived.
const TRAFFIC_CLASS: u32 = 0xc0;
/// Longer messages than this are no adverts.
pub const MAX_MESSAGE_BYTES: usize = 2048;

/// The sockets.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    interface: u32,
    source: IpAddr,
    destinations: Vec<IpAddr>,
}

impl Wire {
    /// Opens what the virtual router needs on the interface. Multicast is joined only where no peers are listed.
    ///
    /// # Errors
    /// If the process may not (`CAP_NET_RAW`), or the interface cannot.
    pub fn open(interface: &str, index: u32, settings: &Settings) -> Result<Self> {
        let source = settings.address;
        let domain = if source.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let protocol = Protocol::from(i32::from(PROTOCOL));
        let socket =
            Socket::new(domain, Type::RAW.nonblocking(), Some(protocol)).context("open a raw socket for VRRP")?;
        socket.bind_device(Some(interface.as_bytes())).with_context(|| format!("bind a socket to {interface}"))?;
        let is_multicast = settings.transport == Transport::Multicast;
        let options = match source {
            IpAddr::V4(_) => set_options_v4(&socket, index, is_multicast),
            IpAddr::V6(_) => set_options_v6(&socket, index, is_multicast),
        };
        options.with_context(|| format!("set up the VRRP socket of {interface}"))?;
        let destinations = match (&settings.transport, source) {
            (Transport::Unicast(peers), _) => peers.clone(),
            (Transport::Multicast, IpAddr::V4(_)) => vec![GROUP_V4.into()],
            (Transport::Multicast, IpAddr::V6(_)) => vec![GROUP_V6.into()],
        };
        Ok(Self { socket, interface: index, source, destinations })
    }

    /// Where adverts go: each peer, or the group.
    pub fn destinations(&self) -> &[IpAddr] {
        &self.destinations
    }

    /// Sends a message.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&self, message: &[u8], destination: IpAddr) -> io::Result<()> {
        let data = [IoSlice::new(message)];
        let sent = match (self.source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: self.interface.cast_signed(),
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let to = SockaddrIn::from(SocketAddrV4::new(destination, 0));
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(self.socket.as_raw_fd(), &data, &control, MsgFlags::MSG_DONTWAIT, Some(&to))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
                    ipi6_ifindex: self.interface,
                };
                let to = SockaddrIn6::from(SocketAddrV6::new(destination, 0, 0, self.interface));
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(self.socket.as_raw_fd(), &data, &control, MsgFlags::MSG_DONTWAIT, Some(&to))
            }
            _ => Err(Errno::EAFNOSUPPORT),
        };
        Ok(sent.map(drop)?)
    }

    /// The next message that waits, with what its IP header said; none if none waits. What is no whole IP packet is
    /// passed over.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<(Header, &'b [u8])>> {
        let mut control = cmsg_space!(libc::in6_pktinfo, libc::c_int);
        let (n, sender, destination, hop_limit) = {
            let mut data = [IoSliceMut::new(buffer)];
            let received = match recvmsg::<SockaddrStorage>(
                self.socket.as_raw_fd(),
                &mut data,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            ) {
                Ok(received) => received,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let (mut destination, mut hop_limit) = (Ipv6Addr::UNSPECIFIED, 0);
            for message in received.cmsgs()? {
                match message {
                    ControlMessageOwned::Ipv6PacketInfo(info) => destination = info.ipi6_addr.s6_addr.into(),
                    ControlMessageOwned::Ipv6HopLimit(limit) => hop_limit = u8::try_from(limit).unwrap_or(0),
                    _ => {}
                }
            }
            (received.bytes, received.address, destination, hop_limit)
        };
        let packet = &buffer[..n];
        if self.source.is_ipv4() {
            // The kernel passes the IP header up, and has checked it (raw(7)).
            let Ok(ip) = Ipv4HeaderSlice::from_slice(packet) else { return Ok(Some((NO_HEADER, &[]))) };
            let header = Header {
                source: ip.source_addr().into(),
                destination: ip.destination_addr().into(),
                hop_limit: ip.ttl(),
            };
            return Ok(Some((header, &packet[ip.slice().len()..])));
        }
        let source = sender.as_ref().and_then(SockaddrStorage::as_sockaddr_in6).map(SockaddrIn6::ip);
        let source = source.unwrap_or(Ipv6Addr::UNSPECIFIED).into();
        Ok(Some((Header { source, destination: destination.into(), hop_limit }, packet)))
    }
}

/// Of what is no packet: refused by the first check.
const NO_HEADER: Header =
    Header { source: IpAddr::V4(Ipv4Addr::UNSPECIFIED), destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED), hop_limit: 0 };

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn set_options_v4(socket: &Socket, index: u32, is_multicast: bool) -> io::Result<()> {
    socket.set_ttl_v4(HOP_LIMIT)?;
    socket.set_tos_v4(TRAFFIC_CLASS)?;
    if is_multicast {
        socket.set_multicast_ttl_v4(HOP_LIMIT)?;
        socket.set_multicast_loop_v4(false)?;
        socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index))?;
    }
    Ok(())
}

fn set_options_v6(socket: &Socket, index: u32, is_multicast: bool) -> io::Result<()> {
    socket.set_unicast_hops_v6(HOP_LIMIT)?;
    socket.set_tclass_v6(TRAFFIC_CLASS)?;
    setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    setsockopt(socket, sockopt::Ipv6RecvHopLimit, &true)?;
    if is_multicast {
        socket.set_multicast_hops_v6(HOP_LIMIT)?;
        socket.set_multicast_if_v6(index)?;
        socket.set_multicast_loop_v6(false)?;
        socket.join_multicast_v6(&GROUP_V6, index)?;
    }
    Ok(())
}
