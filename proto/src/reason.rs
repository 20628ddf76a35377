//! Stable reason codes: one cause, one code.
//!
//! A code is never renamed and never reused; a retired one stays reserved here. Order: by stage, then
//! alphabetical. `docs/REASON_CODES.md` lists the same table and a test keeps the two equal.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! reasons {
    ($($variant:ident $wire:literal $stage:ident $doc:literal $remedy:literal;)*) => {
        /// Why evidence, a caller or a document was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ReasonCode {
            $(#[doc = $doc] $variant,)*
        }

        impl ReasonCode {
            /// Every code, by stage, then alphabetical.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable wire string.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $wire,)* }
            }

            /// The stage that refuses with this code.
            #[must_use]
            pub const fn stage(self) -> Stage {
                match self { $(Self::$variant => Stage::$stage,)* }
            }

            /// What the code means, one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }

            /// What an operator can do, one sentence.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }

            /// The code with this wire string.
            #[must_use]
            pub fn from_wire(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == text)
            }
        }
    };
}

/// The step of an attestation that refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// Decoding what came over the wire.
    Evidence,
    /// The endorsement key, its certificate and its chain.
    Ek,
    /// The inventory: may this TPM be a node at all.
    Node,
    /// The attestation key and its activation.
    Ak,
    /// The challenge.
    Challenge,
    /// `TPM2_Quote`.
    Quote,
    /// PCR values against the quote.
    Pcr,
    /// Firmware's and systemd's logs against the PCR values.
    EventLog,
    /// The certified node key.
    NodeKey,
    /// The tool log against its PCR.
    ToolLog,
    /// The kernel's IMA list against its PCR.
    Ima,
    /// Reference values and site policy.
    Policy,
    /// A job's request and its permit.
    Job,
    /// What a CI system signed about a job.
    Platform,
    /// Issuing a certificate.
    Certificate,
    /// The service's own limits.
    Service,
    /// Administration.
    Admin,
    /// Approving golden sets, policies and key rings, and putting them in force.
    Golden,
}

