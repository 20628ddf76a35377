//! Issuers of job tokens: which are believed, and their keys kept fresh beside the service.

use std::{path::Path, sync::Arc};

use platform::{
    Issuer, PlatformConfig, Platforms,
    refresh::{Now, refresh_once},
};
use serde::Deserialize;

use crate::{ca::files::read_text, clock::Clock, service::status::chain};

/// A file of issuers, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    platform: Vec<PlatformConfig>,
}

/// Why the issuers cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what}")]
pub struct PlatformsError {
    path: String,
    what: String,
}

/// Reads the issuers; without a file there are none, and no token is believed.
///
/// # Errors
/// [`PlatformsError`].
pub fn read(path: Option<&Path>) -> Result<Platforms, PlatformsError> {
    let Some(path) = path else { return Ok(Platforms::default()) };
    let fail = |what: String| PlatformsError { path: path.display().to_string(), what };
    let text = read_text(path).map_err(|error| fail(chain(&error)))?;
    let document: Document = toml::from_str(&text).map_err(|error| fail(error.to_string()))?;
    let issuers: Result<Vec<Issuer>, _> =
        document.platform.into_iter().map(Issuer::try_from).collect();
    issuers.and_then(Platforms::new).map_err(|error| fail(error.to_string()))
}

/// Loads every issuer's keys once, before the first job comes; what fails is loaded again later.
pub async fn load(platforms: &Platforms, clock: &Arc<dyn Clock>) {
    let now = now(clock);
    for platform in platforms.all() {
        if let Err(error) = refresh_once(platform, now.as_ref()).await {
            let issuer = platform.issuer().issuer();
            tracing::warn!(
                issuer,
                "no keys: its tokens are refused until they load: {}",
                chain(&error)
            );
        }
    }
}

/// The verifier's clock, as the refresher asks for it.
#[must_use]
pub fn now(clock: &Arc<dyn Clock>) -> Now {
    let clock = Arc::clone(clock);
    Arc::new(move || clock.now_unix_s())
}
