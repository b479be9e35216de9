//! What `keepalived -t` and `haproxy -c` take, `kplb import` takes. What they refuse it may take or refuse, and says so.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use kplb_tests::lab::{Host, Lab, LabOptions};

use super::{MINIMAL, case, folder, import, imported};

/// What the real program says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Taken,
    /// With an error, or with a warning that makes it a bad one (keepalived).
    Refused,
}

use Verdict::{Refused, Taken};

/// Two interfaces, as the cases have them.
fn lab() -> Result<Lab> {
    let lab = Lab::new(LabOptions { nodes: 1, clients: 0 })?;
    let host = lab.node(1);
    host.namespace().ip("link add eth1 type veth peer name peer1\nlink set peer1 up\nlink set eth1 up\n")?;
    Ok(lab)
}

fn verdict(host: &Host, folder: &Path, program: &str, arguments: &[&str]) -> Result<(Verdict, String)> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    let output = host.namespace().output(command).with_context(|| format!("`cargo xtask setup` installs {program}"))?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Ok((if output.status.success() { Taken } else { Refused }, text))
}

fn keepalived(host: &Host, folder: &Path) -> Result<(Verdict, String)> {
    verdict(host, folder, "keepalived", &["-t", "-i", "node1", "-f", "keepalived.conf"])
}

fn haproxy(host: &Host, folder: &Path) -> Result<(Verdict, String)> {
    verdict(host, folder, "haproxy", &["-c", "-f", "haproxy.cfg"])
}

/// Compares the verdict with the expected one, so that the comparison means something, and imports.
fn compare(
    host: &Host,
    files: [&str; 2],
    real: impl Fn(&Host, &Path) -> Result<(Verdict, String)>,
    expected: Verdict,
) -> Result<()> {
    let folder = folder(files[0], files[1])?;
    let (verdict, text) = real(host, folder.path())?;
    ensure!(verdict == expected, "it was not {expected:?}:\n{text}");
    match verdict {
        Taken => imported(host, folder.path(), &["--config-id", "node1"]).map(drop),
        Refused => {
            let output = import(host, folder.path(), &["--config-id", "node1"])?;
            let text = String::from_utf8_lossy(&output.stderr);
            ensure!(matches!(output.status.code(), Some(0 | 1)), "{}:\n{text}", output.status);
            // Whoever gets nothing is told why.
            ensure!(output.status.success() != text.contains("error: "), "{}:\n{text}", output.status);
            Ok(())
        }
    }
}

/// A virtual router with more lines, and more text after it.
fn router(lines: &str, after: &str) -> String {
    format!(
        "vrrp_instance VI_1 {{\n interface eth0\n virtual_router_id 51\n {lines}\n virtual_ipaddress {{\n 198.18.0.100\n }}\n}}\n{after}"
    )
}

