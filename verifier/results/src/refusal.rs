//! Why something was refused: one code a cause, with what was expected and what was seen.

use std::fmt;

macro_rules! codes {
    ($($(#[doc = $meaning:literal])+ $variant:ident = $text:literal,)+) => {
        /// The cause of a refusal. Codes are never renamed nor given another meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $meaning])+ $variant,)+
        }

        impl Code {
            /// Every code, in alphabetical order within its stage.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable text.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($meaning,)+).trim_start(),)+
                }
            }
        }
    };
}

codes! {
    /// The artifact's digest is not the one that was signed.
    ArtifactMismatch = "RESULT_ARTIFACT_MISMATCH",
    /// The signer's certificate was not valid at the time-stamped instant.
    CertificateNotValidThen = "RESULT_CERTIFICATE_NOT_VALID_THEN",
    /// The signer's certificate does not lead to a trusted authority.
    CertificateUntrusted = "RESULT_CERTIFICATE_UNTRUSTED",
    /// The signer's certificate is not one for signing.
    CertificateUsage = "RESULT_CERTIFICATE_USAGE",
    /// The bundle signs another kind of content than asked for.
    ContentUnexpected = "RESULT_CONTENT_UNEXPECTED",
    /// The signer's certificate does not name exactly one SPIFFE ID.
    IdentityInvalid = "RESULT_IDENTITY_INVALID",
    /// The signer's SPIFFE ID is not among the accepted ones.
    IdentityNotAccepted = "RESULT_IDENTITY_NOT_ACCEPTED",
    /// The signer's key is not on P-256.
    KeyUnsupported = "RESULT_KEY_UNSUPPORTED",
    /// The bytes do not have the format.
    Malformed = "RESULT_MALFORMED",
    /// The envelope holds no in-toto statement.
    PayloadTypeUnknown = "RESULT_PAYLOAD_TYPE_UNKNOWN",
    /// The statement or its predicate is of an unknown type, or not of the one asked for.
    PredicateUnknown = "RESULT_PREDICATE_UNKNOWN",
    /// The signature does not verify: content, signature or key was changed.
    SignatureInvalid = "RESULT_SIGNATURE_INVALID",
    /// A key could not sign.
    SigningFailed = "RESULT_SIGNING_FAILED",
    /// The statement contradicts itself or its format.
    StatementInvalid = "RESULT_STATEMENT_INVALID",
    /// The time stamp is of the future.
    TimestampInFuture = "RESULT_TIMESTAMP_IN_FUTURE",
    /// The time stamp is over other bytes.
    TimestampImprint = "RESULT_TIMESTAMP_IMPRINT",
    /// The time stamp's signature or its signed attributes are not good.
    TimestampInvalid = "RESULT_TIMESTAMP_INVALID",
    /// There is no time stamp.
    TimestampMissing = "RESULT_TIMESTAMP_MISSING",
    /// The time stamp answers another request.
    TimestampNonce = "RESULT_TIMESTAMP_NONCE",
    /// The time stamp authority refused the request.
    TimestampRefused = "RESULT_TIMESTAMP_REFUSED",
    /// The time stamp is not of a trusted authority that was valid then.
    TimestampUntrusted = "RESULT_TIMESTAMP_UNTRUSTED",
    /// More bytes or elements than allowed.
    TooLarge = "RESULT_TOO_LARGE",
    /// A list of trusted authorities cannot be used.
    TrustedRootInvalid = "RESULT_TRUSTED_ROOT_INVALID",
    /// The policy demands a claim that the dispatch does not state.
    AdmitClaimMissing = "ADMIT_CLAIM_MISSING",
    /// A claim rests on a weaker source than the policy demands.
    AdmitClaimSource = "ADMIT_CLAIM_SOURCE",
    /// The job was dispatched after its artifact was signed.
    AdmitDispatchAfterSignature = "ADMIT_DISPATCH_AFTER_SIGNATURE",
    /// The artifact was signed after the dispatch had expired.
    AdmitDispatchExpired = "ADMIT_DISPATCH_EXPIRED",
    /// The dispatch is about another key than the one that signed the artifact.
    AdmitJobKeyMismatch = "ADMIT_JOB_KEY_MISMATCH",
    /// The VSA does not state a level that the policy demands.
    AdmitLevelMissing = "ADMIT_LEVEL_MISSING",
    /// The job's certificate and the dispatch name different permits.
    AdmitPermitMismatch = "ADMIT_PERMIT_MISMATCH",
    /// The policy of admission cannot be used.
    AdmitPolicyInvalid = "ADMIT_POLICY_INVALID",
    /// The job's certificate and the dispatch name different pools.
    AdmitPoolMismatch = "ADMIT_POOL_MISMATCH",
    /// The pool is not accepted.
    AdmitPoolNotAccepted = "ADMIT_POOL_NOT_ACCEPTED",
    /// The dispatch and the VSA are about different quotes.
    AdmitQuoteMismatch = "ADMIT_QUOTE_MISMATCH",
    /// The repository is not accepted.
    AdmitRepositoryNotAccepted = "ADMIT_REPOSITORY_NOT_ACCEPTED",
    /// The system that ran the job is not accepted.
    AdmitSystemNotAccepted = "ADMIT_SYSTEM_NOT_ACCEPTED",
    /// The artifact's time stamp is of an authority that the policy does not accept.
    AdmitTimestampAuthorityNotAccepted = "ADMIT_TIMESTAMP_AUTHORITY_NOT_ACCEPTED",
    /// A tool was matched with a digest that the policy does not accept.
    AdmitToolDigestNotAccepted = "ADMIT_TOOL_DIGEST_NOT_ACCEPTED",
    /// The dispatch does not state a tool that the policy demands.
    AdmitToolMissing = "ADMIT_TOOL_MISSING",
    /// The VSA was made after the dispatch that rests on it.
    AdmitVsaAfterDispatch = "ADMIT_VSA_AFTER_DISPATCH",
    /// The dispatch rests on another VSA.
    AdmitVsaMismatch = "ADMIT_VSA_MISMATCH",
    /// The VSA is about another node than the one that the job was dispatched to.
    AdmitVsaNodeMismatch = "ADMIT_VSA_NODE_MISMATCH",
    /// The VSA says that the node did not pass.
    AdmitVsaNotPassed = "ADMIT_VSA_NOT_PASSED",
    /// The VSA was too old when the job was dispatched.
    AdmitVsaTooOld = "ADMIT_VSA_TOO_OLD",
    /// The workflow is not accepted.
    AdmitWorkflowNotAccepted = "ADMIT_WORKFLOW_NOT_ACCEPTED",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A refusal.
///
/// `Display` is one line: code, subject, expected, observed; text that came from outside is quoted
/// and escaped, and cut where it is long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {subject}: expected {expected}, found {observed}")]
pub struct Refusal {
    code: Code,
    subject: String,
    expected: String,
    observed: String,
}

impl Refusal {
    pub(crate) fn new(
        code: Code,
        subject: impl Into<String>,
        expected: impl Into<String>,
        observed: impl Into<String>,
    ) -> Self {
        Self { code, subject: subject.into(), expected: expected.into(), observed: observed.into() }
    }

    /// The same refusal, about a part of `whole`.
    #[must_use]
    pub fn within(mut self, whole: &str) -> Self {
        self.subject = format!("{whole}: {}", self.subject);
        self
    }

    /// The cause.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// What was refused.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What was expected.
    #[must_use]
    pub fn expected(&self) -> &str {
        &self.expected
    }

    /// What was found.
    #[must_use]
    pub fn observed(&self) -> &str {
        &self.observed
    }
}

/// Longest text of others in a refusal, characters.
const MAX_QUOTED_CHARS: usize = 200;

/// Text that came from outside, safe to print: quoted, escaped, cut.
pub(crate) fn quoted(text: &str) -> String {
    if text.chars().count() <= MAX_QUOTED_CHARS {
        return format!("{text:?}");
    }
    let begin: String = text.chars().take(MAX_QUOTED_CHARS).collect();
    format!("{begin:?}… ({} bytes)", text.len())
}

/// A list of accepted texts, for [`Refusal::expected`].
pub(crate) fn one_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let all: Vec<_> = texts.into_iter().take(8).map(quoted).collect();
    format!("one of {}", all.join(", "))
}

/// Refuses what has more than `max`.
pub(crate) fn within(what: &str, count: usize, max: usize, unit: &str) -> Result<(), Refusal> {
    if count <= max {
        return Ok(());
    }
    let found = format!("{count} {unit}");
    Err(Refusal::new(Code::TooLarge, what, format!("at most {max} {unit}"), found))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_spelt_alike() {
        let all: BTreeSet<_> = Code::ALL.iter().map(|code| code.code()).collect();
        assert_eq!(all.len(), Code::ALL.len());
        for code in Code::ALL {
            let text = code.code();
            let is_spelt = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
            assert!(text.bytes().all(is_spelt) && text.len() <= 63, "{text}");
            assert!(text.starts_with("RESULT_") || text.starts_with("ADMIT_"), "{text}");
            assert!(code.meaning().ends_with('.'), "{text}");
        }
    }

    #[test]
    fn foreign_text_cannot_reach_the_terminal_as_it_is() {
        let refusal = Refusal::new(Code::Malformed, "a", "b", quoted("\u{1b}[2J\n"));
        assert_eq!(refusal.to_string(), r#"RESULT_MALFORMED: a: expected b, found "\u{1b}[2J\n""#);
        assert!(quoted(&"x".repeat(1000)).len() < 300);
    }
}
