//! What an ELF file needs, read by small bounded reads: 32 and 64 bits, both byte orders.
//!
//! Own code, because readers that take the file as a slice would map or copy whole compilers, and
//! those that read piecewise allocate what a header declares.
//!
//! # Source
//! System V ABI, "Object Files", "Program Loading and Dynamic Linking".

use std::{fs::File, os::unix::fs::FileExt};

use rustix::io::Errno;

use super::needs::Needs;

const MAX_PROGRAM_HEADERS: u16 = 256;
const MAX_DYNAMIC_BYTES: u64 = 64 * 1024;
const MAX_NEEDED: usize = 1024;
/// A path in the file: `PATH_MAX`; a search path may hold several.
const MAX_STRING_BYTES: usize = 16 * 1024;

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// Which files a loader accepts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Machine {
    /// 64 bits.
    pub(crate) wide: bool,
    /// Little endian.
    pub(crate) little: bool,
    /// `e_machine`.
    pub(crate) machine: u16,
}

/// The dynamic needs of an ELF file; empty for a static one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elf {
    pub(crate) machine: Machine,
    /// `PT_INTERP`.
    pub(crate) interpreter: Option<Vec<u8>>,
    /// `DT_SONAME`.
    pub(crate) soname: Option<Vec<u8>>,
    /// `DT_NEEDED`, in order.
    pub(crate) needed: Vec<Vec<u8>>,
    /// `DT_RPATH`.
    pub(crate) rpath: Option<Vec<u8>>,
    /// `DT_RUNPATH`.
    pub(crate) runpath: Option<Vec<u8>>,
}

/// Why reading stopped.
enum Stop {
    Malformed(&'static str),
    Os(Errno),
}

/// Reads the needs of a file that starts with the ELF magic.
pub(crate) fn read(file: &File) -> Result<Needs, Errno> {
    match parse(&|at, buffer: &mut [u8]| file.read_exact_at(buffer, at)) {
        Ok(elf) => Ok(Needs::Elf(Box::new(elf))),
        Err(Stop::Malformed(what)) => Ok(Needs::Malformed(what)),
        Err(Stop::Os(errno)) => Err(errno),
    }
}

type ReadAt<'a> = &'a dyn Fn(u64, &mut [u8]) -> std::io::Result<()>;

fn parse(read_at: ReadAt<'_>) -> Result<Elf, Stop> {
    let mut ident = [0; 16];
    fill(read_at, 0, &mut ident, "identification is cut off")?;
    let wide = match ident[4] {
        1 => false,
        2 => true,
        _ => return Err(Stop::Malformed("class is neither 32 nor 64 bits")),
    };
    let little = match ident[5] {
        1 => true,
        2 => false,
        _ => return Err(Stop::Malformed("byte order is undefined")),
    };
    let mut header = [0; 64];
    let header = if wide { &mut header[..] } else { &mut header[..52] };
    fill(read_at, 0, header, "header is cut off")?;
    let field = |at: usize, width: usize| number(header, at, width, little);
    let machine = Machine { wide, little, machine: u16::try_from(field(18, 2)).unwrap_or(0) };
    let mut elf = Elf {
        machine,
        interpreter: None,
        soname: None,
        needed: Vec::new(),
        rpath: None,
        runpath: None,
    };
    let (table, entry, count) = if wide {
        (field(32, 8), field(54, 2), field(56, 2))
    } else {
        (field(28, 4), field(42, 2), field(44, 2))
    };
    if count == 0 {
        return Ok(elf);
    }
    let header_bytes = if wide { 56 } else { 32 };
    if entry != header_bytes || count > u64::from(MAX_PROGRAM_HEADERS) {
        return Err(Stop::Malformed("program headers have a wrong size or count"));
    }
    let mut table_bytes = vec![0; usize::try_from(entry * count).unwrap_or(0)];
    fill(read_at, table, &mut table_bytes, "program headers are cut off")?;

    let mut loads = Vec::new();
    let mut dynamic = None;
    for header in table_bytes.chunks_exact(usize::try_from(header_bytes).unwrap_or(1)) {
        let field = |at: usize, width: usize| number(header, at, width, little);
        let segment = if wide {
            Segment { offset: field(8, 8), address: field(16, 8), size: field(32, 8) }
        } else {
            Segment { offset: field(4, 4), address: field(8, 4), size: field(16, 4) }
        };
        match field(0, 4) {
            PT_LOAD => loads.push(segment),
            PT_DYNAMIC => dynamic = Some(segment),
            PT_INTERP => {
                elf.interpreter = Some(string(read_at, segment.offset, "interpreter")?);
            }
            _ => {}
        }
    }
    if let Some(dynamic) = dynamic {
        read_dynamic(read_at, machine, &dynamic, &loads, &mut elf)?;
    }
    Ok(elf)
}

struct Segment {
    offset: u64,
    address: u64,
    size: u64,
}

fn read_dynamic(
    read_at: ReadAt<'_>,
    machine: Machine,
    segment: &Segment,
    loads: &[Segment],
    elf: &mut Elf,
) -> Result<(), Stop> {
    if segment.size > MAX_DYNAMIC_BYTES {
        return Err(Stop::Malformed("dynamic section is larger than 64 KiB"));
    }
    let mut bytes = vec![0; usize::try_from(segment.size).unwrap_or(0)];
    fill(read_at, segment.offset, &mut bytes, "dynamic section is cut off")?;
    let width = if machine.wide { 8 } else { 4 };
    let entries = || {
        bytes
            .chunks_exact(width * 2)
            .map(|entry| {
                (
                    number(entry, 0, width, machine.little),
                    number(entry, width, width, machine.little),
                )
            })
            .take_while(|(tag, _)| *tag != 0)
    };
    let wants_strings = |tag| matches!(tag, DT_NEEDED | DT_SONAME | DT_RPATH | DT_RUNPATH);
    if !entries().any(|(tag, _)| wants_strings(tag)) {
        return Ok(());
    }
    let strings = entries()
        .find(|(tag, _)| *tag == DT_STRTAB)
        .and_then(|(_, address)| {
            loads.iter().find_map(|load| {
                let into = address.checked_sub(load.address).filter(|into| *into < load.size)?;
                load.offset.checked_add(into)
            })
        })
        .ok_or(Stop::Malformed("dynamic string table lies outside the file"))?;
    for (tag, value) in entries().filter(|(tag, _)| wants_strings(*tag)) {
        let at =
            strings.checked_add(value).ok_or(Stop::Malformed("string lies outside the file"))?;
        let text = string(read_at, at, "dynamic string")?;
        match tag {
            DT_NEEDED if elf.needed.len() >= MAX_NEEDED => {
                return Err(Stop::Malformed("more than 1024 needed libraries"));
            }
            DT_NEEDED => elf.needed.push(text),
            DT_SONAME => elf.soname = Some(text),
            DT_RPATH => elf.rpath = Some(text),
            _ => elf.runpath = Some(text),
        }
    }
    Ok(())
}

/// An unsigned number of `width` bytes; 0 beyond the end of `bytes`, which callers size beforehand.
fn number(bytes: &[u8], at: usize, width: usize, little: bool) -> u64 {
    let bytes = bytes.get(at..at + width).unwrap_or_default();
    let join = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
    if little { bytes.iter().rev().fold(0, join) } else { bytes.iter().fold(0, join) }
}

fn fill(read_at: ReadAt<'_>, at: u64, buffer: &mut [u8], what: &'static str) -> Result<(), Stop> {
    if at > i64::MAX as u64 {
        return Err(Stop::Malformed(what));
    }
    read_at(at, buffer).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Stop::Malformed(what),
        _ => Stop::Os(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    })
}

