//! Going through the flow tables.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Context as _;
use aya::{TestRun as _, TestRunOptions, maps::Array};
use kplb_common::{
    abi::{self, map},
    client::{Client, Whereabouts},
    net::Mac,
    sweep::{FlowCount, Orphan, Sweep, SweepMode},
};

use super::{
    super::{
        counters::{self, Counters},
        leases::monotonic_now_ns,
        local,
    },
    Dataplane,
};

impl Dataplane {
    /// What the data path has counted.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn counters(&mut self) -> anyhow::Result<Counters> {
        self.sweep(SweepMode::Count)?;
        counters::read(&self.ebpf, self.n_backends, self.sweep)
    }

    /// The backends, those that are no more included, that flows or sockets of this node go by.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn busy(&mut self) -> anyhow::Result<BTreeSet<u16>> {
        self.sweep(SweepMode::Count)?;
        let flows = counters::flows(&self.ebpf, abi::MAX_BACKENDS as usize, self.sweep)?;
        let is_busy = |flows: &FlowCount| flows.established + flows.half_open + flows.closing > 0;
        let mut busy: BTreeSet<u16> =
            (0_u16..).zip(&flows).filter(|(_, flows)| is_busy(flows)).map(|(id, _)| id).collect();
        busy.extend(local::orphans(&self.ebpf, |_| true)?.into_iter().map(|(_, diversion)| diversion.backend_id));
        Ok(busy)
    }

    /// Ends the established TCP flows that the mode names, and returns them, for both of their ends to be told. Packets of
    /// backends that are not serving have been answered with a reset all along.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn end_flows(&mut self, mode: SweepMode) -> anyhow::Result<Vec<Orphan>> {
        let mut orphans = Vec::new();
        loop {
            self.sweep(mode)?;
            let found = self.orphans.drain();
            // Without progress another sweep would be cut short as well.
            let goes_on = self.sweep.is_cut_short != 0 && !found.is_empty();
            orphans.extend(found);
            if !goes_on {
                return Ok(orphans);
            }
        }
    }

    /// Goes through the flow tables.
    fn sweep(&mut self, mode: SweepMode) -> anyhow::Result<()> {
        // Any frame will do: the program does not look at it.
        const FRAME: [u8; 64] = [0; 64];
        let round = self.sweep.round.wrapping_add(1);
        self.sweep = Sweep { round, mode: mode as u8, ..Sweep::default() };
        let request = self.sweep;
        self.set_element(map::SWEEP, 0, &request)?;
        let options = TestRunOptions { data_in: Some(&FRAME), ..TestRunOptions::new() };
        self.sweeper()?.test_run(options).context("sweep the flow tables")?;
        let sweep: Array<_, Sweep> = self.open(map::SWEEP)?;
        self.sweep = sweep.get(&0, 0).with_context(|| format!("read {}", map::SWEEP))?;
        Ok(())
    }

    /// Leads the established flows of these clients to where they were found just now, but for those on which they say
    /// something of their own.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn lead_clients(&mut self, clients: &[IpAddr], mac: Mac) -> anyhow::Result<()> {
        let found = Whereabouts { found_ns: monotonic_now_ns(), mac, ..Whereabouts::default() };
        for clients in clients.chunks(abi::MAX_CLIENTS as usize) {
            let keys = clients.iter().copied().map(Client::from);
            keys.clone().try_for_each(|client| self.insert(map::CLIENTS, &client, &found))?;
            self.sweep(SweepMode::LeadClients)?;
            keys.into_iter().try_for_each(|client| self.remove::<_, Whereabouts>(map::CLIENTS, &client))?;
        }
        Ok(())
    }
}
