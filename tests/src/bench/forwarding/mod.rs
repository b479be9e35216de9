//! How many packets a second one processor forwards.
//!
//! ```text
//!   far end                                                  node
//!   live frames -> floor_feed --(XDP_TX)--> eth0 ~~~~~~ eth0 -> what is measured: XDP, TC, or the stack
//!   floor_count <---------------------------- eth0 ~~~~~~ eth0 <- sends them back
//! ```
//!
//! The kernel itself makes the frames (`BPF_F_TEST_XDP_LIVE_FRAMES`), 64 at a time, and hands them to the driver of the far
//! end as what XDP has sent. That is how the node's driver gets them: no copy is made for its XDP program, as would be of what
//! a socket has sent. Feeding, forwarding and counting take turns on one processor, so that nothing is ever lost, and none
//! waits for another. What feeding and counting alone cost is measured with the rest.

mod figures;
mod forwarder;
mod wire;

pub use self::{
    figures::{Case, Sample, goal, overview, table},
    forwarder::{ESTABLISHED, Forwarder, Stage},
    wire::Fed,
};
