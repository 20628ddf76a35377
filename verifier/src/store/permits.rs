//! Permits of jobs: issued with their decision, redeemed once, ended.

use proto::digest::Digest;
use serde::Serialize;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{
    Store, StoreError,
    certificates::{self, insert_intent},
    row,
    types::{By, CertificateIntent, PermitState},
    writer::{Event, Tx},
};
use crate::audit::{AuditEntry, AuditKind};

/// Permits of a denied node that end in one transaction.
const ENDED_TOGETHER: i64 = 64;
/// More than a clock may go back while the verifier runs: what ended by then does not stand again.
const CLOCK_STEP_BACK_S: i64 = 60;

/// A permit that is about to be issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewPermit {
    /// 32 hexadecimal digits.
    pub id: String,
    /// SHA-256 of the secret that redeems it.
    pub secret_sha256: Digest,
    /// Node, from the inventory.
    pub node: String,
    /// Its pool.
    pub pool: String,
    /// Name of the AK: the boot that it rests on.
    #[serde(serialize_with = "hexadecimal")]
    pub ak_name: Vec<u8>,
    /// DER `SubjectPublicKeyInfo` of the job's key.
    #[serde(serialize_with = "hexadecimal")]
    pub job_key: Vec<u8>,
    /// What the job was taken for: canonical JSON.
    #[serde(serialize_with = "text")]
    pub claims: Vec<u8>,
    /// What of its node it rests on: JSON, opaque here.
    #[serde(serialize_with = "text")]
    pub basis: Vec<u8>,
    /// Issuer and identifier of the CI system's token.
    pub token_id: Option<String>,
    /// After this second it cannot be redeemed.
    pub redeem_by: i64,
    /// From this second on it has ended, whatever happens.
    pub ends_at: i64,
}

fn hexadecimal<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

fn text<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(bytes))
}

/// A permit as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Permit {
    /// What was issued.
    #[serde(flatten)]
    pub new: NewPermit,
    /// Decision that it rests on.
    pub decision_id: String,
    /// When it was issued, unix seconds.
    pub issued_at: i64,
    /// State.
    pub state: PermitState,
    /// Of the last request about it.
    pub sequence: u64,
    /// When a job began by it.
    pub redeemed_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// Why it ended.
    pub end_reason: Option<String>,
}

/// Whether a node still is what a permit was issued to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NodeNow {
    /// As it was.
    Proven(LastProof),
    /// Why it is not.
    Not(String),
}

/// A node's last admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LastProof {
    /// When, unix seconds.
    at: i64,
    /// Its place in the chain.
    seq: i64,
}

/// The place in a chain of the decision that a permit rests on: what comes after it was not known when it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
struct GivenAt {
    replica: String,
    seq: i64,
}

/// By when a node whose permits go on must have proved itself again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// One that has not proved itself since, unix seconds, ends its permits.
    pub proven_since: i64,
    /// What changed up to then, unix seconds, must have judged it.
    pub judged_since: i64,
}

/// Why a permit does not stand.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// Of its time or its node.
    Over(String),
    /// What it was decided by changed.
    GroundsChanged(String),
}

impl Fault {
    const fn why(&self) -> &String {
        match self {
            Self::Over(why) | Self::GroundsChanged(why) => why,
        }
    }

    fn into_answer(self) -> PermitAnswer {
        match self {
            Self::Over(why) => PermitAnswer::Ended(why),
            Self::GroundsChanged(why) => PermitAnswer::GroundsChanged(why),
        }
    }
}

