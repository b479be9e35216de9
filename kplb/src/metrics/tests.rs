//! A status in, lines of the text format out.

use serde_json::json;

use super::*;

fn backend(name: &str, state: &str, check: serde_json::Value) -> serde_json::Value {
    json!({
        "name": name, "address": "198.18.0.11:6443", "state": state, "state_seconds": 7.0, "by_hand": null,
        "check": check, "location": "remote", "next_hop": null, "ring_share": 0.25,
        "flows": { "established": 5, "half_open": 6, "closing": 7 },
        "traffic": {
            "flows_opened": 11, "packets_to_backend": 12, "bytes_to_backend": 9_007_199_254_740_993_u64,
            "packets_to_client": 14, "bytes_to_client": 15,
        },
    })
}

fn status() -> Status {
    let check = json!({ "code": "L7OK", "words": "200 OK", "is_good": true, "latency_ms": 2.5, "age_seconds": 0.5 });
    let failed = json!({ "code": "L4CON", "words": "", "is_good": false, "latency_ms": 1.0, "age_seconds": 0.25 });
    let nothing = json!({ "established": 0, "half_open": 0, "closing": 0 });
    let status = json!({
        "interface": "eth0", "mode": "native", "mode_reason": "", "pid": 7, "version": "1.2.3", "uptime_seconds": 60,
        "node": {
            "mac": "02:00:00:00:00:01", "ipv4": null, "ipv6": null, "vlan": null, "nat_port_first": 1, "nat_port_last": 2,
        },
        "services": [{
            "name": "api \"1\"\\", "vip": "198.18.0.100:6443", "protocol": "tcp", "persistence": "client",
            "local_clients": "off", "flows": nothing, "traffic": {
                "flows_opened": 0, "packets_to_backend": 0, "bytes_to_backend": 0, "packets_to_client": 0,
                "bytes_to_client": 0,
            },
            "backends": [
                backend("cp1", "active", check), backend("cp2", "down", failed), backend("cp3", "active", json!(null)),
            ],
        }],
        "verdicts": { "to-backend": 40, "drop-fenced": 2 },
        "flows_v4": { "established": 1, "half_open": 2, "closing": 3 },
        "flows_v6": nothing,
        "flow_limits": { "max": 65_536, "max_half_open": 8_192 },
        "resets": { "to_clients": 3, "to_backends": 4 },
        "election": {
            "delay_last_us": 50.0, "delay_worst_us": 2000.0,
            "routers": [{
                "is_ipv4": true, "version": 3, "router_id": 100, "priority": 120, "interval": 0.25,
                "address": "198.18.0.11", "state": "master", "state_seconds": 1.0, "faults": ["no link"], "master": null,
                "peers": [], "transitions": 2, "adverts_sent": 31, "send_errors": 32, "adverts_received": 33,
                "relistened": 34, "dropped": { "a": 1, "b": 2 }, "remarks": {}, "lease_seconds": null,
            }],
        },
    });
    serde_json::from_value(status).expect("a status")
}

fn metrics(status: Status) -> String {
    let process = ProcessStats { resident_bytes: 8_388_608, open_fds: 20, max_fds: 1024, cpu_seconds: 1.5 };
    text(status, process)
}

