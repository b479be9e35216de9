//! The form for people: compact, aligned, what is zero left out.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    time::Duration,
};

use kplb_common::verdict::Verdict;

use super::{BackendStatus, CheckStatus, FlowsStatus, ServiceStatus, Status, Traffic, table::Table};
use crate::{
    election::{ElectionReport, PeerReport, RouterReport},
    terminal::{Colour, Tone},
};

/// Which verdicts to show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VerdictFilter {
    /// Those that packets have had.
    Seen,
    /// All there are.
    All,
}

/// The status as text, with a line feed at the end.
pub fn text(status: &Status, verdicts: VerdictFilter, colour: Colour) -> String {
    let mut out = String::new();
    write(&mut out, status, verdicts, colour).expect("a string takes every write");
    out
}

fn write(out: &mut String, status: &Status, verdicts: VerdictFilter, colour: Colour) -> fmt::Result {
    let Status { interface, mode_reason, pid, version, uptime_seconds, node, .. } = status;
    let uptime = humantime::format_duration(Duration::from_secs(*uptime_seconds));
    let title = status.title();
    match pid {
        Some(pid) => writeln!(out, "{interface}  {title} ({mode_reason}), up {uptime}, kplb {version}, pid {pid}")?,
        None => {
            let words = "no agent: nobody checks backends or holds the VIPs";
            writeln!(out, "{interface}  {title}, {}", colour.paint(Tone::Bad, words))?;
            writeln!(out, "what the maps tell follows; `kplb attach {interface}` goes on with them")?;
        }
    }
    if !status.mode_cost.is_empty() {
        writeln!(out, "cost  {}", status.mode_cost)?;
    }
    let address = |address: Option<String>, family| address.unwrap_or_else(|| format!("no {family} address"));
    writeln!(
        out,
        "node  {}{}, {}, {}, NAT ports {}-{}",
        node.mac,
        node.vlan.as_ref().map(|vlan| format!(", VLAN {vlan}")).unwrap_or_default(),
        address(node.ipv4.map(|a| a.to_string()), "IPv4"),
        address(node.ipv6.map(|a| a.to_string()), "IPv6"),
        node.nat_port_first,
        node.nat_port_last
    )?;
    writeln!(out, "flows IPv4 {}; IPv6 {}", flows(&status.flows_v4), flows(&status.flows_v6))?;
    if let Some(election) = &status.election {
        write_election(out, election, colour)?;
    }
    for service in &status.services {
        write_service(out, service, colour)?;
    }
    let mut table = Table::new(&["VERDICT", "PACKETS", "MEANING"], &[1]);
    for verdict in Verdict::all() {
        let packets = status.verdicts.get(verdict.name()).copied().unwrap_or(0);
        if packets > 0 || verdicts == VerdictFilter::All {
            table.add_row([verdict.name().to_owned(), packets.to_string(), verdict.meaning().to_owned()]);
        }
    }
    if !table.is_empty() {
        writeln!(out)?;
        table.write(out, colour)?;
    }
    Ok(())
}

fn write_election(out: &mut String, election: &ElectionReport, colour: Colour) -> fmt::Result {
    let mut table =
        Table::new(&["VIPS", "ROLE", "SINCE", "PRIORITY", "MASTER", "PEERS", "LEASE", "CHANGES", "ROUTER"], &[3, 6, 7]);
    for router in &election.routers {
        table.add_row([
            if router.is_ipv4 { "IPv4" } else { "IPv6" }.to_owned(),
            router.state.clone(),
            router.state_seconds.map_or_else(|| "-".to_owned(), period),
            router.priority.to_string(),
            match router.master {
                Some(master) if master == router.address => "this node".to_owned(),
                Some(master) => master.to_string(),
                None => "-".to_owned(),
            },
            peers(router),
            router.lease_seconds.map_or_else(|| "-".to_owned(), period),
            router.transitions.to_string(),
            format!("id {}, VRRPv{}, every {}", router.router_id, router.version, period(router.interval)),
        ]);
        table.tint(1, role_tone(&router.state));
    }
    writeln!(out)?;
    table.write(out, colour)?;
    writeln!(out, "  the election's thread woke at most {:.0} \u{b5}s too late", election.delay_worst_us)?;
    for router in &election.routers {
        let family = if router.is_ipv4 { "IPv4" } else { "IPv6" };
        for fault in &router.faults {
            writeln!(out, "  ! {family}: not to be master: {fault}")?;
        }
        let counts = |counts: &BTreeMap<String, u64>| {
            counts.iter().map(|(name, n)| format!("{n} {name}")).collect::<Vec<_>>().join(", ")
        };
        if !router.dropped.is_empty() {
            writeln!(out, "  ! {family}: adverts dropped: {}", counts(&router.dropped))?;
        }
        if !router.remarks.is_empty() {
            writeln!(out, "  ! {family}: adverts that were odd: {}", counts(&router.remarks))?;
        }
        if router.send_errors > 0 {
            writeln!(out, "  ! {family}: adverts not sent: {}", router.send_errors)?;
        }
    }
    Ok(())
}

