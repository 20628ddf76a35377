//! One private software TPM for each test.
//!
//! Own state directory, own free port pair, own manufacturer's certificates, no root, no fixed port;
//! ended by its own process id when dropped. Any number of them run side by side, in one process or
//! in several.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    manufacturer::{EkCertificate, EkProfile, EkTemplate, Manufacturer, read_ek},
    ports::PortPair,
    raw::{
        Bank, CommandCode, RC_INITIALIZE, RC_LOCKOUT, RH_LOCKOUT, RH_NULL, RH_PLATFORM, RawError,
        RawTpm, SU_CLEAR, SU_STATE,
    },
};

/// Why the harness could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HarnessError {
    /// A program is not installed.
    #[error("{program} is not installed; `cargo xtask setup` installs it")]
    NotInstalled {
        /// The program.
        program: String,
    },
    /// A program failed.
    #[error("{program} failed ({status}): {output}")]
    Program {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// A file or socket operation failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// No pair of free ports, or swtpm did not come up on any.
    #[error("no software TPM came up on any of {tried} port pairs; the last one said: {output}")]
    NoPort {
        /// Pairs tried.
        tried: usize,
        /// The last attempt's log.
        output: String,
    },
    /// A raw TPM command failed.
    #[error("raw TPM command")]
    Tpm(#[from] RawError),
    /// A certificate, key or structure could not be made.
    #[error("certificate: {0}")]
    Certificate(String),
}

impl From<der::Error> for HarnessError {
    fn from(error: der::Error) -> Self {
        Self::Certificate(error.to_string())
    }
}

impl From<x509_cert::builder::Error> for HarnessError {
    fn from(error: x509_cert::builder::Error) -> Self {
        Self::Certificate(error.to_string())
    }
}

impl From<x509_cert::spki::Error> for HarnessError {
    fn from(error: x509_cert::spki::Error) -> Self {
        Self::Certificate(error.to_string())
    }
}

/// How a software TPM is manufactured.
#[derive(Clone, Debug)]
pub struct SwtpmOptions {
    /// Whose CA certifies its EKs.
    pub manufacturer: Arc<Manufacturer>,
    /// Banks allocated.
    pub banks: Vec<Bank>,
    /// Certificates for RSA-2048 (0x01c00002) and P-384 (0x01c00016), made by `swtpm_setup`.
    pub ek_certificates: bool,
    /// A platform certificate at 0x01c08000.
    pub platform_certificate: bool,
    /// Further EKs, certified by the manufacturer in the way given.
    pub extra_eks: Vec<(EkTemplate, EkProfile)>,
    /// The manufacturer's intermediate in NV from 0x01c00100 on.
    pub chain_in_nv: bool,
    /// Begin with this state instead of manufacturing a TPM.
    pub state: Option<Snapshot>,
}

impl Default for SwtpmOptions {
    fn default() -> Self {
        Self {
            manufacturer: Manufacturer::shared(),
            banks: vec![Bank::Sha256],
            ek_certificates: true,
            platform_certificate: false,
            extra_eks: Vec::new(),
            chain_in_nv: true,
            state: None,
        }
    }
}

impl SwtpmOptions {
    /// A TPM whose EKs have no certificate.
    #[must_use]
    pub fn without_certificates() -> Self {
        Self { ek_certificates: false, chain_in_nv: false, ..Self::default() }
    }

    /// A TPM with certificates for every template that this project accepts.
    #[must_use]
    pub fn with_all_eks() -> Self {
        let extra = [EkTemplate::EccP256, EkTemplate::Rsa3072];
        Self {
            extra_eks: extra.map(|template| (template, EkProfile::default())).to_vec(),
            ..Self::default()
        }
    }

    /// A TPM with one EK certificate of the kind and content given, and no other.
    #[must_use]
    pub fn with_only(template: EkTemplate, profile: EkProfile) -> Self {
        Self { extra_eks: vec![(template, profile)], ..Self::without_certificates() }
    }
}

/// The persistent state of a TPM, as files.
#[derive(Clone, Debug)]
pub struct Snapshot {
    files: Vec<(OsString, Vec<u8>)>,
}

/// How long swtpm may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Port pairs tried before giving up.
const PORT_ATTEMPTS: usize = 64;

/// A running software TPM.
#[derive(Debug)]
pub struct Swtpm {
    // Field order is drop order: the process ends in `drop`, then the ports, then the files go.
    child: Option<Child>,
    ports: PortPair,
    directory: TempDir,
    manufacturer: Arc<Manufacturer>,
    issued: Vec<(EkTemplate, EkCertificate)>,
}

impl Swtpm {
    /// Manufactures a TPM and powers it on (`TPM2_Startup(CLEAR)` sent).
    ///
    /// # Errors
    /// swtpm is not installed, `swtpm_setup` fails, no ports are free, or the TPM refuses a command.
    pub fn start(options: SwtpmOptions) -> Result<Self, HarnessError> {
        let directory = io("creating a state directory", tempfile::tempdir)?;
        let state = directory.path().join("state");
        io("creating the TPM's state directory", || fs::create_dir(&state))?;
        match &options.state {
            Some(snapshot) => snapshot.write(&state)?,
            None => manufacture(directory.path(), &state, &options)?,
        }
        let (child, ports) = power_on(directory.path(), &state)?;
        let mut tpm = Self {
            child: Some(child),
            ports,
            directory,
            manufacturer: Arc::clone(&options.manufacturer),
            issued: Vec::new(),
        };
        tpm.raw().startup(SU_CLEAR)?;
        if options.state.is_none() {
            tpm.provision(&options)?;
        }
        Ok(tpm)
    }

    fn provision(&mut self, options: &SwtpmOptions) -> Result<(), HarnessError> {
        let mut chains = Vec::new();
        if options.ek_certificates {
            chains.push(vec![self.manufacturer.intermediate_der()?]);
        }
        for (template, profile) in &options.extra_eks {
            let issued = self.manufacturer.provision(self.raw(), *template, profile, &[])?;
            if !chains.contains(&issued.chain) {
                chains.push(issued.chain.clone());
            }
            self.issued.push((*template, issued));
        }
        if options.chain_in_nv {
            Manufacturer::store_chain(self.raw(), &chains.concat())?;
        }
        Ok(())
    }

    /// TCTI string for tss2: `swtpm:host=127.0.0.1,port=N`.
    #[must_use]
    pub fn tcti(&self) -> String {
        tcti(self.ports.data)
    }

    /// The data port; the control port is the next one.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.ports.data
    }

    /// A raw client of this TPM.
    #[must_use]
    pub fn raw(&self) -> RawTpm {
        RawTpm::at(self.ports.data)
    }

    /// Who certified this TPM's EKs.
    #[must_use]
    pub fn manufacturer(&self) -> &Manufacturer {
        &self.manufacturer
    }

    /// The certificates of [`SwtpmOptions::extra_eks`], as issued.
    #[must_use]
    pub fn issued(&self) -> &[(EkTemplate, EkCertificate)] {
        &self.issued
    }

    /// The public area of one of its EKs.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn ek(&self, template: EkTemplate) -> Result<proto::tpm::public::Public, HarnessError> {
        read_ek(self.raw(), template, &[])
    }

    /// Sends one frame as it is and returns the answer as it is.
    ///
    /// # Errors
    /// The connection failed.
    pub fn raw_command(&self, frame: &[u8]) -> Result<Vec<u8>, HarnessError> {
        io("sending a raw TPM command", || self.raw().transmit(frame))
    }

    /// A clean reboot: `Shutdown(CLEAR)`, power cycle, `Startup(CLEAR)`. PCRs are at their reset
    /// values, resetCount has grown, objects of the NULL hierarchy are dead.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn reset(&self) -> Result<(), HarnessError> {
        reset_at(self.ports.data)
    }

    /// A power cut: no shutdown command, then `Startup(CLEAR)`. Like [`Self::reset`], but not
    /// orderly, so that the clock is not safe for a while.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn power_cut(&self) -> Result<(), HarnessError> {
        self.power_cycle()?;
        Ok(self.raw().startup(SU_CLEAR)?)
    }

    /// Sleep and wake (S3): `Shutdown(STATE)`, power cycle, `Startup(STATE)`. PCRs stay,
    /// restartCount grows; transient objects are gone.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn suspend_resume(&self) -> Result<(), HarnessError> {
        self.raw().shutdown(SU_STATE)?;
        self.power_cycle()?;
        Ok(self.raw().startup(SU_STATE)?)
    }

    /// A TPM restart: `Shutdown(STATE)`, power cycle, `Startup(CLEAR)`. PCRs are at their reset
    /// values while resetCount stays and only restartCount grows: how an attacker reboots into
    /// another state without a reset that counts.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn restart(&self) -> Result<(), HarnessError> {
        self.raw().shutdown(SU_STATE)?;
        self.power_cycle()?;
        Ok(self.raw().startup(SU_CLEAR)?)
    }

    /// `TPM2_Clear` by the platform: storage and endorsement hierarchies' objects are gone, their
    /// passwords empty, counters zero. NV that the platform wrote (EK certificates) stays.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn clear(&self) -> Result<(), HarnessError> {
        self.raw().with_password(CommandCode::CLEAR, &[RH_PLATFORM], &[], &[], 0)?;
        Ok(())
    }

    /// Drives the TPM into dictionary-attack lockout by using a key with wrong passwords.
    ///
    /// # Errors
    /// The TPM refuses, or does not lock after 64 failures.
    pub fn lockout(&self) -> Result<(), HarnessError> {
        // A P-256 ECDSA-SHA256 signing key that is subject to the protection: fixedTPM,
        // fixedParent, sensitiveDataOrigin, userWithAuth, sign.
        let mut template = vec![0x00, 0x23, 0x00, 0x0b];
        template.extend_from_slice(&0x0004_0072u32.to_be_bytes());
        template.extend_from_slice(&[0, 0, 0x00, 0x10, 0x00, 0x18, 0x00, 0x0b]);
        template.extend_from_slice(&[0x00, 0x03, 0x00, 0x10, 0, 0, 0, 0]);
        let tpm = self.raw();
        let key = tpm.create_primary(RH_NULL, &[], b"right", &template)?;
        let mut outcome = Err(HarnessError::Certificate("the TPM does not lock out".into()));
        for _ in 0..64 {
            match tpm.sign(key.handle, b"wrong", &[0x5a; 32]) {
                Err(error) if error.response_code() == Some(RC_LOCKOUT) => {
                    outcome = Ok(());
                    break;
                }
                // TPM_RC_AUTH_FAIL on session 1: one more failure counted.
                Err(error) if error.response_code() == Some(0x98e) => {}
                Err(error) => {
                    outcome = Err(error.into());
                    break;
                }
                Ok(_) => break,
            }
        }
        tpm.flush(key.handle)?;
        outcome
    }

    /// `TPM2_DictionaryAttackLockReset`.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn unlock(&self) -> Result<(), HarnessError> {
        let command = CommandCode::DICTIONARY_ATTACK_LOCK_RESET;
        self.raw().with_password(command, &[RH_LOCKOUT], &[], &[], 0)?;
        Ok(())
    }

    /// A copy of the persistent state. The TPM runs on.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, HarnessError> {
        Snapshot::read(&self.state())
    }

    /// Power off, put back `snapshot`, power on (`Startup(CLEAR)`), ports unchanged: what a
    /// virtual TPM's host can do, and a hardware TPM's owner cannot.
    ///
    /// # Errors
    /// The state cannot be written, or swtpm does not come up.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), HarnessError> {
        self.power_off();
        snapshot.write(&self.state())?;
        self.power_on()
    }

    /// Ends the process: from now on nobody answers on the ports.
    pub fn power_off(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Failure means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the process again on the same ports with the state there is, `Startup(CLEAR)`.
    ///
    /// # Errors
    /// swtpm does not come up.
    pub fn power_on(&mut self) -> Result<(), HarnessError> {
        self.power_off();
        self.child = Some(spawn(self.directory.path(), &self.state(), &self.ports)?);
        Ok(self.raw().startup(SU_CLEAR)?)
    }

    /// The process id, while it is on.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn power_cycle(&self) -> Result<(), HarnessError> {
        power_cycle(self.ports.control())
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.power_off();
    }
}

