//! The measurement logs that others write: firmware, systemd, the kernel's IMA list.
//!
//! They are opened once, early, so that a daemon which gives up root can go on reading them, and read from where the
//! verifier asks. Nothing here believes or parses them: the verifier replays them to the quoted PCRs.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use proto::{
    digest::{Digest, HashAlg, PcrIndex},
    eventlog::EventLog,
    evidence::LogKind,
};

/// Where the kernel and systemd keep their measurement logs; `None` where a log is not to be sent.
#[derive(Clone, Debug)]
pub struct LogPaths {
    /// Firmware event log, binary.
    pub uefi: Option<PathBuf>,
    /// IMA list, binary form.
    pub ima: Option<PathBuf>,
    /// systemd's userspace measurements, JSON-SEQ.
    pub systemd: Option<PathBuf>,
}

impl Default for LogPaths {
    fn default() -> Self {
        Self {
            uefi: Some("/sys/kernel/security/tpm0/binary_bios_measurements".into()),
            ima: Some("/sys/kernel/security/ima/binary_runtime_measurements".into()),
            systemd: Some("/run/log/systemd/tpm2-measure.log".into()),
        }
    }
}

impl LogPaths {
    /// No log but the tool log.
    #[must_use]
    pub const fn none() -> Self {
        Self { uefi: None, ima: None, systemd: None }
    }

    /// Kind and path of each log that is to be sent, by kind.
    pub fn iter(&self) -> impl Iterator<Item = (LogKind, &Path)> {
        [(LogKind::Uefi, &self.uefi), (LogKind::Systemd, &self.systemd), (LogKind::Ima, &self.ima)]
            .into_iter()
            .filter_map(|(kind, path)| Some((kind, path.as_deref()?)))
    }
}

/// A log that is there and cannot be read, or not as far as it must be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventLogError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The log.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Longer than the verifier takes.
    #[error(
        "{}: more than {max} bytes after byte {from}; the verifier takes no more", path.display()
    )]
    TooLong {
        /// The log.
        path: PathBuf,
        /// From where it was read.
        from: u64,
        /// Largest size of such a log, bytes.
        max: usize,
    },
}

/// The logs of this boot, open.
#[derive(Debug)]
pub struct EventLogs(Vec<Source>);

#[derive(Debug)]
struct Source {
    kind: LogKind,
    path: PathBuf,
    file: Option<File>,
}

impl EventLogs {
    /// Opens what is there. What is not may appear later (systemd begins its log when it first measures).
    ///
    /// A log that is there and may not be read is said once, and attestation goes on without it: the verifier's
    /// golden set decides whether that is enough.
    #[must_use]
    pub fn open(paths: &LogPaths) -> Self {
        let mut logs = Self(
            paths
                .iter()
                .map(|(kind, path)| Source { kind, path: path.to_owned(), file: None })
                .collect(),
        );
        for source in &mut logs.0 {
            match source.reopen() {
                Ok(true) => {}
                Ok(false) => {
                    tracing::info!(log = ?source.kind, path = %source.path.display(), "not there");
                }
                Err(error) => {
                    tracing::warn!(log = ?source.kind, %error, "going on without this log");
                }
            }
        }
        logs
    }

    /// Kinds that can be sent.
    pub fn kinds(&mut self) -> Vec<LogKind> {
        self.0
            .iter_mut()
            .filter_map(|source| {
                let is_there = source.file.is_some() || matches!(source.reopen(), Ok(true));
                is_there.then_some(source.kind)
            })
            .collect()
    }

