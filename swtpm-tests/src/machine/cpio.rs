//! The archive format of an initrd, "newc", written so that the same files give the same bytes.
//!
//! # Source
//! The kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::{BTreeMap, BTreeSet};

/// What stands at a path of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A file that is executed.
    Program(Vec<u8>),
    /// A file that is read.
    File(Vec<u8>),
    /// A symbolic link to this path.
    Link(String),
}

impl Entry {
    /// Its type and mode, and the bytes that are its content.
    const fn parts(&self) -> (u32, &[u8]) {
        match self {
            Self::Program(content) => (PROGRAM, content.as_slice()),
            Self::File(content) => (FILE, content.as_slice()),
            Self::Link(target) => (LINK, target.as_bytes()),
        }
    }
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// An archive of files by path, without a leading slash, and of the directories that they need.
///
/// No time, owner or inode number of this host goes in.
pub(super) fn archive(files: &BTreeMap<String, Entry>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut inode = 0;
    for directory in directories(files.keys()) {
        inode += 1;
        header(&mut out, inode, DIRECTORY, directory, 0);
    }
    for (path, entry) in files {
        inode += 1;
        let (mode, content) = entry.parts();
        header(&mut out, inode, mode, path, content.len());
        out.extend_from_slice(content);
        pad(&mut out);
    }
    header(&mut out, 0, 0, "TRAILER!!!", 0);
    out
}

/// Every directory above a path, parents first.
fn directories<'a>(paths: impl Iterator<Item = &'a String>) -> BTreeSet<&'a str> {
    let mut out = BTreeSet::new();
    for path in paths {
        for (at, _) in path.match_indices('/') {
            out.extend(path.get(..at));
        }
    }
    out
}

fn header(out: &mut Vec<u8>, inode: u32, mode: u32, name: &str, size: usize) {
    let links = if mode == DIRECTORY { 2 } else { 1 };
    let name_size = name.len() + 1;
    out.extend_from_slice(b"070701");
    // inode, mode, uid, gid, links, mtime, size, device and rdevice twice, name size, checksum.
    out.extend_from_slice(
        format!(
            "{inode:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}\
             {name_size:08x}{:08x}",
            0, 0, 0, 0, 0, 0, 0, 0
        )
        .as_bytes(),
    );
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
}

/// Names and contents end at multiples of four.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn cpio_reads_what_is_written() {
        let files = BTreeMap::from([
            ("init".to_owned(), Entry::Program(b"#!/bin/sh\n".to_vec())),
            ("etc/assay/x".to_owned(), Entry::File(b"12345".to_vec())),
            ("etc/x".to_owned(), Entry::Link("assay/x".to_owned())),
        ]);
        let bytes = archive(&files);
        assert_eq!(bytes, archive(&files), "same files, same bytes");
        let cpio = Command::new("cpio")
            .args(["--list", "--verbose", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut cpio = match cpio {
            Ok(cpio) => cpio,
            Err(error) => {
                let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
                assert!(!is_ci, "cpio cannot run, and CI=true: {error}");
                eprintln!("skipped: cpio is not installed");
                return;
            }
        };
        cpio.stdin.take().expect("piped").write_all(&bytes).expect("written");
        let listed = cpio.wait_with_output().expect("ends");
        let text = String::from_utf8(listed.stdout).expect("text");
        let lines: Vec<(&str, &str)> = text
            .lines()
            .map(|line| (line.get(..10).expect("mode"), line.rsplit(' ').next().expect("name")))
            .collect();
        assert_eq!(
            lines,
            [
                ("drwxr-xr-x", "etc"),
                ("drwxr-xr-x", "etc/assay"),
                ("-rw-r--r--", "etc/assay/x"),
                // What is listed is `etc/x -> assay/x`.
                ("lrwxrwxrwx", "assay/x"),
                ("-rwxr-xr-x", "init"),
            ]
        );
    }
}
