//! Attestation key and node key.

use proto::{
    digest::{HashAlg, PcrSelection},
    tpm::{credential, public::Public},
};
use tss_esapi::{
    Context, Error,
    constants::{SessionType, response_code::Tss2ResponseCodeKind as Kind},
    handles::{AuthHandle, KeyHandle, ObjectHandle, SessionHandle, TpmHandle},
    interface_types::{
        resource_handles::Hierarchy as TssHierarchy,
        session_handles::{AuthSession, PolicySession},
    },
    structures::{
        Attest, Data, Digest as TssDigest, DigestList, EncryptedSecret, IdObject, Nonce, Private,
        Public as TssPublic, Signature, SignatureScheme, SymmetricDefinition,
    },
    traits::Marshall as _,
    utils::TpmsContext,
};
use zeroize::Zeroizing;

use super::{
    Loaded,
    ek::{self, Endorsement},
    facts, from_tss, nv,
    pcr::{hashing, selection},
    response::{self, Hierarchy, tpm_error},
    to_tss, with_password,
};
use crate::tpm::{
    AkAlgorithm, Identity, NodeKey, SignedAttest, TpmConfig, TpmError,
    template::{self, EkUse},
};

/// Largest `TPM2B_ID_OBJECT` and `TPM2B_ENCRYPTED_SECRET` contents (RSA-4096 secret).
const MAX_CREDENTIAL_BYTES: usize = 512;

/// The attestation key, loaded, and how to get at its parent again.
#[derive(Debug)]
pub(super) struct Attestation {
    pub(super) key: KeyHandle,
    /// Name of the key, by which it is known among loaded objects.
    pub(super) name: Vec<u8>,
    parent: Parent,
    usage: EkUse,
    /// nameAlg of the endorsement key.
    alg: HashAlg,
}

/// Where the endorsement key comes from at its next use.
#[derive(Debug)]
enum Parent {
    Persistent(TpmHandle),
    /// Its saved context, which costs a slow TPM far less than making an RSA key again; the
    /// template where the context no longer loads.
    Saved {
        context: Box<Option<TpmsContext>>,
        template: Box<TssPublic>,
    },
}

pub(super) fn enroll(
    context: &mut Context,
    config: &TpmConfig,
) -> Result<(Attestation, Identity), TpmError> {
    let template = match config.ak {
        AkAlgorithm::Auto if facts::has_p256(context)? => template::ak_ecc(),
        AkAlgorithm::Auto | AkAlgorithm::Rsa2048 => template::ak_rsa(),
    };
    let template = to_tss(&template, "the attestation key template")?;
    let Endorsement { mut loaded, key: ek, chain, tss_template } = ek::choose(context, config)?;
    let usage = EkUse::of(&ek.public).ok_or_else(|| TpmError::Unsupported {
        what: format!("the endorsement key {} has a policy that is not TCG's", ek.template),
    })?;
    let alg = ek.public.name_alg();
    let parent = match ek.persistent.and_then(|handle| TpmHandle::try_from(handle).ok()) {
        Some(handle) => Parent::Persistent(handle),
        None => {
            let handle = loaded.handle;
            // Some TPMs refuse to save; then the key is made again when it is needed.
            let context = loaded
                .execute_without_session(|context| context.context_save(handle))
                .inspect_err(
                    |error| tracing::debug!(%error, "the endorsement key's context was not saved"),
                )
                .ok();
            Parent::Saved { context: Box::new(context), template: Box::new(tss_template) }
        }
    };
    let parent_key = loaded.key();
    let (ak, ak_public) = with_parent(&mut loaded, usage, alg, |context, parent| {
        let session = parent.authorize(context)?;
        let created = context
            .execute_with_session(Some(session), |context| {
                context.create(parent_key, template.clone(), None, None, None, None)
            })
            .map_err(|error| tpm_error(error, "TPM2_Create", None))?;
        let session = parent.authorize(context)?;
        let key = context
            .execute_with_session(Some(session), |context| {
                context.load(parent_key, created.out_private, created.out_public.clone())
            })
            .map_err(|error| tpm_error(error, "TPM2_Load", None))?;
        // Flushed again if what follows fails.
        let loaded = Loaded::transient(context, key);
        let public = from_tss(&created.out_public, "TPM2_Create")?;
        loaded.keep();
        Ok((key, public))
    })?;
    let attestation =
        Attestation { key: ak, name: ak_public.name().as_bytes().to_vec(), parent, usage, alg };
    Ok((attestation, Identity { ek, ek_chain: chain, ak_public }))
}

