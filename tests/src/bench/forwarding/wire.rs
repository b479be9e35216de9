//! The cable to a node, whose far end feeds it and counts what comes back.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, TestRun as _, TestRunAttrs, TestRunOptions,
    maps::{Array, PerCpuArray},
    programs::{Xdp, xdp::XdpMode},
};
use kplb_common::net::Mac;
use nix::net::if_::if_nametoindex;

use super::super::floor::Template;
use crate::{load::pin, netns::Namespace};

/// Live frames that are on their way at a time: as many as drivers poll for.
const BATCH: u32 = 64;

/// Of a hundred packets, so many must arrive: else something else was measured than forwarding.
const MUST_ARRIVE: u64 = 99;

/// Where the TCP checksum of an IPv4 frame is.
const CHECKSUM: u32 = 14 + 20 + 16;

/// Packets to feed.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// The first, of TCP over IPv4.
    pub(super) frame: Vec<u8>,
    /// Where the 16-bit port is that counts up from packet to packet, never beyond its 16 bits.
    pub(super) vary_at: u32,
    /// How many ports; a power of two.
    pub(super) n_flows: u32,
    /// Which source address they have when they arrive.
    pub(super) source: Ipv4Addr,
}

/// What came of feeding.
#[derive(Clone, Copy, Debug)]
pub struct Fed {
    /// Packets that have arrived.
    pub n_arrived: u64,
    /// How long the processor was at it, by the kernel's clock, which stands while others have the processor.
    pub busy: Duration,
    /// How long it took with that, and with making everything ready.
    pub wall: Duration,
}

/// The two namespaces, and what is between them.
pub(super) struct Wire {
    floor: Ebpf,
    far_index: u32,
    processor: usize,
    node: Namespace,
    far: Namespace,
}

impl Wire {
    /// Connects a node with this MAC address. All that is measured happens on this processor.
    pub(super) fn new(mac: [u8; 6], processor: usize) -> Result<Self> {
        let (node, far) = (Namespace::new("node")?, Namespace::new("far")?);
        let mac = Mac::new(mac);
        far.ip(&format!(
            "link add eth0 type veth peer name eth0 address {mac} netns {}\nlink set eth0 addrgenmode none up",
            node.network_path().display()
        ))?;
        node.ip("link set eth0 addrgenmode none up")?;
        let far_index = far.run(|| if_nametoindex("eth0"))?;
        let floor = Ebpf::load(kplb::dataplane::FLOOR_OBJECT).context("load the floor programs")?;
        let mut wire = Self { floor, far_index, processor, node, far };
        for name in ["floor_feed", "floor_count", "floor_pass", "floor_swap"] {
            wire.program(name)?.load()?;
        }
        attach(&wire.far, program(&mut wire.floor, "floor_count")?)?;
        Ok(wire)
    }

    /// The node.
    pub(super) fn node(&self) -> &Namespace {
        &self.node
    }

    /// Attaches a floor program to the node.
    pub(super) fn attach_floor(&mut self, name: &str) -> Result<()> {
        attach(&self.node, program(&mut self.floor, name)?)
    }

    /// Feeds the node.
    pub(super) fn feed(&mut self, stream: &Stream, n_packets: u32) -> Result<Fed> {
        let fed = self.feed_any(stream, n_packets)?;
        let expected = u64::from(n_packets) * MUST_ARRIVE / 100;
        ensure!(fed.n_arrived >= expected, "of {n_packets} packets, {} have arrived", fed.n_arrived);
        Ok(fed)
    }

    fn feed_any(&mut self, stream: &Stream, n_packets: u32) -> Result<Fed> {
        let template = Template::new(&stream.frame, stream.vary_at, stream.n_flows).with_checksum(CHECKSUM);
        let mut templates: Array<_, Template> = self.floor.map_mut("TEMPLATE").context("no TEMPLATE")?.try_into()?;
        templates.set(0, template, 0)?;
        let mut arriving: Array<_, u32> = self.floor.map_mut("ARRIVING").context("no ARRIVING")?.try_into()?;
        arriving.set(0, u32::from_ne_bytes(stream.source.octets()), 0)?;
        let before = self.n_arrived()?;
        let feeder: &Xdp = self.floor.program("floor_feed").context("no floor_feed")?.try_into()?;
        let length = u32::try_from(stream.frame.len())?;
        // `struct xdp_md`: where the frame begins and ends, no metadata, the interface and queue it has come in by.
        let context: Vec<u8> = [0, length, 0, self.far_index, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        let options = TestRunOptions {
            data_in: Some(&stream.frame),
            ctx_in: Some(&context),
            repeat: n_packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        let processor = self.processor;
        let (per_packet, wall) = self.far.run(move || -> Result<_> {
            pin(processor).with_context(|| format!("run on processor {processor}"))?;
            let start = Instant::now();
            let result = feeder.test_run(options).context("feed live frames (Linux 5.18 or newer has them)")?;
            Ok((result.duration, start.elapsed()))
        })?;
        Ok(Fed { n_arrived: self.n_arrived()? - before, busy: per_packet * n_packets, wall })
    }

    fn n_arrived(&self) -> Result<u64> {
        let arrived: PerCpuArray<_, u64> = self.floor.map("ARRIVED").context("no ARRIVED")?.try_into()?;
        Ok(arrived.get(&0, 0)?.iter().sum())
    }

    fn program(&mut self, name: &str) -> Result<&mut Xdp> {
        program(&mut self.floor, name)
    }
}

fn program<'a>(floor: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(floor.program_mut(name).with_context(|| format!("the object has no program {name}"))?.try_into()?)
}

/// Attaches a program to the interface of a namespace, for as long as it is loaded.
fn attach(namespace: &Namespace, program: &mut Xdp) -> Result<()> {
    namespace.run(|| program.attach("eth0", XdpMode::Driver)).context("attach to eth0")?;
    Ok(())
}
