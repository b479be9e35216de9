//! Who the backend is, and who asks: certificates on either side.

use std::{fs, time::SystemTime};

use kplb_tests::backend::Handshake;

use super::*;

const NAME: &str = "backend.kplb.test";

#[tokio::test]
async fn without_an_authority_whoever_answers_is_believed() -> Result<()> {
    for address in [IPV4, IPV6] {
        let backend = Backend::start(address, Some(any_tls()?), Speech::Http).await?;
        assert_eq!(found(backend.address(), "type = 'tls'").await?, (Code::L6ok, Finding::Ready));
        assert_eq!(found(backend.address(), "type = 'https'").await?, (Code::L7ok, Finding::Ready));
        let other_name = "type = 'https', server_name = 'other.kplb.test'";
        assert_eq!(found(backend.address(), other_name).await?, (Code::L7ok, Finding::Ready));
    }
    Ok(())
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken() -> Result<()> {
    let files = Files::new()?;
    let authority = Authority::new("kplb test")?;
    authority.write(&files.path("ca.pem"))?;
    for versions in [Versions::All, Versions::Tls12] {
        let backend =
            Backend::start(IPV4, Some(authority.issue(&["127.0.0.1"])?.server(versions, None)?), Speech::Http).await?;
        for settings in ["type = 'https'", &format!("type = 'https', {}", files.setting("ca_file", "ca.pem"))] {
            let found = found(backend.address(), settings).await?;
            assert_eq!(found, (Code::L7ok, Finding::Ready), "{versions:?}: {settings}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_name_is_asked_for() -> Result<()> {
    let backend = https().await?;
    for settings in ["type = 'tls'", "type = 'https'"] {
        found(backend.address(), settings).await?;
        found(backend.address(), &format!("{settings}, server_name = '{NAME}'")).await?;
    }
    // An address is no name to ask for (RFC 6066, section 3), and a protocol is agreed on where one is spoken.
    let http = Some("http/1.1".to_owned());
    let expected =
        [(None, None), (Some(NAME), None), (None, http.clone()), (Some(NAME), http)].map(|(server_name, protocol)| {
            Handshake { server_name: server_name.map(str::to_owned), protocol, n_client_certificates: 0 }
        });
    backend.until("four connections are over", |now| now.accepted == 4 && now.open == 0).await?;
    assert_eq!(backend.handshakes(), expected);
    Ok(())
}

#[tokio::test]
async fn an_authority_vouches_for_the_backend() -> Result<()> {
    let files = Files::new()?;
    let (right, wrong) = (Authority::new("right")?, Authority::new("wrong")?);
    right.write(&files.path("right.pem"))?;
    wrong.write(&files.path("wrong.pem"))?;
    let tls = right.issue(&[NAME, "127.0.0.1"])?.server(Versions::All, None)?;
    let backend = Backend::start(IPV4, Some(tls), Speech::Http).await?;
    let (believed, refused) = ((Code::L7ok, Finding::Ready), (Code::L6rsp, Finding::NotReady));
    for (file, name, expected) in [
        // Unless said otherwise, it is the address that is verified.
        ("right.pem", None, believed),
        ("right.pem", Some(NAME), believed),
        ("right.pem", Some("127.0.0.1"), believed),
        ("right.pem", Some("other.kplb.test"), refused),
        ("right.pem", Some("127.0.0.2"), refused),
        ("wrong.pem", None, refused),
        ("wrong.pem", Some(NAME), refused),
    ] {
        let name = name.map(|name| format!(", server_name = '{name}'")).unwrap_or_default();
        let settings = format!("{}{name}", files.setting("ca_file", file));
        let (outcome, canary) = probe(backend.address(), &settings).await?;
        assert_eq!((outcome.code, outcome.finding), expected, "{settings}: {outcome}");
        if expected == refused {
            assert!(outcome.words.contains("certificate"), "{settings}: {outcome}");
            assert!(canary.is_none(), "{settings}");
        }
    }
    // None of those who were refused was asked anything.
    assert_eq!(backend.asked().len(), 3);
    Ok(())
}

#[tokio::test]
async fn an_authority_that_was_replaced_is_read_again() -> Result<()> {
    let files = Files::new()?;
    let (right, wrong) = (Authority::new("right")?, Authority::new("wrong")?);
    let file = files.path("ca.pem");
    let set_time = |n| -> Result<()> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(n);
        Ok(fs::File::options().write(true).open(&file)?.set_modified(time)?)
    };
    let tls = right.issue(&["127.0.0.1"])?.server(Versions::All, None)?;
    let backend = Backend::start(IPV4, Some(tls), Speech::Http).await?;

    wrong.write(&file)?;
    set_time(1)?;
    let mut probe = Probe::new(backend.address(), &patient(&files.setting("ca_file", "ca.pem"))?)?;
    let mut found = async || probe.check().run(|| ()).await.0.code;
    assert_eq!(found().await, Code::L6rsp);
    right.write(&file)?;
    set_time(2)?;
    assert_eq!(found().await, Code::L7ok);
    // One that cannot be used is not the end of all checks.
    fs::write(&file, "garbage")?;
    set_time(3)?;
    assert_eq!(found().await, Code::L7ok);
    fs::remove_file(&file)?;
    assert_eq!(found().await, Code::L7ok);
    wrong.write(&file)?;
    set_time(4)?;
    assert_eq!(found().await, Code::L6rsp);
    Ok(())
}

#[tokio::test]
async fn a_backend_may_ask_who_asks() -> Result<()> {
    let files = Files::new()?;
    let authority = Authority::new("kplb test")?;
    let client = authority.issue(&["client.kplb.test"])?;
    client.write_certificate(&files.path("client.pem"))?;
    client.write_key(&files.path("key.pem"))?;
    let stranger = Authority::new("elsewhere")?.issue(&["client.kplb.test"])?;
    stranger.write_certificate(&files.path("stranger.pem"))?;
    stranger.write_key(&files.path("stranger-key.pem"))?;
    let proof = |certificate, key| {
        let settings = ("client_certificate_file", "client_key_file");
        format!("type = 'https', {}, {}", files.setting(settings.0, certificate), files.setting(settings.1, key))
    };
    for versions in [Versions::All, Versions::Tls12] {
        let tls = authority.issue(&[NAME])?.server(versions, Some(&authority))?;
        let backend = Backend::start(IPV4, Some(tls), Speech::Http).await?;

        let (outcome, _) = probe(backend.address(), &proof("client.pem", "key.pem")).await?;
        assert_eq!((outcome.code, outcome.finding), (Code::L7ok, Finding::Ready), "{versions:?}: {outcome}");
        assert_eq!(backend.handshakes().len(), 1);
        assert_eq!(backend.handshakes()[0].n_client_certificates, 1);

        for settings in ["type = 'https'", &proof("stranger.pem", "stranger-key.pem")] {
            let (outcome, canary) = probe(backend.address(), settings).await?;
            assert_eq!(outcome.finding, Finding::NotReady, "{versions:?}, {settings}: {outcome}");
            // TLS 1.3 lets a client speak before it is told (RFC 8446, section 4.4.2.4).
            let code = if versions == Versions::Tls12 { Code::L6rsp } else { Code::L7rsp };
            assert_eq!(outcome.code, code, "{versions:?}, {settings}: {outcome}");
            assert!(outcome.words.contains("fatal alert"), "{versions:?}, {settings}: {outcome}");
            assert!(canary.is_none());
        }
        assert_eq!((backend.handshakes().len(), backend.asked().len()), (1, 1), "{versions:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named() -> Result<()> {
    let files = Files::new()?;
    let client = Authority::new("kplb test")?.issue(&["client.kplb.test"])?;
    client.write_certificate(&files.path("client.pem"))?;
    client.write_key(&files.path("key.pem"))?;
    Authority::new("kplb test")?.issue(&["client.kplb.test"])?.write_key(&files.path("other-key.pem"))?;
    fs::write(files.path("garbage"), "garbage")?;
    fs::write(files.path("broken.pem"), "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")?;
    fs::write(files.path("no-certificate.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")?;
    fs::write(files.path("lines"), "two\nlines")?;
    let pair = |certificate, key| {
        let (certificate_key, key_key) = ("client_certificate_file", "client_key_file");
        format!("{}, {}", files.setting(certificate_key, certificate), files.setting(key_key, key))
    };
    let cases = [
        (files.setting("ca_file", "absent"), "absent"),
        (files.setting("ca_file", "garbage"), "garbage"),
        (files.setting("ca_file", "broken.pem"), "broken.pem"),
        (files.setting("ca_file", "no-certificate.pem"), "no-certificate.pem"),
        (files.setting("ca_file", "key.pem"), "key.pem"),
        (pair("absent", "key.pem"), "absent"),
        (pair("garbage", "key.pem"), "garbage"),
        (pair("client.pem", "absent"), "absent"),
        (pair("client.pem", "garbage"), "garbage"),
        (pair("client.pem", "client.pem"), "client.pem"),
        // The key is another's.
        (pair("client.pem", "other-key.pem"), "client.pem"),
        (files.setting("token_file", "absent"), "absent"),
        (files.setting("token_file", "lines"), "lines"),
    ];
    for (settings, name) in cases {
        let error = Probe::new((IPV4, 1).into(), &check(&settings)?).err().context(settings.clone())?;
        let (error, path) = (format!("{error:#}"), files.path(name).display().to_string());
        assert!(error.contains(&path), "{settings}: {error}");
    }
    Ok(())
}
