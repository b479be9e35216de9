//! What the import makes of a keepalived.conf is what keepalived itself says that it has read.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use kplb::{config, vrrp::settings::Preemption};
use kplb_tests::{
    keepalived::Keepalived,
    lab::{Lab, LabOptions},
};

use super::{MINIMAL, case, folder, imported};

/// keepalived's own account of its only virtual router: lines of `name = value`, and lists.
struct Account(Vec<String>);

impl Account {
    /// Of what it writes with `--dump-conf`, each line without its date.
    fn of(output: &str) -> Self {
        let lines = output.lines().map(|line| line.split_once(": ").map_or(line, |(_, text)| text));
        let own =
            lines.skip_while(|line| !line.contains("VRRP Topology")).take_while(|line| !line.contains("Interfaces >"));
        Self(own.map(|line| line.trim().to_owned()).collect())
    }

    fn value(&self, name: &str) -> Result<&str> {
        let prefix = format!("{name} = ");
        let found = self.0.iter().find_map(|line| line.strip_prefix(&prefix));
        found.with_context(|| format!("no {name} in\n{}", self.0.join("\n")))
    }

    /// The first words of lines that are addresses, whatever their length.
    fn addresses(&self) -> BTreeSet<String> {
        let first = |line: &String| line.split([' ', '/']).next().map(str::to_owned);
        self.0.iter().filter_map(first).filter(|word| word.parse::<std::net::IpAddr>().is_ok()).collect()
    }
}

/// Compares both accounts of a file that has one virtual router of this name.
fn compare(keepalived: &str, config_id: &str) -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let host = lab.node(1);
    let haproxy = MINIMAL[1].replace("198.18.0.100:6443", "*:6443");
    let folder = folder(keepalived, &haproxy)?;
    let text = imported(host, folder.path(), &["--config-id", config_id])?;
    let config = config::parse(&text, "kplb.toml")?;
    let vrrp = config.vrrp.as_ref().context("no virtual router")?;

    let arguments = ["--dump-conf", "--config-id", config_id];
    let keepalived = Keepalived::start_with(host, keepalived, &["VI_1"], &arguments)?;
    keepalived.process().wait_for_line("Interfaces >", Duration::from_secs(10))?;
    let account = Account::of(&keepalived.process().output());
    keepalived.stop()?;

    let schedule = &vrrp.announcements;
    let settings = [
        ("VRRP Version", vrrp.version.to_string()),
        ("Virtual Router ID", vrrp.router_id.to_string()),
        ("Priority", vrrp.priority.context("no priority")?.to_string()),
        ("Preempt", if vrrp.preemption == Preemption::Never { "disabled" } else { "enabled" }.to_owned()),
        ("Gratuitous ARP delay", schedule.delay.as_secs().to_string()),
        ("Gratuitous ARP repeat", schedule.repeat.to_string()),
        ("Gratuitous ARP lower priority delay", schedule.lower_priority_delay.as_secs().to_string()),
        ("Gratuitous ARP lower priority repeat", schedule.lower_priority_repeat.to_string()),
        ("Interface", "eth0".to_owned()),
    ];
    for (name, expected) in settings {
        assert_eq!(account.value(name)?, expected, "{name}");
    }
    let interval = account.value("Advert interval")?;
    let milliseconds = vrrp.interval.as_millis();
    let is_same = interval == format!("{milliseconds} milli-sec") || interval == format!("{} sec", milliseconds / 1000);
    ensure!(is_same, "{interval}, and not {milliseconds} ms");
    let password =
        vrrp.password.map(|password| String::from_utf8_lossy(password.bytes()).trim_end_matches('\0').to_owned());
    assert_eq!(account.value("Password").ok(), password.as_deref());
    // VIPs and peers; this node is a peer of its own in neither account, or in both.
    let mut theirs = account.addresses();
    let ours = config.vips().into_iter().chain(vrrp.peers.iter().copied());
    let mut ours: BTreeSet<String> = ours.map(|address| address.to_string()).collect();
    for addresses in [&mut theirs, &mut ours] {
        addresses.remove(&host.ipv4().to_string());
    }
    assert_eq!(theirs, ours);
    Ok(())
}

#[test]
fn the_minimal_file() -> Result<()> {
    compare(MINIMAL[0], "node1")
}

/// Conditions, names, sequences, quotes, peers.
#[test]
fn the_whole_grammar() -> Result<()> {
    let text =
        case!("words", "keepalived.conf").replace("include instances/*.conf", case!("words", "instances/api.conf"));
    compare(&text, "node1")?;
    compare(&text, "another")
}

#[test]
fn version_3_and_announcements() -> Result<()> {
    let text = "\
global_defs {
    vrrp_version 3
    vrrp_garp_master_delay 7
    vrrp_garp_lower_prio_repeat 2
}
vrrp_instance VI_1 {
    interface eth0
    virtual_router_id 200
    priority 33
    advert_int 0.129
    garp_master_repeat 3
    nopreempt
    virtual_ipaddress { 198.18.0.100/16 dev eth0
        198.18.0.101 # a comment
    }
}
";
    compare(text, "node1")
}
