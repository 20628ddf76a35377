//! GitLab: stages of the custom executor.

use std::time::Duration;

use attestor::hooks::HookSystem;
use swtpm_tests::{
    hook_driver::{End, NOBODY, gitlab},
    job_site::JobSite,
};
use tokio::time::timeout;

use super::{
    LONG, all_permits_ended, assert_refused, assert_summary, begun, change, hook, runs, site,
};

/// Far less than the job would take, and more than its end may.
const ENDS_WITHIN: Duration = Duration::from_secs(90);

/// Commands that leave a process whose groups and sessions are no longer those of the permit's holder.
fn in_a_session_of_its_own(site: &JobSite) -> String {
    let left = site.path("home/left-in-a-session").display().to_string();
    format!(
        "setsid sh -c 'setsid sh -c \"echo \\$\\$ >{left}; exec sleep 9999\" & wait' >/dev/null 2>&1 &\n\
         until [ -s {left} ]; do sleep 0.1; done\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_stages_of_the_author_run_under_permits_and_system_failures_are_told_from_builds() {
    let Some(mut site) = site(HookSystem::GitLab).await else { return };
    let nothing = async |_: &str| Ok(());
    let step = "echo here is the job\ntest -S \"${SPIFFE_ENDPOINT_SOCKET#unix://}\"\n";
    let ran = gitlab::run(&site, step, nothing).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert_summary(&ran.log, "gitlab");
    // One permit for all stages of the job.
    assert_eq!(
        ran.log.matches("attestor: this worker has proved itself").count(),
        1,
        "{}",
        ran.log
    );
    all_permits_ended(&site).await;
    // What a stage leaves behind goes with the job.
    let left = "sleep 300 >/dev/null 2>&1 &\necho $! >$HOME/left\necho here is the job\n";
    let ran = gitlab::run(&site, left, nothing).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    let left = std::fs::read_to_string(site.path("home/left")).unwrap();
    assert!(!runs(left.trim()), "a process outlived its job");
    // A job that writes a result of its own, where run.sh reads one, ends with its own code nevertheless.
    let folders = hook(&site, "run/assay-gitlab").display().to_string();
    let forge = format!(
        "test -z \"${{ASSAY_HOOK_DIR:-}}\"\nfor folder in {folders}/job.*; do echo 0 >$folder/result.new\n\
         echo '0 0' >$folder/result; done\nsleep 1; exit 7\n"
    );
    let ran = gitlab::run(&site, &forge, nothing).await.unwrap();
    assert_eq!(ran.end, End::Failed(7), "{}", ran.log);
    // One that hides its permit's name is ended too, with what it left behind.
    let hide = format!(
        "rm {folders}/job.*/used.json\n\
         sleep 300 >/dev/null 2>&1 &\necho $! >$HOME/left\n{}",
        in_a_session_of_its_own(&site)
    );
    let ran = gitlab::run(&site, &hide, nothing).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    for left in ["home/left", "home/left-in-a-session"] {
        let left = std::fs::read_to_string(site.path(left)).unwrap();
        assert!(!runs(left.trim()), "a process outlived its job");
    }
    // And one that removes its folder, at once: nobody waits for what nobody can say any more.
    let _ = std::fs::remove_file(site.path("home/left-in-a-session"));
    let remove = format!("{}rm -r {folders}/job.*\nsleep 300\n", in_a_session_of_its_own(&site));
    let ran = timeout(ENDS_WITHIN, gitlab::run(&site, &remove, nothing)).await.unwrap().unwrap();
    assert_refused(&ran, "stage step_script was refused, or ended with its permit");
    assert!(!ran.log.contains("after_script ran"), "{}", ran.log);
    let left = std::fs::read_to_string(site.path("home/left-in-a-session")).unwrap();
    assert!(!runs(left.trim()), "a process outlived its job");
    all_permits_ended(&site).await;
    let left = std::fs::read_dir(hook(&site, "run/assay-gitlab")).unwrap().count();
    assert_eq!(left, 0, "files of jobs");
    // The code of the system failure is a build's like any other.
    for code in [1, 2, 3, 77] {
        let ran = gitlab::run(&site, &format!("exit {code}"), nothing).await.unwrap();
        assert_eq!(ran.end, End::Failed(code), "{}", ran.log);
        assert!(ran.log.contains("after_script ran"), "{}", ran.log);
        assert!(ran.log.contains("uploaded of a failure"), "{}", ran.log);
    }
    let replay = async |folder: &str| {
        std::fs::copy(format!("{folder}/permit.json"), site.path("home/stolen.json"))?;
        std::os::unix::fs::chown(site.path("home/stolen.json"), Some(NOBODY), Some(NOBODY))?;
        Ok(())
    };
    let ran = gitlab::run(&site, step, replay).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    let again = async |folder: &str| {
        let permit = format!("{folder}/permit.json");
        std::fs::remove_file(&permit)?;
        Ok(std::fs::rename(site.path("home/stolen.json"), permit)?)
    };
    let ran = gitlab::run(&site, step, again).await.unwrap();
    assert_refused(&ran, "PERMIT_ALREADY_REDEEMED");
    assert!(!ran.log.contains("after_script ran") && ran.log.contains("variables cleaned"));

    let job = gitlab::run(&site, LONG, nothing);
    let meddle = async {
        begun(&site).await;
        change(&hook(&site, "usr/lib/assay/hooks/gitlab/prepare.sh"));
    };
    let (ran, ()) = tokio::join!(job, meddle);
    let ran = ran.unwrap();
    assert_refused(&ran, "GATE_TOOL_CHANGED");
    assert!(!ran.log.contains("uploaded") && ran.log.contains("variables cleaned"), "{}", ran.log);
    assert!(ran.log.contains("the job begins") && !ran.log.contains("after_script ran"));
    let ran = gitlab::run(&site, step, nothing).await.unwrap();
    assert_refused(&ran, "POLICY_TOOL_NOT_ALLOWED");
    assert!(ran.log.contains("gitlab/prepare.sh"), "it names the file: {}", ran.log);
    site.cluster.stop_verifier().await.unwrap();
    assert_refused(&gitlab::run(&site, step, nothing).await.unwrap(), "GATE_NO_VERDICT");
}
