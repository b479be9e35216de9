//! What is drawn, in windows of all sizes, from statuses as agents give them.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, style::Modifier};
use serde_json::{Value, json};

use super::*;
use crate::{status::Status, terminal::Colour};

/// A status by its stable form: what is told of backends, and counters that are so many times as high.
fn value(n: u64) -> Value {
    let traffic = |n: u64| {
        json!({
            "flows_opened": 2 * n, "packets_to_backend": 300 * n, "bytes_to_backend": 30_000 * n,
            "packets_to_client": 200 * n, "bytes_to_client": 220_000 * n
        })
    };
    let flows = json!({"established": 5, "half_open": 1, "closing": 9});
    let backend = |name: &str, address: &str, state: &str, code: &str, n: u64| {
        json!({
            "name": name, "address": address, "state": state, "state_seconds": 3725.0, "by_hand": null,
            "check": {"code": code, "words": "connection refused", "is_good": state == "active", "latency_ms": 12.3, "age_seconds": 0.2},
            "location": "remote", "next_hop": "02:00:00:00:01:12", "ring_share": 0.5, "flows": flows, "traffic": traffic(n)
        })
    };
    let router = |is_ipv4: bool, state: &str| {
        json!({
            "is_ipv4": is_ipv4, "version": 3, "router_id": 100, "priority": 120, "interval": 0.25, "address": "198.18.0.11",
            "state": state, "state_seconds": 61.0, "faults": [], "master": "198.18.0.11", "peers": [], "transitions": 1,
            "adverts_sent": 1, "send_errors": 0, "adverts_received": 0, "relistened": 0, "dropped": {}, "remarks": {},
            "lease_seconds": 0.7
        })
    };
    json!({
        "interface": "eth0", "mode": "native", "mode_reason": "asked for", "pid": 7, "version": "0.1.0", "uptime_seconds": 100 + n,
        "node": {"mac": "02:00:00:00:01:11", "ipv4": "198.18.0.11", "ipv6": null, "vlan": null, "nat_port_first": 10000, "nat_port_last": 32767},
        "services": [{
            "name": "apiserver", "vip": "198.18.0.100:6443", "protocol": "tcp", "persistence": "client", "local_clients": "off",
            "flows": flows, "traffic": traffic(2 * n),
            "backends": [
                backend("cp1", "198.18.0.11:6443", "active", "L7OK", n),
                backend("cp2", "198.18.0.12:6443", "down", "L4CON", 0)
            ]
        }],
        "verdicts": {"to-backend": 300 * n, "drop-fragment-tiny": 40 * n, "drop-no-nat-port": 3, "not-ours": 0},
        "flows_v4": flows, "flows_v6": {"established": 0, "half_open": 0, "closing": 0},
        "election": {"delay_last_us": 60.0, "delay_worst_us": 90.0, "routers": [router(true, "master"), router(false, "backup")]},
        "events": [
            {"age_seconds": 70.0, "level": "info", "text": "ready: native XDP on eth0"},
            {"age_seconds": 3.0, "level": "warn", "text": "backend cp2 of service apiserver: active -> down"}
        ]
    })
}

fn status(n: u64) -> News {
    changed(n, |_| ())
}

fn changed(n: u64, change: impl FnOnce(&mut Value)) -> News {
    let mut value = value(n);
    change(&mut value);
    News::Status(Box::new(serde_json::from_value::<Status>(value).expect("a status")))
}

/// A model that has taken these, a second after each other.
fn model(all: impl IntoIterator<Item = News>) -> Model {
    let mut model = Model::new(None);
    let start = Instant::now();
    for (second, news) in (0..).zip(all) {
        model.take(news, start + Duration::from_secs(second));
    }
    model
}

fn picture(model: &Model, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a buffer");
    terminal.draw(|frame| draw(frame, model, Colour::Used)).expect("a buffer takes every write");
    terminal.backend().buffer().clone()
}

fn lines_of(buffer: &Buffer) -> Vec<String> {
    let area = *buffer.area();
    let line = |y| (0..area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..area.height).map(line).collect()
}

fn screen(model: &Model, width: u16, height: u16) -> String {
    lines_of(&picture(model, width, height)).join("\n")
}

