//! When a watch checks, and what it tells.

use kplb::health::{
    fsm::Pace,
    watch::{News, Order, watch},
};
use kplb_tests::backend::{Afterwards, Answer};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};

use super::*;

/// Without an order or an idle connection that is closed there is one check, and no other one.
const RARELY: &str = "interval = '1h', fast_interval = '1h', jitter = 0";

/// Nothing happens for an hour unless it is in doubt.
const CALMLY: &str = "interval = '1h', fast_interval = '20ms', jitter = 0";

/// A watch, and what it tells.
struct Watch {
    orders: UnboundedSender<Order>,
    news: UnboundedReceiver<News>,
    task: JoinHandle<()>,
}

impl Watch {
    /// A watch whose checks have time.
    fn start(backend: &Backend, settings: &str) -> Result<Self> {
        Self::of(backend, patient(settings)?)
    }

    fn of(backend: &Backend, check: CheckConfig) -> Result<Self> {
        let probe = Probe::new(backend.address(), &check)?;
        let ((orders, receiver), (sender, news)) = (unbounded_channel(), unbounded_channel());
        let task = tokio::spawn(watch(probe, check, receiver, move |news| sender.send(news).is_ok()));
        Ok(Self { orders, news, task })
    }

    fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).context("the watch has ended")
    }

    /// The next news, but for hesitation: a busy machine may hesitate.
    async fn news(&mut self) -> Result<News> {
        loop {
            let news = timeout(SOON, self.news.recv()).await.context("no news")?.context("the watch has ended")?;
            if news != News::Hesitates {
                return Ok(news);
            }
        }
    }

    async fn checked(&mut self) -> Result<Outcome> {
        match self.news().await? {
            News::Checked(outcome) => Ok(outcome),
            news => anyhow::bail!("{news:?}, where a check was to end"),
        }
    }

    async fn lost(&mut self) -> Result<()> {
        let news = self.news().await?;
        anyhow::ensure!(news == News::Lost, "{news:?}, where a connection was to be lost");
        Ok(())
    }

    /// Whether there are no news for a while.
    async fn is_silent(&mut self) -> bool {
        timeout(A_WHILE, self.news.recv()).await.is_err()
    }

    /// Lets what was on its way when the pace was set arrive.
    async fn comes_to_rest(&mut self) -> bool {
        for _ in 0..=CheckConfig::default().fall {
            if self.is_silent().await {
                return true;
            }
        }
        false
    }
}

#[tokio::test]
async fn checks_are_fast_until_told_otherwise() -> Result<()> {
    let backend = https().await?;
    let mut watch = Watch::start(&backend, CALMLY)?;
    for _ in 0..5 {
        assert_eq!(watch.checked().await?.code, Code::L7ok);
    }
    watch.order(Order::Pace(Pace::Calm))?;
    assert!(watch.comes_to_rest().await);
    // And fast again, from the last one on.
    watch.order(Order::Pace(Pace::Fast))?;
    for _ in 0..5 {
        watch.checked().await?;
    }
    Ok(())
}

#[tokio::test]
async fn calm_checks_go_on() -> Result<()> {
    let backend = https().await?;
    let mut watch = Watch::start(&backend, "interval = '20ms', jitter = 50")?;
    watch.order(Order::Pace(Pace::Calm))?;
    for _ in 0..10 {
        assert_eq!(watch.checked().await?.code, Code::L7ok);
    }
    Ok(())
}

#[tokio::test]
async fn what_changed_is_found() -> Result<()> {
    let backend = https().await?;
    let mut watch = Watch::start(&backend, RARELY)?;
    assert_eq!(watch.checked().await?.finding, Finding::Ready);
    backend.set_answer(Answer::new(500, "[-]etcd failed"));
    watch.order(Order::Now)?;
    let outcome = watch.checked().await?;
    assert_eq!((outcome.code, outcome.finding), (Code::L7sts, Finding::NotReady));
    backend.end().await;
    watch.lost().await?;
    assert_eq!(watch.checked().await?.finding, Finding::Refused);
    Ok(())
}

