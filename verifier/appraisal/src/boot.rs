//! One boot of one node: what an activation proved, kept so that a renewal need not prove it again.

use std::sync::Arc;

use proto::{
    digest::Digest,
    reason::ReasonCode,
    tool_log::ToolLogState,
    tpm::{attest::ClockInfo, name::Name, public::Public},
};
use serde::{Deserialize, Serialize};

use crate::{
    ak::BoundAk, boot_log::ProvenBootLog, claims::EkClaims, ima::ImaState,
    node_key::CertifiedNodeKey, verdict::Denial,
};

/// One boot: (AK Name, resetCount, restartCount) with what was proven in it.
#[derive(Clone, Debug)]
pub struct Boot {
    pub(crate) ak: BoundAk,
    pub(crate) ek: EkClaims,
    pub(crate) endorsements: Digest,
    pub(crate) ek_valid_until_unix_s: Option<i64>,
    pub(crate) counters: Counters,
    pub(crate) firmware_version: u64,
    pub(crate) node_key: CertifiedNodeKey,
    pub(crate) tool_log: Arc<ToolLogState>,
    pub(crate) boot_log: BootLog,
    pub(crate) ima: Option<Arc<ImaState>>,
}

/// What is known of the logs of firmware and systemd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootLog {
    /// The worker sent none.
    #[default]
    Absent,
    /// It does not explain what was quoted, and no rule reads it: why not.
    Unread(ReasonCode),
    /// It leads to the quoted values.
    Proven(Arc<ProvenBootLog>),
}

impl BootLog {
    /// What it proves.
    #[must_use]
    pub const fn proven(&self) -> Option<&Arc<ProvenBootLog>> {
        match self {
            Self::Proven(log) => Some(log),
            Self::Absent | Self::Unread(_) => None,
        }
    }

    pub(crate) fn is_absent(&self) -> bool {
        *self == Self::Absent
    }
}

/// resetCount and restartCount, ordered as time orders them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// Resets since the TPM was cleared.
    pub reset_count: u32,
    /// Resumes and restarts since the last reset; returns to 0 at a reset.
    pub restart_count: u32,
}

impl From<ClockInfo> for Counters {
    fn from(clock: ClockInfo) -> Self {
        Self { reset_count: clock.reset_count, restart_count: clock.restart_count }
    }
}

impl std::fmt::Display for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "resetCount {}, restartCount {}", self.reset_count, self.restart_count)
    }
}

impl Boot {
    /// Name of the AK: the key of the record.
    #[must_use]
    pub const fn ak_name(&self) -> &Name {
        self.ak.ak().name()
    }

    /// The endorsement key.
    #[must_use]
    pub const fn ek(&self) -> &EkClaims {
        &self.ek
    }

    /// The counters that make this boot this boot.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// The node key.
    #[must_use]
    pub const fn node_key(&self) -> &Public {
        self.node_key.public()
    }

    /// The tool log so far.
    #[must_use]
    pub const fn tool_log(&self) -> &Arc<ToolLogState> {
        &self.tool_log
    }

    /// The logs of firmware and systemd.
    #[must_use]
    pub const fn boot_log(&self) -> &BootLog {
        &self.boot_log
    }

    /// The kernel's IMA list so far, if the golden set judged it.
    #[must_use]
    pub const fn ima(&self) -> Option<&Arc<ImaState>> {
        self.ima.as_ref()
    }

    /// As if the kernel's list had not been read yet: it has to be there from its first byte.
    #[must_use]
    pub fn without_ima(mut self) -> Self {
        self.ima = None;
        self
    }

    /// Whether a renewal may stand on this record: same endorsements, no certificate of the EK's path expired, and
    /// no CRL stale that the path needed.
    ///
    /// Otherwise the verifier treats the boot as new and everything is proven again.
    #[must_use]
    pub fn is_current(&self, endorsements: &Digest, now_unix_s: i64) -> bool {
        self.endorsements == *endorsements
            && self.ek_valid_until_unix_s.is_none_or(|until| now_unix_s <= until)
    }

