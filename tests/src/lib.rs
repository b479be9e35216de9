//! kplb's lab: a network of namespaces, stand-ins for servers and clients, and what tests, demo and benchmarks share.

pub mod cgroup;
pub mod netns;
pub mod poll;
pub mod process;
pub mod pty;

pub mod machine;

pub mod hooks;
pub mod lab;
pub mod packet_socket;
pub mod tap;

pub mod frames;
pub mod testbed;

pub mod reference;

pub mod bench;
pub mod kernel_maps;

pub mod growth;

mod accounts;
pub mod agent;
pub mod apiserver;
pub mod beyond;
pub mod client;
pub mod cluster;
pub mod conversation;

pub mod banner;
pub mod vip_client;

pub mod capture;
pub mod who_has;

pub mod haproxy;
pub mod keepalived;
pub mod load;

pub mod scrape;

pub mod figure;
pub mod goal;
pub mod plot;

pub mod failure;

pub mod failover;

pub mod outage;

pub mod soak;

pub mod authority;
pub mod backend;

mod body;
pub mod pattern;
mod tls;
