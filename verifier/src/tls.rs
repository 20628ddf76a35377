//! TLS: the server's configuration, who an administrator is, the administrator's client.
//!
//! TLS 1.3 only, no tickets, no resumption, no early data: every connection verifies everything
//! anew. A client certificate is optional, because a worker has none before it is attested; what a
//! connection may do is decided for each call by [`AdminAuthority::identify`].

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use const_oid::db::rfc5280::ID_KP_CLIENT_AUTH;
use der::{Decode, Encode};
use proto::reason::ReasonCode;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
        WebPkiClientVerifier,
    },
    sign::CertifiedKey,
    version::TLS13,
};
use sha2::{Digest, Sha256};
use x509_cert::{
    Certificate,
    ext::pkix::{BasicConstraints, ExtendedKeyUsage, SubjectAltName, name::GeneralName},
};

use crate::ca::{
    CaCertificate, CaError, CaRole, PrivateKey, Segment, SpiffeId, TrustDomain, certificate::find,
    verifies,
};

/// Application protocol of gRPC.
const ALPN_H2: &[u8] = b"h2";

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A key or certificate of ours.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// rustls refused a key, a certificate or a combination.
    #[error("TLS refuses {what}")]
    Rustls {
        /// What it refuses.
        what: &'static str,
        /// Why.
        source: rustls::Error,
    },
    /// The trust bundle or the CA file gives no root.
    #[error("{0}")]
    Roots(String),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn rustls_error(what: &'static str) -> impl FnOnce(rustls::Error) -> TlsError {
    move |source| TlsError::Rustls { what, source }
}

fn root_store(roots: &[Vec<u8>]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store
            .add(CertificateDer::from(root.as_slice()))
            .map_err(rustls_error("a root certificate"))?;
    }
    if store.is_empty() {
        return Err(TlsError::Roots("there is no root certificate to trust".to_owned()));
    }
    Ok(Arc::new(store))
}

fn certified_key(chain: &[Vec<u8>], key: &PrivateKey) -> Result<CertifiedKey, TlsError> {
    let chain = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let der = key.to_der().map_err(CaError::from)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der.as_slice()));
    // Checks that key and leaf belong together.
    CertifiedKey::from_der(chain, key.clone_key(), &provider())
        .map_err(rustls_error("the certificate with this key"))
}

/// The server's certificate, exchangeable while connections come in.
pub struct ServerCertificate(ArcSwap<CertifiedKey>);

impl ServerCertificate {
    /// A certificate chain, leaf first, DER, with its key.
    ///
    /// # Errors
    /// [`TlsError::Rustls`] if key and leaf do not belong together.
    pub fn new(chain: &[Vec<u8>], key: &PrivateKey) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(certified_key(chain, key)?))))
    }

    /// Uses another certificate for connections from now on; the old one stays if this fails.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn replace(&self, chain: &[Vec<u8>], key: &PrivateKey) -> Result<(), TlsError> {
        self.0.store(Arc::new(certified_key(chain, key)?));
        Ok(())
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// The server's side: TLS 1.3, `h2`, client certificates optional and verified up to `roots`.
///
/// A client that presents a certificate which does not verify, an expired one included, gets no
/// connection. One that presents none gets a connection without an administrator's rights.
///
/// # Errors
/// [`TlsError`].
pub fn server_config(
    certificate: Arc<ServerCertificate>,
    roots: &[Vec<u8>],
) -> Result<ServerConfig, TlsError> {
    let clients = WebPkiClientVerifier::builder_with_provider(root_store(roots)?, provider())
        // Names of our CAs are nobody's business.
        .clear_root_hint_subjects()
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::Roots(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(rustls_error("TLS 1.3"))?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificate);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}

/// Who calls an administration method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminIdentity {
    name: Segment,
    spki_sha256: proto::digest::Digest,
    serial: Vec<u8>,
    not_after_unix_s: u64,
}

impl AdminIdentity {
    /// `NAME` of `spiffe://TD/admin/NAME`; the role behind it is the store's business.
    #[must_use]
    pub const fn name(&self) -> &Segment {
        &self.name
    }

    /// SHA-256 of the certificate's `SubjectPublicKeyInfo`: what the store registered.
    #[must_use]
    pub const fn spki_sha256(&self) -> proto::digest::Digest {
        self.spki_sha256
    }

    /// Serial number of the certificate, big-endian.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// End of the certificate's validity, seconds since 1970.
    #[must_use]
    pub const fn not_after_unix_s(&self) -> u64 {
        self.not_after_unix_s
    }
}

