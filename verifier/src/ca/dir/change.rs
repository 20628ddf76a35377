//! Changes of a CA that exists: rotation, retirement, and the site's own PKI.

use std::{fs, path::Path, sync::Arc, time::Duration};

use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, UnixTime},
    server::WebPkiClientVerifier,
};
use zeroize::Zeroizing;

use super::{
    super::{
        AdminSubject, CaCertificate, CaError, CaRole, NodeFacts, NodeSubject, PrivateKey, Segment,
        ServerName, ServerSubject,
        files::{
            self, FileError, MODE_PUBLIC, MODE_SECRET, MODE_SECRET_DIR, certificates_of,
            certificates_pem,
        },
        request,
    },
    CaDir, ImportReport, Issuer, RotationReport, key_and_chain, parse_issuer,
};

/// Before anything is signed under the new CA.
const NEW_TRUSTED_ROOT: &str =
    "give relying parties the new list of authorities first: `verifier results trusted-root`";

impl CaDir {
    /// Replaces an issuing CA by a new one under the current root; needs the root's key.
    ///
    /// The former certificate is kept under `ca/retired`, so that what it issued stays good.
    ///
    /// # Errors
    /// [`CaError::RootKeyAbsent`]; [`CaError::File`].
    pub fn rotate(&self, role: CaRole, now_unix_s: u64) -> Result<RotationReport, CaError> {
        let content = self.make_issuing(role, now_unix_s)?;
        self.install(role, &content)
    }

    fn install(&self, role: CaRole, content: &str) -> Result<RotationReport, CaError> {
        let path = self.role_path(role);
        let current = parse_issuer(role, &path, content)?;
        let former = self.issuer(role)?;
        let kept = match role {
            // It still signs the revocation lists for what it issued.
            CaRole::Nodes | CaRole::Jobs => files::read_secret(&path)?,
            CaRole::Admins | CaRole::Servers | CaRole::Results => {
                Zeroizing::new(certificates_pem(former.chain.iter().map(Vec::as_slice)))
            }
        };
        let id = former.certificate.key_id().short();
        let retired = self.retired_dir().join(format!("{role}-{id}.pem"));
        files::make_dir(&self.retired_dir(), MODE_SECRET_DIR)?;
        files::create(&retired, kept.as_bytes(), MODE_SECRET)?;
        files::replace(&path, content.as_bytes(), MODE_SECRET)?;
        let mut next = Vec::new();
        match role {
            CaRole::Nodes => next.push(
                "reload the verifier; workers get certificates of the new CA as they renew"
                    .to_owned(),
            ),
            CaRole::Jobs => next.extend([
                NEW_TRUSTED_ROOT.to_owned(),
                "reload the verifier; jobs get certificates of the new CA from then on".to_owned(),
            ]),
            CaRole::Results => next.extend([
                NEW_TRUSTED_ROOT.to_owned(),
                "reload the verifier; results are signed under the new CA from then on".to_owned(),
            ]),
            CaRole::Admins => next.push(format!(
                "issue new administrator certificates, then remove {}",
                retired.display()
            )),
            CaRole::Servers => {
                next.push("run `verifier ca renew-server` and reload the verifier".to_owned());
            }
        }
        Ok(RotationReport { former: id, current: current.certificate.key_id().short(), next })
    }

    /// Makes a new root. The former one stays in the trust bundle until [`Self::retire_root`]; the
    /// issuing CAs stay under it until each is rotated.
    ///
    /// # Errors
    /// [`CaError::File`].
    pub fn rotate_root(&self, now_unix_s: u64) -> Result<RotationReport, CaError> {
        let former = self.root()?;
        let key = PrivateKey::generate()?;
        let root = self.make_root(&key, now_unix_s)?;
        let pem = certificates_pem([root.der()]);
        // The bundle first: no certificate may chain to a root that nobody was told of.
        let mut bundle = vec![root.der().to_vec()];
        bundle.extend(self.bundle()?);
        self.write_bundle(&bundle)?;
        files::replace(&self.file("root.pem.new"), pem.as_bytes(), MODE_PUBLIC)?;
        files::replace(&self.root_key_path(), key.to_pem()?.as_bytes(), MODE_SECRET)?;
        self.finish_root_rotation()?;
        Ok(RotationReport {
            former: former.key_id().short(),
            current: key.id().short(),
            next: vec![
                "reload the verifier, so that workers learn the new trust bundle".to_owned(),
                "hand the new bundle to relying parties, and wait until every worker has renewed"
                    .to_owned(),
                "run `verifier ca rotate nodes`, `admins` and `servers`, then `renew-server`"
                    .to_owned(),
                format!(
                    "when nothing uses it any more, run `verifier ca retire-root {}`",
                    former.key_id().short()
                ),
                "move the new root.key off this machine".to_owned(),
            ],
        })
    }

