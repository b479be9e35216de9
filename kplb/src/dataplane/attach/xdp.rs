//! The XDP program at ingress, in the driver or before the network stack.

use std::path::Path;

use anyhow::{Context as _, bail};
use aya::{
    Ebpf,
    programs::{
        Xdp,
        links::{FdLink, LinkError},
        xdp::XdpMode,
    },
};
use kplb_common::abi;

use super::{Site, detach_pinned, pin};
use crate::dataplane::{mode::Mode, object, pins};

/// Attaches the program and pins its link, or puts it in the place of a predecessor's that runs in the same mode. Returns
/// its id.
pub(super) fn attach(ebpf: &mut Ebpf, site: &Site<'_>, mode: Mode) -> anyhow::Result<u32> {
    let is_in_place = site.before.is_some_and(|before| before.mode == mode);
    let Some(before) = site.link_before(pins::xdp_link)?.filter(|_| is_in_place) else {
        return attach_new(ebpf, site, mode);
    };
    let program = program(ebpf)?;
    let id = program
        .attach_to_link(before.try_into()?)
        .with_context(|| format!("{}: the kernel does not replace the earlier XDP program", site.interface))?;
    let link = FdLink::try_from(program.take_link(id)?)?;
    site.pin_taken_over(link, &pins::xdp_link(site.directory))?;
    program_id(program)
}

/// Attaches the program where there is none, and pins its link. Returns its id.
pub(super) fn attach_new(ebpf: &mut Ebpf, site: &Site<'_>, mode: Mode) -> anyhow::Result<u32> {
    let interface = site.interface;
    let program = program(ebpf)?;
    let (mode, refused) = match mode {
        Mode::Generic => (XdpMode::Skb, "the kernel does not take the XDP program"),
        _ => (XdpMode::Driver, "the driver does not take a native XDP program; `--mode auto` takes TC then"),
    };
    let link = program.attach_to_if_index(site.index, mode).with_context(|| format!("{interface}: {refused}"))?;
    let link = match FdLink::try_from(program.take_link(link)?) {
        Ok(link) => link,
        // aya falls back to the netlink interface, whose attachment cannot be pinned or taken over.
        Err(LinkError::InvalidLink) => bail!("{interface}: the kernel offers no BPF link for XDP (5.9 or newer does)"),
        Err(error) => return Err(error).context("get the XDP link"),
    };
    pin(link, &pins::xdp_link(site.directory))?;
    program_id(program)
}

/// Detaches the program that is pinned in `directory`.
pub(super) fn detach(directory: &Path) -> anyhow::Result<()> {
    detach_pinned(&pins::xdp_link(directory))
}

fn program(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    object::load_program(ebpf, abi::XDP_PROGRAM)?;
    Ok(ebpf.program_mut(abi::XDP_PROGRAM).context("the object has no XDP program")?.try_into()?)
}

fn program_id(program: &Xdp) -> anyhow::Result<u32> {
    Ok(program.info().context("read the XDP program's id")?.id())
}
