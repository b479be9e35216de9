//! The form for people.

use std::fmt::{self, Write as _};

use super::{CountsReport, FlowReport, FlowsReport};
use crate::{
    status::{Table, period},
    terminal::Colour,
};

/// The flows as text, with a line feed at the end.
pub fn flows_text(report: &FlowsReport) -> String {
    let mut out = String::new();
    write_flows(&mut out, report).expect("a string takes every write");
    out
}

/// The counts as text, with a line feed at the end.
pub fn counts_text(report: &CountsReport) -> String {
    let mut out = String::new();
    write_counts(&mut out, report).expect("a string takes every write");
    out
}

fn write_heading(out: &mut String, interface: &str, total: u64) -> fmt::Result {
    match total {
        0 => writeln!(out, "{interface}  no such flow"),
        1 => writeln!(out, "{interface}  1 flow"),
        _ => writeln!(out, "{interface}  {total} flows"),
    }
}

fn write_flows(out: &mut String, report: &FlowsReport) -> fmt::Result {
    let FlowsReport { interface, total, flows, .. } = report;
    write_heading(out, interface, *total)?;
    if !flows.is_empty() {
        write_lines(out, flows)?;
    }
    match total.saturating_sub(flows.len() as u64) {
        0 => Ok(()),
        n => writeln!(out, "  ! {n} more are not listed, because of --limit {}", flows.len()),
    }
}

/// The columns of a flow, of which the fourth and the last are aligned on the right.
const HEADER: [&str; 6] = ["CLIENT", "SERVICE", "BACKEND", "NAT PORT", "STATE", "IDLE"];
const RIGHT_ALIGNED: [usize; 2] = [3, 5];

fn write_lines(out: &mut String, flows: &[FlowReport]) -> fmt::Result {
    let mut table = Table::new(&HEADER, &RIGHT_ALIGNED);
    for flow in flows {
        table.add_row(cells(flow));
    }
    table.write(out, Colour::Unused)
}

fn cells(flow: &FlowReport) -> [String; 6] {
    let FlowReport { client, service, backend, nat, state, idle_seconds, .. } = flow;
    [
        client.to_string(),
        service.clone(),
        backend.clone(),
        nat.map_or_else(|| "local".to_owned(), |nat| nat.port().to_string()),
        state.clone(),
        period(*idle_seconds),
    ]
}

fn write_counts(out: &mut String, report: &CountsReport) -> fmt::Result {
    write_heading(out, &report.interface, report.total)?;
    if report.backends.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["SERVICE", "BACKEND", "ADDRESS", "ESTABLISHED", "HALF OPEN", "CLOSING"], &[3, 4, 5]);
    for count in &report.backends {
        table.add_row([
            count.service.clone(),
            count.backend.clone(),
            count.backend_address.to_string(),
            count.established.to_string(),
            count.half_open.to_string(),
            count.closing.to_string(),
        ]);
    }
    table.write(out, Colour::Unused)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{super::CountReport, *};

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address and port")
    }

    fn report() -> FlowsReport {
        let flow = |client: &str, service: &str, nat: Option<&str>| FlowReport {
            protocol: "tcp".into(),
            client: at(client),
            service: service.into(),
            vip: at("198.18.0.100:6443"),
            backend: "cp2".into(),
            backend_address: at("198.18.0.12:6443"),
            nat: nat.map(at),
            state: "established".into(),
            idle_seconds: 0.25,
            client_idle_seconds: 61.0,
            backend_idle_seconds: Some(0.25),
        };
        FlowsReport {
            interface: "eth0".into(),
            has_agent: true,
            total: 5,
            flows: vec![
                flow("198.18.0.101:40000", "apiserver", Some("198.18.0.11:10001")),
                flow("[2001:2::101]:5", "apiserver-v6", None),
            ],
        }
    }

    #[test]
    fn flows_for_people() {
        let expected = "\
eth0  5 flows
  CLIENT              SERVICE       BACKEND  NAT PORT  STATE         IDLE
  198.18.0.101:40000  apiserver     cp2         10001  established  250ms
  [2001:2::101]:5     apiserver-v6  cp2         local  established  250ms
  ! 3 more are not listed, because of --limit 2
";
        assert_eq!(flows_text(&report()), expected);
        let none = FlowsReport { total: 0, flows: Vec::new(), ..report() };
        assert_eq!(flows_text(&none), "eth0  no such flow\n");
    }

    #[test]
    fn counts_for_people() {
        let count = CountReport {
            service: "apiserver".into(),
            backend: "cp2".into(),
            backend_address: at("198.18.0.12:6443"),
            established: 1200,
            half_open: 0,
            closing: 34,
        };
        let report = CountsReport { interface: "eth0".into(), has_agent: true, total: 1234, backends: vec![count] };
        let expected = "\
eth0  1234 flows
  SERVICE    BACKEND  ADDRESS           ESTABLISHED  HALF OPEN  CLOSING
  apiserver  cp2      198.18.0.12:6443         1200          0       34
";
        assert_eq!(counts_text(&report), expected);
    }

    /// The names and kinds of the fields are promised.
    #[test]
    fn flows_for_programs() {
        let json = serde_json::to_value(report()).expect("encodable");
        assert_eq!(json["flows"][0]["client"], "198.18.0.101:40000");
        assert_eq!(json["flows"][0]["nat"], "198.18.0.11:10001");
        assert_eq!(json["flows"][1]["nat"], serde_json::Value::Null);
        assert_eq!(json["flows"][1]["idle_seconds"], 0.25);
        assert_eq!(json["total"], 5);
        assert_eq!(serde_json::from_value::<FlowsReport>(json).expect("decodable"), report());
    }
}
