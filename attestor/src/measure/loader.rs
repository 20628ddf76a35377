//! Where the dynamic loader looks for libraries, without running it.
//!
//! Order, as in glibc's `ld.so`: `DT_RPATH` of the object and of those that loaded it (only where
//! the object has no `DT_RUNPATH`), `DT_RUNPATH`, `/etc/ld.so.cache`, the default directories. The
//! cache is read, not `/etc/ld.so.conf`: it is what the loader believes. Variants for newer
//! processors (`glibc-hwcaps`) are measured all, whatever this processor is. musl's loader has its
//! own path file.
//!
//! Not covered: `LD_LIBRARY_PATH`, `LD_PRELOAD` and other environment of a job, and libraries
//! opened at run time by name (`dlopen`): plugins have to be listed.

use std::{io::Read, path::Path};

use super::elf::Machine;

/// Size of `/etc/ld.so.cache` beyond which it is not read; large systems have 300 kB.
const MAX_CACHE_BYTES: u64 = 16 * 1024 * 1024;
const MAX_CACHE_ENTRIES: usize = 200_000;
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0\0";
const NEW_MAGIC: &[u8] = b"glibc-ld.so.cache1.1";

/// What the system tells its loader.
#[derive(Debug, Default)]
pub(crate) struct LoaderConfig {
    cache: Vec<u8>,
    /// (name, path) offsets into `cache`.
    entries: Vec<(usize, usize)>,
    /// Libraries of `/etc/ld.so.preload`.
    pub(crate) preload: Vec<Vec<u8>>,
}

impl LoaderConfig {
    /// Reads the loader's files; a missing or damaged one counts as absent, as it does to the
    /// loader.
    pub(crate) fn read(cache: &Path, preload: &Path) -> Self {
        let bytes = read_bounded(cache).unwrap_or_default();
        let entries = parse_cache(&bytes).unwrap_or_default();
        let preload = read_bounded(preload).unwrap_or_default();
        Self { cache: bytes, entries, preload: parse_preload(&preload) }
    }

    /// Paths that the cache gives for a library, in its order.
    pub(crate) fn cached(&self, name: &[u8]) -> impl Iterator<Item = &[u8]> {
        self.entries
            .iter()
            .filter(move |(at, _)| {
                self.cache
                    .get(*at..)
                    .and_then(|text| text.strip_prefix(name))
                    .is_some_and(|rest| rest.first() == Some(&0))
            })
            .filter_map(|(_, at)| text_at(&self.cache, *at))
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_CACHE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Offsets of (name, path) in a `ld.so.cache`, of the format since glibc 2.2, alone or behind the
/// older one.
fn parse_cache(bytes: &[u8]) -> Option<Vec<(usize, usize)>> {
    let u32_at = |at: usize| -> Option<usize> {
        let bytes = bytes.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_ne_bytes(bytes.try_into().ok()?)).ok()
    };
    let mut start = 0;
    if bytes.starts_with(OLD_MAGIC) {
        let count = u32_at(OLD_MAGIC.len())?;
        start = count.checked_mul(12)?.checked_add(16)?.checked_next_multiple_of(8)?;
    }
    if !bytes.get(start..)?.starts_with(NEW_MAGIC) {
        return None;
    }
    let count = u32_at(start + 20)?;
    if count > MAX_CACHE_ENTRIES {
        return None;
    }
    (0..count)
        .map(|index| {
            let entry = start + 48 + index * 24;
            Some((start.checked_add(u32_at(entry + 4)?)?, start.checked_add(u32_at(entry + 8)?)?))
        })
        .collect()
}

fn text_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    rest.get(..rest.iter().position(|byte| *byte == 0)?)
}

/// Names separated by blanks or colons, `#` starts a comment.
fn parse_preload(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b'#').next())
        .flat_map(|line| line.split(|byte| byte.is_ascii_whitespace() || *byte == b':'))
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

/// Directories that a loader of this machine searches last.
pub(crate) fn default_directories(machine: Machine) -> Vec<Vec<u8>> {
    let mut directories = Vec::new();
    for library in multiarch(machine).into_iter().chain(library_names(machine)) {
        directories.push([b"/lib".as_slice(), library].concat());
        directories.push([b"/usr/lib".as_slice(), library].concat());
    }
    directories
}

/// musl's search path: its path file, or the built-in directories.
pub(crate) fn musl_directories(interpreter: &[u8]) -> Option<Vec<Vec<u8>>> {
    let name = interpreter.rsplit(|byte| *byte == b'/').next()?;
    let arch = name.strip_prefix(b"ld-musl-")?.strip_suffix(b".so.1")?;
    let file = format!("/etc/ld-musl-{}.path", String::from_utf8_lossy(arch));
    let text =
        read_bounded(Path::new(&file)).unwrap_or_else(|_| b"/lib:/usr/local/lib:/usr/lib".to_vec());
    Some(
        text.split(|byte| matches!(byte, b':' | b'\n'))
            .filter(|directory| directory.starts_with(b"/"))
            .map(<[u8]>::to_vec)
            .collect(),
    )
}

fn library_names(machine: Machine) -> [&'static [u8]; 2] {
    if machine.wide { [b"64", b""] } else { [b"32", b""] }
}

/// Debian's directory for the machine, below `/lib` and `/usr/lib`.
fn multiarch(machine: Machine) -> Option<&'static [u8]> {
    Some(match (machine.machine, machine.wide, machine.little) {
        (62, true, true) => b"/x86_64-linux-gnu",
        (62, false, true) => b"/x86_64-linux-gnux32",
        (3, false, true) => b"/i386-linux-gnu",
        (183, true, true) => b"/aarch64-linux-gnu",
        (40, false, true) => b"/arm-linux-gnueabihf",
        (243, true, true) => b"/riscv64-linux-gnu",
        (21, true, true) => b"/powerpc64le-linux-gnu",
        (22, true, false) => b"/s390x-linux-gnu",
        _ => return None,
    })
}

