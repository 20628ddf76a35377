//! Pairs of ports for software TPMs, which no two tests have at a time: for the attestor's own tests as well.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use aws_lc_rs::rand;

/// Data ports are even numbers from here on, below Linux's ephemeral range (32768): no connection that somebody makes gets one.
const FIRST: u16 = 20_000;
/// How many pairs there are.
const PAIRS: u16 = 6_000;

/// Two neighbouring ports: data, then control. Held against other harnesses by a file lock.
#[derive(Debug)]
pub(crate) struct PortPair {
    pub(crate) data: u16,
    _lock: File,
}

impl PortPair {
    pub(crate) const fn control(&self) -> u16 {
        self.data + 1
    }

    /// A pair that no harness holds and on which nobody listens.
    pub(crate) fn reserve() -> io::Result<Self> {
        let directory = std::env::temp_dir().join("assay-test-ports");
        fs::create_dir_all(&directory)?;
        share(&directory, 0o1777);
        let mut seed = [0; 2];
        let _ = rand::fill(&mut seed);
        let first = u16::from_be_bytes(seed) % PAIRS;
        for step in 0..PAIRS {
            let data = FIRST + 2 * ((first + step) % PAIRS);
            let path = directory.join(data.to_string());
            // Another user's lock file cannot be opened for writing: that pair is not ours.
            let Ok(lock) = File::options().create(true).append(true).open(&path) else { continue };
            if lock.try_lock().is_err() {
                continue;
            }
            let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
            if is_free(data) && is_free(data + 1) {
                return Ok(Self { data, _lock: lock });
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, format!("all {PAIRS} pairs are taken")))
    }
}

/// Lets other users of the machine use a directory of ours; no matter where that fails.
fn share(path: &Path, mode: u32) {
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
}
