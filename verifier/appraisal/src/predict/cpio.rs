//! The archives that systemd-stub makes out of sections and hands to the kernel behind the initrd.
//!
//! # Source
//! Linux, "initramfs buffer format" (`newc`); systemd-stub(7), "INITRD RESOURCES".

/// What `.extra` is entered as: a directory that everybody may read.
const DIRECTORY_MODE: u32 = 0o040_555;
/// A file that everybody may read.
const FILE_MODE: u32 = 0o100_444;
const FOLDER: &str = ".extra";
const TRAILER: &str = "TRAILER!!!";

/// An archive with `.extra/NAME`: numbers of inodes from 1, no times, no owners, so that it is the same at each boot.
pub(super) fn extra_file(name: &str, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    entry(&mut out, 1, DIRECTORY_MODE, FOLDER, &[]);
    entry(&mut out, 2, FILE_MODE, &format!("{FOLDER}/{name}"), content);
    entry(&mut out, 0, 0, TRAILER, &[]);
    out
}

/// One entry, padded to four bytes after its name and after its content.
fn entry(out: &mut Vec<u8>, inode: u32, mode: u32, name: &str, content: &[u8]) {
    let len = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    let name_len = len(name.len()).saturating_add(1);
    // inode, mode, owner, group, links, time, size, device and its own device twice, name, checksum
    let fields = [inode, mode, 0, 0, 1, 0, len(content.len()), 0, 0, 0, 0, name_len, 0];
    out.extend(b"070701");
    for field in fields {
        // The stub writes the trailer as a constant, in capitals.
        let text = if name == TRAILER { format!("{field:08X}") } else { format!("{field:08x}") };
        out.extend(text.as_bytes());
    }
    out.extend(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend(content);
    pad(out);
}

/// Zeros up to a multiple of four bytes.
pub(super) fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_begin_at_multiples_of_four_bytes() {
        let archive = extra_file("a", b"12345");
        assert_eq!(archive.len() % 4, 0);
        let starts: Vec<usize> =
            (0..archive.len()).filter(|at| archive[*at..].starts_with(b"070701")).collect();
        // Header 110 bytes, ".extra\0" 7, padded: 120. Header, ".extra/a\0" 9, padded: 120, content 8.
        assert_eq!(starts, [0, 120, 248]);
        assert!(archive.ends_with(b"0000000B00000000TRAILER!!!\0\0\0\0"));
    }
}