/// A NUL-terminated string, read in small pieces.
fn string(read_at: ReadAt<'_>, mut at: u64, what: &'static str) -> Result<Vec<u8>, Stop> {
    let mut out = Vec::new();
    let mut piece = [0; 64];
    while out.len() < MAX_STRING_BYTES {
        // Near the end of the file the piece is cut: then byte by byte.
        let read = match fill(read_at, at, &mut piece, what) {
            Ok(()) => piece.len(),
            Err(Stop::Malformed(_)) => {
                fill(read_at, at, &mut piece[..1], what)?;
                1
            }
            Err(stop) => return Err(stop),
        };
        let read = &piece[..read];
        if let Some(end) = read.iter().position(|byte| *byte == 0) {
            out.extend_from_slice(&read[..end]);
            return Ok(out);
        }
        out.extend_from_slice(read);
        at = at.checked_add(read.len() as u64).ok_or(Stop::Malformed(what))?;
    }
    Err(Stop::Malformed(what))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    /// Writes an ELF file with these dynamic strings: one load segment that maps the file at
    /// 0x1000.
    pub(crate) fn build(
        machine: Machine,
        interpreter: Option<&str>,
        strings: &[(u64, &str)],
    ) -> Vec<u8> {
        let Machine { wide, little, machine } = machine;
        let put = |out: &mut Vec<u8>, value: u64, width: usize| {
            let bytes = value.to_be_bytes();
            let bytes = &bytes[8 - width..];
            if little { out.extend(bytes.iter().rev()) } else { out.extend(bytes) }
        };
        let word = if wide { 8 } else { 4 };
        let (header_bytes, segment_bytes) = if wide { (64, 56) } else { (52, 32) };
        let segments = 2 + u64::from(interpreter.is_some());
        let dynamic_at = header_bytes + segments * segment_bytes;
        let dynamic_bytes = (strings.len() as u64 + 2) * 2 * word as u64;
        let interpreter_at = dynamic_at + dynamic_bytes;
        let mut table = vec![0];
        let offsets: Vec<u64> = strings
            .iter()
            .map(|(_, text)| {
                let at = table.len() as u64;
                table.extend(text.as_bytes());
                table.push(0);
                at
            })
            .collect();
        let interpreter_text = interpreter.map(|text| [text.as_bytes(), b"\0"].concat());
        let interpreter_bytes = interpreter_text.as_ref().map_or(0, Vec::len) as u64;
        let strings_at = interpreter_at + interpreter_bytes;
        let total = strings_at + table.len() as u64;

        let mut out = b"\x7fELF".to_vec();
        out.extend([1 + u8::from(wide), 2 - u8::from(little), 1]);
        out.resize(16, 0);
        put(&mut out, 3, 2);
        put(&mut out, u64::from(machine), 2);
        put(&mut out, 1, 4);
        put(&mut out, 0, word);
        put(&mut out, header_bytes, word);
        put(&mut out, 0, word);
        put(&mut out, 0, 4);
        for value in [header_bytes, segment_bytes, segments, 0, 0, 0] {
            put(&mut out, value, 2);
        }
        assert_eq!(out.len() as u64, header_bytes);
        let mut segment = |kind: u64, at: u64, size: u64| {
            put(&mut out, kind, 4);
            if wide {
                put(&mut out, 0, 4);
            }
            for value in [at, at + 0x1000, at + 0x1000, size, size] {
                put(&mut out, value, word);
            }
            if !wide {
                put(&mut out, 0, 4);
            }
            put(&mut out, 0, word);
        };
        segment(PT_LOAD, 0, total);
        segment(PT_DYNAMIC, dynamic_at, dynamic_bytes);
        if interpreter.is_some() {
            segment(PT_INTERP, interpreter_at, interpreter_bytes);
        }
        for ((tag, _), at) in strings.iter().zip(offsets) {
            put(&mut out, *tag, word);
            put(&mut out, at, word);
        }
        put(&mut out, DT_STRTAB, word);
        put(&mut out, strings_at + 0x1000, word);
        put(&mut out, 0, word);
        put(&mut out, 0, word);
        out.extend(interpreter_text.unwrap_or_default());
        out.extend(table);
        out
    }

    fn read_bytes(bytes: &[u8]) -> Result<Elf, &'static str> {
        let read_at = |at: u64, buffer: &mut [u8]| {
            let at = usize::try_from(at).expect("64-bit host");
            let end = at.checked_add(buffer.len());
            let part = end.and_then(|end| bytes.get(at..end));
            buffer.copy_from_slice(part.ok_or(Error::from(ErrorKind::UnexpectedEof))?);
            Ok(())
        };
        parse(&read_at).map_err(|stop| match stop {
            Stop::Malformed(what) => what,
            Stop::Os(_) => panic!("no system call here"),
        })
    }

    const MACHINES: [Machine; 4] = [
        Machine { wide: true, little: true, machine: 62 },
        Machine { wide: true, little: false, machine: 22 },
        Machine { wide: false, little: true, machine: 3 },
        Machine { wide: false, little: false, machine: 8 },
    ];

    #[test]
    fn needs_are_read_for_both_widths_and_byte_orders() {
        for machine in MACHINES {
            let bytes = build(
                machine,
                Some("/lib/ld.so"),
                &[
                    (DT_NEEDED, "libc.so.6"),
                    (DT_SONAME, "libx.so.1"),
                    (DT_NEEDED, "libm.so.6"),
                    (DT_RPATH, "/a:$ORIGIN"),
                    (DT_RUNPATH, "$ORIGIN/../lib"),
                ],
            );
            let elf = read_bytes(&bytes).expect("well-formed");
            assert_eq!(elf.machine, machine);
            assert_eq!(elf.interpreter.as_deref(), Some(b"/lib/ld.so".as_slice()));
            assert_eq!(elf.needed, [b"libc.so.6".to_vec(), b"libm.so.6".to_vec()]);
            assert_eq!(elf.soname.as_deref(), Some(b"libx.so.1".as_slice()));
            assert_eq!(elf.rpath.as_deref(), Some(b"/a:$ORIGIN".as_slice()));
            assert_eq!(elf.runpath.as_deref(), Some(b"$ORIGIN/../lib".as_slice()));
        }
    }

    #[test]
    fn a_static_file_needs_nothing() {
        let elf = read_bytes(&build(MACHINES[0], None, &[])).expect("well-formed");
        assert_eq!((elf.interpreter, elf.needed.len()), (None, 0));
    }

    #[test]
    fn damage_is_named_and_never_panics() {
        for machine in MACHINES {
            let good = build(machine, Some("/lib/ld.so"), &[(DT_NEEDED, "libc.so.6")]);
            for len in 0..good.len() {
                assert!(read_bytes(&good[..len]).is_err(), "cut at {len}");
            }
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let _ = read_bytes(&bad);
            }
        }
        let mut huge = build(MACHINES[0], None, &[(DT_NEEDED, "libc.so.6")]);
        // p_filesz of the dynamic segment.
        huge[64 + 56 + 32..][..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(read_bytes(&huge), Err("dynamic section is larger than 64 KiB"));
    }
}
