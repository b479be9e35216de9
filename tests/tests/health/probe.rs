//! How far a check comes, and what it finds there.

use std::{fs, path::Path, time::SystemTime};

use kplb_tests::backend::{Afterwards, Answer, Asked};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;

/// A port where nobody listens any more.
async fn nobody(address: IpAddr) -> Result<SocketAddr> {
    Ok(TcpListener::bind((address, 0)).await?.local_addr()?)
}

#[tokio::test]
async fn tcp_is_accepted_or_refused() -> Result<()> {
    for address in [IPV4, IPV6] {
        let backend = Backend::start(address, None, Speech::Words("")).await?;
        let (outcome, canary) = probe(backend.address(), "type = 'tcp'").await?;
        assert_eq!((outcome.code, outcome.finding, outcome.words.as_str()), (Code::L4ok, Finding::Ready, ""));
        // A server may complain of a connection without a word.
        assert!(canary.is_none());
        backend.until("the connection is closed", |now| now.accepted == 1 && now.open == 0).await?;

        let (outcome, canary) = probe(nobody(address).await?, "type = 'tcp'").await?;
        assert_eq!((outcome.code, outcome.finding), (Code::L4con, Finding::Refused));
        assert_eq!(outcome.words, "connection refused");
        assert!(canary.is_none());
    }
    Ok(())
}

/// The deeper checks see it as well.
#[tokio::test]
async fn every_check_is_refused_where_nobody_listens() -> Result<()> {
    for kind in ["tcp", "tls", "http", "https"] {
        let found = found(nobody(IPV4).await?, &format!("type = '{kind}'")).await?;
        assert_eq!(found, (Code::L4con, Finding::Refused), "{kind}");
    }
    Ok(())
}

#[tokio::test]
async fn a_backend_that_ended_refuses() -> Result<()> {
    let backend = https().await?;
    let address = backend.address();
    assert_eq!(found(address, "path = '/'").await?, (Code::L7ok, Finding::Ready));
    backend.end().await;
    assert_eq!(found(address, "path = '/'").await?, (Code::L4con, Finding::Refused));
    Ok(())
}

/// With a full queue the kernel drops the first packet, as a host that is gone does. Source: `sk_acceptq_is_full()` in
/// the kernel's `include/net/sock.h`, which lets in one more than the backlog says.
#[tokio::test]
async fn tcp_without_an_answer_is_late() -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((IPV4, 0).into())?;
    let listener = socket.listen(1)?;
    let address = listener.local_addr()?;
    let _queue = [TcpStream::connect(address).await?, TcpStream::connect(address).await?];
    let check = check("type = 'tcp', connect_timeout = '100ms', timeout = '20s'")?;
    let (outcome, canary) = Probe::new(address, &check)?.check().run(|| ()).await;
    assert_eq!((outcome.code, outcome.finding), (Code::L4tout, Finding::Unreachable));
    assert!(outcome.latency >= check.connect_timeout, "{outcome}");
    assert!(canary.is_none());
    Ok(())
}

/// Neither sends a packet: a broadcast address is none for TCP, and one of a link needs to say which.
#[tokio::test]
async fn who_cannot_be_asked_is_told_from_how_to_ask() -> Result<()> {
    let found_at = |address: &'static str| async move { found(address.parse()?, "type = 'tcp'").await };
    assert_eq!(found_at("127.255.255.255:1").await?, (Code::L4con, Finding::Unreachable));
    assert_eq!(found_at("[fe80::1]:1").await?, (Code::Sockerr, Finding::Unknown));
    Ok(())
}

#[tokio::test]
async fn silence_is_late_at_the_layer_it_begins() -> Result<()> {
    let silent = Backend::start(IPV4, None, Speech::Words("")).await?;
    let slow = https().await?;
    slow.set_answer(None);
    for (backend, kind, timeout, code) in [
        (&silent, "tls", "100ms", Code::L6tout),
        (&silent, "https", "100ms", Code::L6tout),
        (&silent, "http", "100ms", Code::L7tout),
        // Long enough for the handshake on a machine that is busy.
        (&slow, "https", "800ms", Code::L7tout),
    ] {
        let check = check(&format!("type = '{kind}', timeout = '{timeout}'"))?;
        let (outcome, canary) = Probe::new(backend.address(), &check)?.check().run(|| ()).await;
        assert_eq!((outcome.code, outcome.finding), (code, Finding::Unreachable), "{kind}: {outcome}");
        assert!(outcome.latency >= check.timeout, "{kind}: {outcome}");
        assert!(canary.is_none(), "{kind}");
        backend.until("what is late is given up", |now| now.open == 0).await?;
    }
    // A check that does not look as deep does not see it.
    assert_eq!(found(silent.address(), "type = 'tcp'").await?, (Code::L4ok, Finding::Ready));
    assert_eq!(found(slow.address(), "type = 'tls'").await?, (Code::L6ok, Finding::Ready));
    Ok(())
}

