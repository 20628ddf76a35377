//! Golden sets that must not come into force.

use std::time::Duration;

use proto::pb;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};
use tonic::Status;
use verifier::{
    signatures::{Algorithm, Envelope, PayloadType, SecurityPrivateKey, Signature},
    store::{DATABASE_FILE, DocumentId, Role},
};

use super::{Reference, outcome, reference_as};
use crate::{attacker::site::Site, cluster::AnyError};

/// The verifier writes to its database while an attacker does.
const BUSY: Duration = Duration::from_secs(10);

/// One attempt, by somebody with every role.
///
/// # Errors
/// The harness failed, or the attempt succeeded.
pub(super) async fn attack(site: &mut Site, verb: &str) -> Result<Status, AnyError> {
    let mut client = reference_as(site, &format!("security-{verb}"), Role::Security).await?;
    let mut before = site.cluster.store().documents_in_force().await?;
    let status = match verb {
        "that-is-none" => propose(&mut client, "schema = 1".to_owned(), Vec::new()).await?,
        "rolled-back" => {
            let text = site.oldest_golden()?;
            // As it is, it is the first version, which the verifier knows: with another byte it is another document.
            propose(&mut client, format!("# again\n{text}"), Vec::new()).await?
        }
        "of-zeros" => {
            let text = site.next_version(site.forged_golden("zeros")?)?;
            propose(&mut client, text, Vec::new()).await?
        }
        "unsigned" => {
            let (id, _) = newest(site, &mut client).await?;
            outcome(client.activate(activation(&id)).await)?
        }
        "stripped" => {
            let text = site.next_version(site.forged_golden("safe-clock")?)?;
            let id = site.cluster.propose_signed(&text).await?;
            strip(site, &id).await?;
            outcome(client.stage(message(&id)).await)?
        }
        "without-signatures" => {
            let (id, payload) = newest(site, &mut client).await?;
            let bare = Envelope::new(PayloadType::Golden, payload)?.to_json().into_bytes();
            let request = pb::SignRequest { document: Some(message(&id)), envelope: bare };
            client.sign(request).await?;
            outcome(client.stage(message(&id)).await)?
        }
        "forged" => {
            let (id, payload) = newest(site, &mut client).await?;
            let key = site.cluster.security_key()?;
            let mut envelope = Envelope::new(PayloadType::Golden, payload)?;
            let good = key.sign(&envelope.pae())?;
            let mut bytes = good.as_bytes().to_vec();
            bytes[7] ^= 1;
            envelope.add(Signature::new(Some(key.public().id().to_string()), bytes)?)?;
            sign(&mut client, &id, &envelope).await?
        }
        "signed-by-a-stranger" => {
            let (id, payload) = newest(site, &mut client).await?;
            let pem = SecurityPrivateKey::generate(Algorithm::Ed25519)?;
            let stranger = SecurityPrivateKey::from_pem(&pem)?;
            let mut envelope = Envelope::new(PayloadType::Golden, payload)?;
            envelope.add(stranger.sign(&envelope.pae())?)?;
            sign(&mut client, &id, &envelope).await?
        }
        "signed-for-another" => {
            let (_, first) = newest(site, &mut client).await?;
            let (id, _) = newest(site, &mut client).await?;
            let mut envelope = Envelope::new(PayloadType::Golden, first)?;
            envelope.add(site.cluster.security_key()?.sign(&envelope.pae())?)?;
            sign(&mut client, &id, &envelope).await?
        }
        "signed-as-policy" => {
            let (id, payload) = newest(site, &mut client).await?;
            let mut envelope = Envelope::new(PayloadType::Policy, payload)?;
            envelope.add(site.cluster.security_key()?.sign(&envelope.pae())?)?;
            sign(&mut client, &id, &envelope).await?
        }
        "retired-once" => {
            let once = site.apply_again().await?;
            site.apply_again().await?;
            before = site.cluster.store().documents_in_force().await?;
            outcome(client.activate(activation(&once)).await)?
        }
        "withdrawn" => {
            let (id, payload) = newest(site, &mut client).await?;
            let mut envelope = Envelope::new(PayloadType::Golden, payload)?;
            envelope.add(site.cluster.security_key()?.sign(&envelope.pae())?)?;
            let envelope = envelope.to_json().into_bytes();
            client.sign(pb::SignRequest { document: Some(message(&id)), envelope }).await?;
            let retired = pb::RetireRequest {
                document: Some(message(&id)),
                reason: "attack".to_owned(),
                accept_denials: false,
            };
            client.retire(retired).await?;
            outcome(client.activate(activation(&id)).await)?
        }
        "that-denies-everybody" => {
            let text = site.next_version(site.forged_golden("firmware-floor")?)?;
            let id = site.cluster.propose_signed(&text).await?;
            outcome(client.activate(activation(&id)).await)?
        }
        other => return Err(format!("admin:golden-set-{other}").into()),
    };
    if site.cluster.store().documents_in_force().await? != before {
        return Err("a forged set came into force, or an honest one went".into());
    }
    Ok(status)
}

