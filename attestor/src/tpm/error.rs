//! What can go wrong between this worker and its TPM, in words that say what to do.

use super::{tcti::TctiError, template::EkTemplate};

/// An operation on the TPM failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TpmError {
    /// The TCTI string is wrong.
    #[error(transparent)]
    Tcti(#[from] TctiError),
    /// No TPM answers there.
    #[error("no TPM at {tcti}: {what}; {remedy}")]
    Absent {
        /// The TCTI.
        tcti: String,
        /// What was found instead.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// The TPM was there and the connection to it broke; the next call opens it again.
    #[error("the connection to the TPM broke during {command} (TSS code {code:#010x})")]
    ConnectionLost {
        /// TPM command or step.
        command: &'static str,
        /// `TSS2_RC`.
        code: u32,
    },
    /// Nobody has sent `TPM2_Startup`.
    #[error(
        "the TPM has not been started ({command}): firmware or hypervisor must send TPM2_Startup \
         before the system boots; a software TPM needs --flags startup-clear"
    )]
    NotStarted {
        /// TPM command.
        command: &'static str,
    },
    /// The TPM is in failure mode.
    #[error(
        "the TPM is in failure mode ({command}): power the machine off and on; if it stays, the TPM \
         is broken"
    )]
    FailureMode {
        /// TPM command.
        command: &'static str,
    },
    /// Wrong endorsement or owner password.
    #[error(
        "the TPM refused the {hierarchy} hierarchy's password ({command}): set {hierarchy}_auth_file \
         to a file with the right one; nobody knows it any more: clear the TPM (TPM2_Clear empties \
         it, and the node must be enrolled again)"
    )]
    WrongAuth {
        /// `endorsement` or `owner`.
        hierarchy: &'static str,
        /// TPM command.
        command: &'static str,
    },
    /// Dictionary attack lockout.
    #[error(
        "the TPM is in dictionary attack lockout ({command}): wait until it recovers (tpm2_getcap \
         properties-variable shows TPM2_PT_LOCKOUT_INTERVAL in seconds), or end it with the lockout \
         password: tpm2_dictionarylockout --clear-lockout"
    )]
    Lockout {
        /// TPM command.
        command: &'static str,
    },
    /// The hierarchy is switched off.
    #[error(
        "the {hierarchy} hierarchy of the TPM is disabled ({command}): enable it in the firmware \
         setup (often \"Endorsement hierarchy\" under TPM or security device)"
    )]
    HierarchyDisabled {
        /// `endorsement`, `owner` or `null`.
        hierarchy: &'static str,
        /// TPM command.
        command: &'static str,
    },
    /// The TPM has no room for another object or session.
    #[error(
        "the TPM has no free slot for another key or session ({command}): other processes keep \
         theirs loaded; use the resource-managed device:/dev/tpmrm0, or free them with \
         tpm2_flushcontext --transient-object --loaded-session"
    )]
    NoSlot {
        /// TPM command.
        command: &'static str,
    },
    /// The attestation key is gone (TPM reset, resume, or flushed by someone): enroll again.
    #[error("the attestation key is no longer loaded ({command}): the TPM was reset; enroll again")]
    KeyLost {
        /// TPM command.
        command: &'static str,
    },
    /// A call that needs the attestation key came before there was one.
    #[error("there is no attestation key yet: enroll first")]
    NotEnrolled,
    /// A node key of an earlier boot.
    #[error("the node key belongs to an earlier boot of this TPM: create a new one")]
    NodeKeyLost,
    /// `TPM2_ActivateCredential` refused what the verifier made.
    #[error(
        "the TPM refused the verifier's credential: it was made for another endorsement key or \
         another attestation key"
    )]
    CredentialRejected,
    /// No endorsement key could be made.
    #[error("the TPM makes no endorsement key that fits {wanted}: {tried}")]
    NoEndorsementKey {
        /// The preference.
        wanted: String,
        /// What was tried, with its error.
        tried: String,
    },
    /// A certificate file belongs to another key.
    #[error(
        "the configured endorsement key certificate is not for a key of this TPM (tried {tried}): \
         take the file of this machine, or remove the setting to use the certificate in NV"
    )]
    CertificateMismatch {
        /// Templates tried.
        tried: String,
    },
    /// The TPM lacks something that we cannot do without.
    #[error("the TPM cannot do what is needed: {what}")]
    Unsupported {
        /// What.
        what: String,
    },
    /// The TPM answered with a structure that does not parse.
    #[error("the TPM's answer to {command} does not parse: {detail}")]
    Malformed {
        /// TPM command.
        command: &'static str,
        /// What.
        detail: String,
    },
    /// A certificate or template in NV that cannot be read by us.
    #[error("NV index {index:#010x} is there and cannot be read: {detail}")]
    NvUnreadable {
        /// The index.
        index: u32,
        /// Why.
        detail: String,
    },
    /// Something we were given does not fit the TPM's structures.
    #[error("{what} does not fit: {detail}")]
    Input {
        /// What.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// Any other response code.
    #[error("{command} failed: {text} (response code {code:#x})")]
    Response {
        /// TPM command.
        command: &'static str,
        /// `TPM_RC`.
        code: u32,
        /// In words.
        text: String,
    },
    /// The TPM thread has ended.
    #[error("the TPM worker has stopped")]
    Stopped,
}

impl TpmError {
    /// Whether the connection must be opened again before anything else can work.
    #[must_use]
    pub const fn is_connection_lost(&self) -> bool {
        matches!(self, Self::ConnectionLost { .. })
    }

    /// Whether the way forward is to enroll again: a new attestation key and a new node key.
    #[must_use]
    pub const fn needs_enrollment(&self) -> bool {
        matches!(self, Self::KeyLost { .. } | Self::NotEnrolled | Self::ConnectionLost { .. })
    }

    /// Names a template that was tried, for [`TpmError::NoEndorsementKey`].
    pub(crate) fn tried(template: EkTemplate, error: &Self) -> String {
        format!("{} ({}): {error}", template.name(), template.algorithm())
    }
}
