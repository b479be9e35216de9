//! Asking the data path to tell of packets, and taking what it tells.
//!
//! Invariant: what was asked for ends by itself. A request holds for a moment only, and is made again for as long as
//! somebody reads.

use std::{io, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use aya::maps::{Array, Map, MapData, MapInfo, PerCpuArray, RingBuf};
use kplb_common::{
    abi::map,
    pod,
    trace::{TraceCounts, TraceEvent, TraceRequest},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{leases::monotonic_now_ns, pinned::PinnedMaps};

/// How long a request holds. Whoever reads makes it again well before.
pub const REQUEST_LIFETIME: Duration = Duration::from_secs(3);

/// A reader of what the data path tells. Dropped, nothing is told any more.
pub struct Tracing {
    request: Array<MapData, TraceRequest>,
    ring: AsyncFd<RingBuf<MapData>>,
    counts: PerCpuArray<MapData, TraceCounts>,
    path: PathBuf,
    id: u32,
}

impl Tracing {
    /// Opens the maps. What an earlier reader has left unread is thrown away.
    ///
    /// # Errors
    /// If one cannot be opened. Must be called on a tokio runtime.
    pub fn open(maps: &PinnedMaps) -> anyhow::Result<Self> {
        let open = |name: &str| {
            let path = maps.path(name);
            MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))
        };
        let data = open(map::TRACE)?;
        let id = data.info().context("ask which map it is")?.id();
        let mut ring: RingBuf<_> = Map::RingBuf(open(map::TRACES)?).try_into().context("open the ring of traces")?;
        while ring.next().is_some() {}
        #[expect(
            deprecated,
            reason = "its successor is unsafe; the ring owns its descriptor and always gives the same"
        )]
        let ring = AsyncFd::with_interest(ring, Interest::READABLE).context("watch the ring of traces")?;
        Ok(Self {
            request: Map::Array(data).try_into().context("open the request")?,
            ring,
            counts: Map::PerCpuArray(open(map::TRACE_COUNTS)?).try_into().context("open the counts")?,
            path: maps.path(map::TRACE),
            id,
        })
    }

    /// Asks for packets from now on, for [`REQUEST_LIFETIME`].
    ///
    /// # Errors
    /// If the kernel refuses, or the data path that was asked is gone.
    pub fn ask(&mut self, request: &TraceRequest) -> anyhow::Result<()> {
        let id = MapInfo::from_pin(&self.path).ok().map(|info| info.id());
        ensure!(id == Some(self.id), "the data path is gone, or another one is in its place");
        // Centuries fit.
        let lifetime_ns = u64::try_from(REQUEST_LIFETIME.as_nanos()).unwrap_or(u64::MAX);
        let request = TraceRequest { until_ns: monotonic_now_ns().saturating_add(lifetime_ns), ..*request };
        self.set(&request).context("ask the data path")
    }

    /// Asks for no more.
    ///
    /// # Errors
    /// If the kernel refuses; it ends by itself then.
    pub fn end(&mut self) -> anyhow::Result<()> {
        self.set(&TraceRequest::default()).context("ask the data path for no more")
    }

    fn set(&mut self, request: &TraceRequest) -> anyhow::Result<()> {
        Ok(self.request.set(0, request, 0)?)
    }

    /// What became of packets that were asked for, by whomever.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn counts(&self) -> anyhow::Result<TraceCounts> {
        let mut total = TraceCounts::default();
        self.counts.get(&0, 0).context("read the counts")?.iter().for_each(|counts| total.add(counts));
        Ok(total)
    }

    /// Waits for events, and returns all that have come. Safe to cancel.
    ///
    /// # Errors
    /// If the ring cannot be waited for.
    pub async fn next(&mut self) -> io::Result<Vec<TraceEvent>> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            let mut events = Vec::new();
            while let Some(record) = ready.get_inner_mut().next() {
                events.extend(pod::read::<TraceEvent>(&record));
            }
            ready.clear_ready();
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        // If not, it ends by itself.
        let _ = self.end();
    }
}
