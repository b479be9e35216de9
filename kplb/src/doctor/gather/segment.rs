//! Asks and hears what is on the segment.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    super::facts::{Interface, Known, Segment},
    adverts, known,
};
use crate::{
    announce::probe,
    config::Config,
    vrrp::timers::patience,
    who_has::{
        Inquiry,
        question::{Answer, Question},
    },
};

/// For all hosts of a segment to answer.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);
/// Adverts once a second are the rule with others, and one may be lost.
const LISTEN_AT_LEAST: Duration = Duration::from_millis(2500);

/// Does all of it at the same time; none if the interface has no such surroundings.
pub(super) async fn gather(config: &Config, interface: &Interface, listen: Option<Duration>) -> Option<Segment> {
    let (snapshot, survey) = interface.surroundings.as_ref()?;
    let (link, vips, own) = (snapshot.link.clone(), config.vips(), survey.mac);
    if !link.is_up {
        return None;
    }
    let routers = interface.election.iter().flatten().flatten().cloned().collect::<Vec<_>>();
    let shortest = config.vrrp.as_ref().map_or(Duration::ZERO, |vrrp| patience(vrrp.interval)).max(LISTEN_AT_LEAST);
    let listened = Some(listen.unwrap_or(shortest)).filter(|period| !period.is_zero() && !routers.is_empty());
    let peers = config.vrrp.iter().flat_map(|vrrp| &vrrp.peers).filter(|peer| !survey.local.contains(peer));
    let peers: Vec<IpAddr> = peers.copied().collect();
    let questions: Vec<Question> = peers.iter().filter_map(|peer| snapshot.question_for(*peer, &vips)).collect();

    let adverts = spawn_blocking({
        let link = link.clone();
        move || listened.map_or_else(|| Ok(Vec::new()), |listened| adverts::listen(&link, &routers, listened))
    });
    let owners = spawn_blocking({
        let name = link.name.clone();
        move || probe::other_owners(&name, own, &vips.into_iter().collect::<Vec<_>>(), ANSWER_PATIENCE)
    });
    let answers = spawn_blocking(move || {
        let inquiry = Inquiry::start(&link.name, own, &questions)?;
        answers(&inquiry, &questions)
    });
    Some(Segment {
        listened,
        adverts: ended(adverts).await,
        owners: ended(owners).await,
        peers,
        answers: ended(answers).await,
    })
}

/// Waits until each question is answered, but not for ever.
fn answers(inquiry: &Inquiry, questions: &[Question]) -> Result<Vec<Answer>> {
    let mut open: BTreeSet<IpAddr> = questions.iter().map(Question::target).collect();
    let deadline = Instant::now() + ANSWER_PATIENCE;
    let mut all = Vec::new();
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|_| !open.is_empty()) {
        for answer in inquiry.answers(left)? {
            open.remove(&answer.address);
            all.push(answer);
        }
    }
    Ok(all)
}

async fn ended<T>(task: JoinHandle<Result<T>>) -> Known<T> {
    match task.await {
        Ok(result) => known(result),
        Err(error) => Err(error.to_string()),
    }
}
