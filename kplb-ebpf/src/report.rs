//! Telling the agent what packets say of a backend's health.

use kplb_common::report::{REPORT_INTERVAL_NS, Report, Symptom};

use crate::maps;

/// Reports a symptom of a backend, unless one was reported a moment ago.
///
/// What finds no room is lost: then the agent has more than enough to look after, or there is none.
#[inline(always)]
pub fn report(backend: u16, symptom: Symptom, now_ns: u64) {
    let Some(reported) = maps::reported(backend) else { return };
    if now_ns.wrapping_sub(*reported) < REPORT_INTERVAL_NS {
        return;
    }
    *reported = now_ns;
    maps::push_report(Report { backend, symptom: symptom as u8, _pad: 0 });
}