pub(super) fn activate(
    context: &mut Context,
    attestation: &Attestation,
    id_object: &[u8],
    encrypted_secret: &[u8],
) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    const COMMAND: &str = "TPM2_ActivateCredential";
    let content = |bytes, what| {
        credential::unsized_bytes(bytes, what, MAX_CREDENTIAL_BYTES)
            .map(<[u8]>::to_vec)
            .map_err(|error| TpmError::Input { what, detail: error.to_string() })
    };
    let blob = IdObject::try_from(content(id_object, "the credential blob")?)
        .map_err(|_| TpmError::CredentialRejected)?;
    let secret = EncryptedSecret::try_from(content(encrypted_secret, "the encrypted secret")?)
        .map_err(|_| TpmError::CredentialRejected)?;
    let mut ek = reload(context, &attestation.parent)?;
    let ek_key = ek.key();
    with_parent(&mut ek, attestation.usage, attestation.alg, |context, parent| {
        let session = parent.authorize(context)?;
        let sessions = (Some(AuthSession::Password), Some(session), None);
        context
            .execute_with_sessions(sessions, |context| {
                context.activate_credential(attestation.key, ek_key, blob.clone(), secret.clone())
            })
            .map(|digest| Zeroizing::new(digest.value().to_vec()))
            .map_err(|error| match response::kind(&error) {
                Some(
                    Kind::Integrity
                    | Kind::Value
                    | Kind::Size
                    | Kind::Insufficient
                    | Kind::EccPoint
                    | Kind::Curve
                    | Kind::Scheme,
                ) => TpmError::CredentialRejected,
                _ => ak_error(error, COMMAND),
            })
    })
}

pub(super) fn create_node_key(context: &mut Context) -> Result<NodeKey, TpmError> {
    const COMMAND: &str = "TPM2_Create";
    if !facts::has_p256(context)? {
        return Err(TpmError::Unsupported {
            what: "the node key needs the curve P-256".to_owned(),
        });
    }
    let template = to_tss(&template::node_key(), "the node key template")?;
    let (mut primary, parent_public) = null_primary(context)?;
    let parent = primary.key();
    let created = with_password(&mut primary, |context| {
        context.create(parent, template, None, None, None, None)
    })
    .map_err(|error| tpm_error(error, COMMAND, None))?;
    let public = from_tss(&created.out_public, COMMAND)?;
    Ok(NodeKey::new(public, parent_public, created.out_private.value().to_vec()))
}

pub(super) fn certify(
    context: &mut Context,
    attestation: &Attestation,
    node_key: &NodeKey,
    qualifying_data: &[u8],
) -> Result<SignedAttest, TpmError> {
    const COMMAND: &str = "TPM2_Certify";
    let data = data(qualifying_data)?;
    let public = to_tss(node_key.public().as_bytes(), "the node key")?;
    let private = Private::try_from(node_key.private())
        .map_err(|error| TpmError::Input { what: "the node key", detail: error.to_string() })?;
    let (mut primary, parent_public) = null_primary(context)?;
    if parent_public != *node_key.parent_public() {
        // The NULL hierarchy's seed changes at every TPM reset.
        return Err(TpmError::NodeKeyLost);
    }
    let parent = primary.key();
    let key = with_password(&mut primary, |context| context.load(parent, private, public))
        .map_err(|error| match response::kind(&error) {
            Some(Kind::Integrity) => TpmError::NodeKeyLost,
            _ => tpm_error(error, "TPM2_Load", None),
        })?;
    let mut loaded = Loaded::transient(&mut primary, key);
    let sessions = (Some(AuthSession::Password), Some(AuthSession::Password), None);
    let answer = loaded
        .execute_with_sessions(sessions, |context| {
            context.certify(key.into(), attestation.key, data, SignatureScheme::Null)
        })
        .map_err(|error| ak_error(error, COMMAND))?;
    signed(&answer, COMMAND)
}

pub(super) fn quote(
    context: &mut Context,
    attestation: &Attestation,
    qualifying_data: &[u8],
    wanted: &PcrSelection,
) -> Result<SignedAttest, TpmError> {
    const COMMAND: &str = "TPM2_Quote";
    let data = data(qualifying_data)?;
    let list = selection(wanted.iter())?;
    let answer = with_password(context, |context| {
        context.quote(attestation.key, data, SignatureScheme::Null, list)
    })
    .map_err(|error| ak_error(error, COMMAND))?;
    signed(&answer, COMMAND)
}

/// The storage primary of the NULL hierarchy, the same until the next TPM reset.
fn null_primary(context: &mut Context) -> Result<(Loaded<'_>, Public), TpmError> {
    const COMMAND: &str = "TPM2_CreatePrimary";
    let template = to_tss(&template::null_primary(), "the NULL primary template")?;
    let created = with_password(context, |context| {
        context.create_primary(TssHierarchy::Null, template, None, None, None, None)
    })
    .map_err(|error| tpm_error(error, COMMAND, Some(Hierarchy::Null)))?;
    let loaded = Loaded::transient(context, created.key_handle);
    let public = from_tss(&created.out_public, COMMAND)?;
    Ok((loaded, public))
}

