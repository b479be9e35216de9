//! The lab itself: what it promises to tests holds without kplb in it.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kplb_tests::{
    apiserver::{Apiserver, HTTPS_PORT, Readiness, UDP_PORT},
    client::{self, Connection, Load, UdpFlow},
    lab::{Lab, LabOptions, LinkState},
    netns::Namespace,
    pattern::pattern_sha256,
    poll,
    process::{Process, workspace_program},
};

const SOON: Duration = Duration::from_secs(5);

fn small() -> Result<Lab> {
    Lab::new(LabOptions { nodes: 1, clients: 2 })
}

#[test]
fn every_client_reaches_every_node_in_both_families() -> Result<()> {
    let lab = Lab::new(LabOptions::default())?;
    let _apiservers = lab.nodes().iter().map(Apiserver::start).collect::<Result<Vec<_>>>()?;
    for client in lab.clients() {
        for node in lab.nodes() {
            for (source, target) in client.addresses().into_iter().zip(node.addresses()) {
                let answer = client.namespace().block_on(client::get((target, HTTPS_PORT).into(), "/version"))?;
                assert_eq!((answer.status, answer.node.as_str()), (200, node.name()));
                assert_eq!(answer.client.ip(), source);
                let body = answer.json()?;
                assert_eq!(body["node"], node.name());
                assert_eq!(body["client"], answer.client.to_string());

                let echo =
                    client.namespace().block_on(client::udp_exchange((target, UDP_PORT).into(), b"a payload"))?;
                assert_eq!((echo.node.as_str(), echo.client.ip()), (node.name(), source));
                assert_eq!(echo.payload, b"a payload");
            }
        }
    }
    Ok(())
}

#[test]
fn curl_accepts_the_stand_in() -> Result<()> {
    let lab = small()?;
    let _apiserver = Apiserver::start(lab.node(1))?;
    for address in lab.node(1).addresses() {
        let mut curl = Command::new("curl");
        curl.args(["-sSk", "--max-time", "5", &format!("https://{}/version", SocketAddr::from((address, HTTPS_PORT)))]);
        let text = lab.client(1).namespace().check_output(curl)?;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text)?["node"], "node1");
    }
    Ok(())
}

#[test]
fn transfers_arrive_whole() -> Result<()> {
    const N: u64 = 20 * 1024 * 1024 + 3;
    let lab = small()?;
    let apiserver = Apiserver::start(lab.node(1))?;
    let expected = pattern_sha256(N);
    for address in lab.node(1).addresses() {
        let (down, up) = lab.client(1).namespace().block_on(async {
            let mut connection = Connection::open(apiserver.https(address)).await?;
            anyhow::Ok((connection.download(N).await?, connection.upload(N).await?))
        })?;
        assert_eq!((down.sha256, up.sha256), (expected.clone(), expected.clone()));
        assert_eq!((down.node.as_str(), up.node.as_str()), ("node1", "node1"));
    }
    Ok(())
}

#[test]
fn a_connection_is_kept_and_readiness_turns() -> Result<()> {
    let lab = small()?;
    let apiserver = Apiserver::start(lab.node(1))?;
    let address = apiserver.https(lab.node(1).ipv4().into());
    let readyz = || lab.client(1).namespace().block_on(client::get(address, "/readyz"));

    assert_eq!(readyz()?.status, 200);
    apiserver.set_readiness(Readiness::NotReady)?;
    assert_eq!(readyz()?.status, 500);
    let livez = lab.client(1).namespace().block_on(client::get(address, "/livez"))?;
    assert_eq!((livez.status, livez.text().as_str()), (200, "ok"));
    apiserver.set_readiness(Readiness::Ready)?;
    assert_eq!(readyz()?.status, 200);

    lab.client(1).namespace().block_on(async {
        let mut connection = Connection::open(address).await?;
        for _ in 0..5 {
            let answer = connection.get("/version").await?;
            ensure!(answer.client == connection.local_addr(), "{answer:?}");
        }
        ensure!(connection.get("/nothing").await?.status == 404);
        connection.close().await
    })
}

