//! Neighbours that change: the MAC address of a backend, of a client or of a router, the way to one, what the kernel knows
//! of it. Traffic follows within a second, and no flow is lost.

use std::{
    net::IpAddr,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kplb::announce::Announcer;
use kplb_common::net::Mac;
use kplb_tests::{
    agent::Agent,
    apiserver::{Apiserver, HTTPS_PORT, UDP_PORT},
    beyond::Beyond,
    cluster::{self, Persistence},
    conversation::{Account, Conversations, Manner, Topic},
    lab::{Host, Lab, LabOptions, LinkState},
    netns::Namespace,
    packet_socket::{Direction, PacketSocket},
    poll,
};

/// What a change may cost.
const LIMIT: Duration = Duration::from_secs(1);
/// How long conversations go on after it, so that more would show.
const PERIOD: Duration = Duration::from_secs(2);
/// How long anything may take.
const SOON: Duration = Duration::from_secs(10);

const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];

/// Services beside those that clients talk with.
const MANY_SERVICES: u16 = 300;

/// Conversations of these manners with the VIP of either family.
fn topics(manners: &[Manner]) -> Vec<Topic> {
    let of_each = |manner: &Manner| {
        let vips = if *manner == Manner::Datagrams { cluster::udp() } else { cluster::https() };
        vips.map(|vip| (*manner, vip))
    };
    manners.iter().flat_map(of_each).collect()
}

fn text(mac: [u8; 6]) -> String {
    Mac::new(mac).to_string()
}

/// Gives an interface another MAC address, and says nothing of it: `arp_notify` and `ndisc_notify` are off.
fn set_mac(namespace: &Namespace, interface: &str, mac: [u8; 6]) -> Result<()> {
    namespace.ip(&format!("link set {interface} address {}", text(mac)))
}

/// Lets conversations go on, and ends them: none was without a word for long.
fn assert_followed(talks: Conversations, since: Instant) -> Result<Vec<Account>> {
    let accounts = talks.stop_after(since, PERIOD)?;
    for account in &accounts {
        let silence = account.longest_silence_after(since);
        println!("{account}; longest silence {silence:.0?}");
        ensure!(silence < LIMIT, "{account}; longest silence {silence:.1?}");
    }
    Ok(accounts)
}

fn ensure_never_down(agent: &Agent<'_>) -> Result<()> {
    ensure!(!agent.output().contains("-> down"), "a backend was down:\n{}", agent.output());
    Ok(())
}

/// The only backend moves to another MAC address, and says nothing of it, while a client talks with it.
fn backend_moves(manners: &[Manner], configuration: impl FnOnce(String) -> String) -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let text = configuration(cluster::configuration([lab.node(2)], Persistence::Client));
    let agent = cluster::start_agent(lab.node(1), &text)?;
    let talks = Conversations::start(lab.client(1).namespace(), &topics(manners))?;
    let moved = Instant::now();
    set_mac(lab.node(2).namespace(), "eth0", OTHER_MAC)?;
    assert_followed(talks, moved)?;
    ensure_never_down(&agent)?;
    agent.stop()
}

#[test]
fn a_backend_moves_and_says_nothing() -> Result<()> {
    backend_moves(&[Manner::Requests, Manner::Datagrams], |text| text)
}

/// Nothing but the requests can tell.
#[test]
fn a_backend_that_is_not_checked_moves_and_says_nothing_tcp() -> Result<()> {
    backend_moves(&[Manner::Requests], |text| cluster::unchecked(&text))
}

#[test]
fn a_backend_that_is_not_checked_moves_and_says_nothing_udp() -> Result<()> {
    backend_moves(&[Manner::Datagrams], |text| cluster::unchecked(&text))
}

/// Nothing but the checks can tell: nobody speaks while it moves.
#[test]
fn a_backend_moves_while_nobody_speaks() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let mut agent = cluster::start_agent(lab.node(1), &cluster::configuration([lab.node(2)], Persistence::Client))?;
    let moved = Instant::now();
    set_mac(lab.node(2).namespace(), "eth0", OTHER_MAC)?;
    for address in lab.node(2).addresses() {
        let line = format!("backend {address}: next hop {address} is at {}", text(OTHER_MAC));
        let followed = agent.process().wait_for_line_after(moved, &line, SOON)? - moved;
        println!("{address}: followed after {followed:.0?}");
        ensure!(followed < LIMIT, "{address}: followed after {followed:.1?}");
    }
    // For longer than three checks that are not answered take.
    poll::until("time to pass", SOON, || moved.elapsed() > PERIOD)?;
    ensure_never_down(&agent)?;
    agent.stop()
}

