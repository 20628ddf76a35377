//! An issuer's keys as they were last loaded.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwapOption;
use jose::{
    Algorithm,
    jwk::{JwkError, JwkSet, KeyUse},
};

use crate::{config::Issuer, refusal::KeysMissing};

/// A document does not replace the keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// Not a key set.
    #[error("the document is not a key set")]
    Malformed(#[source] JwkError),
    /// No key that a token could be signed with.
    #[error(
        "the key set has no key with a `kid` for the algorithms allowed ({keys} keys, {skipped} \
         skipped)"
    )]
    NoUsableKey {
        /// Keys that were understood.
        keys: usize,
        /// Keys that were skipped.
        skipped: usize,
    },
}

impl KeysError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(error) => error.code(),
            Self::NoUsableKey { .. } => "PLATFORM_KEYS_EMPTY",
        }
    }
}

#[derive(Debug)]
struct Loaded {
    keys: JwkSet,
    loaded_unix_s: i64,
}

/// What the keys are, for metrics and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// Keys that are understood.
    pub keys: usize,
    /// When they were loaded last.
    pub loaded_unix_s: i64,
}

/// The keys of one issuer, exchanged while tokens are judged. A good set is replaced by a good set
/// only.
pub struct KeyCache {
    algorithms: Vec<Algorithm>,
    max_age_s: i64,
    loaded: ArcSwapOption<Loaded>,
}

impl KeyCache {
    /// No keys yet.
    #[must_use]
    pub fn new(issuer: &Issuer) -> Self {
        Self {
            algorithms: issuer.algorithms().to_vec(),
            max_age_s: i64::try_from(issuer.max_age().as_secs()).unwrap_or(i64::MAX),
            loaded: ArcSwapOption::empty(),
        }
    }

    /// Reads a key set and uses it from now on; the old keys stay if this fails.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn replace(&self, document: &[u8], now_unix_s: i64) -> Result<KeyState, KeysError> {
        let keys = JwkSet::parse(document).map_err(KeysError::Malformed)?;
        let is_usable = keys.keys().iter().any(|key| {
            key.id().is_some()
                && matches!(key.key_use(), None | Some(KeyUse::Signature))
                && self.algorithms.iter().any(|algorithm| key.allows(*algorithm))
        });
        if !is_usable {
            return Err(KeysError::NoUsableKey {
                keys: keys.keys().len(),
                skipped: keys.skipped(),
            });
        }
        let state = KeyState { keys: keys.keys().len(), loaded_unix_s: now_unix_s };
        self.loaded.store(Some(Arc::new(Loaded { keys, loaded_unix_s: now_unix_s })));
        Ok(state)
    }

    /// What is loaded.
    #[must_use]
    pub fn state(&self) -> Option<KeyState> {
        self.loaded.load().as_ref().map(|loaded| KeyState {
            keys: loaded.keys.keys().len(),
            loaded_unix_s: loaded.loaded_unix_s,
        })
    }

    /// Judges by the keys, unless there are none or they are too old.
    pub(crate) fn with_current<T>(
        &self,
        now_unix_s: i64,
        judge: impl FnOnce(&JwkSet) -> T,
    ) -> Result<T, KeysMissing> {
        let loaded = self.loaded.load();
        let loaded = loaded.as_ref().ok_or(KeysMissing::NeverLoaded)?;
        // Where the clock was put back since, they count as new.
        if now_unix_s.saturating_sub(loaded.loaded_unix_s) > self.max_age_s {
            return Err(KeysMissing::Stale { loaded_unix_s: loaded.loaded_unix_s });
        }
        Ok(judge(&loaded.keys))
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").field("state", &self.state()).finish_non_exhaustive()
    }
}
