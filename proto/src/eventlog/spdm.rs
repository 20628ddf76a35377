//! `DEVICE_SECURITY_EVENT_DATA`: devices that were measured or authenticated by SPDM (PCR 2 and 3).

use super::reader::{DataError, LeReader};

/// The header of a device event; what follows it differs by version and is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSecurityEvent {
    /// 1: "SPDM Device Sec", 2: "SPDM Device Sec2".
    pub version: u8,
    /// First version: 1 for PCI, 2 for USB devices.
    pub device_type: Option<u32>,
}

impl DeviceSecurityEvent {
    /// Reads an event's data.
    ///
    /// # Errors
    /// [`DataError`] if it has neither signature, or ends inside the header.
    pub fn read(bytes: &[u8]) -> Result<Self, DataError> {
        let mut reader = LeReader::new(bytes);
        match reader.bytes(16, "device event signature")? {
            b"SPDM Device Sec\0" => {
                reader.bytes(8, "device event header")?;
                Ok(Self { version: 1, device_type: Some(reader.u32("device type")?) })
            }
            b"SPDM Device Sec2" => {
                reader.bytes(4, "device event header")?;
                Ok(Self { version: 2, device_type: None })
            }
            _ => Err(reader.error("device event signature")),
        }
    }
}
