//! Verifiers of others accept what is good and refuse what is not: see interop/README.md.
//!
//! `cargo xtask interop` brings them and says where they are: `ASSAY_INTEROP`. Without it, a test runs
//! where its verifier is found, and says so where not.
mod support;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use independent::{brought, is_there};
use results::bundle::{Bundle, TrustedRoot};
use support::{
    Chain, NOW, World,
    chain::{ARTIFACT, with_payload},
    pki::{JOB_ID, RESULTS_ID},
    tools::Folder,
};

/// What a verifier is given.
struct Case {
    what: &'static str,
    bundle: String,
    root: TrustedRoot,
    identity: &'static str,
    artifact: &'static [u8],
    /// What a refusal speaks of: in Python, sigstore-js, sigstore-rust.
    why: [&'static str; 3],
}

impl Case {
    fn run(&self, command: impl FnOnce(&Path) -> Command) -> (bool, String) {
        let folder = Folder::new();
        folder.file("bundle.json", &self.bundle);
        folder.file("trusted_root.json", self.root.to_json());
        folder.file("identity", self.identity);
        folder.file("artifact", self.artifact);
        let output = command(folder.path()).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }
}

/// Bytes whose digest is that of a VSA's subject.
const SUBJECT: &[u8] = b"quote";

fn good(chain: &Chain) -> [Case; 3] {
    let case = |what, bundle: Bundle, identity, artifact| Case {
        what,
        bundle: bundle.to_json(),
        root: chain.world.trusted_root(),
        identity,
        artifact,
        why: [""; 3],
    };
    [
        case("an artifact", chain.job_bundle(), JOB_ID, ARTIFACT),
        case("a VSA", chain.vsa_bundle(), RESULTS_ID, SUBJECT),
        case("a dispatch", chain.dispatch_bundle(), RESULTS_ID, JOB_CLAIMS),
    ]
}

/// Bytes whose digest is the build identifier.
const JOB_CLAIMS: &[u8] = br#"{"claims":{"repository":{"source":"platform-token","value":"acme/app"},"run_id":{"source":"platform-token","value":"7"},"runner_name":{"source":"environment","value":"n1"},"workflow":{"source":"platform-token","value":"release.yml@refs/heads/main"}},"system":"github"}"#;

/// Changes of the good cases.
fn bad(chain: &Chain) -> Vec<Case> {
    let [artifact, vsa, _] = good(chain);
    let stranger = World::new();
    let list = |jobs: &World, tsa: &World| {
        TrustedRoot::new(vec![jobs.jobs_authority()], vec![tsa.tsa_authority()]).expect("a list")
    };
    let late = Chain { signed_at: NOW + 601, ..Chain::new() };
    let early = Chain { signed_at: NOW - 601, ..Chain::new() };
    let other_stamp = Bundle::new(
        chain.job_bundle().untrusted_certificate().der(),
        vec![chain.world.stamp(b"another signature", NOW)],
        chain.job_bundle().content().clone(),
    );
    let with = |what, why, case: &Case| Case {
        what,
        why,
        bundle: case.bundle.clone(),
        root: case.root.clone(),
        identity: case.identity,
        artifact: case.artifact,
    };
    vec![
        Case {
            artifact: b"another",
            ..with(
                "another artifact",
                ["InvalidSignature", "SIGNATURE_ERROR", "artifact mismatch"],
                &artifact,
            )
        },
        Case {
            bundle: with_payload(&vsa.bundle, "node/n1", "node/n2"),
            ..with(
                "a changed payload",
                ["Accepted signatures", "SIGNATURE_ERROR", "invalid signature"],
                &vsa,
            )
        },
        Case {
            identity: RESULTS_ID,
            ..with(
                "another identity",
                ["signed by", "UNTRUSTED_SIGNER", "identity mismatch"],
                &artifact,
            )
        },
        Case {
            identity: "spiffe://build.example/pool/releas",
            ..with(
                "a part of the identity",
                ["signed by", "UNTRUSTED_SIGNER", "identity mismatch"],
                &artifact,
            )
        },
        Case {
            root: list(&stranger, &chain.world),
            ..with(
                "another root",
                ["signature does not match", "no valid certificate path", "chain is invalid"],
                &artifact,
            )
        },
        Case {
            root: list(&chain.world, &stranger),
            ..with(
                "another authority's time",
                ["certificate verify error", "TIMESTAMP_ERROR", "any trusted TSA"],
                &artifact,
            )
        },
        Case {
            bundle: late.job_bundle().to_json(),
            root: late.world.trusted_root(),
            ..with(
                "signed too late",
                ["not valid at validation time", "expired", "CertExpired"],
                &artifact,
            )
        },
        Case {
            bundle: early.job_bundle().to_json(),
            root: early.world.trusted_root(),
            ..with(
                "signed too early",
                ["not valid at validation time", "not valid or", "CertNotValidYet"],
                &artifact,
            )
        },
        Case {
            bundle: other_stamp.expect("a bundle").to_json(),
            ..with(
                "the time of another signature",
                ["Mismatch between messages", "TIMESTAMP_ERROR", "hash mismatch"],
                &artifact,
            )
        },
    ]
}

/// All cases by one verifier.
fn run(name: &str, place: usize, command: impl Fn(&Path) -> Command) {
    let chain = Chain::new();
    for case in good(&chain) {
        let (is_good, text) = case.run(&command);
        assert!(is_good && text.contains("verified: signed"), "{name}: {}: {text}", case.what);
    }
    for case in bad(&chain) {
        let (is_good, text) = case.run(&command);
        assert!(!is_good && !text.contains("verified: signed"), "{name}: {}: {text}", case.what);
        assert!(text.contains(case.why[place]), "{name}: {}: {text}", case.what);
        eprintln!("{name} refuses {}: {}", case.what, text.trim().lines().last().unwrap_or(""));
    }
}

fn interop(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(part)
}

#[test]
fn python_verifies_results() {
    let modules = "import rfc3161_client, in_toto_attestation, securesystemslib.dsse, cryptography";
    if let Some(python) = independent::python(modules) {
        run("Python", 0, |folder| {
            let mut command = Command::new(&python);
            command.arg(interop("verify.py")).arg(folder);
            command
        });
    }
}

#[test]
fn sigstore_js_verifies_results() {
    let modules = brought("npm").unwrap_or_else(|| interop(""));
    let mut probe = Command::new("node");
    probe.args(["-e", "require('@sigstore/verify')"]).current_dir(&modules);
    if is_there("npm's @sigstore/verify", probe) {
        run("sigstore-js", 1, |folder| {
            let mut command = Command::new("node");
            command.arg(interop("verify.mjs")).arg(folder).env("ASSAY_NODE_MODULES", &modules);
            command
        });
    }
}

#[test]
fn sigstore_rust_verifies_results() {
    let program = brought("sigstore-rust/debug/sigstore-rust").unwrap_or_else(|| "/nowhere".into());
    let mut probe = Command::new("test");
    probe.arg("-x").arg(&program);
    if is_there("crate sigstore-verify", probe) {
        run("sigstore-rust", 2, |folder| {
            let mut command = Command::new(&program);
            command.arg(folder);
            command
        });
    }
}
