//! What only ICMP tells: how large packets may be on the way, that a port is closed, that the VIP is there.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kplb_tests::{
    apiserver::{Apiserver, HTTPS_PORT},
    client::{Connection, Load, UdpFlow},
    cluster::{self, Persistence},
    frames::{ACK, Frame, icmp::IcmpError},
    lab::{Host, Lab, LabOptions},
    netns::Namespace,
    packet_socket::PacketSocket,
    pattern::pattern_sha256,
    poll,
};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

const SOON: Duration = Duration::from_secs(5);

const MIB: u64 = 1 << 20;

/// The smallest MTU that an IPv6 link may have (RFC 8200, section 5).
const SMALL_MTU: u32 = 1280;

/// A host two routers away, with a link of a small MTU between the routers, so that neither end knows of it.
///
/// ```text
/// segment --1500-- near (the lab's first client) --1280-- far --1500-- host (the lab's second client)
/// ```
struct Distant<'a> {
    host: &'a Host,
    // Held, for its links.
    _far: Namespace,
}

/// The host's addresses.
const DISTANT: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 19, 2, 2)), IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 2, 0, 0, 0, 2))];

impl<'a> Distant<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        let (near, host) = (lab.client(1), lab.client(2));
        let far = Namespace::new("far")?;
        let far_path = far.network_path();
        near.namespace().ip(&format!(
            "link add small mtu {SMALL_MTU} type veth peer name small mtu {SMALL_MTU} netns {}\n\
             link set small up\naddress add 198.19.1.1/24 dev small\naddress add 2001:2:0:1::1/64 dev small nodad\n",
            far_path.display()
        ))?;
        host.namespace().ip(&format!(
            "link delete eth0\nlink add eth0 type veth peer name eth0 netns {}\n\
             link set eth0 up\naddress add {}/24 dev eth0\naddress add {}/64 dev eth0 nodad\n",
            far_path.display(),
            DISTANT[0],
            DISTANT[1]
        ))?;
        far.ip(
            "link set small up\naddress add 198.19.1.2/24 dev small\naddress add 2001:2:0:1::2/64 dev small nodad\n\
             link set eth0 up\naddress add 198.19.2.1/24 dev eth0\naddress add 2001:2:0:2::1/64 dev eth0 nodad\n\
             route add default via 198.19.1.1\nroute add default via 2001:2:0:1::1\n",
        )?;
        host.namespace().ip("route add default via 198.19.2.1\nroute add default via 2001:2:0:2::1\n")?;
        near.namespace().ip("route add 198.19.2.0/24 via 198.19.1.2\nroute add 2001:2:0:2::/64 via 2001:2:0:1::2\n")?;
        let [near4, near6] = near.addresses();
        for node in lab.nodes() {
            node.namespace()
                .ip(&format!("route add 198.19.0.0/16 via {near4}\nroute add 2001:2:0:2::/64 via {near6}\n"))?;
        }
        for router in [near.namespace(), &far] {
            router.run(|| {
                fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
                fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
            })?;
        }
        // No hardware is there to finish checksums, or to cut up what is longer than the MTU.
        let ends = [(near.namespace(), "small"), (&far, "small"), (&far, "eth0"), (host.namespace(), "eth0")];
        for (namespace, interface) in ends {
            let mut command = Command::new("ethtool");
            command.args(["-K", interface, "tx", "off"]);
            namespace.check_output(command)?;
        }
        Ok(Self { host, _far: far })
    }
}

/// Of each transfer.
const SIZE: u64 = 100 * MIB;

