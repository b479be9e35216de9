//! Ending sockets of this node's clients whose backend is gone, so that they connect anew at once (`SOCK_DESTROY` of
//! sock_diag(7)).
//!
//! Sockets are told apart by their cookies, which are unique on the machine; a socket is seen only from within its
//! network namespace. So this node's own namespace is searched first, and then those of other processes, until every
//! socket is found or there are no more.
//!
//! # Minimum kernel version
//! 4.5, with `CONFIG_INET_DIAG_DESTROY`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use kplb_common::net::{TCP, UDP};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_sock_diag::{
    SockDiagDestroy, SockDiagMessage,
    constants::{AF_INET, AF_INET6},
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
};

const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";
const PROCESSES: &str = "/proc";
/// Until sockets that are being connected are listed.
const SECOND_LOOK: Duration = Duration::from_millis(100);

/// Whether this kernel can end sockets.
///
/// # Errors
/// If it cannot be asked.
pub fn can_be_ended() -> Result<bool> {
    let mut diag = Diag::open()?;
    // Nobody has such a socket, from port 0 to port 0.
    let nobody = InetRequest { socket_id: SocketId::new_v4(), ..request(AF_INET, TCP) };
    if !diag.knows(TCP)? {
        return Ok(false);
    }
    match diag.end(nobody) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EOPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno).context("ask the kernel whether it ends sockets"),
    }
}

/// What became of sockets that were to be ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ended {
    /// As many were ended.
    pub n_ended: usize,
    /// As many were not found, be it that they had been closed, or that their namespace cannot be seen from here.
    pub n_unseen: usize,
}

/// Ends sockets by their cookies. To be called on a thread that does nothing else afterwards: it may be left in another
/// network namespace.
///
/// # Errors
/// If not even those of this namespace can be searched.
pub fn end(mut cookies: BTreeSet<u64>) -> Result<Ended> {
    let mut n_ended = end_here(&mut cookies)?;
    if !cookies.is_empty() {
        let namespaces = namespaces()?;
        n_ended += end_everywhere(&mut cookies, &namespaces);
        if !cookies.is_empty() {
            // A socket is known by its cookie a moment before the kernel lists it: when it is being connected.
            thread::sleep(SECOND_LOOK);
            n_ended += end_everywhere(&mut cookies, &namespaces);
        }
    }
    Ok(Ended { n_ended, n_unseen: cookies.len() })
}

fn end_everywhere(cookies: &mut BTreeSet<u64>, namespaces: &[File]) -> usize {
    let mut n_ended = 0;
    for namespace in namespaces {
        // Not to be entered: its sockets are counted as unseen.
        if !cookies.is_empty() && setns(namespace, CloneFlags::CLONE_NEWNET).is_ok() {
            n_ended += end_here(cookies).unwrap_or(0);
        }
    }
    n_ended
}

/// The network namespaces of all processes that can be seen, this one's first.
fn namespaces() -> Result<Vec<File>> {
    let mut seen = BTreeSet::new();
    let mut namespaces: Vec<File> = unseen(Path::new(OWN_NAMESPACE), &mut seen).into_iter().collect();
    for entry in fs::read_dir(PROCESSES).context("list processes")? {
        let path = entry.context("list processes")?.path().join("ns/net");
        if let Some(namespace) = unseen(&path, &mut seen) {
            namespaces.push(namespace);
        }
    }
    Ok(namespaces)
}

/// The namespace, unless it is of no process any more, or was seen before.
fn unseen(path: &Path, seen: &mut BTreeSet<(u64, u64)>) -> Option<File> {
    let file = File::open(path).ok()?;
    let id = file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok()?;
    seen.insert(id).then_some(file)
}

/// Ends those of the sockets that are in this thread's namespace, and takes them off the list.
fn end_here(cookies: &mut BTreeSet<u64>) -> Result<usize> {
    let mut diag = Diag::open()?;
    let mut n_ended = 0;
    for protocol in [TCP, UDP] {
        if !diag.knows(protocol)? {
            continue;
        }
        for family in [AF_INET, AF_INET6] {
            for socket in diag.list(family, protocol)? {
                if cookies.remove(&cookie(&socket.socket_id)) {
                    let request = InetRequest { socket_id: socket.socket_id, ..request(family, protocol) };
                    // One that was closed in the meantime is as good as ended.
                    n_ended += usize::from(diag.end(request).is_ok());
                }
            }
        }
    }
    Ok(n_ended)
}

/// The kernel gives the lower half first, whatever its byte order (`sock_diag_save_cookie`).
fn cookie(socket: &SocketId) -> u64 {
    let [a, b, c, d, e, f, g, h] = socket.cookie;
    u64::from(u32::from_ne_bytes([e, f, g, h])) << 32 | u64::from(u32::from_ne_bytes([a, b, c, d]))
}

/// Asks for sockets that are connected, or about to be.
fn request(family: u8, protocol: u8) -> InetRequest {
    let other = StateFlags::LISTEN | StateFlags::SYN_RECV | StateFlags::TIME_WAIT | StateFlags::CLOSE;
    InetRequest {
        family,
        protocol,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all().difference(other),
        socket_id: if family == AF_INET6 { SocketId::new_v6() } else { SocketId::new_v4() },
    }
}

/// A socket of sock_diag(7).
struct Diag(Socket);

impl Diag {
    fn open() -> Result<Self> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        open().map(Self).context("open a socket of sock_diag")
    }

    /// Whether this kernel shows sockets of the protocol.
    fn knows(&mut self, protocol: u8) -> Result<bool> {
        let none = InetRequest { states: StateFlags::empty(), ..request(AF_INET, protocol) };
        match self.dump(none) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno).context("ask the kernel for sockets"),
        }
    }

    fn list(&mut self, family: u8, protocol: u8) -> Result<Vec<InetResponseHeader>> {
        self.dump(request(family, protocol)).context("list sockets")
    }

    fn dump(&mut self, request: InetRequest) -> Result<Vec<InetResponseHeader>, Errno> {
        self.send(SockDiagMessage::InetRequest(request), NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut sockets = Vec::new();
        self.receive::<SockDiagMessage>(|message| {
            if let SockDiagMessage::InetResponse(response) = message {
                sockets.push(response.header);
            }
        })?;
        Ok(sockets)
    }

    fn end(&mut self, request: InetRequest) -> Result<(), Errno> {
        let message = SockDiagDestroy::new(SockDiagMessage::InetRequest(request));
        self.send(message, NLM_F_REQUEST | NLM_F_ACK)?;
        self.receive::<SockDiagMessage>(drop)
    }

    fn send<M: NetlinkSerializable>(&mut self, message: M, flags: u16) -> Result<(), Errno>
    where
        NetlinkPayload<M>: From<M>,
    {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0).map(drop).map_err(errno)
    }

    /// Takes messages until the kernel says that these were all, or that something is wrong.
    fn receive<M: NetlinkDeserializable>(&mut self, mut take: impl FnMut(M)) -> Result<(), Errno> {
        loop {
            let (bytes, _) = self.0.recv_from_full().map_err(errno)?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<M>::deserialize(rest).map_err(|_| Errno::EBADMSG)?;
                let length = message.header.length as usize;
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => take(message),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => match error.code {
                        Some(code) => return Err(Errno::from_raw(-code.get())),
                        None => return Ok(()),
                    },
                    _ => {}
                }
                // Messages begin at multiples of four bytes.
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}
