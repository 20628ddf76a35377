//! Who a CI platform says a job is: tokens that it signed for the job, held against what the worker
//! claims.
//!
//! ```text
//! token ──▶ issuer, by name ──▶ that issuer's keys ──verify──▶ PlatformIdentity ─┐
//!           one that is          never fetched because                            ├─merge─▶ JobClaims,
//!           configured           of a token            claims of the worker ──────┘   each with its source
//! ```
//!
//! [`Platforms::verify`] and [`merge`] are pure: the time is a parameter, keys are what was loaded
//! before. The module `refresh` (feature `fetch`) loads keys in the background, from files and over
//! HTTPS; nothing a worker sends makes it load any.
//!
//! # Trust
//! A configured issuer is believed what it signs with its own keys. On a public platform anybody can
//! have a token for any audience: it proves which repository and run a job belongs to, and what may
//! be built where is policy.
//!
//! # Does not prove
//! That the token was used once ([`PlatformIdentity::token_id`] is for whoever keeps count), or that
//! the job runs on the worker that presents it: the worker's quote covers the job's claims.
#![warn(clippy::panic, clippy::unwrap_used)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod config;
mod identity;
mod keys;
mod merge;
mod platforms;
mod refusal;
pub mod source;
#[cfg(test)]
mod testing;
mod url;

#[cfg(feature = "fetch")]
pub use self::source::refresh;
pub use self::{
    config::{
        ConfigProblem, DEFAULT_ALGORITHMS, DEFAULT_MAX_AGE, DEFAULT_MAX_LIFETIME, DEFAULT_REFRESH,
        Issuer, KeySource, LONGEST_MAX_AGE, LONGEST_MAX_LIFETIME, MAX_NAME_BYTES, MAX_REFRESH,
        MIN_REFRESH, PlatformConfig,
    },
    identity::{LEEWAY_S, PlatformIdentity, verify},
    keys::{KeyCache, KeyState, KeysError},
    merge::merge,
    platforms::{MAX_ISSUERS, Platform, Platforms},
    refusal::{KeysMissing, Refusal, RefusalCode},
    url::{HttpsUrl, MAX_URL_BYTES, UrlError},
};
