//! The model's frames for another MAC address than the node's.

use kplb::model::Desired;
use kplb_common::{
    flow_state::{FIN, RST, SYN},
    verdict::Verdict,
};

use super::{
    NOT_OURS, Proof, Reference, may_be_ours,
    parse::{self, ETHERNET, Parsed, Tagged},
    refusal,
};

impl Reference {
    /// A frame for another MAC address. If that is one interface's, it may be this node's new one, so plain packets of flows that
    /// are established go on.
    pub(super) fn strange_ingress(&mut self, desired: &Desired, frame: &mut [u8], tagged: &Tagged) -> Verdict {
        let is_unicast = frame[0] & 1 == 0;
        let header = match tagged.ethertype {
            0x0800 => 20,
            0x86dd => 40,
            _ => return NOT_OURS,
        };
        if !is_unicast || tagged.l3 != ETHERNET {
            return NOT_OURS;
        }
        let Parsed::Segment(segment) = parse::ip(frame, tagged.l3, tagged.ethertype) else { return NOT_OURS };
        let has_plain_header = segment.place.l4 - segment.place.l3 == header;
        let is_plain = has_plain_header && segment.piece.is_none() && segment.flags & (SYN | RST | FIN) == 0;
        let known = self.flows.find(&segment.tuple).filter(|(flow, _)| flow.proof == Proof::Given);
        match known {
            Some((flow, direction))
                if is_plain
                    && may_be_ours(desired, &segment.tuple)
                    && refusal(desired, frame, tagged.l3, &flow, direction).is_none() =>
            {
                self.hit(desired, frame, &segment, flow, direction)
            }
            _ => NOT_OURS,
        }
    }
}
