//! What `kplb top` shows: pure, so that tests need no terminal.
//!
//! ```text
//! statuses of the agent, once a second --\
//!                                         +--> Model -- draw --> frame
//! keys ----------------------------------/
//! ```
//!
//! Invariant: a rate is never negative, and never more than what was counted: over a restart of the agent there is none.

mod draw;
mod model;
mod number;
mod rates;

pub use self::{
    draw::draw,
    model::{Flow, Key, Model, News},
};

#[cfg(test)]
mod tests;