    /// What firmware left in a PCR, one value a bank: other logs go on from there.
    ///
    /// The reset value where there is no firmware log, where it has no event of the PCR, and where it cannot be replayed
    /// in the bank: what the PCR then holds shows whether that was right. Blocks.
    #[must_use]
    pub fn firmware_value(&mut self, pcr: PcrIndex, banks: &[HashAlg]) -> Vec<Digest> {
        let reset: Vec<Digest> = banks.iter().map(|bank| pcr.reset_value(*bank)).collect();
        let bytes = match self.read_from(LogKind::Uefi, 0) {
            Ok(bytes) if bytes.is_empty() => return reset,
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(%error, "going on without the firmware's log");
                return reset;
            }
        };
        let log = match EventLog::parse(&bytes) {
            Ok(log) => log,
            Err(error) => {
                tracing::warn!(%error, "the firmware's log does not decode");
                return reset;
            }
        };
        reset.into_iter().map(|start| replayed(&log, pcr, start).unwrap_or(start)).collect()
    }

    /// Everything from byte `from` on; nothing if this machine has no such log.
    ///
    /// Blocks. Read after the quote, so that it holds at least what the quote covers: the kernel and systemd write a
    /// log's entry and extend the PCR under one lock, in either order.
    ///
    /// # Errors
    /// [`EventLogError`]: a log that is longer than the verifier takes is not sent in part.
    pub fn read_from(&mut self, kind: LogKind, from: u64) -> Result<Vec<u8>, EventLogError> {
        let Some(source) = self.0.iter_mut().find(|source| source.kind == kind) else {
            return Ok(Vec::new());
        };
        if source.file.is_none() && !source.reopen()? {
            return Ok(Vec::new());
        }
        source.read_from(from)
    }
}

/// The value that a log leads a PCR to; `None` where an event has no digest of the bank.
fn replayed(log: &EventLog<'_>, pcr: PcrIndex, start: Digest) -> Option<Digest> {
    let bank = start.alg();
    log.events()
        .iter()
        .filter(|event| event.pcr == Some(pcr) && event.is_extended())
        .try_fold(start, |value, event| {
            Some(value.extended(&event.digest(bank.into())?.to_digest()?))
        })
}

impl Source {
    /// Whether the log is there.
    fn reopen(&mut self) -> Result<bool, EventLogError> {
        match File::open(&self.path) {
            Ok(file) => self.file = Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(EventLogError::Io { path: self.path.clone(), source }),
        }
        Ok(true)
    }

    fn read_from(&self, from: u64) -> Result<Vec<u8>, EventLogError> {
        let io = |source| EventLogError::Io { path: self.path.clone(), source };
        let Some(mut file) = self.file.as_ref() else { return Ok(Vec::new()) };
        let max = self.kind.max_bytes();
        let left = (max as u64).saturating_sub(from);
        // Files of securityfs say nothing of their size: the end is where reading ends.
        file.seek(SeekFrom::Start(from)).map_err(io)?;
        let mut bytes = Vec::new();
        file.take(left.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > left {
            return Err(EventLogError::TooLong { path: self.path.clone(), from, max });
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_log_is_read_from_where_it_is_asked_for_while_it_grows() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ima");
        let paths = LogPaths { ima: Some(path.clone()), ..LogPaths::none() };
        let mut logs = EventLogs::open(&paths);
        assert!(logs.kinds().is_empty());
        assert_eq!(logs.read_from(LogKind::Ima, 0).expect("absent"), b"");
        fs::write(&path, b"first").expect("written");
        assert_eq!(logs.kinds(), [LogKind::Ima]);
        assert_eq!(logs.read_from(LogKind::Ima, 0).expect("readable"), b"first");
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, b" second"))
            .expect("appended");
        assert_eq!(logs.read_from(LogKind::Ima, 5).expect("readable"), b" second");
        assert_eq!(logs.read_from(LogKind::Ima, 12).expect("readable"), b"");
        assert_eq!(logs.read_from(LogKind::Uefi, 0).expect("not configured"), b"");
    }

    #[test]
    fn a_log_that_the_verifier_would_refuse_is_not_sent_in_part() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("systemd");
        let max = LogKind::Systemd.max_bytes();
        fs::write(&path, vec![b'x'; max]).expect("written");
        let paths = LogPaths { systemd: Some(path.clone()), ..LogPaths::none() };
        let mut logs = EventLogs::open(&paths);
        assert_eq!(logs.read_from(LogKind::Systemd, 0).expect("just fits").len(), max);
        fs::write(&path, vec![b'x'; max + 1]).expect("written");
        let error = logs.read_from(LogKind::Systemd, 0).expect_err("too long");
        assert!(matches!(error, EventLogError::TooLong { from: 0, .. }), "{error}");
    }

    #[test]
    fn a_log_that_may_not_be_read_is_said_and_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        // A folder opens and does not read, for root too.
        let paths = LogPaths { uefi: Some(folder.path().to_owned()), ..LogPaths::none() };
        let mut logs = EventLogs::open(&paths);
        let error = logs.read_from(LogKind::Uefi, 0).expect_err("a folder");
        assert!(error.to_string().starts_with(&folder.path().display().to_string()), "{error}");
    }
}
