//! Telling the agent what packets say of backends and clients.

use kplb_common::{
    client::Client,
    net::Mac,
    report::{ClientReport, REPORT_INTERVAL_NS, Report, Symptom},
};

use crate::maps;

/// Reports a symptom of a backend, unless it was reported a moment ago.
#[inline(always)]
pub fn report(backend: u16, symptom: Symptom, now_ns: u64) {
    if is_time(backend, symptom, now_ns) {
        maps::push_report(Report { backend, symptom: symptom as u8, _pad: 0 });
    }
}

/// Reports that a client of a backend is silent, whose frames came from this MAC address; the same.
#[inline(always)]
pub fn report_client(backend: u16, client: Client, mac: Mac, now_ns: u64) {
    if is_time(backend, Symptom::SilentClient, now_ns) {
        maps::push_report(ClientReport { client, mac, _pad: 0 });
    }
}

/// Whether a symptom is reported again. What then finds no room is lost: the agent has more than enough to look after, or
/// there is none.
#[inline(always)]
fn is_time(backend: u16, symptom: Symptom, now_ns: u64) -> bool {
    let Some(reported) = maps::reported(backend, symptom) else { return false };
    if now_ns.wrapping_sub(*reported) < REPORT_INTERVAL_NS {
        return false;
    }
    *reported = now_ns;
    true
}
