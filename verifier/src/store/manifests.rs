//! Manifests of files that the kernel's IMA list may name: imported once, kept for good.

use proto::digest::{Digest, HashAlg};
use sqlx::Row as _;

use super::{
    Store, StoreError, row,
    types::{By, ManifestSummary, NewManifest},
    writer::Event,
};
use crate::audit::AuditKind;

/// Largest manifest: half a million files of 120 bytes, and one message of the administration service.
const MAX_MANIFEST_BYTES: usize = 60 * 1024 * 1024;

impl Store {
    /// Imports a manifest; `false` if it was there already.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Database`].
    pub async fn import_manifest(&self, manifest: NewManifest, by: By) -> Result<bool, StoreError> {
        if manifest.document.len() > MAX_MANIFEST_BYTES {
            return Err(StoreError::TooLarge {
                what: "manifest",
                bytes: manifest.document.len() as u64,
                limit: MAX_MANIFEST_BYTES as u64,
            });
        }
        let sha256 = HashAlg::Sha256.hash(&[&manifest.document]).to_string();
        let files = row::to_i64("files", manifest.files)?;
        self.write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query(
                    "INSERT INTO manifests (sha256, name, files, document, imported_by, \
                     imported_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                )
                .bind(&sha256)
                .bind(&manifest.name)
                .bind(files)
                .bind(&manifest.document)
                .bind(&by.actor)
                .bind(by.at)
                .execute(&mut tx.conn)
                .await
                .map_err(StoreError::database("import a manifest"))?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                let body = row::json(&serde_json::json!({
                    "change": "import", "name": manifest.name, "files": manifest.files,
                }))?;
                let (kind, actor) = (AuditKind::Manifest, by.actor.as_str());
                tx.append(Event { kind, at: by.at, actor, subject: &sha256, body }).await?;
                Ok(true)
            })
        })
        .await
    }

    /// A manifest's document.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`] for a changed document.
    pub async fn manifest(&self, sha256: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let found = sqlx::query("SELECT document FROM manifests WHERE sha256 = $1")
            .bind(sha256.to_string())
            .fetch_optional(&mut *self.reader().await?)
            .await
            .map_err(StoreError::database("read a manifest"))?;
        let Some(found) = found else { return Ok(None) };
        let document: Vec<u8> =
            found.try_get("document").map_err(StoreError::database("read a manifest"))?;
        let observed = HashAlg::Sha256.hash(&[&document]);
        if observed != *sha256 {
            let why = format!("{observed}, recorded {sha256}");
            return Err(StoreError::Corrupt { what: "manifest", why });
        }
        Ok(Some(document))
    }

    /// Every manifest, the newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn manifests(&self) -> Result<Vec<ManifestSummary>, StoreError> {
        let rows = sqlx::query(
            "SELECT sha256, name, files, length(document) AS bytes, imported_by, imported_at \
             FROM manifests ORDER BY imported_at DESC, sha256",
        )
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(StoreError::database("list manifests"))?;
        rows.iter()
            .map(|found| {
                Ok(ManifestSummary {
                    sha256: row::parse(found, "sha256")?,
                    name: row::get(found, "name")?,
                    files: row::get_u64(found, "files")?,
                    bytes: row::get_u64(found, "bytes")?,
                    imported: By {
                        actor: row::get(found, "imported_by")?,
                        at: row::get(found, "imported_at")?,
                    },
                })
            })
            .collect()
    }
}
