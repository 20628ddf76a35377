//! Endorsement keys: which templates, certificates and persistent copies this TPM has.

use proto::{limits::MAX_CHAIN_CERTIFICATES, tpm::public::Public};
use tss_esapi::{
    Context,
    handles::{ObjectHandle, TpmHandle},
    interface_types::resource_handles::Hierarchy as TssHierarchy,
    structures::Public as TssPublic,
};

use super::{
    Loaded, Release, from_tss, nv,
    nv::NvIndexes,
    response::{Hierarchy, tpm_error},
    to_tss, with_password,
};
use crate::tpm::{
    EkPreference, EkTemplate, EndorsementKey, EndorsementSurvey, TpmConfig, TpmError,
    certificate::{certificate_holds, certificates_in, first_certificate, is_blank},
    template,
};

/// The endorsement key, loaded (or opened, where it is persistent).
pub(super) struct Endorsement<'c> {
    pub(super) loaded: Loaded<'c>,
    pub(super) key: EndorsementKey,
    pub(super) chain: Vec<Vec<u8>>,
    /// What the key can be made from again.
    pub(super) tss_template: TssPublic,
}

/// A key found by a search, still loaded.
struct Found {
    handle: ObjectHandle,
    release: Release,
    key: EndorsementKey,
    tss_template: TssPublic,
}

/// Chooses and loads the endorsement key after the preference.
pub(super) fn choose<'c>(
    context: &'c mut Context,
    config: &TpmConfig,
) -> Result<Endorsement<'c>, TpmError> {
    let indexes = NvIndexes::list(context)?;
    let mut tried = Vec::new();
    let found = match &config.ek_certificate {
        Some(certificate) => {
            with_certificate_file(context, config, &indexes, certificate, &mut tried)?
        }
        None => match with_certificate_in_nv(context, config, &indexes, &mut tried)? {
            Some(found) => Some(found),
            None => without_certificate(context, config, &indexes, &mut tried)?,
        },
    };
    let Some(Found { handle, release, key, tss_template }) = found else {
        let tried = if tried.is_empty() { "nothing to try".to_owned() } else { tried.join("; ") };
        return Err(if config.ek_certificate.is_some() {
            TpmError::CertificateMismatch { tried }
        } else {
            TpmError::NoEndorsementKey { wanted: config.ek.to_string(), tried }
        });
    };
    for line in tried {
        tracing::warn!("endorsement key passed over: {line}");
    }
    let mut loaded = Loaded { context, handle, release };
    let mut chain = config.ek_chain.clone();
    match read_chain(&mut loaded, &indexes) {
        Ok(from_nv) => chain.extend(from_nv),
        Err(error) if is_about_this_key(&error) => {
            tracing::warn!(%error, "certificate chain in NV passed over");
        }
        Err(error) => return Err(error),
    }
    chain.truncate(MAX_CHAIN_CERTIFICATES);
    Ok(Endorsement { loaded, key, chain, tss_template })
}

