//! What a policy may be. The limits of one expression stand in [`super::cel::limits`].

/// Bytes of a policy: 64 rules of four kilobytes.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;
/// Rules: each may take [`super::cel::limits::MAX_STEPS`] steps.
pub(super) const MAX_RULES: usize = 64;
/// Bytes of a rule's message: it is in every finding.
pub(super) const MAX_MESSAGE_BYTES: usize = 1_024;
/// Kernels and their digests: those of a few years.
pub(super) const MAX_KERNEL_DIGESTS: usize = 1_024;
/// Bytes of one value in a finding.
pub(super) const MAX_SHOWN_VALUE_BYTES: usize = 120;
/// Bytes of what a finding says was observed.
pub(super) const MAX_OBSERVED_BYTES: usize = 1_024;
