//! A unified kernel image: what firmware, systemd-stub and the kernel inside measure of it.

use proto::digest::HashAlg;

use super::{
    artifact::{ArtifactError, application},
    cpio,
    kernel::{self, Version},
    measured::{APPLICATIONS_PCR, INITRD_PCR, Measured, Role, SECTIONS_PCR, Unknown},
    pe::{Content, Image},
    stub::Stub,
};

/// A unified kernel image.
#[derive(Debug)]
pub(super) struct Uki<'a> {
    pub(super) image: Image<'a>,
    pub(super) stub: Stub,
    kernel: Vec<u8>,
}

impl<'a> Uki<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ArtifactError> {
        let image = Image::parse(bytes)?;
        let linux = image.section(".linux")?.ok_or(ArtifactError::NoKernel)?;
        let kernel = linux.loaded()?.to_vec();
        let stub = Stub::of(&image)?;
        Ok(Self { image, stub, kernel })
    }

    /// Content of a section; a section without bytes is one that is not there, for the stub too.
    pub(super) fn section(&self, name: &str) -> Result<Option<Content<'a>>, ArtifactError> {
        let content = self.image.section(name)?.map(|section| section.loaded()).transpose()?;
        Ok(content.filter(|content| !content.is_empty()))
    }

    pub(super) fn measured(&self, banks: &[HashAlg]) -> Result<Vec<Measured>, ArtifactError> {
        let mut out =
            vec![application(&self.image, Role::Application(0), "boot application", banks)];
        out.push(self.inner_kernel(banks)?);
        self.sections(banks, &mut out)?;
        let version = Version::of(&self.kernel);
        if version.measures_options() {
            out.extend(self.load_options(banks)?);
        }
        if version.measures_initrd() {
            out.extend(self.initrd(banks)?);
        }
        Ok(out)
    }

    /// Firmware measures the kernel inside where the stub has it loaded by `LoadImage` and Secure Boot is off: else
    /// the stub puts itself in the place of firmware's check, which is also what measures.
    fn inner_kernel(&self, banks: &[HashAlg]) -> Result<Measured, ArtifactError> {
        let what = "boot application inside of the kernel image";
        let role = Role::InnerKernel;
        if self.stub.may_load_kernel_itself() {
            let unknown = Unknown::KernelLoader { version: self.stub.0 };
            return Ok(Measured::unknown((APPLICATIONS_PCR, role), what, unknown));
        }
        let kernel = Image::parse(&self.kernel).map_err(ArtifactError::Kernel)?;
        Ok(application(&kernel, role, what, banks))
    }

    /// For each section its name with a zero byte, then its content.
    fn sections(&self, banks: &[HashAlg], out: &mut Vec<Measured>) -> Result<(), ArtifactError> {
        for name in self.stub.measured() {
            let Some(content) = self.section(name)? else { continue };
            let content = content.to_vec();
            let words = format!("kernel image section {name}");
            let place = |role| (SECTIONS_PCR, role);
            out.push(Measured::new(place(Role::SectionName(name)), &words, banks, |bank| {
                bank.hash(&[name.as_bytes(), &[0]])
            }));
            out.push(Measured::new(place(Role::Section(name)), words, banks, |bank| {
                bank.hash(&[&content])
            }));
        }
        for section in self.stub.chosen() {
            if self.image.sections().iter().any(|found| found.name() == section) {
                let place = (SECTIONS_PCR, Role::Section(section));
                let words = format!("kernel image section {section}");
                out.push(Measured::unknown(place, words, Unknown::DependsOnMachine { section }));
            }
        }
        Ok(())
    }

    fn load_options(&self, banks: &[HashAlg]) -> Result<Option<Measured>, ArtifactError> {
        let Some(content) = self.section(".cmdline")? else { return Ok(None) };
        Ok(Some(match passed_on(&content.to_vec()) {
            Some(text) => {
                let mut text = kernel::ucs2(&text);
                text.extend([0, 0]);
                kernel::options(&text, banks)
            }
            None => {
                let place = (INITRD_PCR, Role::LoadOptions);
                Measured::unknown(place, "kernel command line", Unknown::CommandLine)
            }
        }))
    }

    /// The section, and behind it the archives that the stub makes of others.
    fn initrd(&self, banks: &[HashAlg]) -> Result<Option<Measured>, ArtifactError> {
        let own = self.section(".initrd")?;
        let generates = self.stub.hands_over_more()
            && (self.section(".osrel")?.is_some() || self.section(".profile")?.is_some());
        if generates || self.section(".ucode")?.is_some() {
            let unknown = Unknown::GeneratedInitrd { version: self.stub.0 };
            let place = (INITRD_PCR, Role::Initrd);
            return Ok(Some(Measured::unknown(place, "initial RAM disk", unknown)));
        }
        let mut out = own.map(|content| content.to_vec()).unwrap_or_default();
        for (section, file) in
            [(".pcrsig", "tpm2-pcr-signature.json"), (".pcrpkey", "tpm2-pcr-public-key.pem")]
        {
            let Some(content) = self.section(section)? else { continue };
            // Padded only where something follows.
            cpio::pad(&mut out);
            out.extend(cpio::extra_file(file, &content.to_vec()));
        }
        Ok((!out.is_empty()).then(|| kernel::initrd(&[&out], banks)))
    }
}

/// The command line as the stub hands it to the kernel: up to a zero byte, without white space at its end, control
/// characters as spaces. `None` where versions differ: at its beginning they cut since 255 only, and beyond ASCII they
/// convert in different ways.
fn passed_on(section: &[u8]) -> Option<String> {
    let text = section.split(|byte| *byte == 0).next().unwrap_or_default();
    let is_space = |byte: u8| byte <= b' ';
    let first = text.first()?;
    if is_space(*first) || text.iter().any(|byte| !byte.is_ascii() || *byte == 0x7f) {
        return None;
    }
    let text = String::from_utf8(text.to_vec()).ok()?;
    let text = text.trim_end_matches(|letter: char| letter <= ' ');
    Some(text.chars().map(|letter| if letter < ' ' { ' ' } else { letter }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_passed_on_as_the_stub_does() {
        for (section, expected) in [
            (b"quiet".as_slice(), Some("quiet")),
            (b"quiet\n", Some("quiet")),
            (b"quiet\0", Some("quiet")),
            (b"a\tb \n\0 more", Some("a b")),
            (b" quiet", None),
            (b"", None),
            ("caf\u{e9}".as_bytes(), None),
        ] {
            assert_eq!(passed_on(section).as_deref(), expected, "{section:?}");
        }
    }
}
