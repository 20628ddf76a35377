//! What a machine boots, described; built once for each content and kept beside cargo's other output.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};

use crate::{
    machine::{
        InitialRamDisk, MachineError, Parts, Systemd,
        initrd::{Initrd, read},
        uki::{self, Sections},
    },
    swtpm::{HarnessError, io, not_installed},
};

/// Kernel log on the first serial port; a panic ends the machine instead of hanging it; IMA on from
/// the first program. The kernel does not test its timer, which an emulated processor on a busy host fails.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet no_timer_check ima_policy=tcb";
/// An IMA policy that measures every file that is executed, from the initrd too, which the built-in
/// policies leave out.
pub const EXECUTED_FILES: &str =
    "measure func=BPRM_CHECK mask=MAY_EXEC\nmeasure func=MMAP_CHECK mask=MAY_EXEC\n";
/// Images kept; each has about 20 MB, and every build of the attestor makes new ones.
const IMAGES_KEPT: usize = 24;

/// A unified kernel image under construction: Debian's kernel, and an initrd of busybox and whatever is
/// added.
#[derive(Clone, Debug)]
pub struct Image {
    parts: Parts,
    command_line: String,
    initrd: Initrd,
    kernel: Vec<u8>,
    others: Vec<(&'static str, Vec<u8>)>,
    is_signed: bool,
}

impl Image {
    /// A signed image with an initrd of busybox alone and IMA measuring [`EXECUTED_FILES`].
    ///
    /// # Errors
    /// A part cannot be read.
    pub fn new(parts: &Parts) -> Result<Self, MachineError> {
        let mut initrd = Initrd::new(parts)?;
        initrd.ima_policy(EXECUTED_FILES);
        Self::of(parts, initrd)
    }

    /// As [`Image::new`], with systemd as the first program of the root file system and, if told so, of the initrd.
    ///
    /// # Errors
    /// A part cannot be read.
    pub fn with_systemd(
        parts: &Parts,
        systemd: &Systemd,
        initial: InitialRamDisk,
    ) -> Result<Self, MachineError> {
        let mut initrd = systemd.initrd(parts, initial)?;
        initrd.ima_policy(EXECUTED_FILES);
        Self::of(parts, initrd)
    }

    fn of(parts: &Parts, initrd: Initrd) -> Result<Self, MachineError> {
        Ok(Self {
            command_line: COMMAND_LINE.into(),
            initrd,
            kernel: read(&parts.kernel)?,
            others: Vec::new(),
            is_signed: true,
            parts: parts.clone(),
        })
    }

    /// Appends to the kernel's command line.
    #[must_use]
    pub fn append_command_line(mut self, words: &str) -> Self {
        self.command_line.push(' ');
        self.command_line.push_str(words);
        self
    }

    /// Adds a program of this host with its libraries.
    ///
    /// # Errors
    /// The program or a library of it cannot be read.
    pub fn with_program(mut self, host: &Path, path: &str) -> Result<Self, MachineError> {
        self.initrd.program(host, path)?;
        Ok(self)
    }

    /// Adds a file to the initrd.
    #[must_use]
    pub fn with_file(mut self, path: &str, content: &[u8]) -> Self {
        self.initrd.insert(path, content.to_vec(), false);
        self
    }

    /// Adds a section that the stub knows, `.pcrpkey` for one.
    #[must_use]
    pub fn with_section(mut self, name: &'static str, content: &[u8]) -> Self {
        self.others.push((name, content.to_vec()));
        self
    }

    /// Gives another policy to IMA.
    #[must_use]
    pub fn with_ima_policy(mut self, policy: &str) -> Self {
        self.initrd.ima_policy(policy);
        self
    }

    /// Another kernel: one letter of the version text in its header differs. The header's text is
    /// shown by boot loaders and used by nothing, so that this kernel boots, and is not the same.
    ///
    /// # Errors
    /// The kernel has no such text.
    pub fn with_other_kernel(mut self) -> Result<Self, MachineError> {
        let shape = || MachineError::Shape("the kernel has no version text in its header".into());
        // `kernel_version` of the x86 boot protocol: offset of the text, less 0x200.
        let field = self.kernel.get(0x20e..0x210).ok_or_else(shape)?;
        let at = 0x200 + field.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte));
        let text = self.kernel.get_mut(at..at + 64).ok_or_else(shape)?;
        let letter = text.iter().position(u8::is_ascii_lowercase).ok_or_else(shape)?;
        let byte = text.get_mut(letter).ok_or_else(shape)?;
        byte.make_ascii_uppercase();
        Ok(self)
    }

    /// Leaves the signature out: firmware that enforces Secure Boot will not start it.
    #[must_use]
    pub const fn unsigned(mut self) -> Self {
        self.is_signed = false;
        self
    }

    /// The EFI program, built unless the same was built before.
    ///
    /// # Errors
    /// A program of the tool box fails, or a file cannot be written.
    pub fn build(&self) -> Result<PathBuf, MachineError> {
        let archive = self.initrd.archive();
        let stub = read(&self.parts.stub)?;
        let mut hash = Sha256::new();
        // How it is put together is part of what it is.
        hash.update(include_bytes!("uki.rs"));
        for part in [&stub, self.command_line.as_bytes(), &archive, &self.kernel] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        for (name, content) in &self.others {
            hash.update(name);
            hash.update(content.len().to_be_bytes());
            hash.update(content);
        }
        hash.update([u8::from(self.is_signed)]);
        let path = self.parts.cache.join(format!("{}.efi", hex::encode(hash.finalize())));
        if path.is_file() {
            return Ok(path);
        }
        let sections = Sections {
            command_line: self.command_line.clone(),
            initrd: compressed(&archive)?,
            kernel: self.kernel.clone(),
            others: self.others.clone(),
        };
        // Written beside and renamed, so that another process sees a whole image or none.
        let folder = io("creating a folder", || tempfile::tempdir_in(&self.parts.cache))?;
        let new = folder.path().join("image.efi");
        uki::assemble(&self.parts, &sections, self.is_signed, &new)?;
        io("keeping the image", || fs::rename(&new, &path))?;
        forget_old(&self.parts.cache);
        Ok(path)
    }
}

/// gzip without name and time, so that the same archive gives the same bytes.
fn compressed(archive: &[u8]) -> Result<Vec<u8>, MachineError> {
    let mut gzip = Command::new("gzip")
        .args(["-n", "-6", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| not_installed("gzip", source))?;
    let stdin = gzip.stdin.take();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A gzip that ended early says so by its status.
            let _ = stdin.map(|mut stdin| stdin.write_all(archive));
        });
        io("compressing the initrd", || gzip.wait_with_output())
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let output_text = String::from_utf8_lossy(&output.stderr).into_owned();
    let program = "gzip".to_owned();
    Err(HarnessError::Program { program, status: output.status, output: output_text }.into())
}

/// Removes the oldest images beyond [`IMAGES_KEPT`]; machines boot copies.
fn forget_old(cache: &Path) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    let age = |path: &PathBuf| {
        let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
        modified.unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let mut images: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "efi"))
        .collect();
    images.sort_by_cached_key(age);
    let surplus = images.len().saturating_sub(IMAGES_KEPT);
    for image in images.iter().take(surplus) {
        // Another process may have been faster.
        let _ = fs::remove_file(image);
    }
}
