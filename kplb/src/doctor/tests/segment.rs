//! What is on the segment, and how long failures last.

use super::*;

fn advert(source: &str, router_id: u8, judgement: Result<Vec<Remark>, Invalid>) -> HeardAdvert {
    HeardAdvert { source: ip(source), router_id, priority: 150, vips: vec![ip("198.18.0.200")], judgement }
}

#[test]
fn adverts() {
    let hear = |adverts: Vec<HeardAdvert>| move |facts: &mut Facts| segment(facts).adverts = Ok(adverts);
    for invalid in [Invalid::NotAPeer, Invalid::Addresses] {
        let what = only(Level::Error, "router-id", hear(vec![advert("198.18.0.77", 100, Err(invalid))]));
        let expected = "198.18.0.77 sends adverts with router id 100 for 198.18.0.200 (priority 150): ";
        assert!(what.starts_with(expected), "{what}");
    }
    let taken = hear(vec![
        advert("198.18.0.77", 100, Err(Invalid::NotAPeer)),
        advert("198.18.0.78", 255, Err(Invalid::RouterId)),
    ]);
    let advice = wrong(taken)[0].advice.clone().expect("there is some");
    assert!(advice.contains("such as 254,"), "{advice}");
    for invalid in [Invalid::Checksum, Invalid::Version, Invalid::Password, Invalid::OwnAddress] {
        only(Level::Error, "election", hear(vec![advert("198.18.0.12", 100, Err(invalid))]));
    }
    only(Level::Warning, "election", hear(vec![advert("198.18.0.12", 100, Ok(vec![Remark::Interval]))]));
    assert_eq!(wrong(hear(vec![advert("198.18.0.12", 100, Ok(Vec::new()))])), []);
    assert_eq!(wrong(hear(vec![advert("198.18.0.77", 51, Err(Invalid::RouterId))])), []);
    only(Level::Note, "router-id", |facts| segment(facts).listened = None);
    only(Level::Note, "router-id", |facts| segment(facts).adverts = Err("no socket".into()));
}

#[test]
fn owners_of_vips() {
    let answer = |last: u8| Answer { address: ip("198.18.0.100"), mac: Mac::new([2, 0, 0, 0, 9, last]) };
    let answered = |answers: Vec<Answer>| move |facts: &mut Facts| segment(facts).owners = Ok(answers);
    assert_eq!(wrong(answered(vec![answer(1)])), []);
    let what = only(Level::Error, "vip-owners", answered(vec![answer(1), answer(2)]));
    assert_eq!(what, "02:00:00:00:09:01 and 02:00:00:00:09:02 answers for the VIP 198.18.0.100");
    let what = only(Level::Error, "vip-owners", |facts| {
        answered(vec![answer(1)])(facts);
        interface(facts).agent = Some(Agent { pid: 7, mode: "native".into(), mode_reason: String::new() });
        let snapshot = &mut interface(facts).surroundings.as_mut().expect("there are").0;
        snapshot.addresses.push(address("198.18.0.100", 32, Suitability::Primary));
    });
    assert!(what.ends_with("beside this node"), "{what}");
    let alone = &CONFIGURATION[CONFIGURATION.find("[[service]]").expect("there is one")..];
    let wrong = wrong(|facts| {
        configure(facts, alone);
        answered(vec![answer(1)])(facts);
    });
    assert!(wrong.iter().any(|finding| (finding.level, finding.topic) == (Level::Error, "vip-owners")), "{wrong:?}");
    only(Level::Note, "vip-owners", |facts| segment(facts).owners = Err("no socket".into()));
}

#[test]
fn peers_that_do_not_answer() {
    let what = only(Level::Warning, "peers", |facts| segment(facts).answers = Ok(Vec::new()));
    assert!(what.ends_with("from 198.18.0.12"), "{what}");
    only(Level::Note, "peers", |facts| segment(facts).answers = Err("no socket".into()));
}

#[test]
fn backends() {
    for (finding, code, level) in [
        (outcome::Finding::Unjudged, Code::L7sts, Level::Warning),
        (outcome::Finding::NotReady, Code::L7sts, Level::Warning),
        (outcome::Finding::Refused, Code::L4con, Level::Warning),
        (outcome::Finding::Unreachable, Code::L4tout, Level::Warning),
        (outcome::Finding::Unknown, Code::Sockerr, Level::Note),
    ] {
        let what = only(level, "backends", |facts| facts.backends[1].outcome = outcome(finding, code));
        assert!(what.starts_with(&format!("apiserver/cp2 198.18.0.12:6443: {code} in 12 ms")), "{what}");
    }
    assert_eq!(wrong(|facts| facts.backends[1].outcome = None), []);
    let reach = |facts: &mut Facts, reach| {
        let survey = &mut interface(facts).surroundings.as_mut().expect("there are").1;
        survey.reach.insert(ip("198.18.0.12"), reach);
    };
    use crate::netlink::facts::Reach;
    let what = only(Level::Error, "backends", |facts| reach(facts, Reach::OtherInterface(3)));
    assert!(what.contains("is behind eth1, not eth0"), "{what}");
    only(Level::Error, "backends", |facts| reach(facts, Reach::Unreachable));
}

/// Worked out by hand from the configuration's defaults: `kplb.example.toml`, RFC 9568, section 6.1.
#[test]
fn times() {
    let said = |change: fn(&mut Facts)| {
        let mut facts = facts();
        change(&mut facts);
        let failover = examine(&facts).findings.into_iter().filter(|finding| finding.topic == "failover");
        failover.map(|finding| finding.what).collect::<Vec<_>>()
    };
    let expected = [
        "IPv4 VIPs: a master that dies is replaced by this node (priority 100) after 902ms, one that is stopped after 152ms",
        // 500 ms and 10 %, two times 200 ms; 500 ms for a connection, 3 s for a check.
        "apiserver: a killed backend is noticed at once, and within 950ms in any case, one that is silent within 1.45s, one that \
         accepts connections and says no more within 3.95s",
    ];
    assert_eq!(said(|_| ()), expected);
    let of_tcp = said(|facts| {
        configure(
            facts,
            &CONFIGURATION
                .replace("[[service.backend]]\nname = 'cp1'", "check.type = 'tcp'\n[[service.backend]]\nname = 'cp1'"),
        )
    });
    assert!(
        of_tcp[1].ends_with(
            "by the first client that is refused, and within 950ms in any case, one that is silent within 1.45s"
        ),
        "{of_tcp:?}"
    );
    let slow = CONFIGURATION.replace(
        "[[service.backend]]\nname = 'cp1'",
        "check.interval = '10s'\ncheck.fall = 30\ncheck.fast_interval = '2s'\n[[service.backend]]\nname = 'cp1'",
    );
    only(Level::Warning, "failover", |facts| configure(facts, &slow));
    only(Level::Warning, "failover", |facts| {
        let Some(Ok(routers)) = &mut interface(facts).election else { panic!("there are routers") };
        routers[0].interval = Duration::from_secs(10);
    });
    let unchecked = CONFIGURATION
        .replace("[[service.backend]]\nname = 'cp1'", "check.type = 'none'\n[[service.backend]]\nname = 'cp1'");
    only(Level::Note, "failover", |facts| configure(facts, &unchecked));
}
