//! Clients on this node, whose packets XDP never sees: their sockets are led to a backend when they name a service.
//!
//! ```text
//! connect, sendmsg -> gate -> SERVICES -> local backend, or RINGS -> BACKENDS -> address of the socket's peer
//!                                                          \-> nobody: refused
//! getpeername, recvmsg -> gate -> LOCAL_SOCKETS, LOCAL_PEERS -> the VIP
//! ```
//!
//! What is connected costs nothing from then on: the kernel sends to the backend as if the client had named it.
//!
//! Invariant: a socket that names no service is not changed, and what it is told of its peer is changed only if it was
//! led to that very peer.

use aya_ebpf::{
    EbpfContext as _, Global,
    helpers::generated::{bpf_get_socket_cookie, bpf_set_retval},
    maps::LruHashMap,
    programs::{SockAddrContext, SockContext},
};
use kplb_common::{
    backend::Backend,
    endpoint::Endpoint,
    gate,
    local::{Diversion, LocalPeer, hash_local},
    maglev,
    net::{Address, Be16, Ip4, Ip6},
    service::Service,
};

use crate::{
    family::{Family, V4, V6},
    maps,
};

/// Whether the kernel has `bpf_set_retval` here; set by the agent when it loads the program, so that the verifier never
/// comes to the call where it has not.
///
/// # Minimum kernel version
/// 6.1 (commit bed89185af0d); before, what is refused fails with `EPERM`.
#[unsafe(no_mangle)]
static CHOOSES_ERRORS: Global<u8> = Global::new(0);

/// `include/uapi/asm-generic/errno.h`, the same on every architecture that Kubernetes runs on.
const ECONNREFUSED: i32 = 111;

/// The system call goes on.
const PROCEED: i32 = 1;
/// The system call fails.
const FAIL: i32 = 0;

/// Where a socket's client wants to go.
enum Way {
    /// To nobody that kplb knows.
    Unknown,
    /// Where it says; what it was led to before is of no account.
    Unchanged,
    /// To this backend.
    To(u16, &'static Backend),
    /// To a service that has no backend.
    Nowhere,
}

/// The kernel hands out the parts of its context one by one, each by an access of its own size: no access may be merged
/// with another, or moved.
macro_rules! read {
    ($ctx:expr, $($field:tt)+) => {
        // SAFETY: the context is valid while the program runs, and the verifier checks each access to it.
        unsafe { (&raw const (*$ctx.sock_addr).$($field)+).read_volatile() }
    };
}

/// See [`read`].
macro_rules! put {
    ($ctx:expr, $value:expr, $($field:tt)+) => {
        // SAFETY: as for reading; the fields that are written here are those that the hooks may change.
        unsafe { (&raw mut (*$ctx.sock_addr).$($field)+).write_volatile($value) }
    };
}

#[inline(always)]
fn port(ctx: &SockAddrContext) -> Be16 {
    Be16::from_wire(read!(ctx, user_port) as u16)
}

#[inline(always)]
fn set_port(ctx: &SockAddrContext, port: Be16) {
    put!(ctx, u32::from(port.to_wire()), user_port);
}

#[inline(always)]
fn protocol(ctx: &SockAddrContext) -> u8 {
    // Protocols beyond a byte, such as MPTCP's, are none of a service.
    u8::try_from(read!(ctx, protocol)).unwrap_or(0)
}

#[inline(always)]
fn ip4(ctx: &SockAddrContext) -> Ip4 {
    Ip4::from_wire(read!(ctx, user_ip4))
}

#[inline(always)]
fn ip6(ctx: &SockAddrContext) -> Ip6 {
    Ip6::from_wire([read!(ctx, user_ip6[0]), read!(ctx, user_ip6[1]), read!(ctx, user_ip6[2]), read!(ctx, user_ip6[3])])
}

#[inline(always)]
fn set_ip4(ctx: &SockAddrContext, address: &Ip6) {
    put!(ctx, address.to_wire()[3], user_ip4);
}

#[inline(always)]
fn set_ip6(ctx: &SockAddrContext, address: &Ip6) {
    let words = address.to_wire();
    put!(ctx, words[0], user_ip6[0]);
    put!(ctx, words[1], user_ip6[1]);
    put!(ctx, words[2], user_ip6[2]);
    put!(ctx, words[3], user_ip6[3]);
}

/// A number that no other socket of this machine has, in any network namespace.
#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: takes the context of the program.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// `connect` to an IPv4 address.
#[inline(always)]
pub fn connect4(ctx: &SockAddrContext) -> i32 {
    lead::<V4, u64>(ctx, &ip4(ctx), &maps::LOCAL_SOCKETS, |cookie, _, _| cookie, set_ip4)
}

/// `connect` to an IPv6 address, which may be an IPv4 one in disguise.
#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) -> i32 {
    let address = ip6(ctx);
    match address.to_ip4() {
        Some(v4) => lead::<V4, u64>(ctx, &v4, &maps::LOCAL_SOCKETS, |cookie, _, _| cookie, set_ip6),
        None => lead::<V6, u64>(ctx, &address, &maps::LOCAL_SOCKETS, |cookie, _, _| cookie, set_ip6),
    }
}

/// `sendto` and `sendmsg` to an IPv4 address; of an IPv6 socket, too, where the address is mapped
/// (`udpv6_sendmsg` in net/ipv6/udp.c).
#[inline(always)]
pub fn sendmsg4(ctx: &SockAddrContext) -> i32 {
    lead::<V4, LocalPeer>(ctx, &ip4(ctx), &maps::LOCAL_PEERS, LocalPeer::new, set_ip4)
}