#[tokio::test]
async fn what_is_no_answer_is_told_from_none() -> Result<()> {
    let mail = Backend::start(IPV4, None, Speech::Words("220 mail.kplb.test ready\r\n")).await?;
    let secret_mail = Backend::start(IPV4, Some(any_tls()?), Speech::Words("220 mail.kplb.test ready\r\n")).await?;
    for (backend, kind, expected) in [
        (&mail, "tls", (Code::L6rsp, Finding::NotReady)),
        (&mail, "https", (Code::L6rsp, Finding::NotReady)),
        (&mail, "http", (Code::L7rsp, Finding::NotReady)),
        (&secret_mail, "https", (Code::L7rsp, Finding::NotReady)),
        (&secret_mail, "tls", (Code::L6ok, Finding::Ready)),
    ] {
        assert_eq!(found(backend.address(), &format!("type = '{kind}'")).await?, expected, "{kind}");
    }
    Ok(())
}

/// It is there, or there would be a timeout or a refusal: what it will say is for the next check to find out.
#[tokio::test]
async fn a_connection_that_is_closed_in_the_middle_is_no_answer() -> Result<()> {
    let silent = Backend::start(IPV4, None, Speech::Words("")).await?;
    let slow = https().await?;
    slow.set_answer(None);
    for (backend, kind, n_asked, code) in [
        (&silent, "tls", 0, Code::L6rsp),
        (&silent, "https", 0, Code::L6rsp),
        (&silent, "http", 0, Code::L7rsp),
        (&slow, "https", 1, Code::L7rsp),
    ] {
        let check = Probe::new(backend.address(), &patient(&format!("type = '{kind}'"))?)?.check();
        let running = tokio::spawn(check.run(|| ()));
        backend.until("the check is there", |now| now.open == 1).await?;
        backend.until_asked(n_asked).await?;
        backend.close_connections();
        let (outcome, canary) = running.await?;
        assert_eq!((outcome.code, outcome.finding), (code, Finding::NotReady), "{kind}: {outcome}");
        assert_ne!(outcome.words, "", "{kind}");
        assert!(canary.is_none(), "{kind}");
    }
    Ok(())
}

/// A server that answers what it was not asked encrypted, and one that was asked in plain text for a secret.
#[tokio::test]
async fn the_wrong_layer_is_not_ready() -> Result<()> {
    let plain = Backend::start(IPV4, None, Speech::Http).await?;
    assert_eq!(found(plain.address(), "type = 'https'").await?, (Code::L6rsp, Finding::NotReady));
    assert_eq!(found(https().await?.address(), "type = 'http'").await?, (Code::L7rsp, Finding::NotReady));
    Ok(())
}