/// Loads the endorsement key for another use.
fn reload<'c>(context: &'c mut Context, parent: &Parent) -> Result<Loaded<'c>, TpmError> {
    match parent {
        Parent::Persistent(handle) => {
            let object = nv::open(context, *handle)?;
            Ok(Loaded::permanent(context, object))
        }
        Parent::Saved { context: saved, template } => {
            if let Some(saved) = saved.as_ref() {
                let restored =
                    context.execute_without_session(|context| context.context_load(saved.clone()));
                match restored {
                    Ok(handle) => return Ok(Loaded::transient(context, handle)),
                    Err(error) => match response::kind(&error) {
                        Some(Kind::ObjectMemory | Kind::ObjectHandles) => {
                            return Err(tpm_error(error, "TPM2_ContextLoad", None));
                        }
                        Some(_) => {
                            tracing::debug!(%error, "the endorsement key is made again");
                        }
                        None => return Err(tpm_error(error, "TPM2_ContextLoad", None)),
                    },
                }
            }
            ek::create(context, template).map(|(loaded, _)| loaded)
        }
    }
}

/// How the parent's use is authorized in one command.
enum ParentAuth {
    Password,
    Policy { session: PolicySession, or: Option<DigestList> },
}

impl ParentAuth {
    /// Satisfies the policy anew: a policy session forgets at every use.
    fn authorize(&self, context: &mut Context) -> Result<AuthSession, TpmError> {
        match self {
            Self::Password => Ok(AuthSession::Password),
            Self::Policy { session, or } => {
                with_password(context, |context| {
                    context.policy_secret(
                        *session,
                        AuthHandle::Endorsement,
                        Nonce::default(),
                        TssDigest::default(),
                        Nonce::default(),
                        None,
                    )
                })
                .map_err(|error| {
                    tpm_error(error, "TPM2_PolicySecret", Some(Hierarchy::Endorsement))
                })?;
                if let Some(branches) = or {
                    context
                        .execute_without_session(|context| {
                            context.policy_or(*session, branches.clone())
                        })
                        .map_err(|error| tpm_error(error, "TPM2_PolicyOR", None))?;
                }
                Ok((*session).into())
            }
        }
    }
}

/// Runs `f` with the right authorization for the endorsement key.
///
/// A key of the high range takes its empty password, in one command less; a TPM in dictionary attack
/// lockout refuses passwords of such a key, and then its policy is used, which no lockout stops.
fn with_parent<T>(
    context: &mut Context,
    usage: EkUse,
    alg: HashAlg,
    mut f: impl FnMut(&mut Context, &ParentAuth) -> Result<T, TpmError>,
) -> Result<T, TpmError> {
    let or = match usage {
        EkUse::Password => return f(context, &ParentAuth::Password),
        EkUse::PolicySecret => None,
        EkUse::PasswordOrPolicy(first, second) => {
            match f(context, &ParentAuth::Password) {
                Err(TpmError::Lockout { .. } | TpmError::Response { .. }) => {}
                other => return other,
            }
            let mut branches = DigestList::new();
            for policy in [first, second] {
                let digest = TssDigest::try_from(policy)
                    .map_err(|error| tpm_error(error, "TPM2_PolicyOR", None))?;
                branches.add(digest).map_err(|error| tpm_error(error, "TPM2_PolicyOR", None))?;
            }
            Some(branches)
        }
    };
    let (mut guard, session) = policy_session(context, alg)?;
    f(&mut guard, &ParentAuth::Policy { session, or })
}

fn policy_session(
    context: &mut Context,
    alg: HashAlg,
) -> Result<(Loaded<'_>, PolicySession), TpmError> {
    const COMMAND: &str = "TPM2_StartAuthSession";
    let started = context
        .execute_without_session(|context| {
            context.start_auth_session(
                None,
                None,
                None,
                SessionType::Policy,
                SymmetricDefinition::Null,
                hashing(alg),
            )
        })
        .map_err(|error| tpm_error(error, COMMAND, None))?
        .ok_or_else(|| TpmError::Malformed { command: COMMAND, detail: "no session".to_owned() })?;
    let guard = Loaded::transient(context, ObjectHandle::from(SessionHandle::from(started)));
    let session =
        PolicySession::try_from(started).map_err(|error| tpm_error(error, COMMAND, None))?;
    Ok((guard, session))
}

/// Errors of commands whose first key is the attestation key.
fn ak_error(error: Error, command: &'static str) -> TpmError {
    match response::kind(&error) {
        Some(Kind::ReferenceH0 | Kind::ReferenceH1 | Kind::Handle) => TpmError::KeyLost { command },
        _ => tpm_error(error, command, None),
    }
}

fn data(bytes: &[u8]) -> Result<Data, TpmError> {
    Data::try_from(bytes).map_err(|_| TpmError::Input {
        what: "qualifyingData",
        detail: format!("{} bytes, at most {}", bytes.len(), Data::MAX_SIZE),
    })
}

fn signed(answer: &(Attest, Signature), command: &'static str) -> Result<SignedAttest, TpmError> {
    let malformed = |error: Error| tpm_error(error, command, None);
    Ok(SignedAttest {
        attest: answer.0.marshall().map_err(malformed)?,
        signature: answer.1.marshall().map_err(malformed)?,
    })
}