/// Each with its priority, and how long ago it was heard. Backups are silent, so on a master nothing is missing.
fn peers(router: &RouterReport) -> String {
    let peer = |peer: &PeerReport| match (peer.priority, peer.heard_seconds) {
        (Some(priority), Some(seconds)) => format!("{} ({priority}, {} ago)", peer.address, period(seconds)),
        _ => format!("{} (silent)", peer.address),
    };
    match router.peers.is_empty() {
        true => "-".to_owned(),
        false => router.peers.iter().map(peer).collect::<Vec<_>>().join(", "),
    }
}

fn flows(flows: &FlowsStatus) -> String {
    let FlowsStatus { established, half_open, closing } = flows;
    format!("{established} established, {half_open} half open, {closing} closing")
}

fn write_service(out: &mut String, service: &ServiceStatus, colour: Colour) -> fmt::Result {
    let ServiceStatus { name, vip, protocol, persistence, local_clients, traffic, backends, .. } = service;
    let endpoint = format!("{vip}/{protocol}");
    writeln!(out)?;
    write!(out, "service {name}")?;
    // A service that was given no name is called by its endpoint.
    if *name != endpoint {
        write!(out, "  {endpoint}")?;
    }
    writeln!(out, "  persistence {persistence}, local clients {local_clients}, {} flows opened", traffic.flows_opened)?;
    let header = [
        "BACKEND",
        "ADDRESS",
        "STATE",
        "SINCE",
        "CHECK",
        "NEXT HOP",
        "SHARE",
        "FLOWS",
        "OPENED",
        "TO BACKEND",
        "TO CLIENT",
    ];
    let mut table = Table::new(&header, &[3, 6, 7, 8, 9, 10]);
    for backend in backends {
        let BackendStatus { name, address, state, state_seconds, ring_share, flows, traffic, .. } = backend;
        let Traffic { flows_opened, packets_to_backend, bytes_to_backend, packets_to_client, bytes_to_client } =
            traffic;
        table.add_row([
            name.clone(),
            address.to_string(),
            state.clone(),
            period(*state_seconds),
            check(backend),
            next_hop(backend).to_owned(),
            format!("{:.1}%", 100.0 * ring_share),
            (flows.established + flows.half_open).to_string(),
            flows_opened.to_string(),
            format!("{packets_to_backend} pkt {}", bytes(*bytes_to_backend)),
            format!("{packets_to_client} pkt {}", bytes(*bytes_to_client)),
        ]);
        table.tint(2, backend_tone(state)).tint(4, check_tone(backend));
    }
    table.write(out, colour)?;
    backends.iter().try_for_each(|backend| write_remarks(out, backend))
}

/// What of a backend does not fit in a table.
fn write_remarks(out: &mut String, backend: &BackendStatus) -> fmt::Result {
    let BackendStatus { name, state, by_hand, check, .. } = backend;
    match by_hand.as_deref() {
        Some("removed") => writeln!(out, "  ! {name}: removed from the configuration, and gone with its last flow")?,
        Some(decision) => {
            writeln!(out, "  ! {name}: {decision}, decided by hand; `kplb backend resume {name}` ends that")?;
        }
        None => {}
    }
    match check {
        Some(CheckStatus { code, words, is_good: false, age_seconds, .. }) => {
            writeln!(out, "  ! {name}: {state}; the last check, {} ago, found {code}: {words}", period(*age_seconds))
        }
        // Good, but not as it should be.
        Some(CheckStatus { code, words, .. }) if code == "L7STS" => writeln!(out, "  ! {name}: {code}: {words}"),
        _ => Ok(()),
    }
}

