//! `kplb flows`: who talks to whom.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use kplb_common::net::{Ip4, Ip6};

use super::reading::{self, Form, Names};
use crate::{
    bpffs,
    dataplane::{FlowFamily, FlowTables, PinnedMaps, monotonic_now_ns},
    directory::Directory,
    flows::{self, Collection, CountsReport, FlowFilter, FlowRecord, FlowReport, FlowsReport, StateFilter},
    prefix::Prefix,
};

const EXAMPLES: &str = "\
Examples:
  kplb flows
  kplb flows --client 198.18.0.0/24 --backend cp2 --state established
  kplb flows --count
  kplb flows eth0 --json | jq -r '.[0].flows[] | select(.idle_seconds > 3600) | .client'

It reads the kernel's tables, so it needs no agent; who runs without one has no names, and addresses stand for them.
Connections of this node's own clients, which are led to a backend at their sockets, are no flows.

The JSON form is an array with one object for each interface: `interface`, `has_agent` (whether names are known),
`total`, and `flows`, each with `protocol`, `client`, `service`, `vip`, `backend`, `backend_address`, `nat` (null: the
backend is on this node), `state`, `idle_seconds`, `client_idle_seconds` and `backend_idle_seconds` (null: not known).
With --count it has, instead of `flows`, `backends`, each with `service`, `backend`, `backend_address`, `established`,
`half_open` and `closing`. Fields are only ever added.";

/// List the live flows.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The interface; every attached one unless given.
    interface: Option<String>,
    /// Only of clients whose address begins so.
    #[arg(long, value_name = "ADDRESS[/BITS]")]
    client: Option<Prefix>,
    /// Only of this service: its name, VIP:PORT, or VIP:PORT/PROTOCOL.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only of this backend: its name, or ADDRESS:PORT.
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Only in this state: syn-sent, syn-acked, established, fin-from-client, fin-from-backend, closing, udp-unreplied,
    /// udp-replied, udp-assured; or half-open, for all whose client has not proved yet that it is there.
    #[arg(long)]
    state: Option<StateFilter>,
    /// List so many at most.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Count the flows of each backend instead of listing them.
    #[arg(long, conflicts_with = "limit")]
    count: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let pin_root = bpffs::pin_root();
    let interfaces = reading::interfaces(arguments.interface.as_ref(), &pin_root)?;
    let reading = interfaces.iter().map(|interface| Reading::open(arguments, &pin_root, interface));
    let reading = reading.collect::<Result<Vec<_>>>()?;
    let form = Form::new(arguments.json);
    if arguments.count {
        let reports = reading.iter().map(Reading::count).collect::<Result<Vec<_>>>()?;
        return form.print(&reports, flows::counts_text);
    }
    let reports = reading.iter().map(|reading| reading.list(arguments.limit)).collect::<Result<Vec<_>>>()?;
    form.print(&reports, flows::flows_text)
}

/// An interface whose flows are to be read.
struct Reading<'a> {
    interface: &'a str,
    maps: PinnedMaps,
    directory: Directory,
    names: Names,
    filter: FlowFilter,
}

impl<'a> Reading<'a> {
    fn open(arguments: &Arguments, pin_root: &Path, interface: &'a str) -> Result<Self> {
        let maps = PinnedMaps::find(pin_root, interface)?;
        let (directory, names) = reading::directory(&maps, interface)?;
        let services = arguments.service.as_ref().map(|name| names.services(&directory, name)).transpose()?;
        let backends = arguments.backend.as_ref().map(|name| directory.backends_called(name)).transpose();
        let filter = FlowFilter {
            client: arguments.client,
            services,
            backends: backends.map_err(|error| names.explain(error.into()))?,
            state: arguments.state,
        };
        Ok(Self { interface, maps, directory, names, filter })
    }

    /// All that are asked for, of which at most so many are kept.
    fn collect(&self, limit: Option<usize>) -> Result<(u64, Vec<FlowRecord>)> {
        let mut collection = Collection::new(limit);
        self.collect_of::<Ip4>(&mut collection)?;
        self.collect_of::<Ip6>(&mut collection)?;
        Ok(collection.finish())
    }

    fn collect_of<A: FlowFamily>(&self, collection: &mut Collection) -> Result<()> {
        let (node, now_ns) = (self.maps.node()?, monotonic_now_ns());
        self.maps.for_each_entry::<A>(|key, flow| {
            if let Some(flow) = flows::decode(key, flow, &node, now_ns).filter(|flow| self.filter.takes(flow)) {
                collection.push(flow);
            }
        })
    }

    fn count(&self) -> Result<CountsReport> {
        let (total, records) = self.collect(None)?;
        Ok(CountsReport {
            interface: self.interface.to_owned(),
            has_agent: self.names == Names::OfAgent,
            total,
            backends: flows::count(&records, &self.directory, &self.filter),
        })
    }

    fn list(&self, limit: Option<usize>) -> Result<FlowsReport> {
        let (total, records) = self.collect(limit)?;
        let replies = Replies { v4: self.maps.tables()?, v6: self.maps.tables()?, now_ns: monotonic_now_ns() };
        let report = |record: &FlowRecord| FlowReport::new(record, replies.idle_ns(record), &self.directory);
        Ok(FlowsReport {
            interface: self.interface.to_owned(),
            has_agent: self.names == Names::OfAgent,
            total,
            flows: records.iter().map(report).collect(),
        })
    }
}

/// The entries of the replies.
struct Replies {
    v4: FlowTables<Ip4>,
    v6: FlowTables<Ip6>,
    now_ns: u64,
}

impl Replies {
    /// How long ago a flow's last reply came; none if its entry is gone.
    fn idle_ns(&self, record: &FlowRecord) -> Option<u64> {
        if record.vip.is_ipv4() {
            self.v4.get(&flows::reply_key(record)).map(|flow| flows::idle_ns(&flow, self.now_ns))
        } else {
            self.v6.get(&flows::reply_key(record)).map(|flow| flows::idle_ns(&flow, self.now_ns))
        }
    }
}