#[tokio::test]
async fn an_order_is_followed_at_once() -> Result<()> {
    let backend = https().await?;
    let mut watch = Watch::start(&backend, RARELY)?;
    watch.checked().await?;
    assert!(watch.is_silent().await);
    for n in 2..5 {
        watch.order(Order::Now)?;
        watch.checked().await?;
        assert!(watch.is_silent().await);
        assert_eq!(backend.asked().len(), n);
    }
    // Of the connections that checks have left one is kept.
    backend.until("the others are closed", |now| now.accepted == 4 && now.open == 1).await
}

#[tokio::test]
async fn a_rest_is_one() -> Result<()> {
    let backend = https().await?;
    let mut watch = Watch::start(&backend, CALMLY)?;
    watch.checked().await?;
    watch.order(Order::Rest)?;
    assert!(watch.comes_to_rest().await);
    // Nothing is left open, and nobody can wake it by chance.
    backend.until("nothing is open", |now| now.open == 0).await?;
    let n_asked = backend.asked().len();
    watch.order(Order::Now)?;
    assert!(watch.is_silent().await);
    assert_eq!((backend.asked().len(), backend.connections().open), (n_asked, 0));
    // Its end is a check, at whichever pace.
    watch.order(Order::Pace(Pace::Calm))?;
    watch.checked().await?;
    assert!(watch.is_silent().await);
    assert_eq!(backend.asked().len(), n_asked + 1);
    Ok(())
}

#[tokio::test]
async fn a_rest_gives_up_what_is_on_its_way() -> Result<()> {
    let backend = https().await?;
    backend.set_answer(None);
    let mut watch = Watch::start(&backend, CALMLY)?;
    backend.until("checks are on their way", |now| now.open == 3).await?;
    watch.order(Order::Rest)?;
    backend.until("they are given up", |now| now.open == 0).await?;
    backend.set_answer(Answer::new(200, "ok"));
    assert!(watch.is_silent().await);
    Ok(())
}

#[tokio::test]
async fn a_lost_connection_is_told_and_followed_by_a_check() -> Result<()> {
    for kind in ["tls", "https"] {
        let backend = https().await?;
        let mut watch = Watch::start(&backend, &format!("type = '{kind}', {RARELY}"))?;
        watch.checked().await?;
        // One that was lost for nothing is no reason to distrust the next one.
        for n in 2..4 {
            backend.close_connections();
            watch.lost().await?;
            assert_eq!(watch.checked().await?.finding, Finding::Ready, "{kind}");
            backend.until("the next one is open", |now| now.accepted == n && now.open == 1).await?;
        }
        backend.end().await;
        watch.lost().await?;
        assert_eq!(watch.checked().await?.finding, Finding::Refused, "{kind}");
        assert!(watch.is_silent().await, "{kind}");
    }
    Ok(())
}

#[tokio::test]
async fn tcp_leaves_nothing_to_be_lost() -> Result<()> {
    let backend = https().await?;
    let mut watch = Watch::start(&backend, &format!("type = 'tcp', {RARELY}"))?;
    watch.checked().await?;
    backend.until("the connection is closed", |now| now.open == 0).await?;
    assert!(watch.is_silent().await);
    Ok(())
}

#[tokio::test]
async fn a_server_that_keeps_nothing_is_not_trusted_after_three_alarms() -> Result<()> {
    // One that is not ready is there as well: its idle connections tell nothing either, and a check for each that is
    // closed would be a flood.
    for status in [200, 401, 500] {
        let backend = https().await?;
        backend.set_answer(closes(status));
        let mut watch = Watch::start(&backend, RARELY)?;
        watch.checked().await?;
        for _ in 0..3 {
            watch.lost().await?;
            watch.checked().await?;
        }
        assert!(watch.is_silent().await, "{status}");
        watch.order(Order::Now)?;
        watch.checked().await?;
        assert!(watch.is_silent().await, "{status}");
        assert_eq!(backend.asked().len(), 5, "{status}");
    }
    Ok(())
}

