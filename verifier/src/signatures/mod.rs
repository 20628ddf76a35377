//! Signatures of golden sets, policies and key rings by the site's security keys.

mod canonical;

pub use self::canonical::{CanonicalError, MAX_INTEGER, to_canonical_json};
