//! The state machine of one virtual router: RFC 9568, section 6.4 (RFC 3768, section 6.4), and what the RFCs leave out.
//!
//! ```text
//!               start, fault cleared
//!   Initialize -----------------------> Backup        (owner, and who resumes: Master at once)
//!      ^  ^                             |  |  ^
//!      |  +---------- stop, fault ------+  |  | a higher priority heard, or held up
//!      |                     nobody heard  v  |
//!      +------------- stop, fault ---------- Master
//! ```
//!
//! # What a driver must do
//!
//! - Hand over all adverts that wait in the socket *before* the timer: what a node that was stopped has to know is in
//!   there.
//! - [`Router::handle`] an [`Input::Timer`] no later than at [`Router::deadline`], and take the actions in their order.
//! - Read `now` after the wait, not before.
//!
//! # Giving up
//!
//! The RFCs have a master that is shut down send an advert of priority 0 and go, and leave the VIPs to nobody until the
//! next one's skew time has passed. Here it *stays until the next one is heard*, or the last one that there can be must
//! have spoken: clients notice nothing of it but the move itself. To all others it looks like the RFCs' behaviour, for a
//! router that has given up sends no adverts. A fault leaves no choice: the VIPs go at once.
//!
//! # Being held up
//!
//! A process that did not run (stopped, starved, its machine suspended) knows neither what the others did nor that it
//! was away. Its clock tells it:
//!
//! - A *master* that has sent nothing for as long as a backup may wait may have been replaced. It goes to Backup and
//!   hears a full down interval whether somebody has taken over, before it claims anything: no second interruption,
//!   unless it is to preempt anyway. It sends no advert of priority 0: the others' patience is at its end without it,
//!   and if one of them is master already, that would make the rest of them race against it.
//! - A *backup* that was not called for an advert's time longer than it had asked for may simply not have heard the
//!   master. It, too, hears a full down interval before it claims. For this it asks to be called once in an interval
//!   even if nothing is due: what was missed may be adverts, though the timer has not run out yet.
//!
//! # Invariants
//!
//! - [`Action::Acquire`] and [`Action::Release`] alternate, and the VIPs are held exactly in Master.
//! - With [`Preemption::Never`], an advert of a living master always puts off the timer.
//! - The same inputs at the same times give the same actions.

mod words;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

pub use words::{Action, Fault, Heard, Input, Reason, State, Transition};

use super::{
    settings::{PRIORITY_RELEASE, Preemption, Settings, Version},
    timers,
};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Initialize,
    Backup {
        /// `Active_Down_Timer`.
        timer: Instant,
        /// `Active_Adver_Interval`.
        master_interval: Duration,
        /// When lower priorities are ignored, counted from the first heard in a row.
        preempts_from: Option<Instant>,
        heard: Option<Heard>,
        /// Whether what was heard last was ignored.
        is_preempting: bool,
        /// When this node was awake last.
        awake: Instant,
    },
    Master {
        /// `Adver_Timer`.
        timer: Instant,
        /// When the last advert was sent.
        sent: Instant,
    },
    /// Still master, until another one is.
    Leaving {
        /// When there is none.
        timer: Instant,
    },
}

/// One virtual router.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Router {
    settings: Settings,
    phase: Phase,
    since: Option<Instant>,
    is_started: bool,
    faults: BTreeSet<Fault>,
    /// Until when nothing is concluded from silence.
    deaf_until: Option<Instant>,
}

