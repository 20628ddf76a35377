//! A private swtpm for one test: own state, own certificate authority, own ports, ended by its own
//! process on drop. And a proxy that counts TPM commands on the wire.
#![allow(dead_code, reason = "every test file uses its own part of this module")]
#![allow(clippy::panic, reason = "a test ends by panicking")]

#[path = "../../../swtpm-tests/src/ports.rs"]
mod ports;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use self::ports::PortPair;
use attestor::tpm::{Tcti, TpmConfig};
use proto::tpm::public::Public;
use tempfile::TempDir;
use tss_esapi::{
    Context,
    interface_types::resource_handles::Hierarchy,
    structures::{Digest as TssDigest, Name, Public as TssPublic, Signature as TssSignature},
    tcti_ldr::TctiNameConf,
    traits::UnMarshall as _,
};

/// A software TPM that nobody else uses.
pub(crate) struct Swtpm {
    dir: TempDir,
    child: Option<Child>,
    ports: PortPair,
}

impl Swtpm {
    /// With RSA-2048 (L-1) and P-384 (H-3) endorsement certificates, as swtpm makes them.
    pub(crate) fn manufactured() -> Self {
        Self::new(&["--create-ek-cert", "--create-platform-cert"])
    }

    /// Without any certificate.
    pub(crate) fn bare() -> Self {
        Self::new(&[])
    }

    /// With these options for `swtpm_setup`.
    pub(crate) fn new(options: &[&str]) -> Self {
        let dir = TempDir::with_prefix("assay-swtpm-").expect("a temporary directory");
        let state = dir.path().join("state");
        fs::create_dir(&state).expect("created");
        manufacture(dir.path(), &state, options);
        let mut out = Self { dir, child: None, ports: reserve() };
        out.start();
        out
    }

    /// Starts swtpm on its port pair, which stays its own while it is off; a process that knows nothing
    /// of that may have taken one of the two, so tries others.
    pub(crate) fn start(&mut self) {
        for attempt in 0..20 {
            if attempt > 0 {
                self.ports = reserve();
            }
            let port = self.ports.data;
            let tcp = |port: u16| format!("type=tcp,port={port},bindaddr=127.0.0.1");
            let mut child = Command::new("swtpm")
                .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
                .args(["--tpmstate", &format!("dir={}", self.dir.path().join("state").display())])
                .args(["--server", &tcp(port), "--ctrl", &tcp(self.ports.control())])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("swtpm is installed (apt-get install swtpm swtpm-tools)");
            let until = Instant::now() + Duration::from_secs(10);
            while Instant::now() < until {
                if child.try_wait().expect("waited").is_some() {
                    break;
                }
                if TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports.control())).is_ok() {
                    self.child = Some(child);
                    return;
                }
                thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("swtpm does not start");
    }

    /// Ends the process without `TPM2_Shutdown`, as a power cut does.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// A power cycle: `TPM2_Startup(CLEAR)`, everything loaded is gone.
    pub(crate) fn power_cycle(&mut self) {
        self.stop();
        self.start();
    }

    pub(crate) fn port(&self) -> u16 {
        self.ports.data
    }

    pub(crate) fn tcti(&self) -> Tcti {
        tcti(self.ports.data)
    }

    pub(crate) fn config(&self) -> TpmConfig {
        TpmConfig { tcti: self.tcti(), ..TpmConfig::default() }
    }

    /// A raw connection, for what attestor itself never does.
    pub(crate) fn raw(&self) -> Context {
        let name: TctiNameConf = self.tcti().to_string().parse().expect("a TCTI");
        Context::new(name).expect("swtpm answers")
    }

    /// Directory for a test's own files, gone with the TPM.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn tcti(port: u16) -> Tcti {
    format!("swtpm:host=127.0.0.1,port={port}").parse().expect("a TCTI")
}

