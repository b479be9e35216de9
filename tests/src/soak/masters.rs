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

/// How old may be what is known of a node: it is looked at now and then only.
const SLACK: Duration = Duration::from_millis(500);

/// For so long a VIP may be without an answer though nothing moves it. There are many questions in that time.
const SILENCE: Duration = Duration::from_secs(2);

/// The node of an answer with a MAC address that no node has.
pub const NOBODY: usize = 0;

/// An answer for a VIP, as another host heard it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answered {
    /// Since the start of the load.
    pub at: Duration,
    /// Which question it was.
    pub question: usize,
    /// The node whose MAC address it named, or [`NOBODY`].
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
    let end = |episode: &Episode| {
        let end = episode.moves_until(episodes);
        // Who stands still lets go later.
        busy.iter().filter(|span| span.contains(&end)).map(|span| span.end).max().unwrap_or(end)
    };
    let mut moving = episodes.iter().filter(|episode| episode.may_move_master());
    moving.any(|episode| episode.from <= from + SLACK && until <= end(episode).saturating_add(SLACK))
        || busy::covers(busy, from, until)
}

/// What is wrong with who answered for the VIP of one family until `end`: it was nobody for a while, or a node that had not
/// got the VIP, without a fault that explains it; or it was none of the nodes, which nothing explains.
pub fn strange(
    answers: &[Answered],
    changes: &[Holders],
    end: Duration,
    episodes: &[Episode],
    busy: &[Range<Duration>],
) -> Vec<String> {
    let mut wrong = Vec::new();
    let times = || answers.iter().map(|answer| answer.at);
    for (from, until) in [Duration::ZERO].into_iter().chain(times()).zip(times().chain([end])) {
        if until.saturating_sub(from) > SILENCE && !explains(episodes, busy, from, until) {
            wrong.push(format!("nobody answers{} until {:.3} s", time(from), until.as_secs_f64()));
        }
    }
    let ends = || changes.iter().skip(1).map(|change| change.at).chain([end]);
    let is_held = |answer: &Answered| {
        let mut held = changes.iter().zip(ends()).filter(|(change, _)| change.nodes.contains(&answer.node));
        held.any(|(change, until)| change.at <= answer.at + SLACK && answer.at <= until + SLACK)
    };
    for answers in answers.chunk_by(|a, b| a.node == b.node) {
        let node = answers[0].node;
        if node == NOBODY {
            wrong.push(format!("an answer names a MAC address that no node has{}", time(answers[0].at)));
            continue;
        }
        let is_wrong = |answer: &&Answered| !is_held(answer) && !explains(episodes, busy, answer.at, answer.at);
        if let Some(answer) = answers.iter().find(is_wrong) {
            wrong.push(format!("node{node} answers and has not got the VIP{}", time(answer.at)));
        }
    }
    wrong
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
    fn two_at_once_are_over_soon_after_the_fault_however_long_the_rest_takes() {
        let slow = Episode { settled: Some(s(60)), ..stopped(10) };
        let two = |until| unexplained(&[holders(0, &[1]), holders(10, &[1, 2])], until, &[slow], &[]).len();
        // Undone at 12 s, and an election.
        assert_eq!((two(s(15)), two(s(16)), two(s(60))), (0, 1, 1));
        let never = Episode { settled: None, ..slow };
        assert_eq!(unexplained(&[holders(0, &[1]), holders(10, &[1, 2])], s(60), &[never], &[]).len(), 1);
        // Unless the machine let nobody run.
        assert_eq!(unexplained(&[holders(0, &[1]), holders(10, &[1, 2])], s(18), &[slow], &[s(14)..s(20)]).len(), 0);
    }

    /// An answer each second, by a node that may depend on the time.
    fn answers(node: impl Fn(u64) -> Option<usize>) -> Vec<Answered> {
        let answer = |at| Some(Answered { at: s(at), question: usize::try_from(at).ok()?, node: node(at)? });
        (0..100).filter_map(answer).collect()
    }

    #[test]
    fn who_answers_has_the_vip() {
        let held = [holders(0, &[1]), holders(11, &[2])];
        let wrong = |answers: &[Answered], episodes: &[Episode]| strange(answers, &held, s(100), episodes, &[]).len();
        let right = |at| Some(if at < 11 { 1 } else { 2 });
        assert_eq!(wrong(&answers(right), &[]), 0);
        // Another one, alone, for a while.
        let other = |at| if (50..55).contains(&at) { Some(3) } else { right(at) };
        assert_eq!(wrong(&answers(other), &[]), 1);
        assert_eq!(wrong(&answers(other), &[stopped(50)]), 0);
        assert_eq!(wrong(&answers(|_| Some(1)), &[]), 1, "one that had it once");
    }

    #[test]
    fn nothing_explains_an_answer_of_nobody() {
        let nobody = answers(|at| Some(if at == 11 { NOBODY } else { 1 }));
        assert_eq!(strange(&nobody, &[holders(0, &[1])], s(100), &[stopped(10)], &[s(0)..s(100)]).len(), 1);
    }

    #[test]
    fn there_are_answers_all_the_time() {
        let held = [holders(0, &[1])];
        assert_eq!(strange(&[], &held, s(100), &[], &[]).len(), 1, "no answer at all");
        let hole = answers(|at| (!(11..14).contains(&at)).then_some(1));
        assert_eq!(strange(&hole, &held, s(100), &[], &[]).len(), 1);
        assert_eq!(strange(&hole, &held, s(100), &[stopped(10)], &[]).len(), 0);
        assert_eq!(strange(&answers(|at| (at < 50).then_some(1)), &held, s(100), &[], &[]).len(), 1);
    }

    #[test]
    fn questions_are_answered_by_one() {
        let answer = |at, question, node| Answered { at: s(at), question, node };
        let answers = [answer(1, 1, 1), answer(2, 2, 1), answer(2, 2, 2), answer(11, 3, 2), answer(11, 3, 1)];
        assert_eq!(contested(&answers, &[stopped(10)], &[]), [(s(2), false), (s(11), true)]);
        assert_eq!(timeline(&answers), [(s(1), 1), (s(2), 2), (s(11), 1)]);
    }
}
