//! Reads what the machine is like.

use std::{fs, path::Path};

use nix::sys::{
    resource::{Resource, getrlimit},
    utsname::uname,
};

use super::{
    super::facts::{Host, Known},
    known,
};
use crate::{bpffs, cgroup, dataplane, privileges, sockets};

const REALTIME_RUNTIME: &str = "/proc/sys/kernel/sched_rt_runtime_us";

pub(super) fn gather(pin_root: &Path) -> Host {
    let capabilities = known(privileges::effective());
    let may_load = matches!(capabilities, Ok(effective) if privileges::missing(effective).is_empty());
    let trial = may_load.then(|| known(dataplane::trial()));
    let (forwarding, sockets) = match trial {
        None => (None, None),
        Some(Ok(trial)) => (Some(known(trial.forwarding)), Some(known(trial.sockets))),
        Some(Err(error)) => (Some(Err(error.clone())), Some(Err(error))),
    };
    Host {
        release: uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default(),
        capabilities,
        realtime_limit: limit(Resource::RLIMIT_RTPRIO),
        realtime_runtime: fs::read_to_string(REALTIME_RUNTIME).ok().and_then(|text| text.trim().parse().ok()),
        lock_limit: limit(Resource::RLIMIT_MEMLOCK),
        pin_root: pin_root.to_owned(),
        has_bpf_file_system: known(bpffs::is_there(pin_root)),
        forwarding,
        sockets,
        control_groups: known(cgroup::root()),
        ends_sockets: known(sockets::can_be_ended()),
    }
}

/// The limit that this process has.
fn limit(resource: Resource) -> Known<u64> {
    getrlimit(resource).map(|(soft, _)| soft).map_err(|error| error.desc().to_lowercase())
}
