//! The keys' file: one line a key, exchanged as a whole.
//!
//! # Format
//! ```text
//! signing PKCS8 [UNIX_S]     the key that signs, and since when
//! next PKCS8 [UNIX_S]        the key that comes, and from when it signs; without a time it is not published
//! former SPKI UNIX_S         a key that signed, and when it leaves the bundle
//! ```
//! Structures are DER in hexadecimal. A line of one word is the key that signs: all there was before keys were rotated.

use std::{
    fs::File,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use jose::{PublicKey, sign::Es256Key};
use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use super::{
    JwtKeyError,
    keys::{Former, Keys, MAX_FORMER, Next, Private, Signing, public},
};
use crate::ca::files::{self, FileError, MODE_SECRET};

/// The keys' file under the state directory, for whoever runs the verifier alone.
pub const JWT_KEY_FILE: &str = "jwt.key";
/// Longest wait for who changes the keys: it writes a kilobyte.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// The file of one state directory.
#[derive(Clone, Debug)]
pub(super) struct KeyFile {
    state: PathBuf,
    path: PathBuf,
}

/// The file while nobody else changes it.
#[derive(Debug)]
pub(super) struct LockedKeyFile<'f> {
    file: &'f KeyFile,
    folder: File,
}

impl Drop for LockedKeyFile<'_> {
    /// By word, not by closing: a process that is being started holds copies of our descriptors for a while.
    fn drop(&mut self) {
        let _ = flock(&self.folder, FlockOperation::Unlock);
    }
}

impl KeyFile {
    pub(super) fn new(state: &Path) -> Self {
        Self { state: state.to_owned(), path: state.join(JWT_KEY_FILE) }
    }

    /// Keeps others from changing the file, the running verifier and commands beside it: what one has read must not be
    /// replaced before it writes. The lock is on the directory, since the file is exchanged.
    pub(super) fn lock(&self) -> Result<LockedKeyFile<'_>, JwtKeyError> {
        let failed = |source| FileError::Io { doing: "lock", path: self.state.clone(), source };
        let folder = File::open(&self.state).map_err(failed)?;
        let mut waited = Duration::ZERO;
        loop {
            match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(LockedKeyFile { file: self, folder }),
                Err(rustix::io::Errno::WOULDBLOCK) if waited < PATIENCE => {
                    thread::sleep(PAUSE);
                    waited = waited.saturating_add(PAUSE);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(JwtKeyError::Busy { path: self.path.clone(), waited });
                }
                Err(error) => return Err(failed(error.into()).into()),
            }
        }
    }

    /// The keys, as the last who changed them left them.
    pub(super) fn read(&self) -> Result<Keys, JwtKeyError> {
        let text = match files::read_secret(&self.path) {
            Err(error) if error.is_absent() => {
                return Err(JwtKeyError::Absent { path: self.path.clone() });
            }
            other => other?,
        };
        parse(&text).map_err(|(line, what)| JwtKeyError::Content {
            path: self.path.clone(),
            line,
            what,
        })
    }
}

impl LockedKeyFile<'_> {
    pub(super) fn read(&self) -> Result<Keys, JwtKeyError> {
        self.file.read()
    }

    pub(super) fn write(&self, keys: &Keys) -> Result<(), JwtKeyError> {
        Ok(files::replace(&self.file.path, render(keys)?.as_bytes(), MODE_SECRET)?)
    }
}

fn render(keys: &Keys) -> Result<Zeroizing<String>, JwtKeyError> {
    // Sized from the start, so that growing leaves no copy of a key behind.
    let mut text = Zeroizing::new(String::with_capacity(4096));
    let mut line = |word: &str, der: &[u8], unix_s: Option<i64>| {
        let digits = Zeroizing::new(hex::encode(der));
        for part in [word, " ", &digits] {
            text.push_str(part);
        }
        if let Some(unix_s) = unix_s {
            text.push_str(&format!(" {unix_s}"));
        }
        text.push('\n');
    };
    line("signing", &keys.signing.key.key.to_pkcs8_der()?, keys.signing.since_unix_s);
    if let Some(next) = &keys.next {
        line("next", &next.key.key.to_pkcs8_der()?, next.signs_from_unix_s);
    }
    for former in &keys.former {
        line("former", &former.public.key().to_spki_der(), Some(former.ends_unix_s));
    }
    Ok(text)
}

/// What is wrong with a file, and in which line.
type Problem = (usize, &'static str);

fn parse(text: &str) -> Result<Keys, Problem> {
    let (mut signing, mut next, mut former) = (None, None, Vec::new());
    for (line, content) in (1..).zip(text.lines()) {
        let wrong = |what| (line, what);
        let words: Vec<&str> = content.split(' ').collect();
        let (word, der, time) = match words[..] {
            [der] => ("signing", der, None),
            [word, der] => (word, der, None),
            [word, der, time] => {
                let unix_s = time.parse::<i64>().ok().filter(|unix_s| *unix_s >= 0);
                (
                    word,
                    der,
                    Some(unix_s.ok_or(wrong("its time is no number of seconds since 1970"))?),
                )
            }
            _ => return Err(wrong("has more than a word, a key and a time")),
        };
        match (word, time) {
            ("signing", since_unix_s) if signing.is_none() => {
                let key = private(der).map_err(wrong)?;
                signing = Some(Signing { key, since_unix_s });
            }
            ("next", signs_from_unix_s) if next.is_none() => {
                let key = private(der).map_err(wrong)?;
                next = Some(Next { key, signs_from_unix_s });
            }
            ("former", Some(ends_unix_s)) if former.len() < MAX_FORMER => {
                former.push(Former { public: public_half(der).map_err(wrong)?, ends_unix_s });
            }
            ("former", None) => return Err(wrong("says of a former key not when it ends")),
            ("signing" | "next" | "former", _) => {
                return Err(wrong("is one key too many of its kind"));
            }
            _ => return Err(wrong("begins with none of signing, next, former")),
        }
    }
    let signing = signing.ok_or((0, "has no key that signs"))?;
    let keys = Keys { signing, next, former };
    let mut ids: Vec<String> = keys.list().into_iter().map(|key| key.id).collect();
    let listed = ids.len();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != listed {
        return Err((0, "has the same key twice"));
    }
    Ok(keys)
}

const NO_KEY: &str = "has no key on P-256 where one must be";

fn private(digits: &str) -> Result<Private, &'static str> {
    let der = Zeroizing::new(hex::decode(digits).map_err(|_| NO_KEY)?);
    Es256Key::from_pkcs8_der(&der).and_then(Private::new).map_err(|_| NO_KEY)
}

fn public_half(digits: &str) -> Result<jose::jwk::Jwk, &'static str> {
    let der = hex::decode(digits).map_err(|_| NO_KEY)?;
    let key = PublicKey::from_spki_der(&der).map_err(|_| NO_KEY)?;
    public(key).map_err(|_| NO_KEY)
}