    /// Completes a root rotation that stopped between exchanging key and certificate.
    pub(super) fn finish_root_rotation(&self) -> Result<(), CaError> {
        let new = self.file("root.pem.new");
        if !new.exists() {
            return Ok(());
        }
        let ders = certificates_of(&new, &files::read_text(&new)?)?;
        let certificate = CaCertificate::from_der(&ders[0])?;
        let key_matches = match files::read_secret(&self.root_key_path()) {
            Ok(pem) => PrivateKey::from_pem(&pem).is_ok_and(|key| key.id() == certificate.key_id()),
            Err(error) if error.is_absent() => false,
            Err(error) => return Err(error.into()),
        };
        if key_matches {
            let path = self.root_path();
            fs::rename(&new, &path).map_err(FileError::io("replace", &path))?;
        } else {
            // Stopped before the key was exchanged: the rotation did not happen.
            files::remove(&new)?;
        }
        Ok(())
    }

    /// Takes a root out of the trust bundle. `id` is the beginning of its key identifier.
    ///
    /// # Errors
    /// [`CaError::RootInUse`] while an issuing CA chains to it, or it is the last or the embedded
    /// CA's current one; [`CaError::Unknown`].
    pub fn retire_root(&self, id: &str) -> Result<(), CaError> {
        let bundle = self.bundle()?;
        let mut kept = Vec::new();
        let mut found = None;
        for der in bundle {
            let root = CaCertificate::from_der(&der)?;
            if id.len() >= 8 && root.key_id().to_string().starts_with(id) {
                found = Some(root);
            } else {
                kept.push(der);
            }
        }
        let found = found.ok_or_else(|| {
            CaError::Unknown(format!("{id} (give at least eight digits of its key identifier)"))
        })?;
        let in_use = |why: String| CaError::RootInUse { root: found.key_id().short(), why };
        for role in CaRole::ALL {
            let issuer = self.issuer(role)?;
            let last = issuer.chain.last().map(|der| CaCertificate::from_der(der)).transpose()?;
            if last.is_some_and(|last| last.issuer() == found.subject()) {
                return Err(in_use(format!("the issuing CA for {role} chains to it")));
            }
        }
        if kept.is_empty() {
            return Err(in_use("it is the only one in the bundle".to_owned()));
        }
        self.write_bundle(&kept)
    }

    /// Makes a key for an issuing CA and a PKCS#10 request, PEM, for the site's own PKI. Run again,
    /// it gives a request for the same key until the certificate is imported.
    ///
    /// # Errors
    /// [`CaError::File`]; [`CaError::Signer`].
    pub fn request(&self, role: CaRole) -> Result<String, CaError> {
        let path = self.request_key_path(role);
        let fresh = PrivateKey::generate()?;
        files::create(&path, fresh.to_pem()?.as_bytes(), MODE_SECRET)?;
        let key = PrivateKey::from_pem(&files::read_secret(&path)?)
            .map_err(|error| FileError::content(&path, error.to_string()))?;
        request::request(role, &self.trust_domain, &key)
    }

    /// Installs an issuing CA that the site's PKI signed. `chain` is PEM: the issuing certificate,
    /// its intermediates, the root. The root joins the trust bundle.
    ///
    /// Before anything is written a probe certificate, made and dropped in memory, has to verify
    /// through the chain as relying parties will verify.
    ///
    /// # Errors
    /// [`CaError::Certificate`] saying what is wrong; [`CaError::File`] if no request is waiting.
    pub fn import(
        &self,
        role: CaRole,
        chain: &str,
        now_unix_s: u64,
    ) -> Result<ImportReport, CaError> {
        let bad = |why: String| CaError::Certificate { what: format!("chain for {role}"), why };
        let key_path = self.request_key_path(role);
        let key = match files::read_secret(&key_path) {
            Err(error) if error.is_absent() => {
                return Err(bad(format!(
                    "no request is waiting; run `verifier ca csr {role}` first"
                )));
            }
            other => PrivateKey::from_pem(&other?)
                .map_err(|error| FileError::content(&key_path, error.to_string()))?,
        };
        let mut ders = certificates_of(Path::new("the chain"), chain)?;
        let root_der = ders.pop().filter(|_| !ders.is_empty()).ok_or_else(|| {
            bad("it must have the issuing certificate first and the root last".to_owned())
        })?;
        let root = CaCertificate::from_der(&root_der)?;
        if !root.is_self_issued() {
            return Err(bad(format!("its last certificate, {}, is not a root", root.subject())));
        }
        if !root.is_valid_at(now_unix_s) {
            return Err(bad(format!("its root, {}, is not valid now", root.subject())));
        }
        let issuer = Issuer::new(role, &key, ders)?;
        let notes = self.judge(&issuer).map_err(&bad)?;
        self.probe(&issuer, &root_der, now_unix_s).map_err(&bad)?;
        let mut bundle = self.bundle()?;
        let new_root = if bundle.contains(&root_der) {
            None
        } else {
            bundle.push(root_der);
            self.write_bundle(&bundle)?;
            Some(root.key_id().short())
        };
        self.install(role, &key_and_chain(&key, &issuer.chain)?)?;
        files::remove(&key_path)?;
        Ok(ImportReport {
            subject: issuer.certificate.subject().to_string(),
            not_after_unix_s: issuer.certificate.not_after_unix_s(),
            new_root,
            notes,
        })
    }

