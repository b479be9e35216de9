//! The machine: kernel, privileges, file systems, control groups.

use super::{
    Finding,
    facts::{Host, Known},
};
use crate::{election::REALTIME_PRIORITY, privileges};

/// Numbers from the kernel's `include/uapi/linux/capability.h`.
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_NICE: u32 = 23;

/// The oldest kernel that has all that kplb cannot do without.
const NEEDED: (u32, u32) = (5, 18);
/// What newer ones have that older ones have not.
const BETTER: [((u32, u32), &str); 3] = [
    ((6, 1), "clients on this node that are refused get ECONNREFUSED instead of EPERM"),
    ((6, 3), "drivers say whether they have native XDP"),
    ((6, 6), "the program on the way out is a link, which outlives a killed agent like the others"),
];

pub(super) fn findings(host: &Host) -> Vec<Finding> {
    let mut findings = vec![kernel(&host.release), privileges(&host.capabilities)];
    let has = |capability| matches!(host.capabilities, Ok(effective) if privileges::has(effective, capability));
    findings.extend([scheduling(host, has(CAP_SYS_NICE)), memory(host, has(CAP_IPC_LOCK)), pins(host)]);
    findings.extend([programs(host), sockets(host)]);
    findings
}

/// Major and minor version of a release such as `6.12.47+rpt-rpi-v8`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(release: &str) -> Finding {
    let (major, minor) = NEEDED;
    let Some(version) = version(release) else {
        return Finding::note(
            "kernel",
            format!("{release}: no version that is known; {major}.{minor} or newer is needed"),
        );
    };
    if version < NEEDED {
        let advice = "update the kernel";
        return Finding::error("kernel", format!("{release}: {major}.{minor} or newer is needed"), advice);
    }
    let missing: Vec<String> = BETTER
        .iter()
        .filter(|(since, _)| version < *since)
        .map(|((major, minor), what)| format!("with {major}.{minor} {what}"))
        .collect();
    match missing.is_empty() {
        true => Finding::ok("kernel", release),
        false => Finding::note("kernel", format!("{release} is enough; {}", missing.join("; "))),
    }
}

fn privileges(capabilities: &Known<u64>) -> Finding {
    let missing = match capabilities {
        Ok(effective) => privileges::missing(*effective),
        Err(error) => return Finding::note("privileges", format!("not known: {error}")),
    };
    match missing.is_empty() {
        true => Finding::ok("privileges", "all that attaching needs"),
        false => {
            let what = format!("missing: {}; some of what follows is not known for it", missing.join(", "));
            Finding::error("privileges", what, "run this, and kplb, as root or with sudo")
        }
    }
}

fn scheduling(host: &Host, is_capable: bool) -> Finding {
    const TOPIC: &str = "real-time";
    let priority = u64::from(REALTIME_PRIORITY);
    if host.realtime_runtime == Some(0) {
        let advice = "`sysctl kernel.sched_rt_runtime_us=950000` is the kernel's default";
        return Finding::warning(TOPIC, "the kernel lets no thread run in real time", advice);
    }
    match &host.realtime_limit {
        _ if is_capable => Finding::ok(TOPIC, "the election may have real-time priority"),
        Ok(limit) if *limit >= priority => {
            Finding::ok(TOPIC, "the election may have real-time priority (RLIMIT_RTPRIO)")
        }
        Ok(limit) => Finding::warning(
            TOPIC,
            format!(
                "the election may not have real-time priority (RLIMIT_RTPRIO is {limit}): a busy node may lose the VIPs"
            ),
            format!("give the agent CAP_SYS_NICE, or LimitRTPRIO={priority} in its systemd unit"),
        ),
        Err(error) => Finding::note(TOPIC, format!("not known: {error}")),
    }
}

fn memory(host: &Host, is_capable: bool) -> Finding {
    const TOPIC: &str = "memory-lock";
    const ENOUGH: u64 = 64 << 20;
    match &host.lock_limit {
        _ if is_capable => Finding::ok(TOPIC, "the agent may lock its memory"),
        Ok(limit) if *limit >= ENOUGH => Finding::ok(TOPIC, "the agent may lock its memory (RLIMIT_MEMLOCK)"),
        Ok(limit) => Finding::warning(
            TOPIC,
            format!(
                "the agent may lock only {} KiB (RLIMIT_MEMLOCK): a node that swaps may lose the VIPs",
                limit / 1024
            ),
            "give it CAP_IPC_LOCK, or LimitMEMLOCK=infinity in its systemd unit",
        ),
        Err(error) => Finding::note(TOPIC, format!("not known: {error}")),
    }
}

fn pins(host: &Host) -> Finding {
    const TOPIC: &str = "bpf-file-system";
    let root = host.pin_root.display();
    match &host.has_bpf_file_system {
        Ok(true) => Finding::ok(TOPIC, format!("mounted, for {root}")),
        Ok(false) => Finding::note(TOPIC, format!("none is mounted for {root} yet: the agent does that")),
        Err(error) => Finding::error(TOPIC, format!("{root}: {error}"), "see to it that sysfs is mounted at /sys"),
    }
}

/// Whether the kernel takes what is to be attached to an interface.
fn programs(host: &Host) -> Finding {
    const TOPIC: &str = "programs";
    match &host.forwarding {
        Some(Ok(())) => Finding::ok(TOPIC, "the kernel takes them (they were loaded, and let go again)"),
        Some(Err(error)) => Finding::error(
            TOPIC,
            format!("the kernel does not take the programs: {error}"),
            "kernels from 5.18 on with CONFIG_BPF_SYSCALL and CONFIG_BPF_JIT do; look at the words of its verifier",
        ),
        None => Finding::note(TOPIC, "not tried"),
    }
}

