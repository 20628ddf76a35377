//! A unified kernel image: systemd's EFI stub with command line, initrd and kernel as sections.
//!
//! # Source
//! systemd's `systemd-stub(7)`; Microsoft's "PE Format" for the header fields read here.

use std::{fs, path::Path, process::Command};

use crate::{
    machine::{
        MachineError, Parts,
        initrd::{read, run},
    },
    swtpm::io,
};

/// OVMF's documentation prints the passphrase of its test key.
const SIGNING_PASSPHRASE: &str = "pass:snakeoil";
/// What `.osrel` says.
const OS_RELEASE: &str = "ID=assay-test\nPRETTY_NAME=\"Assay test machine\"\n";

/// What goes into an image.
#[derive(Clone, Debug)]
pub(super) struct Sections {
    pub(super) command_line: String,
    pub(super) initrd: Vec<u8>,
    pub(super) kernel: Vec<u8>,
    /// Further sections, by name.
    pub(super) others: Vec<(&'static str, Vec<u8>)>,
}

/// Writes the image to `out`.
pub(super) fn assemble(
    parts: &Parts,
    sections: &Sections,
    is_signed: bool,
    out: &Path,
) -> Result<(), MachineError> {
    let folder = io("creating a folder", tempfile::tempdir)?;
    let at = |name: &str| folder.path().join(name);
    let layout = Layout::of(&read(&parts.stub)?)?;
    let mut address = layout.end;
    let mut command = Command::new("objcopy");
    // The stub's symbols would stand behind the last section, in nobody's hash.
    command.arg("--strip-all");
    let others = sections.others.iter().map(|(name, content)| (*name, content.as_slice()));
    // The kernel last: it may unpack itself beyond its own end.
    for (name, content) in [
        (".osrel", OS_RELEASE.as_bytes()),
        (".cmdline", sections.command_line.as_bytes()),
        (".initrd", &sections.initrd),
    ]
    .into_iter()
    .chain(others)
    .chain([(".linux", sections.kernel.as_slice())])
    {
        let file = at(name);
        io("writing a section", || fs::write(&file, content))?;
        command.arg("--add-section").arg(format!("{name}={}", file.display()));
        let target = layout.base + address;
        command.arg("--change-section-vma").arg(format!("{name}={target:#x}"));
        address = (address + content.len() as u64).next_multiple_of(layout.alignment);
    }
    let unsigned = at("image.efi");
    run(command.arg(&parts.stub).arg(&unsigned))?;
    let mut program = read(&unsigned)?;
    forget_time(&mut program);
    io("writing the image", || fs::write(&unsigned, program))?;
    if !is_signed {
        io("keeping the image", || fs::copy(&unsigned, out))?;
        return Ok(());
    }
    let key = at("key.pem");
    run(Command::new("openssl")
        .args(["pkey", "-passin", SIGNING_PASSPHRASE, "-in"])
        .arg(&parts.signing_key)
        .arg("-out")
        .arg(&key))?;
    let mut sign = Command::new("sbsign");
    sign.arg("--key").arg(key).arg("--cert").arg(&parts.signing_certificate);
    run(sign.arg("--output").arg(out).arg(unsigned))?;
    Ok(())
}

/// Where a PE program's sections may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// ImageBase: objcopy's addresses count it in.
    base: u64,
    /// End of the last section, aligned.
    end: u64,
    /// SectionAlignment, at least a page.
    alignment: u64,
}

/// Firmware protects pages, so that sections begin at new ones.
const PAGE: u64 = 4096;

impl Layout {
    fn of(program: &[u8]) -> Result<Self, MachineError> {
        Self::read(program)
            .ok_or_else(|| MachineError::Shape("systemd's EFI stub is no 64-bit PE program".into()))
    }

    fn read(program: &[u8]) -> Option<Self> {
        const PE32_PLUS: u64 = 0x20b;
        let header = usize::try_from(number(program, 0x3c, 4)?).ok()?;
        if program.get(header..header + 4)? != b"PE\0\0" {
            return None;
        }
        let sections = number(program, header + 6, 2)?;
        let optional = header + 24;
        let optional_len = usize::try_from(number(program, header + 20, 2)?).ok()?;
        if number(program, optional, 2)? != PE32_PLUS {
            return None;
        }
        let base = number(program, optional + 24, 8)?;
        let alignment = number(program, optional + 32, 4)?.max(PAGE);
        let mut end = 0;
        for index in 0..usize::try_from(sections).ok()? {
            let section = optional + optional_len + index * 40;
            let size = number(program, section + 8, 4)?;
            end = end.max(number(program, section + 12, 4)? + size);
        }
        Some(Self { base, end: end.next_multiple_of(alignment), alignment })
    }
}

/// objcopy writes the time into the header (TimeDateStamp): the same parts would make another image, with
/// another digest, each second.
fn forget_time(program: &mut [u8]) {
    let header = number(program, 0x3c, 4).and_then(|at| usize::try_from(at).ok());
    if let Some(time) = header.and_then(|header| program.get_mut(header + 8..header + 12)) {
        time.fill(0);
    }
}

fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_of_a_pe_program_is_read() {
        let mut program = vec![0; 0x200];
        program[0x3c] = 0x40;
        program[0x40..0x44].copy_from_slice(b"PE\0\0");
        program[0x46] = 1;
        program[0x54] = 0xf0;
        program[0x58..0x5a].copy_from_slice(&[0x0b, 0x02]);
        program[0x58 + 32..0x58 + 34].copy_from_slice(&[0x00, 0x02]);
        let section = 0x58 + 0xf0;
        program[section + 8..section + 10].copy_from_slice(&[0x34, 0x12]);
        program[section + 12..section + 15].copy_from_slice(&[0x00, 0x90, 0x01]);
        let layout = Layout::of(&program).expect("PE");
        assert_eq!(layout, Layout { base: 0, end: 0x1_b000, alignment: PAGE });
        program[0x48] = 7;
        forget_time(&mut program);
        assert_eq!(program[0x48], 0);
        program[0x41] = b'X';
        assert!(matches!(Layout::of(&program), Err(MachineError::Shape(_))));
    }
}
