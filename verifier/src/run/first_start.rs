//! What a verifier has before its first start: an administrator, and the ring of security keys.

use std::path::Path;

use appraisal::policy::Manifests;
use proto::digest::{Digest, HashAlg};

use super::{ServeError, open_store, store_folder};
use crate::{
    ca::{
        CaError, Segment,
        files::{self, FileError},
    },
    clock::Clock,
    config::Config,
    documents::ReadDocument,
    store::{Admin, By, DATABASE_FILE, DocumentKind, Role, Store, StoreError, StoreOptions},
};

/// Creates the database, and in it the first administrator, with the role security.
///
/// Changes nothing where an administrator of that name is known. Returns whether it was added.
///
/// # Errors
/// [`ServeError`].
pub async fn register_first_admin(
    config: &Config,
    name: &Segment,
    certificate: &Path,
    clock: &dyn Clock,
) -> Result<bool, ServeError> {
    let spki_sha256 = spki_digest(certificate)?;
    let known = async |store: &Store| {
        Ok::<_, StoreError>(store.admins().await?.iter().any(|admin| admin.name == name.as_str()))
    };
    let folder = store_folder(config);
    if folder.join(DATABASE_FILE).exists() {
        // Beside a running verifier too.
        let store = Store::open(StoreOptions::new(&folder).read_only(), 0).await?;
        let found = known(&store).await;
        store.close().await?;
        if found? {
            return Ok(false);
        }
    }
    let store = open_store(config, clock).await?;
    let added = async {
        if known(&store).await? {
            return Ok(false);
        }
        let created = By::new("local/init", clock.now_unix_s());
        let (name, role) = (name.to_string(), Role::Security);
        store.add_admin(Admin { name, role, spki_sha256, created, revoked_at: None }).await?;
        Ok(true)
    }
    .await;
    store.close().await?;
    added
}

/// Puts the first ring of security keys in force, from the file that init wrote.
///
/// Changes nothing where there is a ring. Returns whether it was taken.
///
/// # Errors
/// [`ServeError`].
pub async fn adopt_first_ring(
    config: &Config,
    file: &Path,
    clock: &dyn Clock,
) -> Result<bool, ServeError> {
    let text = files::read_text(file).map_err(CaError::from)?;
    let tool_pcr = config.tool_pcr;
    let ring = ReadDocument::read(&text, tool_pcr, &Manifests::new()).map_err(|problems| {
        CaError::from(FileError::Content {
            path: file.to_owned(),
            what: problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        })
    })?;
    let ring = ring.into_new(false, format!("file {}", file.display()));
    let known = async |store: &Store| {
        Ok::<_, StoreError>(!store.documents(DocumentKind::Keys).await?.is_empty())
    };
    let folder = store_folder(config);
    if folder.join(DATABASE_FILE).exists() {
        // Beside a running verifier too; a database of an older schema is brought up to date below.
        let store = Store::open(StoreOptions::new(&folder).read_only(), 0).await?;
        let found = known(&store).await;
        store.close().await?;
        if let Ok(true) = found {
            return Ok(false);
        }
    }
    let store = open_store(config, clock).await?;
    let by = By::new("local/init", clock.now_unix_s());
    let adopted = store.adopt_keys(ring, by).await;
    store.close().await?;
    Ok(adopted?)
}

/// SHA-256 of the `SubjectPublicKeyInfo` of the first certificate in a PEM file.
///
/// # Errors
/// [`CaError`].
pub fn spki_digest(path: &Path) -> Result<Digest, CaError> {
    use der::{Decode as _, Encode as _};
    let ders = files::certificates_of(path, &files::read_text(path)?)?;
    let bad = |error: der::Error| CaError::Certificate {
        what: path.display().to_string(),
        why: error.to_string(),
    };
    let der = ders.first().map(Vec::as_slice).unwrap_or_default();
    let certificate = x509_cert::Certificate::from_der(der).map_err(bad)?;
    let spki = certificate.tbs_certificate().subject_public_key_info().to_der().map_err(bad)?;
    Ok(HashAlg::Sha256.hash(&[&spki]))
}