/// Whether clients on this node are led to backends at their sockets.
fn sockets(host: &Host) -> Finding {
    const TOPIC: &str = "local-clients";
    let limited = |why: &str, advice: &str| {
        let what = format!("clients on this node are not led to backends, and cannot use VIPs that it holds: {why}");
        Finding::warning(TOPIC, what, advice)
    };
    match (&host.control_groups, &host.sockets, &host.ends_sockets) {
        (Err(error), ..) => limited(error, "mount them, or let clients on this node use a backend's address"),
        (_, None, _) => Finding::note(TOPIC, "not tried"),
        (_, Some(Err(error)), _) => limited(error, "the kernel needs CONFIG_CGROUP_BPF"),
        (Ok(root), Some(Ok(())), Ok(true)) => {
            Finding::ok(TOPIC, format!("led to backends at their sockets, by the control groups at {}", root.display()))
        }
        (Ok(_), Some(Ok(())), Ok(false)) => Finding::warning(
            TOPIC,
            "clients on this node are led to backends, but not told when theirs is gone: the kernel ends no sockets",
            "a kernel with CONFIG_INET_DIAG_DESTROY does",
        ),
        (Ok(_), Some(Ok(())), Err(error)) => Finding::note(
            TOPIC,
            format!("led to backends; whether they are told when theirs is gone is not known: {error}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{super::Level, *};

    fn host() -> Host {
        Host {
            release: "6.18.5+deb14-amd64".into(),
            capabilities: Ok(u64::MAX),
            realtime_limit: Ok(0),
            realtime_runtime: Some(950_000),
            lock_limit: Ok(8 << 20),
            pin_root: "/sys/fs/bpf/kplb".into(),
            has_bpf_file_system: Ok(true),
            forwarding: Some(Ok(())),
            sockets: Some(Ok(())),
            control_groups: Ok(PathBuf::from("/sys/fs/cgroup")),
            ends_sockets: Ok(true),
        }
    }

    /// The findings that are not as they should be.
    fn wrong(change: impl FnOnce(&mut Host)) -> Vec<Finding> {
        let mut host = host();
        change(&mut host);
        findings(&host).into_iter().filter(|finding| finding.level > Level::Ok).collect()
    }

    fn only(change: impl FnOnce(&mut Host)) -> (Level, &'static str, String) {
        let mut wrong = wrong(change);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        let Finding { level, topic, what, .. } = wrong.remove(0);
        (level, topic, what)
    }

    #[test]
    fn nothing_is_wrong_with_a_good_host() {
        assert_eq!(wrong(|_| ()), []);
    }

    #[test]
    fn kernels() {
        let (level, topic, what) = only(|host| host.release = "5.15.0-91-generic".into());
        assert_eq!((level, topic), (Level::Error, "kernel"));
        assert!(what.contains("5.18 or newer is needed"), "{what}");
        let (level, _, what) = only(|host| host.release = "6.1.0-18-rpi".into());
        assert_eq!(level, Level::Note);
        assert!(what.contains("with 6.3 ") && what.contains("with 6.6 ") && !what.contains("with 6.1 "), "{what}");
        assert_eq!(only(|host| host.release = "5.18".into()).0, Level::Note);
        assert_eq!(only(|host| host.release = "unknown".into()).0, Level::Note);
        assert_eq!(version("6.12.47+rpt-rpi-v8"), Some((6, 12)));
        assert_eq!(version("7.0-rc1"), Some((7, 0)));
    }

    #[test]
    fn a_process_without_privileges() {
        let wrong = wrong(|host| host.capabilities = Ok(0));
        let topics: Vec<_> = wrong.iter().map(|finding| (finding.level, finding.topic)).collect();
        let expected = [(Level::Error, "privileges"), (Level::Warning, "real-time"), (Level::Warning, "memory-lock")];
        assert_eq!(topics, expected);
        assert!(wrong[0].what.contains("CAP_NET_ADMIN"), "{}", wrong[0].what);
    }

    #[test]
    fn limits_make_up_for_capabilities() {
        let wrong = wrong(|host| {
            host.capabilities = Ok(!(1 << CAP_SYS_NICE | 1 << CAP_IPC_LOCK));
            (host.realtime_limit, host.lock_limit) = (Ok(REALTIME_PRIORITY.into()), Ok(u64::MAX));
        });
        assert_eq!(wrong, []);
        assert_eq!(only(|host| host.realtime_runtime = Some(0)).1, "real-time");
    }

    #[test]
    fn file_systems_and_control_groups() {
        assert_eq!(only(|host| host.has_bpf_file_system = Ok(false)).0, Level::Note);
        assert_eq!(only(|host| host.has_bpf_file_system = Err("no /sys".into())).0, Level::Error);
        let (level, topic, what) = only(|host| host.control_groups = Err("none are mounted".into()));
        assert_eq!((level, topic), (Level::Warning, "local-clients"));
        assert!(what.ends_with("none are mounted"), "{what}");
        assert_eq!(only(|host| host.sockets = Some(Err("no such program type".into()))).1, "local-clients");
        assert!(only(|host| host.ends_sockets = Ok(false)).2.contains("not told"));
        assert_eq!(only(|host| host.ends_sockets = Err("busy".into())).0, Level::Note);
    }

    #[test]
    fn programs_that_the_kernel_refuses() {
        let (level, topic, _) = only(|host| host.forwarding = Some(Err("invalid argument".into())));
        assert_eq!((level, topic), (Level::Error, "programs"));
        assert_eq!(only(|host| host.forwarding = None).0, Level::Note);
    }
}
