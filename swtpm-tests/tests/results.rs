//! Results end to end: a job on a real worker signs, and whoever has the trusted root verifies without asking anybody.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "results/admission.rs"]
mod admission;
#[path = "results/external.rs"]
mod external;
#[path = "results/provenance.rs"]
mod provenance;
#[path = "results/signing.rs"]
mod signing;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use swtpm_tests::job_site::{JobSite, JobSiteOptions, finish, program};

const POOL: &str = "spiffe://test.example/pool/linux";
const RESULTS: &str = "spiffe://test.example/verifier/results";
/// More than one read of it.
const ARTIFACT_BYTES: usize = 200_000;

/// A site whose job has signed `app.bin`, and the trusted root of its verifier.
struct Signed {
    site: JobSite,
    root: PathBuf,
}

impl Signed {
    async fn new() -> Self {
        Self::with(JobSiteOptions::default()).await
    }

    async fn with(options: JobSiteOptions) -> Self {
        let site = JobSite::start_with(options).await.unwrap();
        let me = program("attestor").display().to_string();
        std::fs::write(site.path("app.bin"), vec![b'a'; ARTIFACT_BYTES]).unwrap();
        let script = format!("{me} sign app.bin");
        let exec = ["exec", "--job", "generic", "--out", "results", "--", "sh", "-c", &script];
        let output = site.run(&exec).await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", all(&output));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(&format!("by {POOL}: app.bin.sigstore.json")), "{said}");
        let signed = Self { root: site.path("trusted_root.json"), site };
        let root = signed.root.display().to_string();
        let output = signed.operator(&["results", "trusted-root", "--out", &root]).await;
        assert_eq!(output.status.code(), Some(0), "{}", all(&output));
        signed
    }

    /// `verifier` with the site's configuration.
    async fn operator(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program("verifier"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.site.cluster.folder().join("verifier.toml"));
        finish(command).await.unwrap()
    }

    /// `verifier` as somebody else runs it: no configuration, no state, nothing but the files.
    async fn anybody(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program("verifier"));
        command.args(arguments).env_clear().current_dir(self.site.path(""));
        command.args(["--config", "/nonexistent/verifier.toml"]);
        finish(command).await.unwrap()
    }

    /// Runs a job that signs another file, with its results in another folder.
    async fn another_job(&self, file: &str, folder: &str) {
        std::fs::write(self.site.path(file), file).unwrap();
        let script = format!("{} sign {file}", program("attestor").display());
        let exec = ["exec", "--job", "generic", "--out", folder, "--", "sh", "-c", &script];
        let output = self.site.run(&exec).await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    }

    /// `verifier admit` by a policy, with more arguments; as JSON.
    async fn admit(&self, policy: &str, arguments: &[&str]) -> Output {
        std::fs::write(self.site.path("policy.toml"), policy).unwrap();
        let root = self.root.display().to_string();
        let common = ["--trusted-root", &root, "--policy", "policy.toml", "--json"];
        let arguments: Vec<&str> =
            ["admit"].iter().chain(arguments).chain(&common).copied().collect();
        self.anybody(&arguments).await
    }

    /// Verifies `app.bin.sigstore.json`, or another bundle, of another artifact, with more arguments.
    async fn verify(&self, bundle: &str, artifact: &str, root: &Path, identity: &str) -> Output {
        let root = root.display().to_string();
        self.anybody(&[
            "results",
            "verify",
            bundle,
            "--artifact",
            artifact,
            "--trusted-root",
            &root,
            "--identity",
            identity,
            "--json",
        ])
        .await
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.site.path(name)).unwrap()
    }

    fn bundle(&self) -> Value {
        serde_json::from_slice(&self.read("app.bin.sigstore.json")).unwrap()
    }
}

