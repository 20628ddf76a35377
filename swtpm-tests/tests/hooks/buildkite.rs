//! Buildkite: the agent's hook, and the bootstrap under the permit.

use std::path::Path;

use attestor::hooks::HookSystem;
use swtpm_tests::hook_driver::{End, NOBODY, buildkite, write_program};

use super::{LONG, all_permits_ended, assert_refused, assert_summary, begun, change, hook, site};

#[tokio::test(flavor = "multi_thread")]
async fn buildkite_jobs_are_rejected_before_they_begin_or_run_under_their_permit() {
    let Some(mut site) = site(HookSystem::Buildkite).await else { return };
    let nothing = async |_: &Path| Ok(());
    let step = "echo here is the job\ntest -S \"${SPIFFE_ENDPOINT_SOCKET#unix://}\"\n";
    let ran = buildkite::run(&site, step, nothing).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert_summary(&ran.log, "buildkite");
    assert!(ran.log.contains("repository git@example.org:acme/app.git"), "{}", ran.log);
    let left = std::fs::read_dir(hook(&site, "run/assay-buildkite")).unwrap().count();
    assert_eq!(left, 0, "files of permits");
    all_permits_ended(&site).await;
    let failed = buildkite::run(&site, "exit 7", nothing).await.unwrap();
    assert_eq!(failed.end, End::Failed(7), "{}", failed.log);

    let ran = buildkite::bootstrap_alone(&site, &[]).await.unwrap();
    assert_refused(&ran, "this job has no permit");

    // Programs of the author's, by a PATH of the author's: none runs before the permit is redeemed.
    let theirs = site.path("home/theirs");
    for name in ["sh", "mv", "sed", "tr", "timeout", "attestor"] {
        let program = format!("#!/bin/sh\n: >{}/ran-{name}\n", site.path("home").display());
        write_program(&theirs.join(name), &program).unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", theirs.display());
    let ran = buildkite::bootstrap_alone(&site, &[("PATH", path.as_str())]).await.unwrap();
    assert_refused(&ran, "this job has no permit");
    let of_the_author: [(&str, &str); 4] = [
        ("PATH", path.as_str()),
        ("LD_PRELOAD", "/home/theirs/lib.so"),
        ("BASH_ENV", "/home/theirs/env"),
        ("GCONV_PATH", "/home/theirs"),
    ];
    for besides in of_the_author {
        let ran = buildkite::run_where(&site, step, None, &[besides], nothing).await.unwrap();
        assert_refused(&ran, &format!("{} is not for a job to set", besides.0));
    }
    for entry in std::fs::read_dir(site.path("home")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with("ran-"), "{name}: the author's program ran");
    }
    // The agent's own PATH is fine, and an agent of another bootstrap is not.
    let own = [("PATH", "/usr/local/bin:/usr/bin:/bin")];
    let ran = buildkite::run_where(&site, step, None, &own, nothing).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    let other = [("bootstrap_script", "/bin/true")];
    let ran = buildkite::run_where(&site, step, None, &other, nothing).await.unwrap();
    assert_refused(&ran, "the agent's bootstrap script is /bin/true");
    let find = |folder: &Path| {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.into_iter().find(|path| path.extension().is_some_and(|end| end == "json")).unwrap()
    };
    let stolen = site.path("stolen.json");
    let steal = async |folder: &Path| {
        std::fs::copy(find(folder), &stolen)?;
        std::os::unix::fs::chown(&stolen, Some(NOBODY), Some(NOBODY))?;
        Ok(())
    };
    let ran = buildkite::run(&site, step, steal).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    let again = async |folder: &Path| {
        let permit = find(folder);
        std::fs::remove_file(&permit)?;
        Ok(std::fs::rename(&stolen, permit)?)
    };
    let ran = buildkite::run(&site, step, again).await.unwrap();
    assert_refused(&ran, "PERMIT_ALREADY_REDEEMED");

    let job = buildkite::run(&site, LONG, nothing);
    let meddle = async {
        begun(&site).await;
        change(&hook(&site, "etc/buildkite-agent/hooks/pre-bootstrap"));
    };
    let (ran, ()) = tokio::join!(job, meddle);
    assert_refused(&ran.unwrap(), "GATE_TOOL_CHANGED");
    let ran = buildkite::run(&site, step, nothing).await.unwrap();
    assert_refused(&ran, "POLICY_TOOL_NOT_ALLOWED");
    assert!(ran.log.contains("hooks/pre-bootstrap"), "it names the file: {}", ran.log);
    site.cluster.stop_verifier().await.unwrap();
    assert_refused(&buildkite::run(&site, step, nothing).await.unwrap(), "GATE_NO_VERDICT");
}