fn decode(found: &SqliteRow) -> Result<Permit, StoreError> {
    Ok(Permit {
        new: NewPermit {
            id: row::get(found, "id")?,
            secret_sha256: row::parse(found, "secret_sha256")?,
            node: row::get(found, "node")?,
            pool: row::get(found, "pool")?,
            ak_name: row::get(found, "ak_name")?,
            job_key: row::get(found, "job_key")?,
            claims: row::get(found, "claims")?,
            basis: row::get(found, "basis")?,
            token_id: row::get(found, "token_id")?,
            redeem_by: row::get(found, "redeem_by")?,
            ends_at: row::get(found, "ends_at")?,
        },
        decision_id: row::get(found, "decision_id")?,
        issued_at: row::get(found, "issued_at")?,
        state: row::parse(found, "state")?,
        sequence: row::get_u64(found, "sequence")?,
        redeemed_at: row::get(found, "redeemed_at")?,
        ended_at: row::get(found, "ended_at")?,
        end_reason: row::get(found, "end_reason")?,
    })
}

/// What a permit's entry says.
pub(super) fn body(new: &NewPermit, decision_id: &str) -> Result<Vec<u8>, StoreError> {
    row::json(&serde_json::json!({ "permit": new, "decision_id": decision_id }))
}

/// What the entry of this permit must hold, from the permit's own columns.
pub(super) async fn body_of(
    conn: &mut SqliteConnection,
    entry: &AuditEntry,
) -> Result<Option<Vec<u8>>, StoreError> {
    match find(conn, "id", &entry.subject).await {
        Ok(None) => Ok(None),
        Ok(Some(found)) => body(&found.new, &found.decision_id).map(Some),
        // Not what was written, whatever it is.
        Err(StoreError::Corrupt { why, .. }) => Ok(Some(why.into_bytes())),
        Err(error) => Err(error),
    }
}

/// Adds the row of a permit to the call that writes its decision.
pub(super) fn push(sql: &mut QueryBuilder<Sqlite>, new: &NewPermit, decision_id: &str, at: i64) {
    sql.push(
        "; INSERT INTO permits (id, secret_sha256, decision_id, node, pool, ak_name, job_key, \
         claims, basis, token_id, issued_at, redeem_by, ends_at, state, sequence) VALUES (",
    );
    sql.separated(", ")
        .push_bind(&new.id)
        .push_bind(new.secret_sha256.to_string())
        .push_bind(decision_id)
        .push_bind(&new.node)
        .push_bind(&new.pool)
        .push_bind(&new.ak_name)
        .push_bind(&new.job_key)
        .push_bind(&new.claims)
        .push_bind(&new.basis)
        .push_bind(&new.token_id)
        .push_bind(at)
        .push_bind(new.redeem_by)
        .push_bind(new.ends_at)
        .push("'issued'")
        .push("0");
    sql.push(")");
}

async fn find(
    conn: &mut SqliteConnection,
    column: &'static str,
    key: &str,
) -> Result<Option<Permit>, StoreError> {
    let sql = format!("SELECT * FROM permits WHERE {column} = $1");
    let found = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(key).fetch_optional(conn).await;
    found.map_err(StoreError::database("read a permit"))?.as_ref().map(decode).transpose()
}

async fn existing(conn: &mut SqliteConnection, id: &str) -> Result<Permit, StoreError> {
    let found = find(conn, "id", id).await?;
    found.ok_or_else(|| StoreError::NotFound { what: "permit", key: id.to_owned() })
}

async fn given_at(conn: &mut SqliteConnection, permit: &Permit) -> Result<GivenAt, StoreError> {
    let found: (String, i64) = sqlx::query_as("SELECT replica, seq FROM decisions WHERE id = $1")
        .bind(&permit.decision_id)
        .fetch_one(conn)
        .await
        .map_err(StoreError::database("read the decision of a permit"))?;
    Ok(GivenAt { replica: found.0, seq: found.1 })
}

