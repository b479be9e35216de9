//! Which flows are asked for.

use std::{net::SocketAddr, str::FromStr};

use kplb_common::flow_state::FlowState;

use super::{FlowRecord, Phase, state_name};
use crate::{model::Endpoint, prefix::Prefix};

/// What a flow must be; of what is not said, anything will do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FlowFilter {
    /// Its client's address begins so.
    pub client: Option<Prefix>,
    /// It is of one of these services.
    pub services: Option<Vec<Endpoint>>,
    /// It has one of these backends.
    pub backends: Option<Vec<SocketAddr>>,
    /// It is in this state.
    pub state: Option<StateFilter>,
}

/// One state, or several under one name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StateFilter {
    /// Exactly this one.
    State(FlowState),
    /// Those in which the client has not proved yet that it is there.
    HalfOpen,
}

const HALF_OPEN: &str = "half-open";

impl FlowFilter {
    /// Whether a flow is asked for.
    pub fn takes(&self, flow: &FlowRecord) -> bool {
        self.client.is_none_or(|prefix| prefix.contains(flow.client.ip()))
            && self.services.as_ref().is_none_or(|services| services.contains(&flow.service()))
            && self.backends.as_ref().is_none_or(|backends| backends.contains(&flow.backend))
            && self.state.is_none_or(|state| state.takes(flow.state))
    }

    /// Whether flows of this service and backend can be asked for.
    pub fn takes_backend(&self, service: &Endpoint, backend: &SocketAddr) -> bool {
        self.services.as_ref().is_none_or(|services| services.contains(service))
            && self.backends.as_ref().is_none_or(|backends| backends.contains(backend))
    }
}

impl StateFilter {
    fn takes(self, state: FlowState) -> bool {
        match self {
            Self::State(only) => only == state,
            Self::HalfOpen => Phase::of(state) == Phase::HalfOpen,
        }
    }
}

impl FromStr for StateFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == HALF_OPEN {
            return Ok(Self::HalfOpen);
        }
        FlowState::ALL.into_iter().find(|state| state_name(*state) == text).map(Self::State).ok_or_else(|| {
            let names: Vec<_> = FlowState::ALL.into_iter().map(state_name).collect();
            format!(
                "there is no state `{text}`, but {}, and {HALF_OPEN} for all that have not been assured",
                names.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address and port")
    }

    fn flow() -> FlowRecord {
        FlowRecord {
            vip: at("198.18.0.100:6443"),
            protocol: Protocol::Udp,
            client: at("198.18.0.101:40000"),
            phase: Phase::HalfOpen,
            backend: at("198.18.0.12:6443"),
            nat: None,
            state: FlowState::UdpReplied,
            idle_ns: 0,
        }
    }

    #[test]
    fn every_part_must_fit() {
        let service = |protocol| Some(vec![Endpoint { address: at("198.18.0.100:6443"), protocol }]);
        let client = |text: &str| Some(text.parse().expect("a prefix"));
        let state = |text: &str| Some(text.parse().expect("a state"));
        let none = FlowFilter::default;
        for (filter, expected) in [
            (none(), true),
            (FlowFilter { client: client("198.18.0.0/24"), ..none() }, true),
            (FlowFilter { client: client("198.18.0.102"), ..none() }, false),
            (FlowFilter { services: service(Protocol::Udp), ..none() }, true),
            (FlowFilter { services: service(Protocol::Tcp), ..none() }, false),
            (FlowFilter { backends: Some(vec![at("198.18.0.12:6443")]), ..none() }, true),
            (FlowFilter { backends: Some(vec![at("198.18.0.12:6444")]), ..none() }, false),
            (FlowFilter { state: state("udp-replied"), ..none() }, true),
            (FlowFilter { state: state("half-open"), ..none() }, true),
            (FlowFilter { state: state("udp-assured"), ..none() }, false),
            (FlowFilter { client: client("0.0.0.0/0"), state: state("closing"), ..none() }, false),
        ] {
            assert_eq!(filter.takes(&flow()), expected, "{filter:?}");
        }
    }

    #[test]
    fn every_state_can_be_asked_for() {
        for state in FlowState::ALL {
            assert_eq!(state_name(state).parse(), Ok(StateFilter::State(state)));
        }
        let error = "open".parse::<StateFilter>().expect_err("no state");
        assert!(error.contains("syn-sent") && error.contains("half-open"), "{error}");
    }
}