/// Whole transfers each way over the small link, from a backend on the node and from one behind the wire.
///
/// Both ends of a connection offer segments for a MTU of 1500, so that without ICMP the backend's would never arrive.
#[test]
fn large_transfers_over_a_small_link() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 2 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let distant = Distant::new(&lab)?;
    let configuration = cluster::configuration(lab.nodes(), Persistence::Connection);
    let agent = cluster::start_agent(lab.node(1), &configuration)?;
    let expected = pattern_sha256(SIZE);
    let told = ["icmp-to-local-backend", "icmp-to-backend"];
    for vip in cluster::https() {
        let before = told.map(|verdict| agent.count(verdict));
        let transferred = distant.host.namespace().block_on(async {
            let mut by_node = BTreeMap::new();
            // Half of all connections go to either node: that so many go to one is as good as impossible.
            for _ in 0..64 {
                let mut connection = Connection::open(vip).await?;
                by_node.entry(connection.get("/version").await?.node).or_insert(connection);
                if by_node.len() == 2 {
                    break;
                }
            }
            ensure!(by_node.len() == 2, "{vip}: only {:?} served", by_node.keys());
            // Downloads first: once the client has learned of the small link, it offers a smaller segment size.
            for connection in by_node.values_mut() {
                ensure!(connection.download(SIZE).await?.sha256 == expected, "{vip}: another download");
            }
            for connection in by_node.values_mut() {
                ensure!(connection.upload(SIZE).await?.sha256 == expected, "{vip}: another upload");
            }
            Ok(())
        });
        transferred.with_context(|| format!("the agent wrote:\n{}", agent.output()))?;
        for (verdict, before) in told.into_iter().zip(before) {
            let n_errors = agent.count(verdict)? - before?;
            assert!(n_errors > 0, "{vip}: no packet was too big ({verdict})");
        }
    }
    assert_eq!(agent.count("drop-icmp-unknown-flow")?, 0);
    agent.stop()
}

/// The same with the small link between the balancer and a backend: the router's errors, of which the node is the
/// addressee, are for the client.
#[test]
fn large_transfers_to_a_backend_behind_a_small_link() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 3 })?;
    let distant = Distant::new(&lab)?;
    let _apiserver = Apiserver::start_at(distant.host, &[HTTPS_PORT], &[])?;
    let configuration = cluster::configuration_of(&[(distant.host.name(), DISTANT)], Persistence::Client);
    // On a link that is full, a check may be late.
    let agent = cluster::start_agent(lab.node(1), &cluster::unchecked(&configuration))?;
    let expected = pattern_sha256(SIZE);
    for vip in cluster::https() {
        let before = agent.count("icmp-to-client")?;
        lab.client(3).namespace().block_on(async {
            let mut connection = Connection::open(vip).await?;
            ensure!(connection.upload(SIZE).await?.sha256 == expected, "{vip}: another upload");
            ensure!(connection.download(SIZE).await?.sha256 == expected, "{vip}: another download");
            Ok(())
        })?;
        let n_errors = agent.count("icmp-to-client")? - before;
        assert!(n_errors > 0, "{vip}: no packet was too big");
    }
    assert_eq!(agent.count("drop-icmp-unknown-flow")?, 0);
    agent.stop()
}

/// A datagram to a port that no backend listens on is refused at once, by a backend on the node and by one behind the
/// wire, to a client on the segment and to a distant one.
#[test]
fn closed_ports_are_told() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 2 })?;
    let distant = Distant::new(&lab)?;
    // UDP is served by none.
    let _apiservers =
        lab.nodes().iter().map(|node| Apiserver::start_on(node, &[HTTPS_PORT], &[])).collect::<Result<Vec<_>>>()?;
    for (backend, verdict) in [(1, "icmp-to-client-local"), (2, "icmp-to-client")] {
        let configuration = cluster::configuration([lab.node(backend)], Persistence::Client);
        let agent = cluster::start_agent(lab.node(1), &configuration)?;
        for client in [lab.client(1), distant.host] {
            for vip in cluster::udp() {
                let answer =
                    client.namespace().block_on(async { UdpFlow::open(vip, None).await?.exchange(b"hello?").await });
                let error = answer.err().with_context(|| format!("{vip}: an answer, from nowhere"))?;
                let kind = error.root_cause().downcast_ref::<io::Error>().map(io::Error::kind);
                assert_eq!(kind, Some(ErrorKind::ConnectionRefused), "{} at {vip}: {error:#}", client.name());
            }
        }
        assert_eq!(agent.count(verdict)?, 4, "one for each client and family");
        agent.stop()?;
    }
    Ok(())
}