#[test]
fn a_watch_brings_lines_until_the_server_dies() -> Result<()> {
    let lab = small()?;
    let mut apiserver = Apiserver::start(lab.node(1))?;
    let address = apiserver.https(lab.node(1).ipv6().into());
    lab.client(2).namespace().block_on(async {
        let mut connection = Connection::open(address).await?;
        let mut watch = connection.watch(Duration::from_millis(20)).await?;
        ensure!(watch.node() == "node1");
        for n in 0..5 {
            let line = watch.next().await?;
            ensure!(line["sequence"] == n && line["node"] == "node1", "{line}");
        }
        apiserver.process().kill()?;
        while watch.next().await.is_ok() {}
        let refused = client::get(address, "/version").await;
        ensure!(refused.is_err(), "{refused:?}");
        Ok(())
    })
}

#[test]
fn a_crowd_of_addresses_connects() -> Result<()> {
    let lab = Lab::new(LabOptions::default())?;
    let _apiservers = lab.nodes().iter().map(Apiserver::start).collect::<Result<Vec<_>>>()?;
    let crowds = lab.clients().iter().map(|client| client.add_addresses(100)).collect::<Result<Vec<_>>>()?;
    for (client, crowd) in lab.clients().iter().zip(crowds) {
        for (target, sources) in [
            (IpAddr::from(lab.node(1).ipv4()), crowd.ipv4.into_iter().map(IpAddr::from).collect::<Vec<_>>()),
            (IpAddr::from(lab.node(2).ipv6()), crowd.ipv6.into_iter().map(IpAddr::from).collect()),
        ] {
            let load = Load { sources: sources.clone(), ..Load::new((target, HTTPS_PORT).into(), 200) };
            let report = client.namespace().block_on(load.run());
            assert_eq!((report.n_ok, report.n_failed()), (200, 0), "{report}");
            assert_eq!(report.by_node.len(), 1, "{report}");
            let seen = report.nodes_by_source.into_keys().collect::<BTreeSet<_>>();
            assert_eq!(seen, sources.into_iter().collect());
        }
    }
    Ok(())
}

#[test]
fn failures_are_told_apart() -> Result<()> {
    let lab = small()?;
    let refused = Load::new((lab.node(1).ipv4(), HTTPS_PORT).into(), 10);
    let report = lab.client(1).namespace().block_on(refused.run());
    assert_eq!((report.n_ok, report.n_failed(), report.failures.len()), (0, 10, 1), "{report}");
    let reason = report.failures.keys().next().context("there is one reason")?;
    assert!(reason.contains("refused"), "{reason}");
    Ok(())
}

#[test]
fn links_go_down_and_come_back_with_their_addresses() -> Result<()> {
    let lab = small()?;
    let _apiserver = Apiserver::start(lab.node(1))?;
    let (node, client) = (lab.node(1), lab.client(1));
    let carrier = || client.namespace().run(|| fs::read_to_string("/sys/class/net/eth0/carrier"));
    let reach = || {
        for address in node.addresses() {
            poll::until_ok("an answer", SOON, || {
                client
                    .namespace()
                    .block_on(async { UdpFlow::open((address, UDP_PORT).into(), None).await?.exchange(b"again").await })
            })?;
        }
        anyhow::Ok(())
    };
    reach()?;
    client.set_link(LinkState::Down)?;
    client.set_link(LinkState::Up)?;
    reach()?;
    lab.set_cable(client, LinkState::Down)?;
    poll::until("no carrier", SOON, || carrier().is_ok_and(|text| text.trim() == "0"))?;
    lab.set_cable(client, LinkState::Up)?;
    poll::until("a carrier", SOON, || carrier().is_ok_and(|text| text.trim() == "1"))?;
    reach()
}

#[test]
fn a_host_has_mounts_of_its_own() -> Result<()> {
    let lab = small()?;
    let names = |path: &str| -> Result<BTreeSet<String>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let cgroups = names("/sys/fs/cgroup")?;
    lab.node(1).namespace().run(|| {
        ensure!(names("/sys/class/net")?.contains("eth0"));
        ensure!(names("/run")?.is_empty());
        ensure!(names("/sys/fs/cgroup")? == cgroups, "control groups are not as outside");
        fs::create_dir("/run/kplb")?;
        fs::create_dir("/sys/fs/bpf/kplb")?;
        Ok(())
    })?;
    lab.client(1).namespace().run(|| ensure_absent(["/run/kplb", "/sys/fs/bpf/kplb"]))?;
    ensure_absent(["/run/kplb", "/sys/fs/bpf/kplb"])
}

