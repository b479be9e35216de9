//! What is on the interface, by all the ways in which a program can be there.

use anyhow::{Context as _, Result};
use tokio::task::spawn_blocking;

use crate::{
    dataplane::{self, Attached, ClassicFilter, Mode, Present, Side, TcProgram},
    netlink::{client::Netlink, filters::BpfFilter, message::Link},
};

/// Whether the program at ingress that was attached is still there, on `device` as it was just read. Asks for no more than
/// that: each question waits for the kernel's one lock of all interfaces, as long as it may take.
pub(super) async fn runs(netlink: &Netlink, device: &Link, attached: &Attached) -> Result<bool> {
    if attached.mode.is_xdp() {
        return Ok(device.programs().contains(&attached.program));
    }
    if attached.classic.ingress.is_some() {
        let filters = netlink.ingress_filters(device.index).await?;
        return Ok(filters.iter().any(|filter| filter.program == attached.program));
    }
    let interface = device.name.clone();
    let programs = spawn_blocking(move || dataplane::tcx_programs(&interface, Side::Ingress)).await;
    Ok(programs.context("ask for the TC programs")??.contains(&attached.program))
}

/// The programs at the ingress of `device`, whosever they are.
pub(crate) async fn read(netlink: &Netlink, device: &Link) -> Result<Present> {
    let by_link = dataplane::tcx_programs(&device.name, Side::Ingress)?.into_iter();
    Ok(Present {
        xdp: device.programs().to_vec(),
        xdp_mode: device.xdp.as_ref().and_then(|xdp| Mode::from_name(xdp.mode)),
        tc: (by_link.map(|id| TcProgram { id, filter: None }))
            .chain(filters(netlink, device, Side::Ingress).await?)
            .collect(),
    })
}

/// Those that are on a side of it by filters.
pub(super) async fn filters(netlink: &Netlink, device: &Link, side: Side) -> Result<Vec<TcProgram>> {
    let filters = match side {
        Side::Ingress => netlink.ingress_filters(device.index).await?,
        Side::Egress => netlink.egress_filters(device.index).await?,
    };
    Ok(filters.into_iter().map(of_filter).collect())
}

fn of_filter(BpfFilter { priority, handle, program, name }: BpfFilter) -> TcProgram {
    TcProgram { id: program, filter: Some((ClassicFilter { priority, handle }, name)) }
}
