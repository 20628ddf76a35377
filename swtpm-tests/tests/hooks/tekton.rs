//! Tekton: a step of the StepAction.

use attestor::hooks::HookSystem;
use swtpm_tests::hook_driver::{End, tekton};

use super::{LONG, all_permits_ended, assert_refused, assert_summary, begun, site};

#[tokio::test(flavor = "multi_thread")]
async fn tekton_steps_run_only_on_a_node_that_proves_itself() {
    let Some(mut site) = site(HookSystem::Tekton).await else { return };
    let step = "echo here is the job; test -S \"${SPIFFE_ENDPOINT_SOCKET#unix://}\"";
    let ran = tekton::run(&site, step).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert_summary(&ran.log, "tekton");
    assert!(ran.log.contains("repository acme/app (from the environment, unproven)"));
    all_permits_ended(&site).await;
    let failed = tekton::run(&site, "false; echo here is the job").await.unwrap();
    assert_eq!(failed.end, End::Failed(1), "{}", failed.log);
    let job = tekton::run(&site, LONG);
    let meddle = async {
        begun(&site).await;
        site.tools.write("cc1", b"compiler proper 12.2.0 with a gift").unwrap();
    };
    let (ran, ()) = tokio::join!(job, meddle);
    assert_refused(&ran.unwrap(), "GATE_TOOL_CHANGED");
    assert_refused(&tekton::run(&site, step).await.unwrap(), "POLICY_TOOL_NOT_ALLOWED");
    site.cluster.stop_verifier().await.unwrap();
    assert_refused(&tekton::run(&site, step).await.unwrap(), "GATE_NO_VERDICT");
}