#[test]
fn each_part_of_the_status_has_its_lines() {
    let metrics = metrics(status());
    let service = r#"service="api \"1\"\\""#;
    let router = r#"family="ipv4",router_id="100""#;
    let expected = [
        r#"kplb_build_info{version="1.2.3"} 1.0"#.to_owned(),
        r#"kplb_interface_info{interface="eth0",mode="native"} 1.0"#.to_owned(),
        "kplb_uptime_seconds 60.0".to_owned(),
        r#"kplb_packets_total{action="forward",verdict="to-backend"} 40"#.to_owned(),
        r#"kplb_packets_total{action="drop",verdict="drop-fenced"} 2"#.to_owned(),
        r#"kplb_packets_total{action="reset",verdict="reset-no-backend"} 0"#.to_owned(),
        r#"kplb_packets_total{action="pass",verdict="not-ip"} 0"#.to_owned(),
        r#"kplb_resets_sent_total{to="client"} 3"#.to_owned(),
        r#"kplb_resets_sent_total{to="backend"} 4"#.to_owned(),
        format!(r#"kplb_backend_flows_opened_total{{{service},backend="cp1"}} 11"#),
        format!(r#"kplb_backend_packets_total{{{service},backend="cp1",direction="to-backend"}} 12"#),
        // What a floating-point number would round.
        format!(r#"kplb_backend_bytes_total{{{service},backend="cp1",direction="to-backend"}} 9007199254740993"#),
        format!(r#"kplb_backend_packets_total{{{service},backend="cp1",direction="to-client"}} 14"#),
        format!(r#"kplb_backend_bytes_total{{{service},backend="cp1",direction="to-client"}} 15"#),
        r#"kplb_flows{family="ipv4",state="established"} 1.0"#.to_owned(),
        r#"kplb_flows{family="ipv4",state="half-open"} 2.0"#.to_owned(),
        r#"kplb_flows{family="ipv4",state="closing"} 3.0"#.to_owned(),
        r#"kplb_flows_limit{family="ipv6",table="flows"} 65536.0"#.to_owned(),
        r#"kplb_flows_limit{family="ipv6",table="half-open"} 8192.0"#.to_owned(),
        format!(r#"kplb_backend_state{{{service},backend="cp1",state="active"}} 1.0"#),
        format!(r#"kplb_backend_state{{{service},backend="cp1",state="down"}} 0.0"#),
        format!(r#"kplb_backend_state{{{service},backend="cp2",state="active"}} 0.0"#),
        format!(r#"kplb_backend_state{{{service},backend="cp2",state="down"}} 1.0"#),
        format!(r#"kplb_backend_ring_share_ratio{{{service},backend="cp3"}} 0.25"#),
        format!(r#"kplb_backend_flows{{{service},backend="cp3",state="closing"}} 7.0"#),
        format!(r#"kplb_backend_check_success{{{service},backend="cp1"}} 1.0"#),
        format!(r#"kplb_backend_check_success{{{service},backend="cp2"}} 0.0"#),
        format!(r#"kplb_backend_check_duration_seconds{{{service},backend="cp1"}} 0.0025"#),
        format!(r#"kplb_backend_check_age_seconds{{{service},backend="cp2"}} 0.25"#),
        format!(r#"kplb_backend_check_info{{{service},backend="cp2",code="L4CON"}} 1.0"#),
        "kplb_election_scheduling_delay_seconds 0.00005".to_owned(),
        "kplb_election_scheduling_delay_worst_seconds 0.002".to_owned(),
        format!(r#"kplb_election_role{{{router},role="master"}} 1.0"#),
        format!(r#"kplb_election_role{{{router},role="backup"}} 0.0"#),
        format!("kplb_election_transitions_total{{{router}}} 2"),
        format!("kplb_election_relistened_total{{{router}}} 34"),
        format!("kplb_election_priority{{{router}}} 120.0"),
        format!("kplb_election_faults{{{router}}} 1.0"),
        format!("kplb_election_lease_seconds{{{router}}} 0.0"),
        format!("kplb_election_adverts_sent_total{{{router}}} 31"),
        format!("kplb_election_send_errors_total{{{router}}} 32"),
        format!("kplb_election_adverts_received_total{{{router}}} 33"),
        format!("kplb_election_adverts_dropped_total{{{router}}} 3"),
        "process_resident_memory_bytes 8388608.0".to_owned(),
        "process_open_fds 20.0".to_owned(),
        "process_max_fds 1024.0".to_owned(),
        "process_cpu_seconds_total 1.5".to_owned(),
    ];
    for line in expected {
        assert!(metrics.lines().any(|other| other == line), "{line} is not in\n{metrics}");
    }
}

#[test]
fn every_verdict_is_counted_and_every_state_told() {
    let metrics = metrics(status());
    let count = |start: &str| metrics.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(count("kplb_packets_total{"), Verdict::COUNT as usize);
    assert_eq!(count("kplb_backend_state{"), 3 * State::ALL.len());
    assert_eq!(count("kplb_election_role{"), fsm::State::ALL.len());
    // A backend that is not checked has no outcome.
    assert_eq!(count("kplb_backend_check_success{"), 2);
}

#[test]
fn a_node_that_is_alone_has_no_election() {
    let metrics = metrics(Status { election: None, ..status() });
    assert!(!metrics.contains("election"), "{metrics}");
}