/// Whether the node of a permit still is what it proved to be: same TPM, same boot, active, not denied since.
async fn node_now(
    conn: &mut SqliteConnection,
    permit: &NewPermit,
    given: &GivenAt,
) -> Result<NodeNow, StoreError> {
    let node: Option<(String, String)> =
        sqlx::query_as("SELECT status, pool FROM nodes WHERE name = $1")
            .bind(&permit.node)
            .fetch_optional(&mut *conn)
            .await
            .map_err(StoreError::database("read a node"))?;
    match node {
        Some((status, _)) if status != "active" => {
            return Ok(NodeNow::Not(format!("node {} is {status}", permit.node)));
        }
        Some((_, pool)) if pool != permit.pool => {
            return Ok(NodeNow::Not(format!("node {} is in the pool {pool} now", permit.node)));
        }
        Some(_) => {}
        None => return Ok(NodeNow::Not(format!("node {} was removed", permit.node))),
    }
    // Earlier boots stay on record for a while: only the latest that the node proved counts.
    let boots: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM boots JOIN nodes ON nodes.name = boots.node WHERE boots.ak_name \
             = $1 AND boots.node = $2 AND boots.reset_count = nodes.max_reset_count AND \
             boots.restart_count = nodes.max_restart_count",
    )
    .bind(&permit.ak_name)
    .bind(&permit.node)
    .fetch_one(&mut *conn)
    .await
    .map_err(StoreError::database("read a boot"))?;
    if boots == 0 {
        return Ok(NodeNow::Not(format!("node {} has another TPM or boot now", permit.node)));
    }
    // An admission after it takes no denial back. A job that is refused for what it says of itself says nothing of its node;
    // what a job's quote says of the node ends permits when it is denied.
    let is_denied: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM decisions INDEXED BY decisions_not_admitted WHERE node = $1 \
         AND replica = $2 AND seq > $3 AND outcome <> 'admitted' AND purpose = 'node')",
    )
    .bind(&permit.node)
    .bind(&given.replica)
    .bind(given.seq)
    .fetch_one(&mut *conn)
    .await
    .map_err(StoreError::database("read denials"))?;
    if is_denied {
        return Ok(NodeNow::Not(denied_since(&permit.node)));
    }
    let last: Option<(i64, i64)> = sqlx::query_as(
        "SELECT at, seq FROM decisions WHERE node = $1 AND outcome = 'admitted' ORDER BY at DESC, \
         seq DESC LIMIT 1",
    )
    .bind(&permit.node)
    .fetch_optional(conn)
    .await
    .map_err(StoreError::database("read a decision"))?;
    Ok(match last {
        Some((at, seq)) => NodeNow::Proven(LastProof { at, seq }),
        None => NodeNow::Not(format!("node {} was never admitted", permit.node)),
    })
}

fn denied_since(node: &str) -> String {
    format!("node {node} was denied since")
}

/// A change of what a permit was decided by.
struct Changed {
    what: &'static str,
    seq: i64,
}

/// The last change, up to this time, of what nodes are judged by, if there was one since a permit was given. As with
/// [`Ground`](super::Ground), documents of every pool count.
async fn grounds_changed(
    conn: &mut SqliteConnection,
    given: &GivenAt,
    until: i64,
) -> Result<Option<Changed>, StoreError> {
    let last: Option<(String, i64)> = sqlx::query_as(
        "SELECT kind, seq FROM (SELECT kind, seq, CAST(body AS TEXT) AS body FROM audit_entries \
         INDEXED BY audit_entries_of_grounds WHERE kind IN ('endorsement', 'golden-set', 'policy', \
         'security-keys') AND replica = $1 AND seq > $2 AND at <= $3) WHERE kind = 'endorsement' OR \
         body ->> 'change' IN ('activate', 'adopt') OR (body ->> 'change' = 'retire' AND body ->> \
         'from' = 'active') ORDER BY seq DESC LIMIT 1",
    )
    .bind(&given.replica)
    .bind(given.seq)
    .bind(until)
    .fetch_optional(conn)
    .await
    .map_err(StoreError::database("read what changed"))?;
    Ok(last.map(|(kind, seq)| {
        let what = match kind.as_str() {
            "endorsement" => "endorsements",
            "golden-set" => "golden sets",
            "policy" => "site policies",
            _ => "security keys",
        };
        Changed { what, seq }
    }))
}

