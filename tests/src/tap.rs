//! An interface whose wire is a file: what is written comes in, with what hardware would leave to be done; what goes out is
//! read.
//!
//! # Minimum kernel version
//! 6.2, for datagrams of many segments.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
};

use anyhow::{Context as _, Result, ensure};
use aya::util::KernelVersion;
use nix::{
    libc,
    sys::uio::{readv, writev},
};

use crate::{frames::sum, netns::Namespace};

// include/uapi/linux/if_tun.h
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
/// Checksums, and segmentation of TCP over IPv4 and IPv6, of which explicit congestion notification is no obstacle.
const OFFLOADS: libc::c_ulong = 0x01 | 0x02 | 0x04 | 0x08;
/// Segmentation of UDP over both.
const DATAGRAM_OFFLOADS: libc::c_ulong = 0x20 | 0x40;

// include/uapi/linux/virtio_net.h
const NEEDS_CHECKSUM: u8 = 1;
const HEADER: usize = 10;

/// More than any packet.
const LARGEST: usize = 200_000;

/// A packet with what is left to be done.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Packet {
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
    /// Where to begin to sum up, and where in that to put the checksum, which holds the sum of the pseudo-header.
    pub unfinished: Option<(u16, u16)>,
    /// That it is of many segments.
    pub segments: Option<Segments>,
    /// How many bytes are in linear memory, if the packet is longer than a page; zero leaves it to the kernel.
    pub n_linear: u16,
}

/// How a packet is to be cut up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Segments {
    /// Of which protocol.
    pub kind: SegmentKind,
    /// Bytes of data of each but the last one.
    pub size: u16,
}

/// `VIRTIO_NET_HDR_GSO_*`
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum SegmentKind {
    /// TCP over IPv4.
    TcpV4 = 1,
    /// TCP over IPv6.
    TcpV6 = 4,
    /// UDP.
    Udp = 5,
}

/// The interface. It is gone when this is dropped.
#[derive(Debug)]
pub struct Tap(File);

/// The start of `struct ifreq`.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    _rest: [u8; 22],
}

/// Whether the kernel's interfaces of this kind take datagrams of many segments ([`SegmentKind::Udp`]): from 6.2 on.
///
/// # Errors
/// If the kernel does not tell its version.
pub fn takes_segments_of_datagrams() -> Result<bool> {
    Ok(KernelVersion::current()? >= KernelVersion::new(6, 2, 0))
}

impl Tap {
    /// Makes the interface, and takes it up.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new(namespace: &Namespace, name: &str) -> Result<Self> {
        ensure!(name.len() < libc::IFNAMSIZ, "{name} is too long a name");
        let mut request =
            InterfaceRequest { name: [0; libc::IFNAMSIZ], flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, _rest: [0; 22] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        let offloads = if takes_segments_of_datagrams()? { OFFLOADS | DATAGRAM_OFFLOADS } else { OFFLOADS };
        let file = namespace.run(move || -> Result<File> {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open("/dev/net/tun")
                .context("open /dev/net/tun")?;
            // SAFETY: the request is a `struct ifreq` with a name that ends.
            check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw const request) }).context("make a tap")?;
            // SAFETY: takes a number.
            check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, offloads) })
                .context("set offloads of a tap")?;
            Ok(file)
        })?;
        namespace.ip(&format!("link set {name} addrgenmode none\nlink set {name} up"))?;
        Ok(Self(file))
    }

    /// Lets a packet come in. The kernel has received it when this returns.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn send(&self, packet: &Packet) -> Result<()> {
        let header = packet.header();
        let parts = [io::IoSlice::new(&header), io::IoSlice::new(&packet.bytes)];
        writev(&self.0, &parts).with_context(|| format!("send {} bytes into a tap", packet.bytes.len()))?;
        Ok(())
    }

    /// The next packet that went out; none, if there was none yet.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn receive(&self) -> Result<Option<Packet>> {
        let (mut header, mut bytes) = ([0; HEADER], vec![0; LARGEST]);
        let read = readv(&self.0, &mut [io::IoSliceMut::new(&mut header), io::IoSliceMut::new(&mut bytes)]);
        match read {
            Ok(n) => {
                bytes.truncate(n.saturating_sub(HEADER));
                Ok(Some(Packet::parse(&header, bytes)?))
            }
            Err(nix::errno::Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error).context("read from a tap"),
        }
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Packet {
    /// A frame of which nothing is left to be done.
    pub fn whole(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// `struct virtio_net_hdr`
    fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let mut put = |at: usize, value: u16| header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        put(2, self.n_linear);
        if let Some(segments) = self.segments {
            put(4, segments.size);
        }
        if let Some((start, offset)) = self.unfinished {
            put(6, start);
            put(8, offset);
        }
        header[0] = if self.unfinished.is_some() { NEEDS_CHECKSUM } else { 0 };
        header[1] = self.segments.map_or(0, |segments| segments.kind as u8);
        header
    }

    fn parse(header: &[u8; HEADER], bytes: Vec<u8>) -> Result<Self> {
        let number = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let kind = match header[1] {
            0 => None,
            1 => Some(SegmentKind::TcpV4),
            4 => Some(SegmentKind::TcpV6),
            5 => Some(SegmentKind::Udp),
            other => anyhow::bail!("a packet of segments of kind {other}"),
        };
        let unfinished = (header[0] & NEEDS_CHECKSUM != 0).then(|| (number(6), number(8)));
        let segments = kind.map(|kind| Segments { kind, size: number(4) });
        Ok(Self { bytes, unfinished, segments, n_linear: 0 })
    }

    /// The bytes once the checksum is finished, as hardware would do it.
    ///
    /// # Panics
    /// If it lies outside of the packet.
    pub fn finished(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if let Some((start, offset)) = self.unfinished {
            let start = usize::from(start);
            let checksum = match !sum(&[&bytes[start..]]) {
                // UDP has another zero (RFC 768); for TCP both are the same.
                0 => 0xffff,
                checksum => checksum,
            };
            let at = start + usize::from(offset);
            bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        bytes
    }
}