/// Why a connection is not an administrator's; each is `ADMIN_CERTIFICATE_REQUIRED`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdminCertificateError {
    /// No client certificate.
    #[error("no client certificate was presented")]
    Absent,
    /// Not valid now.
    #[error(
        "the client certificate is not valid now (from {not_before_unix_s} to {not_after_unix_s})"
    )]
    NotValidNow {
        /// Start, seconds since 1970.
        not_before_unix_s: u64,
        /// End, seconds since 1970.
        not_after_unix_s: u64,
    },
    /// Not an administrator's by its own content.
    #[error("the client certificate is not an administrator's: {0}")]
    Profile(String),
    /// Not issued under the admin CA: for example a node's certificate.
    #[error("the client certificate was not issued under the admin CA")]
    WrongIssuer,
}

impl AdminCertificateError {
    /// The reason code.
    #[must_use]
    pub const fn code(&self) -> ReasonCode {
        ReasonCode::AdminCertificateRequired
    }
}

/// Decides from a peer's certificates whether it is an administrator.
#[derive(Clone, Debug)]
pub struct AdminAuthority {
    trust_domain: TrustDomain,
    issuers: Vec<CaCertificate>,
}

impl AdminAuthority {
    /// `issuers`: the current and former admin CAs, [`crate::ca::CaDir::certificates`].
    #[must_use]
    pub const fn new(trust_domain: TrustDomain, issuers: Vec<CaCertificate>) -> Self {
        Self { trust_domain, issuers }
    }

    /// Reads the admin CAs from the CA's directory.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn load(dir: &crate::ca::CaDir) -> Result<Self, CaError> {
        Ok(Self::new(dir.trust_domain().clone(), dir.certificates(CaRole::Admins)?))
    }

    /// The administrator behind a connection whose handshake verified `peer` (leaf first).
    ///
    /// The handshake has proved possession of the leaf's key and a path to our root; that path may
    /// have gone through any of our CAs. Here the leaf's signature is checked with the admin CA's
    /// own key, and the leaf's names, usage and validity are read again.
    ///
    /// # Errors
    /// [`AdminCertificateError`], always `ADMIN_CERTIFICATE_REQUIRED`.
    pub fn identify(
        &self,
        peer: &[CertificateDer<'_>],
        now_unix_s: u64,
    ) -> Result<AdminIdentity, AdminCertificateError> {
        use AdminCertificateError as E;
        let leaf = peer.first().ok_or(E::Absent)?;
        let leaf = Certificate::from_der(leaf)
            .map_err(|error| E::Profile(format!("not X.509: {error}")))?;
        let tbs = leaf.tbs_certificate();
        let message = tbs.to_der().map_err(|error| E::Profile(error.to_string()))?;
        let issued = self.issuers.iter().any(|issuer| {
            issuer.is_valid_at(now_unix_s)
                && tbs.issuer() == issuer.subject()
                && tbs.signature() == leaf.signature_algorithm()
                && verifies(issuer.key(), leaf.signature_algorithm(), &message, leaf.signature())
        });
        if !issued {
            return Err(E::WrongIssuer);
        }
        let not_before_unix_s = tbs.validity().not_before.to_unix_duration().as_secs();
        let not_after_unix_s = tbs.validity().not_after.to_unix_duration().as_secs();
        if !(not_before_unix_s..=not_after_unix_s).contains(&now_unix_s) {
            return Err(E::NotValidNow { not_before_unix_s, not_after_unix_s });
        }
        let name = self.name(tbs.extensions().map(Vec::as_slice).unwrap_or_default())?;
        let spki = tbs.subject_public_key_info().to_der();
        let spki = spki.map_err(|error| E::Profile(error.to_string()))?;
        Ok(AdminIdentity {
            name,
            spki_sha256: proto::digest::HashAlg::Sha256.hash(&[&spki]),
            serial: tbs.serial_number().as_bytes().to_vec(),
            not_after_unix_s,
        })
    }

    fn name(
        &self,
        extensions: &[x509_cert::ext::Extension],
    ) -> Result<Segment, AdminCertificateError> {
        let bad = |why: &str| AdminCertificateError::Profile(why.to_owned());
        let basic: Option<BasicConstraints> =
            find(extensions).map_err(|_| bad("its basic constraints do not decode"))?;
        if basic.is_none_or(|basic| basic.ca) {
            return Err(bad("it is a CA certificate"));
        }
        let usages: Option<ExtendedKeyUsage> =
            find(extensions).map_err(|_| bad("its extended key usage does not decode"))?;
        if !usages.is_some_and(|usages| usages.0.contains(&ID_KP_CLIENT_AUTH)) {
            return Err(bad("its extended key usage lacks clientAuth"));
        }
        let names: Option<SubjectAltName> =
            find(extensions).map_err(|_| bad("its alternative names do not decode"))?;
        let names = names.map(|names| names.0).unwrap_or_default();
        let [GeneralName::UniformResourceIdentifier(uri)] = names.as_slice() else {
            return Err(bad("it has not exactly one URI name"));
        };
        let id: SpiffeId = uri.as_str().parse().map_err(|_| bad("its name is not a SPIFFE ID"))?;
        if *id.trust_domain() != self.trust_domain {
            return Err(bad("it belongs to another trust domain"));
        }
        id.name_under("admin").ok_or_else(|| bad("its SPIFFE ID is not spiffe://TD/admin/NAME"))
    }
}