/// Why a permit that is about to be redeemed, or was, does not stand at this time.
async fn against(
    conn: &mut SqliteConnection,
    permit: &Permit,
    renewal: Renewal,
    at: i64,
) -> Result<Option<Fault>, StoreError> {
    if at >= permit.new.ends_at {
        return Ok(Some(Fault::Over("its time is up".to_owned())));
    }
    let given = given_at(conn, permit).await?;
    let node = &permit.new.node;
    let last = match node_now(conn, &permit.new, &given).await? {
        NodeNow::Not(why) => return Ok(Some(Fault::Over(why))),
        NodeNow::Proven(last) if last.at < renewal.proven_since => {
            return Ok(Some(Fault::Over(format!("node {node} has not renewed its proof"))));
        }
        NodeNow::Proven(last) => last,
    };
    // What is stated when a job begins is what its permit was decided by; a job that runs goes on until its node would
    // have come to be judged again.
    let is_redeemed = permit.state == PermitState::Redeemed;
    let until = if is_redeemed { renewal.judged_since } else { i64::MAX };
    Ok(match grounds_changed(conn, &given, until).await? {
        Some(Changed { seq, .. }) if is_redeemed && seq < last.seq => None,
        Some(Changed { what, .. }) => {
            Some(Fault::GroundsChanged(format!("{what} changed since it was given")))
        }
        None => None,
    })
}

/// Some permits of a node that did not end.
async fn open_permits(
    conn: &mut SqliteConnection,
    node: &str,
    at: i64,
) -> Result<Vec<Permit>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM permits INDEXED BY permits_not_ended WHERE node = $1 AND ends_at > $2 AND \
         state <> 'ended' LIMIT $3",
    )
    .bind(node)
    .bind(at.saturating_sub(CLOCK_STEP_BACK_S))
    .bind(ENDED_TOGETHER)
    .fetch_all(conn)
    .await
    .map_err(StoreError::database("list permits"))?;
    rows.iter().map(decode).collect()
}

async fn end(tx: &mut Tx, permit: &Permit, reason: &str, by: &By) -> Result<(), StoreError> {
    sqlx::query("UPDATE permits SET state = 'ended', ended_at = $2, end_reason = $3 WHERE id = $1")
        .bind(&permit.new.id)
        .bind(by.at)
        .bind(reason)
        .execute(&mut tx.conn)
        .await
        .map_err(StoreError::database("end a permit"))?;
    let body = row::json(&serde_json::json!({ "change": "end", "reason": reason }))?;
    let (kind, actor, subject) = (AuditKind::PermitEnded, by.actor.as_str(), &permit.new.id);
    tx.append(Event { kind, at: by.at, actor, subject, body }).await?;
    // A job may have kept its key: what it was given ends with the permit.
    certificates::revoke_of_decision(tx, &permit.decision_id, reason, by).await
}

/// Records the certificates that a job is about to get.
async fn intend(
    tx: &mut Tx,
    permit: &Permit,
    certificates: Vec<CertificateIntent>,
    by: &By,
) -> Result<(), StoreError> {
    for intent in certificates {
        if intent.node != permit.new.node {
            let why = format!("is for {:?}, the permit for {:?}", intent.node, permit.new.node);
            return Err(StoreError::Invalid { what: "certificate", why });
        }
        insert_intent(tx, &intent, &permit.decision_id, by).await?;
    }
    Ok(())
}

/// A request about a permit, which a signature of the job's key came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermitUse {
    /// The permit.
    pub id: String,
    /// Of the request; 0 for the redemption.
    pub sequence: u64,
    /// When it came, unix seconds: what may take a while before it is recorded is not held against a redemption.
    pub asked_at: i64,
    /// A node that is late with this ends the permit.
    pub renewal: Renewal,
    /// Of a redemption, whether what the verifier states of the job is at hand: one that would be good without it is not recorded.
    pub is_stated: bool,
    /// Certificates that are about to be signed for the job.
    pub certificates: Vec<CertificateIntent>,
}

