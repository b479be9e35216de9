//! Marks the shared types as plain old data, so that aya's maps take them, and reads them from bytes.

use core::ptr;

use aya::Pod;

use crate::{
    backend::Backend,
    client::{Client, Whereabouts},
    endpoint::Endpoint,
    fence::{Lease, Vip},
    flow::{Flow, FlowKey},
    fragment::{FragmentKey, Fragments},
    local::{Diversion, LocalPeer},
    net::{Ip4, Ip6},
    node::Node,
    report::{ClientReport, Report},
    service::Service,
    stats::BackendStats,
    sweep::{FlowCount, Orphan, Sweep},
    trace::{TraceCounts, TraceEvent, TraceRequest},
};

// SAFETY: each of these types is `repr(C)` or transparent over integers and arrays of them, has no implicit padding
// (its size is asserted beside it, and equals the sum of its fields), and is valid for every bit pattern.
unsafe impl Pod for Backend {}
// SAFETY: as above.
unsafe impl Pod for BackendStats {}
// SAFETY: as above.
unsafe impl Pod for Client {}
// SAFETY: as above.
unsafe impl Pod for ClientReport {}
// SAFETY: as above.
unsafe impl Pod for Diversion {}
// SAFETY: as above.
unsafe impl Pod for FlowCount {}
// SAFETY: as above.
unsafe impl Pod for Fragments {}
// SAFETY: as above.
unsafe impl Pod for Ip4 {}
// SAFETY: as above.
unsafe impl Pod for Ip6 {}
// SAFETY: as above.
unsafe impl Pod for Lease {}
// SAFETY: as above.
unsafe impl Pod for LocalPeer {}
// SAFETY: as above.
unsafe impl Pod for Node {}
// SAFETY: as above.
unsafe impl Pod for Orphan {}
// SAFETY: as above.
unsafe impl Pod for Report {}
// SAFETY: as above.
unsafe impl Pod for Service {}
// SAFETY: as above.
unsafe impl Pod for Sweep {}
// SAFETY: as above.
unsafe impl Pod for TraceCounts {}
// SAFETY: as above.
unsafe impl Pod for TraceEvent {}
// SAFETY: as above.
unsafe impl Pod for TraceRequest {}
// SAFETY: as above.
unsafe impl Pod for Vip {}
// SAFETY: as above.
unsafe impl Pod for Whereabouts {}
// SAFETY: as above; the only addresses are `Ip4` and `Ip6`, whose sizes are asserted.
unsafe impl<A: crate::net::Address> Pod for Endpoint<A> {}
// SAFETY: as above.
unsafe impl<A: crate::net::Address> Pod for Flow<A> {}
// SAFETY: as above.
unsafe impl<A: crate::net::Address> Pod for FlowKey<A> {}
// SAFETY: as above.
unsafe impl<A: crate::net::Address> Pod for FragmentKey<A> {}

/// The value that these bytes are, if they are as many.
pub fn read<T: Pod>(bytes: &[u8]) -> Option<T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: as many bytes as the type has, which is valid for every bit pattern; their alignment does not matter.
    Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_values_are_read() {
        let bytes = [0, 7, 0, 1, 0];
        let report = Report { backend: 7, symptom: 1, _pad: 0 };
        assert_eq!(read::<Report>(&bytes[1..]), Some(report));
        assert_eq!(read::<Report>(&bytes), None);
        assert_eq!(read::<Report>(&bytes[2..]), None);
    }
}
