//! From a listener to its servers: which backend a frontend uses, and what of it kplb can do.

use std::collections::{BTreeSet, HashMap};

use super::{
    Defaults, Haproxy, balance, bind,
    global::Global,
    lines::Line,
    proxy::{Kind, Mode, Proxy},
    servers, unused,
};
use crate::{
    config::{OnDown, PERIOD_RANGE, Protocol},
    import::{
        error::ImportError,
        finding::{Findings, NOTHING_TO_DO, Written, brief},
        fit,
        limits::MAX_SERVERS,
        reading::Reading,
        wanted::{Listener, Wanted},
    },
};

/// Follows every listener. What is said of a proxy or of defaults is reported of those alone that are imported.
pub(super) fn follow(
    proxies: Vec<Proxy>,
    global: &Global,
    defaults: &mut [Option<Defaults>],
    reading: &mut Reading<'_>,
) -> Result<Haproxy, ImportError> {
    let mut haproxy = Haproxy::default();
    let mut backends: HashMap<&str, usize> = HashMap::new();
    for (index, proxy) in proxies.iter().enumerate().filter(|(_, proxy)| proxy.kind.has_servers()) {
        backends.entry(proxy.name.as_str()).or_insert(index);
    }
    let mut imported = BTreeSet::new();
    let mut findings = Findings::default();
    let mut n_servers = 0;
    for (index, frontend) in proxies.iter().enumerate().filter(|(_, proxy)| proxy.kind.listens()) {
        let mut own = Findings::default();
        let followed = backend(index, frontend, &backends, &mut own).and_then(|target| {
            let wanted = wanted(frontend, &proxies[target], global, reading, &mut own)?;
            Ok((target, wanted))
        });
        findings.append(own);
        match followed {
            Ok((target, wanted)) => {
                n_servers += wanted.servers.len();
                if n_servers > MAX_SERVERS {
                    return Err(ImportError::too_much(&frontend.written.place, "too many servers", MAX_SERVERS));
                }
                let backend = &proxies[target];
                haproxy.idle = haproxy.idle.max(frontend.settings.idle()).max(backend.settings.idle());
                haproxy.wanted.push(wanted);
                imported.extend([index, target]);
                report(defaults, frontend.defaults, &mut findings);
                report(defaults, backend.defaults, &mut findings);
            }
            Err(why) => unused(frontend, &why, &mut findings),
        }
    }
    for (index, proxy) in proxies.into_iter().enumerate() {
        if imported.contains(&index) {
            findings.append(proxy.findings);
        } else if !proxy.kind.listens() {
            unused(&proxy, "no frontend that is imported uses it", &mut findings);
        }
    }
    reading.findings.append(findings);
    Ok(haproxy)
}

/// Which proxy has the servers of a frontend; or why there is none.
fn backend(
    index: usize,
    frontend: &Proxy,
    backends: &HashMap<&str, usize>,
    findings: &mut Findings,
) -> Result<usize, String> {
    if frontend.settings.is_disabled {
        return Err("it is disabled".to_owned());
    }
    match target(frontend, findings) {
        Target::Itself => Ok(index),
        Target::Backend(name) => {
            backends.get(name).copied().ok_or_else(|| format!("there is no backend {}", brief(name)))
        }
        Target::Nothing(why) => Err(why.to_owned()),
    }
}

/// Reports what stands in the defaults of a proxy, and in those of the defaults.
fn report(defaults: &mut [Option<Defaults>], mut index: Option<usize>, findings: &mut Findings) {
    while let Some(section) = index.and_then(|index| defaults.get_mut(index)?.as_mut()) {
        // Once it is reported, so are those that it inherits from.
        let Some(own) = section.findings.take() else { break };
        findings.append(own);
        index = section.from;
    }
}

