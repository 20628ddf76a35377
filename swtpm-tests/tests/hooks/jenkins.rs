//! Jenkins: an agent's session.

use attestor::hooks::HookSystem;
use swtpm_tests::hook_driver::{End, jenkins};

use super::{LONG, all_permits_ended, assert_refused, assert_summary, begun, change, hook, site};

#[tokio::test(flavor = "multi_thread")]
async fn jenkins_agents_connect_only_from_a_worker_that_proves_itself() {
    let Some(site) = site(HookSystem::Jenkins).await else { return };
    let step = "echo here is the job; test -S \"${SPIFFE_ENDPOINT_SOCKET#unix://}\"";
    let ran = jenkins::run(&site, step, 60).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert_summary(&ran.log, "generic");
    let arguments = "-url https://jenkins.example.org/ -name w1 -secret @";
    assert!(ran.log.contains(arguments) && !ran.log.contains("hush"), "{}", ran.log);
    all_permits_ended(&site).await;

    let job = jenkins::run(&site, LONG, 60);
    let meddle = async {
        begun(&site).await;
        change(&hook(&site, "etc/systemd/system/assay-jenkins-agent.service"));
    };
    let (ran, ()) = tokio::join!(job, meddle);
    assert_refused(&ran.unwrap(), "GATE_TOOL_CHANGED");
    site.wait_for("denied").await.unwrap();
    let ran = jenkins::run(&site, step, 1).await.unwrap();
    assert_refused(&ran, "POLICY_TOOL_NOT_ALLOWED");
    assert!(ran.log.contains("assay-jenkins-agent.service"), "it names the file: {}", ran.log);

    // A worker that is admitted still, whose verifier is silent.
    let Some(mut site) = super::site(HookSystem::Jenkins).await else { return };
    assert_eq!(jenkins::run(&site, step, 60).await.unwrap().end, End::Passed);
    site.cluster.stop_verifier().await.unwrap();
    assert_refused(&jenkins::run(&site, step, 1).await.unwrap(), "GATE_NO_VERDICT");
}

/// As the guide has it: a permit for each step, on an agent that has none itself.
#[tokio::test(flavor = "multi_thread")]
async fn jenkins_steps_have_permits_of_their_own_where_the_agent_has_none() {
    let Some(site) = site(HookSystem::Jenkins).await else { return };
    let attestor = hook(&site, "usr/bin/attestor").display().to_string();
    let under = |job: &str| {
        let socket = site.path("output/job.sock").display().to_string();
        format!("{attestor} exec --job jenkins --socket {socket} -- sh -ec '{job}'")
    };
    let ran = jenkins::step(&site, &under("echo here is the job")).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert_summary(&ran.log, "jenkins");
    for line in
        ["run_id     42 ", "workflow   acme/app ", "repository https://git.example.org/acme"]
    {
        assert!(ran.log.contains(line), "{line}: {}", ran.log);
    }
    let failed = jenkins::step(&site, &under("exit 7")).await.unwrap();
    assert_eq!(failed.end, End::Failed(7), "{}", failed.log);
    // Under an agent that has one, a build is a part of that job, and starts none.
    let nested = format!(
        "export BUILD_NUMBER=42 BUILD_TAG=b JOB_NAME=app\n{} || true",
        under("echo nested")
    );
    let ran = jenkins::run(&site, &nested, 60).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert!(ran.log.contains("GATE_CALLER_IS_A_JOB"), "{}", ran.log);
    all_permits_ended(&site).await;

    let job = under(LONG);
    let job = jenkins::step(&site, &job);
    let meddle = async {
        begun(&site).await;
        site.tools.write("cc1", b"compiler proper 12.2.0 with a gift").unwrap();
    };
    let (ran, ()) = tokio::join!(job, meddle);
    let ran = ran.unwrap();
    assert_eq!(ran.end, End::Refused, "{}", ran.log);
    assert!(ran.log.contains("so does the job: GATE_TOOL_CHANGED"), "{}", ran.log);
    let ran = jenkins::step(&site, &under("echo $((40 + 2)) is the job")).await.unwrap();
    assert_refused(&ran, "POLICY_TOOL_NOT_ALLOWED");
    assert!(!ran.log.contains("42 is the job"), "{}", ran.log);
}
