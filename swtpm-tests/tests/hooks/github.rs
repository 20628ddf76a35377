//! GitHub Actions: steps of a runner, and its registration.

use std::os::unix::process::CommandExt as _;

use attestor::hooks::HookSystem;
use swtpm_tests::{
    hook_driver::{Agent, End, NOBODY, github, write_program},
    job_site::finish,
};

use super::{
    LONG, all_permits_ended, assert_refused, assert_summary, begun, change, hook, site, wait_for,
};

#[tokio::test(flavor = "multi_thread")]
async fn github_steps_run_only_on_a_worker_that_proves_itself_and_always_steps_too() {
    let Some(mut site) = site(HookSystem::GitHub).await else { return };
    // Steps are processes of the job: they get its identities, and cannot start another job.
    let attestor = hook(&site, "usr/bin/attestor").display().to_string();
    let step = format!(
        "echo here is the job\ntest -S \"${{SPIFFE_ENDPOINT_SOCKET#unix://}}\"\n{attestor} permit --job github --socket {} || true\n",
        site.path("output/job.sock").display()
    );
    let ran = github::run(&site, &step).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert_summary(&ran.log, "github");
    assert!(ran.log.contains("repository acme/app (from the environment, unproven)"));
    assert!(ran.log.contains("GATE_CALLER_IS_A_JOB"), "{}", ran.log);
    assert!(ran.log.contains("always ran"), "{}", ran.log);
    // No hook says that the job is over: the permit ends with the worker's process, and that is no reason to stop a runner.
    all_permits_ended(&site).await;
    assert!(!site.path("ended").exists(), "an end by itself ran on_end");
    let failed = github::run(&site, "exit 7").await.unwrap();
    assert_eq!(failed.end, End::Failed(7), "{}", failed.log);
    // The runner registers with a configuration that was asked for under a permit, with the hooks in its .env.
    let ran = github::register(&site).await.unwrap();
    assert_eq!(ran.end, End::Passed, "{}", ran.log);
    assert!(ran.log.contains("the runner got 0 arguments, and a-jit-config\n"), "{}", ran.log);
    assert!(ran.log.contains("ACTIONS_RUNNER_HOOK_JOB_STARTED=/"), "{}", ran.log);
    // Neither sees what jobs left, nor the runner what the registration did; and nothing of either stays.
    let state = site.path("home").display().to_string();
    for (who, folder) in [("asked with", "registration"), ("it has", "home")] {
        let line = ran.log.lines().find(|line| line.starts_with(who)).unwrap();
        let own = line.strip_prefix(&format!("{who} 0 files in {state}/run.")).unwrap();
        assert!(own.ends_with(&format!("/{folder}")), "{line}");
    }
    for entry in std::fs::read_dir(site.path("home")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with("run."), "{name} is left");
    }
    all_permits_ended(&site).await;
    assert!(!site.path("refused").exists());

    // Users who may not ask cause nothing.
    let mut stranger = site.attestor(&["permit", "--job", "generic"]);
    stranger.uid(NOBODY - 1).gid(NOBODY);
    let output = finish(stranger).await.unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("GATE_USER_NOT_ALLOWED"));

    // A hook that is changed while a job runs ends it, the steps with `if: always()` too.
    let job = github::run(&site, LONG);
    let meddle = async {
        begun(&site).await;
        change(&hook(&site, "usr/lib/assay/hooks/github/jit-runner.sh"));
    };
    let (ran, ()) = tokio::join!(job, meddle);
    let ran = ran.unwrap();
    assert_eq!(ran.end, End::Refused, "{}", ran.log);
    assert!(
        ran.log.contains("the job begins") && !ran.log.contains("here is the job"),
        "{}",
        ran.log
    );
    assert!(!ran.log.contains("always ran"), "{}", ran.log);
    let ended = std::fs::read_to_string(site.path("ended")).unwrap();
    assert_eq!(ended, "GATE_TOOL_CHANGED\n", "no other job's end was acted upon");
    assert!(!site.path("refused").exists(), "the stranger caused something");

    // It is a measured tool: now no job starts, and nobody registers.
    let ran = github::run(&site, "echo here is the job").await.unwrap();
    assert_refused(&ran, "POLICY_TOOL_NOT_ALLOWED");
    assert!(ran.log.contains("jit-runner.sh") && !ran.log.contains("always ran"), "{}", ran.log);
    assert!(ran.log.contains("::error title=attestor::"), "{}", ran.log);
    wait_for(&site.path("refused")).await;
    site.wait_for("denied").await.unwrap();
    let ran = github::register(&site).await.unwrap();
    assert_refused(&ran, "POLICY_TOOL_NOT_ALLOWED");
    assert!(!ran.log.contains("the runner got"), "{}", ran.log);

    site.cluster.stop_verifier().await.unwrap();
    let ran = github::run(&site, "echo here is the job").await.unwrap();
    assert_refused(&ran, "GATE_NO_VERDICT");
    assert!(!ran.log.contains("always ran"), "{}", ran.log);
    let refused = std::fs::read_to_string(site.path("refused")).unwrap();
    assert!(refused.starts_with("POLICY_TOOL_NOT_ALLOWED\n"), "{refused}");

    // Nor where the program ends before it can ask anything.
    let besides = [("ASSAY_LOG", "a=b=c")];
    let ran = github::run_where(&site, "echo here is the job", None, &besides).await.unwrap();
    assert_refused(&ran, "attestor: --log: ");
    assert!(!ran.log.contains("always ran"), "{}", ran.log);

    // Nor where it is gone when it would ask: the hook says so, and fails by itself where it cannot kill who started it.
    let program = hook(&site, "usr/bin/attestor");
    let vanishes = "#!/bin/sh\nrm -f \"$(readlink -f \"$0\")\"\n";
    std::fs::remove_file(&program).unwrap();
    std::os::unix::fs::symlink(site.path("home/vanishes"), &program).unwrap();
    let agent = Agent::new(&site).unwrap();
    agent.program("vanishes", vanishes).unwrap();
    let ran = github::run(&site, "echo here is the job").await.unwrap();
    assert_refused(&ran, "::error title=assay::GATE_HOOK_FAILED");
    assert!(ran.log.contains("attestor did not start"), "{}", ran.log);
    assert!(!ran.log.contains("always ran"), "{}", ran.log);
    agent.program("vanishes", vanishes).unwrap();
    let started = hook(&site, "usr/lib/assay/hooks/github/job-started.sh");
    let line = format!(
        "setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups bash -e {}; echo exit code $?",
        started.display()
    );
    let mut of_root = std::process::Command::new("bash");
    of_root.args(["-c", &line]);
    let said = finish(of_root).await.unwrap().stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("::error title=assay::GATE_HOOK_FAILED"), "{said}");
    assert!(said.ends_with("exit code 3\n"), "{said}");

    // Nor without the program that asks.
    std::fs::write(hook(&site, "usr/bin/attestor.new"), "#!/no/such/interpreter\n").unwrap();
    std::fs::rename(hook(&site, "usr/bin/attestor.new"), hook(&site, "usr/bin/attestor")).unwrap();
    let ran = github::run(&site, "echo here is the job").await.unwrap();
    assert_refused(&ran, "GATE_HOOK_FAILED");
    assert!(!ran.log.contains("always ran"), "{}", ran.log);
}