#[test]
fn a_backend_moves_and_says_so() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let text = cluster::configuration([lab.node(2)], Persistence::Client);
    let agent = cluster::start_agent(lab.node(1), &text)?;
    let host = lab.client(1).namespace();
    let talks = Conversations::start(host, &topics(&[Manner::Requests, Manner::Watch, Manner::Datagrams]))?;
    let moved = Instant::now();
    set_mac(lab.node(2).namespace(), "eth0", OTHER_MAC)?;
    lab.node(2).namespace().run(|| Announcer::open("eth0")?.announce(Mac::new(OTHER_MAC), &lab.node(2).addresses()))?;
    assert_followed(talks, moved)?;
    agent.stop()
}

/// Whether it asks, listens, or both.
fn client_moves(manners: &[Manner]) -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let text = cluster::configuration([lab.node(2)], Persistence::Client);
    let agent = cluster::start_agent(lab.node(1), &text)?;
    let host = lab.client(1).namespace();
    let talks = Conversations::start(host, &topics(manners))?;
    let moved = Instant::now();
    set_mac(host, "eth0", OTHER_MAC)?;
    assert_followed(talks, moved)?;
    agent.stop()
}

#[test]
fn a_client_moves() -> Result<()> {
    client_moves(&[Manner::Requests, Manner::Watch, Manner::Datagrams])
}

#[test]
fn a_client_moves_that_only_listens() -> Result<()> {
    client_moves(&[Manner::Watch])
}

/// A client that asks and listens, behind the first of two routers.
struct DistantClient<'a> {
    beyond: Beyond<'a>,
    talks: Conversations,
}

impl<'a> DistantClient<'a> {
    fn start(lab: &'a Lab, manners: &[Manner]) -> Result<Self> {
        let beyond = Beyond::new(lab, lab.client(1), 2)?;
        let talks = Conversations::start(beyond.host().namespace(), &topics(manners))?;
        Ok(Self { beyond, talks })
    }
}

/// Runs a change of the routers between a client and the VIP.
fn between_client_and_vip(manners: &[Manner], change: impl FnOnce(&Beyond<'_>) -> Result<()>) -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let text = cluster::configuration([lab.node(2)], Persistence::Client);
    let agent = cluster::start_agent(lab.node(1), &text)?;
    let DistantClient { beyond, talks } = DistantClient::start(&lab, manners)?;
    let moved = Instant::now();
    change(&beyond)?;
    assert_followed(talks, moved)?;
    agent.stop()
}

#[test]
fn a_client_moves_behind_another_router() -> Result<()> {
    between_client_and_vip(&[Manner::Requests, Manner::Watch, Manner::Datagrams], |beyond| {
        beyond.leave_by(2)?;
        beyond.reach_by(2)?;
        beyond.router(1).namespace().ip("link set near down\nlink set far down\n")
    })
}

#[test]
fn a_client_moves_behind_another_router_that_only_listens() -> Result<()> {
    between_client_and_vip(&[Manner::Watch], |beyond| {
        beyond.router(1).namespace().ip("link set near down\nlink set far down\n")?;
        beyond.leave_by(2)?;
        beyond.reach_by(2)
    })
}

/// The router is another machine: nothing comes from the client that could tell.
#[test]
fn the_router_of_a_client_that_only_listens_moves() -> Result<()> {
    between_client_and_vip(&[Manner::Watch], |beyond| set_mac(beyond.router(1).namespace(), "near", OTHER_MAC))
}

/// The balancer itself gets another MAC address. Its kernel tells neighbours of that at once, and kplb a moment later finds it
/// out: what is sent there meanwhile is not left to the node's own sockets, which would reset it.
#[test]
fn the_balancer_moves() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let services = cluster::configuration([lab.node(2)], Persistence::Client);
    // So many that the moment is long.
    let many = (0..MANY_SERVICES).map(|n| {
        let (vip, backend) = (cluster::VIPS[0], lab.node(2).ipv4());
        let port = 10_000 + n;
        format!(
            "[[service]]\nvip = '{vip}:{port}'\ncheck.type = 'none'\nbackend = [{{ address = '{backend}:{port}' }}]\n"
        )
    });
    let configuration = format!("[vrrp]\n{services}{}", many.collect::<String>());
    let agent = cluster::start_agent(lab.node(1), &configuration)?;
    poll::until("the VIPs", SOON, || cluster::VIPS.iter().all(|vip| lab.node(1).has_address(*vip).unwrap_or(false)))?;
    let manners = [Manner::Requests, Manner::Watch, Manner::Datagrams];
    let talks = Conversations::start(lab.client(1).namespace(), &topics(&manners))?;
    let moved = Instant::now();
    set_mac(lab.node(1).namespace(), "eth0", OTHER_MAC)?;
    assert_followed(talks, moved)?;
    ensure_never_down(&agent)?;
    agent.stop()
}

