//! The dashboard and the alert rules: that they are right by themselves, and speak of metrics that there are.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use kplb_tests::{
    cluster,
    lab::{Lab, LabOptions},
    poll,
    scrape::{promtool, scrape},
};
use serde_json::{Value, json};

use super::{ADDRESS, start_agent};

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

fn rules() -> PathBuf {
    packaging().join("prometheus")
}

fn dashboard() -> Result<Value> {
    let path = packaging().join("grafana/kplb.json");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("understand {}", path.display()))
}

/// All values of a key, however deep.
fn values<'v>(value: &'v Value, key: &str) -> Vec<&'v Value> {
    match value {
        Value::Object(object) => (object.iter())
            .flat_map(|(name, value)| {
                let own = (name == key).then_some(value);
                own.into_iter().chain(values(value, key)).collect::<Vec<_>>()
            })
            .collect(),
        Value::Array(array) => array.iter().flat_map(|value| values(value, key)).collect(),
        _ => Vec::new(),
    }
}

/// The queries of the dashboard, with something for its variables.
fn queries(dashboard: &Value) -> Vec<String> {
    let queries = values(dashboard, "expr").into_iter().filter_map(Value::as_str);
    queries
        .map(|query| query.replace("$__rate_interval", "1m").replace("$job", "kplb").replace("$instance", ".*"))
        .collect()
}

/// The words of a text that are names of metrics of an agent.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("kplb_") || word.starts_with("process_")).collect()
}

#[test]
fn alerts_come_when_they_should_and_only_then() -> Result<()> {
    let said = promtool(&rules(), &["test", "rules", "kplb.rules.test.yml"], "")?;
    assert!(said.contains("SUCCESS"), "{said}");
    Ok(())
}

#[test]
fn every_alert_is_tested_both_ways() -> Result<()> {
    let read = |name: &str| fs::read_to_string(rules().join(name)).with_context(|| format!("read {name}"));
    let (rules, tests) = (read("kplb.rules.yml")?, read("kplb.rules.test.yml")?);
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    for alert in alerts {
        let fires = format!("        alertname: {alert}\n        exp_alerts:");
        let is_quiet = format!("alertname: {alert} }}");
        assert!(tests.contains(&fires), "{alert} never fires in kplb.rules.test.yml");
        assert!(tests.contains(&is_quiet), "{alert} is never quiet in kplb.rules.test.yml");
    }
    Ok(())
}

#[test]
fn queries_of_the_dashboard_can_be_evaluated() -> Result<()> {
    let queries = queries(&dashboard()?);
    assert!(queries.len() >= 30, "{}", queries.len());
    let rule = |(n, query): (usize, &String)| json!({ "record": format!("query:{n}"), "expr": query });
    let rules: Vec<Value> = queries.iter().enumerate().map(rule).collect();
    // JSON is YAML.
    let file = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("rules.yml"), file.to_string())?;
    let said = promtool(directory.path(), &["check", "rules", "rules.yml"], "")?;
    assert!(said.contains(&format!("{} rules found", queries.len())), "{said}");
    Ok(())
}

#[test]
fn the_dashboard_asks_whichever_data_source_is_chosen() -> Result<()> {
    let dashboard = dashboard()?;
    let variables = values(&dashboard["templating"], "type");
    assert!(variables.contains(&&json!("datasource")), "{variables:?}");
    for source in values(&dashboard, "datasource") {
        assert_eq!(source["uid"], "${datasource}");
    }
    let ids: Vec<&Value> = values(&dashboard["panels"], "id").into_iter().filter(|id| id.is_number()).collect();
    let different: BTreeSet<_> = ids.iter().map(ToString::to_string).collect();
    assert_eq!(ids.len(), different.len(), "{ids:?}");
    Ok(())
}

#[test]
fn every_metric_that_is_asked_for_is_served() -> Result<()> {
    let lab = Lab::new(LabOptions { nodes: 2, clients: 0 })?;
    let _apiservers = cluster::start_apiservers(&lab)?;
    let agent = start_agent(&lab)?;
    // Not before the first check has ended.
    let what = "every backend was checked";
    let scrape = poll::until_some(what, std::time::Duration::from_secs(10), || {
        scrape(lab.node(1), ADDRESS).ok().filter(|scrape| scrape.has("kplb_backend_check_info"))
    })?;
    let rules = fs::read_to_string(rules().join("kplb.rules.yml"))?;
    let queries = queries(&dashboard()?).join("\n");
    for text in [&rules, &queries] {
        let names = metrics(text);
        assert!(names.len() >= 10, "{names:?}");
        for name in names {
            assert!(scrape.has(name), "{name} is not in\n{}", scrape.text);
        }
    }
    agent.stop()
}