/// What became of a request about a permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermitAnswer {
    /// Recorded: the job may have what was asked for.
    Good(Box<Permit>),
    /// It was redeemed before.
    AlreadyRedeemed,
    /// It was not redeemed in time.
    Expired,
    /// It was never redeemed, and this is no redemption.
    NotRedeemed,
    /// It could be redeemed, but nothing was stated of its job: nothing is recorded.
    NotStated,
    /// It has ended, now or before; why.
    Ended(String),
    /// What it was decided by changed; what that was. It has ended by that.
    GroundsChanged(String),
    /// The sequence does not rise.
    Replayed,
}

impl Store {
    /// Redeems a permit, or goes on by it, in one transaction with the intents of its certificates. A permit whose node is
    /// not what it proved to be any more, or is not judged by what it was judged by, ends here.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Database`].
    pub async fn use_permit(&self, request: PermitUse, by: By) -> Result<PermitAnswer, StoreError> {
        self.write(move |tx| {
            Box::pin(async move {
                let PermitUse { id, sequence, asked_at, renewal, is_stated, certificates } =
                    request;
                let mut permit = existing(&mut tx.conn, &id).await?;
                let is_redemption = sequence == 0;
                match (permit.state, is_redemption) {
                    (PermitState::Ended, _) => {
                        let why = permit.end_reason.unwrap_or_default();
                        return Ok(PermitAnswer::Ended(why));
                    }
                    (PermitState::Redeemed, true) => return Ok(PermitAnswer::AlreadyRedeemed),
                    (PermitState::Issued, false) => return Ok(PermitAnswer::NotRedeemed),
                    (PermitState::Issued, true) if asked_at > permit.new.redeem_by => {
                        end(tx, &permit, "it was not redeemed in time", &by).await?;
                        return Ok(PermitAnswer::Expired);
                    }
                    (PermitState::Redeemed, false) if sequence <= permit.sequence => {
                        return Ok(PermitAnswer::Replayed);
                    }
                    (PermitState::Issued, true) | (PermitState::Redeemed, false) => {}
                }
                if let Some(fault) = against(&mut tx.conn, &permit, renewal, by.at).await? {
                    end(tx, &permit, fault.why(), &by).await?;
                    return Ok(fault.into_answer());
                }
                if is_redemption {
                    if !is_stated {
                        return Ok(PermitAnswer::NotStated);
                    }
                    permit.state = PermitState::Redeemed;
                    permit.redeemed_at = Some(by.at);
                }
                permit.sequence = sequence;
                sqlx::query(
                    "UPDATE permits SET state = 'redeemed', sequence = $2, redeemed_at = $3 WHERE \
                     id = $1",
                )
                .bind(&id)
                .bind(row::to_i64("sequence", sequence)?)
                .bind(permit.redeemed_at)
                .execute(&mut tx.conn)
                .await
                .map_err(StoreError::database("use a permit"))?;
                if is_redemption {
                    let body = row::json(&serde_json::json!({ "change": "redeem" }))?;
                    let (kind, actor) = (AuditKind::PermitRedeemed, by.actor.as_str());
                    tx.append(Event { kind, at: by.at, actor, subject: &id, body }).await?;
                }
                intend(tx, &permit, certificates, &by).await?;
                Ok(PermitAnswer::Good(Box::new(permit)))
            })
        })
        .await
    }

