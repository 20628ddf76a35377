//! The CA on disk: creation, loading, issuing, rotation, the site's own PKI.
//!
//! | file under the state directory | mode | content |
//! |---|---|---|
//! | `bundle.pem` | 0644 | roots that relying parties trust: the current one first, then those that retire |
//! | `ca/root.pem` | 0644 | the root certificate |
//! | `ca/root.key` | 0600 | its private key; may be moved off the machine |
//! | `ca/ROLE.pem` | 0600 | private key, issuing certificate and further intermediates |
//! | `ca/ROLE.request.key` | 0600 | private key of a request that waits for its certificate |
//! | `ca/retired/ROLE-ID.pem` | 0600 | former issuing certificates; for `nodes` and `jobs` with the key, which signs the last lists |
//!
//! Key and certificate of an issuing CA stand in one file, so that one rename exchanges both.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use zeroize::Zeroizing;

use super::{
    ADMIN_LIFETIME, AdminSubject, CaCertificate, CaError, CaRole, CaSubject, Crl, Issued,
    IssuingKey, PrivateKey, ROOT_LIFETIME, Revoked, SERVER_LIFETIME, Segment, ServerName,
    ServerSubject, SignerError, Subject, Terms, TrustDomain,
    files::{
        self, FileError, MODE_PUBLIC, MODE_SECRET, MODE_SECRET_DIR, MODE_STATE_DIR,
        certificates_of, certificates_pem, pem_blocks,
    },
    prepare,
    profile::prepare_root,
    sign,
};

mod chains;
mod change;

/// One thing that creating the CA did or found done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The file or directory.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// What it is, in words.
    pub what: String,
    /// False if it was there already.
    pub created: bool,
}

/// An issuing CA, ready to issue.
#[derive(Debug)]
pub struct Issuer {
    role: CaRole,
    key: IssuingKey,
    certificate: CaCertificate,
    chain: Vec<Vec<u8>>,
}

impl Issuer {
    fn new(role: CaRole, key: &PrivateKey, chain: Vec<Vec<u8>>) -> Result<Self, CaError> {
        let first = chain.first().ok_or_else(|| CaError::Unknown(role.name().to_owned()))?;
        let certificate = CaCertificate::from_der(first)?;
        if certificate.key_id() != key.id() {
            return Err(CaError::Certificate {
                what: format!("issuing CA {role}"),
                why: "its private key belongs to another certificate".to_owned(),
            });
        }
        Ok(Self { role, key: IssuingKey::new(key)?, certificate, chain })
    }

    /// What it issues.
    #[must_use]
    pub const fn role(&self) -> CaRole {
        self.role
    }

    /// Its certificate.
    #[must_use]
    pub const fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    /// Its signing key, for [`sign`].
    #[must_use]
    pub const fn key(&self) -> &IssuingKey {
        &self.key
    }

    /// Its certificate and further intermediates, DER, without the root: what follows a leaf.
    #[must_use]
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// A revocation list; see [`Crl::sign`].
    ///
    /// # Errors
    /// As [`Crl::sign`].
    pub fn crl(
        &self,
        number: u64,
        now_unix_s: u64,
        lifetime: Duration,
        revoked: Vec<Revoked>,
    ) -> Result<Crl, CaError> {
        Crl::sign(&self.certificate, &self.key, number, now_unix_s, lifetime, revoked)
    }

    fn issue<S: Subject>(&self, subject: S, terms: &Terms<'_>) -> Result<Issued<S>, CaError> {
        Ok(sign(prepare(subject, &self.certificate, terms)?, &self.key)?)
    }
}

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportReport {
    /// Subject of the issuing CA.
    pub subject: String,
    /// End of its validity, seconds since 1970.
    pub not_after_unix_s: u64,
    /// Key identifier of the root that was added to the trust bundle, if it was not in it.
    pub new_root: Option<String>,
    /// What is unusual about the certificate, in words; nothing that would make it unusable.
    pub notes: Vec<String>,
}

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationReport {
    /// Key identifier of the former CA.
    pub former: String,
    /// Key identifier of the new CA.
    pub current: String,
    /// What is left to do, in words and in order.
    pub next: Vec<String>,
}