impl Router {
    /// Not yet started. The settings have passed [`Settings::check`].
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            phase: Phase::Initialize,
            since: None,
            is_started: false,
            faults: BTreeSet::new(),
            deaf_until: None,
        }
    }

    /// What was configured.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where it is.
    pub const fn state(&self) -> State {
        match self.phase {
            Phase::Initialize => State::Initialize,
            Phase::Backup { .. } => State::Backup,
            Phase::Master { .. } | Phase::Leaving { .. } => State::Master,
        }
    }

    /// Since when; not at all before the first transition.
    pub const fn since(&self) -> Option<Instant> {
        self.since
    }

    /// What keeps it in Initialize, if it was started.
    pub fn faults(&self) -> impl Iterator<Item = Fault> {
        self.faults.iter().copied()
    }

    /// What a backup has heard last.
    pub const fn heard(&self) -> Option<Heard> {
        match self.phase {
            Phase::Backup { heard, .. } => heard,
            Phase::Initialize | Phase::Master { .. } | Phase::Leaving { .. } => None,
        }
    }

    /// When it must be told that time has passed.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Initialize => None,
            Phase::Backup { timer, master_interval, awake, .. } => Some(timer.min(awake + master_interval)),
            Phase::Master { timer, .. } | Phase::Leaving { timer } => Some(timer),
        }
    }

    /// What follows from what happens now.
    pub fn handle(&mut self, input: Input, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let away = if let Input::HeldUp(away) = input { away } else { Duration::ZERO };
        self.give_up_if_late(away, now, &mut actions);
        match input {
            Input::Start => self.start(now, &mut actions),
            Input::Resume => self.resume(now, &mut actions),
            Input::Stop => self.stop(now, &mut actions),
            Input::Advert(heard) => self.hear(heard, now, &mut actions),
            Input::Timer => self.expire(now, &mut actions),
            Input::FaultRaised(fault) => self.raise(fault, now, &mut actions),
            Input::FaultCleared(fault) => self.clear(fault, now, &mut actions),
            Input::HeldUp(_) if !actions.is_empty() => {}
            Input::HeldUp(away) => {
                self.relisten_if_late(away, now, &mut actions);
            }
        }
        if let Phase::Backup { awake, .. } = &mut self.phase {
            *awake = now;
        }
        actions
    }

    fn start(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.is_started {
            return;
        }
        // It was about to go.
        self.enter_initialize(Reason::Stopped, now, actions);
        self.is_started = true;
        self.deaf_until = Some(now + self.settings.startup_delay);
        if self.faults.is_empty() {
            self.leave_initialize(Reason::Started, now, actions);
        }
    }

    /// Not in the RFCs: an agent takes up where another one on the same node has left, whose lease on the VIPs has not
    /// ended. So nobody else can be master yet, and nothing has to be heard first.
    fn resume(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.is_started {
            return;
        }
        // It was about to go.
        self.enter_initialize(Reason::Stopped, now, actions);
        self.is_started = true;
        if self.faults.is_empty() {
            self.enter_master(Reason::Resumed, now, actions);
        }
    }

    fn stop(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.is_started = false;
        match self.phase {
            Phase::Initialize | Phase::Leaving { .. } => {}
            Phase::Backup { .. } => self.enter_initialize(Reason::Stopped, now, actions),
            // Section 6.4.3, Shutdown, "Send an ADVERTISEMENT with Priority = 0"; see "Giving up".
            Phase::Master { .. } => {
                let Settings { version, interval, .. } = self.settings;
                actions.push(Action::Send { priority: PRIORITY_RELEASE });
                self.phase = Phase::Leaving { timer: now + timers::succession(version, interval) };
            }
        }
    }

    fn raise(&mut self, fault: Fault, now: Instant, actions: &mut Vec<Action>) {
        self.faults.insert(fault);
        self.enter_initialize(Reason::Fault(fault), now, actions);
    }

    fn clear(&mut self, fault: Fault, now: Instant, actions: &mut Vec<Action>) {
        if fault == Fault::LinkDown && self.faults.contains(&fault) {
            // The switch has to find out as well that the port is up.
            self.deaf_until = Some(now + self.settings.startup_delay);
        }
        if self.faults.remove(&fault) && self.faults.is_empty() && self.is_started {
            self.leave_initialize(Reason::FaultCleared(fault), now, actions);
        }
    }

    /// Section 6.4.1, Startup. The owner of the addresses becomes master at once, any other a backup that takes its own
    /// interval for the master's.
    fn leave_initialize(&mut self, reason: Reason, now: Instant, actions: &mut Vec<Action>) {
        let is_deaf = self.deaf_until.is_some_and(|until| now < until);
        if !self.settings.is_owner() {
            self.enter_backup(reason, self.settings.interval, None, now, actions);
        } else if is_deaf {
            self.enter_backup(reason, self.settings.interval, None, now, actions);
            self.set_down_timer(self.listening_from(now));
        } else {
            self.enter_master(reason, now, actions);
        }
    }

    /// Section 6.4.2, Shutdown. A fault has the same effect; a master says so by an advert of priority 0 (section 6.4.3).
    fn enter_initialize(&mut self, reason: Reason, now: Instant, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Initialize => return,
            Phase::Backup { .. } => {}
            // Said before the VIPs are gone: the next one waits for its skew time anyway.
            Phase::Master { .. } => actions.extend([Action::Send { priority: PRIORITY_RELEASE }, Action::Release]),
            Phase::Leaving { .. } => actions.push(Action::Release),
        }
        self.change(Phase::Initialize, reason, now, actions);
    }

    fn hear(&mut self, heard: Heard, now: Instant, actions: &mut Vec<Action>) {
        match self.phase {
            // Section 6.4.1: no other event than Startup.
            Phase::Initialize => {}
            Phase::Backup { .. } => self.hear_as_backup(heard, now),
            Phase::Master { .. } => self.hear_as_master(heard, now, actions),
            Phase::Leaving { .. } if heard.priority == PRIORITY_RELEASE => {}
            Phase::Leaving { .. } => self.enter_initialize(Reason::Stopped, now, actions),
        }
    }

    /// Section 6.4.2, "If an ADVERTISEMENT is received".
    fn hear_as_backup(&mut self, new: Heard, now: Instant) {
        let listening_from = self.listening_from(now);
        let Self { settings: Settings { version, priority, preemption, .. }, .. } = *self;
        let is_owner = self.settings.is_owner();
        let Phase::Backup { timer, master_interval, preempts_from, heard, is_preempting, .. } = &mut self.phase else {
            return;
        };
        *heard = Some(new);
        if new.priority == PRIORITY_RELEASE {
            // "Set the Active_Down_Timer to Skew_Time": of the master's interval.
            *timer = listening_from + timers::skew(version, priority, *master_interval);
            *is_preempting = false;
            return;
        }
        *is_preempting = if new.priority >= priority {
            *preempts_from = None;
            false
        } else {
            match preemption {
                // Section 6.1: the owner always preempts.
                _ if is_owner => true,
                Preemption::Never => false,
                Preemption::After(delay) => now >= *preempts_from.get_or_insert(now + delay),
            }
        };
        // "If Preempt_Mode is False, or if the Priority in the ADVERTISEMENT is greater than or equal to the local
        // Priority": adopt the interval, recompute the rest. Otherwise "Discard", and the timer runs on.
        if !*is_preempting {
            *master_interval = match version {
                Version::V3 => new.interval,
                // Section 6.4.2 of RFC 3768: the configured one, which is the same, or it would not have been decoded.
                Version::V2 => self.settings.interval,
            };
            *timer = listening_from + timers::master_down(version, priority, *master_interval);
        }
    }

    /// Section 6.4.3, "If an ADVERTISEMENT is received".
    fn hear_as_master(&mut self, heard: Heard, now: Instant, actions: &mut Vec<Action>) {
        let Settings { priority, address, .. } = self.settings;
        if heard.priority == PRIORITY_RELEASE {
            // "Send an ADVERTISEMENT", "Reset the Adver_Timer": so that no backup takes over for nothing. Who gives up
            // was master, and may have announced the VIPs.
            self.advertise(now, actions);
            actions.push(Action::Reannounce { other: heard });
        } else if heard.priority > priority {
            self.yield_to(Reason::HigherPriority(heard), heard, now, actions);
        } else if heard.priority == priority && heard.sender > address {
            // "based on an unsigned integer comparison of the IPvX addresses in network byte order"
            self.yield_to(Reason::GreaterAddress(heard), heard, now, actions);
        } else {
            // "Send an ADVERTISEMENT immediately to assert the Active state": RFC 9568, and keepalived in version 2 as
            // well. RFC 3768, section 6.4.3 only discards, so both are master until the next advert.
            self.advertise(now, actions);
            actions.push(Action::Reannounce { other: heard });
        }
    }

    fn yield_to(&mut self, reason: Reason, heard: Heard, now: Instant, actions: &mut Vec<Action>) {
        let interval = match self.settings.version {
            Version::V3 => heard.interval,
            Version::V2 => self.settings.interval,
        };
        actions.push(Action::Release);
        self.enter_backup(reason, interval, Some(heard), now, actions);
    }

    fn expire(&mut self, now: Instant, actions: &mut Vec<Action>) {
        match self.phase {
            // Section 6.4.3, "If the Adver_Timer fires".
            Phase::Master { timer, .. } if now >= timer => self.advertise(now, actions),
            // Section 6.4.2, "If the Active_Down_Timer fires".
            Phase::Backup { timer, .. } => {
                if !self.relisten_if_late(Duration::ZERO, now, actions) && now >= timer {
                    self.enter_master(self.reason_to_claim(), now, actions);
                }
            }
            Phase::Leaving { timer } if now >= timer => self.enter_initialize(Reason::Stopped, now, actions),
            Phase::Initialize | Phase::Master { .. } | Phase::Leaving { .. } => {}
        }
    }

    fn reason_to_claim(&self) -> Reason {
        match self.heard() {
            None => Reason::NobodyHeard,
            Some(heard) if heard.priority == PRIORITY_RELEASE => Reason::Released(heard),
            Some(heard) if matches!(self.phase, Phase::Backup { is_preempting: true, .. }) => Reason::Preempts(heard),
            Some(heard) => Reason::MasterSilent(heard),
        }
    }

    /// A master that sent nothing for as long as a backup may wait has to take it that one has not waited longer.
    fn give_up_if_late(&mut self, away: Duration, now: Instant, actions: &mut Vec<Action>) {
        let Phase::Master { sent, .. } = self.phase else { return };
        let silent_for = now.saturating_duration_since(sent).saturating_add(away);
        if silent_for >= timers::patience(self.settings.interval) {
            actions.push(Action::Release);
            self.enter_backup(Reason::HeldUp(silent_for), self.settings.interval, None, now, actions);
        }
    }

    /// A backup that is called an advert's time too late may not have heard that advert. Returns whether it is so.
    fn relisten_if_late(&mut self, away: Duration, now: Instant, actions: &mut Vec<Action>) -> bool {
        let (Phase::Backup { master_interval, .. }, Some(deadline)) = (self.phase, self.deadline()) else {
            return false;
        };
        let late = now.saturating_duration_since(deadline).saturating_add(away);
        if late < master_interval {
            return false;
        }
        let Settings { version, priority, .. } = self.settings;
        self.set_down_timer(self.listening_from(now) + timers::master_down(version, priority, master_interval));
        actions.push(Action::Relisten { late });
        true
    }

    /// From when silence means something.
    fn listening_from(&self, now: Instant) -> Instant {
        self.deaf_until.map_or(now, |until| until.max(now))
    }

    fn set_down_timer(&mut self, at: Instant) {
        if let Phase::Backup { timer, .. } = &mut self.phase {
            *timer = at;
        }
    }

    /// "Set the Active_Adver_Interval", "Recompute the Skew_Time", "Recompute the Active_Down_Interval", "Set the
    /// Active_Down_Timer to Active_Down_Interval".
    fn enter_backup(
        &mut self,
        reason: Reason,
        master_interval: Duration,
        heard: Option<Heard>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Settings { version, priority, .. } = self.settings;
        let timer = self.listening_from(now) + timers::master_down(version, priority, master_interval);
        let (preempts_from, is_preempting) = (None, false);
        let phase = Phase::Backup { timer, master_interval, preempts_from, heard, is_preempting, awake: now };
        self.change(phase, reason, now, actions);
    }

    /// "Send an ADVERTISEMENT", announce, "Set the Adver_Timer to Advertisement_Interval".
    fn enter_master(&mut self, reason: Reason, now: Instant, actions: &mut Vec<Action>) {
        actions.extend([Action::Send { priority: self.settings.priority }, Action::Acquire]);
        let timer = now + self.settings.interval;
        self.change(Phase::Master { timer, sent: now }, reason, now, actions);
    }

    fn advertise(&mut self, now: Instant, actions: &mut Vec<Action>) {
        actions.push(Action::Send { priority: self.settings.priority });
        self.phase = Phase::Master { timer: now + self.settings.interval, sent: now };
    }

    fn change(&mut self, phase: Phase, reason: Reason, now: Instant, actions: &mut Vec<Action>) {
        let from = self.state();
        self.phase = phase;
        self.since = Some(now);
        actions.push(Action::Report(Transition { from, to: self.state(), reason }));
    }
}