reasons! {
    EvidenceFieldInvalid "EVIDENCE_FIELD_INVALID" Evidence "A field has a length or value that the contract does not allow." "Use an attestor of the same major version as the verifier.";
    EvidenceFieldMissing "EVIDENCE_FIELD_MISSING" Evidence "A required field is absent." "Use an attestor of the same major version as the verifier.";
    EvidenceLimitExceeded "EVIDENCE_LIMIT_EXCEEDED" Evidence "A field, count or log is larger than its limit." "See docs/PROTOCOL.md for the limits; declare fewer tools or files.";
    EvidenceOutOfOrder "EVIDENCE_OUT_OF_ORDER" Evidence "A message came that this step of the protocol does not expect." "Use an attestor of the same major version as the verifier.";
    EvidenceStructureInvalid "EVIDENCE_STRUCTURE_INVALID" Evidence "A TPM structure does not decode." "Check the TPM and the attestor's version; the offset says where decoding stopped.";
    EvidenceTrailingBytes "EVIDENCE_TRAILING_BYTES" Evidence "Bytes follow the end of a structure." "Use an unmodified attestor.";
    EvidenceTruncated "EVIDENCE_TRUNCATED" Evidence "A structure ends before its declared length." "Use an unmodified attestor; check the network path for proxies that cut messages.";
    EvidenceVersionUnsupported "EVIDENCE_VERSION_UNSUPPORTED" Evidence "The worker speaks a protocol version that this verifier does not." "Upgrade the older of the two programs.";

    EkCertificateAlgorithmUnsupported "EK_CERTIFICATE_ALGORITHM_UNSUPPORTED" Ek "A certificate of the EK's chain is signed with an algorithm that is not accepted." "Ask the manufacturer for a newer chain, or allow-list the EK by its digest.";
    EkCertificateKeyMismatch "EK_CERTIFICATE_KEY_MISMATCH" Ek "The EK certificate certifies another key than the EK presented." "Check which EK template the TPM's certificate belongs to.";
    EkCertificateMalformed "EK_CERTIFICATE_MALFORMED" Ek "A certificate of the EK's chain is not well-formed DER X.509." "Read the certificate again from the TPM's NV index.";
    EkCertificateMissing "EK_CERTIFICATE_MISSING" Ek "The TPM has no EK certificate and its EK is not allow-listed by digest." "Run `verifier nodes add --allow-listed --ek-digest` with the digest printed by `attestor inspect`.";
    EkCertificateProfileViolation "EK_CERTIFICATE_PROFILE_VIOLATION" Ek "The certificate is not an EK certificate by the TCG profile." "Check that the certificate is the EK's and not an AK's or a platform certificate.";
    EkChainCaInvalid "EK_CHAIN_CA_INVALID" Ek "An issuer in the chain may not issue certificates (CA flag, key usage or path length)." "Import the manufacturer's proper intermediates.";
    EkChainCriticalExtension "EK_CHAIN_CRITICAL_EXTENSION" Ek "A certificate has a critical extension that is not understood." "Report the certificate; it can be allow-listed by EK digest meanwhile.";
    EkChainExpired "EK_CHAIN_EXPIRED" Ek "A certificate of the EK's chain has expired." "Import the renewed chain, or allow-list the EK by its digest.";
    EkChainNotYetValid "EK_CHAIN_NOT_YET_VALID" Ek "A certificate of the EK's chain is not valid yet." "Check the verifier's clock.";
    EkChainSignatureInvalid "EK_CHAIN_SIGNATURE_INVALID" Ek "A certificate of the chain is not signed by its named issuer." "Read the certificate again from the TPM; if it persists, distrust the TPM.";
    EkChainTooLong "EK_CHAIN_TOO_LONG" Ek "The chain is longer, or needs more work, than is allowed." "Send only the certificates of the path.";
    EkChainUnknownRoot "EK_CHAIN_UNKNOWN_ROOT" Ek "No path leads from the EK certificate to an imported manufacturer root." "Import the manufacturer's roots with `verifier roots import`.";
    EkKeyUnsupported "EK_KEY_UNSUPPORTED" Ek "The EK's type, size or curve is not RSA-2048, RSA-3072, P-256 or P-384." "Use another of the TPM's EK templates.";
    EkKeyWeak "EK_KEY_WEAK" Ek "The EK is weak: wrong exponent, even or short modulus, ROCA fingerprint, or point off its curve." "Replace the TPM or its firmware.";
    EkRevocationUnknown "EK_REVOCATION_UNKNOWN" Ek "Policy demands a revocation state and no current CRL covers the certificate." "Import the manufacturer's current CRL with `verifier roots import`.";
    EkRevoked "EK_REVOKED" Ek "The manufacturer revoked the EK certificate or one of its issuers." "Replace the TPM.";
    EkTemplateInvalid "EK_TEMPLATE_INVALID" Ek "The EK's attributes are not those of a storage key that never leaves its TPM." "Create the EK from a TCG default template.";

    NodeEkMismatch "NODE_EK_MISMATCH" Node "The node's record is pinned to another EK." "If the TPM or mainboard was replaced, run `verifier nodes replace-tpm`.";
    NodePending "NODE_PENDING" Node "The TPM is genuine and waits for approval." "Run `verifier nodes approve`.";
    NodeRevoked "NODE_REVOKED" Node "The node was revoked." "Run `verifier nodes approve` if it may come back.";
    NodeUnknown "NODE_UNKNOWN" Node "No record and no admission rule matches this TPM." "Run `verifier nodes add`, or allow pending approval in the configuration.";

    AkActivationFailed "AK_ACTIVATION_FAILED" Ak "The secret returned is not the one wrapped for this EK and AK." "Restart the attestor; if it persists, the AK does not live in this TPM.";
    AkAlgorithmNotAllowed "AK_ALGORITHM_NOT_ALLOWED" Ak "The AK's type, size, curve or hash is not accepted." "Use a P-256, P-384, RSA-2048 or larger AK with SHA-256 or SHA-384.";
    AkAttributesInvalid "AK_ATTRIBUTES_INVALID" Ak "The AK could leave its TPM, or may decrypt." "Create the AK with fixedTPM, fixedParent and sensitiveDataOrigin, without decrypt.";
    AkKeyWeak "AK_KEY_WEAK" Ak "The AK is weak: wrong exponent, bad modulus, or point off its curve." "Create another AK.";
    AkNotRestricted "AK_NOT_RESTRICTED" Ak "The AK would sign anything, so its quotes prove nothing." "Create the AK with restricted and sign.";
    AkSchemeInvalid "AK_SCHEME_INVALID" Ak "The AK has no fixed signing scheme." "Create the AK with ECDSA, RSASSA or RSAPSS and a hash.";

    ChallengeExpired "CHALLENGE_EXPIRED" Challenge "The answer came after the challenge's deadline." "Check the TPM's speed and the network; try again.";

    QuoteBootChanged "QUOTE_BOOT_CHANGED" Quote "The TPM was reset or resumed since this AK was activated." "The attestor proves the new boot by itself; nothing to do.";
    QuoteFirmwareChanged "QUOTE_FIRMWARE_CHANGED" Quote "The TPM's firmware version differs from the one recorded for this boot." "Restart the worker; TPM firmware cannot change within a boot.";
    QuoteNotTpmGenerated "QUOTE_NOT_TPM_GENERATED" Quote "The signed structure was not made by a TPM." "The AK signed outside data: treat the worker as hostile.";
    QuoteQualifiedSignerMismatch "QUOTE_QUALIFIED_SIGNER_MISMATCH" Quote "The quote's signer is not the AK under this EK." "Create the AK as a child of the EK.";
    QuoteQualifyingDataMismatch "QUOTE_QUALIFYING_DATA_MISMATCH" Quote "The quote does not answer this challenge for this node key and tool log." "Try again; if it persists, somebody replays or relays quotes.";
    QuoteResetCountRegressed "QUOTE_RESET_COUNT_REGRESSED" Quote "The TPM's reset counters went back." "If the TPM was cleared on purpose, run `verifier nodes accept-clear`.";
    QuoteSignatureInvalid "QUOTE_SIGNATURE_INVALID" Quote "The AK did not sign this quote." "Try again; if it persists, treat the worker as hostile.";
    QuoteSignatureSchemeMismatch "QUOTE_SIGNATURE_SCHEME_MISMATCH" Quote "The signature's scheme or hash is not the AK's." "Let the AK's own scheme decide (TPM_ALG_NULL in TPM2_Quote).";
    QuoteWrongType "QUOTE_WRONG_TYPE" Quote "The signed structure is not a quote." "Use an unmodified attestor.";

    PcrAtResetValue "PCR_AT_RESET_VALUE" Pcr "A required PCR was never extended in this boot." "Check that the firmware measures into this bank.";
    PcrDigestMismatch "PCR_DIGEST_MISMATCH" Pcr "The values presented do not hash to the quoted digest." "Try again; PCRs may have changed while they were read.";
    PcrSelectionEmpty "PCR_SELECTION_EMPTY" Pcr "The quote covers no PCR." "Use an unmodified attestor.";
    PcrSelectionIncomplete "PCR_SELECTION_INCOMPLETE" Pcr "The quote does not cover what was asked for." "Check that the TPM has the banks that policy names allocated.";
    PcrSelectionInvalid "PCR_SELECTION_INVALID" Pcr "The quoted selection repeats a bank or has a wrong size." "Use an unmodified attestor.";
    PcrValuesInvalid "PCR_VALUES_INVALID" Pcr "The values presented are not one for each quoted PCR." "Use an unmodified attestor.";

    EventLogAlgorithmInvalid "EVENT_LOG_ALGORITHM_INVALID" EventLog "An event has a digest of a bank that the log does not declare, or two of one bank." "Update the worker's firmware; a log that was edited looks like this too.";
    EventLogBankMissing "EVENT_LOG_BANK_MISSING" EventLog "The log has no digests of a quoted bank." "Check which PCR banks the firmware activates, and name one of them in policy.";
    EventLogDigestMissing "EVENT_LOG_DIGEST_MISSING" EventLog "An event of a required PCR has no digest of a quoted bank." "Name a bank in policy that firmware and operating system both measure into.";
    EventLogLimitExceeded "EVENT_LOG_LIMIT_EXCEEDED" EventLog "The log, its events, banks or padding are more than is allowed." "See docs/EVIDENCE.md for the limits; update the worker's firmware.";
    EventLogMalformed "EVENT_LOG_MALFORMED" EventLog "The log does not decode." "Check that the log was read whole; the offset says where decoding stopped.";
    EventLogPcrInvalid "EVENT_LOG_PCR_INVALID" EventLog "An event names a PCR that does not exist." "Update the worker's firmware; a log that was edited looks like this too.";
    EventLogPcrUnaccounted "EVENT_LOG_PCR_UNACCOUNTED" EventLog "A quoted PCR has a value and the log has no event for it." "Send the log that explains this PCR, or do not require it.";
    EventLogReplayMismatch "EVENT_LOG_REPLAY_MISMATCH" EventLog "The log does not replay to a quoted PCR." "Try again; if it persists, the log was edited or something else extends this PCR.";
    EventLogSeparatorInvalid "EVENT_LOG_SEPARATOR_INVALID" EventLog "A firmware PCR has no separator, more than one, or one that reports an error." "Update the worker's firmware; look for an error message at its start.";
    EventLogSpecIdInvalid "EVENT_LOG_SPEC_ID_INVALID" EventLog "The log's first event is not one that is understood." "Update the worker's firmware.";
    EventLogStale "EVENT_LOG_STALE" EventLog "A PCR went on since its log was read." "The attestor proves its boot again by itself.";
    EventLogStartupInvalid "EVENT_LOG_STARTUP_INVALID" EventLog "The locality that the TPM was started from is impossible, late, repeated or in a wrong PCR." "Update the worker's firmware; a log that was edited looks like this too.";

    NodeKeyAttributesInvalid "NODE_KEY_ATTRIBUTES_INVALID" NodeKey "The node key could leave its TPM or be used beyond signing." "Use an unmodified attestor.";
    NodeKeyCertifySignatureInvalid "NODE_KEY_CERTIFY_SIGNATURE_INVALID" NodeKey "The AK did not sign the node key's certification." "Try again; if it persists, treat the worker as hostile.";
    NodeKeyCertifyWrongType "NODE_KEY_CERTIFY_WRONG_TYPE" NodeKey "The signed structure is not a TPM-made certification." "Use an unmodified attestor.";
    NodeKeyCountersMismatch "NODE_KEY_COUNTERS_MISMATCH" NodeKey "The certification was made in another boot than the quote." "Try again.";
    NodeKeyHierarchyInvalid "NODE_KEY_HIERARCHY_INVALID" NodeKey "The node key is not a child of a primary of the NULL hierarchy." "Use an unmodified attestor.";
    NodeKeyNameMismatch "NODE_KEY_NAME_MISMATCH" NodeKey "The certification is for another key." "Use an unmodified attestor.";
    NodeKeyQualifyingDataMismatch "NODE_KEY_QUALIFYING_DATA_MISMATCH" NodeKey "The certification does not answer this challenge." "Try again; if it persists, somebody replays certifications.";
    NodeKeyUnsupported "NODE_KEY_UNSUPPORTED" NodeKey "The node key is not a P-256 key on its curve." "Use an unmodified attestor.";

    ToolLogDigestMismatch "TOOL_LOG_DIGEST_MISMATCH" ToolLog "An event's digest is not the hash of its content." "The log was edited: treat the worker as hostile.";
    ToolLogMalformed "TOOL_LOG_MALFORMED" ToolLog "The tool log does not decode." "Restart the worker to begin a new log.";
    ToolLogNotCanonical "TOOL_LOG_NOT_CANONICAL" ToolLog "An event is not in canonical encoding." "Use an unmodified attestor.";
    ToolLogOffsetInvalid "TOOL_LOG_OFFSET_INVALID" ToolLog "The log's piece does not begin where it was asked for." "Restart the attestor.";
    ToolLogOutOfSequence "TOOL_LOG_OUT_OF_SEQUENCE" ToolLog "Event numbers have a gap or repeat." "The log was edited: treat the worker as hostile.";
    ToolLogReplayMismatch "TOOL_LOG_REPLAY_MISMATCH" ToolLog "The tool log does not replay to its PCR." "Somebody else extended the PCR or the log lost events: restart the worker.";
    ToolLogWrongPcr "TOOL_LOG_WRONG_PCR" ToolLog "An event names another PCR or bank set than the tool log's." "Make the tool PCR of attestor and verifier equal.";

    ImaBootAggregateMismatch "IMA_BOOT_AGGREGATE_MISMATCH" Ima "The list's boot_aggregate is not the hash of the firmware's PCRs." "Reboot the worker; if it persists, the list belongs to another boot: treat the worker as hostile.";
    ImaBootAggregateMissing "IMA_BOOT_AGGREGATE_MISSING" Ima "The list does not begin with boot_aggregate." "Boot with an IMA policy (`ima_policy=tcb`) and a TPM that the kernel drives from the start.";
    ImaLogMalformed "IMA_LOG_MALFORMED" Ima "The IMA list does not decode." "Send binary_runtime_measurements as the kernel gives it.";
    ImaNameInvalid "IMA_NAME_INVALID" Ima "An entry's name is empty, too long, or has a NUL within." "Send binary_runtime_measurements as the kernel gives it.";
    ImaOffsetInvalid "IMA_OFFSET_INVALID" Ima "The list's piece does not begin where it was asked for." "Restart the attestor.";
    ImaReplayMismatch "IMA_REPLAY_MISMATCH" Ima "No prefix of the list replays to the quoted PCR." "Try again; if it persists, somebody else extended the PCR or the list was edited: reboot the worker.";
    ImaTemplateDigestMismatch "IMA_TEMPLATE_DIGEST_MISMATCH" Ima "An entry's template digest is not the hash of its fields." "The list was edited: treat the worker as hostile.";
    ImaTemplateUnsupported "IMA_TEMPLATE_UNSUPPORTED" Ima "An entry has a template or a field that is not known." "Boot the worker with `ima_template=ima-sig` or another template of the documentation.";
    ImaWrongPcr "IMA_WRONG_PCR" Ima "An entry names another PCR than the list's, or that PCR is not quoted in the list's banks." "Leave `pcr=` out of the IMA policy, and the banks that are asked for as they were at the boot's first attestation.";

    PolicyBootApplicationNotAllowed "POLICY_BOOT_APPLICATION_NOT_ALLOWED" Policy "An image booted that the golden set does not list." "Boot the expected image, or add the digest of this one to the golden set.";
    PolicyBootCommandLineNotAllowed "POLICY_BOOT_COMMAND_LINE_NOT_ALLOWED" Policy "The kernel was started with a command line that the golden set does not list." "Boot with the expected command line, or add this one to the golden set.";
    PolicyBootKeyMissing "POLICY_BOOT_KEY_MISSING" Policy "An entry that dbx must have is not there." "Update dbx on the worker (fwupdmgr update).";
    PolicyBootKeyNotAllowed "POLICY_BOOT_KEY_NOT_ALLOWED" Policy "Secure Boot trusts a key that the golden set does not list." "Remove the key in the firmware setup, or add its digest to the golden set.";
    PolicyBootLogMissing "POLICY_BOOT_LOG_MISSING" Policy "The golden set reads a log that the worker did not send or that does not explain the PCR." "Run `attestor inspect` on the worker: it says which logs are there.";
    PolicyBootProblem "POLICY_BOOT_PROBLEM" Policy "The firmware's log shows an oddity that the golden set does not tolerate." "Mend the worker's boot, or name the oddity under `boot.tolerate`.";
    PolicyBootSectionNotAllowed "POLICY_BOOT_SECTION_NOT_ALLOWED" Policy "A section of the unified kernel image is not one that the golden set lists." "Boot the expected image, or add the section's digest to the golden set.";
    PolicyBootSecureBoot "POLICY_BOOT_SECURE_BOOT" Policy "Secure Boot is not in the state that the golden set demands." "Change the state in the worker's firmware setup.";
    PolicyBootSignerNotAllowed "POLICY_BOOT_SIGNER_NOT_ALLOWED" Policy "An image was authorised by a key that the golden set does not list." "Boot an image signed by an expected key, or add the key's digest to the golden set.";
    PolicyClockNotSafe "POLICY_CLOCK_NOT_SAFE" Policy "The reference values demand a safe TPM clock and the quote says it is not." "Wait until the TPM wrote its clock (up to 70 minutes after a power cut).";
    PolicyEventMissing "POLICY_EVENT_MISSING" Policy "An event that the golden set requires is not in the PCR." "Compare with a boot that was accepted: `verifier inspect eventlog`.";
    PolicyEventNotAllowed "POLICY_EVENT_NOT_ALLOWED" Policy "A PCR has an event that the golden set does not list." "Undo the change, or add the event's digest to the golden set.";
    PolicyImaDigestWeak "POLICY_IMA_DIGEST_WEAK" Policy "A file was measured with a hash that proves nothing, such as SHA-1." "Boot the worker with `ima_hash=sha256`.";
    PolicyImaFileDenied "POLICY_IMA_FILE_DENIED" Policy "A file with a denied digest was measured in this boot." "Remove the file and reboot the worker.";
    PolicyImaFileNotAllowed "POLICY_IMA_FILE_NOT_ALLOWED" Policy "A measured file is neither in the manifest nor signed by a key of the policy." "Remove the file and reboot the worker, or add its digest to the manifest.";
    PolicyImaListMissing "POLICY_IMA_LIST_MISSING" Policy "The golden set judges the kernel's IMA list and the worker sent none." "Boot the worker with an IMA policy (`ima_policy=tcb`); `attestor inspect` says whether the list is there.";
    PolicyImaSignatureInvalid "POLICY_IMA_SIGNATURE_INVALID" Policy "A measured file has a signature that does not verify." "Reinstall the file with its signature, then reboot the worker.";
    PolicyImaSignatureMissing "POLICY_IMA_SIGNATURE_MISSING" Policy "The policy demands signed files and this one is not signed by a key of the policy." "Sign the file with a key of the policy, measure with the template `ima-sig`, then reboot the worker.";
    PolicyImaViolation "POLICY_IMA_VIOLATION" Policy "The kernel recorded a violation: a file was written while it was measured." "Find the writer, exclude the file in the kernel's IMA policy, then reboot the worker.";
    PolicyNoReferenceValues "POLICY_NO_REFERENCE_VALUES" Policy "No golden set is active for the node's pool." "Capture one with `verifier golden capture` and apply it.";
    PolicyPcrNotAllowed "POLICY_PCR_NOT_ALLOWED" Policy "A PCR has a value that the golden set does not list." "See the audit record for the expected values; capture a new golden set if the change is wanted.";
    PolicyRuleError "POLICY_RULE_ERROR" Policy "A rule of the site policy has no value: it reads something that is absent, overflows, or takes too many steps." "See what the finding names; `verifier policy explain` shows what each rule reads.";
    PolicyRuleFalse "POLICY_RULE_FALSE" Policy "A rule of the site policy is not met." "Follow the rule's message; `verifier policy explain` shows what each rule reads.";
    PolicyToolDenied "POLICY_TOOL_DENIED" Policy "A tool with a denied digest was measured in this boot." "Remove the tool and reboot the worker.";
    PolicyToolMissing "POLICY_TOOL_MISSING" Policy "A required tool was not measured." "Install the tool and declare it in the attestor's tool list.";
    PolicyToolNotAllowed "POLICY_TOOL_NOT_ALLOWED" Policy "A tool's digest is not one that the golden set lists." "Reinstall the tool, or add its new digest to the golden set.";
    PolicyToolPcrStart "POLICY_TOOL_PCR_START" Policy "The tool PCR had a value before the first tool event that the golden set does not list." "Choose a PCR that firmware leaves alone, or list the value under `tools.start`.";
    PolicyToolUnexpected "POLICY_TOOL_UNEXPECTED" Policy "The golden set is closed and does not name this tool." "Remove the tool from the worker's list or add it to the golden set.";
    PolicyTpmFirmwareBelowFloor "POLICY_TPM_FIRMWARE_BELOW_FLOOR" Policy "The TPM's firmware is older than the golden set's floor." "Update the TPM's firmware.";
    PolicyTpmManufacturerNotAllowed "POLICY_TPM_MANUFACTURER_NOT_ALLOWED" Policy "The TPM's manufacturer is not one that the golden set lists." "Add the manufacturer to the golden set or replace the TPM.";

    JobBootUnproven "JOB_BOOT_UNPROVEN" Job "A job asks for a permit on a worker that has not proved this boot." "The attestor proves its boot by itself; start the job again if it does not.";
    JobClaimsInvalid "JOB_CLAIMS_INVALID" Job "What the worker says of the job is not well-formed." "Use an attestor of the same version as the verifier; a claim is a line of at most 512 characters.";
    JobKeyInvalid "JOB_KEY_INVALID" Job "The job's key is not a P-256 key on its curve." "Use an unmodified attestor.";
    PermitAlreadyRedeemed "PERMIT_ALREADY_REDEEMED" Job "The permit was redeemed before: it is for one use." "Ask for another permit; if nobody else started this job, somebody has copied its permit.";
    PermitEnded "PERMIT_ENDED" Job "The permit ended: the job is over, its time is up, or its node is not what it proved to be any more." "The message says which; start the job again once the node attests.";
    PermitExpired "PERMIT_EXPIRED" Job "The permit was not redeemed in time." "Ask for a permit when the job starts, not before.";
    PermitGroundsChanged "PERMIT_GROUNDS_CHANGED" Job "What the permit was decided by changed since: golden sets, site policies, security keys or endorsements." "Ask for another permit: the worker is judged by what is in force now.";
    PermitRequestReplayed "PERMIT_REQUEST_REPLAYED" Job "A request about the permit was seen before." "Try again; if it persists, somebody replays requests.";
    PermitSignatureInvalid "PERMIT_SIGNATURE_INVALID" Job "The key under the permit's quote did not sign this request." "Redeem a permit where it was asked for: its key never leaves that worker.";
    PermitTimestampForeign "PERMIT_TIMESTAMP_FOREIGN" Job "What is to be stamped is no signature of the permit's own key." "Sign and stamp in the same job, with the key that the Workload API gives it.";
    PermitUnknown "PERMIT_UNKNOWN" Job "No permit has this secret or identifier." "Ask for another permit.";

    PlatformAlgorithmNotAllowed "PLATFORM_ALGORITHM_NOT_ALLOWED" Platform "The job's token is signed with an algorithm that its issuer is not configured for." "Name the algorithm in the platform's configuration, if the issuer really uses it.";
    PlatformAudienceMismatch "PLATFORM_AUDIENCE_MISMATCH" Platform "The job's token is for another audience, or for others as well." "Ask the CI system for a token with exactly the configured audience.";
    PlatformClaimMismatch "PLATFORM_CLAIM_MISMATCH" Platform "The job's environment says one thing, its token another." "Somebody changed the job's variables, or presents another job's token: look at the claim that is named.";
    PlatformClaimMissing "PLATFORM_CLAIM_MISSING" Platform "The job's token lacks a claim." "Check that the token is the CI system's token for jobs.";
    PlatformIssuerUnknown "PLATFORM_ISSUER_UNKNOWN" Platform "The job's token names an issuer that is not configured." "Configure the issuer, or do not send its tokens.";
    PlatformKeysUnavailable "PLATFORM_KEYS_UNAVAILABLE" Platform "The issuer's keys were never loaded, or are too old." "See the verifier's log for why they cannot be loaded.";
    PlatformKeyUnknown "PLATFORM_KEY_UNKNOWN" Platform "The issuer has no key of the name that the job's token gives." "Wait for the next load of the issuer's keys; if it persists, the token is not the issuer's.";
    PlatformSignatureInvalid "PLATFORM_SIGNATURE_INVALID" Platform "The job's token is not signed by the key that it names." "Treat whoever sent it as hostile.";
    PlatformTokenExpired "PLATFORM_TOKEN_EXPIRED" Platform "The job's token is not in force any more." "Ask the CI system for the token when the job starts.";
    PlatformTokenLifetimeTooLong "PLATFORM_TOKEN_LIFETIME_TOO_LONG" Platform "The job's token lives for longer than is accepted." "Shorten the token's life at the CI system, or raise max_lifetime of the platform.";
    PlatformTokenMalformed "PLATFORM_TOKEN_MALFORMED" Platform "The job's token cannot be read." "Check what --token-file or --token-env names.";
    PlatformTokenNotYetValid "PLATFORM_TOKEN_NOT_YET_VALID" Platform "The job's token is not in force yet." "Set the clocks of verifier and CI system.";
    PlatformTokenReplayed "PLATFORM_TOKEN_REPLAYED" Platform "The job's token gave a permit before: it is for one use." "Ask the CI system for another token; if nobody else started this job, somebody has copied it.";

    CertificateProfileViolation "CERTIFICATE_PROFILE_VIOLATION" Certificate "A certificate about to be signed breaks its profile; nothing was signed." "Report this as a bug with the decision's identifier.";

    ServiceBusy "SERVICE_BUSY" Service "The verifier has as many attestations under way as it allows." "The attestor comes again by itself.";
    ServiceClockRegressed "SERVICE_CLOCK_REGRESSED" Service "The verifier's clock stands before its last recorded decision." "Set the verifier's clock.";
    ServiceDeadlineExceeded "SERVICE_DEADLINE_EXCEEDED" Service "The caller was too slow." "Check the network; try again.";
    ServiceUnavailable "SERVICE_UNAVAILABLE" Service "The verifier could not record or sign; nothing was decided." "See the verifier's log for the incident's identifier.";

    AdminCertificateRequired "ADMIN_CERTIFICATE_REQUIRED" Admin "The call needs an administrator's client certificate." "Pass --admin-cert and --admin-key, or run where `verifier init` put them.";
    AdminNotFound "ADMIN_NOT_FOUND" Admin "No such node, set or decision." "List what exists first.";
    AdminRequestInvalid "ADMIN_REQUEST_INVALID" Admin "The request is not acceptable as it stands." "Follow the message.";
    AdminRoleInsufficient "ADMIN_ROLE_INSUFFICIENT" Admin "The certificate's role may not make this call." "Ask for a certificate with the role named in the message.";

    GoldenDeniesTooMany "GOLDEN_DENIES_TOO_MANY" Golden "In force, a document would deny a larger share of the admitted nodes than the verifier's configuration lets pass." "Look at `verifier golden dry-run`; stage the document first, or say that the denials are meant with --accept-denials.";
    GoldenSignaturesMissing "GOLDEN_SIGNATURES_MISSING" Golden "A document is not signed, or by fewer security keys than the key ring demands." "Let those sign whom the message names.";
    GoldenSignatureInvalid "GOLDEN_SIGNATURE_INVALID" Golden "A signature of a signed document is not by the key that it names, or is for another document or kind of document." "Sign the document that is sent, with the keys in force; if it persists, somebody misuses a name or changed the envelope.";
    GoldenStateInvalid "GOLDEN_STATE_INVALID" Golden "A document's state does not allow the step." "See `verifier golden list`; a retired document comes back with `revert`, as a new version.";
    GoldenVersionNotNewer "GOLDEN_VERSION_NOT_NEWER" Golden "A document's version is not above every earlier one of its name." "Give it a higher version and have it signed again; going back is a new version with old content.";
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ReasonCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for ReasonCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        Self::from_wire(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown reason code {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_upper_snake_unique_and_sorted_within_their_stage() {
        for pair in ReasonCode::ALL.windows(2) {
            let [a, b] = pair else { unreachable!("windows of two") };
            assert!(a.stage() <= b.stage(), "{a} and {b}: stages in order");
            if a.stage() == b.stage() {
                assert!(a.as_str() < b.as_str(), "{a} and {b}: alphabetical, unique");
            }
        }
        for code in ReasonCode::ALL {
            assert!(code.as_str().len() <= 63);
            assert!(code.as_str().chars().all(|c| c.is_ascii_uppercase() || c == '_'));
            assert_eq!(ReasonCode::from_wire(code.as_str()), Some(*code));
        }
    }
}