/// The CA's files under one state directory.
#[derive(Clone, Debug)]
pub struct CaDir {
    state: PathBuf,
    trust_domain: TrustDomain,
}

impl CaDir {
    /// The CA of `trust_domain` under the state directory `state`; touches nothing.
    #[must_use]
    pub fn new(state: impl Into<PathBuf>, trust_domain: TrustDomain) -> Self {
        Self { state: state.into(), trust_domain }
    }

    /// The trust domain.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The trust bundle's file.
    #[must_use]
    pub fn bundle_path(&self) -> PathBuf {
        self.state.join("bundle.pem")
    }

    /// The root's private key file.
    #[must_use]
    pub fn root_key_path(&self) -> PathBuf {
        self.file("root.key")
    }

    fn root_path(&self) -> PathBuf {
        self.file("root.pem")
    }

    fn role_path(&self, role: CaRole) -> PathBuf {
        self.file(&format!("{role}.pem"))
    }

    fn request_key_path(&self, role: CaRole) -> PathBuf {
        self.file(&format!("{role}.request.key"))
    }

    fn retired_dir(&self) -> PathBuf {
        self.file("retired")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.state.join("ca").join(name)
    }

    /// Creates what is not there yet: root, issuing CAs, trust bundle. Never overwrites; a run that
    /// was cut off is taken up where it stopped.
    ///
    /// # Errors
    /// [`CaError::Partial`] where a lost file would have to be made anew;
    /// [`CaError::RootKeyAbsent`].
    pub fn create(&self, now_unix_s: u64) -> Result<Vec<Step>, CaError> {
        let mut steps = Vec::new();
        let mut dir = |path: PathBuf, mode, what: &str| -> Result<(), CaError> {
            let created = files::make_dir(&path, mode)?;
            steps.push(Step { path, mode, what: what.to_owned(), created });
            Ok(())
        };
        dir(self.state.clone(), MODE_STATE_DIR, "state directory")?;
        dir(self.state.join("ca"), MODE_SECRET_DIR, "CA directory")?;
        dir(self.retired_dir(), MODE_SECRET_DIR, "retired issuing CAs")?;
        self.create_root(now_unix_s, &mut steps)?;
        for role in CaRole::ALL {
            self.create_issuing(role, now_unix_s, &mut steps)?;
        }
        let path = self.bundle_path();
        let created =
            files::create(&path, certificates_pem([self.root()?.der()]).as_bytes(), MODE_PUBLIC)?;
        steps.push(Step {
            path,
            mode: MODE_PUBLIC,
            what: "trust bundle for workers and relying parties".to_owned(),
            created,
        });
        Ok(steps)
    }

    fn create_root(&self, now_unix_s: u64, steps: &mut Vec<Step>) -> Result<(), CaError> {
        let (path, key_path) = (self.root_path(), self.root_key_path());
        if path.exists() {
            self.root()?;
            if key_path.exists() {
                steps.push(Step {
                    path: key_path,
                    mode: MODE_SECRET,
                    what: "root private key; move it off this machine".to_owned(),
                    created: false,
                });
            }
            steps.push(Step {
                path,
                mode: MODE_PUBLIC,
                what: "root certificate".to_owned(),
                created: false,
            });
            return Ok(());
        }
        let later = CaRole::ALL.map(|role| self.role_path(role)).into_iter();
        if let Some(present) = later.chain([self.bundle_path()]).find(|path| path.exists()) {
            return Err(CaError::Partial { missing: path, present });
        }
        // A key without its certificate is left by a run that was cut off: use it.
        let fresh = PrivateKey::generate()?;
        let created = files::create(&key_path, fresh.to_pem()?.as_bytes(), MODE_SECRET)?;
        let key = PrivateKey::from_pem(&files::read_secret(&key_path)?)
            .map_err(|error| FileError::content(&key_path, error.to_string()))?;
        steps.push(Step {
            path: key_path,
            mode: MODE_SECRET,
            what: "root private key; move it off this machine".to_owned(),
            created,
        });
        let root = self.make_root(&key, now_unix_s)?;
        let created = files::create(&path, certificates_pem([root.der()]).as_bytes(), MODE_PUBLIC)?;
        steps.push(Step { path, mode: MODE_PUBLIC, what: "root certificate".to_owned(), created });
        Ok(())
    }

