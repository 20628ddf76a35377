//! Jobs on a worker, end to end: real swtpm, real daemon, real sockets, real verifier.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    os::unix::{net::UnixStream, process::CommandExt as _},
    process::{Command, Output, Stdio},
    time::Duration,
};

use jose::{
    jwk::{JwkSet, KeyUse},
    sign::Es256Key,
};
use swtpm_tests::job_site::{JobSite, JobSiteOptions, finish};
use verifier::store::{NodeChange, Permit, PermitState};

#[path = "jobs/floods.rs"]
mod floods;
#[path = "jobs/processes.rs"]
mod processes;
#[path = "jobs/shares.rs"]
mod shares;
#[path = "jobs/terminal.rs"]
mod terminal;

/// The user `nobody`.
const NOBODY: u32 = 65534;

fn exec<'a>(command: &[&'a str]) -> Vec<&'a str> {
    ["exec", "--job", "generic", "--"].iter().chain(command).copied().collect()
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The job did not run: its command printed nothing, and the log says why.
#[track_caller]
fn assert_refused(output: &Output, code: &str) {
    let (out, err) = text(output);
    assert_eq!(output.status.code(), Some(3), "{out}{err}");
    assert!(!out.contains("the job ran"), "{out}");
    assert!(err.contains(code), "{code}: {err}");
}

/// The job ran, and was ended before it could say so.
#[track_caller]
fn assert_ended(output: &Output, code: &str) {
    let (out, err) = text(output);
    assert_eq!(output.status.code(), Some(3), "{out}{err}");
    assert_eq!(out, "the job begins\n", "{err}");
    assert!(
        err.contains(&format!("the permit of this job ended, and so does the job: {code}")),
        "{err}"
    );
}

