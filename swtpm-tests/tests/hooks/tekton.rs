//! Tekton: a step of the StepAction.

use std::process::Command;

use attestor::hooks::HookSystem;
use swtpm_tests::{
    hook_driver::{End, tekton, write_program},
    job_site::{JobSite, finish, program},
};
use verifier::store::NodeChange;

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

/// What the guide's loop tells Kubernetes of the nodes, without one: `kubectl` only says what it was told.
async fn taints(site: &JobSite, ahead_s: i64) -> String {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CI.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let (_, block) = guide.split_once("# Where kubectl may change nodes").unwrap();
    let (_, block) = block.split_once('\n').unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let programs = site.path("programs");
    write_program(&programs.join("kubectl"), "#!/bin/sh\necho \"$*\"\n").unwrap();
    let now = i64::try_from(attestor::daemon::now_unix_s()).unwrap() + ahead_s;
    write_program(&programs.join("date"), &format!("#!/bin/sh\necho {now}\n")).unwrap();
    let admin = site.cluster.folder().join("state");
    let verifier = format!(
        "#!/bin/sh\nexec {} --server 127.0.0.1:{} --ca {state}/bundle.pem --admin-cert {state}/admin/admin.pem --admin-key \
         {state}/admin/admin.key \"$@\"\n",
        program("verifier").display(),
        site.cluster.running().address.port(),
        state = admin.display(),
    );
    write_program(&programs.join("verifier"), &verifier).unwrap();
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", block]);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", programs.display()));
    let output = finish(command).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tekton_pods_come_to_attested_nodes_alone() {
    let Some(site) = site(HookSystem::Tekton).await else { return };
    let unattested = "taint node w1 assay.example.org/unattested=:NoExecute --overwrite\n";
    let lifted = "taint node w1 assay.example.org/unattested-\n";
    assert_eq!(taints(&site, 0).await, lifted);
    assert_eq!(taints(&site, 3700).await, unattested, "not seen for an hour");
    let change = async |change| {
        site.cluster.store().change_node("w1", None, change, site.cluster.by()).await.unwrap();
    };
    change(NodeChange::Revoke { reason: "a test".to_owned() }).await;
    assert_eq!(taints(&site, 0).await, unattested);
    change(NodeChange::Approve { name: "w1".to_owned(), pool: "linux".to_owned() }).await;
    assert_eq!(taints(&site, 0).await, lifted);
    site.tools.write("cc1", b"compiler proper 12.2.0 with a gift").unwrap();
    site.wait_for("denied").await.unwrap();
    assert_eq!(taints(&site, 0).await, unattested);
}
