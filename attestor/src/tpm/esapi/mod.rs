//! [`Tpm`] over libtss2's ESAPI. Nothing outside this directory knows `tss_esapi`.

mod ek;
mod facts;
mod keys;
mod nv;
mod pcr;
mod response;

use std::ops::{Deref, DerefMut};

use proto::{
    digest::{Digest, PcrIndex, PcrSelection},
    tpm::public::Public,
};
use tss_esapi::{
    Context, Error,
    handles::{AuthHandle, KeyHandle, ObjectHandle, TpmHandle},
    interface_types::session_handles::AuthSession,
    structures::{Auth, Public as TssPublic},
    tcti_ldr::TctiNameConf,
    traits::{Marshall as _, UnMarshall as _},
};
use zeroize::Zeroizing;

use super::{
    EndorsementSurvey, Identity, NodeKey, PcrValue, SignedAttest, Tpm, TpmConfig, TpmError,
    TpmFacts,
};
use keys::Attestation;
use response::tpm_error;

/// A TPM behind libtss2.
///
/// Dropping it flushes what is loaded and closes the connection.
#[derive(Debug)]
pub struct EsapiTpm {
    context: Context,
    config: TpmConfig,
    attestation: Option<Attestation>,
}

impl EsapiTpm {
    /// Opens the connection. Sends no TPM command.
    ///
    /// # Errors
    /// [`TpmError::Absent`] with what was found and what to do.
    pub fn open(config: TpmConfig) -> Result<Self, TpmError> {
        let absent = || {
            let diagnosis = config.tcti.diagnose();
            TpmError::Absent {
                tcti: config.tcti.to_string(),
                what: diagnosis.what,
                remedy: diagnosis.remedy,
            }
        };
        let name: TctiNameConf = config.tcti.to_string().parse().map_err(|_| absent())?;
        let mut context = Context::new(name).map_err(|_| absent())?;
        for (handle, auth) in [
            (AuthHandle::Endorsement, &config.endorsement_auth),
            (AuthHandle::Owner, &config.owner_auth),
        ] {
            if !auth.is_empty() {
                let auth = Auth::try_from(auth.as_slice()).map_err(|_| TpmError::Input {
                    what: "the hierarchy password",
                    detail: format!("{} bytes, at most {}", auth.len(), Auth::MAX_SIZE),
                })?;
                context
                    .tr_set_auth(handle.into(), auth)
                    .map_err(|error| tpm_error(error, "Esys_TR_SetAuth", None))?;
            }
        }
        Ok(Self { context, config, attestation: None })
    }

    /// Runs `step`; where the TPM has no free slot and nobody manages them for us, frees what a
    /// killed predecessor left behind and tries once more.
    fn with_slots<T>(
        &mut self,
        mut step: impl FnMut(&mut Self) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        match step(self) {
            Err(TpmError::NoSlot { command }) if self.config.tcti.is_direct() => {
                let freed = self.flush_strangers()?;
                tracing::warn!(
                    freed,
                    command,
                    "freed TPM slots that an earlier process left behind"
                );
                if freed == 0 { Err(TpmError::NoSlot { command }) } else { step(self) }
            }
            other => other,
        }
    }

    /// Flushes every transient object that is not ours; their number.
    fn flush_strangers(&mut self) -> Result<usize, TpmError> {
        let own = self.attestation.as_ref().map(|attestation| attestation.name.clone());
        let mut freed = 0;
        for handle in facts::handles(&mut self.context, facts::TRANSIENT_FIRST)? {
            if !matches!(handle, TpmHandle::Transient(_)) {
                continue;
            }
            let mut object = nv::open(&mut self.context, handle)?;
            let name = self
                .context
                .tr_get_name(object)
                .map_err(|error| tpm_error(error, "Esys_TR_GetName", None))?;
            if own.as_deref() == Some(name.value()) {
                // A second record of our own key: forget it. tss-esapi complains that it was not
                // flushed, which is the point.
                let _ = self.context.tr_close(&mut object);
                continue;
            }
            self.context
                .flush_context(object)
                .map_err(|error| tpm_error(error, "TPM2_FlushContext", None))?;
            freed += 1;
        }
        Ok(freed)
    }
}

impl Tpm for EsapiTpm {
    fn facts(&mut self) -> Result<TpmFacts, TpmError> {
        facts::read(&mut self.context)
    }

    fn survey_endorsement(&mut self) -> Result<EndorsementSurvey, TpmError> {
        self.with_slots(|tpm| ek::survey(&mut tpm.context, &tpm.config))
    }

    fn enroll(&mut self) -> Result<Identity, TpmError> {
        self.drop_attestation();
        let (attestation, identity) =
            self.with_slots(|tpm| keys::enroll(&mut tpm.context, &tpm.config))?;
        self.attestation = Some(attestation);
        Ok(identity)
    }

