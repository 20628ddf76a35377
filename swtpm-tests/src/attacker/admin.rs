//! Callers of the administration service who have no right to it.

mod golden;

use std::sync::Arc;

use p256::ecdsa::Signature;
use proto::{
    pb,
    pb::{admin_client::AdminClient, reference_client::ReferenceClient},
    tpm::credential::sized,
};
use tokio_rustls::rustls::{
    self, SignatureAlgorithm, SignatureScheme,
    sign::{Signer, SigningKey},
};
use tonic::Status;
use verifier::{
    ca::CaDir,
    run::spki_digest,
    store::{Admin, Role},
};

use super::{
    Observed,
    mutate::Mutations,
    site::Site,
    stream::{ClientCertificate, connect},
    tpm::{self, Key},
};
use crate::{
    case::Layer,
    cluster::AnyError,
    raw::{Bank, CommandCode, RH_NULL, RawTpm},
};

/// A node key that stays in its TPM, as rustls signs with one.
#[derive(Debug)]
struct TpmKey {
    tpm: RawTpm,
    handle: u32,
}

impl SigningKey for TpmKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let ours = SignatureScheme::ECDSA_NISTP256_SHA256;
        offered
            .contains(&ours)
            .then(|| Box::new(Self { tpm: self.tpm, handle: self.handle }) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for TpmKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let failed = |error: AnyError| rustls::Error::General(error.to_string());
        signature(self.tpm, self.handle, message).map_err(failed)
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

/// `TPM2_Sign` with ECDSA and SHA-256; DER.
fn signature(tpm: RawTpm, key: u32, message: &[u8]) -> Result<Vec<u8>, AnyError> {
    let mut parameters = sized(&Bank::Sha256.hash(message));
    // ECDSA with SHA-256; an empty ticket of the NULL hierarchy.
    parameters.extend([0x00, 0x18, 0x00, 0x0b, 0x80, 0x24]);
    parameters.extend(RH_NULL.to_be_bytes());
    parameters.extend([0, 0]);
    let (_, answer) = tpm.with_password(CommandCode::SIGN, &[key], &[], &parameters, 0)?;
    // TPMT_SIGNATURE: algorithm, hash, then r and s with their sizes.
    let mut scalars = Vec::new();
    let mut rest = answer.get(4..).ok_or("a short signature")?;
    while let Some((size, more)) = rest.split_first_chunk::<2>() {
        let (scalar, more) = more
            .split_at_checked(usize::from(u16::from_be_bytes(*size)))
            .ok_or("a short signature")?;
        let mut padded = [0; 32];
        let from = 32_usize.checked_sub(scalar.len()).ok_or("a long scalar")?;
        padded[from..].copy_from_slice(scalar);
        scalars.extend(padded);
        rest = more;
    }
    Ok(Signature::from_slice(&scalars)?.to_der().as_bytes().to_vec())
}

/// One call without right.
///
/// # Errors
/// The harness failed.
pub async fn attack(site: &mut Site, verb: &str) -> Result<Observed, AnyError> {
    let node = |name: &str| pb::NodeReason { name: name.to_owned(), reason: "attack".to_owned() };
    let status = match verb {
        "without-certificate" => revoke(site, None, node("w1")).await?,
        "with-node-certificate" => {
            let certificate = node_certificate(site).await?;
            revoke(site, Some(certificate), node("w1")).await?
        }
        "as-viewer" => {
            let certificate = administrator(site, "viewer", Role::Viewer).await?;
            revoke(site, Some(certificate), node("w1")).await?
        }
        "as-operator-of-reference-values" => {
            let certificate = administrator(site, "operator", Role::Operator).await?;
            let mut client = reference(site, Some(certificate)).await?;
            outcome(client.stage(pb::DocumentRef::default()).await)?
        }
        "unregistered" => {
            let certificate = certificate(site, "nobody")?;
            revoke(site, Some(certificate), node("w1")).await?
        }
        "node-that-is-not" => {
            let certificate = administrator(site, "security", Role::Security).await?;
            revoke(site, Some(certificate), node("w99")).await?
        }
        other => match other.strip_prefix("golden-set-") {
            Some(verb) => golden::attack(site, verb).await?,
            None => return Err(format!("admin:{other}").into()),
        },
    };
    let still = site.cluster.store().node("w1").await?.ok_or("w1 is gone")?;
    if still.status != verifier::store::NodeStatus::Active {
        return Err("the call had an effect".into());
    }
    Ok(Observed::status(&status, Layer::Admin))
}

type Client = AdminClient<tonic::transport::Channel>;
type Reference = ReferenceClient<tonic::transport::Channel>;

/// An administrator with this role, where golden sets are changed.
async fn reference_as(site: &Site, name: &str, role: Role) -> Result<Reference, AnyError> {
    let certificate = administrator(site, name, role).await?;
    reference(site, Some(certificate)).await
}

async fn reference(
    site: &Site,
    certificate: Option<ClientCertificate>,
) -> Result<Reference, AnyError> {
    let port = site.cluster.running().address.port();
    let bundle = site.cluster.folder().join("state/bundle.pem");
    Ok(ReferenceClient::new(connect(port, &bundle, certificate).await?))
}

async fn client(site: &Site, certificate: Option<ClientCertificate>) -> Result<Client, AnyError> {
    let port = site.cluster.running().address.port();
    let bundle = site.cluster.folder().join("state/bundle.pem");
    Ok(AdminClient::new(connect(port, &bundle, certificate).await?))
}

async fn revoke(
    site: &Site,
    certificate: Option<ClientCertificate>,
    node: pb::NodeReason,
) -> Result<Status, AnyError> {
    outcome(client(site, certificate).await?.revoke_node(node).await)
}

fn outcome<T>(answer: Result<T, Status>) -> Result<Status, AnyError> {
    match answer {
        Ok(_) => Err("the call succeeded".into()),
        Err(status) => Ok(status),
    }
}

/// A certificate under the admin CA.
fn certificate(site: &Site, name: &str) -> Result<ClientCertificate, AnyError> {
    let domain = site.cluster.verifier().settings().trust_domain.clone();
    let ca = CaDir::new(site.cluster.folder().join("state"), domain);
    let folder = site.cluster.folder().join("attackers");
    let now = u64::try_from(site.cluster.by().at)?;
    ca.write_admin(&folder, &name.parse()?, now)?;
    let file = |extension: &str| folder.join(format!("{name}.{extension}"));
    ClientCertificate::read(&file("pem"), &file("key"))
}

/// A registered administrator.
async fn administrator(site: &Site, name: &str, role: Role) -> Result<ClientCertificate, AnyError> {
    let certificate = certificate(site, name)?;
    let file = site.cluster.folder().join("attackers").join(format!("{name}.pem"));
    let admin = Admin {
        name: name.to_owned(),
        role,
        spki_sha256: spki_digest(&file)?,
        created: site.cluster.by(),
        revoked_at: None,
    };
    site.cluster.store().add_admin(admin).await?;
    Ok(certificate)
}

/// A certificate that a node got for attesting, with its key in the TPM.
async fn node_certificate(site: &mut Site) -> Result<ClientCertificate, AnyError> {
    let none = Mutations::none();
    site.prepare(&none).await?;
    let attempt = super::enrol(site, &none, None).await?;
    let result = attempt.observed.result.ok_or("no result")?;
    if result.certificate_chain.is_empty() {
        return Err("the honest machine was refused".into());
    }
    let raw = site.worker.raw();
    tpm::flush_all(raw)?;
    let mut key: Key = site.last_node_key.clone().ok_or("no node key was made")?;
    let parent = tpm::primary(raw, RH_NULL, &tpm::storage_template())?;
    tpm::load(raw, parent.handle, &mut key)?;
    raw.flush(parent.handle)?;
    let signer = Arc::new(TpmKey { tpm: raw, handle: key.handle });
    Ok(ClientCertificate::new(result.certificate_chain, signer))
}
