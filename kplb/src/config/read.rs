//! TOML text to a draft: every key known, every value well formed, every problem with its place.
//!
//! The table is walked by hand because serde stops at the first problem.

use std::{ops::RangeInclusive, time::Duration};

use kplb_common::{
    node::Vlan,
    service::{LocalClients, Persistence},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    CheckKind, FLOWS_RANGE, LIFETIME_RANGE, MAX_WEIGHT, MetricsConfig, OnDown, PERIOD_RANGE, Place, Problems, Protocol,
    Statuses, VLAN_RANGE,
    draft::{At, Draft, DraftBackend, DraftService},
    health::{DraftCheck, INTERVAL_RANGE, JITTER_RANGE, STREAK_RANGE, TIMEOUT_RANGE},
    metrics,
    value::{self, Wrong, shown},
    vrrp::{self, ADVERT_RANGE, DELAY_RANGE, DraftVrrp, NOTIFY_TIMEOUT_RANGE, REPEAT_RANGE},
};
use crate::vrrp::settings::{Coverage, Version};

/// Seeds a TOML reader of any language can hold.
const SEED_RANGE: RangeInclusive<u64> = 0..=i64::MAX as u64;

/// Reads a draft; nothing if the text is not TOML.
pub(super) fn read(text: &str, problems: &mut Problems) -> Option<Draft> {
    let lines = Lines::new(text);
    match DeTable::parse(text) {
        Ok(table) => Some(Reader { lines, problems }.draft(table.get_ref())),
        Err(error) => {
            let place = lines.place(error.span().map_or(0, |span| span.start));
            problems.add(&place, error.message(), "the file must be TOML, see https://toml.io");
            None
        }
    }
}

/// Offsets to lines and columns.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(offset, _)| offset + 1)).collect();
        Self { text, starts }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|&start| start <= offset);
        let start = self.starts[line - 1];
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Place::Text { line, column }
    }
}

type Key<'i> = Spanned<std::borrow::Cow<'i, str>>;
type Value<'i> = Spanned<DeValue<'i>>;

struct Reader<'t, 'p> {
    lines: Lines<'t>,
    problems: &'p mut Problems,
}