    fn make_root(&self, key: &PrivateKey, now_unix_s: u64) -> Result<Issued<CaSubject>, CaError> {
        let terms = Terms { trust_domain: &self.trust_domain, now_unix_s, lifetime: ROOT_LIFETIME };
        Ok(sign(prepare_root(key.public().clone(), &terms)?, &IssuingKey::new(key)?)?)
    }

    fn create_issuing(
        &self,
        role: CaRole,
        now_unix_s: u64,
        steps: &mut Vec<Step>,
    ) -> Result<(), CaError> {
        let path = self.role_path(role);
        let created = if path.exists() {
            // The admin CA's private key may have been taken away; its certificate must be there.
            match role {
                CaRole::Admins => drop(self.certificates(role)?),
                CaRole::Nodes | CaRole::Servers | CaRole::Jobs | CaRole::Results => {
                    drop(self.issuer(role)?);
                }
            }
            false
        } else {
            let content = self.make_issuing(role, now_unix_s)?;
            files::create(&path, content.as_bytes(), MODE_SECRET)?
        };
        let what = format!("private key and certificate of the issuing CA for {role}");
        steps.push(Step { path, mode: MODE_SECRET, what, created });
        Ok(())
    }

    /// Key and certificate of a new issuing CA under the current root.
    fn make_issuing(&self, role: CaRole, now_unix_s: u64) -> Result<Zeroizing<String>, CaError> {
        let root = self.root()?;
        let root_key = self.root_key(&root)?;
        let key = PrivateKey::generate()?;
        let terms =
            Terms { trust_domain: &self.trust_domain, now_unix_s, lifetime: role.lifetime() };
        let subject = CaSubject::issuing(role, key.public().clone());
        let issued = sign(prepare(subject, &root, &terms)?, &root_key)?;
        key_and_chain(&key, &[issued.der().to_vec()])
    }

    /// The root certificate of the embedded CA.
    ///
    /// # Errors
    /// [`CaError::File`]; [`CaError::Certificate`].
    pub fn root(&self) -> Result<CaCertificate, CaError> {
        self.finish_root_rotation()?;
        let path = self.root_path();
        let ders = certificates_of(&path, &files::read_text(&path)?)?;
        CaCertificate::from_der(&ders[0])
    }

    fn root_key(&self, root: &CaCertificate) -> Result<IssuingKey, CaError> {
        let path = self.root_key_path();
        let pem = match files::read_secret(&path) {
            Err(error) if error.is_absent() => return Err(CaError::RootKeyAbsent { path }),
            other => other?,
        };
        let key = PrivateKey::from_pem(&pem)
            .map_err(|error| FileError::content(&path, error.to_string()))?;
        if key.id() != root.key_id() {
            return Err(FileError::content(&path, "is not the key of the root certificate").into());
        }
        Ok(IssuingKey::new(&key)?)
    }

    /// Loads an issuing CA.
    ///
    /// # Errors
    /// [`CaError::File`], for a key that others can read too; [`CaError::Certificate`].
    pub fn issuer(&self, role: CaRole) -> Result<Issuer, CaError> {
        load_issuer(role, &self.role_path(role))
    }

    /// Former CAs of nodes or jobs whose certificates may still be in use: each signs its own last lists.
    ///
    /// # Errors
    /// As [`Self::issuer`].
    pub fn retired_issuers(&self, role: CaRole, now_unix_s: u64) -> Result<Vec<Issuer>, CaError> {
        let mut issuers = Vec::new();
        for path in self.retired_files(role)? {
            let issuer = load_issuer(role, &path)?;
            if issuer.certificate.is_valid_at(now_unix_s) {
                issuers.push(issuer);
            }
        }
        Ok(issuers)
    }