/// `swtpm_setup` with a certificate authority under `dir`.
fn manufacture(dir: &Path, state: &Path, options: &[&str]) {
    let shown = dir.display();
    let files = [
        (
            "setup.conf",
            format!(
                "create_certs_tool=/usr/bin/swtpm_localca\n\
                 create_certs_tool_config={shown}/localca.conf\n\
                 create_certs_tool_options={shown}/localca.options\n"
            ),
        ),
        (
            "localca.conf",
            format!(
                "statedir={shown}/ca\nsigningkey={shown}/ca/signkey.pem\n\
                 issuercert={shown}/ca/issuercert.pem\ncertserial={shown}/ca/certserial\n"
            ),
        ),
        (
            "localca.options",
            "--platform-manufacturer Assay\n--platform-version 1.0\n--platform-model Test\n"
                .to_owned(),
        ),
    ];
    fs::create_dir(dir.join("ca")).expect("created");
    for (name, text) in files {
        fs::write(dir.join(name), text).expect("written");
    }
    let output = Command::new("swtpm_setup")
        .args(["--tpm2", "--pcr-banks", "sha1,sha256,sha384"])
        .arg("--tpm-state")
        .arg(state)
        .arg("--config")
        .arg(dir.join("setup.conf"))
        .args(options)
        .stdin(Stdio::null())
        .output()
        .expect("swtpm_setup is installed (apt-get install swtpm swtpm-tools)");
    assert!(
        output.status.success(),
        "swtpm_setup: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn reserve() -> PortPair {
    PortPair::reserve().expect("two neighbouring ports")
}

/// Stands between attestor and swtpm and notes the code of every TPM command.
pub(crate) struct CountingProxy {
    ports: PortPair,
    codes: Arc<Mutex<Vec<u32>>>,
}

impl CountingProxy {
    pub(crate) fn before(swtpm: &Swtpm) -> Self {
        let (ports, data, control) = loop {
            let ports = reserve();
            let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
            if let (Ok(data), Ok(control)) = (bind(ports.data), bind(ports.control())) {
                break (ports, data, control);
            }
        };
        let codes = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&codes);
        let target = swtpm.port();
        // The threads end with the test's process; their listeners go with them.
        thread::spawn(move || forward(&data, target, Some(&noted)));
        thread::spawn(move || forward(&control, target + 1, None));
        Self { ports, codes }
    }

    pub(crate) fn tcti(&self) -> Tcti {
        tcti(self.ports.data)
    }

    /// Command codes since the last call.
    pub(crate) fn take(&self) -> Vec<u32> {
        std::mem::take(&mut *self.codes.lock().expect("not poisoned"))
    }
}

fn forward(listener: &TcpListener, target: u16, codes: Option<&Arc<Mutex<Vec<u32>>>>) {
    for client in listener.incoming() {
        let Ok(client) = client else { return };
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { return };
        let mut back = (server.try_clone().expect("cloned"), client.try_clone().expect("cloned"));
        let answers = thread::spawn(move || {
            let _ = std::io::copy(&mut back.0, &mut back.1);
            let _ = back.1.shutdown(Shutdown::Both);
        });
        let codes = codes.map(Arc::clone);
        thread::spawn(move || {
            pump(client, &server, codes.as_deref());
            let _ = server.shutdown(Shutdown::Both);
            let _ = answers.join();
        });
    }
}

/// Copies; on the command channel frame by frame (header: tag, size, code).
fn pump(mut client: TcpStream, mut server: &TcpStream, codes: Option<&Mutex<Vec<u32>>>) {
    let Some(codes) = codes else {
        let _ = std::io::copy(&mut client, &mut server);
        return;
    };
    loop {
        let mut frame = vec![0; 10];
        if client.read_exact(&mut frame).is_err() {
            return;
        }
        let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().expect("4 bytes"));
        let (size, code) = (word(2) as usize, word(6));
        frame.resize(size, 0);
        if client.read_exact(&mut frame[10..]).is_err() {
            return;
        }
        codes.lock().expect("not poisoned").push(code);
        if server.write_all(&frame).is_err() {
            return;
        }
    }
}

