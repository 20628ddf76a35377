//! Reading what an argument names, with a bound.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::Failure;

/// Largest file that a command reads as a whole: above golden sets and tool logs.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The bytes of a file; `-` is the standard input.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed =
        |error: io::Error| Failure::of(&error).while_doing(&format!("read {}", path.display()));
    if path.as_os_str() == "-" {
        return bounded(path, io::stdin().lock()).map_err(failed);
    }
    let file = File::open(path).map_err(failed)?;
    bounded(path, file).map_err(failed)
}

/// The text of a file; `-` is the standard input.
pub(super) fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read_bytes(path)?)
        .map_err(|_| Failure::failed(format!("{} is not UTF-8 text", path.display())))
}

fn bounded(path: &Path, from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        let text = format!("{} has more than {MAX_BYTES} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}