#[test]
fn a_wide_window_has_all() {
    let drawn = screen(&model([status(1), status(2), status(4)]), 140, 24);
    let expected = "\
kplb eth0  native XDP, up 1m, kplb 0.1.0, pid 7
1.0k pkt/s  4.0Mbit/s  4.0 new/s  flows 5 established, 1 half open";
    assert!(drawn.starts_with(expected), "{drawn}");
    for line in [
        "IPv4 master for 1m, priority 120, lease 700ms",
        "IPv6 backup for 1m, priority 120, lease 700ms",
        "BACKEND  ADDRESS           STATE   SINCE  CHECK        SHARE  FLOWS  NEW/S  PKT/S  BIT/S",
        "apiserver  198.18.0.100:6443/tcp  1 of 2 active, 6 flows",
        "  cp1    198.18.0.11:6443  active     1h  L7OK 12 ms     50%      6    4.0   1.0k   4.0M",
        "  cp2    198.18.0.12:6443  down       1h  L4CON 12 ms    50%      6      0      0      0",
        "drop-fragment-tiny            80        160      3s  backend cp2 of service apiserver: active -> down",
        "drop-no-nat-port               0          3      1m  ready: native XDP on eth0",
        "to-backend                   600       1200",
        "q end  p pause  arrows select",
    ] {
        assert!(drawn.lines().any(|drawn| drawn.starts_with(line)), "{line}\nis not in\n{drawn}");
    }
    // Nothing, something, twice as much.
    let cp1 = drawn.lines().find(|line| line.starts_with("  cp1")).expect("it is there");
    assert!(cp1.ends_with("▁▅█"), "{cp1}");
}

#[test]
fn a_narrow_window_has_what_matters() {
    let drawn = screen(&model([status(1), status(2)]), 40, 12);
    assert!(drawn.contains("  cp1    active"), "{drawn}");
    assert!(drawn.contains("PKT/S"), "{drawn}");
    assert!(!drawn.contains("ADDRESS") && !drawn.contains("SHARE"), "{drawn}");
    assert!(drawn.ends_with("q end  p pause  arrows select"), "{drawn}");
}

#[test]
fn no_window_is_too_small() {
    let models = [
        Model::new(None),
        model([News::Silence("no answer".into())]),
        model([status(1), status(2)]),
        model([status(1), News::Silence("no answer".into())]),
    ];
    for model in &models {
        for (width, height) in [(1, 1), (20, 5), (3, 40), (200, 1), (200, 2), (80, 24), (300, 100), (44, 9), (88, 13)] {
            picture(model, width, height);
        }
    }
}

#[test]
fn states_have_colours() {
    let model = model([status(1), status(2)]);
    let styles = |colour| {
        let mut terminal = Terminal::new(TestBackend::new(140, 24)).expect("a buffer");
        terminal.draw(|frame| draw(frame, &model, colour)).expect("a buffer takes every write");
        let buffer = terminal.backend().buffer().clone();
        let y = lines_of(&buffer).iter().position(|line| line.starts_with("  cp2")).expect("it is there");
        let x = lines_of(&buffer)[y].find("down").expect("it is there");
        buffer[(u16::try_from(x).expect("a column"), u16::try_from(y).expect("a row"))].fg
    };
    assert_eq!(styles(Colour::Used), ratatui::style::Color::Red);
    assert_eq!(styles(Colour::Unused), ratatui::style::Color::Reset);
}

/// Whichever restarts, the agent or the counters: never less than nothing, never all that was ever counted.
#[test]
fn counters_that_begin_anew() {
    let other_agent = changed(1000, |value| {
        value["pid"] = 8.into();
        value["uptime_seconds"] = 1.into();
    });
    let quiet = "0 pkt/s  0bit/s  0 new/s";
    assert!(screen(&model([status(1), other_agent.clone()]), 100, 20).contains(quiet));
    assert!(
        screen(&model([status(900), changed(1, |value| value["uptime_seconds"] = 2000.into())]), 100, 20)
            .contains(quiet)
    );
    // What was counted while nobody answered is no rate of now.
    let silence = News::Silence("no answer".into());
    assert!(screen(&model([status(1), silence, status(1000)]), 100, 20).contains(quiet));
    let later = changed(1001, |value| {
        value["pid"] = 8.into();
        value["uptime_seconds"] = 2.into();
    });
    assert!(screen(&model([status(1), other_agent, later]), 100, 20).contains("500 pkt/s  2.0Mbit/s  2.0 new/s"));
    assert!(screen(&model([status(1)]), 100, 20).contains(quiet));
}

