//! `EV_NO_ACTION`: information in a log that no PCR vouches for.

use super::{guid::Guid, reader::LeReader, spec_id::SIGNATURE_PREFIX};

/// What an event of type `EV_NO_ACTION` tells.
///
/// # Source
/// PC Client Platform Firmware Profile, "EV_NO_ACTION Event Types".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoAction {
    /// `TCG_EfiSpecIDEvent`, wherever it stands.
    SpecId,
    /// `TCG_EfiStartupLocalityEvent`: the locality of `TPM2_Startup`.
    StartupLocality(u8),
    /// `TCG_Sp800_155_PlatformId_Event`, any version: where reference manifests are.
    Sp800_155 {
        /// IANA number of the platform's manufacturer.
        vendor_id: u32,
        /// The reference manifest.
        reference_manifest: Guid,
    },
    /// `NvIndexInstance` and `NvIndexDynamic`.
    NvIndex,
    /// H-CRTM information by a component descriptor.
    Hcrtm,
    /// Something else, also a known signature with a body that is too short.
    Other,
}

impl NoAction {
    /// Reads an event's data.
    #[must_use]
    pub fn read(data: &[u8]) -> Self {
        let Some((signature, body)) = data.split_at_checked(16) else { return Self::Other };
        let mut reader = LeReader::new(body);
        match signature {
            b"StartupLocality\0" => match body {
                [locality] => Self::StartupLocality(*locality),
                _ => Self::Other,
            },
            b"SP800-155 Event\0" | b"SP800-155 Event2" | b"SP800-155 Event3" => {
                let vendor_id = reader.u32("vendor");
                let reference_manifest = reader.guid("manifest");
                match (vendor_id, reference_manifest) {
                    (Ok(vendor_id), Ok(reference_manifest)) => {
                        Self::Sp800_155 { vendor_id, reference_manifest }
                    }
                    _ => Self::Other,
                }
            }
            b"NvIndexInstance\0" | b"NvIndexDynamic\0\0" => Self::NvIndex,
            b"H-CRTM CompMeas\0" => Self::Hcrtm,
            _ if signature.starts_with(SIGNATURE_PREFIX) => Self::SpecId,
            _ => Self::Other,
        }
    }
}