impl Snapshot {
    fn read(directory: &Path) -> Result<Self, HarnessError> {
        let files = io("reading the TPM's state", || {
            let mut files = Vec::new();
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                // `.lock` belongs to the running process.
                if entry.file_type()?.is_file() && entry.file_name() != ".lock" {
                    files.push((entry.file_name(), fs::read(entry.path())?));
                }
            }
            Ok(files)
        })?;
        Ok(Self { files })
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<(), HarnessError> {
        io("writing the TPM's state", || {
            for entry in fs::read_dir(directory)? {
                fs::remove_file(entry?.path())?;
            }
            for (name, bytes) in &self.files {
                fs::write(directory.join(name), bytes)?;
            }
            Ok(())
        })
    }
}

/// [`Swtpm::reset`] of the TPM whose data port is `port`, which another process holds.
///
/// # Errors
/// The TPM refuses, or nobody listens.
pub fn reset_at(port: u16) -> Result<(), HarnessError> {
    let tpm = RawTpm::at(port);
    tpm.shutdown(SU_CLEAR)?;
    power_cycle(port + 1)?;
    Ok(tpm.startup(SU_CLEAR)?)
}

/// `CMD_INIT` on the control port: the power goes off and on; the TPM awaits `TPM2_Startup`.
fn power_cycle(control_port: u16) -> Result<(), HarnessError> {
    const CMD_INIT: u32 = 2;
    let answer = io("power cycle over the control port", || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, control_port))?;
        stream.set_read_timeout(Some(START_TIMEOUT))?;
        let mut command = Vec::from(CMD_INIT.to_be_bytes());
        command.extend_from_slice(&0u32.to_be_bytes());
        stream.write_all(&command)?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        Ok(u32::from_be_bytes(answer))
    })?;
    if answer == 0 {
        return Ok(());
    }
    Err(RawError::Response { command: CommandCode::STARTUP, code: answer }.into())
}

