//! The agent of kplb, a load balancer for the Kubernetes control plane inside the kernel.
//!
//! Decisions are pure: [`config`], [`import`], [`model`], [`maglev`], [`plan`], [`top`] and [`vrrp`] open no socket and
//! read no clock. Effects are at the edge: [`dataplane`] alone touches BPF maps, [`netlink`] alone talks to the kernel's network
//! configuration.

pub mod config;
pub mod health;
pub mod ids;
pub mod import;
pub mod maglev;
pub mod model;
pub mod plan;
pub mod prefix;
pub mod vrrp;

pub mod dataplane;

pub mod announce;
pub mod bpffs;
pub mod cgroup;
pub mod driver;
pub mod heap;
pub mod netlink;
pub mod packet_socket;
pub mod privileges;
pub mod reset;
pub mod run_dir;
pub mod sockets;
pub mod who_has;

pub mod election;

pub mod control;
pub mod directory;
pub mod doctor;
pub mod flows;
pub mod metrics;
pub mod recent;
pub mod status;
pub mod terminal;
pub mod top;
pub mod trace;

pub mod cli;
pub mod daemon;