/// `TPM2_MakeCredential` on another TPM, which needs only the public keys.
pub(crate) fn make_credential(
    on: &Swtpm,
    ek: &Public,
    ak: &Public,
    secret: &[u8],
) -> (Vec<u8>, Vec<u8>) {
    let mut context = on.raw();
    let ek = TssPublic::unmarshall(ek.as_bytes()).expect("a public area");
    let key = context.load_external_public(ek, Hierarchy::Null).expect("loaded");
    let name = Name::try_from(ak.name().as_bytes().to_vec()).expect("a Name");
    let secret = TssDigest::try_from(secret).expect("fits");
    let (blob, encrypted) = context.make_credential(key, secret, name).expect("made");
    let sized = proto::tpm::credential::sized;
    (sized(blob.value()), sized(encrypted.value()))
}

/// `TPM2_VerifySignature` on another TPM, over SHA-256 of `message`.
pub(crate) fn verifies(on: &Swtpm, key: &Public, message: &[u8], signature: &[u8]) -> bool {
    let mut context = on.raw();
    let key = TssPublic::unmarshall(key.as_bytes()).expect("a public area");
    let key = context.load_external_public(key, Hierarchy::Null).expect("loaded");
    let digest = proto::digest::HashAlg::Sha256.hash(&[message]);
    let digest = TssDigest::try_from(digest.as_bytes()).expect("fits");
    let signature = TssSignature::unmarshall(signature).expect("a signature");
    context.verify_signature(key, digest, signature).is_ok()
}

/// Transient objects that a fresh connection sees.
pub(crate) fn transient_objects(on: &Swtpm) -> usize {
    handles(on, 0x8000_0000)
}

/// Sessions that a fresh connection sees.
pub(crate) fn loaded_sessions(on: &Swtpm) -> usize {
    handles(on, 0x0200_0000)
}

fn handles(on: &Swtpm, first: u32) -> usize {
    use tss_esapi::{constants::CapabilityType, structures::CapabilityData};
    let mut context = on.raw();
    let (data, _) =
        context.get_capability(CapabilityType::Handles, first, 100).expect("capability");
    match data {
        CapabilityData::Handles(handles) => handles.len(),
        _ => panic!("handles were asked for"),
    }
}

/// Removes a persistent object, as an owner may.
pub(crate) fn remove_persistent(on: &Swtpm, handle: u32) {
    use tss_esapi::{
        handles::{PersistentTpmHandle, TpmHandle},
        interface_types::{
            dynamic_handles::Persistent, resource_handles::Provision, session_handles::AuthSession,
        },
    };
    let handle = PersistentTpmHandle::new(handle).expect("a persistent handle");
    let mut context = on.raw();
    let object = context.tr_from_tpm_public(TpmHandle::Persistent(handle)).expect("is there");
    context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.evict_control(Provision::Owner, object, Persistent::Persistent(handle))
        })
        .expect("removed");
}

/// One command as bytes, for what the TSS bindings lack; the response's code and body.
pub(crate) fn raw_command(on: &Swtpm, tag: u16, code: u32, body: &[u8]) -> (u32, Vec<u8>) {
    let mut command = tag.to_be_bytes().to_vec();
    let size = u32::try_from(10 + body.len()).expect("small");
    command.extend(size.to_be_bytes());
    command.extend(code.to_be_bytes());
    command.extend(body);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, on.port())).expect("swtpm listens");
    stream.write_all(&command).expect("sent");
    let mut header = [0; 10];
    stream.read_exact(&mut header).expect("answered");
    let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    let mut rest = vec![0; word(2) as usize - 10];
    stream.read_exact(&mut rest).expect("answered");
    (word(6), rest)
}

/// Puts the TPM into dictionary attack lockout: no failure at all is allowed any more.
pub(crate) fn lock_out(swtpm: &Swtpm) {
    // lockHandle, one password authorization, newMaxTries, newRecoveryTime, lockoutRecovery.
    let mut body = 0x4000_000a_u32.to_be_bytes().to_vec();
    body.extend(9_u32.to_be_bytes());
    body.extend(0x4000_0009_u32.to_be_bytes());
    body.extend([0; 5]);
    for value in [0_u32, 1000, 1000] {
        body.extend(value.to_be_bytes());
    }
    assert_eq!(raw_command(swtpm, 0x8002, 0x13a, &body).0, 0);
}