    /// Whether a permit could be redeemed at this time, as [`Store::use_permit`] would find; nothing is recorded.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn permit_may_begin(
        &self,
        id: &str,
        renewal: Renewal,
        at: i64,
    ) -> Result<bool, StoreError> {
        let mut conn = self.reader().await?;
        let permit = existing(&mut conn, id).await?;
        Ok(permit.state == PermitState::Issued
            && at <= permit.new.redeem_by
            && against(&mut conn, &permit, renewal, at).await?.is_none())
    }

    /// Whether a permit stands at this time: redeemed, not ended, its node what it proved to be. Nothing is recorded: a permit
    /// that does not stand ends with the next request that may end it.
    ///
    /// Whatever was committed before the caller read its clock is seen, so that a permit that stands here stood then.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn permit_stands(
        &self,
        id: &str,
        renewal: Renewal,
        at: i64,
    ) -> Result<PermitAnswer, StoreError> {
        let mut conn = self.reader().await?;
        let permit = existing(&mut conn, id).await?;
        match permit.state {
            PermitState::Issued => return Ok(PermitAnswer::NotRedeemed),
            PermitState::Ended => {
                return Ok(PermitAnswer::Ended(permit.end_reason.unwrap_or_default()));
            }
            PermitState::Redeemed => {}
        }
        // A clock that went back shows a time at which it did not stand yet.
        if permit.redeemed_at.is_none_or(|redeemed| redeemed > at) {
            return Ok(PermitAnswer::NotRedeemed);
        }
        Ok(match against(&mut conn, &permit, renewal, at).await? {
            Some(fault) => fault.into_answer(),
            None => PermitAnswer::Good(Box::new(permit)),
        })
    }

    /// Ends a permit; one that ended before stays as it was. Returns whether it ended now.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::InvalidTransition`] for a sequence that does not rise.
    pub async fn end_permit(
        &self,
        id: &str,
        sequence: u64,
        reason: &str,
        by: By,
    ) -> Result<bool, StoreError> {
        let (id, reason) = (id.to_owned(), reason.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                let permit = existing(&mut tx.conn, &id).await?;
                if permit.state == PermitState::Ended {
                    return Ok(false);
                }
                if sequence <= permit.sequence {
                    let (from, to) = (permit.state.as_str(), PermitState::Ended.as_str());
                    return Err(StoreError::InvalidTransition {
                        what: "permit",
                        key: id,
                        from,
                        to,
                    });
                }
                end(tx, &permit, &reason, &by).await?;
                Ok(true)
            })
        })
        .await
    }

    /// Ends every permit of a node that is denied; returns how many there were. Few at a time, so that a node with many
    /// keeps nobody waiting; nothing is written where there is none.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`]: some may have ended.
    pub async fn end_permits_of(&self, node: &str, by: By) -> Result<usize, StoreError> {
        if open_permits(&mut *self.reader().await?, node, by.at).await?.is_empty() {
            return Ok(0);
        }
        let mut ended = 0;
        loop {
            let (node, by) = (node.to_owned(), by.clone());
            let some = self.write(move |tx| {
                Box::pin(async move {
                    let some = open_permits(&mut tx.conn, &node, by.at).await?;
                    for permit in &some {
                        end(tx, permit, &denied_since(&node), &by).await?;
                    }
                    Ok(some.len())
                })
            });
            match some.await? {
                0 => return Ok(ended),
                some => ended += some,
            }
        }
    }

    /// The permit with this identifier.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn permit(&self, id: &str) -> Result<Option<Permit>, StoreError> {
        find(&mut *self.reader().await?, "id", id).await
    }

    /// The permit that this secret redeems.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn permit_by_secret(&self, sha256: &Digest) -> Result<Option<Permit>, StoreError> {
        find(&mut *self.reader().await?, "secret_sha256", &sha256.to_string()).await
    }

    /// Permits of a node, the latest first.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn permits(&self, node: &str, limit: u32) -> Result<Vec<Permit>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM permits WHERE node = $1 ORDER BY issued_at DESC, id LIMIT $2",
        )
        .bind(node)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(StoreError::database("list permits"))?;
        rows.iter().map(decode).collect()
    }
}

#[cfg(test)]
mod tests;