    /// Certificates of the current and the former CAs of a role: what a leaf may be issued under.
    ///
    /// # Errors
    /// [`CaError::File`]; [`CaError::Certificate`].
    pub fn certificates(&self, role: CaRole) -> Result<Vec<CaCertificate>, CaError> {
        let mut paths = vec![self.role_path(role)];
        paths.extend(self.retired_files(role)?);
        let mut certificates = Vec::new();
        for path in paths {
            let text = files::read_secret(&path)?;
            let ders = certificates_of(&path, &text)?;
            let certificate = CaCertificate::from_der(&ders[0])?;
            if !certificates.contains(&certificate) {
                certificates.push(certificate);
            }
        }
        Ok(certificates)
    }

    fn retired_files(&self, role: CaRole) -> Result<Vec<PathBuf>, CaError> {
        let dir = self.retired_dir();
        let prefix = format!("{role}-");
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(FileError::io("read", &dir))?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(FileError::io("read", &dir))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(&prefix) && name.ends_with(".pem") {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// The trust bundle: roots, DER, the current one first.
    ///
    /// # Errors
    /// [`CaError::File`].
    pub fn bundle(&self) -> Result<Vec<Vec<u8>>, CaError> {
        let path = self.bundle_path();
        Ok(certificates_of(&path, &files::read_text(&path)?)?)
    }

    fn write_bundle(&self, roots: &[Vec<u8>]) -> Result<(), CaError> {
        let pem = certificates_pem(roots.iter().map(Vec::as_slice));
        Ok(files::replace(&self.bundle_path(), pem.as_bytes(), MODE_PUBLIC)?)
    }

    /// A client certificate for an administrator who holds `key`, with its chain: leaf, then
    /// issuers.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn issue_admin(
        &self,
        name: Segment,
        key: &PrivateKey,
        now_unix_s: u64,
    ) -> Result<(Issued<AdminSubject>, Vec<Vec<u8>>), CaError> {
        let issuer = self.issuer(CaRole::Admins)?;
        let subject = AdminSubject::new(name, key.public().clone());
        let issued = issuer.issue(subject, &self.terms(now_unix_s, ADMIN_LIFETIME))?;
        let chain = [vec![issued.der().to_vec()], issuer.chain].concat();
        Ok((issued, chain))
    }

    /// The server's key and certificate, as [`Self::renew_server`] writes them.
    #[must_use]
    pub fn server_path(&self) -> PathBuf {
        self.state.join("tls").join("server.pem")
    }

    /// Makes a new server key and certificate, and replaces the former; needs no root key.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn renew_server(
        &self,
        names: Vec<ServerName>,
        now_unix_s: u64,
    ) -> Result<Issued<ServerSubject>, CaError> {
        let (issued, pem) = self.issue_server(names, now_unix_s)?;
        let path = self.server_path();
        files::make_dir(&self.state.join("tls"), MODE_SECRET_DIR)?;
        files::replace(&path, pem.as_bytes(), MODE_SECRET)?;
        Ok(issued)
    }

    /// The server's certificate chain, leaf first, and its key.
    ///
    /// # Errors
    /// [`CaError::File`].
    pub fn server(&self) -> Result<(Vec<Vec<u8>>, PrivateKey), CaError> {
        let path = self.server_path();
        let text = files::read_secret(&path)?;
        Ok((certificates_of(&path, &text)?, key_of(&path, &text)?))
    }

