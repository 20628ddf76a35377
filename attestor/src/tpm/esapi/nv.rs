//! Reading NV indexes: certificates, templates and nonces of the manufacturer.

use tss_esapi::{
    Context,
    constants::PropertyTag,
    handles::{NvIndexHandle, NvIndexTpmHandle, ObjectHandle, TpmHandle},
    interface_types::resource_handles::NvAuth,
    structures::MaxNvBuffer,
};

use super::{
    Loaded, facts,
    response::{Hierarchy, tpm_error},
    with_password,
};
use crate::tpm::TpmError;

/// First NV index that TCG reserves for certificates of the platform and the TPM.
const TCG_FIRST: u32 = 0x01c0_0000;
/// First index of certificate chains; each holds a piece of one run of DER certificates.
const CHAIN_FIRST: u32 = 0x01c0_0100;
const CHAIN_LAST: u32 = 0x01c0_01ff;
/// Platform certificates.
const PLATFORM_FIRST: u32 = 0x01c0_8000;
const PLATFORM_LAST: u32 = 0x01c0_ffff;
/// Largest content that is read: chains of real TPMs have up to 6 kB in several indexes.
const MAX_NV_BYTES: u16 = 16 * 1024;
/// Used where the TPM does not say its `TPM_PT_NV_BUFFER_MAX`: every TPM reads this much at once.
const DEFAULT_CHUNK_BYTES: u16 = 512;

/// NV indexes defined in TCG's certificate range, ascending: one TPM command.
#[derive(Clone, Debug, Default)]
pub(super) struct NvIndexes(Vec<u32>);

impl NvIndexes {
    pub(super) fn list(context: &mut Context) -> Result<Self, TpmError> {
        let mut out: Vec<u32> = facts::handles(context, TCG_FIRST)?
            .into_iter()
            .map(u32::from)
            .filter(|index| (TCG_FIRST..=PLATFORM_LAST).contains(index))
            .collect();
        out.sort_unstable();
        Ok(Self(out))
    }

    pub(super) fn has(&self, index: u32) -> bool {
        self.0.binary_search(&index).is_ok()
    }

    pub(super) fn chain(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied().filter(|index| (CHAIN_FIRST..=CHAIN_LAST).contains(index))
    }

    pub(super) fn platform(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied().filter(|index| (PLATFORM_FIRST..=PLATFORM_LAST).contains(index))
    }

    /// Indexes between the low range and the chains, where endorsement certificates stand.
    pub(super) fn endorsement(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied().filter(|index| (TCG_FIRST..CHAIN_FIRST).contains(index))
    }
}

/// The content of one index; `None` where it is defined and was never written.
///
/// Read with the index's own empty password where that is allowed, else with the owner's.
pub(super) fn read(context: &mut Context, index: u32) -> Result<Option<Vec<u8>>, TpmError> {
    const COMMAND: &str = "TPM2_NV_Read";
    let unreadable = |detail: String| TpmError::NvUnreadable { index, detail };
    let handle = NvIndexTpmHandle::new(index)
        .map_err(|error| tpm_error(error, "TPM2_NV_ReadPublic", None))?;
    let object = context
        .execute_without_session(|context| context.tr_from_tpm_public(TpmHandle::NvIndex(handle)))
        .map_err(|error| tpm_error(error, "TPM2_NV_ReadPublic", None))?;
    let mut loaded = Loaded::permanent(context, object);
    let nv: NvIndexHandle = loaded.handle.into();
    let (public, _) = loaded
        .execute_without_session(|context| context.nv_read_public(nv))
        .map_err(|error| tpm_error(error, "TPM2_NV_ReadPublic", None))?;
    let attributes = public.attributes();
    if !attributes.written() {
        return Ok(None);
    }
    let (auth, hierarchy) = if attributes.auth_read() {
        (NvAuth::NvIndex(nv), None)
    } else if attributes.owner_read() {
        (NvAuth::Owner, Some(Hierarchy::Owner))
    } else {
        return Err(unreadable("only the firmware or a policy may read it".to_owned()));
    };
    let size = u16::try_from(public.data_size()).unwrap_or(u16::MAX);
    if size > MAX_NV_BYTES {
        return Err(unreadable(format!("it has {size} bytes, at most {MAX_NV_BYTES} are read")));
    }
    let chunk = chunk_bytes(&mut loaded)?;
    let mut out = Vec::with_capacity(usize::from(size));
    let mut offset: u16 = 0;
    while offset < size {
        let len = chunk.min(size.saturating_sub(offset));
        let part = with_password(&mut loaded, |context| context.nv_read(auth, nv, len, offset))
            .map_err(|error| tpm_error(error, COMMAND, hierarchy))?;
        if part.len() != usize::from(len) {
            return Err(unreadable(format!("{} bytes came where {len} were asked", part.len())));
        }
        out.extend_from_slice(&part);
        offset = offset.saturating_add(len);
    }
    Ok(Some(out))
}

/// Bytes that one `TPM2_NV_Read` may ask for. tss-esapi keeps the property after the first call.
fn chunk_bytes(context: &mut Context) -> Result<u16, TpmError> {
    let max = context
        .get_tpm_property(PropertyTag::NvBufferMax)
        .map_err(|error| tpm_error(error, "TPM2_GetCapability", None))?;
    let library = u16::try_from(MaxNvBuffer::MAX_SIZE).unwrap_or(DEFAULT_CHUNK_BYTES);
    Ok(match max.map(u16::try_from) {
        Some(Ok(max)) if max > 0 => max.min(library),
        Some(Err(_)) => library,
        _ => DEFAULT_CHUNK_BYTES,
    })
}

/// Persistent objects whose handle is in the range that TCG gives the endorsement hierarchy.
pub(super) fn persistent_endorsement(context: &mut Context) -> Result<Vec<TpmHandle>, TpmError> {
    const FIRST: u32 = 0x8101_0000;
    const LAST: u32 = 0x8101_ffff;
    Ok(facts::handles(context, FIRST)?
        .into_iter()
        .filter(|handle| (FIRST..=LAST).contains(&u32::from(*handle)))
        .collect())
}

/// An object for a handle in the TPM, not loaded by us.
pub(super) fn open(context: &mut Context, handle: TpmHandle) -> Result<ObjectHandle, TpmError> {
    context
        .execute_without_session(|context| context.tr_from_tpm_public(handle))
        .map_err(|error| tpm_error(error, "TPM2_ReadPublic", None))
}
