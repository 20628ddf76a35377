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
/// Either half of a credential: an RSA-4096 secret has 514 bytes, an identity object at most 132.
pub const MAX_CREDENTIAL_BYTES: usize = 1024;
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
/// One encoded Evidence message, kept until the logs are complete: 96 PCR values and two signed
/// structures, each at its limit, have 13 kB.
pub const MAX_EVIDENCE_BYTES: usize = 32 * 1024;
/// Tool log of one boot: 30 000 files with 200-byte records.
pub const MAX_TOOL_LOG_BYTES: usize = 8 * 1024 * 1024;
/// Firmware log: real ones have 5 to 60 kB, some kernels pad up to 1 MB.
pub const MAX_UEFI_LOG_BYTES: usize = 2 * 1024 * 1024;
/// Events in a firmware log: real ones have up to 300 (GRUB measures every command).
pub const MAX_UEFI_EVENTS: usize = 8192;
/// Banks that a log may declare, or an event have digests of: TPMs have up to four, the registry names eight.
pub const MAX_LOG_BANKS: usize = 16;
/// Padding after the last event of a firmware log: kernels hand out their whole buffer.
pub const MAX_LOG_PADDING_BYTES: usize = 1024 * 1024;
/// Records in systemd's measurement log: a boot writes about ten.
pub const MAX_SYSTEMD_RECORDS: usize = 4096;
/// systemd's measurement log: a boot writes a few kB.
pub const MAX_SYSTEMD_LOG_BYTES: usize = 1024 * 1024;
/// IMA entries that a worker sends beyond the quote: what a busy machine runs between quote and reading, 8 000 files.
pub const MAX_IMA_SURPLUS_BYTES: u64 = 1024 * 1024;
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
/// A CI system's signed token: those of today have 2 kB at most.
pub const MAX_JOB_TOKEN_BYTES: usize = 16 * 1024;
/// Audiences of JWT-SVIDs in one request.
pub const MAX_AUDIENCES: usize = 8;
/// One audience.
pub const MAX_AUDIENCE_BYTES: usize = 255;
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
pub const MAX_CONNECTIONS: usize = 2048;
/// Streams of one connection, whatever they are for; a worker opens one.
pub const MAX_STREAMS_PER_CONNECTION: usize = 32;
/// Header fields of one request; a worker sends 300 bytes.
pub const MAX_HEADER_BYTES: usize = 4 * 1024;
/// HTTP/2 window of a connection: bytes that came and that nobody has read yet.
pub const CONNECTION_WINDOW_BYTES: usize = 128 * 1024;
/// HTTP/2 window of one stream.
pub const STREAM_WINDOW_BYTES: usize = 64 * 1024;
/// Buffers of TLS and HTTP/2 for one connection, roughly.
const CONNECTION_BUFFER_BYTES: usize = 64 * 1024;
/// What one attestation holds besides logs: Hello and Evidence, decoded, in which a list element of
/// two bytes takes up to 32.
const DECODED_BYTES: usize = 128 * 1024 + 4 * MAX_EVIDENCE_BYTES;
/// Log bytes held for all streams together before new ones are told to come later. One peer holds at most half: more than
/// the largest logs of one attestation.
pub const MAX_PENDING_LOG_BYTES: usize = 256 * 1024 * 1024;

/// Most bytes that callers who proved nothing can make the verifier hold at once, under limits as
/// configured.
///
/// ```text
/// connections × (window + streams × headers + buffers) + attestations × (one message + decoded) + 2 × logs
/// ```
/// Logs count twice because a growing buffer is copied. Administration does not count: without an
/// administrator's certificate no byte of a request is read.
#[must_use]
pub const fn max_held_bytes(connections: usize, streams: usize, log_bytes: usize) -> usize {
    let connection = CONNECTION_WINDOW_BYTES
        .saturating_add(MAX_STREAMS_PER_CONNECTION.saturating_mul(MAX_HEADER_BYTES))
        .saturating_add(CONNECTION_BUFFER_BYTES);
    let stream = MAX_MESSAGE_BYTES.saturating_add(DECODED_BYTES);
    connections
        .saturating_mul(connection)
        .saturating_add(streams.saturating_mul(stream))
        .saturating_add(log_bytes.saturating_mul(2))
}

/// A machine of 4 GiB holds the worst case.
const _: () = assert!(
    max_held_bytes(MAX_CONNECTIONS, MAX_STREAMS, MAX_PENDING_LOG_BYTES) < 2 * 1024 * 1024 * 1024
);
