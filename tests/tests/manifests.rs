//! The manifests for Kubernetes: both run the same pod, which may do what the agent needs and no more.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result};
use yaml_rust2::{Yaml, YamlLoader};

fn packaging() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

fn manifest(name: &str) -> Result<Yaml> {
    let path = packaging().join("kubernetes").join(name);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let documents = YamlLoader::load_from_str(&text).with_context(|| format!("understand {}", path.display()))?;
    documents.into_iter().next().with_context(|| format!("{} is empty", path.display()))
}

/// The specification of the static pod.
fn pod() -> Result<Yaml> {
    let pod = manifest("static-pod.yaml")?;
    assert_eq!((pod["apiVersion"].as_str(), pod["kind"].as_str()), (Some("v1"), Some("Pod")));
    Ok(pod["spec"].clone())
}

fn words(list: &Yaml) -> BTreeSet<String> {
    list.as_vec().into_iter().flatten().filter_map(Yaml::as_str).map(str::to_owned).collect()
}

#[test]
fn the_daemon_set_runs_the_static_pod() -> Result<()> {
    let daemon_set = manifest("daemonset.yaml")?;
    assert_eq!((daemon_set["apiVersion"].as_str(), daemon_set["kind"].as_str()), (Some("apps/v1"), Some("DaemonSet")));
    let template = &daemon_set["spec"]["template"];
    assert_eq!(daemon_set["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]);
    let mut spec = template["spec"].as_hash().context("a specification")?.clone();
    for key in ["nodeSelector", "tolerations"] {
        assert!(spec.remove(&Yaml::String(key.to_owned())).is_some(), "{key}");
    }
    assert_eq!(Yaml::Hash(spec), pod()?);
    Ok(())
}

#[test]
fn the_pod_may_do_what_it_needs_and_no_more() -> Result<()> {
    let pod = pod()?;
    assert_eq!(pod["hostNetwork"].as_bool(), Some(true));
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["privileged"].as_bool(), Some(false));
    assert_eq!(context["allowPrivilegeEscalation"].as_bool(), Some(false));
    assert_eq!(context["readOnlyRootFilesystem"].as_bool(), Some(true));
    assert_eq!(words(&context["capabilities"]["drop"]), BTreeSet::from(["ALL".to_owned()]));
    // As the unit, but for what commands of `notify` need, of which there are none in the image.
    let unit = fs::read_to_string(packaging().join("systemd/kplb@.service"))?;
    let allowed = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let mut expected: BTreeSet<String> =
        allowed.flat_map(str::split_whitespace).map(|name| name.replace("CAP_", "")).collect();
    for of_commands in ["SETUID", "SETGID", "KILL", "DAC_READ_SEARCH"] {
        assert!(expected.remove(of_commands), "{of_commands}");
    }
    assert_eq!(words(&context["capabilities"]["add"]), expected);
    Ok(())
}

#[test]
fn every_mount_has_its_volume() -> Result<()> {
    let pod = pod()?;
    let list = |list: &Yaml, key: &str| -> BTreeSet<String> {
        list.as_vec().into_iter().flatten().filter_map(|entry| entry[key].as_str()).map(str::to_owned).collect()
    };
    let mounts = &pod["containers"][0]["volumeMounts"];
    assert_eq!(list(mounts, "name"), list(&pod["volumes"], "name"));
    for path in ["/etc/kplb", "/run/kplb", "/sys/fs/bpf"] {
        assert!(list(mounts, "mountPath").contains(path), "{path}");
    }
    // Clients of the whole node are those of its control groups, which are mounted where the agent is told to look.
    let variables = pod["containers"][0]["env"].as_vec().context("variables")?;
    let group = variables.iter().find(|variable| variable["name"].as_str() == Some("KPLB_CGROUP"));
    let group = group.and_then(|variable| variable["value"].as_str()).context("KPLB_CGROUP")?;
    assert!(list(mounts, "mountPath").contains(group), "{group}");
    Ok(())
}
