//! Finds processes that matter: kubelets, and other balancers. Only those of this network namespace do.

use std::{
    fs::{self, File},
    io::Read as _,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::super::facts::{NodeIps, Process};

/// Other balancers, the options that name their configuration, and where it is otherwise.
const BALANCERS: [(&str, &[&str], &str); 2] = [
    ("keepalived", &["-f", "--use-file"], "/etc/keepalived/keepalived.conf"),
    ("haproxy", &["-f"], "/etc/haproxy/haproxy.cfg"),
];
/// The kubelet, and what has one built in.
const KUBELETS: [&str; 5] = ["kubelet", "k3s", "k3s-server", "k3s-agent", "rke2"];
/// Where options of a kubelet stand that may not run yet.
const KUBELET_FILES: [&str; 3] =
    ["/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet", "/etc/sysconfig/kubelet"];
const NODE_IP: &str = "--node-ip";
/// Longer files are not read to their end.
const MAX_BYTES: u64 = 1 << 20;

/// The balancers, and what kubelets are told to be the node's addresses.
pub(super) fn gather() -> (Vec<Process>, Vec<NodeIps>) {
    let (mut processes, mut node_ips) = (Vec::<Process>::new(), Vec::new());
    let own = fs::read_link("/proc/self/ns/net").ok();
    for pid in pids() {
        let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) else { continue };
        let name = name.trim_end();
        let balancer = BALANCERS.iter().find(|(balancer, ..)| *balancer == name);
        let is_kubelet = KUBELETS.contains(&name);
        if balancer.is_none() && !is_kubelet || fs::read_link(format!("/proc/{pid}/ns/net")).ok() != own {
            continue;
        }
        let arguments = arguments(pid);
        if is_kubelet {
            node_ips.push(NodeIps { place: format!("{name} (pid {pid})"), addresses: addresses(&arguments) });
        }
        if let Some((_, options, default)) = balancer {
            let path = PathBuf::from(option(&arguments, options).unwrap_or(default));
            // As the process sees it.
            let seen =
                Path::new("/proc").join(pid.to_string()).join("root").join(path.strip_prefix("/").unwrap_or(&path));
            let file = text(&seen).map(|text| (path, text));
            // Each has several processes.
            if !processes.iter().any(|process| process.name == name && process.file == file) {
                processes.push(Process { pid, name: name.to_owned(), file });
            }
        }
    }
    for path in KUBELET_FILES {
        if let Some(text) = text(Path::new(path)) {
            node_ips.push(NodeIps { place: path.to_owned(), addresses: addresses(&words(&text)) });
        }
    }
    (processes, node_ips)
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

fn arguments(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The words of a file for the environment: `KUBELET_EXTRA_ARGS="--node-ip=198.18.0.11"`.
fn words(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(|line| line.split(|c: char| c.is_whitespace() || c == '"' || c == '\''));
    // The first option may follow the name of the variable.
    words.map(|word| word.find("=--").map_or(word, |at| &word[at + 1..]).to_owned()).collect()
}

/// The value of the first of these options, in a word of its own or after an equals sign.
fn option<'a>(arguments: &'a [String], names: &[&str]) -> Option<&'a str> {
    arguments.iter().enumerate().find_map(|(i, argument)| {
        names.iter().find_map(|name| match argument.strip_prefix(name)? {
            "" => arguments.get(i + 1).map(String::as_str),
            rest => rest.strip_prefix('='),
        })
    })
}

/// The addresses of `--node-ip`; two for two families.
fn addresses(arguments: &[String]) -> Vec<IpAddr> {
    let value = option(arguments, &[NODE_IP]).unwrap_or_default();
    value.split(',').filter_map(|address| address.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(arguments: &[&str]) -> Vec<String> {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        addresses(&arguments).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn node_ips_in_arguments() {
        assert_eq!(ips(&["kubelet", "--node-ip=198.18.0.100", "--v=2"]), ["198.18.0.100"]);
        assert_eq!(ips(&["kubelet", "--node-ip", "198.18.0.11,2001:2::11"]), ["198.18.0.11", "2001:2::11"]);
        assert_eq!(ips(&["kubelet", "--node-ips=198.18.0.100"]), [""; 0]);
        assert_eq!(ips(&["kubelet", "--node-ip"]), [""; 0]);
        assert_eq!(ips(&["kubelet", "--node-ip=::"]), ["::"]);
        assert_eq!(ips(&[]), [""; 0]);
    }

    #[test]
    fn node_ips_in_files() {
        let of = |text: &str| addresses(&words(text)).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of("KUBELET_KUBEADM_ARGS=\"--pod-infra=x --node-ip=198.18.0.100\"\n"), ["198.18.0.100"]);
        assert_eq!(of("# --node-ip=198.18.0.100\nKUBELET_EXTRA_ARGS=--node-ip=198.18.0.11\n"), ["198.18.0.11"]);
        assert_eq!(of(""), [""; 0]);
    }

    #[test]
    fn options_that_name_files() {
        let arguments = ["haproxy", "-W", "-f", "/etc/other.cfg"].map(str::to_owned);
        assert_eq!(option(&arguments, &["-f"]), Some("/etc/other.cfg"));
        let arguments = ["keepalived", "--use-file=/etc/other.conf"].map(str::to_owned);
        assert_eq!(option(&arguments, &["-f", "--use-file"]), Some("/etc/other.conf"));
        assert_eq!(option(&arguments, &["-x"]), None);
    }
}
