//! What is trusted: endorsements, admission rules, administrators.

use proto::digest::{Digest, HashAlg};
use sqlx::sqlite::SqliteRow;

use super::{
    Store, StoreError,
    changes::Ground,
    row,
    types::{Admin, AdmissionRule, By, Endorsement, EndorsementKind},
    writer::{Event, Touched, Tx},
};
use crate::audit::AuditKind;

/// Largest CRL or certificate: CRLs of manufacturers have up to some 100 kB.
const MAX_ENDORSEMENT_BYTES: usize = 4 * 1024 * 1024;

fn bounded(what: &'static str, bytes: &[u8], limit: usize) -> Result<(), StoreError> {
    if bytes.len() <= limit {
        return Ok(());
    }
    Err(StoreError::TooLarge { what, bytes: bytes.len() as u64, limit: limit as u64 })
}

async fn audit(
    tx: &mut Tx,
    kind: AuditKind,
    subject: &str,
    by: &By,
    body: serde_json::Value,
) -> Result<(), StoreError> {
    let body = row::json(&body)?;
    tx.append(Event { kind, at: by.at, actor: &by.actor, subject, body }).await
}

fn decode_endorsement(found: &SqliteRow) -> Result<Endorsement, StoreError> {
    let endorsement = Endorsement {
        sha256: row::parse(found, "sha256")?,
        kind: row::parse(found, "kind")?,
        der: row::get(found, "der")?,
        label: row::get(found, "label")?,
        imported: By {
            actor: row::get(found, "imported_by")?,
            at: row::get(found, "imported_at")?,
        },
    };
    let observed = HashAlg::Sha256.hash(&[&endorsement.der]);
    if observed != endorsement.sha256 {
        let why = format!("{observed}, recorded {}", endorsement.sha256);
        return Err(StoreError::Corrupt { what: "endorsement", why });
    }
    Ok(endorsement)
}

/// Every imported root, intermediate and CRL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndorsementSet {
    /// Sorted by kind and digest.
    pub items: Vec<Endorsement>,
}

impl EndorsementSet {
    /// SHA-256 over the sorted kinds and digests: changes with every import and removal, so that a
    /// boot that was admitted under other endorsements is appraised in full again.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut parts: Vec<&[u8]> = vec![b"assay/v1/endorsements\0"];
        for item in &self.items {
            parts.push(match item.kind {
                EndorsementKind::Root => b"R",
                EndorsementKind::Intermediate => b"I",
                EndorsementKind::Crl => b"C",
            });
            parts.push(item.sha256.as_bytes());
        }
        HashAlg::Sha256.hash(&parts)
    }

    /// Items of one kind.
    pub fn of(&self, kind: EndorsementKind) -> impl Iterator<Item = &Endorsement> {
        self.items.iter().filter(move |item| item.kind == kind)
    }
}

fn decode_rule(found: &SqliteRow) -> Result<(AdmissionRule, By), StoreError> {
    let rule = AdmissionRule {
        name: row::get(found, "name")?,
        root_sha256: row::parse_optional(found, "root_sha256")?,
        manufacturer: row::get(found, "manufacturer")?,
        pool: row::get(found, "pool")?,
        name_template: row::get(found, "name_template")?,
    };
    let by = By { actor: row::get(found, "created_by")?, at: row::get(found, "created_at")? };
    Ok((rule, by))
}

fn decode_admin(found: &SqliteRow) -> Result<Admin, StoreError> {
    Ok(Admin {
        name: row::get(found, "name")?,
        role: row::parse(found, "role")?,
        spki_sha256: row::parse(found, "spki_sha256")?,
        created: By { actor: row::get(found, "created_by")?, at: row::get(found, "created_at")? },
        revoked_at: row::get(found, "revoked_at")?,
    })
}