    fn activate_credential(
        &mut self,
        id_object: &[u8],
        encrypted_secret: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.with_slots(|tpm| {
            let attestation = tpm.attestation.as_ref().ok_or(TpmError::NotEnrolled)?;
            keys::activate(&mut tpm.context, attestation, id_object, encrypted_secret)
        })
        .map_err(|error| self.noticed(error))
    }

    fn create_node_key(&mut self) -> Result<NodeKey, TpmError> {
        self.with_slots(|tpm| keys::create_node_key(&mut tpm.context))
    }

    fn certify_node_key(
        &mut self,
        node_key: &NodeKey,
        qualifying_data: &[u8],
    ) -> Result<SignedAttest, TpmError> {
        self.with_slots(|tpm| {
            let attestation = tpm.attestation.as_ref().ok_or(TpmError::NotEnrolled)?;
            keys::certify(&mut tpm.context, attestation, node_key, qualifying_data)
        })
        .map_err(|error| self.noticed(error))
    }

    fn quote(
        &mut self,
        qualifying_data: &[u8],
        selection: &PcrSelection,
    ) -> Result<SignedAttest, TpmError> {
        let attestation = self.attestation.as_ref().ok_or(TpmError::NotEnrolled)?;
        keys::quote(&mut self.context, attestation, qualifying_data, selection)
            .map_err(|error| self.noticed(error))
    }

    fn read_pcrs(&mut self, selection: &PcrSelection) -> Result<Vec<PcrValue>, TpmError> {
        pcr::read(&mut self.context, selection)
    }

    fn extend(&mut self, index: PcrIndex, digests: &[Digest]) -> Result<(), TpmError> {
        pcr::extend(&mut self.context, index, digests)
    }
}

impl EsapiTpm {
    /// Forgets an attestation key that the TPM no longer has.
    fn noticed(&mut self, error: TpmError) -> TpmError {
        if matches!(error, TpmError::KeyLost { .. }) {
            self.attestation = None;
        }
        error
    }

    /// Flushes the attestation key of an earlier enrollment.
    fn drop_attestation(&mut self) {
        if let Some(attestation) = self.attestation.take() {
            // It may be gone already, after a reset.
            if let Err(error) = self.context.flush_context(attestation.key.into()) {
                tracing::debug!(%error, "the earlier attestation key was not there to flush");
            }
        }
    }
}

/// An object or session that is released when this guard goes, whatever happened meanwhile.
///
/// Guards nest: the inner one borrows the outer one, so that release happens in reverse order.
struct Loaded<'c> {
    context: &'c mut Context,
    handle: ObjectHandle,
    release: Release,
}

#[derive(Clone, Copy, Debug)]
enum Release {
    /// `TPM2_FlushContext`: it takes a slot.
    Flush,
    /// Only libtss2's own record: persistent objects and NV indexes stay in the TPM.
    Close,
}

impl<'c> Loaded<'c> {
    fn transient(context: &'c mut Context, handle: impl Into<ObjectHandle>) -> Self {
        Self { context, handle: handle.into(), release: Release::Flush }
    }

    fn permanent(context: &'c mut Context, handle: ObjectHandle) -> Self {
        Self { context, handle, release: Release::Close }
    }

    /// Leaves the object loaded: whoever gets the handle releases it.
    fn keep(self) -> (ObjectHandle, Release) {
        let parts = (self.handle, self.release);
        std::mem::forget(self);
        parts
    }

    fn key(&self) -> KeyHandle {
        self.handle.into()
    }
}

impl Deref for Loaded<'_> {
    type Target = Context;

    fn deref(&self) -> &Context {
        self.context
    }
}

impl DerefMut for Loaded<'_> {
    fn deref_mut(&mut self) -> &mut Context {
        self.context
    }
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        let outcome = match self.release {
            Release::Flush => self.context.flush_context(self.handle),
            Release::Close => self.context.tr_close(&mut self.handle),
        };
        if let Err(error) = outcome {
            // A broken connection, or a TPM that was reset: there is nothing left to release.
            tracing::debug!(%error, "a TPM object could not be released");
        }
    }
}

/// Runs `f` with an empty (or set) password as the only authorization: no session is opened.
fn with_password<T>(
    context: &mut Context,
    f: impl FnOnce(&mut Context) -> Result<T, Error>,
) -> Result<T, Error> {
    context.execute_with_session(Some(AuthSession::Password), f)
}

/// A `TPMT_PUBLIC` of ours for the TSS.
fn to_tss(template: &[u8], what: &'static str) -> Result<TssPublic, TpmError> {
    TssPublic::unmarshall(template)
        .map_err(|error| TpmError::Input { what, detail: error.to_string() })
}

/// A public area from the TPM in our own type.
fn from_tss(public: &TssPublic, command: &'static str) -> Result<Public, TpmError> {
    let bytes = public.marshall().map_err(|error| tpm_error(error, command, None))?;
    Public::decode(&bytes)
        .map_err(|error| TpmError::Malformed { command, detail: error.to_string() })
}
