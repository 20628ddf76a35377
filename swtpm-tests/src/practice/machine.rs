//! What a worker of the practice environment is: its TPM's port and what its firmware is set to.
//!
//! It is a file in the worker's folder, so that each run of `worker` finds what the one before left.

use std::{fmt, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    cluster::AnyError,
    efi::Program,
    firmware::Firmware,
    raw::{Bank, RawTpm},
    swtpm::reset_at,
};

const FILE: &str = "machine.toml";
/// Where the attestor's configuration says the firmware's log is.
const LOG: &str = "binary_bios_measurements";

/// A worker's hardware, and what it is set to boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Machine {
    port: u16,
    firmware: String,
    secure_boot: bool,
    /// Names of the certificates in db.
    db: Vec<String>,
    /// Relative to the environment's folder.
    image: String,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port: _, firmware, secure_boot, db, image } = self;
        let secure_boot = if *secure_boot { "on" } else { "off" };
        write!(f, "firmware={firmware} secure-boot={secure_boot} db={} image={image}", db.join(","))
    }
}

impl Machine {
    /// As it is delivered.
    pub(super) fn new(port: u16, image: &str) -> Self {
        Self {
            port,
            firmware: "1.0".into(),
            secure_boot: true,
            db: vec!["site-2025".into()],
            image: image.into(),
        }
    }

    pub(super) fn read(folder: &Path) -> Result<Self, AnyError> {
        Ok(toml::from_str(&fs::read_to_string(folder.join(FILE))?)?)
    }

    /// One setting, as `KEY=VALUE`; `None` if there is none like it.
    pub(super) fn set(&mut self, setting: &str) -> Option<()> {
        let (key, value) = setting.split_once('=')?;
        match (key, value) {
            (_, "") => return None,
            ("firmware", _) => self.firmware = value.to_owned(),
            ("secure-boot", "on") => self.secure_boot = true,
            ("secure-boot", "off") => self.secure_boot = false,
            ("db", _) => self.db = value.split(',').map(str::to_owned).collect(),
            ("image", _) => self.image = value.to_owned(),
            _ => return None,
        }
        Some(())
    }

    /// Power off and on, and firmware starts the image. Nothing is kept if the image cannot be booted.
    pub(super) fn boot(&self, root: &Path, folder: &Path) -> Result<(), AnyError> {
        let image = fs::read(root.join(&self.image))
            .map_err(|error| format!("cannot read {}: {error}", self.image))?;
        let image = Program::parse(image).map_err(|error| format!("{}: {error}", self.image))?;
        let certificate = |name: &String| format!("certificate of the signer {name}").into_bytes();
        let firmware = Firmware {
            version: format!("Assay Practice Firmware {}", self.firmware),
            firmware_code: format!("firmware volume {}", self.firmware).into_bytes(),
            secure_boot: self.secure_boot,
            db: self.db.iter().map(certificate).collect(),
            unified: Some(image),
            ..Firmware::default()
        };
        reset_at(self.port)?;
        let log = firmware.boot(RawTpm::at(self.port), &[Bank::Sha256])?;
        fs::write(folder.join(LOG), log)?;
        fs::write(folder.join(FILE), toml::to_string(self)?)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stay_until_they_are_changed() {
        let mut machine = Machine::new(2321, "images/a.efi");
        for setting in ["firmware=1.1", "secure-boot=off", "db=a,b", "image=images/b.efi"] {
            assert_eq!(machine.set(setting), Some(()), "{setting}");
        }
        assert_eq!(machine.to_string(), "firmware=1.1 secure-boot=off db=a,b image=images/b.efi");
        for setting in ["firmware", "firmware=", "secure-boot=maybe", "port=1", "color=red"] {
            assert_eq!(machine.set(setting), None, "{setting}");
        }
        let text = toml::to_string(&machine).expect("TOML");
        assert_eq!(toml::from_str::<Machine>(&text).expect("TOML"), machine);
    }
}