#[test]
fn keepalived_and_its_grammar() -> Result<()> {
    let lab = lab()?;
    let vips = |lines: &str| router("", "").replace("198.18.0.100", lines);
    let cases = [
        ("plain", router("", ""), Taken),
        (
            "one line",
            "vrrp_instance VI_1 { \n interface eth0\n virtual_router_id 51\n virtual_ipaddress { 198.18.0.100 }\n}\n"
                .into(),
            Taken,
        ),
        ("braces below", router("", "").replace(" {", "\n{"), Taken),
        ("braces glued", router("", "").replace(" {", "{"), Taken),
        ("carriage returns", router("", "").replace('\n', "\r\n"), Taken),
        ("quotes", router("authentication {\n auth_type PASS\n auth_pass \"a b\"\n}", ""), Taken),
        ("single quotes", router("authentication {\n auth_type PASS\n auth_pass 'a b'\n}", ""), Taken),
        ("quote within", router("authentication {\n auth_type PASS\n auth_pass ab\"c\"\n}", ""), Taken),
        ("escape", router("authentication {\n auth_type PASS\n auth_pass a\\#b\n}", ""), Taken),
        ("block on a line", router("authentication { auth_type PASS\n auth_pass 1111 }", ""), Taken),
        ("no type", router("authentication {\n auth_pass 1111\n}", ""), Taken),
        ("AH", router("authentication {\n auth_type AH\n auth_pass x\n}", ""), Taken),
        ("more words", router("priority 100 200 300", ""), Taken),
        ("comments", format!("# a\n! b\n{}", router("priority 100 # c", "# d")), Taken),
        ("a name", format!("$P=12\n{}", router("priority ${P}0", "")), Taken),
        ("a name at the end", format!("$P=120\n{}", router("priority $P", "")), Taken),
        ("several lines", format!("$V= \\\npriority 77 \\\nnopreempt\n{}", router("$V", "")), Taken),
        ("a sequence", vips("~SEQ(A, 100, 103) 198.18.0.${A}"), Taken),
        ("a hexadecimal one", vips("~SEQx(A, 1, 4) 198.18.0.10${A}"), Taken),
        ("a list", vips("~LST({A,B}, {0,1}, {1,2}) 198.18.${A}.${B}"), Taken),
        ("a condition", router("@node1 priority 120\n@^node1 priority 110", ""), Taken),
        ("a condition without a line", router("@node1", ""), Taken),
        ("a file that is not there", format!("include /nonexistent\n{}", router("", "")), Taken),
        ("a folder of files", format!("include *.d\n{}", router("", "")), Taken),
        ("length, device, label", vips("198.18.0.100/16 dev eth0 label eth0:1 brd +"), Taken),
        ("unicast", router("unicast_src_ip 198.18.0.11\nunicast_peer {\n 198.18.0.12\n}", ""), Taken),
        ("unicast with its own", router("unicast_peer {\n 198.18.0.11\n 198.18.0.12 min_ttl 3\n}", ""), Taken),
        ("version 3", router("version 3\n advert_int 0.5", ""), Taken),
        ("no state", router("", ""), Taken),
        ("nopreempt", router("state BACKUP\n nopreempt", ""), Taken),
        ("excluded", router("virtual_ipaddress_excluded {\n 2001:2::100\n}", ""), Taken),
        ("virtual MAC", router("use_vmac\n vmac_xmit_base", ""), Taken),
        (
            "announcements",
            format!(
                "global_defs {{\n vrrp_min_garp\n vrrp_garp_interval 0.001\n}}\n{}",
                router("garp_master_refresh 60", "")
            ),
            Taken,
        ),
        ("strict", format!("global_defs {{\n vrrp_strict\n}}\n{}", router("", "")), Taken),
        (
            "a group",
            router(
                "",
                "vrrp_instance VI_2 {\n interface eth0\n virtual_router_id 52\n virtual_ipaddress {\n 198.18.0.101\n }\n}\nvrrp_sync_group G {\n group {\n VI_1\n VI_2\n }\n}\n",
            ),
            Taken,
        ),
        (
            "a script",
            format!(
                "global_defs {{\n enable_script_security\n script_user root\n}}\nvrrp_script s {{\n script \"/bin/true\"\n weight -2\n}}\n{}",
                router("track_script {\n s\n}\n notify \"/bin/true a\"", "")
            ),
            Taken,
        ),
        (
            "virtual servers",
            router(
                "",
                "virtual_server 198.18.0.100 6443 {\n lvs_sched rr\n lvs_method NAT\n protocol TCP\n real_server 198.18.0.11 6443 {\n TCP_CHECK {\n connect_timeout 3\n }\n }\n}\n",
            ),
            Taken,
        ),
        ("state MASTER and nopreempt", router("state MASTER\n nopreempt", ""), Refused),
        ("half a second", router("advert_int 0.5", ""), Refused),
        ("a long password", router("authentication {\n auth_type PASS\n auth_pass 123456789\n}", ""), Refused),
        ("an unknown word", router("frobnicate 1", ""), Refused),
        ("an unknown block", router("", "frob {\n x\n}\n"), Refused),
        ("a brace too many", router("", "}\n"), Refused),
        ("a brace too few", router("", "").trim_end().trim_end_matches('}').into(), Refused),
        ("a quote too few", router("notify \"abc", ""), Refused),
        ("no number", router("priority 100x", ""), Refused),
        ("no word", router("priority", ""), Refused),
        ("no id", router("", "").replace("virtual_router_id 51", ""), Refused),
        ("no VIP", vips(""), Refused),
        ("both families", vips("198.18.0.100\n2001:2::100"), Refused),
        ("twice", router("", &router("", "")), Refused),
        ("a missing file that must be there", format!("includea /nonexistent\n{}", router("", "")), Refused),
        (
            "no protocol",
            router(
                "",
                "virtual_server 198.18.0.100 6443 {\n lvs_sched rr\n real_server 198.18.0.11 6443 {\n TCP_CHECK {\n }\n }\n}\n",
            ),
            Refused,
        ),
    ];
    let frontend = MINIMAL[1].replace("198.18.0.100:6443", "*:6443");
    for (name, text, expected) in cases {
        compare(lab.node(1), [&text, &frontend], keepalived, expected).context(name)?;
    }
    Ok(())
}

const DEFAULTS: &str = "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n";
const FRONTEND: &str = "frontend api\n bind *:16443\n default_backend cps\n";

/// A backend with a server, and more lines before it.
fn backend(lines: &str, server: &str) -> String {
    format!("{DEFAULTS}{FRONTEND}backend cps\n{lines}\n{server}\n")
}

