//! The node key in other hands: OpenSSL signs and serves TLS with it through its tpm2 provider.

mod common;

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use attestor::tpm::{Tpm as _, bridge, esapi::EsapiTpm};
use common::{Swtpm, transient_objects};

/// Set for the process that libtss2 starts as its way to the TPM.
const BRIDGE_TCTI: &str = "ASSAY_TEST_BRIDGE_TCTI";

/// Not a test: libtss2 runs this very program as `cmd:` TCTI, with its pipes on descriptors 3 and 4
/// (the test harness writes to standard output).
#[test]
fn bridge_process() {
    let Ok(tcti) = std::env::var(BRIDGE_TCTI) else { return };
    let input = File::open("/dev/fd/3").expect("opened by the shell");
    let output = File::options().write(true).open("/dev/fd/4").expect("opened by the shell");
    bridge::run(&tcti.parse().expect("a TCTI"), input, output).expect("bridged");
}

/// `cmd:` TCTI that runs [`bridge_process`].
fn bridge_tcti(swtpm: &Swtpm) -> String {
    let program = std::env::current_exe().expect("this program");
    format!(
        "cmd:{BRIDGE_TCTI}={} {} --exact bridge_process --nocapture 3<&0 4>&1 1>&2",
        swtpm.tcti(),
        program.display()
    )
}

fn openssl(swtpm: &Swtpm, args: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command
        .args(args)
        .current_dir(swtpm.path())
        .env("TPM2OPENSSL_TCTI", bridge_tcti(swtpm))
        .env("TSS2_LOG", "all+NONE")
        .stdin(Stdio::null());
    command
}

fn run(swtpm: &Swtpm, args: &[&str]) -> Output {
    let output = openssl(swtpm, args).output().expect("openssl runs");
    assert!(
        output.status.success(),
        "openssl {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Whether OpenSSL's tpm2 provider is installed; without it nothing can be shown here.
fn provider_installed() -> bool {
    let modules = Command::new("openssl").args(["version", "-m"]).output();
    let found = modules.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout);
        let dir = text.split('"').nth(1).unwrap_or_default();
        Path::new(dir).join("tpm2.so").exists()
    });
    if !found {
        assert!(std::env::var_os("CI").is_none(), "tpm2-openssl is not installed");
        println!("skipped: tpm2-openssl is not installed (apt-get install tpm2-openssl)");
    }
    found
}

/// A TPM with a node key in `node.pem`, our own connection closed: swtpm has only one.
fn with_node_key() -> Swtpm {
    let swtpm = Swtpm::bare();
    let mut tpm = EsapiTpm::open(swtpm.config()).expect("swtpm answers");
    let node_key = tpm.create_node_key().expect("a node key");
    let pem = node_key.to_pem().expect("encodes");
    fs::write(swtpm.path().join("node.pem"), pem).expect("written");
    swtpm
}

/// The TPM for signatures, software for everything else: the ephemeral keys, digests and ciphers of
/// TLS would cost many TPM commands and more slots than there are.
const TPM: [&str; 6] =
    ["-provider", "default", "-provider", "tpm2", "-propquery", "?tpm2.signature=yes"];

fn with_tpm<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let (verb, rest) = args.split_first().expect("a verb");
    let mut out = vec![*verb];
    out.extend(TPM);
    out.extend(rest);
    out
}

#[test]
fn openssl_signs_with_the_node_key() {
    if !provider_installed() {
        return;
    }
    let swtpm = with_node_key();
    fs::write(swtpm.path().join("message"), b"a message").expect("written");
    run(&swtpm, &with_tpm(&["pkey", "-in", "node.pem", "-pubout", "-out", "public.pem"]));
    let sign = ["pkeyutl", "-sign", "-rawin", "-digest", "sha256", "-inkey", "node.pem"];
    let sign = with_tpm(&[&sign[..], &["-in", "message", "-out", "signature"]].concat());
    run(&swtpm, &sign);
    let verify = ["pkeyutl", "-verify", "-rawin", "-digest", "sha256", "-pubin", "-inkey"];
    let verify = [&verify[..], &["public.pem", "-in", "message", "-sigfile", "signature"]].concat();
    run(&swtpm, &verify);
    assert_eq!(transient_objects(&swtpm), 0);
}

/// Ends its process on drop.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn openssl_serves_tls_with_the_node_key() {
    if !provider_installed() {
        return;
    }
    let swtpm = with_node_key();
    let request = ["req", "-x509", "-key", "node.pem", "-subj", "/CN=node", "-days", "1"];
    run(&swtpm, &with_tpm(&[&request[..], &["-out", "node.crt"]].concat()));
    let port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.local_addr().expect("bound").port()
    };
    let address = format!("127.0.0.1:{port}");
    let serve = ["s_server", "-key", "node.pem", "-cert", "node.crt", "-tls1_3", "-rev"];
    let serve = with_tpm(&[&serve[..], &["-naccept", "1", "-accept", &address]].concat());
    let mut server = Server(
        openssl(&swtpm, &serve)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl runs"),
    );
    let mut lines = BufReader::new(server.0.stdout.take().expect("piped")).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("ACCEPT"));
    if !ready {
        let mut error = String::new();
        let _ = server.0.stderr.take().expect("piped").read_to_string(&mut error);
        panic!("s_server did not start: {error}");
    }
    let connect = ["s_client", "-connect", &address, "-CAfile", "node.crt", "-brief"];
    let connect = [&connect[..], &["-verify_return_error", "-tls1_3"]].concat();
    let output = openssl(&swtpm, &connect).output().expect("openssl runs");
    if !output.status.success() {
        let mut error = String::new();
        let _ = server.0.stderr.take().expect("piped").read_to_string(&mut error);
        panic!("s_client: {}\ns_server: {error}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("TLSv1.3"), "{text}");
    assert!(text.contains("Verification: OK"), "{text}");
    assert!(text.contains("Signature type: ECDSA"), "{text}");
}

#[test]
fn the_key_is_gone_after_a_power_cycle() {
    if !provider_installed() {
        return;
    }
    let mut swtpm = with_node_key();
    run(&swtpm, &with_tpm(&["pkey", "-in", "node.pem", "-noout"]));
    swtpm.power_cycle();
    let output = openssl(&swtpm, &with_tpm(&["pkey", "-in", "node.pem", "-noout"])).output();
    assert!(!output.expect("openssl runs").status.success());
}
