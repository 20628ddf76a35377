//! Which files a kernel measures when they run.

use super::Selection;

/// Bytes of a file's beginning that decide.
pub(super) const HEAD_BYTES: usize = 4;

/// Names of kernel modules, which are measured when they are loaded although nothing executes them.
const MODULES: [&[u8]; 4] = [b".ko", b".ko.xz", b".ko.zst", b".ko.gz"];

/// Whether a regular file belongs into the manifest.
pub(super) fn is_selected(selection: Selection, path: &[u8], mode: u32, head: &[u8]) -> bool {
    selection.all
        || mode & 0o111 != 0
        || head.starts_with(b"\x7fELF")
        || head.starts_with(b"#!")
        || MODULES.iter().any(|suffix| path.ends_with(suffix))
}

/// Names that the kernel may have for a file of a package.
///
/// Packages still name files below `/bin` and `/lib`; where these are links into `/usr`, which Debian
/// has demanded since 12, the kernel names the file where it lies.
pub(super) fn names_of(path: &[u8]) -> Vec<Vec<u8>> {
    const MERGED: [&[u8]; 6] = [b"bin", b"sbin", b"lib", b"lib32", b"lib64", b"libx32"];
    let mut names = vec![path.to_vec()];
    let top = path.split(|byte| *byte == b'/').nth(1).unwrap_or_default();
    if MERGED.contains(&top) {
        names.push([b"/usr", path].concat());
    }
    names
}
