//! The node's interfaces, addresses, routes and neighbours, read from the kernel and followed.

pub mod client;
pub mod facts;
pub mod features;
pub mod filters;
pub mod message;
pub mod netdev;
pub mod watch;