impl Reader<'_, '_> {
    fn draft(&mut self, table: &DeTable<'_>) -> Draft {
        const KEYS: [&str; 5] = ["node", "flows", "vrrp", "metrics", "service"];
        let mut draft = Draft::new(Place::START);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "node" => self.node(value, &mut draft),
                "flows" => self.flows(value, &mut draft),
                "vrrp" => draft.vrrp = Some(self.vrrp(value)),
                "metrics" => draft.metrics = Some(self.metrics(value)),
                "service" => {
                    draft.services = self.tables("service", value, Self::service);
                    draft.tries_service = true;
                }
                _ => draft.tries_service |= self.unknown(key, &KEYS) == Some("service"),
            }
        }
        draft
    }

    fn node(&mut self, value: &Value<'_>, draft: &mut Draft) {
        let Some(table) = self.table("node", value) else { return };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "nat_ports" => set(&mut draft.node.nat_ports, self.string(key, value, value::ports)),
                "vlan" => set(&mut draft.node.vlan, self.vlan(key, value)),
                _ => {
                    self.unknown(key, &["nat_ports", "vlan"]);
                }
            }
        }
    }

    /// An identifier, or one for each tag, outermost first.
    fn vlan(&mut self, key: &Key<'_>, value: &Value<'_>) -> Option<At<Vlan>> {
        let tags = match value.get_ref().as_array() {
            Some(array) => array.iter().collect(),
            None => vec![value],
        };
        let n_tags = tags.len();
        let identifiers: Vec<u16> =
            tags.into_iter().filter_map(|tag| Some(self.integer(key, tag, &VLAN_RANGE)?.value)).collect();
        if identifiers.len() < n_tags {
            return None;
        }
        let mut vlan = Vlan::NONE;
        let result = match vlan.0.get_mut(..n_tags) {
            Some(slots) if n_tags > 0 => {
                slots.copy_from_slice(&identifiers);
                Ok(vlan)
            }
            _ => Err(Wrong::new(
                format!("{n_tags} VLAN tags"),
                "write one identifier, or two in brackets, the outer one first",
            )),
        };
        self.at(value, result)
    }

    fn flows(&mut self, value: &Value<'_>, draft: &mut Draft) {
        const KEYS: [&str; 6] =
            ["max", "max_half_open", "half_open_lifetime", "established_lifetime", "closing_lifetime", "udp_lifetime"];
        let flows = &mut draft.flows;
        let Some(table) = self.table("flows", value) else { return };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "max" => set(&mut flows.max, self.integer(key, value, &FLOWS_RANGE)),
                "max_half_open" => set(&mut flows.max_half_open, self.integer(key, value, &FLOWS_RANGE)),
                "half_open_lifetime" => set(&mut flows.half_open_lifetime, self.duration(key, value, &LIFETIME_RANGE)),
                "established_lifetime" => {
                    set(&mut flows.established_lifetime, self.duration(key, value, &LIFETIME_RANGE));
                }
                "closing_lifetime" => set(&mut flows.closing_lifetime, self.duration(key, value, &LIFETIME_RANGE)),
                "udp_lifetime" => set(&mut flows.udp_lifetime, self.duration(key, value, &LIFETIME_RANGE)),
                _ => {
                    self.unknown(key, &KEYS);
                }
            }
        }
    }

    fn vrrp(&mut self, value: &Value<'_>) -> DraftVrrp {
        const KEYS: [&str; 20] = [
            "virtual_router_id",
            "version",
            "priority",
            "interval",
            "preempt",
            "preempt_delay",
            "startup_delay",
            "peers",
            "password",
            "checksum",
            "garp_master_repeat",
            "garp_master_delay",
            "garp_interval",
            "garp_master_refresh",
            "garp_master_refresh_repeat",
            "garp_lower_prio_repeat",
            "garp_lower_prio_delay",
            "notify",
            "notify_user",
            "notify_timeout",
        ];
        let checksums = [("pseudo-header", Coverage::PseudoHeader), ("message", Coverage::Message)];

        let mut vrrp = DraftVrrp::new(self.place(value));
        let Some(table) = self.table("vrrp", value) else { return vrrp };
        let schedule = &mut vrrp.announcements;
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "virtual_router_id" => vrrp.router_id = self.integer(key, value, &(1..=u8::MAX)),
                "version" => vrrp.version = self.integer(key, value, &(2..=3)).map(vrrp_version),
                "priority" => vrrp.priority = self.integer(key, value, &(1..=u8::MAX)),
                "interval" => vrrp.interval = self.duration(key, value, &ADVERT_RANGE),
                "preempt" => vrrp.preempt = self.boolean(key, value),
                "preempt_delay" => vrrp.preempt_delay = self.duration(key, value, &DELAY_RANGE),
                "startup_delay" => vrrp.startup_delay = self.duration(key, value, &DELAY_RANGE),
                "peers" => vrrp.peers = self.strings(key, value, vrrp::peer),
                "password" => vrrp.password = self.string(key, value, vrrp::password),
                "checksum" => vrrp.checksum = self.one_of(key, value, &checksums),
                "garp_master_repeat" => set(&mut schedule.repeat, self.integer(key, value, &REPEAT_RANGE)),
                "garp_master_delay" => set(&mut schedule.delay, self.duration(key, value, &DELAY_RANGE)),
                "garp_interval" => set(&mut schedule.gap, self.duration(key, value, &DELAY_RANGE)),
                "garp_master_refresh" => set(&mut schedule.refresh, self.duration(key, value, &DELAY_RANGE)),
                "garp_master_refresh_repeat" => {
                    set(&mut schedule.refresh_repeat, self.integer(key, value, &REPEAT_RANGE));
                }
                "garp_lower_prio_repeat" => {
                    set(&mut schedule.lower_priority_repeat, self.integer(key, value, &REPEAT_RANGE));
                }
                "garp_lower_prio_delay" => {
                    set(&mut schedule.lower_priority_delay, self.duration(key, value, &DELAY_RANGE));
                }
                "notify" => vrrp.notify = self.command(key, value),
                "notify_user" => vrrp.notify_user = self.string(key, value, value::name),
                "notify_timeout" => vrrp.notify_timeout = self.duration(key, value, &NOTIFY_TIMEOUT_RANGE),
                _ => {
                    self.unknown(key, &KEYS);
                }
            }
        }
        vrrp
    }

    fn metrics(&mut self, value: &Value<'_>) -> MetricsConfig {
        let mut metrics = MetricsConfig::default();
        let Some(table) = self.table("metrics", value) else { return metrics };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "listen" => set(&mut metrics.listen, self.string(key, value, metrics::listen)),
                _ => drop(self.unknown(key, &["listen"])),
            }
        }
        metrics
    }

    fn service(&mut self, place: Place, table: &DeTable<'_>) -> DraftService {
        const KEYS: [&str; 11] = [
            "name",
            "vip",
            "protocol",
            "persistence",
            "local_clients",
            "seed",
            "check",
            "on_down",
            "drain_timeout",
            "slow_start",
            "backend",
        ];
        let on_down = [("reset", OnDown::Reset), ("keep", OnDown::Keep)];
        let protocols = Protocol::ALL.map(|protocol| (protocol.name(), protocol));
        let places =
            [("prefer-local", LocalClients::PreferLocal), ("hash", LocalClients::Hash), ("off", LocalClients::Off)];
        let persistences = [("client", Persistence::Client), ("connection", Persistence::Connection)];

        let mut service = DraftService::new(place);
        let mut has_vip = false;
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "name" => service.name = self.string(key, value, value::name),
                "vip" => {
                    service.vip = self.string(key, value, value::endpoint);
                    has_vip = true;
                }
                "protocol" => set(&mut service.protocol, self.one_of(key, value, &protocols)),
                "persistence" => set(&mut service.persistence, self.one_of(key, value, &persistences)),
                "local_clients" => set(&mut service.local_clients, self.one_of(key, value, &places)),
                "seed" => set(&mut service.seed, self.integer(key, value, &SEED_RANGE)),
                "check" => service.check = self.check("service.check", value),
                "on_down" => set(&mut service.on_down, self.one_of(key, value, &on_down)),
                "drain_timeout" => service.drain_timeout = self.duration(key, value, &PERIOD_RANGE).map(|at| at.value),
                "slow_start" => service.slow_start = self.duration(key, value, &PERIOD_RANGE).map(|at| at.value),
                "backend" => service.backends = self.tables("service.backend", value, Self::backend),
                _ => has_vip |= self.unknown(key, &KEYS) == Some("vip"),
            }
        }
        if !has_vip {
            self.problems.add(&service.place, "the service has no `vip`", "add one, as in vip = \"198.18.0.100:6443\"");
        }
        service
    }

    fn backend(&mut self, place: Place, table: &DeTable<'_>) -> DraftBackend {
        const KEYS: [&str; 4] = ["name", "address", "weight", "check"];

        let mut backend = DraftBackend {
            name: None,
            address: None,
            weight: DraftBackend::DEFAULT_WEIGHT,
            check: DraftCheck::default(),
        };
        let mut has_address = false;
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "name" => backend.name = self.string(key, value, value::name),
                "address" => {
                    backend.address = self.string(key, value, value::endpoint);
                    has_address = true;
                }
                "weight" => set(&mut backend.weight, self.integer(key, value, &(0..=MAX_WEIGHT))),
                "check" => backend.check = self.check("service.backend.check", value),
                _ => has_address |= self.unknown(key, &KEYS) == Some("address"),
            }
        }
        if !has_address {
            let hint = "add one, as in address = \"198.18.0.11:6443\"";
            self.problems.add(&place, "the backend has no `address`", hint);
        }
        backend
    }

    fn check(&mut self, name: &str, value: &Value<'_>) -> DraftCheck {
        const KEYS: [&str; 17] = [
            "type",
            "port",
            "path",
            "expect",
            "host",
            "server_name",
            "ca_file",
            "client_certificate_file",
            "client_key_file",
            "token_file",
            "interval",
            "fast_interval",
            "connect_timeout",
            "timeout",
            "rise",
            "fall",
            "jitter",
        ];
        let kinds: Vec<_> =
            CheckKind::NAMES.map(|(name, kind)| (name, Some(kind))).into_iter().chain([("none", None)]).collect();

        let mut check = DraftCheck::default();
        let Some(table) = self.table(name, value) else { return check };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "type" => check.kind = self.one_of(key, value, &kinds),
                "port" => check.port = self.integer(key, value, &(1..=u16::MAX)),
                "path" => check.path = self.string(key, value, value::path),
                "expect" => check.expect = self.string(key, value, Statuses::parse),
                "host" => check.host = self.string(key, value, value::header),
                "server_name" => check.server_name = self.string(key, value, value::server_name),
                "ca_file" => check.ca_file = self.string(key, value, value::file),
                "client_certificate_file" => check.client_certificate_file = self.string(key, value, value::file),
                "client_key_file" => check.client_key_file = self.string(key, value, value::file),
                "token_file" => check.token_file = self.string(key, value, value::file),
                "interval" => check.interval = self.duration(key, value, &INTERVAL_RANGE),
                "fast_interval" => check.fast_interval = self.duration(key, value, &INTERVAL_RANGE),
                "connect_timeout" => check.connect_timeout = self.duration(key, value, &TIMEOUT_RANGE),
                "timeout" => check.timeout = self.duration(key, value, &TIMEOUT_RANGE),
                "rise" => check.rise = self.integer(key, value, &STREAK_RANGE),
                "fall" => check.fall = self.integer(key, value, &STREAK_RANGE),
                "jitter" => check.jitter = self.integer(key, value, &JITTER_RANGE),
                _ => {
                    self.unknown(key, &KEYS);
                }
            }
        }
        check
    }

    fn place(&self, value: &Spanned<impl Sized>) -> Place {
        self.lines.place(value.span().start)
    }

    /// Reports a key that does not exist; returns what it was meant to be.
    fn unknown(&mut self, key: &Key<'_>, known: &[&'static str]) -> Option<&'static str> {
        let name = key.get_ref();
        let slips = |word: &str| strsim::osa_distance(word, name);
        // A slip for each three letters is a misspelling, more is another word.
        let closest = (known.iter().copied())
            .min_by_key(|word| slips(word))
            .filter(|word| slips(word) <= usize::max(1, word.len() / 3));
        let hint = match closest {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("known here: {}", known.join(", ")),
        };
        let place = self.place(key);
        self.problems.add(&place, format!("unknown key {}", shown(name)), hint);
        closest
    }

    fn table<'v, 'i>(&mut self, name: &str, value: &'v Value<'i>) -> Option<&'v DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(name, value, &format!("write it as the table [{name}]"));
        }
        table
    }

    fn tables<T>(
        &mut self,
        name: &str,
        value: &Value<'_>,
        mut read: impl FnMut(&mut Self, Place, &DeTable<'_>) -> T,
    ) -> Vec<T> {
        let hint = format!("start each with [[{name}]], in double brackets");
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(name, value, &hint);
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(array.len());
        for element in array.iter() {
            match element.get_ref().as_table() {
                Some(table) => tables.push(read(self, self.place(element), table)),
                None => self.wrong_type(name, element, &hint),
            }
        }
        tables
    }

    fn string<T>(
        &mut self,
        key: &Key<'_>,
        value: &Value<'_>,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key.get_ref(), value, "write a string, in quotes");
            return None;
        };
        self.at(value, parse(text))
    }

    fn duration(&mut self, key: &Key<'_>, value: &Value<'_>, range: &RangeInclusive<Duration>) -> Option<At<Duration>> {
        self.string(key, value, |text| value::duration(text, range))
    }

    fn boolean(&mut self, key: &Key<'_>, value: &Value<'_>) -> Option<At<bool>> {
        let Some(boolean) = value.get_ref().as_bool() else {
            self.wrong_type(key.get_ref(), value, "write true or false, without quotes");
            return None;
        };
        self.at(value, Ok(boolean))
    }

    fn strings<T>(&mut self, key: &Key<'_>, value: &Value<'_>, parse: impl Fn(&str) -> Result<T, Wrong>) -> Vec<At<T>> {
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key.get_ref(), value, "write a list of strings, in brackets");
            return Vec::new();
        };
        array.iter().filter_map(|element| self.string(key, element, &parse)).collect()
    }

    fn command(&mut self, key: &Key<'_>, value: &Value<'_>) -> Option<At<Vec<String>>> {
        let words = self.strings(key, value, |text| Ok(text.to_owned()));
        let program = words.first().map(|word| value::file(&word.value).map(drop));
        let nothing = || Err(Wrong::new("the command is empty", "write the program and its arguments"));
        self.at(value, program.unwrap_or_else(nothing).map(|()| words.into_iter().map(|word| word.value).collect()))
    }

    fn one_of<T: Copy>(&mut self, key: &Key<'_>, value: &Value<'_>, words: &[(&str, T)]) -> Option<At<T>> {
        self.string(key, value, |text| {
            let found = words.iter().find(|(word, _)| *word == text);
            found.map(|(_, value)| *value).ok_or_else(|| {
                let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                Wrong::new(format!("unknown {} {}", key.get_ref(), shown(text)), format!("use {}", words.join(" or ")))
            })
        })
    }

    fn integer<T>(&mut self, key: &Key<'_>, value: &Value<'_>, range: &RangeInclusive<T>) -> Option<At<T>>
    where
        T: PartialOrd + std::fmt::Display + Copy + TryFrom<i128>,
    {
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key.get_ref(), value, "write an integer, without quotes");
            return None;
        };
        // What does not even fit in 128 bits is out of every range.
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX);
        self.at(value, value::integer(number, range))
    }

    fn at<T>(&mut self, value: &Value<'_>, result: Result<T, Wrong>) -> Option<At<T>> {
        let place = self.place(value);
        match result {
            Ok(value) => Some(At { value, place }),
            Err(wrong) => {
                self.problems.add(&place, wrong.message, wrong.hint);
                None
            }
        }
    }

    fn wrong_type(&mut self, name: &str, value: &Value<'_>, hint: &str) {
        let place = self.place(value);
        self.problems.add(&place, format!("`{name}` cannot be of type {}", value.get_ref().type_str()), hint);
    }
}

fn vrrp_version(number: At<u8>) -> At<Version> {
    let value = if number.value == Version::V2.number() { Version::V2 } else { Version::V3 };
    At { value, place: number.place }
}

/// Takes a value unless it was wrong.
fn set<T>(field: &mut T, value: Option<At<T>>) {
    if let Some(At { value, .. }) = value {
        *field = value;
    }
}
