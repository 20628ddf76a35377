//! The keys, and when each goes from one state to the next.

use std::{mem, time::Duration};

use jose::{
    Algorithm, PublicKey,
    jwk::{Jwk, KeyUse, Malformed},
    sign::{Es256Key, SignError},
};

use super::{JwtKeyError, REFRESH_HINT_S};
use crate::jobs::JWT_LIFETIME;

/// A minute of difference between clocks.
const CLOCKS: Duration = Duration::from_secs(60);
/// How long a key is published after it signed last: as long as a token lives, and, for who looks at the bundle with another
/// clock, as long as it takes to look again.
pub const KEPT: Duration =
    Duration::from_secs(JWT_LIFETIME.as_secs() + REFRESH_HINT_S + CLOCKS.as_secs());
/// Keys that were: one, since the next is published for longer than this one is kept; more after the clock was changed.
pub(super) const MAX_FORMER: usize = 3;

/// What a key is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPhase {
    /// It waits for the verifier to publish it.
    Unpublished,
    /// In the bundle; it does not sign yet.
    Published {
        /// When it will, unix seconds.
        signs_from_unix_s: i64,
    },
    /// It signs.
    Signing {
        /// Since when, unix seconds; `None` for a key of before this was recorded.
        since_unix_s: Option<i64>,
    },
    /// It signs no more; in the bundle for tokens that live.
    Former {
        /// Until when, unix seconds.
        ends_unix_s: i64,
    },
}

/// A key without its private half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedKey {
    /// Name (`kid`): its thumbprint (RFC 7638).
    pub id: String,
    /// What it is at.
    pub phase: KeyPhase,
}

/// A key that signs or is going to.
#[derive(Debug)]
pub(super) struct Private {
    pub(super) key: Es256Key,
    public: Jwk,
}

impl Private {
    pub(super) fn new(key: Es256Key) -> Result<Self, SignError> {
        let public = key.jwk(KeyUse::JwtSvid)?;
        Ok(Self { key, public })
    }

    fn generate() -> Result<Self, SignError> {
        Self::new(Es256Key::generate()?)
    }

    fn id(&self) -> &str {
        id(&self.public)
    }
}

/// Its public half, where no private one is needed any more.
pub(super) fn public(key: PublicKey) -> Result<Jwk, Malformed> {
    let id = key.thumbprint();
    Jwk::new(key).with_use(KeyUse::JwtSvid).with_id(&id)?.with_algorithm(Algorithm::Es256)
}

/// Every key here was given its thumbprint as name.
fn id(key: &Jwk) -> &str {
    key.id().unwrap_or_default()
}

#[derive(Debug)]
pub(super) struct Signing {
    pub(super) key: Private,
    pub(super) since_unix_s: Option<i64>,
}

#[derive(Debug)]
pub(super) struct Next {
    pub(super) key: Private,
    /// `None`: not published.
    pub(super) signs_from_unix_s: Option<i64>,
}

#[derive(Clone, Debug)]
pub(super) struct Former {
    pub(super) public: Jwk,
    pub(super) ends_unix_s: i64,
}

/// All keys of a verifier.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) signing: Signing,
    pub(super) next: Option<Next>,
    pub(super) former: Vec<Former>,
}

impl Keys {
    /// One new key, which signs at once.
    pub(super) fn first(now_unix_s: i64) -> Result<Self, JwtKeyError> {
        let signing = Signing { key: Private::generate()?, since_unix_s: Some(now_unix_s) };
        Ok(Self { signing, next: None, former: Vec::new() })
    }

    /// Adds the key that comes next; its name.
    pub(super) fn add(&mut self) -> Result<String, JwtKeyError> {
        if let Some(Next { key, signs_from_unix_s }) = &self.next {
            let (id, signs_from_unix_s) = (key.id().to_owned(), *signs_from_unix_s);
            return Err(JwtKeyError::UnderWay { id, signs_from_unix_s });
        }
        let key = Private::generate()?;
        let id = key.id().to_owned();
        self.next = Some(Next { key, signs_from_unix_s: None });
        Ok(id)
    }

    pub(super) fn signer(&self) -> &Es256Key {
        &self.signing.key.key
    }

    pub(super) fn signing_id(&self) -> &str {
        self.signing.key.id()
    }

    /// Name of the key that is published and does not sign yet, and from when it will.
    pub(super) fn published_next(&self) -> Option<(&str, i64)> {
        let next = self.next.as_ref()?;
        Some((next.key.id(), next.signs_from_unix_s?))
    }