/// Directories of an `DT_RPATH` or `DT_RUNPATH` with its tokens replaced; `$LIB` may have several
/// meanings and gives one directory for each. Relative ones depend on the job and are left out.
pub(crate) fn search_path(path: &[u8], origin: &[u8], machine: Machine) -> Vec<Vec<u8>> {
    let libs: Vec<Vec<u8>> = multiarch(machine)
        .map(|arch| [b"lib".as_slice(), arch].concat())
        .into_iter()
        .chain(library_names(machine).map(|name| [b"lib".as_slice(), name].concat()))
        .collect();
    let platform: &[u8] = match (machine.machine, machine.wide) {
        (62, _) => b"x86_64",
        (3, _) => b"i686",
        (183, _) => b"aarch64",
        _ => b"",
    };
    let mut directories = Vec::new();
    for part in path.split(|byte| *byte == b':') {
        let part = replace(&replace(part, "ORIGIN", origin), "PLATFORM", platform);
        let with_lib = libs.iter().map(|lib| replace(&part, "LIB", lib));
        for directory in with_lib {
            if directory.starts_with(b"/") && !directories.contains(&directory) {
                directories.push(directory);
            }
        }
    }
    directories
}

/// Replaces `$NAME` and `${NAME}`.
fn replace(text: &[u8], name: &str, with: &[u8]) -> Vec<u8> {
    let (plain, braced) = (format!("${name}"), format!("${{{name}}}"));
    let mut out = Vec::with_capacity(text.len() + with.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(braced.as_bytes()) {
            out.extend_from_slice(with);
            rest = after;
        } else if let Some(after) = rest.strip_prefix(plain.as_bytes()).filter(|after| {
            !after.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        }) {
            out.extend_from_slice(with);
            rest = after;
        } else {
            out.push(*byte);
            rest = tail;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86_64: Machine = Machine { wide: true, little: true, machine: 62 };

    fn cache(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut strings = Vec::new();
        let mut table = Vec::new();
        let base = 48 + entries.len() * 24;
        for (name, path) in entries {
            let at = || {
                let at = u32::try_from(base + strings.len()).expect("small");
                at.to_ne_bytes()
            };
            let name_at = at();
            strings.extend([name.as_bytes(), b"\0"].concat());
            let path_at = u32::try_from(base + strings.len()).expect("small").to_ne_bytes();
            strings.extend([path.as_bytes(), b"\0"].concat());
            table.extend(0x0303_u32.to_ne_bytes());
            table.extend(name_at);
            table.extend(path_at);
            table.extend([0; 12]);
        }
        let mut out = NEW_MAGIC.to_vec();
        out.extend(u32::try_from(entries.len()).expect("small").to_ne_bytes());
        out.extend(u32::try_from(strings.len()).expect("small").to_ne_bytes());
        out.resize(48, 0);
        [out, table, strings].concat()
    }

    fn config(bytes: Vec<u8>) -> LoaderConfig {
        let entries = parse_cache(&bytes).expect("a cache");
        LoaderConfig { cache: bytes, entries, preload: Vec::new() }
    }

    #[test]
    fn the_cache_is_read_in_both_forms() {
        let new = cache(&[("libz.so.1", "/lib/libz.so.1"), ("libz.so.1.2", "/x"), ("a", "/b")]);
        let mut old = OLD_MAGIC.to_vec();
        old.extend(1_u32.to_ne_bytes());
        old.resize(16 + 12, 0);
        old.resize(old.len().next_multiple_of(8), 0);
        for bytes in [new.clone(), [old, new].concat()] {
            let config = config(bytes);
            let found: Vec<_> = config.cached(b"libz.so.1").collect();
            assert_eq!(found, [b"/lib/libz.so.1"], "names match whole");
            assert_eq!(config.cached(b"liby").count(), 0);
        }
    }

    #[test]
    fn damaged_caches_are_refused_without_panic() {
        let good = cache(&[("libz.so.1", "/lib/libz.so.1")]);
        for len in 0..good.len() {
            if let Some(entries) = parse_cache(&good[..len]) {
                let config = LoaderConfig { cache: good[..len].to_vec(), entries, preload: vec![] };
                assert_eq!(config.cached(b"libz.so.1").count(), 0, "cut at {len}");
            }
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let _ = parse_cache(&bad);
        }
    }

    #[test]
    fn tokens_are_replaced() {
        let text = |path: &str| -> Vec<String> {
            search_path(path.as_bytes(), b"/opt/x/bin", X86_64)
                .into_iter()
                .map(|directory| String::from_utf8(directory).expect("UTF-8"))
                .collect()
        };
        assert_eq!(text("$ORIGIN/../lib:/a"), ["/opt/x/bin/../lib", "/a"]);
        assert_eq!(text("${ORIGIN}x"), ["/opt/x/binx"]);
        assert_eq!(text("$ORIGINAL:rel:"), Vec::<String>::new());
        assert_eq!(text("/u/$LIB"), ["/u/lib/x86_64-linux-gnu", "/u/lib64", "/u/lib"]);
        assert_eq!(text("/u/$PLATFORM"), ["/u/x86_64"]);
    }

    #[test]
    fn preload_lists_are_read_as_the_loader_does() {
        let names = parse_preload(b"/a.so libb.so # c\n\n/d.so:/e.so\n");
        assert_eq!(names, [b"/a.so".to_vec(), b"libb.so".into(), b"/d.so".into(), b"/e.so".into()]);
    }
}
