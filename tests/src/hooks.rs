//! The programs on a node's `eth0`, in each of the ways in which one can be there: at XDP, by a link of TC, by a filter of TC.
//!
//! The kernel has links of TC (TCX) from 6.6 on. Programs by filters are there on any.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use aya::{
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        tc::{self, NlOptions, TcAttachOptions},
    },
    util::KernelVersion,
};
use kplb::dataplane::{Side, tcx_programs};
use serde_json::Value;

use crate::lab::Host;

/// Where a program meets packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Layer {
    /// Before the kernel makes anything of them, or of a copy.
    Xdp,
    /// As the kernel has put them together.
    Tc,
}

/// A filter of TC that runs a BPF program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    /// The lowest comes first.
    pub preference: u64,
    /// What tells it from others of that preference.
    pub handle: String,
    /// The id of its program.
    pub program: u32,
}

/// The ids of all programs that see what comes in, in the order in which they do.
///
/// # Errors
/// If `ip` or `tc` cannot tell.
pub fn at_ingress(node: &Host) -> Result<Vec<(Layer, u32)>> {
    let xdp = xdp_programs(node)?.into_iter().map(|id| (Layer::Xdp, id));
    Ok(xdp.chain(tc_programs(node, Side::Ingress)?.into_iter().map(|id| (Layer::Tc, id))).collect())
}

/// The ids of the programs of TC on one side, in the order in which they see packets: links come before filters.
///
/// # Errors
/// If `tc` cannot tell.
pub fn tc_programs(node: &Host, side: Side) -> Result<Vec<u32>> {
    let mut programs = node.namespace().run(|| tcx_programs("eth0", side))?;
    programs.extend(filters(node, side)?.iter().map(|filter| filter.program));
    Ok(programs)
}

/// The BPF filters on one side, in the order in which they see packets.
///
/// # Errors
/// If `tc` cannot tell.
pub fn filters(node: &Host, side: Side) -> Result<Vec<Filter>> {
    let side = match side {
        Side::Ingress => "ingress",
        Side::Egress => "egress",
    };
    let mut show = Command::new("tc");
    show.args(["-json", "filter", "show", "dev", "eth0", side]);
    filters_of(&node.namespace().check_output(show)?)
}

/// Filters as `tc` lists them. Each preference has an entry for itself, too, which is no filter.
fn filters_of(list: &str) -> Result<Vec<Filter>> {
    let list: Value = serde_json::from_str(list).context("tc has no JSON")?;
    let entries = list.as_array().context("tc has no list")?;
    let of_bpf = entries.iter().filter(|entry| entry["kind"] == "bpf" && entry["options"].is_object());
    of_bpf
        .map(|entry| {
            let options = &entry["options"];
            let preference = entry["pref"].as_u64().with_context(|| format!("no preference: {entry}"))?;
            let handle = options["handle"].as_str().with_context(|| format!("no handle: {entry}"))?.to_owned();
            Ok(Filter { preference, handle, program: id(&options["prog"])? })
        })
        .collect()
}

fn xdp_programs(node: &Host) -> Result<Vec<u32>> {
    let mut show = Command::new("ip");
    show.args(["-json", "-details", "link", "show", "dev", "eth0"]);
    xdp_programs_of(&node.namespace().check_output(show)?)
}

/// The programs of an interface as `ip` describes it: in one mode there is one, in several modes a list of them.
fn xdp_programs_of(description: &str) -> Result<Vec<u32>> {
    let description: Value = serde_json::from_str(description).context("ip has no JSON")?;
    let interfaces = description.as_array().context("ip has no list")?;
    ensure!(interfaces.len() == 1, "not one interface: {description}");
    let xdp = &interfaces[0]["xdp"];
    match xdp["attached"].as_array() {
        Some(attached) => attached.iter().map(|of_mode| id(&of_mode["prog"])).collect(),
        None if xdp.is_object() => Ok(vec![id(&xdp["prog"])?]),
        None => Ok(Vec::new()),
    }
}

fn id(program: &Value) -> Result<u32> {
    let id = program["id"].as_u64().with_context(|| format!("a program without an id: {program}"))?;
    Ok(id.try_into()?)
}

/// Attaches somebody else's program of TC to `eth0`, as one does who knows nothing of kplb: by a link where the kernel has
/// them, else by a filter of this priority (none, if it is zero: then the kernel gives it one).
///
/// # Errors
/// If the kernel refuses.
pub fn attach_other(node: &Host, program: &mut SchedClassifier, side: TcAttachType, priority: u16) -> Result<()> {
    node.namespace().run(|| {
        let options = if KernelVersion::current()? < KernelVersion::new(6, 6, 0) {
            tc::qdisc_add_clsact("eth0")?;
            TcAttachOptions::Netlink(NlOptions { priority, ..NlOptions::default() })
        } else {
            TcAttachOptions::TcxOrder(LinkOrder::default())
        };
        program.attach_with_options("eth0", side, options).map(drop).context("attach somebody's program")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_told_from_what_only_holds_them() {
        let list = r#"[
            {"protocol":"all","pref":1,"kind":"bpf","chain":0},
            {"protocol":"all","pref":1,"kind":"bpf","chain":0,"options":{"handle":"0x1","bpf_name":"kplb_tc_ingress",
             "direct-action":true,"not_in_hw":true,"prog":{"id":42,"name":"kplb_tc_ingress","tag":"0","jited":1}}},
            {"protocol":"all","pref":9,"kind":"matchall","chain":0,"options":{"handle":"0x1"}}]"#;
        let filter = Filter { preference: 1, handle: "0x1".to_owned(), program: 42 };
        assert_eq!(filters_of(list).expect("it is a list"), [filter]);
        assert!(filters_of("[]").expect("it is a list").is_empty());
        assert!(filters_of("").is_err());
    }

    #[test]
    fn programs_of_one_mode_and_of_several() {
        let one = r#"[{"ifname":"eth0","xdp":{"mode":2,"prog":{"id":7,"name":"kplb_xdp"}}}]"#;
        let two = r#"[{"ifname":"eth0","xdp":{"mode":4,"attached":[
            {"mode":2,"prog":{"id":7}},{"mode":1,"prog":{"id":8}}]}}]"#;
        assert_eq!(xdp_programs_of(one).expect("it describes one"), [7]);
        assert_eq!(xdp_programs_of(two).expect("it describes one"), [7, 8]);
        assert!(xdp_programs_of(r#"[{"ifname":"eth0"}]"#).expect("it describes one").is_empty());
        assert!(xdp_programs_of("[]").is_err());
    }
}
