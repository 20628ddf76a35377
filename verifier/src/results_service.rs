//! What the verifier itself signs for others to check offline: attestation results, and time stamps.
//!
//! ```text
//! CA for results ─┬─▶ ResultsSigner: statement ─sign─▶ Unstamped ─stamp─▶ bundle
//!                 │                                              │ or an ExternalAuthority of the configuration
//!                 └─▶ TimestampAuthority: RFC 3161 ◀─────────────┘ ◀─ jobs, through their worker's daemon
//! CA's files, ExternalAuthorities ─trusted_root─▶ trusted_root.json, which relying parties get once
//! ```
//! Both keys are made here and never leave this process: each lives for half of its certificate's time, which a day
//! bounds, and every start makes others. Formats and verification are crate `results`'; docs/RESULTS.md describes them.

mod authority;
mod external;
mod leaf;
mod signer;
mod trusted_root;

#[cfg(test)]
mod tests;

use results::{Refusal, timestamp::ask::AuthorityUrl};

pub use self::{
    authority::TimestampAuthority,
    external::{AuthorityError, ExternalAuthorities, ExternalAuthority, StampError},
    signer::{ResultsSigner, Unstamped},
    trusted_root::trusted_root,
};
use crate::{ca::CaError, credential::RandomError};

/// Nothing was signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultsError {
    /// No certificate could be issued, or the CA's files cannot be used.
    #[error("the CA for results cannot be used")]
    Ca(#[from] CaError),
    /// What was made is not what a relying party would take.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No key could be made.
    #[error("no key could be made for signing results")]
    Key,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The authority of somebody else that stamps gave no good time stamp in time.
    #[error("no time stamp of {url}")]
    Stamp {
        /// Where it was asked.
        url: Box<AuthorityUrl>,
        /// Why.
        source: Box<StampError>,
    },
    /// The clock shows no time that a certificate could have.
    #[error("the clock shows {0}, seconds since 1970")]
    Clock(i64),
}
