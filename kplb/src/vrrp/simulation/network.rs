//! The simulated segment: its nodes, what they send each other, and what happens to them.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use fastrand::Rng;

use super::super::{
    fsm::{Action, Fault, Heard, Input, Router, State},
    packet::Advert,
    receive::{Header, decode},
    settings::Settings,
};

const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18));

/// A packet on its way.
#[derive(Clone)]
struct Packet {
    header: Header,
    message: Vec<u8>,
}

pub(super) struct Node {
    settings: Settings,
    pub(super) router: Router,
    pub(super) is_running: bool,
    is_frozen: bool,
    /// It was told to stop, and ends when nothing is left to do.
    is_leaving: bool,
    /// What waits in its socket while it is frozen.
    inbox: VecDeque<Packet>,
    /// Which of the segment's parts it is in.
    part: u8,
    holds_vips: bool,
}

enum Event {
    Arrival { node: usize, packet: Packet },
    Wake { node: usize },
}

/// The network, from whose perfect clock all is seen.
pub(super) struct Network {
    random: Rng,
    now: Instant,
    start: Instant,
    pub(super) nodes: Vec<Node>,
    /// By time, then in the order of coming.
    queue: BTreeMap<(Instant, u64), Event>,
    pub(super) n_events: u64,
    /// When the last packet from one to another arrives: an Ethernet keeps the order.
    arrivals: BTreeMap<(usize, usize), Instant>,
    max_delay: Duration,
    /// Of a hundred packets.
    pub(super) loss: u8,
    /// Since when two nodes that hear each other are both master.
    double: BTreeMap<(usize, usize), Instant>,
    pub(super) longest_double: Duration,
    /// Who became master, and when.
    pub(super) masters: Vec<(Duration, usize)>,
}

impl Network {
    pub(super) fn new(seed: u64, nodes: Vec<Settings>, max_delay: Duration) -> Self {
        let now = Instant::now();
        let node = |settings: Settings| Node {
            router: Router::new(settings.clone()),
            settings,
            is_running: false,
            is_frozen: false,
            inbox: VecDeque::new(),
            part: 0,
            is_leaving: false,
            holds_vips: false,
        };
        Self {
            random: Rng::with_seed(seed),
            now,
            start: now,
            nodes: nodes.into_iter().map(node).collect(),
            queue: BTreeMap::new(),
            n_events: 0,
            arrivals: BTreeMap::new(),
            max_delay,
            loss: 0,
            double: BTreeMap::new(),
            longest_double: Duration::ZERO,
            masters: Vec::new(),
        }
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.n_events += 1;
        self.queue.insert((at, self.n_events), event);
    }

    fn hear_each_other(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        a.part == b.part && [a, b].iter().all(|node| node.is_running && !node.is_frozen)
    }

    fn handle(&mut self, node: usize, input: Input) {
        let actions = self.nodes[node].router.handle(input, self.now);
        for action in actions {
            match action {
                Action::Send { priority } => self.send(node, priority),
                Action::Acquire => {
                    self.nodes[node].holds_vips = true;
                    self.masters.push((self.now - self.start, node));
                }
                Action::Release => self.nodes[node].holds_vips = false,
                Action::Reannounce { .. } | Action::Relisten { .. } | Action::Report(_) => {}
            }
        }
        let Node { router, is_running, is_leaving, .. } = &mut self.nodes[node];
        if *is_leaving && router.state() == State::Initialize {
            *is_running = false;
        }
        if let Some(deadline) = router.deadline() {
            self.push(deadline, Event::Wake { node });
        }
        self.watch();
    }

    fn send(&mut self, from: usize, priority: u8) {
        let settings = &self.nodes[from].settings;
        let header = Header { source: settings.address, destination: GROUP, hop_limit: 255 };
        let message = Advert::new(settings, priority).encode(header.source, GROUP, settings.coverage);
        for node in 0..self.nodes.len() {
            if node == from || self.random.u8(0..100) < self.loss {
                continue;
            }
            let delay = Duration::from_nanos(self.random.u64(0..=self.max_delay.as_nanos() as u64));
            let packet = Packet { header, message: message.clone() };
            if self.nodes[node].part == self.nodes[from].part {
                let last = self.arrivals.entry((from, node)).or_insert(self.now);
                let at = (self.now + delay).max(*last);
                *last = at;
                self.push(at, Event::Arrival { node, packet });
            }
        }
    }

    fn receive(&mut self, node: usize, packet: &Packet) {
        let received =
            decode(&packet.message, &packet.header, &self.nodes[node].settings).expect("an undamaged advert");
        self.handle(node, Input::Advert(Heard::new(&received.advert, packet.header.source)));
    }