/// The TCTI string of a TPM whose data port is `port`.
pub(crate) fn tcti(port: u16) -> String {
    format!("swtpm:host=127.0.0.1,port={port}")
}

/// Runs `swtpm_setup` with configuration files of its own.
fn manufacture(directory: &Path, state: &Path, options: &SwtpmOptions) -> Result<(), HarnessError> {
    let path = |name: &str| directory.join(name);
    let authority = path("localca");
    io("writing the manufacturer's files", || fs::create_dir(&authority))?;
    let setup = format!(
        "create_certs_tool = {}\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\n",
        find_program("swtpm_localca")?.display(),
        path("localca.conf").display(),
        path("localca.options").display(),
    );
    let localca = format!(
        "statedir = {}\nsigningkey = {}\nissuercert = {}\ncertserial = {}\n",
        authority.display(),
        authority.join("key.pem").display(),
        authority.join("certificate.pem").display(),
        authority.join("serial").display(),
    );
    let key = options.manufacturer.intermediate_key_pem()?;
    let certificate = options.manufacturer.intermediate_pem()?;
    io("writing the manufacturer's files", || {
        fs::write(path("setup.conf"), setup)?;
        fs::write(path("localca.conf"), localca)?;
        fs::write(
            path("localca.options"),
            "--platform-manufacturer Assay\n--platform-model Test\n--platform-version 1.0\n",
        )?;
        fs::write(authority.join("key.pem"), key)?;
        fs::write(authority.join("certificate.pem"), certificate)
    })?;
    let banks: Vec<_> = options.banks.iter().map(|bank| bank.name()).collect();
    let mut command = Command::new("swtpm_setup");
    command.arg("--tpm2").arg("--tpm-state").arg(state).arg("--config").arg(path("setup.conf"));
    command.args(["--pcr-banks", &banks.join(","), "--rsa-keysize", "2048"]);
    if options.ek_certificates {
        command.arg("--create-ek-cert");
    }
    if options.platform_certificate {
        command.arg("--create-platform-cert");
    }
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| not_installed("swtpm_setup", source))?;
    if output.status.success() {
        return Ok(());
    }
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Err(HarnessError::Program {
        program: "swtpm_setup".into(),
        status: output.status,
        output: tail(&text),
    })
}

