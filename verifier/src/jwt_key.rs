//! The key that signs JWT-SVIDs, and the bundle of the trust domain.

use std::path::Path;

use jose::{
    jwk::{Jwk, JwkSet, KeyUse},
    sign::Es256Key,
    spiffe_bundle::Bundle,
    svid::{self, SvidClaims, SvidError},
};
use zeroize::Zeroizing;

use crate::ca::files::{self, FileError, MODE_SECRET};

/// The key's file under the state directory: PKCS#8, hexadecimal, for whoever runs the verifier alone.
pub const JWT_KEY_FILE: &str = "jwt.key";
/// How often those who trust this trust domain look for new keys, seconds.
const REFRESH_HINT_S: u64 = 300;

/// The key cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwtKeyError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a key of ours.
    #[error("{path} is not a key for JWT-SVIDs: remove it, and another one is made")]
    Key {
        /// The file.
        path: String,
    },
}

/// The key, and its public half as relying parties get it.
#[derive(Debug)]
pub struct JwtKey {
    key: Es256Key,
    public: Jwk,
    set: Vec<u8>,
}

impl JwtKey {
    /// The key in the state directory; a new one where there is none.
    ///
    /// # Errors
    /// [`JwtKeyError`].
    pub fn open(state: &Path) -> Result<Self, JwtKeyError> {
        let path = state.join(JWT_KEY_FILE);
        let fail = || JwtKeyError::Key { path: path.display().to_string() };
        if !path.exists() {
            let fresh = Es256Key::generate().map_err(|_| fail())?;
            let der = fresh.to_pkcs8_der().map_err(|_| fail())?;
            let text = Zeroizing::new(hex::encode(&*der) + "\n");
            files::create(&path, text.as_bytes(), MODE_SECRET)?;
        }
        let text = files::read_secret(&path)?;
        let der = Zeroizing::new(hex::decode(text.trim()).map_err(|_| fail())?);
        Self::new(Es256Key::from_pkcs8_der(&der).map_err(|_| fail())?).map_err(|_| fail())
    }

    fn new(key: Es256Key) -> Result<Self, jose::sign::SignError> {
        let public = key.jwk(KeyUse::JwtSvid)?;
        let set = JwkSet::new(vec![public.clone()]).map(|set| set.to_json().into_bytes());
        Ok(Self { key, public, set: set.unwrap_or_default() })
    }

    /// A signed JWT-SVID.
    ///
    /// # Errors
    /// [`SvidError`].
    pub fn mint(&self, claims: &SvidClaims) -> Result<String, SvidError> {
        svid::mint(&self.key, claims)
    }

    /// JWK set (RFC 7517) of the keys that sign JWT-SVIDs.
    #[must_use]
    pub fn jwk_set(&self) -> Vec<u8> {
        self.set.clone()
    }

    /// The trust domain's bundle document with these roots (SPIFFE Trust Domain and Bundle, 4).
    ///
    /// # Errors
    /// In words, for roots that are none.
    pub fn bundle(&self, roots: Vec<Vec<u8>>) -> Result<String, String> {
        let bundle = Bundle::new(roots, vec![self.public.clone()]);
        let bundle = bundle.and_then(|bundle| bundle.with_refresh_hint_s(REFRESH_HINT_S));
        bundle.and_then(|bundle| bundle.to_json()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays_and_is_nobody_elses() {
        let folder = tempfile::tempdir().expect("folder");
        let first = JwtKey::open(folder.path()).expect("made").jwk_set();
        assert_eq!(JwtKey::open(folder.path()).expect("read").jwk_set(), first);
        let path = folder.path().join(JWT_KEY_FILE);
        std::fs::write(&path, "nonsense").expect("written");
        assert!(matches!(JwtKey::open(folder.path()), Err(JwtKeyError::Key { .. })));
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("mode");
        assert!(matches!(JwtKey::open(folder.path()), Err(JwtKeyError::File(_))));
    }
}
