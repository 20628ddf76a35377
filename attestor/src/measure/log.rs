//! The tool log on the worker's disk, and its agreement with the TPM's PCR.
//!
//! # Order
//! An event is written and synced *before* its digests are extended. A crash therefore leaves the
//! log ahead of the PCR, never behind it, and what is missing in the PCR can be extended later.
//! `Shutdown` of the machine ends the log: a PCR lives for one boot, and so does its log.
//!
//! # Healing
//! [`ToolLog::compare`] says how log and PCR stand to each other, [`ToolLog::reconcile`] heals what
//! is sound to heal:
//!
//! | PCR holds | meaning | what is done |
//! |---|---|---|
//! | the replay of the whole log | in sync | nothing |
//! | the replay of a proper, non-empty prefix | a crash before the extend | the missing events are extended |
//! | the start value, and the log has events | another boot, or a crash before the first extend | the log is archived, a new one begins |
//! | anything else | somebody else extended it, or the log was lost or edited | nothing; the log stays readable |
//!
//! Bytes behind the last whole event (a torn write) are cut off only once the PCR proves that they
//! were never extended.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use proto::{
    digest::{Digest, HashAlg, PcrIndex},
    limits::MAX_TOOL_LOG_BYTES,
    tool_log::{
        ToolLogError, ToolLogReader, ToolLogState, ToolMeasurement, ToolState, encode_event,
    },
};
use rustix::fs::{FlockOperation, flock};

use super::Measured;

const LOG: &str = "tool.log";
const LOCK: &str = "tool.log.lock";
/// Logs of earlier boots that are kept: `tool.log.1` is the youngest.
const ARCHIVED: usize = 5;

/// How the log and the PCR stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogState {
    /// The PCR is what the whole log replays to.
    InSync,
    /// The last `events` events have not been extended.
    AheadBy {
        /// How many.
        events: u64,
    },
    /// The PCR is at its start value and the log is not empty: it belongs to an earlier boot, or
    /// nothing of it was ever extended.
    NewBoot,
    /// The PCR is none of the log's values: it was extended by somebody else, or the log lost
    /// events.
    Foreign,
}

/// Why the tool log cannot be used as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The state of some tool is unknown.
    #[error("nothing is recorded: {0}")]
    Blocked(String),
    /// Another process has the log.
    #[error("tool log {}: in use by another process", .0.display())]
    Busy(PathBuf),
    /// The TPM refused.
    #[error("tool log: extending PCR {pcr}: {error}")]
    Extend {
        /// The PCR.
        pcr: PcrIndex,
        /// The caller's error.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The PCR has a value that the log cannot explain.
    #[error(
        "TOOL_LOG_REPLAY_MISMATCH: PCR {pcr} has a value that the tool log does not explain: \
         something else extended it or the log lost events; the log was left as it is, and only a \
         reboot gives the PCR a known value again"
    )]
    Foreign {
        /// The PCR.
        pcr: PcrIndex,
    },
    /// The log of this boot has no room left.
    #[error("tool log: the limits of one boot's log are reached ({0}); reboot to begin a new one")]
    Full(ToolLogError),
    /// Reading or writing failed; nothing was extended.
    #[error("tool log {}: {what}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's error.
        error: io::Error,
    },
    /// [`ToolLog::reconcile`] has not been called since the log was opened or an extend failed.
    #[error("tool log: has not been compared with the PCR yet")]
    NotReconciled,
}

/// The tool log of the running boot.
#[derive(Debug)]
pub struct ToolLog {
    directory: PathBuf,
    path: PathBuf,
    file: File,
    _lock: File,
    start: ToolLogState,
    /// Whole, accepted events of the file.
    state: ToolLogState,
    /// Bytes behind them.
    torn_bytes: u64,
    /// Why the first of those bytes is not an event.
    damage: Option<ToolLogError>,
    reconciled: bool,
}

