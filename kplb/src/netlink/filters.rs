//! BPF filters on an interface, where TC programs are that are not there by links.

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use nix::errno::Errno;
use rtnetlink::{
    TrafficFilterGetRequest,
    packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};

use super::client::{Netlink, is_error};

/// A filter that runs a BPF program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BpfFilter {
    /// Its priority.
    pub priority: u16,
    /// Its handle within that.
    pub handle: u32,
    /// The program's id.
    pub program: u32,
    /// The name that whoever attached it gave to the filter (`TCA_BPF_NAME`); empty if none.
    pub name: String,
}

impl Netlink {
    /// The BPF filters at the ingress of the interface with this index.
    ///
    /// # Minimum kernel version
    /// 4.13, for the ids of programs.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn ingress_filters(&self, index: u32) -> Result<Vec<BpfFilter>> {
        self.filters(index, TrafficFilterGetRequest::ingress).await
    }

    /// The same at its egress.
    ///
    /// # Minimum kernel version
    /// 4.13, for the ids of programs.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn egress_filters(&self, index: u32) -> Result<Vec<BpfFilter>> {
        self.filters(index, TrafficFilterGetRequest::egress).await
    }

    /// Whether the interface with this index has the queueing discipline `ingress`. It takes the place of `clsact`, and what is
    /// attached to its egress sees the packets that come in (`ingress_tcf_block` in the kernel's net/sched/sch_ingress.c).
    ///
    /// # Errors
    /// If that cannot be read.
    pub async fn has_ingress_discipline(&self, index: u32) -> Result<bool> {
        let disciplines: Vec<TcMessage> = match self.handle().qdisc().get().execute().try_collect().await {
            Ok(disciplines) => disciplines,
            // A kernel without any.
            Err(error) if is_error(&error, Errno::EOPNOTSUPP) => return Ok(false),
            Err(error) => return Err(error).context("list queueing disciplines"),
        };
        let is_ingress = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "ingress");
        let on_it = |discipline: &&TcMessage| u32::try_from(discipline.header.index) == Ok(index);
        Ok(disciplines.iter().filter(on_it).any(|discipline| discipline.attributes.iter().any(is_ingress)))
    }

    async fn filters(
        &self,
        index: u32,
        side: impl FnOnce(TrafficFilterGetRequest) -> TrafficFilterGetRequest,
    ) -> Result<Vec<BpfFilter>> {
        let index = index.try_into().context("an index of an interface")?;
        let messages = side(self.handle().traffic_filter(index).get()).execute();
        let filters: Result<Vec<_>, _> = messages.map_ok(|message| BpfFilter::decode(&message)).try_collect().await;
        match filters {
            Ok(filters) => Ok(filters.into_iter().flatten().collect()),
            // A kernel without filters.
            Err(error) if is_error(&error, Errno::EOPNOTSUPP) => Ok(Vec::new()),
            Err(error) => Err(error).context("list TC filters"),
        }
    }
}

impl BpfFilter {
    fn decode(message: &TcMessage) -> Option<Self> {
        let TcHandle { major, minor } = message.header.handle;
        let options = message.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        })?;
        let program = options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
            _ => None,
        })?;
        let name = options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
            _ => None,
        });
        // The priority is in the upper half, the protocol in the lower one (`TC_H_MAKE` in `tc_dump_tfilter`'s messages).
        let priority = (message.header.info >> 16) as u16;
        Some(Self {
            priority,
            handle: u32::from(major) << 16 | u32::from(minor),
            program,
            name: name.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_programs_are_told_from_others() {
        let mut message = TcMessage::default();
        message.header.handle = TcHandle { major: 0, minor: 3 };
        message.header.info = 7 << 16 | 0x0300;
        message.attributes = vec![TcAttribute::Kind("u32".to_owned())];
        assert_eq!(BpfFilter::decode(&message), None);
        message.attributes = vec![
            TcAttribute::Kind("bpf".to_owned()),
            TcAttribute::Options(vec![
                TcOption::Bpf(TcFilterBpfOption::ProgName("other".to_owned())),
                TcOption::Bpf(TcFilterBpfOption::ProgId(42)),
            ]),
        ];
        let filter = BpfFilter { priority: 7, handle: 3, program: 42, name: "other".to_owned() };
        assert_eq!(BpfFilter::decode(&message), Some(filter));
    }
}