/// A hook whose program is ended by a signal, the first time by itself, then with the shell that stands around it.
#[tokio::test(flavor = "multi_thread")]
async fn github_workers_end_with_a_hook_that_a_signal_ended() {
    let Some(site) = site(HookSystem::GitHub).await else { return };
    let attestor = hook(&site, "usr/bin/attestor");
    let real = hook(&site, "usr/bin/attestor-itself");
    std::fs::rename(&attestor, &real).unwrap();
    // While it waits for the daemon, that never answers.
    let socket = site.path("output/job.sock");
    std::fs::rename(&socket, site.path("output/real.sock")).unwrap();
    let silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::os::unix::fs::chown(&socket, Some(NOBODY), Some(NOBODY)).unwrap();
    for name in ["TERM", "INT", "HUP", "KILL"] {
        let _ = std::fs::remove_file(site.path("home/asks"));
        write_program(
            &attestor,
            &format!(
                "#!/bin/bash\n[ \"$*\" = 'permit --help' ] && exit\necho $$ >{}\nexec {} \"$@\"\n",
                site.path("home/asks").display(),
                real.display()
            ),
        )
        .unwrap();
        let job = github::run(&site, "echo here is the job");
        let end = async {
            wait_for(&site.path("home/asks")).await;
            let (asked, _) = silent.accept().unwrap();
            let hook = std::fs::read_to_string(site.path("home/asks")).unwrap();
            let kill = std::process::Command::new("kill").args(["-s", name, hook.trim()]).status();
            assert!(kill.unwrap().success());
            asked
        };
        let (ran, _) = tokio::join!(job, end);
        let ran = ran.unwrap();
        assert_eq!(ran.end, End::Refused, "{name}: {}", ran.log);
        assert!(!ran.log.contains("here is the job"), "{name}: {}", ran.log);
        assert!(!ran.log.contains("always ran"), "{name}: {}", ran.log);
        let is_told = ran.log.contains(&format!("SIG{name} before there was a permit"));
        assert_eq!(is_told, name != "KILL", "{name}: {}", ran.log);
    }
}