#[test]
fn an_agent_that_goes_and_comes() {
    let silence = || News::Silence("no answer in /run/kplb".into());
    let mut model = model([status(1), silence(), silence(), silence()]);
    let drawn = screen(&model, 100, 20);
    assert!(drawn.starts_with("kplb eth0  no agent for 2s  no answer in /run/kplb"), "{drawn}");
    // What was last heard is still there.
    assert!(drawn.contains("  cp1"), "{drawn}");
    model.take(status(2), Instant::now() + Duration::from_secs(60));
    assert!(screen(&model, 100, 20).starts_with("kplb eth0  native XDP"));
    assert!(screen(&Model::new(Some("eth1".into())), 100, 20).starts_with("kplb eth1  asking the agent"));
}

#[test]
fn while_it_is_paused_nothing_changes() {
    let mut model = model([status(1), status(2)]);
    assert_eq!(model.press(Key::Pause), Flow::On);
    let before = screen(&model, 140, 24);
    assert!(before.starts_with("kplb eth0  paused"), "{before}");
    model.take(status(50), Instant::now() + Duration::from_secs(5));
    assert_eq!(screen(&model, 140, 24), before);
    model.press(Key::Pause);
    model.take(status(60), Instant::now() + Duration::from_secs(6));
    assert_ne!(screen(&model, 140, 24), before);
}

/// The line that is drawn the other way round.
fn selected(model: &Model, height: u16) -> String {
    let buffer = picture(model, 100, height);
    let is_reversed = |y: &u16| buffer[(0, *y)].modifier.contains(Modifier::REVERSED);
    let y = (0..height).find(is_reversed).expect("a line is selected");
    lines_of(&buffer)[usize::from(y)].clone()
}

#[test]
fn the_selected_line_is_in_sight() {
    let many = || {
        changed(1, |value| {
            let service = value["services"][0].clone();
            let backend = service["backends"][0].clone();
            let name = |i: usize| {
                let mut backend = backend.clone();
                backend["name"] = format!("cp{i}").into();
                backend
            };
            value["services"][0]["backends"] = (0..100).map(name).collect();
        })
    };
    let mut model = model([many()]);
    assert!(selected(&model, 15).starts_with("apiserver"));
    for (key, name) in [
        (Key::Move(1), "  cp0 "),
        (Key::Move(40), "  cp40 "),
        (Key::Move(-1), "  cp39 "),
        (Key::Last, "  cp99 "),
        (Key::Move(i32::MAX), "  cp99 "),
        (Key::Move(i32::MIN), "apiserver"),
        (Key::Last, "  cp99 "),
    ] {
        model.press(key);
        assert!(selected(&model, 15).starts_with(name), "{key:?}: {}", selected(&model, 15));
    }
    // It is told of in words.
    assert!(
        screen(&model, 100, 15)
            .contains("cp99 198.18.0.11:6443  next hop 02:00:00:00:01:12  L7OK (connection refused) 200ms ago")
    );
    // A list that gets shorter has another last line.
    model.take(status(2), Instant::now());
    assert!(selected(&model, 15).starts_with("  cp2 "));
    model.press(Key::First);
    assert!(selected(&model, 15).starts_with("apiserver"));
    assert_eq!(model.press(Key::Quit), Flow::End);
}

proptest! {
    #[test]
    fn any_window_and_any_keys_are_survived(
        width in 1_u16..200, height in 1_u16..60, keys in proptest::collection::vec(-120_i32..120, 0..8), counts in proptest::collection::vec(any::<u32>(), 0..4)
    ) {
        let mut model = model(counts.into_iter().map(|n| status(n.into())));
        for n in keys {
            model.press(Key::Move(n));
        }
        picture(&model, width, height);
    }
}