fn check(backend: &BackendStatus) -> String {
    match &backend.check {
        Some(CheckStatus { code, latency_ms, .. }) => format!("{code} {latency_ms:.0} ms"),
        None => "-".to_owned(),
    }
}

/// A period as short as possible: its largest unit, and the next one where that counts.
pub(crate) fn period(seconds: f64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    match whole {
        0 => format!("{:.0}ms", seconds.max(0.0) * 1000.0),
        1..MINUTE => format!("{whole}s"),
        MINUTE..HOUR => format!("{}m {}s", whole / MINUTE, whole % MINUTE),
        HOUR..DAY => format!("{}h {}m", whole / HOUR, whole % HOUR / MINUTE),
        DAY.. => format!("{}d {}h", whole / DAY, whole % DAY / HOUR),
    }
}

fn next_hop(backend: &BackendStatus) -> &str {
    match &backend.next_hop {
        Some(mac) => mac,
        None if backend.location == "local" => "this node",
        None => "unresolved",
    }
}

/// A number of bytes with a unit that keeps it short.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"KiB");
    for larger in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// What a backend's state means for its clients.
fn backend_tone(state: &str) -> Tone {
    match state {
        "active" => Tone::Good,
        "down" => Tone::Bad,
        _ => Tone::Doubtful,
    }
}

/// What a role in the election means for clients.
fn role_tone(role: &str) -> Tone {
    match role {
        "master" => Tone::Good,
        "backup" => Tone::Plain,
        _ => Tone::Doubtful,
    }
}