    /// The same boot, holding `log` instead of a log of its own that says the same: machines of one kind boot alike.
    #[must_use]
    pub fn sharing(mut self, log: &Arc<ProvenBootLog>) -> Self {
        if let BootLog::Proven(own) = &mut self.boot_log
            && *own == *log
        {
            *own = Arc::clone(log);
        }
        self
    }

    /// The same boot with its tool log to be read from the start again.
    ///
    /// After a denial the log is asked for as a whole, so that the next finding can name files.
    #[must_use]
    pub fn with_tool_log_restarted(mut self) -> Self {
        self.tool_log = Arc::new(self.tool_log.restarted());
        self
    }

    /// The record for the store.
    #[must_use]
    pub fn document(&self) -> BootDocument {
        BootDocument {
            ak_public: hex::encode(self.ak.ak().public().as_bytes()),
            ak_qualified_name: self.ak.qualified_name().clone(),
            ek: self.ek.clone(),
            endorsements: self.endorsements,
            ek_valid_until_unix_s: self.ek_valid_until_unix_s,
            counters: self.counters,
            firmware_version: self.firmware_version,
            node_key: hex::encode(self.node_key.public().as_bytes()),
            tool_log: Arc::clone(&self.tool_log),
            boot_log: self.boot_log.clone(),
            ima: self.ima.clone(),
        }
    }

    /// The boot that the store recorded. The store is a trust boundary: only records written after an
    /// activation and a quote passed may come here.
    ///
    /// # Errors
    /// [`BootRecordError`] if the record is damaged or its keys would not be accepted today.
    pub fn assert_from_store(document: BootDocument) -> Result<Self, BootRecordError> {
        let ak_public = public(&document.ak_public)?;
        let node_key = public(&document.node_key)?;
        Ok(Self {
            ak: BoundAk::assert_from_store(&ak_public, document.ak_qualified_name)
                .map_err(BootRecordError::Refused)?,
            ek: document.ek,
            endorsements: document.endorsements,
            ek_valid_until_unix_s: document.ek_valid_until_unix_s,
            counters: document.counters,
            firmware_version: document.firmware_version,
            node_key: CertifiedNodeKey::assert_from_store(&node_key)
                .map_err(BootRecordError::Refused)?,
            tool_log: document.tool_log,
            boot_log: document.boot_log,
            ima: document.ima,
        })
    }
}

/// [`Boot`] as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootDocument {
    /// `TPMT_PUBLIC`, hexadecimal.
    pub ak_public: String,
    /// What `qualifiedSigner` must be.
    pub ak_qualified_name: Name,
    /// The endorsement key.
    pub ek: EkClaims,
    /// Digest of the endorsement roots, CRLs and EK policy it was judged under.
    pub endorsements: Digest,
    /// Earliest notAfter on the EK's path, or nextUpdate of the CRLs that it needed.
    pub ek_valid_until_unix_s: Option<i64>,
    /// Counters.
    pub counters: Counters,
    /// TPM firmware version.
    pub firmware_version: u64,
    /// `TPMT_PUBLIC`, hexadecimal.
    pub node_key: String,
    /// Tool log so far.
    pub tool_log: Arc<ToolLogState>,
    /// Logs of firmware and systemd.
    #[serde(default, skip_serializing_if = "BootLog::is_absent")]
    pub boot_log: BootLog,
    /// IMA list so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ima: Option<Arc<ImaState>>,
}

/// A boot record that cannot be used; the worker proves its boot again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BootRecordError {
    /// Not hexadecimal or not a public area.
    #[error("the record's public area is damaged")]
    Damaged,
    /// Its keys would be refused today.
    #[error("the record's keys are not acceptable: {}", .0.code())]
    Refused(Denial),
}

fn public(text: &str) -> Result<Public, BootRecordError> {
    hex::decode(text)
        .ok()
        .and_then(|bytes| Public::decode(&bytes).ok())
        .ok_or(BootRecordError::Damaged)
}
