//! The data path on made-up packets: one table of cases, floods, sweeps, ends that speak in vain, packets that are told
//! of, and what time it is.
//!
//! Every expected packet is the sent one with the fields replaced that are to change, built anew with its checksums
//! from scratch.

mod case;
mod scene;
mod traffic;

mod checksums;
mod choice;
mod down;
mod fence;
mod fragment;
mod icmp;
mod life;
mod refuse;
mod shape;
mod vlan;

mod clock;
mod pressure;
mod silence;
mod skb;
mod sweep;
mod trace;

use std::{collections::HashSet, path::Path};

use anyhow::{Result, ensure};
use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use kplb::{
    ids::Ids,
    maglev::Rings,
    model::{self, Conditions, Desired},
};
use kplb_common::{
    abi::map,
    flow::{Flow, FlowKey},
    net::{Address, Ip4, Ip6},
    verdict::{DropReason, Verdict},
};
use kplb_tests::testbed::{Ingress, Testbed};

use crate::{
    case::{Case, FULL_AT, Tables, check},
    scene::{AMPLE, Family, NAT_PORTS},
};

/// The table.
fn cases(family: Family) -> Vec<Case> {
    let mut cases = shape::cases(family);
    cases.extend(life::cases(family));
    cases.extend(refuse::cases(family));
    cases.extend(choice::cases(family, &desired(family)));
    cases.extend(down::cases(family, &desired(family)));
    cases.extend(fence::cases(family));
    cases.extend(checksums::cases(family));
    cases.extend(icmp::cases(family));
    cases.extend(fragment::cases(family));
    cases.extend(vlan::cases(family));
    cases
}

fn desired(family: Family) -> Desired {
    let config = kplb::config::parse(&family.configuration(NAT_PORTS), "scene").expect("a valid configuration");
    model::desired(
        &config,
        &Ids::in_order(&config),
        &family.facts(),
        &Conditions::all_active(&config),
        &mut Rings::default(),
    )
    .expect("a node that can serve it")
}

/// Who watches the packets of the cases.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Audience {
    Nobody,
    /// Somebody who is told of every packet.
    Somebody,
}

/// Runs every case, and lists those that fail.
fn run(family: Family, audience: Audience) -> Result<()> {
    Ingress::each(|ingress| run_at(ingress, family, audience))
}

fn run_at(ingress: Ingress, family: Family, audience: Audience) -> Result<()> {
    let configuration = family.configuration(NAT_PORTS);
    let mut usual = Testbed::new(ingress, &configuration, &family.facts(), AMPLE)?;
    let mut full = Testbed::with_pins(ingress, &configuration, &family.facts(), AMPLE, |maps| match family {
        Family::V4 => pin_small::<Ip4>(&maps.join(map::HALF_OPEN4)),
        Family::V6 => pin_small::<Ip6>(&maps.join(map::HALF_OPEN6)),
    })?;
    if audience == Audience::Somebody {
        [&usual, &full].into_iter().try_for_each(trace::ask_for_everything)?;
    }
    let cases = cases(family);
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let testbed = match case.tables {
                Tables::Usual => &mut usual,
                Tables::Full => &mut full,
            };
            check(testbed, case).err().map(|error| format!("{error:#}"))
        })
        .collect();
    println!("{} cases at {ingress:?}", cases.len());
    if audience == Audience::Somebody {
        let n_seen = trace::n_seen(&usual)?;
        ensure!(n_seen >= cases.len() as u64 / 2, "somebody has seen {n_seen} packets of {} cases", cases.len());
    }
    ensure!(failures.is_empty(), "{} of {} cases fail:\n{}", failures.len(), cases.len(), failures.join("\n"));
    Ok(())
}

/// A table that refuses what it has no room for: an LRU one always makes room.
fn pin_small<A: Address>(path: &Path) -> Result<()>
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    Ok(HashMap::<MapData, FlowKey<A>, Flow<A>>::create(FULL_AT, 0)?.pin(path)?)
}

#[test]
fn cases_v4() -> Result<()> {
    run(Family::V4, Audience::Nobody)
}

#[test]
fn cases_v6() -> Result<()> {
    run(Family::V6, Audience::Nobody)
}

/// Whoever watches changes nothing.
#[test]
fn cases_v4_while_they_are_traced() -> Result<()> {
    run(Family::V4, Audience::Somebody)
}

#[test]
fn cases_v6_while_they_are_traced() -> Result<()> {
    run(Family::V6, Audience::Somebody)
}

#[test]
fn every_verdict_has_a_case_in_both_families() {
    for (family, of_the_other) in [(Family::V4, DropReason::ExtensionHeader), (Family::V6, DropReason::IpOptions)] {
        let covered: HashSet<Verdict> = cases(family).iter().map(|case| case.verdict).collect();
        let missing: Vec<Verdict> = Verdict::all().filter(|verdict| !covered.contains(verdict)).collect();
        assert_eq!(missing, [Verdict::Drop(of_the_other)], "no case of {family:?} ends in one of these");
    }
}

#[test]
fn names_tell_cases_apart() {
    for family in [Family::V4, Family::V6] {
        let mut names = HashSet::new();
        for case in cases(family) {
            assert!(names.insert(case.name.clone()), "two cases of {family:?} are named {:?}", case.name);
        }
    }
}