fn check_tone(backend: &BackendStatus) -> Tone {
    match &backend.check {
        Some(CheckStatus { is_good: false, .. }) => Tone::Bad,
        _ => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{EventStatus, FlowLimits, NodeStatus, ResetsStatus, Traffic},
        *,
    };

    fn status() -> Status {
        let traffic = Traffic {
            flows_opened: 3,
            packets_to_backend: 40,
            bytes_to_backend: 3210,
            packets_to_client: 30,
            bytes_to_client: 5 << 20,
        };
        let check = |code: &str, words: &str, is_good| CheckStatus {
            code: code.into(),
            words: words.into(),
            is_good,
            latency_ms: 3.4,
            age_seconds: 0.25,
        };
        let backend = |name: &str, address: &str, location: &str, next_hop: Option<&str>| BackendStatus {
            name: name.into(),
            address: address.parse().expect("an endpoint"),
            state: "active".into(),
            state_seconds: 3725.0,
            by_hand: None,
            check: Some(check("L7OK", "200 OK", true)),
            location: location.into(),
            next_hop: next_hop.map(str::to_owned),
            ring_share: 1.0 / 3.0,
            flows: FlowsStatus { established: 1, half_open: 1, closing: 7 },
            traffic,
        };
        let down = BackendStatus {
            state: "down".into(),
            state_seconds: 61.0,
            by_hand: Some("drain".into()),
            check: Some(check("L4CON", "connection refused", false)),
            ..backend("cp2", "198.18.0.12:6443", "remote", Some("02:00:00:00:00:02"))
        };
        let unchecked =
            BackendStatus { state_seconds: 0.004, check: None, ..backend("cp3", "198.18.0.13:6443", "remote", None) };
        Status {
            interface: "eth0".into(),
            mode: "native".into(),
            mode_reason: "the driver supports it".into(),
            mode_cost: crate::dataplane::Mode::Native.cost().into(),
            pid: Some(7),
            version: "0.1.0".into(),
            uptime_seconds: 3725,
            generation: 2,
            node: NodeStatus {
                mac: "02:00:00:00:00:01".into(),
                ipv4: Some([198, 18, 0, 11].into()),
                ipv6: None,
                vlan: None,
                nat_port_first: 10_000,
                nat_port_last: 32_767,
            },
            services: vec![ServiceStatus {
                name: "apiserver".into(),
                vip: "198.18.0.100:6443".parse().expect("an endpoint"),
                protocol: "tcp".into(),
                persistence: "client".into(),
                local_clients: "prefer-local".into(),
                flows: FlowsStatus { established: 3, half_open: 3, closing: 21 },
                traffic,
                backends: vec![backend("cp1", "198.18.0.11:6443", "local", None), down, unchecked],
            }],
            verdicts: Verdict::all().map(|v| (v.name().to_owned(), u64::from(v.name() == "to-backend"))).collect(),
            flows_v4: FlowsStatus { established: 3, half_open: 3, closing: 21 },
            flows_v6: FlowsStatus::default(),
            flow_limits: FlowLimits { max: 65_536, max_half_open: 8_192 },
            resets: ResetsStatus::default(),
            election: None,
            events: vec![EventStatus { age_seconds: 2.5, level: "info".into(), text: "ready".into() }],
        }
    }

    #[test]
    fn for_people() {
        let expected = "\
eth0  native XDP (the driver supports it), up 1h 2m 5s, kplb 0.1.0, pid 7
cost  the least: packets are sent on before the kernel makes anything of them
node  02:00:00:00:00:01, 198.18.0.11, no IPv6 address, NAT ports 10000-32767
flows IPv4 3 established, 3 half open, 21 closing; IPv6 0 established, 0 half open, 0 closing

service apiserver  198.18.0.100:6443/tcp  persistence client, local clients prefer-local, 3 flows opened
  BACKEND  ADDRESS           STATE   SINCE  CHECK       NEXT HOP           SHARE  FLOWS  OPENED      TO BACKEND       TO CLIENT
  cp1      198.18.0.11:6443  active  1h 2m  L7OK 3 ms   this node          33.3%      2       3  40 pkt 3.1 KiB  30 pkt 5.0 MiB
  cp2      198.18.0.12:6443  down    1m 1s  L4CON 3 ms  02:00:00:00:00:02  33.3%      2       3  40 pkt 3.1 KiB  30 pkt 5.0 MiB
  cp3      198.18.0.13:6443  active    4ms  -           unresolved         33.3%      2       3  40 pkt 3.1 KiB  30 pkt 5.0 MiB
  ! cp2: drain, decided by hand; `kplb backend resume cp2` ends that
  ! cp2: down; the last check, 250ms ago, found L4CON: connection refused

  VERDICT     PACKETS  MEANING
  to-backend        1  Rewritten and sent to a backend behind the wire.
";
        assert_eq!(text(&status(), VerdictFilter::Seen, Colour::Unused), expected);
        assert!(text(&status(), VerdictFilter::All, Colour::Unused).contains("drop-fragment"));
    }

    /// No command ends that.
    #[test]
    fn who_was_removed_was_not_by_hand() {
        let mut status = status();
        status.services[0].backends[0].by_hand = Some("removed".into());
        let text = text(&status, VerdictFilter::Seen, Colour::Unused);
        assert!(text.contains("  ! cp1: removed from the configuration, and gone with its last flow\n"), "{text}");
    }

    #[test]
    fn an_election_for_people() {
        let peer = |last: u8, heard: Option<(u8, f64)>| PeerReport {
            address: [198, 18, 0, last].into(),
            priority: heard.map(|(priority, _)| priority),
            heard_seconds: heard.map(|(_, seconds)| seconds),
        };
        let v4 = RouterReport {
            is_ipv4: true,
            version: 3,
            router_id: 100,
            priority: 110,
            interval: 0.25,
            address: [198, 18, 0, 12].into(),
            state: "backup".into(),
            state_seconds: Some(3725.0),
            faults: Vec::new(),
            master: Some([198, 18, 0, 11].into()),
            peers: vec![peer(11, Some((120, 0.1))), peer(13, None)],
            transitions: 3,
            adverts_sent: 12,
            send_errors: 0,
            adverts_received: 345,
            relistened: 0,
            dropped: BTreeMap::new(),
            remarks: BTreeMap::new(),
            lease_seconds: None,
        };
        let v6 = RouterReport {
            is_ipv4: false,
            address: "2001:2::12".parse().expect("an address"),
            state: "master".into(),
            master: Some("2001:2::12".parse().expect("an address")),
            peers: Vec::new(),
            faults: vec!["link-down".into()],
            send_errors: 2,
            dropped: BTreeMap::from([("not-a-peer".to_owned(), 7), ("checksum".to_owned(), 1)]),
            remarks: BTreeMap::from([("interval-differs".to_owned(), 9)]),
            lease_seconds: Some(0.7),
            ..v4.clone()
        };
        let election = ElectionReport { delay_last_us: 60.0, delay_worst_us: 1234.4, routers: vec![v4, v6] };
        let expected = "
  VIPS  ROLE    SINCE  PRIORITY  MASTER       PEERS                                             LEASE  CHANGES  ROUTER
  IPv4  backup  1h 2m       110  198.18.0.11  198.18.0.11 (120, 100ms ago), 198.18.0.13 (silent)      -        3  id 100, VRRPv3, every 250ms
  IPv6  master  1h 2m       110  this node    -                                                 700ms        3  id 100, VRRPv3, every 250ms
  the election's thread woke at most 1234 \u{b5}s too late
  ! IPv6: not to be master: link-down
  ! IPv6: adverts dropped: 1 checksum, 7 not-a-peer
  ! IPv6: adverts that were odd: 9 interval-differs
  ! IPv6: adverts not sent: 2
";
        let mut out = String::new();
        write_election(&mut out, &election, Colour::Unused).expect("writable");
        let squeezed =
            |text: &str| text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
        assert_eq!(squeezed(&out), squeezed(expected));
    }

    #[test]
    fn states_have_colours() {
        let coloured = text(&status(), VerdictFilter::Seen, Colour::Used);
        assert!(coloured.contains("  \x1b[32mactive\x1b[0m  1h 2m  L7OK 3 ms  "), "{coloured}");
        assert!(coloured.contains("  \x1b[31mdown\x1b[0m    1m 1s  \x1b[31mL4CON 3 ms\x1b[0m  "), "{coloured}");
        let plain = coloured.replace("\x1b[0m", "").replace("\x1b[31m", "").replace("\x1b[32m", "");
        assert_eq!(plain, text(&status(), VerdictFilter::Seen, Colour::Unused));
        let tones = ["active", "checking", "draining", "maintenance", "down"].map(backend_tone);
        assert_eq!(tones, [Tone::Good, Tone::Doubtful, Tone::Doubtful, Tone::Doubtful, Tone::Bad]);
        assert_eq!(["master", "backup", "initialize"].map(role_tone), [Tone::Good, Tone::Plain, Tone::Doubtful]);
    }

    /// An agent of an earlier version has no events.
    #[test]
    fn fields_may_be_missing_that_came_later() {
        let mut json = serde_json::to_value(status()).expect("encodable");
        json.as_object_mut().expect("an object").remove("events");
        assert_eq!(serde_json::from_value::<Status>(json).expect("decodable").events, []);
    }

    #[test]
    fn periods() {
        for (seconds, expected) in [
            (0.0, "0ms"),
            (0.9994, "999ms"),
            (1.0, "1s"),
            (59.9, "59s"),
            (60.0, "1m 0s"),
            (3599.0, "59m 59s"),
            (3600.0, "1h 0m"),
            (90_000.0, "1d 1h"),
        ] {
            assert_eq!(period(seconds), expected);
        }
    }

    #[test]
    fn for_programs() {
        let json = serde_json::to_value(status()).expect("encodable");
        assert_eq!(json["services"][0]["backends"][1]["next_hop"], "02:00:00:00:00:02");
        assert_eq!(json["services"][0]["backends"][2]["next_hop"], serde_json::Value::Null);
        assert_eq!(json["verdicts"]["to-backend"], 1);
        assert_eq!(serde_json::from_value::<Status>(json).expect("decodable"), status());
    }

    #[test]
    fn units() {
        for (n, expected) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (100 << 20, "100.0 MiB"), (u64::MAX, "16384.0 PiB")]
        {
            assert_eq!(bytes(n), expected);
        }
    }
}