fn all(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The refusal's code of the one bundle that was verified.
#[track_caller]
fn assert_refused(output: &Output, code: &str) {
    assert_eq!(output.status.code(), Some(3), "{code}: {}", all(output));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said[0]["verified"], false, "{said}");
    assert_eq!(said[0]["refusal"]["code"], code, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_signed_verifies_offline_and_nothing_else_does() {
    let mut signed = Signed::new().await;
    // Nobody is there to be asked.
    signed.site.cluster.stop_verifier().await.unwrap();
    let good = signed.verify("app.bin.sigstore.json", "app.bin", &signed.root, POOL).await;
    assert_eq!(good.status.code(), Some(0), "{}", all(&good));
    let said: Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!(
        (&said[0]["verified"], &said[0]["kind"], &said[0]["identity"]),
        (&true.into(), &"artifact".into(), &POOL.into())
    );
    // One byte of the artifact.
    let mut artifact = signed.read("app.bin");
    artifact[ARTIFACT_BYTES - 1] ^= 1;
    std::fs::write(signed.site.path("other.bin"), artifact).unwrap();
    let output = signed.verify("app.bin.sigstore.json", "other.bin", &signed.root, POOL).await;
    assert_refused(&output, "RESULT_ARTIFACT_MISMATCH");
    // One byte of the signature, of the time stamp's signature, of the certificate's.
    let material = "/verificationMaterial";
    for (at, code) in [
        ("/messageSignature/signature".to_owned(), "RESULT_TIMESTAMP_IMPRINT"),
        (
            format!("{material}/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp"),
            "RESULT_TIMESTAMP_INVALID",
        ),
        (format!("{material}/certificate/rawBytes"), "RESULT_CERTIFICATE_UNTRUSTED"),
    ] {
        let mut bundle = signed.bundle();
        let field = bundle.pointer_mut(&at).unwrap();
        let mut bytes = STANDARD.decode(field.as_str().unwrap()).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        *field = STANDARD.encode(bytes).into();
        std::fs::write(signed.site.path("changed.json"), bundle.to_string()).unwrap();
        let output = signed.verify("changed.json", "app.bin", &signed.root, POOL).await;
        assert_refused(&output, code);
    }
    // Another identity; nobody; the verifier's.
    for other in
        ["spiffe://test.example/pool/linu", "spiffe://test.example/pool/linux/job", RESULTS]
    {
        let output = signed.verify("app.bin.sigstore.json", "app.bin", &signed.root, other).await;
        assert_refused(&output, "RESULT_IDENTITY_NOT_ACCEPTED");
    }
    // A file that is none.
    std::fs::write(signed.site.path("changed.json"), "{}").unwrap();
    let output = signed.verify("changed.json", "app.bin", &signed.root, POOL).await;
    assert_refused(&output, "RESULT_MALFORMED");
    let output = signed.verify("absent.json", "app.bin", &signed.root, POOL).await;
    assert_eq!(output.status.code(), Some(1), "{}", all(&output));
    let root = signed.root.display().to_string();
    let output = signed
        .anybody(&["results", "verify", "app.bin.sigstore.json", "--trusted-root", &root])
        .await;
    assert_eq!(output.status.code(), Some(2), "{}", all(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_verifier_s_trusted_root_accepts_nothing_of_this_one() {
    let signed = Signed::new().await;
    let other = swtpm_tests::cluster::Cluster::start().await.unwrap();
    let mut command = Command::new(program("verifier"));
    command.args(["results", "trusted-root", "--config"]).arg(other.folder().join("verifier.toml"));
    let root = finish(command).await.unwrap();
    assert_eq!(root.status.code(), Some(0), "{}", all(&root));
    let path = signed.site.path("other_root.json");
    std::fs::write(&path, &root.stdout).unwrap();
    let output = signed.verify("app.bin.sigstore.json", "app.bin", &path, POOL).await;
    assert_refused(&output, "RESULT_TIMESTAMP_UNTRUSTED");
    // Other certificates under the time stamps of this one.
    let [mut mixed, theirs]: [Value; 2] = [signed.read("trusted_root.json"), root.stdout]
        .map(|bytes| serde_json::from_slice(&bytes).unwrap());
    mixed["certificateAuthorities"] = theirs["certificateAuthorities"].clone();
    std::fs::write(&path, mixed.to_string()).unwrap();
    let output = signed.verify("app.bin.sigstore.json", "app.bin", &path, POOL).await;
    assert_refused(&output, "RESULT_CERTIFICATE_UNTRUSTED");
}

/// Commands of docs/RESULTS.md, by the name that they begin with.
fn documented(name: &str) -> String {
    let document = include_str!("../../docs/RESULTS.md");
    let script = document.split(&format!("```sh\n# {name}\n")).nth(1).unwrap();
    script.split("```").next().unwrap().to_owned()
}

/// The commands that docs/RESULTS.md gives, over what a real job signed.
#[tokio::test(flavor = "multi_thread")]
async fn openssl_verifies_what_a_job_signed() {
    let signed = Signed::new().await;
    let folder = signed.site.path("openssl");
    std::fs::create_dir(&folder).unwrap();
    for (from, to) in [
        ("trusted_root.json", "trusted_root.json"),
        ("app.bin.sigstore.json", "bundle.json"),
        ("app.bin", "artifact"),
    ] {
        std::fs::write(folder.join(to), signed.read(from)).unwrap();
    }
    let script = documented("trusted-root") + &documented("verify-bundle");
    let run = async |identity: &str| {
        let mut command = Command::new("sh");
        command.args(["-euc", &script]).env("identity", identity).current_dir(&folder);
        finish(command).await.unwrap()
    };
    let output = run(POOL).await;
    assert!(output.status.success(), "{}", all(&output));
    assert!(all(&output).contains("Verified OK"), "{}", all(&output));
    assert!(!run(RESULTS).await.status.success());
    std::fs::write(folder.join("artifact"), b"another").unwrap();
    let output = run(POOL).await;
    assert!(!output.status.success());
    assert!(all(&output).contains("Verification failure"), "{}", all(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_verify_by_themselves_and_what_is_only_shown_is_marked() {
    let signed = Signed::new().await;
    let root = signed.root.display().to_string();
    let (node, dispatch) = ("results/node.sigstore.json", "results/dispatch.sigstore.json");
    let verify = ["results", "verify", node, dispatch, "--trusted-root", &root];
    let output = signed.anybody(&[&verify[..], &["--identity", RESULTS, "--json"]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said[0]["kind"], &said[1]["kind"]), (&"node".into(), &"dispatch".into()));
    assert_eq!(said[0]["identity"], RESULTS);
    let names = |at: usize| -> Vec<&str> {
        let subjects = said[at]["subjects"].as_array().unwrap();
        subjects.iter().map(|subject| subject["name"].as_str().unwrap()).collect()
    };
    assert_eq!((names(0), names(1)), (vec!["ak-public", "quote"], vec!["build", "job-key"]));
    // Nobody is accepted who is not named, and it says who it was.
    let output = signed.anybody(&verify).await;
    assert_eq!(output.status.code(), Some(3), "{}", all(&output));
    let said = all(&output);
    assert!(said.contains("RESULT_IDENTITY_NOT_ACCEPTED") && said.contains(RESULTS), "{said}");
    // A statement is no signature of an artifact.
    let wanted = ["--identity", RESULTS, "--artifact", "app.bin", "--json"];
    let output = signed.anybody(&[&verify[..], &wanted].concat()).await;
    assert_refused(&output, "RESULT_CONTENT_UNEXPECTED");
    for (file, says) in
        [(node, "result            PASSED"), ("app.bin.sigstore.json", "an artifact")]
    {
        let shown = all(&signed.anybody(&["results", "show", file]).await);
        assert!(shown.starts_with("UNVERIFIED") && shown.contains(says), "{shown}");
        let shown = signed.anybody(&["results", "show", file, "--json"]).await;
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        assert_eq!(shown["verified"], false);
    }
}
