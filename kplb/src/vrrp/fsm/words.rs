//! What happens to a virtual router, what it does, where it is and why.

use std::{fmt, net::IpAddr, time::Duration};

use super::super::packet::Advert;

/// What an advert means to the state machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Heard {
    /// Who sent it.
    pub sender: IpAddr,
    /// The sender's; 0: it gives up.
    pub priority: u8,
    /// Time between its adverts.
    pub interval: Duration,
}

impl Heard {
    /// Of an advert that was [checked](super::super::receive::decode).
    pub const fn new(advert: &Advert, sender: IpAddr) -> Self {
        Self { sender, priority: advert.priority, interval: advert.interval }
    }
}

/// What happens to a virtual router.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Input {
    /// The RFCs' Startup event.
    Start,
    /// The same, on a node that has not ceased to be master: another agent was it, and its lease has not ended.
    Resume,
    /// The RFCs' Shutdown event.
    Stop,
    /// An advert that counts.
    Advert(Heard),
    /// The deadline has come, or somebody wants to be sure.
    Timer,
    /// This node cannot be master.
    FaultRaised(Fault),
    /// It can again, as far as this goes.
    FaultCleared(Fault),
    /// This node was away for so long, as a clock tells that runs on where `now` does not (`CLOCK_BOOTTIME`).
    HeldUp(Duration),
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Send an advert to the group, or to each peer.
    Send {
        /// Of the advert; 0 to give up.
        priority: u8,
    },
    /// Add the VIPs and begin to announce them.
    Acquire,
    /// Stop announcing the VIPs and remove them.
    Release,
    /// Announce them again: another router was master, too, and may have announced them.
    Reannounce {
        /// What was heard of it.
        other: Heard,
    },
    /// Nothing: the timer of this backup was overdue, and it listens anew. To be counted and logged.
    Relisten {
        /// For how long this node was held up.
        late: Duration,
    },
    /// Log that the state has changed, and why.
    Report(Transition),
}

/// Where a virtual router is (RFC 9568, section 6.4, which says Active for Master).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum State {
    /// Not started, or kept from running by a [`Fault`]; keepalived's FAULT.
    Initialize,
    /// It listens to the master.
    Backup,
    /// It holds the VIPs.
    Master,
}

impl State {
    /// All.
    pub const ALL: [Self; 3] = [Self::Initialize, Self::Backup, Self::Master];

    /// The state as users see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Backup => "backup",
            Self::Master => "master",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why this node must not be master. All of it is about the node itself: a slow apiserver must not move the VIPs.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Fault {
    /// The interface is down or has no carrier.
    LinkDown,
    /// The interface has lost the address that adverts come from.
    AddressLost,
    /// The data path does not run, so the VIPs would lead nowhere.
    DataPathDown,
    /// Adverts cannot be sent or received.
    SocketFailed,
    /// The agent's loop does not turn: it would not notice what happens to the VIPs, the backends, the neighbours.
    AgentStuck,
}

impl Fault {
    /// All.
    pub const ALL: [Self; 5] =
        [Self::LinkDown, Self::AddressLost, Self::DataPathDown, Self::SocketFailed, Self::AgentStuck];

    /// The fault as users see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LinkDown => "link-down",
            Self::AddressLost => "address-lost",
            Self::DataPathDown => "data-path-down",
            Self::SocketFailed => "socket-failed",
            Self::AgentStuck => "agent-stuck",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LinkDown => "the link is down",
            Self::AddressLost => "the interface has lost its address",
            Self::DataPathDown => "the data path does not run",
            Self::SocketFailed => "adverts cannot be sent or received",
            Self::AgentStuck => "the agent's loop is stuck",
        })
    }
}

/// Why the state has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// By command.
    Started,
    /// By command, where another agent has left.
    Resumed,
    /// By command.
    Stopped,
    /// This node must not be master.
    Fault(Fault),
    /// The last fault is gone.
    FaultCleared(Fault),
    /// No master at all.
    NobodyHeard,
    /// The master is dead: this is what was heard of it last.
    MasterSilent(Heard),
    /// The master gave up.
    Released(Heard),
    /// The master lives, and has the lower priority.
    Preempts(Heard),
    /// Another master has the higher priority.
    HigherPriority(Heard),
    /// Another master has the same priority, and the greater address.
    GreaterAddress(Heard),
    /// This node did not run for so long that another may be master.
    HeldUp(Duration),
}

impl Reason {
    /// The name of its counter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Resumed => "resumed",
            Self::Stopped => "stopped",
            Self::Fault(_) => "fault",
            Self::FaultCleared(_) => "fault-cleared",
            Self::NobodyHeard => "nobody-heard",
            Self::MasterSilent(_) => "master-silent",
            Self::Released(_) => "released",
            Self::Preempts(_) => "preempts",
            Self::HigherPriority(_) => "higher-priority",
            Self::GreaterAddress(_) => "greater-address",
            Self::HeldUp(_) => "held-up",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("started"),
            Self::Resumed => f.write_str("goes on where an earlier agent left"),
            Self::Stopped => f.write_str("stopped"),
            Self::Fault(fault) => fault.fmt(f),
            Self::FaultCleared(fault) => write!(f, "no longer: {fault}"),
            Self::NobodyHeard => f.write_str("no master was heard"),
            Self::MasterSilent(Heard { sender, priority, .. }) => {
                write!(f, "nothing more was heard of {sender} (priority {priority})")
            }
            Self::Released(Heard { sender, .. }) => write!(f, "{sender} gave up"),
            Self::Preempts(Heard { sender, priority, .. }) => {
                write!(f, "{sender} has the lower priority ({priority})")
            }
            Self::HigherPriority(Heard { sender, priority, .. }) => {
                write!(f, "{sender} is master and has the higher priority ({priority})")
            }
            Self::GreaterAddress(Heard { sender, .. }) => {
                write!(f, "{sender} is master with the same priority and the greater address")
            }
            Self::HeldUp(duration) => {
                write!(f, "this node was held up for {} ms, so another may be master", duration.as_millis())
            }
        }
    }
}

/// A change of state; its text is for a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transition {
    /// Before.
    pub from: State,
    /// Since now.
    pub to: State,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, reason } = self;
        write!(f, "{from} -> {to}: {reason}")
    }
}