#[tokio::test]
async fn the_status_says_whether_it_is_ready() -> Result<()> {
    let encrypted = https().await?;
    let plain = Backend::start(IPV4, None, Speech::Http).await?;
    for (kind, backend) in [("https", &encrypted), ("http", &plain)] {
        for (status, set, expected) in [
            (200, "200", (Code::L7ok, Finding::Ready)),
            (204, "200", (Code::L7sts, Finding::NotReady)),
            (500, "200", (Code::L7sts, Finding::NotReady)),
            (401, "200", (Code::L7sts, Finding::Unjudged)),
            (403, "200", (Code::L7sts, Finding::Unjudged)),
            (204, "200-299,401", (Code::L7ok, Finding::Ready)),
            (401, "200-299,401", (Code::L7ok, Finding::Ready)),
            (403, "200-299,401", (Code::L7sts, Finding::Unjudged)),
            (302, "200-299,401", (Code::L7sts, Finding::NotReady)),
        ] {
            backend.set_answer(Answer::new(status, ""));
            let found = found(backend.address(), &format!("type = '{kind}', expect = '{set}'")).await?;
            assert_eq!(found, expected, "{kind}: {status} of {set}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_not_ready_says_why() -> Result<()> {
    let backend = https().await?;
    backend.set_answer(Answer::new(500, "[+]ping ok\n[-]etcd failed: reason withheld\n"));
    let (outcome, _) = probe(backend.address(), "path = '/readyz'").await?;
    assert_eq!(outcome.words, "500 Internal Server Error: [-]etcd failed: reason withheld");
    Ok(())
}

#[tokio::test]
async fn the_question_is_the_one_that_is_configured() -> Result<()> {
    for address in [IPV4, IPV6] {
        let backend = Backend::start(address, None, Speech::Http).await?;
        found(backend.address(), "type = 'http'").await?;
        found(backend.address(), "type = 'http', path = '/livez?verbose', host = 'api.kplb.test:6443'").await?;
        let asked = |path: &str, host: String| Asked { path: path.to_owned(), host: Some(host), authorization: None };
        // Unless said otherwise, it is that of an apiserver.
        let expected =
            [asked("/readyz", backend.address().to_string()), asked("/livez?verbose", "api.kplb.test:6443".to_owned())];
        assert_eq!(backend.asked(), expected);
    }
    Ok(())
}

#[tokio::test]
async fn another_port_may_be_checked() -> Result<()> {
    let backend = Backend::start(IPV4, None, Speech::Http).await?;
    let port = backend.address().port();
    let elsewhere = nobody(IPV4).await?;
    let found = found(elsewhere, &format!("type = 'http', port = {port}")).await?;
    assert_eq!(found, (Code::L7ok, Finding::Ready));
    assert_eq!(backend.asked()[0].host, Some(backend.address().to_string()));
    Ok(())
}

/// Replaces a file as those do who renew tokens: a reader finds the old one or the new one. Its time is set, since two
/// files of the same moment cannot be told apart.
fn replace(file: &Path, text: &str, modified: SystemTime) -> Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    fs::File::options().write(true).open(&new)?.set_modified(modified)?;
    fs::rename(&new, file)?;
    Ok(())
}

#[tokio::test]
async fn the_token_is_read_again_when_it_was_replaced() -> Result<()> {
    let files = Files::new()?;
    let file = files.path("token");
    let backend = https().await?;
    let second = |n| SystemTime::UNIX_EPOCH + Duration::from_secs(n);
    // What ends the line is not part of it.
    replace(&file, "first\n", second(1))?;
    let mut probe = Probe::new(backend.address(), &patient(&files.setting("token_file", "token"))?)?;
    let mut sent = async || -> Result<String> {
        let (outcome, _) = probe.check().run(|| ()).await;
        assert_eq!(outcome.code, Code::L7ok, "{outcome}");
        backend.asked().pop().and_then(|asked| asked.authorization).context("no token was sent")
    };
    assert_eq!(sent().await?, "Bearer first");
    assert_eq!(sent().await?, "Bearer first");
    replace(&file, "second", second(2))?;
    assert_eq!(sent().await?, "Bearer second");
    // An older file is another one as well.
    replace(&file, "third", second(1))?;
    assert_eq!(sent().await?, "Bearer third");
    // One that cannot be used is not the end of all checks.
    replace(&file, "two\nlines", second(3))?;
    assert_eq!(sent().await?, "Bearer third");
    fs::remove_file(&file)?;
    assert_eq!(sent().await?, "Bearer third");
    replace(&file, "fourth", second(4))?;
    assert_eq!(sent().await?, "Bearer fourth");
    Ok(())
}

#[tokio::test]
async fn an_idle_connection_says_when_the_backend_ends() -> Result<()> {
    for (kind, tls, speech) in [
        ("tls", Some(any_tls()?), Speech::Http),
        // One that speaks first is as alive as one that does not.
        ("tls", Some(any_tls()?), Speech::Words("220 mail.kplb.test ready\r\n")),
        ("http", None, Speech::Http),
        ("https", Some(any_tls()?), Speech::Http),
    ] {
        let backend = Backend::start(IPV4, tls, speech).await?;
        let (_, canary) = probe(backend.address(), &format!("type = '{kind}'")).await?;
        let mut canary = canary.context("an idle connection")?;
        assert!(stays_open(&mut canary).await, "{kind}");
        assert_eq!(backend.connections().open, 1, "{kind}");
        backend.end().await;
        assert!(is_closed_soon(&mut canary).await, "{kind}");
    }
    Ok(())
}

#[tokio::test]
async fn an_idle_connection_is_left_whatever_the_status_was() -> Result<()> {
    let backend = https().await?;
    for status in [200, 401, 500] {
        backend.set_answer(Answer::new(status, "text"));
        let (_, canary) = probe(backend.address(), "path = '/'").await?;
        let mut canary = canary.context("an idle connection")?;
        backend.close_connections();
        assert!(is_closed_soon(&mut canary).await, "{status}");
    }
    Ok(())
}

#[tokio::test]
async fn an_idle_connection_ends_with_its_owner() -> Result<()> {
    for kind in ["tls", "https"] {
        let backend = https().await?;
        let (_, canary) = probe(backend.address(), &format!("type = '{kind}'")).await?;
        assert_eq!(backend.connections().open, 1, "{kind}");
        drop(canary);
        backend.until("the connection is closed", |now| now.open == 0).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_says_farewell_leaves_nothing_idle() -> Result<()> {
    let backend = https().await?;
    backend.set_answer(Answer { afterwards: Afterwards::Closes, ..Answer::new(200, "ok") });
    let (outcome, canary) = probe(backend.address(), "path = '/'").await?;
    assert_eq!(outcome.code, Code::L7ok);
    if let Some(mut canary) = canary {
        assert!(is_closed_soon(&mut canary).await);
    }
    backend.until("the connection is closed", |now| now.open == 0).await
}

/// The status counts; what more there is is not waited for.
#[tokio::test]
async fn a_body_without_end_is_no_reason_to_wait() -> Result<()> {
    let backend = https().await?;
    backend.set_answer(Answer::new(200, &"x".repeat(1_000_000)));
    let (outcome, canary) = probe(backend.address(), "path = '/'").await?;
    assert_eq!((outcome.code, outcome.finding), (Code::L7ok, Finding::Ready));
    assert!(canary.is_none());
    backend.until("the connection is closed", |now| now.open == 0).await
}
