//! The endpoint, and that its metrics follow what happens.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use kplb_tests::{
    agent::Agent,
    client,
    cluster::{self, Persistence},
    lab::{Lab, LabOptions},
    poll,
    scrape::{Scrape, exchange, promtool, scrape},
};

use super::{ADDRESS, start_agent};

const SOON: Duration = Duration::from_secs(10);

/// Scrapes until what was scraped is as it should be.
fn scrape_until(lab: &Lab, what: &str, is_so: impl Fn(&Scrape) -> bool) -> Result<Scrape> {
    poll::until_some(what, SOON, || scrape(lab.node(1), ADDRESS).ok().filter(|scrape| is_so(scrape)))
}

#[test]
fn traffic_moves_the_counters_and_promtool_is_content() -> Result<()> {
    const N: usize = 20;
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let agent = start_agent(&lab)?;
    let is_master = |scrape: &Scrape| scrape.sum("kplb_election_role", &[r#"role="master""#]) == 2.0;
    let before = scrape_until(&lab, "both families have this node as master", is_master)?;
    assert_eq!(before.sum("kplb_backend_flows_opened_total", &[]), 0.0);
    assert_eq!(before.sum("kplb_backend_state", &[r#"state="active""#]), 8.0);
    assert_eq!(before.sum("kplb_backend_check_success", &[]), 4.0);
    assert_eq!(before.sum("kplb_flows_limit", &[r#"table="flows""#]), 2.0 * 65_536.0);

    let host = lab.client(1);
    for vip in cluster::https() {
        host.namespace().block_on(async {
            for _ in 0..N {
                client::get(vip, "/version").await?;
            }
            anyhow::Ok(())
        })?;
    }
    let opened = |scrape: &Scrape| scrape.sum("kplb_backend_flows_opened_total", &[]);
    let after = scrape_until(&lab, "every flow is counted", |scrape| opened(scrape) == 2.0 * N as f64)?;
    // A client keeps to one backend, so this is of one of both.
    for direction in ["to-backend", "to-client"] {
        let labels = [r#"service="tcp-v4""#, &format!("direction=\"{direction}\"")];
        let (packets, bytes) =
            (after.sum("kplb_backend_packets_total", &labels), after.sum("kplb_backend_bytes_total", &labels));
        assert!(packets > 4.0 * N as f64, "{packets} packets {direction}\n{}", after.text);
        assert!(bytes > 40.0 * packets, "{bytes} bytes {direction}");
    }
    let forwarded = |scrape: &Scrape| scrape.sum("kplb_packets_total", &[r#"action="forward""#]);
    let by_backend = |scrape: &Scrape| scrape.sum("kplb_backend_packets_total", &[]);
    assert_eq!(forwarded(&after), by_backend(&after), "{}", after.text);
    for (sample, value) in before.counters() {
        assert!(after.value(sample)? >= value, "{sample} went down from {value}\n{}", after.text);
    }
    assert!(before.counters().count() > 50);
    let memory = after.value("process_resident_memory_bytes")?;
    assert!((1e6..1e9).contains(&memory), "{memory} bytes");

    promtool(Path::new("/"), &["check", "metrics"], &after.text)?;
    agent.stop()
}

#[test]
fn a_backend_that_goes_down_is_shown() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let mut apiservers = cluster::start_apiservers(&lab)?;
    let agent = start_agent(&lab)?;
    let cp2 = |state: &str| format!(r#"kplb_backend_state{{service="tcp-v4",backend="node2",state="{state}"}}"#);
    scrape_until(&lab, "node2 is active", |scrape| scrape.value(&cp2("active")).is_ok_and(|value| value == 1.0))?;
    drop(apiservers.pop());
    let down =
        scrape_until(&lab, "node2 is down", |scrape| scrape.value(&cp2("down")).is_ok_and(|value| value == 1.0))?;
    assert_eq!(down.value(&cp2("active"))?, 0.0);
    assert_eq!(down.value(r#"kplb_backend_check_success{service="tcp-v4",backend="node2"}"#)?, 0.0);
    assert_eq!(down.value(r#"kplb_backend_check_info{service="tcp-v4",backend="node2",code="L4CON"}"#)?, 1.0);
    agent.stop()
}

#[test]
fn only_get_of_one_path_is_answered() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let agent = start_agent(&lab)?;
    let status_of = |request: &str| -> Result<String> {
        let answer = exchange(lab.node(1), ADDRESS, request)?;
        Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
    };
    let cases = [
        ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "200"),
        ("GET /metrics?a=b HTTP/1.0\r\n\r\n", "200"),
        ("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "405"),
        ("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
        ("GET /metrics/ HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
        ("nothing of HTTP\r\n\r\n", "400"),
    ];
    for (request, status) in cases {
        assert_eq!(status_of(request)?, status, "{request:?}");
    }
    // Too long a head: refused, or hung up on.
    let long = format!("GET /metrics HTTP/1.1\r\nHost: a\r\nLong: {}\r\n\r\n", "x".repeat(100_000));
    assert!(status_of(&long).is_err() || !status_of(&long)?.starts_with('2'));
    agent.stop()
}

/// Clients that say nothing take all places: the agent does not notice, and the places are free again in time.
#[test]
fn silent_clients_hold_nobody_up() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let agent = start_agent(&lab)?;
    let silent: Vec<TcpStream> = lab
        .node(1)
        .namespace()
        .run(|| (0..8).map(|_| TcpStream::connect(ADDRESS).context("connect")).collect::<Result<_>>())?;
    let start = Instant::now();
    agent.status()?;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    poll::until_ok("metrics are served again", Duration::from_secs(20), || scrape(lab.node(1), ADDRESS))?;
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0; 16])?, 0, "hung up on");
    }
    agent.stop()
}

/// However many ask, the kernel's tables are walked once a second at most.
#[test]
fn many_scrapes_are_one() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let agent = start_agent(&lab)?;
    let start = Instant::now();
    let mut different = std::collections::BTreeSet::new();
    for _ in 0..50 {
        different.insert(scrape(lab.node(1), ADDRESS)?.text);
    }
    let most = start.elapsed().as_secs() as usize + 2;
    assert!(different.len() <= most, "{} different answers within {:?}", different.len(), start.elapsed());
    agent.stop()
}

#[test]
fn without_the_table_nothing_listens() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let mut agent = cluster::start_agent(lab.node(1), &cluster::configuration(lab.nodes(), Persistence::Client))?;
    let pid = agent.process().pid();
    for protocol in ["tcp", "tcp6"] {
        let sockets = fs::read_to_string(format!("/proc/{pid}/net/{protocol}"))?;
        // TCP_LISTEN (proc_pid_net(5)).
        let listening = sockets.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A")).count();
        assert_eq!(listening, 0, "{sockets}");
    }
    agent.stop()
}

#[test]
fn an_address_that_cannot_be_had_is_an_error_at_the_start() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let node = lab.node(1);
    let _taken = node.namespace().run(|| TcpListener::bind(ADDRESS))?;
    let elsewhere: SocketAddr = "198.18.77.77:9643".parse()?;
    for (address, reason) in [(ADDRESS, "Address already in use"), (elsewhere, "Cannot assign requested address")] {
        let services = cluster::configuration(lab.nodes(), Persistence::Client);
        let file = cluster::write(&format!("[metrics]\nlisten = \"{address}\"\n{services}"))?;
        let path = file.path().to_string_lossy().into_owned();
        let mut agent = Agent::spawn(node, ["--config", &path])?;
        assert_eq!(agent.process().wait(SOON)?.code(), Some(1));
        let output = agent.output();
        assert!(
            output.contains(&format!("error: cannot serve metrics at {address}: give another `listen`")),
            "{output}"
        );
        assert!(output.contains(reason), "{output}");
    }
    Ok(())
}

/// A client that takes its answer byte by byte, or asks so, takes no more time than it is given.
#[test]
fn a_slow_client_is_hung_up_on() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let agent = start_agent(&lab)?;
    lab.node(1).namespace().run(|| {
        let mut stream = TcpStream::connect(ADDRESS)?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let start = Instant::now();
        poll::until("the agent hangs up", Duration::from_secs(20), || {
            stream.write_all(b"x").is_err() || matches!(stream.read(&mut [0; 16]), Ok(0))
        })?;
        assert!(start.elapsed() > Duration::from_secs(5), "{:?}", start.elapsed());
        anyhow::Ok(())
    })?;
    agent.stop()
}
