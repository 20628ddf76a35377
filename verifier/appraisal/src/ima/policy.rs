//! What a site accepts of IMA lists: a document, and its compiled form.

use std::{collections::BTreeSet, sync::Arc};

use proto::{
    digest::{Digest, HashAlg},
    ima::{DigestKind, FileDigest, ImaEntry},
};
use serde::{Deserialize, Serialize};

use super::{
    ImaProblem,
    exclusion::{Exclusion, MAX_PATTERNS},
    keyring::Keyring,
    manifest::Manifest,
};

/// Denied digests of one policy.
pub const MAX_DENIED: usize = 100_000;

/// The rules, as they stand in a golden set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ImaRules {
    /// What a file needs.
    pub require: Require,
    /// Whether a digest of the manifest counts only at its path. Kernels write a name as the file was
    /// opened: a link, a container or a bind mount gives another one.
    pub bind_paths: bool,
    /// Names that are not judged. `*` stands for any bytes but `/`, `?` for one, `**` as a whole segment for any segments.
    pub exclude: Vec<String>,
    /// Digests that are denied, wherever they stand and whatever allows them.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<crate::policy::json_schema::DigestText>"))]
    pub deny: Vec<Digest>,
    /// Whether violations are accepted: then files may have been measured in another state than used.
    pub allow_violations: bool,
    /// Whether a bank may be extended with padded SHA-1 digests, as kernels before 5.8 do: then the
    /// list is bound to the quote by SHA-1.
    pub allow_padded_sha1: bool,
}

/// What a measured file needs to be accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Require {
    /// To be in the manifest or to be signed by a key of the keyring.
    #[default]
    Either,
    /// To be signed, and to be in the manifest.
    Both,
}

/// Rules, manifest and keys, checked and compiled; shared by every node that they hold for.
#[derive(Clone, Debug)]
pub struct ImaPolicy {
    pub(super) require: Require,
    pub(super) bind_paths: bool,
    pub(super) exclusions: Vec<Exclusion>,
    pub(super) allow_violations: bool,
    pub(super) allow_padded_sha1: bool,
    denied: BTreeSet<Digest>,
    manifest: Option<Arc<Manifest>>,
    keyring: Option<Arc<Keyring>>,
    digest: Digest,
}

impl ImaPolicy {
    /// Compiles rules with what they refer to.
    ///
    /// # Errors
    /// Every [`ImaProblem`]: a pattern that is none, too many patterns or digests, neither manifest nor
    /// keyring, or one of them where both are demanded.
    pub fn new(
        rules: &ImaRules,
        manifest: Option<Arc<Manifest>>,
        keyring: Option<Arc<Keyring>>,
    ) -> Result<Self, Vec<ImaProblem>> {
        let mut problems = Vec::new();
        let mut problem = |at: &str, what: String| problems.push(ImaProblem::new(at, what));
        match (rules.require, &manifest, &keyring) {
            (_, None, None) => {
                problem("ima", "neither a manifest nor a key says what is allowed".to_owned());
            }
            (Require::Both, None, _) | (Require::Both, _, None) => {
                problem("require", "\"both\" needs a manifest and keys".to_owned());
            }
            _ => {}
        }
        if rules.exclude.len() > MAX_PATTERNS {
            problem("exclude", format!("more than {MAX_PATTERNS} patterns"));
        }
        if rules.deny.len() > MAX_DENIED {
            problem("deny", format!("more than {MAX_DENIED} digests"));
        }
        let mut exclusions = Vec::new();
        for pattern in rules.exclude.iter().take(MAX_PATTERNS) {
            match Exclusion::compile(pattern) {
                Ok(exclusion) => exclusions.push(exclusion),
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let manifest_id = manifest.as_ref().map(|manifest| *manifest.id());
        let keyring_id = keyring.as_ref().map(|keyring| *keyring.id());
        // Plain data: serializing it cannot fail.
        let text =
            serde_json::to_vec(&(DOMAIN, rules, manifest_id, keyring_id)).unwrap_or_default();
        Ok(Self {
            require: rules.require,
            bind_paths: rules.bind_paths,
            exclusions,
            allow_violations: rules.allow_violations,
            allow_padded_sha1: rules.allow_padded_sha1,
            denied: rules.deny.iter().copied().collect(),
            manifest,
            keyring,
            digest: HashAlg::Sha256.hash(&[&text]),
        })
    }

    /// SHA-256 over rules, manifest and keys: two policies with the same one judge alike.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_deref()
    }

    /// The keys.
    #[must_use]
    pub fn keyring(&self) -> Option<&Keyring> {
        self.keyring.as_deref()
    }

    pub(super) fn excludes(&self, name: &[u8]) -> bool {
        self.exclusions.iter().any(|exclusion| exclusion.matches(name))
    }

    pub(super) fn denies(&self, digest: &FileDigest<'_>) -> bool {
        if self.denied.is_empty() || digest.kind != DigestKind::File {
            return false;
        }
        let alg = digest.algorithm.and_then(|alg| alg.appraised());
        alg.and_then(|alg| Digest::new(alg, digest.bytes).ok())
            .is_some_and(|digest| self.denied.contains(&digest))
    }

    /// Fetches the rows that [`Self::in_manifest`] will compare; decides nothing.
    pub(super) fn look_ahead(&self, entries: &[(u64, ImaEntry<'_>)]) {
        let Some(manifest) = &self.manifest else { return };
        let digests = entries.iter().filter_map(|(_, entry)| entry.vouched()?.digest);
        manifest.look_ahead(digests);
    }

    pub(super) fn in_manifest(&self, digest: &FileDigest<'_>, name: &[u8]) -> bool {
        let path = self.bind_paths.then_some(name);
        self.manifest.as_ref().is_some_and(|manifest| manifest.allows(digest, path))
    }
}

/// Begins what a policy's digest is over.
const DOMAIN: &str = "assay/v1/ima-policy";