/// `sendto` and `sendmsg` to an IPv6 address.
#[inline(always)]
pub fn sendmsg6(ctx: &SockAddrContext) -> i32 {
    lead::<V6, LocalPeer>(ctx, &ip6(ctx), &maps::LOCAL_PEERS, LocalPeer::new, set_ip6)
}

/// `getpeername` of an IPv4 socket.
#[inline(always)]
pub fn getpeername4(ctx: &SockAddrContext) -> i32 {
    turn_back(ctx, &ip4(ctx).mapped(), set_ip4)
}

/// `getpeername` of an IPv6 socket.
#[inline(always)]
pub fn getpeername6(ctx: &SockAddrContext) -> i32 {
    turn_back(ctx, &ip6(ctx), set_ip6)
}

/// `recvfrom` and `recvmsg` on an IPv4 socket.
#[inline(always)]
pub fn recvmsg4(ctx: &SockAddrContext) -> i32 {
    turn_back(ctx, &ip4(ctx).mapped(), set_ip4)
}

/// `recvfrom` and `recvmsg` on an IPv6 socket.
#[inline(always)]
pub fn recvmsg6(ctx: &SockAddrContext) -> i32 {
    turn_back(ctx, &ip6(ctx), set_ip6)
}

/// The end of a socket.
#[inline(always)]
pub fn release(ctx: &SockContext) -> i32 {
    // SAFETY: takes the context of the program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    maps::forget(&maps::LOCAL_SOCKETS, &cookie);
    PROCEED
}

/// Leads a socket to a backend if it names a service, and remembers that under the key of cookie, address and port.
#[inline(always)]
fn lead<F: Family, K>(
    ctx: &SockAddrContext,
    address: &F::Address,
    table: &'static LruHashMap<K, Diversion>,
    key: impl Fn(u64, Ip6, Be16) -> K,
    set_address: impl Fn(&SockAddrContext, &Ip6),
) -> i32 {
    let endpoint = Endpoint::new(*address, port(ctx), protocol(ctx));
    let cookie = cookie(ctx);
    match way::<F>(&endpoint, cookie) {
        Way::Unknown => PROCEED,
        Way::Unchanged => {
            maps::forget(table, &key(cookie, address.mapped(), endpoint.port));
            PROCEED
        }
        Way::To(id, backend) => {
            let diversion = Diversion {
                vip: address.mapped(),
                backend: F::Address::from_wide(&backend.address).mapped(),
                vip_port: endpoint.port,
                backend_port: backend.port,
                backend_id: id,
                protocol: endpoint.protocol,
                _pad: 0,
            };
            maps::divert(table, &key(cookie, diversion.backend, diversion.backend_port), &diversion);
            // The agent writes that a backend is down before it looks for sockets to end: who is not yet among them then
            // sees it here.
            if serving_still(id) {
                set_address(ctx, &diversion.backend);
                set_port(ctx, diversion.backend_port);
                PROCEED
            } else {
                refuse()
            }
        }
        Way::Nowhere => refuse(),
    }
}

/// Fails with what a client of TCP gets from a reset, and one of UDP from a port that nobody listens on.
#[inline(always)]
fn refuse() -> i32 {
    if CHOOSES_ERRORS.load() != 0 {
        // SAFETY: takes a number.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    FAIL
}

#[inline(always)]
fn way<F: Family>(endpoint: &Endpoint<F::Address>, cookie: u64) -> Way {
    let (Some(gate), Some(node)) = (maps::gate(), maps::node()) else { return Way::Unknown };
    if !gate::may_pass(gate, &endpoint.address, endpoint.port, endpoint.protocol) {
        return Way::Unknown;
    }
    let Some(service) = maps::get(F::services(), endpoint) else { return Way::Unchanged };
    if !service.leads_local_clients() {
        return Way::Unchanged;
    }
    if let Some(backend) = serving(service, service.local_backend) {
        return Way::To(service.local_backend, backend);
    }
    let hash = hash_local(service, &F::node_address(node), cookie);
    let id = maps::slot(service.id, maglev::slot(hash));
    match serving(service, id) {
        Some(backend) => Way::To(id, backend),
        // This node knows nothing yet; whoever holds the VIP may.
        None if service.waits_when_empty() => Way::Unchanged,
        None => Way::Nowhere,
    }
}

/// The backend with this id if it is one of the service's that can be used: the id that a service prefers is written
/// after the backends, and may name another's for a moment.
#[inline(always)]
fn serving(service: &Service, id: u16) -> Option<&'static Backend> {
    maps::backend(id).filter(|backend| backend.is_serving() && backend.service == service.id)
}

/// Whether a backend that was serving is; looked up anew, or what was read before could stand for it.
#[inline(always)]
fn serving_still(id: u16) -> bool {
    maps::backend(id).is_some_and(Backend::is_serving)
}

/// Tells the client of the VIP that it named where the kernel would tell of the backend.
#[inline(always)]
fn turn_back(ctx: &SockAddrContext, address: &Ip6, set_address: impl Fn(&SockAddrContext, &Ip6)) -> i32 {
    let (port, protocol) = (port(ctx), protocol(ctx));
    let Some(gate) = maps::gate() else { return PROCEED };
    let may_pass = match address.to_ip4() {
        Some(v4) => gate::may_pass(gate, &v4, port, protocol),
        None => gate::may_pass(gate, address, port, protocol),
    };
    if !may_pass {
        return PROCEED;
    }
    let cookie = cookie(ctx);
    let diversion = maps::diversion(&maps::LOCAL_SOCKETS, &cookie)
        .filter(|diversion| diversion.is_to(address, port))
        .or_else(|| maps::diversion(&maps::LOCAL_PEERS, &LocalPeer::new(cookie, *address, port)));
    if let Some(diversion) = diversion {
        set_address(ctx, &diversion.vip);
        set_port(ctx, diversion.vip_port);
    }
    PROCEED
}
