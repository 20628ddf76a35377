//! Every bound on what an unauthenticated caller can make the verifier hold, parse or wait for.
//!
//! One table, so that a reviewer can judge the worst case in one place. Sizes are bytes, counts are
//! items; each number says where it comes from.

use std::time::Duration;

/// Largest `TPMT_PUBLIC`: an RSA-4096 public area with a SHA-512 policy is 600 bytes.
pub const MAX_TPM_PUBLIC_BYTES: usize = 1024;
/// Largest `TPMS_ATTEST`: header, two SHA-512 names, 64 bytes of extraData and a 16-bank selection fit in 400.
pub const MAX_ATTEST_BYTES: usize = 1024;
/// Largest `TPMT_SIGNATURE`: RSA-4096 takes 518.
pub const MAX_SIGNATURE_BYTES: usize = 1024;
/// Largest certificate: of 305 manufacturer EK certificates the largest has 1.9 kB; NV indexes hold at most 2 kB on most parts.
pub const MAX_CERTIFICATE_BYTES: usize = 8 * 1024;
/// Intermediates that one worker may send: real chains have up to three.
pub const MAX_CHAIN_CERTIFICATES: usize = 8;
/// Log kinds that one worker may announce: one of each.
pub const MAX_LOG_KINDS: usize = 4;
/// PCR banks in one selection: PC Client TPMs allocate up to four (SHA-1, -256, -384, -512).
pub const MAX_PCR_BANKS: usize = 4;
/// PCRs of a bank on a PC Client TPM (`sizeofSelect` 3).
pub const PCR_COUNT: usize = 24;
/// PCR values in one evidence.
pub const MAX_PCR_VALUES: usize = MAX_PCR_BANKS * PCR_COUNT;
/// One piece of a log; below tonic's default message limit with room for framing.
pub const MAX_LOG_CHUNK_BYTES: usize = 256 * 1024;
/// One gRPC message of the attestation service.
pub const MAX_MESSAGE_BYTES: usize = 512 * 1024;
/// Tool log of one boot: 30 000 files with 200-byte records.
pub const MAX_TOOL_LOG_BYTES: usize = 8 * 1024 * 1024;
/// Firmware log: real ones have 5 to 60 kB, some kernels pad up to 1 MB.
pub const MAX_UEFI_LOG_BYTES: usize = 2 * 1024 * 1024;
/// systemd's measurement log: a boot writes a few kB.
pub const MAX_SYSTEMD_LOG_BYTES: usize = 1024 * 1024;
/// IMA list: 500 000 entries of about 130 bytes.
pub const MAX_IMA_LOG_BYTES: usize = 64 * 1024 * 1024;
/// Name of an IMA template: 15 fields with names of up to 16 bytes.
pub const MAX_IMA_TEMPLATE_NAME_BYTES: usize = 256;
/// Fields of one IMA entry: kernel command lines, certificates and signatures take up to 64 kB, the
/// kernel's critical data (a loaded SELinux policy's hash, device-mapper tables) no more.
pub const MAX_IMA_TEMPLATE_DATA_BYTES: usize = 1024 * 1024;
/// Events in the tool log of one boot.
pub const MAX_TOOL_EVENTS: usize = 10_000;
/// Files, links and libraries of one tool (a cross toolchain with its headers has about 8 000).
pub const MAX_TOOL_ENTRIES: usize = 20_000;
/// Tools that one worker may declare.
pub const MAX_TOOLS: usize = 1_000;
/// Path of a measured file: PATH_MAX of Linux.
pub const MAX_PATH_BYTES: usize = 4096;
/// Free text from a worker (tool name, version, package).
pub const MAX_TEXT_BYTES: usize = 256;
/// Findings that a worker is told; the recorded verdict has all.
pub const MAX_FINDINGS: usize = 256;
/// A fresh challenge lives this long: hardware TPMs need up to 10 s for EK creation, activation and quote.
pub const CHALLENGE_LIFETIME: Duration = Duration::from_secs(60);
/// A worker must send Hello this soon after the stream opened.
pub const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// TLS handshake.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Streams under way at once, all peers together.
pub const MAX_STREAMS: usize = 1024;
/// Streams under way at once from one peer address.
pub const MAX_STREAMS_PER_PEER: usize = 64;
/// Connections open at once.
pub const MAX_CONNECTIONS: usize = 4096;
/// Log bytes held for all streams together before new ones are told to come later.
pub const MAX_PENDING_LOG_BYTES: usize = 256 * 1024 * 1024;