#[test]
fn haproxy_and_its_grammar() -> Result<()> {
    const SERVER: &str = "server a 198.18.0.11:6443 check";
    let lab = lab()?;
    let plain = backend("", SERVER);
    let front = |lines: &str| format!("{DEFAULTS}frontend api\n{lines}\nbackend cps\n{SERVER}\n");
    let cases = [
        ("plain", plain.clone(), Taken),
        ("no defaults", format!("{FRONTEND}backend cps\n{SERVER}\n"), Taken),
        (
            "the check that comes last",
            backend("option httpchk GET /healthz\nhttp-check expect status 200\noption ssl-hello-chk", SERVER),
            Taken,
        ),
        ("rules without their check", backend("http-check expect status 200", SERVER), Taken),
        (
            "a check over TLS",
            backend(
                "option httpchk\nhttp-check connect ssl\nhttp-check send meth GET uri /healthz\nhttp-check expect status 200",
                "server a 198.18.0.11:6443 check verify none",
            ),
            Taken,
        ),
        ("quotes", backend("", "server \"a\" '198.18.0.11':6443 check"), Taken),
        ("an escape", backend("", "server a\\x62 198.18.0.11:6443 check"), Taken),
        ("a variable", backend("", "server a \"${NONE-198.18.0.11}:6443\" check"), Taken),
        (
            "a variable of its own",
            format!(
                "global\nsetenv A 198.18.0.11\npresetenv B \"check inter 3s\"\n{}",
                backend("", "server a \"$A\":6443 \"${B[*]}\"")
            ),
            Taken,
        ),
        (
            "a variable without quotes",
            format!("global\nsetenv A 198.18.0.11\n{}", backend("", "server a ${A}:6443")),
            Taken,
        ),
        (
            "conditions",
            format!(
                "{plain}.if defined(NONE)\nserver b 198.18.0.12:6443\n.elif version_atleast(2.0) && !streq(a,b)\nserver c 198.18.0.13:6443\n.else\nserver d 198.18.0.14:6443\n.endif\n"
            ),
            Taken,
        ),
        (
            "names of defaults",
            format!(
                "defaults d1\n mode tcp\ndefaults d2 from d1\n balance source\nfrontend api from d1\n bind *:16443\n default_backend cps\nbackend cps from d2\n{SERVER}\n"
            ),
            Taken,
        ),
        ("the same name twice", format!("defaults a\n mode tcp\ndefaults a\n mode tcp\n{plain}"), Taken),
        (
            "a server's many addresses",
            backend(
                "",
                "server a 198.18.0.11\nserver b 198.18.0.12:+100\nserver c ipv4@198.18.0.13:1\nserver d [2001:2::11]:1\nserver e 2001:2::12:1\nserver f localhost:1",
            ),
            Taken,
        ),
        ("the same address twice", backend("", "server a 198.18.0.11:1\nserver b 198.18.0.11:1"), Taken),
        ("a template", backend("", "server-template s 1-3 198.18.0.11:6443 check"), Taken),
        ("weights", backend("", "server a 198.18.0.11:1 weight 0\nserver b 198.18.0.12:1 weight 256"), Taken),
        (
            "defaults of servers",
            backend(
                "default-server inter 10s downinter 5s rise 2 fall 2 slowstart 60s maxconn 250 maxqueue 256 weight 100",
                SERVER,
            ),
            Taken,
        ),
        ("backups", backend("", "server a 198.18.0.11:1 backup\nserver b 198.18.0.12:1 backup disabled"), Taken),
        ("a tracked server", backend("", "server a 198.18.0.11:1 check\nserver b 198.18.0.12:1 track cps/a"), Taken),
        (
            "many listeners",
            front(
                " bind 127.0.0.1:16443,127.0.0.2:16443 name x\n bind :::16445 v4v6\n bind *:16446-16447\n bind localhost:16448\n bind unix@/tmp/kplb-x\n default_backend cps",
            ),
            Taken,
        ),
        ("a condition on a backend", front(" bind *:16443\n acl x src 198.18.0.0/16\n use_backend cps if x"), Taken),
        ("a backend at any time", front(" bind *:16443\n use_backend cps"), Taken),
        ("comments and blanks", front("\tbind   *:16443   #c\n default_backend  cps#c"), Taken),
        ("carriage returns", plain.replace('\n', "\r\n"), Taken),
        ("expectations", backend("option httpchk /healthz\nhttp-check expect ! rstatus ^5", SERVER), Taken),
        (
            "headers in a version",
            backend("option httpchk GET /healthz HTTP/1.1\\r\\nHost:\\ api.example", SERVER),
            Taken,
        ),
        (
            "a script",
            backend("option tcp-check\ntcp-check connect port 80\ntcp-check send x\ntcp-check expect string y", SERVER),
            Taken,
        ),
        ("another port", backend("", "server a 198.18.0.11:6443 check port 80 addr 198.18.0.12"), Taken),
        (
            "other sections",
            format!(
                "{plain}peers p\n peer x 198.18.0.1:1\nresolvers r\n nameserver a 198.18.0.1:53\nuserlist u\n user a password b\n"
            ),
            Taken,
        ),
        ("no and default", backend("no option redispatch\ndefault option redispatch", SERVER), Taken),
        ("HTTP", plain.replace("mode tcp", "mode http"), Taken),
        ("front and back of one name", plain.replace("frontend api", "frontend cps"), Taken),
        ("a long line", backend(&format!("# {}", "x".repeat(5000)), SERVER), Taken),
        (
            "a name that cannot be resolved",
            backend("", "server a none.invalid:6443 init-addr none\nserver b 198.18.0.11:1"),
            Taken,
        ),
        ("an unknown word", backend("frob x", SERVER), Refused),
        ("an unknown section", format!("{plain}frob x\n"), Refused),
        ("no section", format!("mode tcp\n{plain}"), Refused),
        ("a quote too few", backend("", "server a \"198.18.0.11:6443"), Refused),
        ("a bad escape", backend("", "server a\\xzz 198.18.0.11:6443"), Refused),
        ("a bad variable", backend("", "server a \"${A:-b}:6443\""), Refused),
        ("no end of a condition", format!("{plain}.if 1\n"), Refused),
        ("no condition", format!("{plain}.if foo(\n.endif\n"), Refused),
        ("no defaults of this name", format!("defaults d2 from none\n{FRONTEND}backend cps\n{SERVER}\n"), Refused),
        ("no backend", format!("{DEFAULTS}{FRONTEND}"), Refused),
        ("no port", front(" bind 127.0.0.1\n default_backend cps"), Refused),
        ("a port too high", front(" bind *:70000\n default_backend cps"), Refused),
        ("too heavy", backend("", "server a 198.18.0.11:1 weight 300"), Refused),
        ("no time", backend("", "server a 198.18.0.11:1 check inter 3x"), Refused),
        ("no end", plain.trim_end().into(), Refused),
        ("a zero byte", plain.replace("check\n", "check\0\n"), Refused),
        ("nothing", String::new(), Refused),
    ];
    for (name, text, expected) in cases {
        compare(lab.node(1), [MINIMAL[0], &text], haproxy, expected).context(name)?;
    }
    Ok(())
}

