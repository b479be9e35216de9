//! The log: standard error, one line an event.

use std::io::{self, IsTerminal as _};

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::{Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::recent::Recent;

/// How much to log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Starts logging. Once a process. What is kept of it is what is worth knowing, whatever the level is.
pub(super) fn start(level: LogLevel) -> Recent {
    let recent = Recent::default();
    let lines = fmt::layer().compact().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false);
    let lines = lines.with_filter(filter(level.into()));
    let kept = recent.clone().with_filter(Targets::new().with_target("kplb", Level::INFO));
    tracing_subscriber::registry().with(lines).with(kept).init();
    recent
}

/// kplb's own events, those of its BPF programs included, from `level` on; of what libraries say only warnings.
fn filter(level: Level) -> Targets {
    Targets::new().with_default(level.min(Level::WARN)).with_target("kplb", level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet() {
        for (level, library) in [(Level::ERROR, Level::ERROR), (Level::WARN, Level::WARN), (Level::TRACE, Level::WARN)]
        {
            let filter = filter(level);
            assert!(filter.would_enable("kplb::daemon", &level));
            assert!(filter.would_enable("netlink_proto", &library));
            assert!(library == level || !filter.would_enable("netlink_proto", &Level::INFO));
        }
    }
}
