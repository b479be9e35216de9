//! The rings through which the data path tells something.

use std::{io, net::IpAddr};

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use kplb_common::{
    net::Mac,
    pod,
    report::{ClientReport, Report, Symptom},
    sweep::Orphan,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Takes a ring of the object.
pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<RingBuf<MapData>> {
    let map = ebpf.take_map(name).with_context(|| format!("the object has no map {name}"))?;
    RingBuf::try_from(map).with_context(|| format!("the map {name} is of another type"))
}

/// What the data path has seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sighting {
    /// A symptom of the backend with this id.
    Backend(u16, Symptom),
    /// A client to which a backend speaks in vain.
    SilentClient {
        /// Its address.
        client: IpAddr,
        /// Where its frames came from.
        mac: Mac,
    },
}

/// What the data path reports.
pub struct Reports(AsyncFd<RingBuf<MapData>>);

impl Reports {
    pub(super) fn new(ring: RingBuf<MapData>) -> anyhow::Result<Self> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the ring owns its descriptor and always gives the same"
        )]
        let ring = AsyncFd::with_interest(ring, Interest::READABLE).context("watch the ring of reports")?;
        Ok(Self(ring))
    }

    /// Waits for reports, and returns all that have come. Safe to cancel.
    pub async fn next(&mut self) -> io::Result<Vec<Sighting>> {
        loop {
            let mut ready = self.0.readable_mut().await?;
            let mut reports = Vec::new();
            while let Some(record) = ready.get_inner_mut().next() {
                reports.extend(Sighting::decode(&record));
            }
            ready.clear_ready();
            if !reports.is_empty() {
                return Ok(reports);
            }
        }
    }
}

impl Sighting {
    /// What a record of the ring says; nothing, if it is none.
    pub fn decode(record: &[u8]) -> Option<Self> {
        if let Some(Report { backend, symptom, .. }) = pod::read(record) {
            return Some(Self::Backend(backend, Symptom::from_u8(symptom)?));
        }
        let ClientReport { client, mac, .. } = pod::read(record)?;
        Some(Self::SilentClient { client: client.address()?, mac })
    }
}

/// The flows that sweeps have ended.
pub(super) struct Orphans(RingBuf<MapData>);

impl Orphans {
    pub(super) const fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }

    /// Takes all that are there.
    pub(super) fn drain(&mut self) -> Vec<Orphan> {
        let mut orphans = Vec::new();
        while let Some(record) = self.0.next() {
            orphans.extend(pod::read::<Orphan>(&record));
        }
        orphans
    }
}
