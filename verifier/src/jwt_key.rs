//! The keys of JWT-SVIDs, and the bundle of the trust domain.
//!
//! ```text
//! `verifier ca rotate-jwt-key` ─▶ unpublished ─the service reloads─▶ published ─lead─▶ signing
//!                                                                  the one before ─▶ former, public half only ─KEPT─▶ gone
//! ```
//! A key is in the bundle before it signs, long enough for everybody to have fetched it, and after it signed, until every
//! token of it has ended. The command only adds a key; that it is published, and since when, the service says, because
//! only the service knows that it is served. A key that is known to others is exchanged at once, without any of this.
//!
//! All keys stand in one file, so that each step is one rename: whoever is killed leaves the state of before or of after.

mod file;
mod keys;

#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use jose::{
    jwk::JwkSet,
    sign::SignError,
    spiffe_bundle::Bundle,
    svid::{self, SvidClaims, SvidError},
};

pub use self::{
    file::JWT_KEY_FILE,
    keys::{KEPT, KeyPhase, ListedKey},
};
use self::{file::KeyFile, keys::Keys};
use crate::{ca::files::FileError, clock::Clock};

/// How often those who trust this trust domain look for new keys, seconds.
pub(crate) const REFRESH_HINT_S: u64 = 300;
/// Shortest time between publishing a key and signing with it: two refreshes by the hint, the minute for which a cache may
/// keep the bundle's page, and room for one refresh that fails.
const MIN_LEAD: Duration = Duration::from_secs(900);

/// How long a key is published before it signs. Workers' jobs learn of it when the worker asks, every `check_every`.
#[must_use]
pub fn lead(check_every: Duration) -> Duration {
    MIN_LEAD.max(check_every.saturating_mul(2))
}

/// The keys cannot be made, read or exchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwtKeyError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file's content.
    #[error(
        "{}, line {line}: {what}; put a backup of the file in its place, or move it away: the next start makes a new key, and \
         tokens of before do not verify any more", path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// Line, from 1; 0 for the file as a whole.
        line: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// A key could not be made or used.
    #[error("no key could be made")]
    Key(#[from] SignError),
    /// Another process changes the keys and does not come to an end.
    #[error("{}: another process has been changing the keys for {} s", path.display(), waited.as_secs())]
    Busy {
        /// The file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// No key was made yet.
    #[error("{}: there is no key yet; the verifier's first start makes one", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// A rotation is under way.
    #[error(
        "a rotation is under way: the key {id} {}", match signs_from_unix_s {
            Some(at) => format!("is published and signs from unix second {at}"),
            None => "waits for a reload of the verifier, which publishes it".to_owned(),
        }
    )]
    UnderWay {
        /// The key that comes.
        id: String,
        /// From when it signs; `None`: it is not published.
        signs_from_unix_s: Option<i64>,
    },
    /// The next key cannot sign yet.
    #[error(
        "the key {id} signs when a former key leaves the bundle, at unix second {room_from_unix_s}: the clock was set back, \
         and as many former keys as may be are kept"
    )]
    NoRoom {
        /// The key that waits.
        id: String,
        /// When the first of those leaves.
        room_from_unix_s: i64,
    },
    /// The reading task ended.
    #[error("the task that reads the keys ended")]
    Task,
}

/// The keys in force: one signs, those that came before and come next are published with it.
#[derive(Debug)]
pub struct JwtKeys {
    file: KeyFile,
    clock: Arc<dyn Clock>,
    lead: Duration,
    in_force: ArcSwap<Keys>,
}

impl JwtKeys {
    /// The keys in the state directory; a new one where there is none.
    ///
    /// Nobody could fetch the bundle while no verifier ran: a key that does not sign yet is published anew, for the whole
    /// of `lead`.
    ///
    /// # Errors
    /// [`JwtKeyError`].
    pub fn open(state: &Path, clock: Arc<dyn Clock>, lead: Duration) -> Result<Self, JwtKeyError> {
        let file = KeyFile::new(state);
        let locked = file.lock()?;
        let now_unix_s = clock.now_unix_s();
        let mut keys = match locked.read() {
            Err(JwtKeyError::Absent { .. }) => {
                let first = Keys::first(now_unix_s)?;
                locked.write(&first)?;
                first
            }
            other => other?,
        };
        if keys.advance(None, lead, now_unix_s) {
            locked.write(&keys)?;
        }
        drop(locked);
        Ok(Self { file, clock, lead, in_force: ArcSwap::from_pointee(keys) })
    }

