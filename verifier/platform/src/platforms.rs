//! All issuers that are believed.

use std::sync::Arc;

use jose::jws::UnverifiedToken;

use crate::{
    config::{ConfigProblem, Issuer},
    identity::{PlatformIdentity, judge},
    keys::KeyCache,
    refusal::Refusal,
};

/// Most issuers.
pub const MAX_ISSUERS: usize = 64;

/// One issuer with its keys.
#[derive(Clone, Debug)]
pub struct Platform {
    issuer: Arc<Issuer>,
    keys: Arc<KeyCache>,
}

impl Platform {
    /// The issuer.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> &KeyCache {
        &self.keys
    }
}

/// All issuers, none twice.
#[derive(Clone, Debug, Default)]
pub struct Platforms(Vec<Platform>);

impl Platforms {
    /// These issuers, without keys yet.
    ///
    /// # Errors
    /// [`ConfigProblem`] for an issuer that stands twice, and for more than [`MAX_ISSUERS`].
    pub fn new(issuers: Vec<Issuer>) -> Result<Self, ConfigProblem> {
        let problem = |what: String| ConfigProblem { key: "issuer", what };
        if issuers.len() > MAX_ISSUERS {
            return Err(problem(format!("there must be at most {MAX_ISSUERS} platforms")));
        }
        let mut out: Vec<Platform> = Vec::with_capacity(issuers.len());
        for issuer in issuers {
            if out.iter().any(|other| other.issuer.issuer() == issuer.issuer()) {
                return Err(problem(format!("{} stands twice", issuer.issuer())));
            }
            let keys = Arc::new(KeyCache::new(&issuer));
            out.push(Platform { issuer: Arc::new(issuer), keys });
        }
        Ok(Self(out))
    }

    /// The platforms.
    #[must_use]
    pub fn all(&self) -> &[Platform] {
        &self.0
    }

    /// Judges a token by the keys of the issuer that it names, as they are loaded.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn verify(&self, token: &str, now_unix_s: i64) -> Result<PlatformIdentity, Refusal> {
        let token = UnverifiedToken::parse(token).map_err(malformed)?;
        let named = token.untrusted_issuer().map_err(malformed)?;
        let platform = self
            .0
            .iter()
            .find(|platform| platform.issuer.issuer() == named)
            .ok_or(Refusal::IssuerUnknown(named))?;
        let issuer = platform.issuer();
        platform
            .keys
            .with_current(now_unix_s, |keys| judge(token, issuer, keys, now_unix_s))
            .map_err(|why| Refusal::KeysUnavailable { issuer: issuer.issuer().to_owned(), why })?
    }
}

/// A token that cannot be read; one with an algorithm that can never be allowed says so.
pub(crate) fn malformed(error: jose::jws::JwsError) -> Refusal {
    use jose::jws::JwsError as E;
    match error {
        E::AlgorithmUnknown => Refusal::AlgorithmNotAllowed { issuer: "any issuer".to_owned() },
        E::NoIssuer => Refusal::ClaimMissing("iss"),
        other => Refusal::TokenMalformed(other),
    }
}