fn ensure_absent<const N: usize>(paths: [&str; N]) -> Result<()> {
    paths.into_iter().try_for_each(|path| {
        ensure!(!Path::new(path).exists(), "{path} is visible from elsewhere");
        Ok(())
    })
}

#[test]
fn processes_are_heard_and_end() -> Result<()> {
    let namespace = Namespace::new("alone")?;
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn(&namespace, "sh", command)
    };
    let mut talker = shell("trap 'echo bye; exit 3' TERM; echo one; echo two >&2; while :; do sleep 0.01; done")?;
    assert_eq!(talker.wait_for_line("two", SOON)?, "two");
    assert_eq!(talker.terminate(SOON)?.code(), Some(3));
    assert!(talker.output().contains("one") && talker.output().contains("bye"), "{}", talker.output());

    let silent = shell("echo only this")?;
    let error = silent.wait_for_line("something else", SOON).expect_err("there is no such line");
    assert!(error.to_string().contains("only this"), "{error}");

    let mut orphan = shell("exec sleep 1000")?;
    drop(namespace);
    assert_eq!(orphan.wait(SOON)?.code(), None);
    Ok(())
}

#[test]
fn a_dropped_lab_leaves_nothing() -> Result<()> {
    let lab = small()?;
    let ids = lab.namespaces().map(Namespace::ids).collect::<Result<Vec<_>>>()?.concat();
    assert_eq!(namespaces_in_use()?.intersection(&ids.iter().cloned().collect()).count(), ids.len());
    drop(lab);
    // Another thread may end a moment after it has been joined.
    gone(&ids)
}

#[test]
fn a_killed_lab_leaves_nothing() -> Result<()> {
    let mut holder = Command::new(workspace_program("lab")?)
        .args(["--nodes=2", "--clients=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (mut ids, mut pids) = (Vec::new(), Vec::new());
    let mut ready = false;
    for line in BufReader::new(holder.stdout.take().context("standard output is piped")?).lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        match words.next() {
            Some("namespaces") => ids.extend(words.map(str::to_owned)),
            Some("process") => pids.extend(words.map(str::to_owned)),
            Some("ready:") => {
                ready = true;
                break;
            }
            _ => {}
        }
    }
    let before = (namespaces_in_use(), pids.iter().all(|pid| runs(pid)));
    holder.kill()?;
    holder.wait()?;
    assert!(ready);
    assert_eq!((ids.len(), pids.len()), (8, 2));
    let ids = ids.into_iter().collect::<BTreeSet<_>>();
    assert_eq!((before.0?.intersection(&ids).count(), before.1), (ids.len(), true));
    poll::until("end of its processes", SOON, || pids.iter().all(|pid| !runs(pid)))?;
    gone(&ids.into_iter().collect::<Vec<_>>())
}

/// Whether a process runs; one that has ended and that nobody has waited for has no program any more.
fn runs(pid: &str) -> bool {
    Path::new("/proc").join(pid).join("exe").exists()
}

fn gone(ids: &[String]) -> Result<()> {
    poll::until_ok("end of its namespaces", SOON, || {
        let in_use = namespaces_in_use()?;
        let left = ids.iter().filter(|id| in_use.contains(*id)).collect::<Vec<_>>();
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    })
}

/// Every namespace that a thread is in, a descriptor holds or a mount keeps: there is no other way for one to live on.
fn namespaces_in_use() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut add_links = |directory: &Path| {
        // Processes come and go while this looks.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if let Ok(target) = fs::read_link(entry.path()) {
                found.insert(target.to_string_lossy().into_owned());
            }
        }
    };
    let mut mounts = String::new();
    for process in fs::read_dir("/proc")? {
        let process = process?.path();
        add_links(&process.join("fd"));
        for task in fs::read_dir(process.join("task")).into_iter().flatten().flatten() {
            add_links(&task.path().join("ns"));
        }
        mounts.push_str(&fs::read_to_string(process.join("mountinfo")).unwrap_or_default());
    }
    found.extend(mounts.split_whitespace().filter(|word| word.contains(":[")).map(str::to_owned));
    Ok(found)
}
