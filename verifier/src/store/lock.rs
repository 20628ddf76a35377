//! One writer a state folder.

use std::{
    fs,
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use super::StoreError;

/// Held for as long as the process may write. The kernel lets go of it when the process ends.
#[derive(Debug)]
pub(super) struct FolderLock(fs::File);

impl Drop for FolderLock {
    /// Let go of by word, not by closing: a process that is being started holds copies of our
    /// descriptors until its program is loaded.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl FolderLock {
    pub(super) fn take(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("lock");
        let failed = |error| StoreError::io("lock", &path, error);
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let read = (&mut file).take(20).read_to_string(&mut text);
                let holder = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(StoreError::Locked { path: folder.to_owned(), holder });
            }
            Err(error) => return Err(failed(error.into())),
        }
        // Only for the message of whoever comes second.
        let note = |file: &mut fs::File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        note(&mut file).map_err(failed)?;
        Ok(Self(file))
    }
}
