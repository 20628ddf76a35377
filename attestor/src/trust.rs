//! What the worker trusts a verifier by: a CA file or a pinned digest that it was given, never first use.

use std::{fmt, path::PathBuf, sync::Arc};

use der::{Decode as _, Encode as _, pem::LineEnding};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use sha2::{Digest as _, Sha256};

/// What was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// PEM file of root certificates.
    CaFile(PathBuf),
    /// SHA-256 of the SubjectPublicKeyInfo of the verifier's root.
    Pin([u8; 32]),
}

/// What was given, as it stands in the file now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    roots: Vec<Vec<u8>>,
    pin: Option<[u8; 32]>,
    digest: [u8; 32],
}

/// Roots of a trust bundle, and what the verifier that named them was trusted by.
///
/// They carry the worker over a rotation of the verifier's root, and count only while the same CA
/// file or pin is given: who changes that says whom to trust from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    under: [u8; 32],
    roots: Vec<Vec<u8>>,
}

/// Why the verifier cannot be trusted as configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The CA file has no certificate.
    #[error("{}: no certificate in it; `verifier init` writes the root to bundle.pem", .0.display())]
    Empty(PathBuf),
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not what it should be.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The TLS library refused.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// No verifier can be built from the roots.
    #[error("the root certificates cannot be used: {0}")]
    Roots(String),
}

impl Trust {
    /// Reads `sha256:<64 hexadecimal digits>`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse_pin(text: &str) -> Result<Self, String> {
        let hex_text = text.strip_prefix("sha256:").ok_or("must begin with sha256:")?;
        let bytes = hex::decode(hex_text).map_err(|_| "is not hexadecimal")?;
        let pin = <[u8; 32]>::try_from(bytes).map_err(|_| "must have 64 hexadecimal digits")?;
        Ok(Self::Pin(pin))
    }

    /// Reads what was given.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn read(&self) -> Result<Given, TrustError> {
        let (roots, pin) = match self {
            Self::CaFile(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| TrustError::Io { path: path.clone(), source })?;
                let ders = certificates(&text)
                    .map_err(|why| TrustError::Malformed { path: path.clone(), why })?;
                if ders.is_empty() {
                    return Err(TrustError::Empty(path.clone()));
                }
                (ders, None)
            }
            Self::Pin(pin) => (Vec::new(), Some(*pin)),
        };
        // Of the certificates, not of the file: another order or a comment is the same trust.
        let mut parts: Vec<[u8; 32]> = roots.iter().map(|der| Sha256::digest(der).into()).collect();
        parts.sort_unstable();
        parts.dedup();
        let kind: &[u8] = if pin.is_some() { b"pin" } else { b"roots" };
        let mut hash = Sha256::new_with_prefix(b"assay/v1/given-trust\0").chain_update(kind);
        for part in parts.iter().chain(&pin) {
            hash.update(part);
        }
        Ok(Given { roots, pin, digest: hash.finalize().into() })
    }
}

impl Given {
    /// Roots that a verifier trusted by this named.
    #[must_use]
    pub const fn learned(&self, roots: Vec<Vec<u8>>) -> Learned {
        Learned { under: self.digest, roots }
    }

    /// TLS 1.3 configuration that trusts what was given, and what was learned under it.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn client_config(&self, learned: &Learned) -> Result<ClientConfig, TrustError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        let learned = if learned.holds_under(self) { learned.roots.as_slice() } else { &[] };
        for der in self.roots.iter().chain(learned) {
            roots.add(CertificateDer::from(der.clone()))?;
        }
        let known = if roots.is_empty() { None } else { Some(web_pki(roots, &provider)?) };
        let verifier = PinnedVerifier { known, pin: self.pin, provider: Arc::clone(&provider) };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

/// First line of a stored bundle, before the digest of what it was learned under.
const LEARNED_UNDER: &str = "# learned under sha256:";

impl Learned {
    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The roots, DER.
    #[must_use]
    pub fn roots(&self) -> &[Vec<u8>] {
        &self.roots
    }

    /// Whether it counts beside what is given now.
    #[must_use]
    pub fn holds_under(&self, given: &Given) -> bool {
        self.under == given.digest
    }

    /// As it is stored: PEM after a line that says what it was learned under.
    #[must_use]
    pub fn to_text(&self) -> String {
        let pem = self
            .roots
            .iter()
            .filter_map(|der| der::pem::encode_string("CERTIFICATE", LineEnding::LF, der).ok());
        let under = hex::encode(self.under);
        std::iter::once(format!("{LEARNED_UNDER}{under}\n")).chain(pem).collect()
    }

    /// What was stored. A bundle that does not say what it was learned under holds under nothing.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((under, pem)) =
            text.strip_prefix(LEARNED_UNDER).and_then(|rest| rest.split_once('\n'))
        else {
            return Ok(Self::default());
        };
        let mut learned = Self { under: [0; 32], roots: certificates(pem)? };
        hex::decode_to_slice(under, &mut learned.under)
            .map_err(|_| "its first line does not say what it was learned under")?;
        Ok(learned)
    }
}

fn web_pki(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TrustError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| TrustError::Roots(error.to_string()))
}

/// DER of every certificate in a PEM text.
///
/// # Errors
/// What is wrong, in words.
pub fn certificates(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let chain = x509_cert::Certificate::load_pem_chain(text.as_bytes())
        .map_err(|error| format!("not a PEM file of certificates: {error}"))?;
    chain
        .iter()
        .map(|certificate| certificate.to_der().map_err(|error| error.to_string()))
        .collect()
}

/// Full web PKI verification, under known roots or under the presented root that has the pinned key.
struct PinnedVerifier {
    known: Option<Arc<WebPkiServerVerifier>>,
    pin: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for PinnedVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedVerifier")
            .field("pinned", &self.pin.is_some())
            .finish_non_exhaustive()
    }
}

impl PinnedVerifier {
    /// The presented CA certificate whose key is pinned, as the only root.
    fn pinned_root(&self, presented: &[CertificateDer<'_>]) -> Option<Arc<WebPkiServerVerifier>> {
        let pin = self.pin?;
        let root = presented.iter().find(|der| {
            x509_cert::Certificate::from_der(der)
                .ok()
                .and_then(|certificate| {
                    certificate.tbs_certificate().subject_public_key_info().to_der().ok()
                })
                .is_some_and(|spki| <[u8; 32]>::from(Sha256::digest(&spki)) == pin)
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned()).ok()?;
        web_pki(roots, &self.provider).ok()
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut last = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for verifier in [self.known.clone(), self.pinned_root(intermediates)].into_iter().flatten()
        {
            match verifier.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ) {
                Ok(verified) => return Ok(verified),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // TLS 1.2 is not offered.
        Err(rustls::Error::General("TLS 1.2 is not used".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
