//! Hashing what is read, piece by piece.

use std::io::{self, Read};

use proto::digest::{Digest, DigestParseError, HashAlg};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::select::HEAD_BYTES;

/// Bytes read at once.
const PIECE_BYTES: usize = 128 * 1024;

/// A hash under way.
enum Hasher {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    fn new(alg: HashAlg) -> Self {
        match alg {
            HashAlg::Sha256 => Self::Sha256(Sha256::new()),
            HashAlg::Sha384 => Self::Sha384(Sha384::new()),
            HashAlg::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha384(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Result<Digest, DigestParseError> {
        match self {
            Self::Sha256(hasher) => Digest::new(HashAlg::Sha256, &hasher.finalize()),
            Self::Sha384(hasher) => Digest::new(HashAlg::Sha384, &hasher.finalize()),
            Self::Sha512(hasher) => Digest::new(HashAlg::Sha512, &hasher.finalize()),
        }
    }
}

/// A file's beginning, which decides whether the rest is hashed.
pub(super) struct Begun<R> {
    from: R,
    head: [u8; HEAD_BYTES],
    len: usize,
}

impl<R: Read> Begun<R> {
    /// Reads the beginning.
    pub(super) fn new(mut from: R) -> io::Result<Self> {
        let mut head = [0; HEAD_BYTES];
        let mut len = 0;
        while let Some(free) = head.get_mut(len..).filter(|free| !free.is_empty()) {
            match from.read(free) {
                Ok(0) => break,
                Ok(count) => len += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { from, head, len })
    }

    /// The first bytes, fewer in a shorter file.
    pub(super) fn head(&self) -> &[u8] {
        self.head.get(..self.len).unwrap_or_default()
    }

    /// Digest of everything, and its size.
    pub(super) fn digest(mut self, alg: HashAlg) -> io::Result<(Digest, u64)> {
        let mut hasher = Hasher::new(alg);
        hasher.update(self.head());
        let mut size = self.len as u64;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match self.from.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(piece.get(..count).unwrap_or_default());
                    size = size.saturating_add(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let digest = hasher.finish().map_err(io::Error::other)?;
        Ok((digest, size))
    }
}