/// Runs a change of the routers between the balancer and the only backend, which is not checked, so that the flows alone
/// tell.
fn between_balancer_and_backend(change: impl FnOnce(&Beyond<'_>) -> Result<()>) -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let beyond = Beyond::new(&lab, lab.node(2), 2)?;
    let _apiserver =
        Apiserver::start_at(lab.node(2), &[HTTPS_PORT], &beyond.addresses().map(|address| (address, UDP_PORT).into()))?;
    let text = cluster::configuration_of(&[("node2", beyond.addresses())], Persistence::Client);
    let agent = cluster::start_agent(lab.node(1), &cluster::unchecked(&text))?;
    let topics = topics(&[Manner::Requests, Manner::Datagrams]);
    let talks = Conversations::start(lab.client(1).namespace(), &topics)?;
    let moved = Instant::now();
    change(&beyond)?;
    assert_followed(talks, moved)?;
    agent.stop()
}

#[test]
fn the_router_of_a_backend_moves() -> Result<()> {
    between_balancer_and_backend(|beyond| set_mac(beyond.router(1).namespace(), "near", OTHER_MAC))
}

#[test]
fn the_route_to_a_backend_changes() -> Result<()> {
    between_balancer_and_backend(|beyond| {
        beyond.reach_by(2)?;
        beyond.leave_by(2)?;
        beyond.router(1).namespace().ip("link set near down\nlink set far down\n")
    })
}

/// The state of a neighbour in the kernel of a host.
fn neighbour(host: &Host, address: IpAddr) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(["neighbour", "show", "to", &address.to_string(), "dev", "eth0"]);
    host.namespace().check_output(command)
}

/// The next hop is away until the kernel gives it up, and comes back as another machine.
#[test]
fn a_next_hop_goes_and_comes_back() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, backend) = (lab.node(1), lab.node(2));
    let text = cluster::unchecked(&cluster::configuration([backend], Persistence::Client));
    let agent = cluster::start_agent(node, &text)?;
    let host = lab.client(1).namespace();
    let requests = Conversations::start(host, &topics(&[Manner::Requests]))?;
    let datagrams = Conversations::start(host, &topics(&[Manner::Datagrams]))?;
    lab.set_cable(backend, LinkState::Down)?;
    // The kernel would take half a minute to doubt it. All at once: a client gives up after ten seconds.
    let addresses = backend.addresses();
    let doubts = addresses.map(|address| format!("neighbour change {address} dev eth0 nud probe\n"));
    node.namespace().ip(&doubts.concat())?;
    let mut is_given_up = [false; 2];
    poll::until("the kernel to give it up", SOON, || {
        for (address, is_given_up) in addresses.into_iter().zip(&mut is_given_up) {
            // It tries anew at once.
            *is_given_up |= neighbour(node, address).is_ok_and(|state| state.contains("FAILED"));
        }
        is_given_up == [true; 2]
    })?;
    set_mac(backend.namespace(), "eth0", OTHER_MAC)?;
    let back = Instant::now();
    lab.set_cable(backend, LinkState::Up)?;
    datagrams.wait_for_all_after(back, SOON)?;
    let accounts = datagrams.stop_after(back, PERIOD)?;
    for account in &accounts {
        let first = account.heard.iter().find(|heard| **heard > back).context("nothing was heard")?;
        println!("{account}: first heard {:.0?} after it was back", *first - back);
        ensure!(*first - back < LIMIT, "{account}: first heard {:.1?} after it was back", *first - back);
    }
    // TCP tries rarely by now, but it does.
    requests.wait_for_all_after(back, 3 * SOON)?;
    requests.stop_after(back, Duration::ZERO)?;
    agent.stop()
}

