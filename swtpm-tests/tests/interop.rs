//! Independent SPIFFE clients in a job: real swtpm, real daemon, real verifier.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{path::Path, process::Command};

use swtpm_tests::job_site::{JobSite, JobSiteOptions, finish, program};

const POOL: &str = "spiffe://test.example/pool/linux";

/// Runs a client as a job, which ends after it saw a rotation; then outside of one.
async fn fetches_rotates_and_sees_the_end(client: &[&str]) {
    // A certificate lives no longer than its permit, and is renewed at half of its life: the least there is to wait for.
    let verifier_jobs = "check_every = \"1s\"\nmax_duration = \"60s\"\n".to_owned();
    let options = JobSiteOptions { verifier_jobs, ..JobSiteOptions::default() };
    let site = JobSite::start_with(options).await.unwrap();
    // A client that waits for ever fails its job.
    let exec = [&["exec", "--job", "generic", "--", "timeout", "120"], client].concat();
    let output = site.run(&exec).await.unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{out}{err}{}", site.log());
    let lines: Vec<(&str, &str)> = out.lines().filter_map(|line| line.split_once(' ')).collect();
    let [default, pool, jwt, ("serial", first), rotated, ("serial", second)] = lines[..] else {
        panic!("{out}{err}");
    };
    let job = default.1;
    assert!(job.starts_with(&format!("{POOL}/job/generic/")), "{out}");
    assert_eq!(
        [default, pool, jwt, rotated],
        [("default", job), ("pool", POOL), ("jwt", job), ("rotated", job)]
    );
    assert_ne!(first, second, "a new certificate");
    // Its permit has ended; and nobody else ever had one.
    let mut outside = Command::new(client[0]);
    let socket = format!("unix://{}", site.workload_socket().display());
    outside.args(&client[1..]).env("SPIFFE_ENDPOINT_SOCKET", socket);
    let output = finish(outside).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).replace(['_', ' '], "").to_lowercase();
    assert!(!output.status.success() && said.contains("permissiondenied"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_in_a_job_fetches_rotates_and_sees_the_end() {
    let client = program("workload_identity").display().to_string();
    fetches_rotates_and_sees_the_end(&[&client]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_in_a_job_fetches_rotates_and_sees_the_end() {
    let imports = "import spiffe, cryptography.x509.verification";
    let Some(python) = independent::python(imports) else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/client.py");
    let (python, script) = (python.display().to_string(), script.display().to_string());
    fetches_rotates_and_sees_the_end(&[&python, &script]).await;
}