/// The only permit, once it is in this state.
async fn permit_in(site: &JobSite, state: PermitState) -> Permit {
    for _ in 0..400 {
        let permits = site.cluster.store().permits("w1", 10).await.unwrap();
        if let [permit] = permits.as_slice()
            && permit.state == state
        {
            return permit.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no permit was {state}: {}", site.log());
}

/// Runs a job that would take a minute; `meanwhile` happens once it has begun.
async fn while_a_job_runs(site: &JobSite, meanwhile: impl AsyncFnOnce()) -> Output {
    let begun = site.path("begun");
    let script = format!("echo the job begins; : >{}; sleep 60; echo the job ran", begun.display());
    let mut command = site.attestor(&exec(&["sh", "-c", &script]));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    processes::until("the job begins", || begun.exists()).await;
    meanwhile().await;
    tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_on_a_worker_that_proves_itself_and_its_log_says_so() {
    let site = JobSite::start().await.unwrap();
    let script = "echo the job ran; test -S \"${SPIFFE_ENDPOINT_SOCKET#unix://}\" && exit 7";
    let output = site.run(&exec(&["sh", "-c", script])).await.unwrap();
    let (out, err) = text(&output);
    assert_eq!((output.status.code(), out.as_str()), (Some(7), "the job ran\n"), "{err}");
    for line in [
        "node       spiffe://test.example/node/w1",
        "identity   spiffe://test.example/pool/linux\n",
        "identity   spiffe://test.example/pool/linux/job/generic/",
        "tools      2 measured now, none from memory",
        "repository acme/app (from the environment, unproven)",
    ] {
        assert!(err.contains(line), "{line}: {err}");
    }
    // The permit is over with the job, and the decision can be derived again.
    let permit = permit_in(&site, PermitState::Ended).await;
    let case = site.cluster.store().case(&permit.decision_id).await.unwrap().unwrap();
    assert!(!case.is_empty());
    let missing = site.run(&exec(&["/no/such/program"])).await.unwrap();
    assert_eq!(missing.status.code(), Some(127), "{}", text(&missing).1);
    assert!(text(&missing).1.contains("the job's command /no/such/program: "), "it is named");
    std::fs::write(site.path("no-program"), "#!/bin/sh\necho the job ran\n").unwrap();
    let closed = site.run(&exec(&["./no-program"])).await.unwrap();
    assert_eq!(closed.status.code(), Some(126), "{}", text(&closed).1);
    assert_eq!(text(&closed).0, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_tool_starts_no_job_though_nobody_noticed_the_change_yet() {
    let site = JobSite::start().await.unwrap();
    // Same size, and the old times put back: a cache would believe it.
    let path = site.tools.path("cc1");
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    site.tools.write("cc1", b"compiler proper 12.2.1").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    let output = site.run(&exec(&["echo", "the job ran"])).await.unwrap();
    assert_refused(&output, "POLICY_TOOL_NOT_ALLOWED");
    assert!(text(&output).1.contains("/cc1"), "it names the file");
    assert!(site.cluster.store().permits("w1", 1).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_verifier_no_job_starts() {
    let mut site = JobSite::start().await.unwrap();
    site.cluster.stop_verifier().await.unwrap();
    let output = site.run(&exec(&["echo", "the job ran"])).await.unwrap();
    assert_refused(&output, "GATE_NO_VERDICT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_ends_with_a_tool_that_changes() {
    let site = JobSite::start().await.unwrap();
    let output = while_a_job_runs(&site, async || {
        site.tools.write("cc1", b"compiler proper 12.2.0 with a gift").unwrap();
    })
    .await;
    assert_ended(&output, "GATE_TOOL_CHANGED");
    let ended = permit_in(&site, PermitState::Ended).await;
    assert!(ended.end_reason.is_some());
}

/// The node itself is to be asked again in half an hour.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_refused_for_what_its_node_is_has_the_others_end() {
    // No check tells the job before the worker does.
    let options = JobSiteOptions {
        jobs: "verifier_silence_s = 3600\n".to_owned(),
        verifier_jobs: "check_every = \"1h\"\n".to_owned(),
        ..JobSiteOptions::default()
    };
    let site = JobSite::start_with(options).await.unwrap();
    let output = while_a_job_runs(&site, async || {
        let mut text = site.cluster.captured("w1").await.unwrap();
        let tool = text.find("name = \"cc\"").unwrap();
        let digest = tool + text[tool..].find("sha256:").unwrap() + "sha256:".len();
        text.replace_range(digest..digest + 64, &"5a".repeat(32));
        site.cluster.put_in_force(&text).await.unwrap();
        let refused = site.run(&exec(&["echo", "the job ran"])).await.unwrap();
        assert_refused(&refused, "POLICY_TOOL_NOT_ALLOWED");
    })
    .await;
    assert_ended(&output, "POLICY_TOOL_NOT_ALLOWED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_ends_with_the_revocation_of_its_node() {
    let site = JobSite::start().await.unwrap();
    let output = while_a_job_runs(&site, async || {
        let revoke = NodeChange::Revoke { reason: "a test".to_owned() };
        let by = site.cluster.by();
        site.cluster.store().change_node("w1", None, revoke, by).await.unwrap();
    })
    .await;
    assert_ended(&output, "PERMIT_ENDED the permit ended: node w1 is revoked");
    let now = site.cluster.by().at;
    let revoked = site.cluster.store().revoked_certificates(now).await.unwrap();
    // The node's, and both of the job.
    assert!(revoked.len() >= 3, "{revoked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_ends_where_nobody_could_tell_it_of_a_revocation() {
    // Far longer than any answer takes, far shorter than the job.
    let jobs = "verifier_silence_s = 10\n".to_owned();
    let options = JobSiteOptions { jobs, ..JobSiteOptions::default() };
    let mut site = JobSite::start_with(options).await.unwrap();
    let begun = site.path("begun");
    let script = format!("echo the job begins; : >{}; sleep 60; echo the job ran", begun.display());
    let mut command = site.attestor(&exec(&["sh", "-c", &script]));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    processes::until("the job begins", || begun.exists()).await;
    site.cluster.stop_verifier().await.unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await;
    assert_ended(&output.unwrap().unwrap(), "GATE_VERIFIER_SILENT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_permit_starts_one_job_of_its_user_in_time() {
    let verifier_jobs = "check_every = \"1s\"\nredeem_within = \"10s\"\n".to_owned();
    let options = JobSiteOptions { verifier_jobs, ..JobSiteOptions::default() };
    let site = JobSite::start_with(options).await.unwrap();
    let defer = async || {
        let output = site.run(&["permit", "--job", "generic", "--defer", "p.json"]).await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output).1);
    };
    let redeem = ["exec", "--permit", "p.json", "--", "echo", "the job ran"];
    defer().await;
    let first = site.run(&redeem).await.unwrap();
    assert_eq!(text(&first).0, "the job ran\n", "{}", text(&first).1);
    // The same once more, after its job is over.
    assert_refused(&site.run(&redeem).await.unwrap(), "PERMIT_ALREADY_REDEEMED");
    defer().await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_refused(&site.run(&redeem).await.unwrap(), "PERMIT_EXPIRED");
}

/// A command that a job of another user runs; `None` where this is not root, who alone may become somebody else.
fn as_nobody(mut command: Command) -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI runs these tests as root");
        eprintln!("skipped: only root can run a job as another user");
        return None;
    }
    command.uid(NOBODY).gid(NOBODY);
    Some(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_gets_nothing_unless_it_is_listed() {
    let site = JobSite::start().await.unwrap();
    let Some(job) = as_nobody(site.attestor(&exec(&["echo", "the job ran"]))) else { return };
    assert_refused(&finish(job).await.unwrap(), "GATE_USER_NOT_ALLOWED");
    // Nor the keys: not the node's file, not what the daemon has in memory.
    let memory = format!("/proc/{}/mem", site.daemon_id());
    for path in [site.path("output/node-key.pem").display().to_string(), memory] {
        let mut read = Command::new("head");
        read.args(["-c", "1", &path]);
        let output = finish(as_nobody(read).unwrap()).await.unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_gets_neither_another_ones_permit_nor_more_than_its_own() {
    let options = JobSiteOptions { users: vec![NOBODY.to_string()], ..JobSiteOptions::default() };
    let site = JobSite::start_with(options).await.unwrap();
    let Some(job) = as_nobody(site.attestor(&exec(&["echo", "the job ran"]))) else { return };
    let output = finish(job).await.unwrap();
    assert_eq!(text(&output).0, "the job ran\n", "{}", text(&output).1);
    // Root's permit, by a user who may start jobs of his own.
    let defer = ["permit", "--job", "generic", "--defer", "/tmp/assay-test-permit.json"];
    let deferred = site.path("p.json").display().to_string();
    let defer: Vec<&str> = defer[..4].iter().copied().chain([deferred.as_str()]).collect();
    assert!(site.run(&defer).await.unwrap().status.success());
    std::fs::set_permissions(&deferred, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    let steal = ["exec", "--permit", &deferred, "--", "echo", "the job ran"];
    let output = finish(as_nobody(site.attestor(&steal)).unwrap()).await.unwrap();
    assert_refused(&output, "PERMIT_UNKNOWN");
    // A job that starts jobs.
    let me = swtpm_tests::job_site::program("attestor").display().to_string();
    let nested = [me.as_str(), "exec", "--job", "generic", "--", "echo", "the job ran"];
    let output = finish(as_nobody(site.attestor(&exec(&nested))).unwrap()).await.unwrap();
    assert_refused(&output, "GATE_CALLER_IS_A_JOB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_of_one_user_leave_room_for_an_honest_job() {
    // It may ask, and asks too much.
    let users = vec!["nobody".to_owned()];
    let site = JobSite::start_with(JobSiteOptions { users, ..JobSiteOptions::default() }).await;
    let site = site.unwrap();
    let socket = site.path("output/job.sock").display().to_string();
    let flood = format!(
        "import socket,time\nheld=[]\nfor _ in range(1000):\n s=socket.socket(socket.AF_UNIX)\n try:\n  s.connect('{socket}')\n  \
         held.append(s)\n except OSError:\n  pass\nprint(len(held),flush=True)\ntime.sleep(120)\n"
    );
    let mut command = Command::new("python3");
    command.args(["-c", &flood]).stdout(Stdio::piped());
    let Some(mut command) = as_nobody(command) else { return };
    let mut flooding = command.spawn().unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(flooding.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert!(line.trim().parse::<u32>().unwrap() > 900, "{line}");
    let output = site.run(&exec(&["echo", "the job ran"])).await.unwrap();
    flooding.kill().unwrap();
    flooding.wait().unwrap();
    assert_eq!(text(&output).0, "the job ran\n", "{}", text(&output).1);
    assert!(UnixStream::connect(&socket).is_ok());
    // Nor is the user kept out for longer than it floods.
    let honest = as_nobody(site.attestor(&exec(&["echo", "the job ran"]))).unwrap();
    let output = finish(honest).await.unwrap();
    assert_eq!(text(&output).0, "the job ran\n", "{}", text(&output).1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_a_permit_ends_it_by_going_away() {
    let (site, folder) = site_that_notes_ends().await;
    let begun = site.path("begun");
    let job = format!(": >{}; exec sleep 60", begun.display());
    let mut command = site.attestor(&exec(&["sh", "-c", &job]));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    processes::until("the job begins", || begun.exists()).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let ended = permit_in(&site, PermitState::Ended).await;
    let why = "whoever held the permit is gone, and did not say that its job is over";
    assert_eq!(ended.end_reason.as_deref(), Some(why));
    assert_eq!(noted_end(folder.path()).await, "GATE_HOLDER_GONE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_gets_a_permit_for_what_its_parent_starts_and_ends_it() {
    let site = JobSite::start().await.unwrap();
    // The shell stands for the runner: the hook is its child, and so are the steps.
    let me = swtpm_tests::job_site::program("attestor").display().to_string();
    let socket = site.path("output/job.sock").display().to_string();
    let script = format!(
        "set -e; {me} permit --job generic --json > p.out; id=$(sed -n 's/.*\"permit_id\": \"\\(.*\\)\".*/\\1/p' p.out); \
         {me} permit --end $id; {me} permit --end $id || echo not twice"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(site.path("")).env("ASSAY_JOB_SOCKET", socket);
    command.env("ASSAY_JOB_ID", "b").env("ASSAY_JOB_RUN_ID", "1");
    let output = finish(command).await.unwrap();
    let (out, err) = text(&output);
    assert!(out.contains(": ended\n") && out.contains("not twice"), "{out}{err}");
    permit_in(&site, PermitState::Ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_job_is_said() {
    let site = JobSite::start().await.unwrap();
    let mut command = site.attestor(&exec(&["true"]));
    let output = finish(std::mem::replace(&mut command, Command::new("true"))).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output).1);
    let mut command = site.attestor(&exec(&["true"]));
    command.env_remove("ASSAY_JOB_RUN_ID");
    let output = finish(command).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).1.contains("ASSAY_JOB_RUN_ID"), "{}", text(&output).1);
    let mut command = site.attestor(&exec(&["true"]));
    command.env("ASSAY_JOB_SOCKET", "/nonexistent/job.sock");
    let output = finish(command).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).1.contains("attestor run"), "{}", text(&output).1);
    // Which job it is has to be said, and once.
    let nothing = site.run(&["exec", "--", "true"]).await.unwrap();
    assert_eq!(nothing.status.code(), Some(2));
    let (_, err) = text(&nothing);
    assert!(err.contains("--job") && err.contains("--permit"), "{err}");
    assert!(!err.contains("--end"), "{err}");
    let nothing = site.run(&["permit"]).await.unwrap();
    assert_eq!(nothing.status.code(), Some(2));
    assert!(text(&nothing).1.contains("--end"), "{}", text(&nothing).1);
    for more in [["--job", "generic"], ["--token-env", "T"], ["--token-file", "t"]] {
        let both = ["exec", "--permit", "p.json", more[0], more[1], "--", "true"];
        let both = site.run(&both).await.unwrap();
        assert_eq!(both.status.code(), Some(2), "{more:?}");
        assert!(text(&both).1.contains("cannot be used with"), "{}", text(&both).1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_told_in_json_what_people_are_told() {
    let site = JobSite::start().await.unwrap();
    let told = async |arguments: &[&str], code: i32| -> serde_json::Value {
        let output = site.run(arguments).await.unwrap();
        let (out, err) = text(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{err}");
        serde_json::from_str(&out)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}{err}"))
    };
    let permit = ["permit", "--job", "generic", "--json"];
    let started = told(&permit, 0).await;
    assert_eq!(started["outcome"], "started");
    let id = started["permit_id"].as_str().unwrap();
    let end = ["permit", "--end", id, "--json"];
    assert_eq!(told(&end, 0).await, serde_json::json!({ "outcome": "ended", "permit_id": id }));
    assert_eq!(told(&end, 3).await, serde_json::json!({ "outcome": "unknown", "permit_id": id }));
    let deferred = told(&[&permit[..], &["--defer", "p.json"]].concat(), 0).await;
    assert_eq!((&deferred["outcome"], &deferred["file"]), (&"deferred".into(), &"p.json".into()));
    assert!(deferred["redeem_within_s"].as_u64().is_some_and(|seconds| seconds > 0), "{deferred}");
    let file = std::fs::read_to_string(site.path("p.json")).unwrap();
    assert!(file.contains(deferred["permit_id"].as_str().unwrap()), "{file}");
    // What a job signs, and its output stays its own.
    std::fs::write(site.path("app.bin"), "a").unwrap();
    let me = swtpm_tests::job_site::program("attestor").display().to_string();
    let sign = ["exec", "--job", "generic", "--json", "--", &me, "sign", "app.bin", "--json"];
    let signed = told(&sign, 0).await;
    assert_eq!(signed["outcome"], "signed");
    let signed = &signed["signed"][0];
    assert_eq!(signed["bundle"], "app.bin.sigstore.json");
    assert_eq!(signed["spiffe_id"], "spiffe://test.example/pool/linux");
    site.tools.write("cc1", b"compiler proper 12.2.0 with a gift").unwrap();
    let exec = ["exec", "--job", "generic", "--json", "--", "echo", "the job ran"];
    for refused in [&permit[..], &exec] {
        let refused = told(refused, 3).await;
        assert_eq!(refused["outcome"], "refused");
        assert_eq!(refused["code"], "POLICY_TOOL_NOT_ALLOWED");
        assert_eq!(refused["reasons"][0]["code"], "POLICY_TOOL_NOT_ALLOWED");
        assert!(refused["decision_id"].as_str().is_some_and(|id| !id.is_empty()), "{refused}");
    }
}

const ISSUER: &str = "https://token.test.example";
const AUDIENCE: &str = "https://assay.test.example";
const COMMIT: &str = "5a0f1c2e3d4b5a69788796a5b4c3d2e1f0a1b2c3";

/// A token as GitHub's issuer makes them, for this repository.
fn github_token(key: &Es256Key, repository: &str, id: &str) -> String {
    let now = i64::try_from(attestor::daemon::now_unix_s()).unwrap();
    let claims = serde_json::json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": format!("repo:{repository}:ref:refs/heads/main"),
        "exp": now + 300, "iat": now, "nbf": now - 5, "jti": id, "ref": "refs/heads/main",
        "repository": repository, "sha": COMMIT, "run_id": "42", "run_attempt": "1", "actor": "ada",
        "workflow_ref": format!("{repository}/.github/workflows/ci.yml@refs/heads/main"),
    });
    let serde_json::Value::Object(claims) = claims else { unreachable!() };
    jose::sign::token(key, claims).unwrap()
}

/// `exec` of a job of GitHub's for this repository, with this token.
fn github_job(site: &JobSite, repository: &str, token: &str) -> Command {
    let arguments =
        ["exec", "--job", "github", "--token-env", "TOKEN", "--", "echo", "the job ran"];
    let mut command = site.attestor(&arguments);
    let workflow = format!("{repository}/.github/workflows/ci.yml@refs/heads/main");
    for (name, value) in [
        ("GITHUB_RUN_ID", "42"),
        ("GITHUB_RUN_ATTEMPT", "1"),
        ("GITHUB_JOB", "build"),
        ("GITHUB_REPOSITORY", repository),
        ("GITHUB_SHA", COMMIT),
        ("GITHUB_WORKFLOW_REF", &workflow),
        ("TOKEN", token),
    ] {
        command.env(name, value);
    }
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_platform_signed_is_held_against_what_the_job_says() {
    let folder = tempfile::tempdir().unwrap();
    let (key, other) = (Es256Key::generate().unwrap(), Es256Key::generate().unwrap());
    let set = JwkSet::new(vec![key.jwk(KeyUse::Signature).unwrap()]).unwrap().to_json();
    std::fs::write(folder.path().join("keys.json"), set).unwrap();
    let platforms = folder.path().join("platforms.toml");
    std::fs::write(
        &platforms,
        format!(
            "[[platform]]\nsystem = \"github\"\nissuer = \"{ISSUER}\"\naudience = \"{AUDIENCE}\"\njwks_file = \
             \"{}\"\nalgorithms = [\"ES256\"]\n",
            folder.path().join("keys.json").display()
        ),
    )
    .unwrap();
    let verifier_jobs = format!("platforms = \"{}\"\n", platforms.display());
    let options = JobSiteOptions { verifier_jobs, ..JobSiteOptions::default() };
    let site = JobSite::start_with(options).await.unwrap();
    let run = async |repository: &str, token: &str| {
        finish(github_job(&site, repository, token)).await.unwrap()
    };
    let good = github_token(&key, "acme/app", "1");
    let output = run("acme/app", &good).await;
    let (out, err) = text(&output);
    assert_eq!(out, "the job ran\n", "{err}\n{}", site.log());
    for line in [
        "repository acme/app (signed by the platform)",
        "run_id     42 (signed by the platform)",
        "job        build (from the environment, unproven)",
    ] {
        assert!(err.contains(line), "{line}: {err}");
    }
    // The same token once more; another repository's; one that another key signed; and none that can be read.
    assert_refused(&run("acme/app", &good).await, "PLATFORM_TOKEN_REPLAYED");
    let another = github_token(&key, "mallory/app", "2");
    let output = run("acme/app", &another).await;
    assert_refused(&output, "PLATFORM_CLAIM_MISMATCH");
    assert!(!text(&output).1.contains("mallory"), "what was expected stays with the verifier");
    let forged = github_token(&other, "acme/app", "3");
    assert_refused(&run("acme/app", &forged).await, "PLATFORM_KEY_UNKNOWN");
    assert_refused(&run("acme/app", "nonsense").await, "PLATFORM_TOKEN_MALFORMED");
    // No token is kept: not in the record of what was judged, either.
    let permits = site.cluster.store().permits("w1", 10).await.unwrap();
    assert_eq!(permits.len(), 1);
    let case = site.cluster.store().case(&permits[0].decision_id).await.unwrap().unwrap();
    let middle = good.split('.').nth(1).unwrap();
    assert!(!case.windows(middle.len()).any(|window| window == middle.as_bytes()));
}

/// A site whose end of a permit leaves its code in a file.
async fn site_that_notes_ends() -> (JobSite, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("ends");
    let jobs = format!(
        "on_end = [\"/bin/sh\", \"-c\", \"echo $ASSAY_END_CODE $ASSAY_UID >{}\"]\n",
        note.display()
    );
    let site = JobSite::start_with(JobSiteOptions { jobs, ..JobSiteOptions::default() }).await;
    (site.unwrap(), folder)
}

/// What the site of [`site_that_notes_ends`] noted, once it is there.
async fn noted_end(folder: &std::path::Path) -> String {
    let note = || std::fs::read_to_string(folder.join("ends")).unwrap_or_default();
    processes::until("the end is noted", || note().ends_with('\n')).await;
    let uid = rustix::process::geteuid();
    note().strip_suffix(&format!(" {uid}\n")).unwrap_or("not of this user").to_owned()
}

/// Shell that waits for a file with something in it, for a minute: what is not there then is missed by the test.
fn waits_for(file: &str) -> String {
    format!("for _ in $(seq 600); do [ -s {file} ] && break; sleep 0.1; done")
}

/// A shell that asks for a permit as a hook does, and then runs this.
fn below_a_shell(site: &JobSite, script: &str) -> Command {
    let me = swtpm_tests::job_site::program("attestor").display().to_string();
    let mut command = Command::new("sh");
    let id = "sed -n 's/.*\"permit_id\": \"\\(.*\\)\".*/\\1/p' p.json >id";
    let script = format!("set -e; {me} permit --job generic --json >p.json; {id}; {script}");
    command.args(["-c", &script, "sh", &me]).current_dir(site.path(""));
    command.env("ASSAY_JOB_SOCKET", site.path("output/job.sock"));
    command.env("ASSAY_JOB_ID", "b").env("ASSAY_JOB_RUN_ID", "1");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_for_what_a_process_starts_ends_with_that_process() {
    let (site, folder) = site_that_notes_ends().await;
    let output = finish(below_a_shell(&site, "echo the job ran")).await.unwrap();
    assert_eq!(text(&output).0, "the job ran\n", "{}", text(&output).1);
    let ended = permit_in(&site, PermitState::Ended).await;
    assert_eq!(ended.end_reason.as_deref(), Some("the process that it was for has ended"));
    assert!(!folder.path().join("ends").exists(), "a job that is over is no reason to act");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_gives_its_permit_back_and_goes_on_is_acted_upon() {
    let end = "\"$1\" permit --end $(cat id)";
    // One that left its parents is told from an agent that ends its own job.
    for end in
        [end, &format!("ME=$1 setsid -f sh -c 'sleep 0.5; exec {}'", end.replace("$1", "$ME"))]
    {
        let (site, folder) = site_that_notes_ends().await;
        let goes_on =
            format!("{end}; {}", waits_for(&folder.path().join("ends").display().to_string()));
        let output = finish(below_a_shell(&site, &goes_on)).await.unwrap();
        assert_eq!(noted_end(folder.path()).await, "GATE_ENDED_BY_ITS_JOB", "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_left_its_job_gets_no_permit_of_its_own() {
    let site = JobSite::start().await.unwrap();
    let ask = "\"$ME\" exec --job generic -- echo the job ran";
    let script = format!(
        "export ME=$1; setsid -f sh -c 'sleep 0.5; {ask} >out 2>&1; echo $? >code'; {}; cat code out",
        waits_for("code")
    );
    let output = finish(below_a_shell(&site, &script)).await.unwrap();
    let (out, err) = text(&output);
    assert!(out.starts_with("3\n") && out.contains("GATE_CALLER_IS_A_JOB"), "{out}{err}");
    assert!(!out.contains("the job ran"), "{out}");
    // Whoever runs the next job is no child of that one.
    let next = site.run(&exec(&["echo", "the job ran"])).await.unwrap();
    assert_eq!(text(&next).0, "the job ran\n", "{}", text(&next).1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_that_waited_is_not_used_on_a_worker_that_was_denied_meanwhile() {
    let site = JobSite::start().await.unwrap();
    let file = site.path("permit.json").display().to_string();
    let deferred = site.run(&["permit", "--job", "generic", "--defer", &file]).await.unwrap();
    assert_eq!(deferred.status.code(), Some(0), "{}", text(&deferred).1);
    site.tools.write("cc1", b"compiler proper 12.2.1").unwrap();
    for _ in 0..400 {
        if site.log().contains("denied") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let output = site.run(&["exec", "--permit", &file, "--", "echo", "the job ran"]).await.unwrap();
    assert_refused(&output, "POLICY_TOOL_NOT_ALLOWED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_cannot_be_measured_any_more_ends_a_job() {
    let site = JobSite::start().await.unwrap();
    let output = while_a_job_runs(&site, async || {
        // A link to itself, in its place at once: what the tool is cannot be told, and nothing is recorded of it.
        let link = site.path("link");
        std::os::unix::fs::symlink("cc1", &link).unwrap();
        std::fs::rename(&link, site.tools.path("cc1")).unwrap();
    })
    .await;
    assert_ended(&output, "GATE_TOOLS_UNREADABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_ends_its_jobs_and_sees_to_what_is_done_about_it() {
    let (site, folder) = site_that_notes_ends().await;
    let ends = folder.path().join("ends").display().to_string();
    let stop = format!("kill {}; {}", site.daemon_id(), waits_for(&ends));
    let output = finish(below_a_shell(&site, &stop)).await.unwrap();
    assert_eq!(noted_end(folder.path()).await, "GATE_STOPPING", "{output:?}");
    let ended = permit_in(&site, PermitState::Ended).await;
    assert_eq!(ended.end_reason.as_deref(), Some("the worker's daemon stops"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_waits_for_what_is_done_about_a_refusal() {
    let script = "echo begun >>@FOLDER@/refused; until [ -e @FOLDER@/go ]; do sleep 0.1; done; echo done >>@FOLDER@/refused";
    let on_refused = ["/bin/sh", "-c", script];
    let jobs = format!("systems = [\"github\"]\non_refused = {on_refused:?}\n");
    let site = JobSite::start_with(JobSiteOptions { jobs, ..JobSiteOptions::default() }).await;
    let site = site.unwrap();
    assert_refused(
        &site.run(&exec(&["echo", "the job ran"])).await.unwrap(),
        "GATE_SYSTEM_NOT_ALLOWED",
    );
    let notes = || std::fs::read_to_string(site.path("refused")).unwrap_or_default();
    processes::until("it is acted upon", || notes() == "begun\n").await;
    let daemon = site.daemon_id();
    processes::send(daemon, rustix::process::Signal::TERM);
    processes::until("the daemon stops", || site.log().contains("told to stop")).await;
    std::fs::write(site.path("go"), "").unwrap();
    processes::until("the daemon ended", || processes::state(&daemon.to_string()) == "Z").await;
    assert_eq!(notes(), "begun\ndone\n");
}

/// It waits for the verifier's answer about a job's permit, which does not come.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_told_to_stop_does_not_wait_for_the_verifier() {
    let site = JobSite::start().await.unwrap();
    let daemon = site.daemon_id();
    site.road.is_empty().await;
    // A connection that nobody answers is given up after ten seconds, and then there is another try.
    let stopped = site.road.hold(1, async || {
        let start = std::time::Instant::now();
        processes::send(daemon, rustix::process::Signal::TERM);
        processes::until("the daemon ended", || processes::state(&daemon.to_string()) == "Z").await;
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    });
    let ((), output) =
        tokio::join!(stopped, finish(site.attestor(&exec(&["echo", "the job ran"]))));
    let output = output.unwrap();
    assert_ne!(output.status.code(), Some(0));
    assert!(!text(&output).0.contains("the job ran"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_finds_the_socket_that_gave_its_permit() {
    let site = JobSite::start().await.unwrap();
    // Named on the command line alone, and relative to a folder that a step may leave.
    let asked = |arguments: &[&str]| {
        let [command, rest @ ..] = arguments else { unreachable!() };
        let all = [&[*command, "--socket", "output/job.sock", "--job", "generic"], rest].concat();
        let mut command = site.attestor(&all);
        command.env_remove("ASSAY_JOB_SOCKET");
        finish(command)
    };
    let socket = site.path("output/job.sock").display().to_string();
    let output = asked(&["exec", "--", "sh", "-c", "cd /; echo $ASSAY_JOB_SOCKET"]).await.unwrap();
    assert_eq!(text(&output).0.trim_end(), socket, "{}", text(&output).1);
    std::fs::write(site.path("env"), "BEFORE=1\n").unwrap();
    let output = asked(&["permit", "--env-out", "env"]).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output).1);
    let variables = std::fs::read_to_string(site.path("env")).unwrap();
    let names: Vec<_> = variables.lines().filter_map(|line| line.split('=').next()).collect();
    let expected = [
        "BEFORE",
        "SPIFFE_ENDPOINT_SOCKET",
        "ASSAY_JOB_SOCKET",
        "ASSAY_PERMIT_ID",
        "ASSAY_DECISION_ID",
    ];
    assert_eq!(names, expected);
    assert!(variables.contains(&format!("ASSAY_JOB_SOCKET={socket}\n")), "{variables}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_takes_back_what_a_former_run_reported() {
    let site = JobSite::start().await.unwrap();
    let daemon = site.daemon_id();
    let look = ["status", "--output-dir", "output", "--json"];
    let outcome = |output: &Output| {
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), status["outcome"].as_str().unwrap_or_default().to_owned())
    };
    // A second daemon beside the first gets nowhere, and its start is none.
    let second = site.run(&["run", "--config", "attestor.toml"]).await.unwrap();
    assert!(text(&second).1.contains("in use by another process"), "{}", text(&second).1);
    let output = site.run(&look).await.unwrap();
    assert_eq!(outcome(&output), (Some(0), "admitted".to_owned()));
    // One that is killed would leave its keys in this TPM, which has no resource manager.
    processes::send(daemon, rustix::process::Signal::TERM);
    processes::until("the daemon ended", || processes::state(&daemon.to_string()) == "Z").await;
    assert_eq!(outcome(&site.run(&look).await.unwrap()), (Some(0), "admitted".to_owned()));
    site.road.is_empty().await;
    // It waits for the verifier.
    let held = site.road.hold(1, async || {
        let output = site.run(&look).await.unwrap();
        assert_eq!(outcome(&output), (Some(1), "starting".to_owned()));
    });
    let mut again = site.attestor(&["run", "--config", "attestor.toml"]);
    let log = std::fs::File::create(site.path("again.log")).unwrap();
    let again = again.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let _again = swtpm_tests::process::Ended(again);
    held.await;
    let output = site.run(&[&look[..], &["--wait", "60"]].concat()).await.unwrap();
    let log = || std::fs::read_to_string(site.path("again.log")).unwrap_or_default();
    assert_eq!(outcome(&output), (Some(0), "admitted".to_owned()), "{}", log());
}
