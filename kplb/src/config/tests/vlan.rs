//! Tests of the node's VLAN.

use super::*;

fn on_trunk(vlan: &str) -> String {
    format!("{SERVICE}[node]\nvlan = {vlan}\n")
}

#[test]
fn a_vlan_can_be_in_another() {
    for (text, expected) in [("[100, 42]", [100, 42]), ("[42]", [42, 0]), ("42", [42, 0]), ("4094", [4094, 0])] {
        let config = parse(&on_trunk(text), "k.toml").expect("valid");
        assert_eq!(config.node.vlan, Vlan(expected), "{text}");
    }
}

#[test]
fn what_is_no_vlan_is_refused() {
    check("none", &on_trunk("0"), &[&["k.toml:8:8: 0 is out of range: it must be 1 to 4094"]]);
    check("the reserved one", &on_trunk("[100, 4095]"), &[&["k.toml:8:14: 4095 is out of range"]]);
    check("two wrong ones", &on_trunk("[0, -1]"), &[&["k.toml:8:9: 0 is out"], &["k.toml:8:12: -1 is out"]]);
    check("in quotes", &on_trunk("'42'"), &[&["k.toml:8:8: `vlan` cannot be of type string"]]);
    check("no tags", &on_trunk("[]"), &[&["k.toml:8:8: 0 VLAN tags: write one identifier, or two in brackets"]]);
    check("three tags", &on_trunk("[1, 2, 3]"), &[&["k.toml:8:8: 3 VLAN tags: "]]);
}
