//! A lab in which every node is an apiserver and the first one balances: what most end-to-end tests start from.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::Result;
use kplb::dataplane::Mode;

use crate::{
    agent::Agent,
    apiserver::{Apiserver, HTTPS_PORT, UDP_PORT},
    lab::{Host, Lab},
};

/// Environment variable with the mode in which tests are run.
const MODE: &str = "KPLB_TEST_MODE";

/// The VIP of both families that tests balance at.
pub const VIPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 18, 0, 100)), IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0x100))];

/// The VIP's HTTPS endpoint of both families.
pub fn https() -> [SocketAddr; 2] {
    VIPS.map(|vip| (vip, HTTPS_PORT).into())
}

/// The VIP's UDP endpoint of both families.
pub fn udp() -> [SocketAddr; 2] {
    VIPS.map(|vip| (vip, UDP_PORT).into())
}

/// Which flows keep to one backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Persistence {
    /// All flows of one client address.
    Client,
    /// Each flow for itself.
    Connection,
}

impl Persistence {
    const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Connection => "connection",
        }
    }
}

/// A `kplb.toml` of a TCP and a UDP service in both families, with these hosts as backends.
pub fn configuration<'a>(backends: impl IntoIterator<Item = &'a Host>, persistence: Persistence) -> String {
    let backends: Vec<_> = backends.into_iter().map(|host| (host.name(), host.addresses())).collect();
    configuration_of(&backends, persistence)
}

/// The same with backends of these names and addresses, IPv4 first.
pub fn configuration_of(backends: &[(&str, [IpAddr; 2])], persistence: Persistence) -> String {
    let mut text = String::new();
    for (vip, family) in VIPS.into_iter().zip(["v4", "v6"]) {
        for (protocol, port) in [("tcp", HTTPS_PORT), ("udp", UDP_PORT)] {
            let vip = SocketAddr::from((vip, port));
            text +=
                &format!("[[service]]\nname = \"{protocol}-{family}\"\nvip = \"{vip}\"\nprotocol = \"{protocol}\"\n");
            text += &format!("persistence = \"{}\"\n", persistence.name());
            for (name, [ipv4, ipv6]) in backends {
                let address = SocketAddr::from((if vip.is_ipv4() { *ipv4 } else { *ipv6 }, port));
                text += &format!("[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n");
            }
        }
    }
    text
}

/// A configuration of these makings without checks of backends.
pub fn unchecked(configuration: &str) -> String {
    configuration.replace("persistence = ", "check = { type = \"none\" }\npersistence = ")
}

/// A configuration with an election between these hosts, and more lines for it.
pub fn elected(hosts: &[Host], settings: &str) -> String {
    let peers: Vec<String> = hosts.iter().flat_map(Host::addresses).map(|address| format!("\"{address}\"")).collect();
    let services = configuration(hosts, Persistence::Client);
    format!("[vrrp]\npeers = [{}]\n{settings}\n{services}", peers.join(", "))
}

/// Writes a configuration to a file that lives as long as what is returned.
///
/// # Errors
/// If it cannot be written.
pub fn write(configuration: &str) -> Result<tempfile::NamedTempFile> {
    let file = tempfile::Builder::new().prefix("kplb").suffix(".toml").tempfile()?;
    std::fs::write(file.path(), configuration)?;
    Ok(file)
}

/// Starts the stand-in on every node.
///
/// # Errors
/// If one does not start.
pub fn start_apiservers(lab: &Lab) -> Result<Vec<Apiserver<'_>>> {
    lab.nodes().iter().map(Apiserver::start).collect()
}

/// The mode in which tests have kplb run that do not choose one: each end-to-end test is run in every mode.
pub fn mode() -> Mode {
    let name = env::var(MODE).unwrap_or_default();
    Mode::from_name(&name).unwrap_or(Mode::Native)
}

/// The name under which the program at ingress is pinned in that mode.
pub fn ingress_pin() -> &'static str {
    if mode().is_xdp() { "xdp" } else { "tc-ingress" }
}

/// What `kplb status` calls the program at ingress in that mode.
pub fn title() -> &'static str {
    mode().title()
}

/// Starts kplb on a node with this configuration, in the mode that the test is run in, and waits until it serves.
///
/// # Errors
/// If it does not start.
pub fn start_agent<'a>(host: &'a Host, configuration: &str) -> Result<Agent<'a>> {
    start_agent_in(host, configuration, mode().name())
}

/// The same in a mode of its own.
///
/// # Errors
/// If it does not start.
pub fn start_agent_in<'a>(host: &'a Host, configuration: &str, mode: &str) -> Result<Agent<'a>> {
    let file = write(configuration)?;
    let path = file.path().to_string_lossy().into_owned();
    Agent::start(host, ["--config", &path, "--mode", mode])
}
