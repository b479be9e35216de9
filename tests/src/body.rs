//! HTTP bodies of the stand-in and its client.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use sha2::{Digest as _, Sha256};
use tokio::time::Interval;

use crate::pattern::{Pattern, hex};

/// Any body.
pub(crate) type AnyBody = BoxBody<Bytes, Infallible>;

/// A body that is at hand.
pub(crate) fn text(text: impl Into<Bytes>) -> AnyBody {
    Full::new(text.into()).boxed()
}

/// The first `n` bytes of the pattern.
pub(crate) fn pattern(n: u64) -> AnyBody {
    PatternBody(Pattern::new(n)).boxed()
}

/// One line at each tick, without end.
pub(crate) fn lines(interval: Interval, line: impl FnMut(u64) -> String + Send + Sync + Unpin + 'static) -> AnyBody {
    Lines { interval, n_sent: 0, line }.boxed()
}

/// Reads a body to its end: its length and its SHA-256 in hexadecimal.
pub(crate) async fn sha256<B: Body<Data = Bytes> + Unpin>(mut body: B) -> Result<(u64, String), B::Error> {
    let mut hash = Sha256::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            hash.update(&data);
            length += data.len() as u64;
        }
    }
    Ok((length, hex(&hash.finalize())))
}

struct PatternBody(Pattern);

impl Body for PatternBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.left())
    }
}

struct Lines<F> {
    interval: Interval,
    n_sent: u64,
    line: F,
}

impl<F: FnMut(u64) -> String + Unpin> Body for Lines<F> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.interval.poll_tick(context).map(|_| {
            let n_sent = self.n_sent;
            self.n_sent += 1;
            Some(Ok(Frame::data(format!("{}\n", (self.line)(n_sent)).into())))
        })
    }
}