/// Where a frontend's connections go.
enum Target<'p> {
    Itself,
    Backend(&'p str),
    Nothing(&'static str),
}

fn target<'p>(frontend: &'p Proxy, findings: &mut Findings) -> Target<'p> {
    let mut conditional: Vec<&Line> = Vec::new();
    let mut always = None;
    for line in &frontend.use_backends {
        if line.words.iter().skip(2).any(|word| word == "if" || word == "unless") {
            conditional.push(line);
        } else {
            always = line.argument(1);
            break;
        }
    }
    let default = frontend.settings.default_backend.as_ref().map(|default| default.value.as_str());
    let names: BTreeSet<&str> = conditional.iter().filter_map(|line| line.argument(1)).collect();
    let fallback = match (always.or(default), names.len()) {
        (Some(name), _) => Target::Backend(name),
        (None, _) if frontend.kind == Kind::Listen && !frontend.servers.is_empty() => Target::Itself,
        (None, 1) => names.first().map_or(Target::Nothing("it leads nowhere"), |name| Target::Backend(name)),
        (None, 0) => Target::Nothing("no server is behind it"),
        (None, _) => Target::Nothing("it chooses among backends by what clients send, which kplb does not look at"),
    };
    for line in conditional {
        let why = match &fallback {
            Target::Backend(name) => format!("kplb does not look into connections: all of them go to {}", brief(name)),
            _ => "kplb does not look into connections".to_owned(),
        };
        findings.left_out(&line.written, why, "give what it chooses a VIP or a port of its own");
    }
    fallback
}

/// A frontend and its backend as one; or why not.
fn wanted(
    frontend: &Proxy,
    backend: &Proxy,
    global: &Global,
    reading: &mut Reading<'_>,
    findings: &mut Findings,
) -> Result<Wanted, String> {
    if backend.settings.is_disabled {
        return Err(format!("its backend {} is disabled", brief(&backend.name)));
    }
    let mut listeners: Vec<Listener> = Vec::new();
    let mut tls = None;
    for line in &frontend.binds {
        let bind = bind::read(line, reading, findings);
        listeners.extend(bind.listeners);
        tls = tls.or(bind.tls);
    }
    if listeners.is_empty() {
        return Err("it listens at no address that kplb could serve".to_owned());
    }
    encryption(tls.as_ref(), backend, findings)?;
    let servers = servers::read(backend, global, reading, findings);
    if servers.is_empty() {
        return Err("no server is behind it".to_owned());
    }
    modes(frontend, backend, findings);
    let (persistence, persistence_by) = balance::persistence(&backend.settings, &backend.written, findings);
    on_down(backend, findings);
    Ok(Wanted {
        name: Some(frontend.name.clone()),
        written: frontend.written.clone(),
        listeners,
        protocol: Protocol::Tcp,
        persistence,
        persistence_by,
        on_down: OnDown::Reset,
        slow_start: slow_start(backend, findings),
        servers,
    })
}

/// Whether clients and servers can speak with each other without a proxy between them.
fn encryption(tls: Option<&Written>, backend: &Proxy, findings: &mut Findings) -> Result<(), String> {
    if tls.is_some() && backend.n_tls < backend.servers.len() {
        let why = "haproxy ends the TLS of clients, and kplb cannot: the servers would get what they do not understand";
        return Err(why.to_owned());
    }
    if tls.is_none() && backend.n_tls > 0 {
        let why = "haproxy puts connections into TLS for its servers (`ssl`); kplb hands on what clients send";
        findings.changed(&backend.written, why, "see that clients speak TLS themselves");
    }
    Ok(())
}

fn modes(frontend: &Proxy, backend: &Proxy, findings: &mut Findings) {
    for proxy in [frontend, backend] {
        if let Some(mode) = proxy.settings.mode.as_ref().filter(|mode| mode.value != Mode::Tcp) {
            let why = "kplb forwards connections as they are, and does not look into them";
            findings.changed(&mode.written, why, "see that the backends need nothing that haproxy did to requests");
        }
    }
}

/// What becomes of connections whose server goes down.
fn on_down(backend: &Proxy, findings: &mut Findings) {
    let mut parameters = backend.servers.iter().map(|(_, parameters)| parameters);
    if parameters.any(|parameters| parameters.is_checked && !parameters.shuts_down) {
        let why = "kplb resets connections of a backend that is down; haproxy leaves them to themselves, as its servers \
                   have no `on-marked-down shutdown-sessions`";
        findings.changed(&backend.written, why, "set `on_down = \"keep\"` to have it as before");
    }
}

/// How long a server that comes back takes to have its share; in kplb all of them have the same.
fn slow_start(backend: &Proxy, findings: &mut Findings) -> Option<std::time::Duration> {
    let times: BTreeSet<_> = backend.servers.iter().filter_map(|(_, parameters)| parameters.slow_start).collect();
    let longest = *times.last()?;
    if longest.is_zero() {
        return None;
    }
    let written = backend.written.part(format!("slowstart {}", humantime::format_duration(longest)));
    if times.len() > 1 {
        findings.changed(&written, "all backends of a service have the same, the longest", NOTHING_TO_DO);
    }
    Some(fit::duration(longest, &PERIOD_RANGE, &written, findings))
}
