//! VRRP: which node holds the VIPs. Version 3 (RFC 9568) over IPv4 and IPv6, version 2 (RFC 3768) over IPv4.
//!
//! ```text
//!   frame --> receive --> fsm --> Send, Acquire, Release, Reannounce
//!               |          |                          |
//!             Invalid    deadline                announcements
//! ```
//!
//! One [`fsm::Router`] is one virtual router: a router id and an address family on one interface. Everything here is
//! pure: no socket, no clock; `now` is a parameter.
//!
//! Invariant: adverts and this node's own faults alone decide who holds the VIPs; neither the health of a backend nor
//! anything outside the segment does.
//!
//! Deviations from the RFCs, all of them on purpose: no virtual MAC (adverts and announcements have the interface's
//! own); a master accepts packets to its VIPs; preemption is off unless configured; addresses that differ are judged
//! by [`receive::decode`] as it says there; a router that was held up gives up mastership ([`fsm`]).

pub mod settings;
pub mod timers;

pub mod checksum;
pub mod packet;
pub mod receive;

pub mod announcements;
pub mod fsm;

#[cfg(test)]
mod simulation;