impl ToolLog {
    /// Opens the log in a directory, which must exist, and locks it against other processes.
    ///
    /// `start_values`: what the PCR holds before the first tool event, one a bank: its reset
    /// values, or what the firmware's log replays to. They decide which banks are extended.
    ///
    /// # Errors
    /// [`LogError::Busy`] or [`LogError::Io`]. A damaged log is opened: the PCR decides about it.
    pub fn open(
        directory: &Path,
        pcr: PcrIndex,
        start_values: &[Digest],
    ) -> Result<Self, LogError> {
        let lock_path = directory.join(LOCK);
        let lock = open_file(&lock_path)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
            if errno == rustix::io::Errno::WOULDBLOCK {
                LogError::Busy(lock_path.clone())
            } else {
                failed(&lock_path, "lock", errno.into())
            }
        })?;
        let path = directory.join(LOG);
        let file = open_file(&path)?;
        let start = ToolLogState::new(pcr, start_values);
        let mut log = Self {
            directory: directory.to_owned(),
            path,
            file,
            _lock: lock,
            state: start.clone(),
            start,
            torn_bytes: 0,
            damage: None,
            reconciled: false,
        };
        log.load()?;
        Ok(log)
    }

    /// Everything that the log says, replayed.
    #[must_use]
    pub const fn state(&self) -> &ToolLogState {
        &self.state
    }

    /// Head of the log, as a quote binds it.
    #[must_use]
    pub const fn head(&self) -> Digest {
        self.state.head
    }

    /// Why the file has bytes behind its last whole event, if it has.
    #[must_use]
    pub const fn damage(&self) -> Option<&ToolLogError> {
        self.damage.as_ref()
    }

    /// Whole events from a byte offset on, as sent to the verifier.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn read_from(&self, offset: u64) -> Result<Vec<u8>, LogError> {
        let len = self.state.bytes.saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|error| failed(&self.path, "read", error))?;
        Ok(bytes)
    }

    /// How the log and the PCR's values stand to each other; nothing is changed.
    ///
    /// `pcr_values`: what the TPM says now, one a bank, in any order; banks that the log does not
    /// extend are not looked at, a missing bank counts as foreign.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn compare(&self, pcr_values: &[Digest]) -> Result<LogState, LogError> {
        let holds =
            |state: &ToolLogState| state.pcr_values.iter().all(|value| pcr_values.contains(value));
        let whole = self.state.events;
        if holds(&self.state) {
            return Ok(LogState::InSync);
        }
        if holds(&self.start) {
            return Ok(LogState::NewBoot);
        }
        let mut prefix = self.start.pcr_values.clone();
        let bytes = self.read_from(0)?;
        for (event, done) in ToolLogReader::new(&bytes).flatten().zip(1_u64..) {
            for (value, digest) in prefix.iter_mut().zip(&event.digests) {
                *value = value.extended(digest);
            }
            if prefix.iter().all(|value| pcr_values.contains(value)) {
                return Ok(LogState::AheadBy { events: whole.saturating_sub(done) });
            }
        }
        Ok(LogState::Foreign)
    }

    /// Brings log and PCR together where that is sound; says how they stood before.
    ///
    /// # Errors
    /// [`LogError::Foreign`] if the log does not explain the PCR, [`LogError::Extend`] from
    /// `extend`, [`LogError::Io`]. After an error the log is as it was, or further along the way to
    /// agreement.
    pub fn reconcile<E>(
        &mut self,
        pcr_values: &[Digest],
        mut extend: impl FnMut(&[Digest]) -> Result<(), E>,
    ) -> Result<LogState, LogError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let state = self.compare(pcr_values)?;
        match state {
            LogState::Foreign => return Err(LogError::Foreign { pcr: self.state.pcr }),
            LogState::InSync => self.cut_torn_bytes()?,
            LogState::AheadBy { events } => {
                self.cut_torn_bytes()?;
                let bytes = self.read_from(0)?;
                let done = self.state.events.saturating_sub(events);
                let skip = usize::try_from(done).unwrap_or(usize::MAX);
                for event in ToolLogReader::new(&bytes).flatten().skip(skip) {
                    extend(&event.digests).map_err(|error| self.extend_failed(error))?;
                }
            }
            LogState::NewBoot => self.archive()?,
        }
        self.reconciled = true;
        Ok(state)
    }

    /// What has to be recorded: tools that are not as the log's latest event of them says, and, as
    /// absent, tools that the log calls present and that are no longer declared.
    ///
    /// # Errors
    /// [`LogError::Blocked`] if the state of a tool is unknown.
    pub fn changed_events(&self, measured: &Measured) -> Result<Vec<ToolMeasurement>, LogError> {
        if let Some(problem) = measured.blocking().next() {
            return Err(LogError::Blocked(problem.to_string()));
        }
        let mut changed: Vec<ToolMeasurement> = measured
            .tools
            .iter()
            .filter(|tool| {
                self.state.latest.get(tool.name()).is_none_or(|latest| {
                    (latest.state, latest.digest) != (tool.state(), tool.digest())
                        || latest.version.as_deref() != tool.version()
                        || latest.package.as_deref() != tool.package()
                })
            })
            .cloned()
            .collect();
        for (name, latest) in &self.state.latest {
            if latest.state == ToolState::Present
                && !measured.tools.iter().any(|tool| tool.name() == name)
            {
                let absent = ToolMeasurement::absent(name.clone())
                    .map_err(|error| LogError::Blocked(error.to_string()))?;
                changed.push(absent);
            }
        }
        Ok(changed)
    }

    /// Records measurements: writes and syncs all of them, then extends them one by one.
    ///
    /// # Errors
    /// [`LogError::Io`] or [`LogError::Full`]: nothing was recorded or extended.
    /// [`LogError::Extend`]: everything is in the log, and [`ToolLog::reconcile`] extends the rest.
    /// [`LogError::NotReconciled`].
    pub fn record<E>(
        &mut self,
        measurements: &[ToolMeasurement],
        mut extend: impl FnMut(&[Digest]) -> Result<(), E>,
    ) -> Result<(), LogError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if !self.reconciled {
            return Err(LogError::NotReconciled);
        }
        if measurements.is_empty() {
            return Ok(());
        }
        let banks: Vec<HashAlg> = self.state.banks().collect();
        let suffix: Vec<u8> = (self.state.events..)
            .zip(measurements)
            .flat_map(|(number, tool)| encode_event(number, self.state.pcr, &banks, tool))
            .collect();
        let mut next = self.state.clone();
        next.apply(&suffix).map_err(LogError::Full)?;
        self.append(&suffix)?;
        self.state = next;
        for event in ToolLogReader::new(&suffix).flatten() {
            extend(&event.digests).map_err(|error| self.extend_failed(error))?;
        }
        Ok(())
    }

    fn append(&mut self, suffix: &[u8]) -> Result<(), LogError> {
        let end = self.state.bytes;
        let written = self
            .file
            .seek(SeekFrom::Start(end))
            .and_then(|_| self.file.write_all(suffix))
            .and_then(|()| self.file.sync_data());
        let Err(error) = written else { return Ok(()) };
        // Whatever was written has not been extended: take it back. If that fails too, it is cut
        // off at the next comparison with the PCR.
        if self.file.set_len(end).and_then(|()| self.file.sync_data()).is_err() {
            self.reconciled = false;
            self.torn_bytes = self.file_len().unwrap_or(end).saturating_sub(end);
        }
        Err(failed(&self.path, "append", error))
    }

    fn extend_failed<E>(&mut self, error: E) -> LogError
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.reconciled = false;
        LogError::Extend { pcr: self.state.pcr, error: error.into() }
    }

    fn file_len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    /// Replays the file as far as it makes sense.
    fn load(&mut self) -> Result<(), LogError> {
        let len = self.file_len().map_err(|error| failed(&self.path, "read", error))?;
        let bounded = len.min(u64::try_from(MAX_TOOL_LOG_BYTES).unwrap_or(u64::MAX));
        let mut bytes = vec![0; usize::try_from(bounded).unwrap_or(0)];
        self.file
            .read_exact_at(&mut bytes, 0)
            .map_err(|error| failed(&self.path, "read", error))?;
        self.state = self.start.clone();
        let mut reader = ToolLogReader::new(&bytes);
        let mut from = 0;
        while let Some(event) = reader.next() {
            let to = reader.offset();
            let applied = match event {
                Ok(_) => self.state.apply(bytes.get(from..to).unwrap_or_default()).map(|_| ()),
                Err(error) => Err(error),
            };
            if let Err(error) = applied {
                self.damage = Some(error);
                break;
            }
            from = to;
        }
        self.torn_bytes = len.saturating_sub(self.state.bytes);
        Ok(())
    }

    fn cut_torn_bytes(&mut self) -> Result<(), LogError> {
        if self.torn_bytes > 0 {
            self.file
                .set_len(self.state.bytes)
                .and_then(|()| self.file.sync_all())
                .map_err(|error| failed(&self.path, "cut off an unfinished event", error))?;
            self.torn_bytes = 0;
            self.damage = None;
        }
        Ok(())
    }

    /// Moves the log of another boot aside and begins an empty one.
    fn archive(&mut self) -> Result<(), LogError> {
        let archived = |number: usize| self.directory.join(format!("{LOG}.{number}"));
        for number in (1..ARCHIVED).rev() {
            rename_if_there(&archived(number), &archived(number + 1))?;
        }
        rename_if_there(&self.path, &archived(1))?;
        self.file = open_file(&self.path)?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| failed(&self.directory, "sync", error))?;
        self.state = self.start.clone();
        self.torn_bytes = 0;
        self.damage = None;
        Ok(())
    }
}

/// Opens or creates a file that only its owner can read or write.
fn open_file(path: &Path) -> Result<File, LogError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(|error| failed(path, "open", error))
}

fn rename_if_there(from: &Path, to: &Path) -> Result<(), LogError> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(from, "archive", error)),
        _ => Ok(()),
    }
}

fn failed(path: &Path, what: &'static str, error: io::Error) -> LogError {
    LogError::Io { path: path.to_owned(), what, error }
}