/// What a client trusts a verifier by. There is no third way: nothing is learned at first use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerTrust {
    /// Root certificates, DER, from a CA file.
    Roots(Vec<Vec<u8>>),
    /// SHA-256 of the `SubjectPublicKeyInfo` of the root, of an intermediate or of the server's own
    /// certificate. The rest of the chain is verified up to the pinned certificate.
    Pin([u8; 32]),
}

impl ServerTrust {
    /// A pin as `verifier init` prints it: `sha256:<64 hex digits>`.
    ///
    /// # Errors
    /// [`TlsError::Roots`] for any other form.
    pub fn parse_pin(text: &str) -> Result<Self, TlsError> {
        let mut pin = [0; 32];
        text.strip_prefix("sha256:")
            .and_then(|hex_text| hex::decode_to_slice(hex_text, &mut pin).ok())
            .ok_or_else(|| {
                TlsError::Roots(format!("{text:?} is not a pin: sha256: and 64 hexadecimal digits"))
            })?;
        Ok(Self::Pin(pin))
    }
}

/// An administrator's side of the connection: TLS 1.3, `h2`, no resumption.
///
/// `identity` is the client certificate chain, leaf first, with its key.
///
/// # Errors
/// [`TlsError`].
pub fn client_config(
    trust: &ServerTrust,
    identity: Option<(&[Vec<u8>], &PrivateKey)>,
) -> Result<ClientConfig, TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        ServerTrust::Roots(roots) => {
            WebPkiServerVerifier::builder_with_provider(root_store(roots)?, provider())
                .build()
                .map_err(|error| TlsError::Roots(error.to_string()))?
        }
        ServerTrust::Pin(pin) => Arc::new(PinVerifier { pin: *pin, provider: provider() }),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(rustls_error("TLS 1.3"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let certified = certified_key(chain, key)?;
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                certified,
            )))
        }
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}

/// Verifies a server by the digest of a key in its chain.
#[derive(Debug)]
struct PinVerifier {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

/// Certificates in a server's chain that are looked at.
const MAX_SERVER_CHAIN: usize = 8;

impl PinVerifier {
    fn is_pinned(&self, der: &CertificateDer<'_>) -> bool {
        Certificate::from_der(der)
            .and_then(|certificate| {
                certificate.tbs_certificate().subject_public_key_info().to_der()
            })
            .is_ok_and(|spki| <[u8; 32]>::from(Sha256::digest(spki)) == self.pin)
    }

    /// The leaf itself is pinned: no path to build, but name, time and usage still count.
    fn verify_leaf(
        leaf: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
        let certificate = Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let tbs = certificate.tbs_certificate();
        let at = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
        if now.as_secs() < at(tbs.validity().not_before) {
            return Err(CertificateError::NotValidYet.into());
        }
        if now.as_secs() > at(tbs.validity().not_after) {
            return Err(CertificateError::Expired.into());
        }
        let extensions = tbs.extensions().map(Vec::as_slice).unwrap_or_default();
        let usages: Option<ExtendedKeyUsage> =
            find(extensions).map_err(|_| CertificateError::BadEncoding)?;
        let server = const_oid::db::rfc5280::ID_KP_SERVER_AUTH;
        if usages.is_some_and(|usages| !usages.0.contains(&server)) {
            return Err(CertificateError::InvalidPurpose.into());
        }
        Ok(())
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.is_pinned(end_entity) {
            Self::verify_leaf(end_entity, server_name, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        let Some(anchor) =
            intermediates.iter().take(MAX_SERVER_CHAIN).find(|der| self.is_pinned(der))
        else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        // Anchors are not checked for their validity by path validation.
        let ca = CaCertificate::from_der(anchor).map_err(|_| CertificateError::UnknownIssuer)?;
        if !ca.is_valid_at(now.as_secs()) {
            return Err(CertificateError::Expired.into());
        }
        let mut roots = RootCertStore::empty();
        roots.add(anchor.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Time left before a certificate ends, zero if it has ended; for warnings and metrics.
#[must_use]
pub const fn remaining(not_after_unix_s: u64, now_unix_s: u64) -> Duration {
    Duration::from_secs(not_after_unix_s.saturating_sub(now_unix_s))
}

#[cfg(test)]
mod tests;
