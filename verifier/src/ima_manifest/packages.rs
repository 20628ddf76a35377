//! From Debian packages, unpacked by Debian's own program.
//!
//! `dpkg-deb --fsys-tarfile` writes a package's files as a tar stream, whatever they were compressed with.
//! It is there wherever packages are, follows each new compression, and its output is read here with a
//! bound: nothing is written to a disk. Readers for ar, xz, zstd and gzip would be four more crates that
//! parse foreign bytes.

use std::{
    collections::HashMap,
    io::{self, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use proto::digest::Digest;

use super::{
    CollectError, Collected, Progress, Selection,
    hash::Begun,
    select::{is_selected, names_of},
    tar::{Kind, TarError, TarReader},
};

const DPKG_DEB: &str = "dpkg-deb";

/// Files of packages.
///
/// # Errors
/// [`CollectError::ProgramMissing`] where dpkg-deb is not installed, [`CollectError::ProgramFailed`] for
/// what is no package, [`CollectError::Archive`] for one whose files cannot be read.
pub fn from_packages(
    files: &[PathBuf],
    selection: Selection,
    progress: Progress<'_>,
) -> Result<Collected, CollectError> {
    let mut out = Collected::default();
    for file in files {
        let source = describe(file)?;
        let mut child = start(file, &["--fsys-tarfile"])?;
        let stdout = child.stdout.take().ok_or_else(|| failed(file, "no output"))?;
        let read = take(&mut out, selection, file, BufReader::new(stdout), progress);
        let ended = finish(child, file);
        // What the program says explains a stream that ends too soon.
        ended?;
        read?;
        out.builder.source(source);
    }
    Ok(out)
}

/// Reads one package's files from its tar stream.
pub(super) fn take(
    out: &mut Collected,
    selection: Selection,
    package: &Path,
    stream: impl io::Read,
    progress: Progress<'_>,
) -> Result<(), CollectError> {
    let archive = |error: TarError| CollectError::Archive {
        file: package.to_path_buf(),
        what: error.to_string(),
    };
    // Hard links name an earlier file.
    let mut digests: HashMap<Vec<u8>, Digest> = HashMap::new();
    let mut tar = TarReader::new(stream);
    while let Some(mut entry) = tar.next_entry().map_err(archive)? {
        let digest = match &entry.kind {
            Kind::File => {
                let begun = Begun::new(&mut entry.content).map_err(CollectError::read(package))?;
                if !is_selected(selection, &entry.path, entry.mode, begun.head()) {
                    continue;
                }
                let (digest, size) =
                    begun.digest(selection.digest).map_err(CollectError::read(package))?;
                out.hashed_bytes = out.hashed_bytes.saturating_add(size);
                digest
            }
            Kind::HardLink(target) => match digests.get(target) {
                Some(digest) => *digest,
                None => continue,
            },
            Kind::Other => continue,
        };
        out.seen = out.seen.saturating_add(1);
        progress(out.seen);
        for name in names_of(&entry.path) {
            out.builder.file(&digest, &name);
        }
        digests.insert(entry.path, digest);
    }
    Ok(())
}

/// `package bash 5.2.15-2+b2 amd64`.
fn describe(file: &Path) -> Result<String, CollectError> {
    let format = "--showformat=${Package} ${Version} ${Architecture}";
    let mut child = start(file, &["--show", format])?;
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(1024).read_to_string(&mut text).map_err(CollectError::read(file))?;
    }
    finish(child, file)?;
    let plain: String = text.trim().chars().filter(|c| !c.is_control()).take(200).collect();
    Ok(format!("package {plain}"))
}

fn start(file: &Path, arguments: &[&str]) -> Result<Child, CollectError> {
    // A path that begins with a dash is no option.
    let path = if file.is_absolute() { file.to_path_buf() } else { Path::new(".").join(file) };
    Command::new(DPKG_DEB)
        .args(arguments)
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CollectError::ProgramMissing { program: DPKG_DEB },
            _ => failed(file, &error.to_string()),
        })
}

/// Waits for the program; an output that nobody reads any more is closed by now.
fn finish(mut child: Child, file: &Path) -> Result<(), CollectError> {
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        // Its last words are for the message alone.
        let _ = stderr.take(4096).read_to_string(&mut said);
    }
    let status = child.wait().map_err(|error| failed(file, &error.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(file, said.trim())) }
}

fn failed(file: &Path, message: &str) -> CollectError {
    let message = if message.is_empty() { "it gave no reason" } else { message };
    CollectError::ProgramFailed {
        program: DPKG_DEB,
        file: file.to_path_buf(),
        message: message.to_owned(),
    }
}
