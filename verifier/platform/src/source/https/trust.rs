//! Roots that a server of key sets is trusted by.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Where distributions keep the system's roots: Debian, Ubuntu, Alpine; Fedora, RHEL; openSUSE. The
/// first that is there is used. No variable of the environment names another.
pub const SYSTEM_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];
/// Largest bundle, bytes: that of Debian has 220 kB.
const MAX_BUNDLE_BYTES: u64 = 4 * 1024 * 1024;

/// There are no roots.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The system has no bundle.
    #[error("the system has no bundle of roots: install ca-certificates, or set ca_file")]
    NoBundle,
    /// A file cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file has no certificate, or something else as well.
    #[error("{} has no certificates in PEM, or something else as well", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
}

pub(super) fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TrustError> {
    match ca_file {
        Some(path) => {
            let (store, refused) = read(path)?;
            // Of a file that was written for this, every certificate is meant.
            if store.is_empty() || refused != 0 {
                return Err(TrustError::Content { path: path.to_owned() });
            }
            Ok(store)
        }
        None => {
            let path = SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.is_file());
            let path = path.ok_or(TrustError::NoBundle)?;
            // A system's bundle may have roots of a form that is not understood: those sign nothing.
            let (store, _) = read(path)?;
            if store.is_empty() {
                return Err(TrustError::Content { path: path.to_owned() });
            }
            Ok(store)
        }
    }
}

/// The roots of a file, and how many certificates of it are no roots.
fn read(path: &Path) -> Result<(RootCertStore, usize), TrustError> {
    let failed = |source| TrustError::Read { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_BUNDLE_BYTES {
        return Err(TrustError::Content { path: path.to_owned() });
    }
    let content = std::fs::read(path).map_err(failed)?;
    let mut store = RootCertStore::empty();
    let mut refused = 0_usize;
    for certificate in CertificateDer::pem_slice_iter(&content) {
        let certificate = certificate.map_err(|_| TrustError::Content { path: path.to_owned() })?;
        if store.add(certificate).is_err() {
            refused = refused.saturating_add(1);
        }
    }
    Ok((store, refused))
}
