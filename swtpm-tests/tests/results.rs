//! Results end to end: a job on a real worker signs, and whoever has the trusted root verifies without asking anybody.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "results/external.rs"]
mod external;
#[path = "results/provenance.rs"]
mod provenance;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use swtpm_tests::{
    job_site::{JobSite, JobSiteOptions, finish, program},
    timestamp_server,
};
use verifier::{
    ca::{CaDir, CaRole},
    clock::{Clock, SystemClock},
    results_service::{ExternalAuthorities, ResultsSigner},
};

const POOL: &str = "spiffe://test.example/pool/linux";
const RESULTS: &str = "spiffe://test.example/verifier/results";
/// More than one read of it.
const ARTIFACT_BYTES: usize = 200_000;

/// A clock that is ahead of everybody's.
#[derive(Clone, Copy, Debug)]
struct Ahead(i64);

impl Clock for Ahead {
    fn now_unix_s(&self) -> i64 {
        SystemClock.now_unix_s() + self.0
    }
}

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
async fn without_a_job_an_identity_or_a_time_stamp_nothing_is_signed() {
    let mut site = JobSite::start().await.unwrap();
    std::fs::write(site.path("app.bin"), "a").unwrap();
    let endpoint = format!("unix://{}", site.workload_socket().display());
    let no_file = |site: &JobSite| assert!(!site.path("app.bin.sigstore.json").exists());
    // Not in a job.
    let output = site.run(&["sign", "app.bin"]).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", all(&output));
    assert!(all(&output).contains("SPIFFE_ENDPOINT_SOCKET is not set"), "{}", all(&output));
    let output = site.run(&["sign", "app.bin", "--workload-socket", &endpoint]).await.unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", all(&output));
    assert!(all(&output).contains("WORKLOAD_IDENTITY_NONE"), "{}", all(&output));
    no_file(&site);
    let me = program("attestor").display().to_string();
    // Usage, and a file that is not there.
    let in_a_job = |script: &str| {
        let script = script.replace("ME", &me);
        ["exec", "--job", "generic", "--", "sh", "-c", &script].map(str::to_owned)
    };
    for (script, code) in [
        ("ME sign app.bin other.bin --out one.json", 2),
        ("ME sign", 2),
        ("ME sign absent.bin", 1),
        ("ME sign app.bin --socket /nonexistent/job.sock", 1),
    ] {
        let arguments = in_a_job(script);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = site.run(&arguments).await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{script}: {}", all(&output));
        no_file(&site);
    }
    // A verifier that is gone by then: the job waits for that before it signs.
    let script = in_a_job("echo begins; until test -e gone; do sleep 0.1; done; ME sign app.bin");
    let arguments: Vec<&str> = script.iter().map(String::as_str).collect();
    let mut command = site.attestor(&arguments);
    let started = site.path("started");
    command.stdout(std::fs::File::create(&started).unwrap());
    command.stderr(std::fs::File::create(site.path("errors")).unwrap());
    let mut child = command.spawn().unwrap();
    while !std::fs::read_to_string(&started).unwrap().contains("begins") {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    site.cluster.stop_verifier().await.unwrap();
    std::fs::write(site.path("gone"), "").unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    let errors = std::fs::read_to_string(site.path("errors")).unwrap();
    // Either the signature failed, or the job was ended first since nobody could tell it of a revocation.
    assert!(matches!(status.code(), Some(1 | 3)), "{errors}");
    assert!(
        errors.contains("GATE_NO_TIMESTAMP") || errors.contains("GATE_VERIFIER_SILENT"),
        "{errors}"
    );
    no_file(&site);
}

const POLICY: &str = "\
job_identities = [\"spiffe://test.example/pool/linux\"]
results_identities = [\"spiffe://test.example/verifier/results\"]
pools = [\"linux\"]
max_vsa_age_s = 60
systems = [\"generic\"]
repositories = [\"acme/app\"]
levels = [\"ASSAY_NODE_ATTESTED\"]
[tools.cc]
";
const GOOD: [&str; 5] = ["app.bin", "--results", "results", "--bundle", "app.bin.sigstore.json"];

/// The codes of every broken link, with the link's name.
#[track_caller]
fn broken(output: &Output) -> Vec<(String, String)> {
    assert_eq!(output.status.code(), Some(3), "{}", all(output));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["admitted"], false, "{said}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut found = Vec::new();
    for link in said["links"].as_array().unwrap() {
        for refusal in link["broken"].as_array().unwrap() {
            found.push((text(&link["link"]), text(&refusal["code"])));
        }
    }
    // What is said first is one of them.
    let first = text(&said["refusal"]["code"]);
    assert!(found.iter().any(|(_, code)| *code == first), "{said}");
    found
}

fn at(link: &str, code: &str) -> (String, String) {
    (link.to_owned(), code.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_is_admitted_by_its_whole_chain_and_not_without_a_link() {
    let mut signed = Signed::new().await;
    signed.another_job("other.bin", "others").await;
    signed.site.cluster.stop_verifier().await.unwrap();
    let good = signed.admit(POLICY, &GOOD).await;
    assert_eq!(good.status.code(), Some(0), "{}", all(&good));
    let said: Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!(said["node"], "spiffe://test.example/node/w1");
    let states: Vec<_> = said["links"].as_array().unwrap().iter().map(|l| &l["state"]).collect();
    assert_eq!(states, ["good"; 5]);
    // For people; the signature is looked for beside the artifact.
    let root = signed.root.display().to_string();
    let arguments = ["admit", "app.bin", "--results", "results", "--trusted-root", &root];
    let arguments = [&arguments[..], &["--policy", "policy.toml"]].concat();
    let shown = all(&signed.anybody(&arguments).await);
    assert!(shown.starts_with("admitted\n\nartifact sha256:"), "{shown}");
    for line in ["repository acme/app (environment)", "tool cc ", "└─ AK sha256:"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }

    // Another artifact under the same signature: what is said of the rest stays good.
    let [_, rest @ ..] = GOOD;
    let output = signed.admit(POLICY, &[&["other.bin"], &rest[..]].concat()).await;
    assert_eq!(broken(&output), [at("artifact ← job", "RESULT_ARTIFACT_MISMATCH")]);
    // Another job's permit, with the node as it was for that one.
    let output = signed.admit(POLICY, &["app.bin", "--results", "others"]).await;
    let mine = at("job ← permit", "ADMIT_JOB_KEY_MISMATCH");
    assert!(broken(&output).contains(&mine), "{}", all(&output));
    // This job's permit, with the node as it was for another.
    let (dispatch, node) = ("results/dispatch.sigstore.json", "others/node.sigstore.json");
    let output = signed.admit(POLICY, &["app.bin", "--dispatch", dispatch, "--node", node]).await;
    let found = broken(&output);
    assert!(found.contains(&at("permit ← node", "ADMIT_VSA_MISMATCH")), "{found:?}");
    assert!(found.contains(&at("node ← TPM", "ADMIT_QUOTE_MISMATCH")), "{found:?}");
    // A statement for another.
    let output =
        signed.admit(POLICY, &["app.bin", "--dispatch", dispatch, "--node", dispatch]).await;
    assert_eq!(broken(&output), [at("permit ← node", "RESULT_PREDICATE_UNKNOWN")]);
    // The job's own word for it.
    let own = "app.bin.sigstore.json";
    let output = signed.admit(POLICY, &["app.bin", "--dispatch", own, "--node", node]).await;
    assert_eq!(broken(&output), [at("job ← permit", "RESULT_CONTENT_UNEXPECTED")]);
    // Policies that want more, each by one line.
    let pool = "spiffe://test.example/pool/linux";
    for (from, to, expected) in [
        ("[tools.cc]", "[tools.ccc]", at("policy", "ADMIT_TOOL_MISSING")),
        ("acme/app", "acme/apps", at("policy", "ADMIT_REPOSITORY_NOT_ACCEPTED")),
        ("generic", "github", at("policy", "ADMIT_SYSTEM_NOT_ACCEPTED")),
        ("[\"linux\"]", "[\"prod\"]", at("policy", "ADMIT_POOL_NOT_ACCEPTED")),
        ("ASSAY_NODE", "ASSAY_MORE", at("policy", "ADMIT_LEVEL_MISSING")),
        (
            pool,
            "spiffe://test.example/pool/prod",
            at("artifact ← job", "RESULT_IDENTITY_NOT_ACCEPTED"),
        ),
        // It came from the environment.
        (
            "levels",
            "platform_claims = [\"repository\"]\nlevels",
            at("policy", "ADMIT_CLAIM_SOURCE"),
        ),
    ] {
        let output = signed.admit(&POLICY.replacen(from, to, 1), &GOOD).await;
        assert_eq!(broken(&output), [expected], "{to}");
    }
    // Policies that cannot be used.
    for (from, to) in [("levels", "level"), (pool, RESULTS), ("[\"linux\"]", "[]")] {
        let output = signed.admit(&POLICY.replacen(from, to, 1), &GOOD).await;
        assert_eq!(output.status.code(), Some(3), "{to}: {}", all(&output));
        assert!(all(&output).contains("ADMIT_POLICY_INVALID"), "{to}: {}", all(&output));
    }
    for (arguments, code) in [
        (&["app.bin"][..], 2),
        (&["app.bin", "--results", "results", "--node", node], 2),
        (&["app.bin", "--results", "nowhere"], 1),
    ] {
        let output = signed.admit(POLICY, arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", all(&output));
    }
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

/// Answers every request over HTTP as an authority does; what `spoil` changes is of a broken one.
async fn serve_stamps(
    (signer, clock): (ResultsSigner, Ahead),
    spoil: fn(String, Vec<u8>) -> (String, Vec<u8>),
) -> u16 {
    let server = timestamp_server::serve(move |body| {
        let request = results::timestamp::Request::parse(&body).unwrap();
        let reply = signer.authority().answer_at(Some(&request), clock.now_unix_s()).unwrap();
        Some(spoil(timestamp_server::HEAD.to_owned(), reply))
    });
    server.await.unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_the_site_stamps_too_if_it_answers_what_was_asked() {
    // The job's certificates live no longer than its permit: a minute.
    let verifier_jobs = "check_every = \"1s\"\nmax_duration = \"60s\"\n".to_owned();
    let signed = Signed::with(JobSiteOptions { verifier_jobs, ..JobSiteOptions::default() }).await;
    let signer_ahead = |seconds| {
        let domain: verifier::ca::TrustDomain = "test.example".parse().unwrap();
        let ca = CaDir::new(signed.site.cluster.folder().join("state"), domain.clone());
        let issuer = ca.issuer(CaRole::Results).unwrap();
        let clock = Ahead(seconds);
        let (clock, others) = (std::sync::Arc::new(clock), ExternalAuthorities::default());
        (ResultsSigner::new(issuer, domain, clock, others).unwrap(), Ahead(seconds))
    };
    let signer = || signer_ahead(0);
    let sign = async |port: u16| {
        let _ = std::fs::remove_file(signed.site.path("app.bin.sigstore.json"));
        let me = program("attestor").display().to_string();
        let script = format!("{me} sign app.bin --timestamp-url http://127.0.0.1:{port}/tsa");
        let exec = ["exec", "--job", "generic", "--", "sh", "-c", &script];
        signed.site.run(&exec).await.unwrap()
    };
    let output = sign(serve_stamps(signer(), |head, reply| (head, reply)).await).await;
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    let output = signed.verify("app.bin.sigstore.json", "app.bin", &signed.root, POOL).await;
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    type Spoil = fn(String, Vec<u8>) -> (String, Vec<u8>);
    let broken: [(Spoil, i32, &str); 5] = [
        (|head, _| (head, b"nonsense".to_vec()), 3, "RESULT_MALFORMED"),
        // A rejection.
        (|head, _| (head, vec![0x30, 5, 0x30, 3, 2, 1, 2]), 3, "RESULT_TIMESTAMP_REFUSED"),
        (|head, _| (head, vec![0; 100_000]), 1, "length limit exceeded"),
        (|head, reply| (head.replace("200 OK", "503 Busy"), reply), 1, "it answered 503"),
        (
            |head, reply| (head.replace("reply", "query"), reply),
            1,
            "no application/timestamp-reply",
        ),
    ];
    let mut servers = Vec::new();
    for (spoil, code, why) in broken {
        servers.push((serve_stamps(signer(), spoil).await, code, why));
    }
    // Clocks that are ahead: by more than any may be, and by more than the certificate lives.
    let honest: Spoil = |head, reply| (head, reply);
    servers.push((serve_stamps(signer_ahead(3600), honest).await, 3, "RESULT_TIMESTAMP_IN_FUTURE"));
    servers.push((serve_stamps(signer_ahead(200), honest).await, 1, "one of the clocks is wrong"));
    // The time stamp of another request, again and again.
    static FIRST: OnceLock<Vec<u8>> = OnceLock::new();
    let replayed: Spoil = |head, reply| (head, FIRST.get_or_init(|| reply).clone());
    let port = serve_stamps(signer(), replayed).await;
    assert_eq!(sign(port).await.status.code(), Some(0));
    servers.push((port, 3, "RESULT_TIMESTAMP_NONCE"));
    for (port, code, why) in servers {
        let output = sign(port).await;
        assert_eq!(output.status.code(), Some(code), "{why}: {}", all(&output));
        assert!(all(&output).contains(why), "{why}: {}", all(&output));
        assert!(!signed.site.path("app.bin.sigstore.json").exists(), "{why}");
    }
}