    /// Notes who is master together.
    fn watch(&mut self) {
        let masters: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].holds_vips).collect();
        let mut double = BTreeMap::new();
        for (i, a) in masters.iter().enumerate() {
            for b in masters.iter().skip(i + 1).filter(|b| self.hear_each_other(*a, **b)) {
                double.insert((*a, *b), self.double.get(&(*a, *b)).copied().unwrap_or(self.now));
            }
        }
        self.double = double;
        let longest = self.double.values().map(|since| self.now - *since).max().unwrap_or_default();
        self.longest_double = self.longest_double.max(longest);
    }

    fn run_until(&mut self, end: Instant) {
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= end
        {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.watch();
            match event {
                Event::Arrival { node, packet } => match &mut self.nodes[node] {
                    Node { is_running: false, .. } => {}
                    Node { is_frozen: true, inbox, .. } => inbox.push_back(packet),
                    _ => self.receive(node, &packet),
                },
                Event::Wake { node } => {
                    let Node { is_running, is_frozen, router, .. } = &self.nodes[node];
                    if *is_running && !is_frozen && router.deadline().is_some_and(|deadline| deadline <= at) {
                        self.handle(node, Input::Timer);
                    }
                }
            }
        }
        self.now = end;
        self.watch();
    }

    pub(super) fn run(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    pub(super) fn boot(&mut self, node: usize) {
        let settings = self.nodes[node].settings.clone();
        let Node { router, is_running, is_frozen, is_leaving, inbox, .. } = &mut self.nodes[node];
        *router = Router::new(settings);
        (*is_running, *is_frozen, *is_leaving) = (true, false, false);
        inbox.clear();
        self.handle(node, Input::Start);
    }

    pub(super) fn kill(&mut self, node: usize) {
        let Node { is_running, holds_vips, .. } = &mut self.nodes[node];
        (*is_running, *holds_vips) = (false, false);
        self.watch();
    }

    pub(super) fn stop(&mut self, node: usize) {
        self.nodes[node].is_leaving = true;
        self.handle(node, Input::Stop);
    }

    pub(super) fn freeze(&mut self, node: usize) {
        self.nodes[node].is_frozen = true;
        self.watch();
    }

    /// As a driver wakes: what waits in the socket first (if the machine had received it), then the timer.
    pub(super) fn thaw(&mut self, node: usize, has_received: bool) {
        if !std::mem::take(&mut self.nodes[node].is_frozen) {
            return;
        }
        let inbox = std::mem::take(&mut self.nodes[node].inbox);
        for packet in inbox.iter().filter(|_| has_received) {
            self.receive(node, packet);
        }
        self.handle(node, Input::Timer);
    }

    fn divide(&mut self, n_parts: u8) {
        for node in 0..self.nodes.len() {
            self.nodes[node].part = self.random.u8(0..n_parts);
        }
        self.watch();
    }

    /// Those that run, and are not about to end.
    pub(super) fn running(&self) -> Vec<usize> {
        let stays = |node: &usize| self.nodes[*node].is_running && !self.nodes[*node].is_leaving;
        (0..self.nodes.len()).filter(stays).collect()
    }

    pub(super) fn holders(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].holds_vips).collect()
    }

    /// How many times the VIPs went to another node than before. Nodes of equal priority may claim at once; that they
    /// find out who stays is not another move.
    pub(super) fn n_moves(&self) -> usize {
        let is_race = |pair: &[(Duration, usize)]| pair[1].0 - pair[0].0 <= 2 * self.max_delay;
        self.masters.windows(2).filter(|pair| pair[0].1 != pair[1].1 && !is_race(pair)).count()
    }

    /// Something that happens to a network.
    pub(super) fn suffer(&mut self) {
        let node = self.random.usize(0..self.nodes.len());
        let (is_running, is_frozen) = (self.nodes[node].is_running, self.nodes[node].is_frozen);
        match self.random.u8(0..10) {
            0 => {
                let n_parts = self.random.u8(1..4);
                self.divide(n_parts);
            }
            1 => self.divide(1),
            2 if is_running => self.kill(node),
            3 if is_running && !is_frozen => self.stop(node),
            4 if is_running => self.freeze(node),
            5 if is_running && !is_frozen => self.handle(node, Input::FaultRaised(Fault::LinkDown)),
            6 if is_running && !is_frozen => self.handle(node, Input::FaultCleared(Fault::LinkDown)),
            7 => {
                let has_received = self.random.bool();
                self.thaw(node, has_received);
            }
            _ if !is_running => self.boot(node),
            _ => {}
        }
        let pause = Duration::from_micros(self.random.u64(0..1_500_000));
        self.run(pause);
    }

    /// The end of it all; at least one node runs.
    pub(super) fn heal(&mut self) {
        self.loss = 0;
        self.divide(1);
        for node in (0..self.nodes.len()).filter(|node| self.nodes[*node].is_running).collect::<Vec<_>>() {
            let has_received = self.random.bool();
            self.thaw(node, has_received);
            self.handle(node, Input::FaultCleared(Fault::LinkDown));
        }
        if self.running().is_empty() {
            self.boot(0);
        }
    }
}