impl Store {
    /// Imports a root, intermediate or CRL; `false` if it was there already.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`].
    pub async fn import_endorsement(
        &self,
        kind: EndorsementKind,
        der: Vec<u8>,
        label: &str,
        by: By,
    ) -> Result<bool, StoreError> {
        bounded("endorsement", &der, MAX_ENDORSEMENT_BYTES)?;
        let label = label.to_owned();
        let sha256 = HashAlg::Sha256.hash(&[&der]).to_string();
        self.write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query(
                    "INSERT INTO endorsements (sha256, kind, der, label, imported_by, \
                     imported_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                )
                .bind(&sha256)
                .bind(kind.as_str())
                .bind(&der)
                .bind(&label)
                .bind(&by.actor)
                .bind(by.at)
                .execute(&mut tx.conn)
                .await
                .map_err(StoreError::database("import an endorsement"))?;
                if done.rows_affected() == 0 {
                    return Ok(false);
                }
                let body = serde_json::json!({ "change": "import", "kind": kind, "label": label });
                audit(tx, AuditKind::Endorsement, &sha256, &by, body).await?;
                tx.touched.push(Touched::Ground(Ground::Endorsements));
                Ok(true)
            })
        })
        .await
    }

    /// Removes an endorsement.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn remove_endorsement(
        &self,
        kind: EndorsementKind,
        sha256: Digest,
        by: By,
    ) -> Result<(), StoreError> {
        let sha256 = sha256.to_string();
        self.write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query("DELETE FROM endorsements WHERE kind = $1 AND sha256 = $2")
                    .bind(kind.as_str())
                    .bind(&sha256)
                    .execute(&mut tx.conn)
                    .await
                    .map_err(StoreError::database("remove an endorsement"))?;
                if done.rows_affected() == 0 {
                    return Err(StoreError::NotFound { what: kind.as_str(), key: sha256 });
                }
                let body = serde_json::json!({ "change": "remove", "kind": kind });
                audit(tx, AuditKind::Endorsement, &sha256, &by, body).await?;
                tx.touched.push(Touched::Ground(Ground::Endorsements));
                Ok(())
            })
        })
        .await
    }

    /// Every endorsement.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`] for changed bytes.
    pub async fn endorsements(&self) -> Result<EndorsementSet, StoreError> {
        let rows = sqlx::query("SELECT * FROM endorsements ORDER BY kind, sha256")
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(StoreError::database("list endorsements"))?;
        let items = rows.iter().map(decode_endorsement).collect::<Result<_, _>>()?;
        Ok(EndorsementSet { items })
    }

    /// Adds an admission rule.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`].
    pub async fn add_admission_rule(&self, rule: AdmissionRule, by: By) -> Result<(), StoreError> {
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO admission_rules (name, root_sha256, manufacturer, pool, \
                     name_template, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
                )
                .bind(&rule.name)
                .bind(rule.root_sha256.map(|digest| digest.to_string()))
                .bind(&rule.manufacturer)
                .bind(&rule.pool)
                .bind(&rule.name_template)
                .bind(&by.actor)
                .bind(by.at)
                .execute(&mut tx.conn)
                .await
                .map_err(StoreError::insert("admission rule", &rule.name))?;
                let body = serde_json::json!({ "change": "add", "rule": rule });
                audit(tx, AuditKind::AdmissionRule, &rule.name, &by, body).await?;
                tx.touched.push(Touched::Ground(Ground::AdmissionRules));
                Ok(())
            })
        })
        .await
    }

    /// Removes an admission rule; nodes that it admitted stay.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn remove_admission_rule(&self, name: &str, by: By) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query("DELETE FROM admission_rules WHERE name = $1")
                    .bind(&name)
                    .execute(&mut tx.conn)
                    .await
                    .map_err(StoreError::database("remove an admission rule"))?;
                if done.rows_affected() == 0 {
                    return Err(StoreError::NotFound { what: "admission rule", key: name });
                }
                let body = serde_json::json!({ "change": "remove" });
                audit(tx, AuditKind::AdmissionRule, &name, &by, body).await?;
                tx.touched.push(Touched::Ground(Ground::AdmissionRules));
                Ok(())
            })
        })
        .await
    }

    /// Admission rules by name, with who made them.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn admission_rules(&self) -> Result<Vec<(AdmissionRule, By)>, StoreError> {
        let rows = sqlx::query("SELECT * FROM admission_rules ORDER BY name")
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(StoreError::database("list admission rules"))?;
        rows.iter().map(decode_rule).collect()
    }

    /// Adds an administrator.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] for a known name or key.
    pub async fn add_admin(&self, admin: Admin) -> Result<(), StoreError> {
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO admins (name, role, spki_sha256, created_by, created_at, \
                     revoked_at) VALUES ($1, $2, $3, $4, $5, $6)",
                )
                .bind(&admin.name)
                .bind(admin.role.as_str())
                .bind(admin.spki_sha256.to_string())
                .bind(&admin.created.actor)
                .bind(admin.created.at)
                .bind(admin.revoked_at)
                .execute(&mut tx.conn)
                .await
                .map_err(StoreError::insert("administrator", &admin.name))?;
                let body = serde_json::json!({ "change": "add", "admin": admin });
                audit(tx, AuditKind::Admin, &admin.name, &admin.created, body).await
            })
        })
        .await
    }

    /// Revokes an administrator, for good.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]: unknown, or revoked before.
    pub async fn revoke_admin(&self, name: &str, by: By) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query(
                    "UPDATE admins SET revoked_at = $2 WHERE name = $1 AND revoked_at IS NULL",
                )
                .bind(&name)
                .bind(by.at)
                .execute(&mut tx.conn)
                .await
                .map_err(StoreError::database("revoke an administrator"))?;
                if done.rows_affected() == 0 {
                    return Err(StoreError::NotFound { what: "administrator", key: name });
                }
                let body = serde_json::json!({ "change": "revoke" });
                audit(tx, AuditKind::Admin, &name, &by, body).await
            })
        })
        .await
    }

    /// The administrator with this key, revoked ones too.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn admin_by_spki(&self, spki_sha256: &Digest) -> Result<Option<Admin>, StoreError> {
        let found = sqlx::query("SELECT * FROM admins WHERE spki_sha256 = $1")
            .bind(spki_sha256.to_string())
            .fetch_optional(&mut *self.reader().await?)
            .await
            .map_err(StoreError::database("read an administrator"))?;
        found.as_ref().map(decode_admin).transpose()
    }

    /// Administrators by name, revoked ones too.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn admins(&self) -> Result<Vec<Admin>, StoreError> {
        let rows = sqlx::query("SELECT * FROM admins ORDER BY name")
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(StoreError::database("list administrators"))?;
        rows.iter().map(decode_admin).collect()
    }

    /// Records an action of an administrator that changes no record of its own (a backup, a
    /// reloaded config). `details` must be JSON with sorted keys, as `serde_json::json!` makes it.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Database`].
    pub async fn record_action(
        &self,
        subject: &str,
        details: serde_json::Value,
        by: By,
    ) -> Result<(), StoreError> {
        let subject = subject.to_owned();
        self.write(move |tx| {
            Box::pin(async move { audit(tx, AuditKind::Action, &subject, &by, details).await })
        })
        .await
    }

    /// A value of the whole installation.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn setting(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        sqlx::query_scalar("SELECT value FROM settings WHERE key = $1")
            .bind(key)
            .fetch_optional(&mut *self.reader().await?)
            .await
            .map_err(StoreError::database("read a setting"))
    }

    /// Stores a value of the whole installation unless there is one, and returns the one that
    /// stands: for the verifier id.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Database`].
    pub async fn setting_or_insert(
        &self,
        key: &str,
        value: Vec<u8>,
    ) -> Result<Vec<u8>, StoreError> {
        let key = key.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                )
                .bind(&key)
                .bind(value)
                .execute(&mut tx.conn)
                .await
                .map_err(StoreError::database("store a setting"))?;
                sqlx::query_scalar("SELECT value FROM settings WHERE key = $1")
                    .bind(&key)
                    .fetch_one(&mut tx.conn)
                    .await
                    .map_err(StoreError::database("read a setting"))
            })
        })
        .await
    }

    /// The next value of a counter, from 1, never given twice: CRL numbers.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn next_number(&self, counter: &str) -> Result<u64, StoreError> {
        let key = format!("counter/{counter}");
        self.write(move |tx| {
            Box::pin(async move {
                let old: Option<Vec<u8>> =
                    sqlx::query_scalar("SELECT value FROM settings WHERE key = $1")
                        .bind(&key)
                        .fetch_optional(&mut tx.conn)
                        .await
                        .map_err(StoreError::database("read a counter"))?;
                let old =
                    match old {
                        None => 0,
                        Some(bytes) => u64::from_be_bytes(bytes.try_into().map_err(|_| {
                            StoreError::Corrupt { what: "counter", why: key.clone() }
                        })?),
                    };
                let next = old.saturating_add(1);
                sqlx::query(
                    "INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO \
                     UPDATE SET value = excluded.value",
                )
                .bind(&key)
                .bind(next.to_be_bytes().to_vec())
                .execute(&mut tx.conn)
                .await
                .map_err(StoreError::database("raise a counter"))?;
                Ok(next)
            })
        })
        .await
    }
}