    fn judge(&self, issuer: &Issuer) -> Result<Vec<String>, String> {
        let mut notes = Vec::new();
        let certificate = &issuer.certificate;
        if matches!(issuer.role, CaRole::Nodes | CaRole::Jobs) && !certificate.signs_crls() {
            return Err("its key usage lacks cRLSign, which revocation needs".to_owned());
        }
        let uris = certificate.uris();
        if let Some(other) = uris.iter().find(|uri| **uri != self.trust_domain.id()) {
            return Err(format!("it names {other}, not {}", self.trust_domain.id()));
        }
        if uris.is_empty() && issuer.role != CaRole::Servers {
            notes.push(format!(
                "it does not name {} (X509-SVID asks for it)",
                self.trust_domain.id()
            ));
        }
        if certificate.path_length() != Some(0) {
            notes.push("its path length is not limited to 0".to_owned());
        }
        Ok(notes)
    }

    fn probe(&self, issuer: &Issuer, root: &[u8], now_unix_s: u64) -> Result<(), String> {
        const PROBE: Duration = Duration::from_secs(60);
        let text = |error: &dyn std::error::Error| error.to_string();
        let name: Segment = "probe".parse().map_err(|e| text(&e))?;
        let private = PrivateKey::generate().map_err(|e| text(&e))?;
        let key = private.public().clone();
        let terms = self.terms(now_unix_s, PROBE);
        let leaf = match issuer.role {
            CaRole::Nodes => issuer
                .issue(
                    NodeSubject {
                        pool: name.clone(),
                        name,
                        key,
                        facts: NodeFacts {
                            evidence_digest: [0; 32],
                            policy_version: "probe".to_owned(),
                            reference_set_digest: [0; 32],
                            reset_count: 0,
                            restart_count: 0,
                            decision_id: "probe".to_owned(),
                        },
                        expires_unix_s: now_unix_s,
                    },
                    &terms,
                )
                .map(|issued| issued.der().to_vec()),
            CaRole::Admins => issuer
                .issue(AdminSubject::new(name, key), &terms)
                .map(|issued| issued.der().to_vec()),
            CaRole::Jobs => {
                let subject = super::super::JobSubject::probe(&name, key);
                issuer.issue(subject, &terms).map(|issued| issued.der().to_vec())
            }
            CaRole::Results => issuer
                .issue(super::super::ResultsSubject::new(&private), &terms)
                .map(|issued| issued.der().to_vec()),
            CaRole::Servers => issuer
                .issue(
                    ServerSubject::new(vec![ServerName::Dns("probe.invalid".into())], key),
                    &terms,
                )
                .map(|issued| issued.der().to_vec()),
        }
        .map_err(|error| text(&error))?;
        verify_leaf(issuer.role, &leaf, issuer.chain(), root, now_unix_s)
    }
}

/// Path validation of a leaf as TLS peers do it.
fn verify_leaf(
    role: CaRole,
    leaf: &[u8],
    intermediates: &[Vec<u8>],
    root: &[u8],
    now_unix_s: u64,
) -> Result<(), String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(root)).map_err(|error| error.to_string())?;
    let roots = Arc::new(roots);
    let leaf = CertificateDer::from(leaf);
    let intermediates: Vec<_> =
        intermediates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now_unix_s));
    let outcome = if role == CaRole::Servers {
        let name = "probe.invalid".try_into().map_err(|_| "not a DNS name".to_owned())?;
        WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| error.to_string())?
            .verify_server_cert(&leaf, &intermediates, &name, &[], now)
            .map(drop)
    } else {
        WebPkiClientVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| error.to_string())?
            .verify_client_cert(&leaf, &intermediates, now)
            .map(drop)
    };
    outcome.map_err(|error| format!("a certificate issued under it would not verify: {error}"))
}