/// An administrator deletes what the kernel knows of the next hop, or has it doubt or forget it: nobody notices.
#[test]
fn an_administrator_meddles_with_neighbours() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, backend) = (lab.node(1), lab.node(2));
    let agent = cluster::start_agent(node, &cluster::configuration([backend], Persistence::Client))?;
    let topics = topics(&[Manner::Requests, Manner::Datagrams]);
    let talks = Conversations::start(lab.client(1).namespace(), &topics)?;
    let start = Instant::now();
    for meddling in
        ["delete ADDRESS dev eth0", "change ADDRESS dev eth0 nud stale", "change ADDRESS dev eth0 nud failed"]
    {
        let meddled = Instant::now();
        for address in backend.addresses() {
            node.namespace().ip(&format!("neighbour {}\n", meddling.replace("ADDRESS", &address.to_string())))?;
            poll::until(&format!("the kernel to look after {address} again"), SOON, || {
                let state = neighbour(node, address).unwrap_or_default();
                state.contains("managed") && state.contains(&backend.mac_text())
            })
            .with_context(|| meddling.to_owned())?;
        }
        talks.wait_for_all_after(meddled, SOON)?;
    }
    assert_followed(talks, start)?;
    ensure_never_down(&agent)?;
    agent.stop()
}

/// Frames for all hosts that ask for an address, as they pass an interface for a while.
fn questions(socket: &PacketSocket, target: IpAddr, period: Duration) -> Result<usize> {
    let end = Instant::now() + period;
    let mut n = 0;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let Some(frame) = socket.receive(left)? else { continue };
        n += usize::from(frame.direction == Direction::Received && asks_all_for(&frame.bytes, target));
    }
    Ok(n)
}

/// Whether a frame is an ARP request or a neighbour solicitation for an address, to more than one host.
fn asks_all_for(frame: &[u8], target: IpAddr) -> bool {
    let is_for_many = frame[0] & 1 == 1;
    is_for_many
        && match target {
            IpAddr::V4(v4) => {
                frame[12..14] == [0x08, 0x06]
                    && frame.get(20..22) == Some(&[0, 1])
                    && frame.get(38..42) == Some(&v4.octets())
            }
            IpAddr::V6(v6) => {
                frame[12..14] == [0x86, 0xdd] && frame.get(54) == Some(&135) && frame.get(62..78) == Some(&v6.octets())
            }
        }
}

/// While all goes well nobody is asked for, and of who is dead the segment hears now and then.
#[test]
fn questions_are_few() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 1 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let (node, backend) = (lab.node(1), lab.node(2));
    let agent = cluster::start_agent(node, &cluster::configuration([backend], Persistence::Client))?;
    let topics = topics(&[Manner::Requests, Manner::Watch, Manner::Datagrams]);
    let _talks = Conversations::start(lab.client(1).namespace(), &topics)?;
    let ears = [PacketSocket::open(lab.switch(), node.name())?, PacketSocket::open(lab.switch(), node.name())?];
    let asked = |period: Duration| -> Result<Vec<usize>> {
        std::thread::scope(|scope| {
            let listen = |(socket, target)| scope.spawn(move || questions(socket, target, period));
            let threads: Vec<_> = ears.iter().zip(backend.addresses()).map(listen).collect();
            threads.into_iter().map(|thread| thread.join().expect("listening does not panic")).collect()
        })
    };
    assert_eq!(asked(PERIOD)?, [0, 0]);
    lab.set_cable(backend, LinkState::Down)?;
    // At first, after 100, 300 and 700 ms, then twice a second; and once a second by the kernel when it has given it up.
    let n_asked = asked(Duration::from_secs(3))?;
    println!("asked for a dead backend within three seconds: {n_asked:?}");
    ensure!(n_asked.iter().all(|n| (1..=11).contains(n)), "asked {n_asked:?} times");
    agent.stop()
}