/// A well-formed set that nobody signed, and what would be signed of it.
async fn newest(
    site: &mut Site,
    client: &mut Reference,
) -> Result<(DocumentId, Vec<u8>), AnyError> {
    let toml = site.next_version(site.forged_golden("safe-clock")?)?;
    let request = pb::ProposeRequest { toml, envelope: Vec::new(), origin: String::new() };
    let proposed = client.propose(request).await?.into_inner();
    let named = pb::DocumentRef {
        kind: proposed.kind.clone(),
        name: proposed.name.clone(),
        version: proposed.version,
    };
    let payload = client.show(named).await?.into_inner().payload;
    let kind = proposed.kind.parse()?;
    Ok((DocumentId { kind, name: proposed.name, version: proposed.version }, payload))
}

/// Takes a document's signatures out of the verifier's database, as whoever owns its disk can.
async fn strip(site: &Site, id: &DocumentId) -> Result<(), AnyError> {
    let file = site.cluster.store().folder().join(DATABASE_FILE);
    let options = SqliteConnectOptions::new().filename(file).busy_timeout(BUSY);
    let mut database = options.connect().await?;
    let trigger: String = sqlx::query_scalar(
        "SELECT sql FROM sqlite_master WHERE name = 'reference_signatures_no_delete'",
    )
    .fetch_one(&mut database)
    .await?;
    sqlx::query("DROP TRIGGER reference_signatures_no_delete").execute(&mut database).await?;
    let deleted = sqlx::query(
        "DELETE FROM reference_signatures WHERE kind = $1 AND name = $2 AND version = $3",
    )
    .bind(id.kind.to_string())
    .bind(&id.name)
    .bind(i64::try_from(id.version)?)
    .execute(&mut database)
    .await?
    .rows_affected();
    sqlx::raw_sql(AssertSqlSafe(trigger)).execute(&mut database).await?;
    database.close().await?;
    if deleted == 0 {
        return Err(format!("{id} had no signature to take away").into());
    }
    Ok(())
}

fn message(id: &DocumentId) -> pb::DocumentRef {
    pb::DocumentRef { kind: id.kind.to_string(), name: id.name.clone(), version: id.version }
}

fn activation(id: &DocumentId) -> pb::ActivateRequest {
    pb::ActivateRequest { document: Some(message(id)), alongside: false, accept_denials: false }
}

async fn propose(
    client: &mut Reference,
    toml: String,
    envelope: Vec<u8>,
) -> Result<Status, AnyError> {
    outcome(client.propose(pb::ProposeRequest { toml, envelope, origin: String::new() }).await)
}

async fn sign(
    client: &mut Reference,
    id: &DocumentId,
    envelope: &Envelope,
) -> Result<Status, AnyError> {
    let envelope = envelope.to_json().into_bytes();
    outcome(client.sign(pb::SignRequest { document: Some(message(id)), envelope }).await)
}
