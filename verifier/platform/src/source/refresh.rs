//! Keeps keys fresh in the background: nothing that judges a token waits for it, or makes it work.

use std::{fmt, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::{
    config::KeySource,
    keys::{KeyState, KeysError},
    platforms::{Platform, Platforms},
    source::{
        file::{self, FileError},
        https::{self, FetchError},
    },
};

/// How often a file is looked at: an operator who replaces keys waits no longer.
pub const FILE_POLL: Duration = Duration::from_secs(10);
/// First wait after a failed load; it doubles with every further one, up to the issuer's refresh.
pub const FIRST_RETRY: Duration = Duration::from_secs(30);

/// The time, seconds since 1970.
pub type Now = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Keys were not loaded; those that were there stay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// The file cannot be read.
    #[error("the key set's file cannot be used")]
    File(#[source] FileError),
    /// The document cannot be fetched.
    #[error("the key set cannot be fetched")]
    Fetch(#[source] FetchError),
    /// The document does not replace the keys.
    #[error("the key set cannot be used")]
    Keys(#[source] KeysError),
    /// The reading task was ended.
    #[error("reading was ended")]
    Ended,
}

impl RefreshError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File(_) | Self::Ended => "PLATFORM_FETCH_FILE_UNUSABLE",
            Self::Fetch(error) => error.code(),
            Self::Keys(error) => error.code(),
        }
    }
}

/// Loads a platform's keys once, from wherever they come.
///
/// # Errors
/// [`RefreshError`]; the keys that were there stay, and age.
pub async fn refresh_once(
    platform: &Platform,
    now: &(dyn Fn() -> i64 + Send + Sync),
) -> Result<KeyState, RefreshError> {
    let document = match platform.issuer().key_source() {
        KeySource::File(path) => {
            let path = path.clone();
            tokio::task::spawn_blocking(move || file::read(&path))
                .await
                .map_err(|_| RefreshError::Ended)?
                .map_err(RefreshError::File)?
        }
        KeySource::Https { url, ca_file } => {
            https::fetch(url, ca_file.as_deref()).await.map_err(RefreshError::Fetch)?
        }
    };
    platform.keys().replace(&document, now()).map_err(RefreshError::Keys)
}

/// Loads the keys of all platforms again and again, until it is dropped.
#[must_use = "keys are loaded for as long as this value lives"]
pub struct Refresher(JoinSet<()>);

impl Refresher {
    /// Begins: one task for each platform, the first load at once.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(platforms: &Platforms, now: &Now) -> Self {
        let mut tasks = JoinSet::new();
        for platform in platforms.all() {
            tasks.spawn(keep_fresh(platform.clone(), Arc::clone(now)));
        }
        Self(tasks)
    }
}

impl fmt::Debug for Refresher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresher").field("tasks", &self.0.len()).finish()
    }
}

async fn keep_fresh(platform: Platform, now: Now) {
    let mut failures = 0_u32;
    loop {
        let loaded = refresh_once(&platform, &*now).await;
        let wait = next(platform.issuer().key_source(), platform.issuer().refresh(), failures);
        let issuer = platform.issuer().issuer();
        match loaded {
            Ok(state) => {
                if failures != 0
                    || matches!(platform.issuer().key_source(), KeySource::Https { .. })
                {
                    tracing::info!(issuer, keys = state.keys, "keys of a platform were loaded");
                }
                failures = 0;
                tokio::time::sleep(wait.loaded).await;
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                let code = error.code();
                let error = chain(&error);
                tracing::warn!(issuer, code, error, "keys of a platform were not loaded");
                tokio::time::sleep(wait.failed).await;
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waits {
    loaded: Duration,
    failed: Duration,
}

/// How long to wait after a load that went well, or did not, after `failures` others.
fn next(source: &KeySource, refresh: Duration, failures: u32) -> Waits {
    match source {
        KeySource::File(_) => Waits { loaded: FILE_POLL, failed: FILE_POLL },
        KeySource::Https { .. } => {
            let doubled = 2_u32.checked_pow(failures).unwrap_or(u32::MAX);
            let failed = FIRST_RETRY.saturating_mul(doubled).min(refresh);
            Waits { loaded: refresh, failed }
        }
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        out.push_str(": ");
        out.push_str(&source.to_string());
        next = source.source();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_failures_up_to_the_refresh() {
        let url = "https://keys.example/k".parse().expect("a URL");
        let https = KeySource::Https { url, ca_file: None };
        let hour = Duration::from_secs(3600);
        let seconds = |failures| next(&https, hour, failures).failed.as_secs();
        assert_eq!([0, 1, 2, 6].map(seconds), [30, 60, 120, 1920]);
        assert_eq!([7, 31, 32, u32::MAX].map(seconds), [3600; 4]);
        assert_eq!(next(&https, hour, 3).loaded, hour);
        let file = KeySource::File("/k".into());
        let waits = next(&file, hour, 9);
        assert_eq!(waits, Waits { loaded: FILE_POLL, failed: FILE_POLL });
    }
}