/// Errors about packets that the VIPs have never sent to clients' ports, one for each.
fn unfounded_errors(from: &Host, to: &Host) -> Vec<Vec<u8>> {
    let (macs, mut frames) = ([from.mac(), to.mac()], Vec::new());
    for (vip, client) in cluster::https().into_iter().zip(from.addresses()) {
        for port in 1024..1024 + N_ERRORS {
            let unsent = Frame::tcp([to.mac(), from.mac()], vip, (client, port).into(), ACK).build();
            frames.push(IcmpError::too_big(macs, client, vip.ip(), unsent[14..].to_vec()).build());
        }
    }
    frames
}

/// Of each family.
const N_ERRORS: u16 = 20_000;

/// A flood of errors about nothing is dropped and counted, and clients go on meanwhile as if there were none.
#[test]
fn a_flood_of_errors_is_dropped() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 2 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, intruder) = (lab.node(1), lab.client(2));
    let agent = cluster::start_agent(node, &cluster::configuration(lab.nodes(), Persistence::Connection))?;
    let frames = unfounded_errors(intruder, node);
    let wire = PacketSocket::open(intruder.namespace(), "eth0")?;
    thread::scope(|scope| {
        let flood = scope.spawn(|| frames.iter().try_for_each(|frame| wire.send(frame)));
        for vip in cluster::https() {
            let report = lab.client(1).namespace().block_on(async { anyhow::Ok(Load::new(vip, 200).run().await) })?;
            ensure!(report.n_failed() == 0, "{vip}: {report}");
        }
        flood.join().expect("a flood does not panic")
    })?;
    // What finds the queue of the virtual interface full is lost before it gets there.
    let n_dropped = agent.count("drop-icmp-unknown-flow")?;
    println!("{n_dropped} of {} errors were dropped and counted", frames.len());
    ensure!((frames.len() / 2..=frames.len()).contains(&usize::try_from(n_dropped)?), "{n_dropped} were counted");
    let opened =
        |service: usize| agent.status().map(|status| status[0]["services"][service]["traffic"]["flows_opened"].clone());
    ensure!(opened(0)? == 200 && opened(2)? == 200, "the flood has opened flows: {} and {}", opened(0)?, opened(2)?);
    agent.stop()
}

/// How long `ping` waits for one answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Asks for an echo, as `ping` does.
fn ping(address: IpAddr) -> Result<()> {
    let (family, protocol, kinds) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, [8, 0]),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, [128, 129]),
    };
    // The kernel has it that only some groups may.
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")?;
    let socket = UdpSocket::from(socket(family, SockType::Datagram, SockFlag::empty(), protocol)?);
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(SocketAddr::from((address, 0)))?;
    // The kernel fills in the checksum and the identifier.
    socket.send(&[&[kinds[0], 0, 0, 0, 0, 0, 0, 1][..], b"are you there?"].concat())?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    ensure!(answer[0] == kinds[1] && answer[8..length] == *b"are you there?", "another answer");
    Ok(())
}

#[test]
fn the_vip_answers_echo_requests() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 2 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let distant = Distant::new(&lab)?;
    let agent = cluster::start_agent(lab.node(1), &cluster::configuration(lab.nodes(), Persistence::Client))?;
    for client in [lab.client(1), distant.host] {
        for vip in cluster::VIPS {
            // More than once: the kernel answers for an IPv6 address that is new before it has a route to it, which a
            // work queue adds (`addrconf_dad_work` in net/ipv6/addrconf.c).
            let attempt = || client.namespace().run(|| ping(vip));
            poll::until_ok("an echo", SOON, attempt).with_context(|| format!("{} to {vip}", client.name()))?;
        }
    }
    agent.stop()
}