    /// Puts in force what the file holds, moves every key on for which it is time, and records that.
    ///
    /// # Errors
    /// [`JwtKeyError`]; what was in force stays.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<(), JwtKeyError> {
        let keys = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || keys.take_over()).await;
        done.map_err(|_| JwtKeyError::Task)?
    }

    /// [`Self::reload`], where something is to be done.
    ///
    /// # Errors
    /// [`JwtKeyError::NoRoom`] where it was time for a key that has to wait; as [`Self::reload`].
    pub(crate) async fn move_on(self: &Arc<Self>) -> Result<(), JwtKeyError> {
        if self.in_force.load().is_due(self.clock.now_unix_s()) {
            self.reload().await?;
        }
        match self.in_force.load().waits_for_room(self.clock.now_unix_s()) {
            Some((id, room_from_unix_s)) => {
                Err(JwtKeyError::NoRoom { id: id.to_owned(), room_from_unix_s })
            }
            None => Ok(()),
        }
    }

    /// The file is changed before what is in force: a key that signs is recorded as one by then.
    fn take_over(&self) -> Result<(), JwtKeyError> {
        let locked = self.file.lock()?;
        let mut keys = locked.read()?;
        let before = self.in_force.load();
        if keys.advance(before.published_next(), self.lead, self.clock.now_unix_s()) {
            locked.write(&keys)?;
        }
        keys.tell_what_changed_since(&before);
        self.in_force.store(Arc::new(keys));
        Ok(())
    }

    /// A signed JWT-SVID.
    ///
    /// # Errors
    /// [`SvidError`].
    pub fn mint(&self, claims: &SvidClaims) -> Result<String, SvidError> {
        svid::mint(self.in_force.load().signer(), claims)
    }

    /// JWK set (RFC 7517) of the keys that JWT-SVIDs verify with.
    #[must_use]
    pub fn jwk_set(&self) -> Vec<u8> {
        let keys = self.in_force.load().published(self.clock.now_unix_s());
        // They are few and their names differ: the file was refused else.
        JwkSet::new(keys).map(|set| set.to_json().into_bytes()).unwrap_or_default()
    }

    /// The trust domain's bundle document with these roots (SPIFFE Trust Domain and Bundle, 4).
    ///
    /// # Errors
    /// In words, for roots that are none.
    pub fn bundle(&self, roots: Vec<Vec<u8>>) -> Result<String, String> {
        let keys = self.in_force.load().published(self.clock.now_unix_s());
        let bundle = Bundle::new(roots, keys);
        let bundle = bundle.and_then(|bundle| bundle.with_refresh_hint_s(REFRESH_HINT_S));
        bundle.and_then(|bundle| bundle.to_json()).map_err(|error| error.to_string())
    }
}

/// What a rotation began: names (`kid`) of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRotation {
    /// The key that signs until then.
    pub former: String,
    /// The key that was made.
    pub current: String,
}

/// Adds a key, for a verifier to publish and, when everybody can have it, to sign with.
///
/// With `at_once` the new key is the only one: it signs, and no other is published any more, as soon as the verifier has
/// reloaded.
///
/// # Errors
/// [`JwtKeyError`].
pub fn rotate(state: &Path, now_unix_s: i64, at_once: bool) -> Result<JwtRotation, JwtKeyError> {
    let file = KeyFile::new(state);
    let locked = file.lock()?;
    let mut keys = locked.read()?;
    let former = keys.signing_id().to_owned();
    let current = match at_once {
        true => {
            keys = Keys::first(now_unix_s)?;
            keys.signing_id().to_owned()
        }
        false => keys.add()?,
    };
    locked.write(&keys)?;
    Ok(JwtRotation { former, current })
}

/// The keys in the state directory: the one that signs, the one that comes, former ones; none where none was made yet.
///
/// # Errors
/// [`JwtKeyError`].
pub fn list(state: &Path) -> Result<Vec<ListedKey>, JwtKeyError> {
    match KeyFile::new(state).read() {
        Err(JwtKeyError::Absent { .. }) => Ok(Vec::new()),
        other => other.map(|keys| keys.list()),
    }
}