/// The configured certificate decides: the first template whose key it holds.
fn with_certificate_file(
    context: &mut Context,
    config: &TpmConfig,
    indexes: &NvIndexes,
    certificate: &[u8],
    tried: &mut Vec<String>,
) -> Result<Option<Found>, TpmError> {
    let persistent = nv::persistent_endorsement(context)?;
    for template in config.ek.templates() {
        let certificate = Some(certificate.to_vec());
        match load_matching(context, template, indexes, certificate, &persistent) {
            Ok(Ok(found)) => return Ok(Some(found)),
            Ok(Err(reason)) => tried.push(reason),
            Err(error) if is_about_this_key(&error) => {
                tried.push(TpmError::tried(template, &error))
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The best template whose certificate is in NV and holds the key that the template makes.
fn with_certificate_in_nv(
    context: &mut Context,
    config: &TpmConfig,
    indexes: &NvIndexes,
    tried: &mut Vec<String>,
) -> Result<Option<Found>, TpmError> {
    let mut persistent = None;
    for template in config.ek.templates() {
        if !indexes.has(template.certificate_index()) {
            continue;
        }
        let outcome = nv::read(context, template.certificate_index()).and_then(|certificate| {
            let Some(certificate) = certificate.filter(|bytes| !is_blank(bytes)) else {
                return Ok(Err(format!("{template}: its certificate index is empty")));
            };
            let persistent = match &persistent {
                Some(known) => known,
                None => persistent.insert(nv::persistent_endorsement(context)?),
            };
            load_matching(context, template, indexes, Some(certificate), persistent)
        });
        match outcome {
            Ok(Ok(found)) => return Ok(Some(found)),
            Ok(Err(reason)) => tried.push(reason),
            Err(error) if is_about_this_key(&error) => {
                tried.push(TpmError::tried(template, &error))
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// No certificate fits: a key by template alone, for a verifier that lists its digest.
fn without_certificate(
    context: &mut Context,
    config: &TpmConfig,
    indexes: &NvIndexes,
    tried: &mut Vec<String>,
) -> Result<Option<Found>, TpmError> {
    let templates = match config.ek {
        EkPreference::Auto => &[EkTemplate::L2, EkTemplate::L1],
        EkPreference::Only(algorithm) => algorithm.templates(),
    };
    for template in templates {
        match load_matching(context, *template, indexes, None, &[]) {
            Ok(Ok(found)) => return Ok(Some(found)),
            Ok(Err(reason)) => tried.push(reason),
            Err(error) if is_about_this_key(&error) => {
                tried.push(TpmError::tried(*template, &error))
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Loads the key of `template`: a persistent copy where one holds the certificate's key, else made
/// anew. The inner error says, in words, that the certificate is for another key.
fn load_matching(
    context: &mut Context,
    template: EkTemplate,
    indexes: &NvIndexes,
    certificate: Option<Vec<u8>>,
    persistent: &[TpmHandle],
) -> Result<Result<Found, String>, TpmError> {
    let bytes = template_bytes(context, template, indexes)?;
    let tss_template = to_tss(&bytes, "the endorsement key template")?;
    if let Some(certificate) = &certificate {
        for handle in persistent {
            let object = nv::open(context, *handle)?;
            let mut loaded = Loaded::permanent(context, object);
            let key = loaded.key();
            let (public, ..) = loaded
                .execute_without_session(|context| context.read_public(key))
                .map_err(|error| tpm_error(error, "TPM2_ReadPublic", None))?;
            // A persistent key of another kind is none of our business.
            let Ok(public) = from_tss(&public, "TPM2_ReadPublic") else { continue };
            if template::fits(&bytes, &public) && certificate_holds(certificate, &public) {
                let key = EndorsementKey {
                    template,
                    public,
                    certificate: Some(certificate.clone()),
                    persistent: Some(u32::from(*handle)),
                };
                let (handle, release) = loaded.keep();
                return Ok(Ok(Found { handle, release, key, tss_template }));
            }
        }
    }
    let (loaded, public) = create(context, &tss_template)?;
    if certificate.as_ref().is_some_and(|certificate| !certificate_holds(certificate, &public)) {
        return Ok(Err(format!(
            "{template} ({}): the certificate is for another key than this template makes",
            template.algorithm()
        )));
    }
    let key = EndorsementKey { template, public, certificate, persistent: None };
    let (handle, release) = loaded.keep();
    Ok(Ok(Found { handle, release, key, tss_template }))
}

/// `TPM2_CreatePrimary` in the endorsement hierarchy.
pub(super) fn create<'c>(
    context: &'c mut Context,
    template: &TssPublic,
) -> Result<(Loaded<'c>, Public), TpmError> {
    const COMMAND: &str = "TPM2_CreatePrimary";
    let created = with_password(context, |context| {
        context.create_primary(TssHierarchy::Endorsement, template.clone(), None, None, None, None)
    })
    .map_err(|error| tpm_error(error, COMMAND, Some(Hierarchy::Endorsement)))?;
    let loaded = Loaded::transient(context, created.key_handle);
    let public = from_tss(&created.out_public, COMMAND)?;
    Ok((loaded, public))
}

/// The manufacturer's template and nonce from NV where they are, else the profile's.
fn template_bytes(
    context: &mut Context,
    template: EkTemplate,
    indexes: &NvIndexes,
) -> Result<Vec<u8>, TpmError> {
    let mut read = |index: u32| {
        if indexes.has(index) {
            nv::read(context, index).map(|bytes| bytes.filter(|bytes| !is_blank(bytes)))
        } else {
            Ok(None)
        }
    };
    let bytes = match read(template.template_index())? {
        Some(own) => Public::decode(&own).map(|_| own).map_err(|error| TpmError::NvUnreadable {
            index: template.template_index(),
            detail: format!("it is not a template that is supported here: {error}"),
        })?,
        None => template.public(),
    };
    let Some(index) = template.nonce_index() else { return Ok(bytes) };
    let Some(nonce) = read(index)? else { return Ok(bytes) };
    template::with_nonce(&bytes, &nonce).ok_or_else(|| TpmError::NvUnreadable {
        index,
        detail: format!("a nonce of {} bytes does not fit the key", nonce.len()),
    })
}

/// Certificates of the chain indexes: one run of DER over all of them, in ascending order.
fn read_chain(context: &mut Context, indexes: &NvIndexes) -> Result<Vec<Vec<u8>>, TpmError> {
    let mut run = Vec::new();
    for index in indexes.chain() {
        run.extend(nv::read(context, index)?.unwrap_or_default());
    }
    Ok(certificates_in(&run))
}

/// Whether another endorsement key may still work after this error.
const fn is_about_this_key(error: &TpmError) -> bool {
    matches!(
        error,
        TpmError::Response { .. }
            | TpmError::NvUnreadable { .. }
            | TpmError::Malformed { .. }
            | TpmError::Unsupported { .. }
            | TpmError::Input { .. }
    )
}

/// Everything there is, for `attestor inspect`.
pub(super) fn survey(
    context: &mut Context,
    config: &TpmConfig,
) -> Result<EndorsementSurvey, TpmError> {
    let indexes = NvIndexes::list(context)?;
    let persistent = nv::persistent_endorsement(context)?;
    let mut out = EndorsementSurvey::default();
    let known: Vec<u32> = EkTemplate::ALL
        .into_iter()
        .flat_map(|template| {
            [
                Some(template.certificate_index()),
                Some(template.template_index()),
                template.nonce_index(),
            ]
        })
        .flatten()
        .collect();
    out.unknown_certificates =
        indexes.endorsement().filter(|index| !known.contains(index)).collect();
    for template in EkPreference::Auto.templates() {
        let in_nv = indexes.has(template.certificate_index());
        let fallback = matches!(template, EkTemplate::L1 | EkTemplate::L2);
        if !in_nv && !fallback {
            continue;
        }
        if let Err(error) = survey_one(context, template, &indexes, &persistent, &mut out) {
            if !is_about_this_key(&error) {
                return Err(error);
            }
            out.problems.push(TpmError::tried(template, &error));
        }
    }
    if let Some(certificate) = &config.ek_certificate
        && !out.keys.iter().any(|key| certificate_holds(certificate, &key.public))
    {
        out.problems.push(
            "the configured endorsement key certificate is not for a key of this TPM".to_owned(),
        );
    }
    match read_chain(context, &indexes) {
        Ok(chain) => out.chain = chain,
        Err(error) if is_about_this_key(&error) => out.problems.push(error.to_string()),
        Err(error) => return Err(error),
    }
    for index in indexes.platform() {
        match nv::read(context, index) {
            Ok(bytes) => {
                let bytes = bytes.unwrap_or_default();
                if let Some(certificate) = first_certificate(&bytes) {
                    out.platform_certificates.push((index, certificate.to_vec()));
                }
            }
            Err(error) if is_about_this_key(&error) => out.problems.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    Ok(out)
}

fn survey_one(
    context: &mut Context,
    template: EkTemplate,
    indexes: &NvIndexes,
    persistent: &[TpmHandle],
    out: &mut EndorsementSurvey,
) -> Result<(), TpmError> {
    let certificate = if indexes.has(template.certificate_index()) {
        nv::read(context, template.certificate_index())?.filter(|bytes| !is_blank(bytes))
    } else {
        None
    };
    let found = match load_matching(context, template, indexes, certificate, persistent)? {
        Ok(found) => found,
        Err(reason) => {
            out.problems.push(reason);
            return Ok(());
        }
    };
    drop(Loaded { context, handle: found.handle, release: found.release });
    out.keys.push(found.key);
    Ok(())
}