    /// What relying parties verify with, the key that signs first.
    pub(super) fn published(&self, now_unix_s: i64) -> Vec<Jwk> {
        let next = self.next.iter().filter(|next| next.signs_from_unix_s.is_some());
        let former = self.former.iter().filter(|former| now_unix_s < former.ends_unix_s);
        let mut keys = vec![self.signing.key.public.clone()];
        keys.extend(next.map(|next| next.key.public.clone()));
        keys.extend(former.map(|former| former.public.clone()));
        keys
    }

    /// Whether [`Self::advance`] would move a key.
    pub(super) fn is_due(&self, now_unix_s: i64) -> bool {
        self.published_next().is_some_and(|(_, from)| from <= now_unix_s)
            || self.former.iter().any(|former| former.ends_unix_s <= now_unix_s)
    }

    /// Name of a key that should sign by now, and when the first former key makes room for it.
    pub(super) fn waits_for_room(&self, now_unix_s: i64) -> Option<(&str, i64)> {
        let (id, from) = self.published_next()?;
        let room_from = self.former.iter().map(|former| former.ends_unix_s).min()?;
        (from <= now_unix_s && self.former.len() >= MAX_FORMER).then_some((id, room_from))
    }

    /// Moves every key on for which it is time; says whether one was moved.
    ///
    /// `served` is the key that this process serves and that does not sign yet, and from when it will: another one, whatever
    /// was recorded of it, is published from now on.
    pub(super) fn advance(
        &mut self,
        served: Option<(&str, i64)>,
        lead: Duration,
        now_unix_s: i64,
    ) -> bool {
        let mut moved = false;
        if let Some(next) = &mut self.next {
            let from = match served {
                Some((id, from)) if id == next.key.id() => from,
                _ => later(now_unix_s, lead),
            };
            moved = next.signs_from_unix_s.replace(from) != Some(from);
        }
        let before = self.former.len();
        self.former.retain(|former| now_unix_s < former.ends_unix_s);
        moved |= self.former.len() != before;
        let is_due = self.published_next().is_some_and(|(_, from)| from <= now_unix_s);
        // No key leaves before its time to make room for another.
        if is_due
            && self.former.len() < MAX_FORMER
            && let Some(next) = self.next.take()
        {
            let signing = Signing { key: next.key, since_unix_s: Some(now_unix_s) };
            let Signing { key, .. } = mem::replace(&mut self.signing, signing);
            let ends_unix_s = later(now_unix_s, KEPT);
            self.former.push(Former { public: key.public, ends_unix_s });
            moved = true;
        }
        moved
    }

    /// Each key with what it is at.
    pub(super) fn list(&self) -> Vec<ListedKey> {
        let phase = KeyPhase::Signing { since_unix_s: self.signing.since_unix_s };
        let mut listed = vec![ListedKey { id: self.signing_id().to_owned(), phase }];
        listed.extend(self.next.iter().map(|next| ListedKey {
            id: next.key.id().to_owned(),
            phase: match next.signs_from_unix_s {
                None => KeyPhase::Unpublished,
                Some(signs_from_unix_s) => KeyPhase::Published { signs_from_unix_s },
            },
        }));
        listed.extend(self.former.iter().map(|former| ListedKey {
            id: id(&former.public).to_owned(),
            phase: KeyPhase::Former { ends_unix_s: former.ends_unix_s },
        }));
        listed
    }

    /// Logs what is in force now and was not before.
    pub(super) fn tell_what_changed_since(&self, before: &Self) {
        let (was, is) = (before.list(), self.list());
        for key in is.iter().filter(|key| !was.contains(key)) {
            let id = &key.id;
            match key.phase {
                KeyPhase::Unpublished => {}
                KeyPhase::Published { signs_from_unix_s } => {
                    tracing::info!(id, signs_from_unix_s, "a new key of JWT-SVIDs is published");
                }
                KeyPhase::Signing { .. } => {
                    tracing::info!(id, "JWT-SVIDs are signed with another key")
                }
                KeyPhase::Former { ends_unix_s } => {
                    tracing::info!(
                        id,
                        ends_unix_s,
                        "the former key of JWT-SVIDs stays in the bundle"
                    );
                }
            }
        }
        for key in was.iter().filter(|key| !is.iter().any(|kept| kept.id == key.id)) {
            tracing::info!(id = key.id, "a former key of JWT-SVIDs has left the bundle");
        }
    }
}

fn later(now_unix_s: i64, by: Duration) -> i64 {
    now_unix_s.saturating_add(i64::try_from(by.as_secs()).unwrap_or(i64::MAX))
}
