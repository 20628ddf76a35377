//! What the worker leaves for others: certificate chain, trust bundle, node key, status; each written atomically.
//!
//! | file | mode | content |
//! |---|---|---|
//! | `node.pem` | 0644 | certificate chain, leaf first |
//! | `bundle.pem` | 0644 | roots that the verifier's certificates chain to |
//! | `node-key.pem` | 0600 | node key, `TSS2 PRIVATE KEY`: usable in this TPM and boot only |
//! | `status.json` | 0644 | last outcome, for `attestor status` |

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use der::pem::LineEnding;
use proto::pb;
use serde::{Deserialize, Serialize};

use crate::trust::Learned;

/// Certificate chain.
pub const CERTIFICATE_FILE: &str = "node.pem";
/// Trust bundle.
pub const BUNDLE_FILE: &str = "bundle.pem";
/// Node key.
pub const KEY_FILE: &str = "node-key.pem";
/// Status.
pub const STATUS_FILE: &str = "status.json";
/// How late a report may be before the daemon counts as dead or hung. When it is time, a job's permit may be under way, and
/// the renewal comes after it: each connects, waits for a challenge and waits for a verdict, 250 s at the deadlines of
/// [`client`](crate::client). The rest is for measuring tools on a machine that builds. Every failure is a report of its own,
/// with the time of the next attempt.
pub const GRACE: Duration = Duration::from_secs(600);

/// A file could not be written; what was there before is still there.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub struct OutputError {
    /// What was tried.
    pub doing: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// One reason of a denial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Stable code.
    pub code: String,
    /// What it is about.
    pub subject: String,
    /// What was seen.
    pub observed: String,
    /// What to do.
    pub remedy: String,
}

impl From<&pb::Finding> for Reason {
    fn from(finding: &pb::Finding) -> Self {
        let pb::Finding { code, subject, observed, remedy, .. } = finding.clone();
        Self { code, subject, observed, remedy }
    }
}

/// Where the worker stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `starting`, `admitted`, `denied` or `failed`.
    pub outcome: String,
    /// When, seconds since 1970.
    pub at_unix_s: u64,
    /// SPIFFE ID, if admitted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub spiffe_id: String,
    /// Identifier of the decision at the verifier.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub decision_id: String,
    /// When the worker comes again, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_unix_s: Option<u64>,
    /// Reasons of a denial.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// On a denial: what the verifier has staged, and not yet in force, that accepts this state.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub accepted_by_staged: String,
    /// Why there was no verdict.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl Status {
    /// Of a daemon that has no outcome yet: whatever stood there is of a former run.
    #[must_use]
    pub fn starting(now_unix_s: u64) -> Self {
        Self {
            outcome: "starting".to_owned(),
            at_unix_s: now_unix_s,
            spiffe_id: String::new(),
            decision_id: String::new(),
            next_unix_s: Some(now_unix_s),
            reasons: Vec::new(),
            accepted_by_staged: String::new(),
            error: String::new(),
        }
    }

    /// Whether the daemon should have reported since, by [`GRACE`] and a clock of the same machine. One report that names no
    /// next one stands: `attestor once` promises none.
    #[must_use]
    pub fn is_stale(&self, now_unix_s: u64) -> bool {
        let is_past = |unix_s: u64, now: u64| now > unix_s.saturating_add(GRACE.as_secs());
        // A report from the future tells that the clock was set, and not how old it is.
        self.next_unix_s.is_some_and(|next| is_past(next, now_unix_s))
            || is_past(now_unix_s, self.at_unix_s)
    }
}

/// The output folder.
#[derive(Clone, Debug)]
pub struct Output {
    folder: PathBuf,
}

impl Output {
    /// Opens the folder, made with mode 0755 if it is absent.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn open(folder: &Path) -> Result<Self, OutputError> {
        fs::create_dir_all(folder).map_err(failed("create the folder", folder))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Path of one file.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes certificate, bundle and key; the certificate last, so that whoever sees it finds its key.
    ///
    /// # Errors
    /// [`OutputError`]; each file is the old or the new one, never a mixture.
    pub fn credentials(
        &self,
        chain: &[Vec<u8>],
        bundle: &[Vec<u8>],
        node_key_pem: &str,
    ) -> Result<(), OutputError> {
        replace(&self.path(KEY_FILE), node_key_pem.as_bytes(), 0o600)?;
        replace(&self.path(BUNDLE_FILE), pem(bundle).as_bytes(), 0o644)?;
        replace(&self.path(CERTIFICATE_FILE), pem(chain).as_bytes(), 0o644)
    }