    /// Writes an administrator's key and certificate into `dir`; what is there already stays.
    ///
    /// A key without a certificate, left by a run that was cut off, is used; a certificate without
    /// a key is one whose key was moved to where the administrator works.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn write_admin(
        &self,
        dir: &Path,
        name: &Segment,
        now_unix_s: u64,
    ) -> Result<Vec<Step>, CaError> {
        let key_path = dir.join(format!("{name}.key"));
        let path = dir.join(format!("{name}.pem"));
        let mut steps = Vec::new();
        let what = format!("client certificate of the administrator {name}");
        let key_what = format!("private key of the administrator {name}");
        if path.exists() {
            if key_path.exists() {
                let (path, what) = (key_path, key_what);
                steps.push(Step { path, mode: MODE_SECRET, what, created: false });
            }
            steps.push(Step { path, mode: MODE_PUBLIC, what, created: false });
            return Ok(steps);
        }
        files::make_dir(dir, MODE_SECRET_DIR)?;
        let fresh = PrivateKey::generate()?;
        let created = files::create(&key_path, fresh.to_pem()?.as_bytes(), MODE_SECRET)?;
        let key = key_of(&key_path, &files::read_secret(&key_path)?)?;
        steps.push(Step { path: key_path, mode: MODE_SECRET, what: key_what, created });
        let (_, chain) = self.issue_admin(name.clone(), &key, now_unix_s)?;
        let pem = certificates_pem(chain.iter().map(Vec::as_slice));
        let created = files::create(&path, pem.as_bytes(), MODE_PUBLIC)?;
        steps.push(Step { path, mode: MODE_PUBLIC, what, created });
        Ok(steps)
    }

    /// A server certificate with a key made here: PEM of key, leaf, intermediates and root.
    ///
    /// The root is sent along, so that a client that only has the root's digest can check it.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn issue_server(
        &self,
        names: Vec<ServerName>,
        now_unix_s: u64,
    ) -> Result<(Issued<ServerSubject>, Zeroizing<String>), CaError> {
        let issuer = self.issuer(CaRole::Servers)?;
        let key = PrivateKey::generate()?;
        let subject = ServerSubject::new(names, key.public().clone());
        let issued = issuer.issue(subject, &self.terms(now_unix_s, SERVER_LIFETIME))?;
        let mut chain = [vec![issued.der().to_vec()], issuer.chain].concat();
        chain.extend(self.root_of(&chain)?);
        let pem = key_and_chain(&key, &chain)?;
        Ok((issued, pem))
    }

    const fn terms(&self, now_unix_s: u64, lifetime: Duration) -> Terms<'_> {
        Terms { trust_domain: &self.trust_domain, now_unix_s, lifetime }
    }

    /// The root in the bundle that the last certificate of `chain` names as its issuer.
    fn root_of(&self, chain: &[Vec<u8>]) -> Result<Option<Vec<u8>>, CaError> {
        let Some(last) = chain.last() else { return Ok(None) };
        let last = CaCertificate::from_der(last)?;
        Ok(self.bundle()?.into_iter().find(|root| {
            CaCertificate::from_der(root).is_ok_and(|root| root.subject() == last.issuer())
        }))
    }
}

/// PEM of a private key and certificates.
pub(super) fn key_and_chain(
    key: &PrivateKey,
    chain: &[Vec<u8>],
) -> Result<Zeroizing<String>, CaError> {
    let key_pem = key.to_pem()?;
    let chain_pem = certificates_pem(chain.iter().map(Vec::as_slice));
    // Sized from the start, so that growing leaves no copy of the key behind.
    let mut out = Zeroizing::new(String::with_capacity(key_pem.len() + chain_pem.len()));
    out.push_str(&key_pem);
    out.push_str(&chain_pem);
    Ok(out)
}

fn load_issuer(role: CaRole, path: &Path) -> Result<Issuer, CaError> {
    parse_issuer(role, path, &files::read_secret(path)?)
}

/// The private key of a PEM text.
fn key_of(path: &Path, text: &str) -> Result<PrivateKey, CaError> {
    let mut keys = pem_blocks(path, text)?.into_iter().filter(|(label, _)| *label == "PRIVATE KEY");
    let (Some((_, key)), None) = (keys.next(), keys.next()) else {
        return Err(FileError::content(path, "must have exactly one PRIVATE KEY block").into());
    };
    Ok(PrivateKey::from_pem(key)
        .map_err(|error: SignerError| FileError::content(path, error.to_string()))?)
}

fn parse_issuer(role: CaRole, path: &Path, text: &str) -> Result<Issuer, CaError> {
    let key = key_of(path, text)?;
    let chain = certificates_of(path, text)?;
    // Each certificate names the next as its issuer.
    for pair in chain.windows(2) {
        if let [lower, upper] = pair {
            let (lower, upper) = (CaCertificate::from_der(lower)?, CaCertificate::from_der(upper)?);
            if lower.issuer() != upper.subject() {
                return Err(FileError::content(path, "has its certificates out of order").into());
            }
        }
    }
    Issuer::new(role, &key, chain)
}
