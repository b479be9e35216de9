//! Types and pure decisions shared by kplb's BPF programs and its agent.
//!
//! Everything that crosses the kernel boundary is defined here once: map keys and values with an explicit layout,
//! the names of maps and programs, the verdicts. So are the small decisions that the BPF programs, the agent and the
//! tests must take alike: checksum deltas, the keyed hash, slot choice, flow state. Nothing here opens a socket,
//! reads a clock or allocates.

#![no_std]

pub mod abi;
pub mod net;

pub mod clock;
pub mod node;

pub mod endpoint;
pub mod fence;
pub mod gate;

pub mod backend;
pub mod maglev;
pub mod service;

pub mod flow;
pub mod flow_state;
pub mod fragment;
pub mod silence;

pub mod verdict;

pub mod stats;

pub mod local;

pub mod client;
pub mod report;
pub mod sweep;
pub mod trace;

pub mod checksum;
pub mod hash;

#[cfg(feature = "user")]
pub mod pod;
