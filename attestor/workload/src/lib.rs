//! The SPIFFE Workload API over a Unix socket: hands a job's identities to the job's processes.
//!
//! ```text
//! worker daemon ──admit/update/end──▶ Registry ◀──whose process?── Peer ◀──kernel── connection
//!                                        │                                              │
//!                                        └──────────newest state, watched──────────▶ stream
//! ```
//!
//! A job's process connects and asks; the kernel says which process it is, the [`Registry`] whose, and
//! the answer is that job's X.509-SVIDs with keys, JWT-SVIDs and bundles, or a refusal with a stable
//! code. Streams get every change and end with the job's permit.
//!
//! # Trust
//! Trusted: the kernel's word on a peer, the daemon that admits jobs. Not trusted: every byte from the
//! socket, and how many connections there are. A process is identified at each message anew, by
//! descriptor and start time, so that a reused process number is nobody. Where two jobs claim a
//! process equally closely it gets nothing: never another job's identity. What the daemon admits is
//! checked by [`conformance`] first.
//!
//! # Does not protect
//! A job from itself: its processes share its identity, and can hand descriptors and keys to others.
//! Keys are wiped here when their job ends; copies in transport buffers and in the job are not.
//!
//! # Absent
//! Federated bundles, revocation lists, the SDS API, TCP.
//!
//! # Source
//! SPIFFE "The SPIFFE Workload API" and "The SPIFFE Workload Endpoint"; docs/SPIFFE.md for users.
#![warn(clippy::panic, clippy::unwrap_used, missing_docs)]
#![forbid(unsafe_code)]

mod admission;
mod authority;
pub mod conformance;
mod connection;
mod door;
mod identity;
mod jwt_answer;
mod limits;
pub mod pb;
mod peer;
#[cfg(test)]
#[path = "../tests/api/pki.rs"]
mod pki;
mod proc_fs;
mod refusal;
mod registry;
mod selector;
mod server;
mod service;
mod socket;
mod stream;
mod validation;

pub use self::{
    admission::{Full, Place, Places},
    connection::Answers,
    identity::{
        Bundles, Credentials, JobId, JobIdentity, JwtAnswer, JwtGrant, JwtRefusal, JwtRequest,
        JwtSource, JwtSvid, NotAJobId, X509Svid,
    },
    limits::Limits,
    peer::{Observation, Peer, PeerError},
    proc_fs::{MAX_ANCESTORS, ProcessKey},
    refusal::{ERROR_DOMAIN, RefusalCode},
    registry::{AdmitError, Clock, JobHandle, Registry, printable},
    selector::{Closeness, Selector, SelectorError, SelectorParts},
    server::{PeerSocket, WorkloadServer},
    socket::{DEFAULT_MODE, DEFAULT_NAME, MAX_PATH_BYTES, SocketError, SocketOptions},
    validation::{BundleValidator, JwtRejection, JwtToValidate, JwtValidator, ValidJwt},
};
