//! What a file's own bytes say that it needs: an ELF file's interpreter and libraries, a script's
//! interpreter.

use std::{fs::File, os::unix::fs::FileExt};

use rustix::io::Errno;

use super::{
    elf::{self, Elf},
    file::Facts,
};

/// Bytes that the kernel reads of a `#!` line (`BINPRM_BUF_SIZE`).
const SCRIPT_HEAD_BYTES: usize = 256;

/// What a file needs in order to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: data, an object file, an archive, a script without execute permission.
    Nothing,
    /// A `#!` line.
    Script {
        /// The interpreter's path as written.
        interpreter: Vec<u8>,
        /// The one argument that the kernel passes.
        argument: Option<Vec<u8>>,
    },
    /// An ELF file with program headers.
    Elf(Box<Elf>),
    /// An ELF file that no loader would load.
    Malformed(&'static str),
}

impl Needs {
    /// Reads the needs from an open file.
    pub(crate) fn of(file: &File, facts: &Facts) -> Result<Self, Errno> {
        let mut head = [0; SCRIPT_HEAD_BYTES];
        let count = read_up_to(file, &mut head)?;
        let head = head.get(..count).unwrap_or_default();
        if head.starts_with(b"\x7fELF") {
            elf::read(file)
        } else if facts.is_executable() {
            Ok(script(head))
        } else {
            Ok(Self::Nothing)
        }
    }
}

fn read_up_to(file: &File, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut count = 0;
    while let Some(rest) = buffer.get_mut(count..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, u64::try_from(count).unwrap_or(0)) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
    Ok(count)
}

/// A `#!` line as Linux reads it: interpreter up to a blank, the rest one argument.
fn script(head: &[u8]) -> Needs {
    let Some(line) = head.strip_prefix(b"#!") else {
        return Needs::Nothing;
    };
    let line = line.split(|byte| matches!(byte, b'\n' | 0)).next().unwrap_or_default();
    let line = line.trim_ascii();
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    let (interpreter, argument) = line.split_at(end);
    if interpreter.is_empty() {
        return Needs::Nothing;
    }
    let argument = argument.trim_ascii();
    Needs::Script {
        interpreter: interpreter.to_vec(),
        argument: (!argument.is_empty()).then(|| argument.to_vec()),
    }
}

/// The program that `env` runs for a `#!` line's argument: the argument itself, or with `-S` the
/// first word that is neither an option nor an assignment.
pub(crate) fn env_program(argument: &[u8]) -> Option<&[u8]> {
    let Some(words) =
        argument.strip_prefix(b"-S").or_else(|| argument.strip_prefix(b"--split-string="))
    else {
        return (!argument.starts_with(b"-")).then_some(argument);
    };
    words
        .split(u8::is_ascii_whitespace)
        .find(|word| !word.is_empty() && !word.starts_with(b"-") && !word.contains(&b'='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_lines_are_read_as_the_kernel_does() {
        for (head, expected) in [
            ("#!/bin/sh\nx", Some(("/bin/sh", None))),
            ("#! /bin/sh -e\n", Some(("/bin/sh", Some("-e")))),
            ("#!/usr/bin/env python3\n", Some(("/usr/bin/env", Some("python3")))),
            ("#!/bin/awk -f x y \n", Some(("/bin/awk", Some("-f x y")))),
            ("#!/bin/sh", Some(("/bin/sh", None))),
            ("#!\n", None),
            ("# /bin/sh\n", None),
            ("", None),
        ] {
            let expected =
                expected.map_or(Needs::Nothing, |(interpreter, argument)| Needs::Script {
                    interpreter: interpreter.into(),
                    argument: argument.map(|argument: &str| argument.into()),
                });
            assert_eq!(script(head.as_bytes()), expected, "{head:?}");
        }
    }

    #[test]
    fn env_finds_the_program_that_it_runs() {
        for (argument, expected) in [
            ("python3", Some("python3")),
            ("python3 -u", Some("python3 -u")),
            ("-S python3 -u", Some("python3")),
            ("-S -i A=b perl -w", Some("perl")),
            ("-Sruby", Some("ruby")),
            ("-i", None),
            ("-S A=b", None),
        ] {
            assert_eq!(env_program(argument.as_bytes()), expected.map(str::as_bytes));
        }
    }
}
