//! Where connections come in: whatever the kernel says, it neither spins nor ends, and says so once in a while.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    time::{Instant, sleep_until},
};

/// After the kernel refused to accept, usually for want of descriptors: long enough not to spin.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two words about it.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// A listener that goes on.
pub(crate) struct Door {
    listener: UnixListener,
    path: PathBuf,
    /// No attempt before this: kept here, so that a wait that is given up is not forgotten.
    paused_until: Option<Instant>,
    said: Option<Instant>,
}

impl Door {
    pub(crate) fn new(listener: UnixListener, path: &Path) -> Self {
        Self { listener, path: path.to_owned(), paused_until: None, said: None }
    }

    /// The next connection. May be given up at any time.
    pub(crate) async fn next(&mut self) -> UnixStream {
        loop {
            if let Some(until) = self.paused_until {
                sleep_until(until).await;
                self.paused_until = None;
            }
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => self.refused(&error),
            }
        }
    }

    fn refused(&mut self, error: &io::Error) {
        let now = Instant::now();
        self.paused_until = Some(now + PAUSE);
        if self.said.is_none_or(|said| now - said >= SAY_EVERY) {
            self.said = Some(now);
            tracing::warn!(
                socket = %self.path.display(),
                %error,
                "cannot accept connections: they wait, and the next attempt is made in {} ms; not said again for {} s",
                PAUSE.as_millis(),
                SAY_EVERY.as_secs()
            );
        }
    }
}
