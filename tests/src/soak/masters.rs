//! One master: which nodes have the VIPs on their interfaces, which ones answer for them, and whether a fault explains it
//! when that is not exactly one.

use std::{ops::Range, time::Duration};

use super::{busy, excuse::Episode};
use crate::cluster::VIPS;

/// Which nodes had the VIP of a family, from a moment on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holders {
    /// Since the start of the load.
    pub at: Duration,
    /// 0 for IPv4, 1 for IPv6.
    pub family: usize,
    /// The nodes, from 1 on.
    pub nodes: Vec<usize>,
}

/// An answer for a VIP, as another host heard it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answered {
    /// Since the start of the load.
    pub at: Duration,
    /// Which question it was.
    pub question: usize,
    /// The node whose MAC address it named; 0 for nobody's.
    pub node: usize,
}

/// What is wrong with how the VIPs of one family moved, until `end`: who held them when it was not one, and when another
/// one did, each without a fault that explains it.
pub fn unexplained(changes: &[Holders], end: Duration, episodes: &[Episode], busy: &[Range<Duration>]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut last = None;
    let ends = changes.iter().skip(1).map(|change| change.at).chain([end]);
    for (change, until) in changes.iter().zip(ends) {
        let is_explained = explains(episodes, busy, change.at, until);
        match change.nodes[..] {
            [node] => {
                if last.is_some_and(|last| last != node) && !explains(episodes, busy, change.at, change.at) {
                    wrong.push(format!("{} is at node{node} without a reason{}", VIPS[change.family], time(change.at)));
                }
                last = Some(node);
            }
            _ if is_explained => {}
            _ => wrong.push(format!(
                "{} is at {:?}{} for {:.3} s",
                VIPS[change.family],
                change.nodes,
                time(change.at),
                (until.saturating_sub(change.at)).as_secs_f64()
            )),
        }
    }
    wrong
}

/// Whether one fault explains that the VIPs move in all of this time, or none of it counts.
fn explains(episodes: &[Episode], busy: &[Range<Duration>], from: Duration, until: Duration) -> bool {
    let end = |episode: &Episode| episode.settled.unwrap_or(Duration::MAX);
    // What a node shows is looked at now and then only.
    let slack = Duration::from_millis(500);
    let mut moving = episodes.iter().filter(|episode| episode.may_move_master());
    moving.any(|episode| episode.from <= from + slack && until <= end(episode).saturating_add(slack))
        || busy::covers(busy, from, until)
}

/// Questions that were answered in the name of several nodes: when, and whether a fault explains it.
pub fn contested(answers: &[Answered], episodes: &[Episode], busy: &[Range<Duration>]) -> Vec<(Duration, bool)> {
    let questions = answers.chunk_by(|a, b| a.question == b.question);
    let contested = questions.filter(|answers| answers.iter().any(|answer| answer.node != answers[0].node));
    contested.map(|answers| (answers[0].at, explains(episodes, busy, answers[0].at, answers[0].at))).collect()
}

/// Who answered, whenever that changed.
pub fn timeline(answers: &[Answered]) -> Vec<(Duration, usize)> {
    let mut timeline: Vec<(Duration, usize)> = Vec::new();
    for answer in answers {
        if timeline.last().is_none_or(|last| last.1 != answer.node) {
            timeline.push((answer.at, answer.node));
        }
    }
    timeline
}

fn time(at: Duration) -> String {
    format!(" from {:.3} s on", at.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            excuse::Role,
            fault::{Fault, Kind},
        },
        *,
    };

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn stopped(from: u64) -> Episode {
        let fault = Fault { at: s(from), kind: Kind::AgentStop, node: 1, hold: s(1), variant: 1 };
        let (undone, settled) = (Some(s(from + 2)), Some(s(from + 4)));
        Episode { fault, node: 1, role: Role::Master, from: s(from), undone, settled }
    }

    fn holders(at: u64, nodes: &[usize]) -> Holders {
        Holders { at: s(at), family: 0, nodes: nodes.to_vec() }
    }

    #[test]
    fn one_may_follow_another_if_a_fault_explains_it() {
        let moved = [holders(0, &[1]), holders(10, &[1, 2]), holders(11, &[2])];
        assert_eq!(unexplained(&moved, s(100), &[stopped(10)], &[]), Vec::<String>::new());
        assert_eq!(unexplained(&moved, s(100), &[], &[]).len(), 2, "two at once, and another one");
        assert_eq!(unexplained(&moved, s(100), &[], &[s(9)..s(12)]).len(), 0);
        assert_eq!(unexplained(&moved, s(100), &[stopped(20)], &[]).len(), 2);
    }

    #[test]
    fn two_at_once_and_none_are_over_when_all_has_settled() {
        assert_eq!(unexplained(&[holders(0, &[1]), holders(10, &[1, 2])], s(100), &[stopped(10)], &[]).len(), 1);
        assert_eq!(unexplained(&[holders(0, &[1]), holders(10, &[])], s(100), &[stopped(10)], &[]).len(), 1);
        assert_eq!(unexplained(&[holders(0, &[1]), holders(10, &[])], s(13), &[stopped(10)], &[]).len(), 0);
    }

    #[test]
    fn questions_are_answered_by_one() {
        let answer = |at, question, node| Answered { at: s(at), question, node };
        let answers = [answer(1, 1, 1), answer(2, 2, 1), answer(2, 2, 2), answer(11, 3, 2), answer(11, 3, 1)];
        assert_eq!(contested(&answers, &[stopped(10)], &[]), [(s(2), false), (s(11), true)]);
        assert_eq!(timeline(&answers), [(s(1), 1), (s(2), 2), (s(11), 1)]);
    }
}
