//! Whole frames on one interface of the lab, in both directions, with the kernel's own timestamps.

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    libc, setsockopt_impl, sockopt_impl,
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg,
            sendto, setsockopt, socket, sockopt,
        },
        time::{TimeSpec, TimeVal},
    },
};

use crate::netns::Namespace;

/// More than any frame of the lab: they are at most an MTU long.
const MAX_FRAME: usize = 2048;

/// Which way a frame went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// Out of the interface.
    Sent,
    /// Into it.
    Received,
}

/// A frame as it passed the interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// When, by the clock that tests use.
    pub at: Instant,
    /// When, by the calendar.
    pub time: SystemTime,
    /// Which way.
    pub direction: Direction,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
}

sockopt_impl!(
    /// To be told what the kernel keeps apart from a frame's bytes.
    AuxiliaryData,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_AUXDATA,
    bool
);

/// A socket that sees and sends whole frames.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    interface: LinkAddr,
}

impl PacketSocket {
    /// Opens one on an interface of a namespace. It stays there whichever thread uses it.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        namespace.run(|| Self::open_here(interface)).with_context(|| format!("{}: {interface}", namespace.name()))
    }

    fn open_here(interface: &str) -> Result<Self> {
        let address = getifaddrs()
            .context("list interface addresses")?
            .filter(|entry| entry.interface_name == interface)
            .find_map(|entry| entry.address.and_then(|address| address.as_link_addr().copied()))
            .context("find the link address")?;
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
            .context("open a packet socket")?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("ask for timestamps")?;
        setsockopt(&socket, AuxiliaryData, &true).context("ask for VLAN tags")?;
        bind(socket.as_raw_fd(), &address).context("bind a packet socket")?;
        Ok(Self { socket, interface: address })
    }

    /// Sends a frame as it is.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        sendto(self.socket.as_raw_fd(), frame, &self.interface, MsgFlags::empty()).context("send a frame")?;
        Ok(())
    }

    /// The next frame, if there is one within `patience`.
    pub fn receive(&self, patience: Duration) -> Result<Option<Frame>> {
        // Zero would mean without end.
        let micros = i64::try_from(patience.as_micros())?.max(1);
        setsockopt(&self.socket, sockopt::ReceiveTimeout, &TimeVal::new(micros / 1_000_000, micros % 1_000_000))?;
        let mut bytes = vec![0; MAX_FRAME];
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let mut control = nix::cmsg_space!(TimeSpec, [u8; AUXILIARY_DATA]);
        let received = recvmsg::<LinkAddr>(self.socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty());
        let message = match received {
            Ok(message) => message,
            // The interface went down: it may come up again.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => return Ok(None),
            Err(error) => return Err(io::Error::from(error)).context("receive a frame"),
        };
        let (now, today) = (Instant::now(), SystemTime::now());
        let (mut time, mut tag) = (today, None);
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::ScmTimestampns(since) => time = SystemTime::UNIX_EPOCH + Duration::from(since),
                ControlMessageOwned::Unknown(unknown) if is_auxiliary_data(&unknown.cmsg_header) => {
                    tag = outermost_tag(&unknown.data_bytes);
                }
                _ => {}
            }
        }
        let is_sent = message.address.is_some_and(|address| address.pkttype() == libc::PACKET_OUTGOING);
        let n = message.bytes;
        bytes.truncate(n);
        bytes.splice(12..12, tag.into_iter().flatten());
        Ok(Some(Frame {
            at: now.checked_sub(today.duration_since(time).unwrap_or_default()).unwrap_or(now),
            time,
            direction: if is_sent { Direction::Sent } else { Direction::Received },
            bytes,
        }))
    }
}

/// Bytes of `struct tpacket_auxdata` of `include/uapi/linux/if_packet.h`.
const AUXILIARY_DATA: usize = 20;

fn is_auxiliary_data(header: &libc::cmsghdr) -> bool {
    (header.cmsg_level, header.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA)
}

/// The VLAN tag that the kernel keeps apart from the frame's bytes.
fn outermost_tag(data: &[u8]) -> Option<[u8; 4]> {
    let word = |at: usize| Some(u16::from_ne_bytes(data.get(at..at + 2)?.try_into().ok()?));
    let status = u32::from_ne_bytes(data.get(..4)?.try_into().ok()?);
    if status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let ([a, b], [c, d]) = (word(18)?.to_be_bytes(), word(16)?.to_be_bytes());
    Some([a, b, c, d])
}
