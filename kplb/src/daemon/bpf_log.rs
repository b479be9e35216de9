//! Passing on what the BPF programs log: rare diagnostics, off the fast path.

use tokio::io::{Interest, unix::AsyncFd};
use tracing::{debug, warn};

use crate::dataplane::Dataplane;

/// Passes on the programs' log for as long as the runtime runs. Where that is not possible they stay silent, and all
/// else goes on.
pub(super) fn follow(dataplane: &mut Dataplane) {
    let logger = match dataplane.logger() {
        Ok(logger) => logger,
        Err(error) => return debug!("the BPF programs log nothing: {error:#}"),
    };
    #[expect(deprecated, reason = "its successor is unsafe; the logger owns its descriptor and always gives the same")]
    let registered = AsyncFd::with_interest(logger, Interest::READABLE);
    let mut logger = match registered {
        Ok(logger) => logger,
        Err(error) => return warn!("the BPF programs' log cannot be watched: {error}"),
    };
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
}
