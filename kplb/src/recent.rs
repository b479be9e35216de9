//! What the agent has said lately: the last lines of its log, kept for `kplb status --json` and `kplb top`.

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use crate::status::EventStatus;

/// More are not kept.
const MAX_EVENTS: usize = 50;
/// Longer words are cut.
const MAX_CHARACTERS: usize = 240;

/// The last events, the oldest first. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Said>>>);

#[derive(Clone, Debug)]
struct Said {
    at: Instant,
    level: Level,
    text: String,
}

impl Recent {
    /// The events, and how long ago each was at `now`.
    pub fn events(&self, now: Instant) -> Vec<EventStatus> {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let event = |said: &Said| EventStatus {
            age_seconds: now.saturating_duration_since(said.at).as_secs_f64(),
            level: said.level.as_str().to_lowercase(),
            text: said.text.clone(),
        };
        said.iter().map(event).collect()
    }

    fn keep(&self, at: Instant, level: Level, text: String) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == MAX_EVENTS {
            said.pop_front();
        }
        said.push_back(Said { at, level, text });
    }
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        self.keep(Instant::now(), *event.metadata().level(), words.0);
    }
}

/// The message of an event, without its fields.
#[derive(Default)]
struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let mut text = String::new();
            // A string takes every write.
            let _ = write!(text, "{value:?}");
            self.0 = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_CHARACTERS).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn what_is_said_is_kept() {
        let recent = Recent::default();
        let subscriber = tracing_subscriber::registry().with(recent.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("backend {} is\nback", "cp1");
            tracing::warn!(why = "checked", "gone");
        });
        let events = recent.events(Instant::now() + Duration::from_secs(10));
        let said: Vec<_> = events.iter().map(|event| (event.level.as_str(), event.text.as_str())).collect();
        assert_eq!(said, [("info", "backend cp1 is back"), ("warn", "gone")]);
        assert!(events.iter().all(|event| (10.0..20.0).contains(&event.age_seconds)), "{events:?}");
    }

    #[test]
    fn not_more_than_so_much_is_kept() {
        let recent = Recent::default();
        for i in 0..2 * MAX_EVENTS {
            recent.keep(Instant::now(), Level::INFO, i.to_string());
        }
        let events = recent.events(Instant::now());
        assert_eq!(events.len(), MAX_EVENTS);
        assert_eq!(events[MAX_EVENTS - 1].text, (2 * MAX_EVENTS - 1).to_string());
        let subscriber = tracing_subscriber::registry().with(recent.clone());
        tracing::subscriber::with_default(subscriber, || tracing::info!("{}", "x".repeat(10 * MAX_CHARACTERS)));
        assert_eq!(recent.events(Instant::now())[MAX_EVENTS - 1].text.len(), MAX_CHARACTERS);
    }
}