/// What comes back may be another server.
#[tokio::test]
async fn a_server_that_was_dead_is_trusted_again() -> Result<()> {
    let backend = Backend::start(IPV4, None, Speech::Http).await?;
    backend.set_answer(closes(200));
    // Over plain TCP an answer within the timeout is a matter of microseconds.
    let check = check(&format!("type = 'http', timeout = '900ms', {RARELY}"))?;
    let mut watch = Watch::of(&backend, check)?;
    watch.checked().await?;
    for _ in 0..3 {
        watch.lost().await?;
        watch.checked().await?;
    }
    backend.set_answer(None);
    watch.order(Order::Now)?;
    assert_eq!(watch.checked().await?.finding, Finding::Unreachable);
    backend.set_answer(Answer::new(200, "ok"));
    watch.order(Order::Now)?;
    assert_eq!(watch.checked().await?.finding, Finding::Ready);
    backend.close_connections();
    watch.lost().await?;
    assert_eq!(watch.checked().await?.finding, Finding::Ready);
    Ok(())
}

#[tokio::test]
async fn a_late_check_is_not_waited_for() -> Result<()> {
    for fall in [1, 2, 4] {
        let backend = https().await?;
        backend.set_answer(None);
        let mut watch = Watch::start(&backend, &format!("fall = {fall}, {CALMLY}"))?;
        backend.until("the first one", |now| now.open == 1).await?;
        // Not even by those who have time.
        watch.order(Order::Pace(Pace::Calm))?;
        backend.until("as many checks as it takes", |now| now.open == fall).await?;
        watch.order(Order::Now)?;
        assert!(watch.is_silent().await);
        assert_eq!((backend.connections().accepted, backend.connections().open), (fall, fall));
        // When they are answered, there is nothing to be in doubt of.
        backend.set_answer(Answer::new(200, "ok"));
        for _ in 0..fall {
            assert_eq!(watch.checked().await?.code, Code::L7ok);
        }
        assert!(watch.comes_to_rest().await, "{fall}");
    }
    Ok(())
}

/// With a full queue the kernel drops the first packet, as for a MAC address where nobody is.
#[tokio::test]
async fn a_backend_that_accepts_no_connection_hesitates() -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((IPV4, 0).into())?;
    let listener = socket.listen(1)?;
    let address = listener.local_addr()?;
    let _queue = [TcpStream::connect(address).await?, TcpStream::connect(address).await?];
    let check = patient(&format!("type = 'tcp', {RARELY}"))?;
    let ((_orders, receiver), (sender, mut news)) = (unbounded_channel(), unbounded_channel());
    tokio::spawn(watch(Probe::new(address, &check)?, check, receiver, move |news| sender.send(news).is_ok()));
    let first = timeout(SOON, news.recv()).await.context("no news")?;
    assert_eq!(first, Some(News::Hesitates));
    // Once for a check, which goes on.
    assert!(timeout(A_WHILE, news.recv()).await.is_err());
    let _place = listener.accept().await?;
    let Some(News::Checked(outcome)) = timeout(SOON, news.recv()).await.context("no news")? else {
        anyhow::bail!("the check did not end");
    };
    assert_eq!(outcome.code, Code::L4ok);
    Ok(())
}

#[tokio::test]
async fn a_watch_ends_when_nobody_gives_orders() -> Result<()> {
    let backend = https().await?;
    let mut watch = Watch::start(&backend, RARELY)?;
    watch.checked().await?;
    let Watch { orders, news: _news, task } = watch;
    drop(orders);
    timeout(SOON, task).await.context("the watch goes on")??;
    backend.until("nothing is open", |now| now.open == 0).await
}

#[tokio::test]
async fn a_watch_ends_when_nobody_listens() -> Result<()> {
    let backend = https().await?;
    let mut watch = Watch::start(&backend, RARELY)?;
    watch.checked().await?;
    let Watch { orders, news, task } = watch;
    drop(news);
    orders.send(Order::Now)?;
    timeout(SOON, task).await.context("the watch goes on")??;
    backend.until("nothing is open", |now| now.open == 0).await
}

/// An answer after which the connection is closed.
fn closes(status: u16) -> Answer {
    Answer { afterwards: Afterwards::Closes, ..Answer::new(status, "") }
}
