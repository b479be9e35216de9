//! What failed, and what was wrong: a fault may cut off, delay or lose what is on its way, but never change it or give it to
//! another. Nothing explains what was wrong.

use std::{error::Error, io};

use crate::client::Wrong;

/// Whether an error says that something arrived that was never sent so: an answer that is complete and is not the one to
/// the question, bytes that are no answer at all, or records that TLS does not take, at either end.
pub fn is_wrong(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<Wrong>() || is_unreadable(cause) || is_of_tls(cause))
}

/// HTTP that cannot be read. A message that ends before its end is another error.
fn is_unreadable(cause: &(dyn Error + 'static)) -> bool {
    cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse)
}

/// TLS that is not right, or that the other end has found to be so. A connection that just ends is another error.
fn is_of_tls(cause: &(dyn Error + 'static)) -> bool {
    // An `io::Error` passes over what it is about when it is asked for its cause.
    let about = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    cause.is::<rustls::Error>() || about.is_some_and(|about| about.is::<rustls::Error>())
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};
    use http_body_util::{BodyExt as _, Empty};
    use hyper::{Request, body::Bytes, client::conn::http1};
    use hyper_util::rt::TokioIo;
    use rustls::AlertDescription;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What a client makes of an answer of these bytes, after which the connection ends.
    fn answer(bytes: &'static [u8]) -> anyhow::Result<Bytes> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (here, mut there) = tokio::io::duplex(4096);
            let (mut sender, driver) = http1::handshake(TokioIo::new(here)).await?;
            tokio::spawn(driver);
            let response = tokio::spawn(sender.send_request(Request::new(Empty::<Bytes>::new())));
            // An answer before the question would be another mistake.
            let _ = there.read(&mut [0; 4096]).await?;
            there.write_all(bytes).await?;
            there.shutdown().await?;
            Ok(response.await??.into_body().collect().await?.to_bytes())
        })
    }

    fn of_io(error: rustls::Error) -> anyhow::Error {
        io::Error::new(io::ErrorKind::InvalidData, error).into()
    }

    #[test]
    fn what_is_cut_off_is_not_wrong() -> anyhow::Result<()> {
        assert_eq!(answer(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc")?, "abc");
        for cut in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"[..],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
            b"HTTP/1.1 200 OK\r\nconte",
            b"",
        ] {
            let error = answer(cut).expect_err("it is cut off");
            assert!(!is_wrong(&error), "{error:?}");
        }
        assert!(!is_wrong(&anyhow!("nothing for 6 s")));
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::ConnectionRefused, io::ErrorKind::UnexpectedEof] {
            assert!(!is_wrong(&io::Error::from(kind).into()), "{kind}");
        }
        Ok(())
    }

    #[test]
    fn what_was_never_sent_so_is_wrong() {
        let error = answer(b"so much for that\r\n\r\n").expect_err("it is no HTTP");
        assert!(is_wrong(&error.context("download")));
        assert!(is_wrong(&of_io(rustls::Error::DecryptError)));
        assert!(is_wrong(
            &of_io(rustls::Error::AlertReceived(AlertDescription::BadRecordMac)).context("TLS handshake")
        ));
        assert!(is_wrong(&anyhow::Error::from(rustls::Error::DecryptError)));
        let error = Err::<(), _>(Wrong::new("3 bytes of 10")).context("download").expect_err("it is an error");
        assert!(is_wrong(&error.context("10 bytes")));
    }
}