/// Starts swtpm on the first port pair on which it comes up.
fn power_on(directory: &Path, state: &Path) -> Result<(Child, PortPair), HarnessError> {
    let mut last = String::new();
    for _ in 0..PORT_ATTEMPTS {
        let ports = io("reserving a pair of ports", PortPair::reserve)?;
        match spawn(directory, state, &ports) {
            Ok(child) => return Ok((child, ports)),
            // Somebody took a port between our look and swtpm's bind.
            Err(HarnessError::Program { output, .. }) => last = output,
            Err(error) => return Err(error),
        }
    }
    Err(HarnessError::NoPort { tried: PORT_ATTEMPTS, output: last })
}

/// Starts swtpm and waits until it answers: it then awaits `TPM2_Startup`.
fn spawn(directory: &Path, state: &Path, ports: &PortPair) -> Result<Child, HarnessError> {
    let log_path = directory.join("swtpm.log");
    let log = io("creating swtpm's log", || File::create(&log_path))?;
    let listen = |port: u16| format!("type=tcp,port={port},bindaddr={}", Ipv4Addr::LOCALHOST);
    let mut child = Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init"])
        .arg("--tpmstate")
        .arg(format!("dir={}", state.display()))
        .args(["--server", &listen(ports.data), "--ctrl", &listen(ports.control())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|source| not_installed("swtpm", source))?;
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let ended = io("looking after swtpm", || child.try_wait())?;
        if let Some(status) = ended {
            let output = tail(&fs::read_to_string(&log_path).unwrap_or_default());
            return Err(HarnessError::Program { program: "swtpm".into(), status, output });
        }
        // Before TPM2_Startup every command answers TPM_RC_INITIALIZE: that is the sign of life.
        match RawTpm::at(ports.data).clock() {
            Err(error) if error.response_code() == Some(RC_INITIALIZE) => return Ok(child),
            _ if Instant::now() > deadline => {
                let _ = child.kill();
                let status = io("ending swtpm", || child.wait())?;
                let output = "it did not answer in time".into();
                return Err(HarnessError::Program { program: "swtpm".into(), status, output });
            }
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
}

pub(crate) fn find_program(name: &str) -> Result<PathBuf, HarnessError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::env::split_paths(&path).map(|directory| directory.join(name));
    // Debian's packages put it where every PATH has it; some keep helpers under /usr/share.
    candidates
        .chain([PathBuf::from("/usr/share/swtpm").join(name)])
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| HarnessError::NotInstalled { program: name.into() })
}

pub(crate) fn not_installed(program: &str, source: io::Error) -> HarnessError {
    if source.kind() == io::ErrorKind::NotFound {
        return HarnessError::NotInstalled { program: program.into() };
    }
    HarnessError::Io { what: format!("starting {program}"), source }
}

/// The last lines of a program's output.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n")
}

/// Runs an operation and says what it was where it fails.
pub(crate) fn io<T>(
    what: &str,
    operation: impl FnOnce() -> io::Result<T>,
) -> Result<T, HarnessError> {
    operation().map_err(|source| HarnessError::Io { what: what.to_owned(), source })
}