/// The named cases as far as they need nothing that this machine has not: scripts, and passwords that keepalived
/// complains of.
#[test]
fn the_named_cases() -> Result<()> {
    let lab = lab()?;
    let adapt = |text: &str| {
        text.replace("/etc/keepalived/check_apiserver.sh", "/bin/true")
            .replace("/usr/bin/killall -0 haproxy", "/bin/true")
            .replace("/etc/keepalived/notify.sh", "/bin/true")
            .replace("router_id LVS_DEVEL", "router_id LVS_DEVEL\n enable_script_security\n script_user root")
            .replace(
                "vrrp_garp_master_repeat 2",
                "vrrp_garp_master_repeat 2\n enable_script_security\n script_user root",
            )
            .replace("42424242-and-more", "42424242")
            .replace("ocp_api_vip", "ocp_api")
            .replace("ocp_ingress_vip", "ocp_ingr")
    };
    let cases = [
        ("minimal", MINIMAL),
        ("kubeadm, old", [case!("kubeadm-old", "keepalived.conf"), case!("kubeadm-old", "haproxy.cfg")]),
        ("kubeadm, new", [case!("kubeadm-new", "keepalived.conf"), case!("kubeadm-new", "haproxy.cfg")]),
        ("OpenShift", [case!("openshift", "keepalived.conf"), case!("openshift", "haproxy.cfg")]),
        ("dual stack", [case!("dual-stack", "keepalived.conf"), case!("dual-stack", "haproxy.cfg")]),
        // haproxy has no part in this one.
        ("IPVS", [case!("ipvs", "keepalived.conf"), MINIMAL[1]]),
    ];
    for (name, [keepalived_text, haproxy_text]) in cases {
        // keepalived says of a long password that it is too long, and of a script that it trusts it with root.
        let keepalived_text = adapt(keepalived_text).replace("state MASTER", "state BACKUP");
        let files = [keepalived_text.as_str(), haproxy_text];
        compare(lab.node(1), files, keepalived, Taken).context(name)?;
        compare(lab.node(1), files, haproxy, Taken).context(name)?;
    }
    Ok(())
}