    /// Takes certificate and key away: a denied worker has no identity.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn withdraw(&self) -> Result<(), OutputError> {
        for name in [CERTIFICATE_FILE, KEY_FILE] {
            let path = self.path(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes the status.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn status(&self, status: &Status) -> Result<(), OutputError> {
        let text = serde_json::to_vec_pretty(status).unwrap_or_default();
        replace(&self.path(STATUS_FILE), &text, 0o644)
    }

    /// Reads the status; `None` if the worker has not run yet.
    ///
    /// # Errors
    /// [`OutputError`], also for a file that is not a status.
    pub fn read_status(&self) -> Result<Option<Status>, OutputError> {
        let path = self.path(STATUS_FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| failed("read", &path)(io::Error::other(error))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }
}

/// Keeps what was learned for the next start.
///
/// # Errors
/// [`OutputError`].
pub fn write_bundle(path: &Path, bundle: &Learned) -> Result<(), OutputError> {
    let text = bundle.to_text();
    // Every admission brings it, and seldom another one: nothing waits for a disk that builds keep busy.
    if fs::read(path).is_ok_and(|kept| kept == text.as_bytes()) {
        return Ok(());
    }
    replace(path, text.as_bytes(), 0o644)
}

/// Reads what was learned; empty if there is nothing.
///
/// # Errors
/// [`OutputError`].
pub fn read_bundle(path: &Path) -> Result<Learned, OutputError> {
    match fs::read_to_string(path) {
        Ok(text) => {
            Learned::parse(&text).map_err(|why| failed("read", path)(io::Error::other(why)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Learned::default()),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn pem(ders: &[Vec<u8>]) -> String {
    ders.iter()
        .filter_map(|der| der::pem::encode_string("CERTIFICATE", LineEnding::LF, der).ok())
        .collect()
}

/// New file beside, synced, renamed over: readers see the old content or the new.
fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), OutputError> {
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| {
            // Whatever the umask says.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        });
    written.map_err(|source| {
        let _ = fs::remove_file(&temporary);
        failed("write", path)(source)
    })
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OutputError {
    let path = path.to_owned();
    move |source| OutputError { doing, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{CERTIFICATE_FILE, GRACE, KEY_FILE, Output, Status, read_bundle, write_bundle};
    use crate::{client::DEADLINES, trust::Learned};

    #[test]
    fn credentials_have_their_modes_and_can_be_withdrawn() {
        let folder = tempfile::tempdir().expect("folder");
        let output = Output::open(folder.path()).expect("open");
        output.credentials(&[vec![0x30, 0]], &[vec![0x30, 0]], "key").expect("write");
        output.credentials(&[vec![0x30, 0]], &[vec![0x30, 0]], "key").expect("write again");
        let mode = |name| output.path(name).metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(KEY_FILE), mode(CERTIFICATE_FILE)), (0o600, 0o644));
        output.withdraw().expect("withdraw");
        assert!(!output.path(CERTIFICATE_FILE).exists() && !output.path(KEY_FILE).exists());
        output.withdraw().expect("twice is fine");
    }

    #[test]
    fn a_report_stands_until_the_next_one_is_late_beyond_reason() {
        let grace = GRACE.as_secs();
        let admitted = |next_unix_s| Status {
            outcome: "admitted".to_owned(),
            next_unix_s,
            ..Status::starting(100_000)
        };
        let of_a_daemon = admitted(Some(101_800));
        assert!(!of_a_daemon.is_stale(101_800 + grace));
        assert!(of_a_daemon.is_stale(101_801 + grace));
        assert!(!of_a_daemon.is_stale(100_000 - grace), "a clock that was set back a little");
        assert!(of_a_daemon.is_stale(99_999 - grace));
        assert!(!admitted(None).is_stale(u64::MAX), "`attestor once` comes once");
        assert!(
            Status::starting(100_000).is_stale(100_001 + grace),
            "it hangs in its first attestation"
        );
        assert!(!admitted(Some(u64::MAX)).is_stale(200_000));
        // A permit of a job, and then the renewal.
        let conversation = DEADLINES.connect + 2 * DEADLINES.call;
        assert!(GRACE > 2 * conversation);
    }

    #[test]
    fn a_bundle_that_is_kept_already_is_not_written_again() {
        use std::os::unix::fs::MetadataExt as _;

        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("bundle.pem");
        let inode = || path.metadata().expect("there").ino();
        let bundle = Learned::default();
        write_bundle(&path, &bundle).expect("write");
        let first = inode();
        write_bundle(&path, &bundle).expect("nothing to write");
        assert_eq!(inode(), first);
        std::fs::write(&path, "of another time").expect("write");
        write_bundle(&path, &bundle).expect("write");
        assert_eq!(read_bundle(&path).expect("read"), bundle);
    }
}
