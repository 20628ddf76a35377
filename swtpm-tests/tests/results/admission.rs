//! `verifier admit`: an artifact by its whole chain, and every link of it broken.

use std::process::Output;

use serde_json::Value;

use super::{RESULTS, Signed, all};

pub(super) const POLICY: &str = "\
job_identities = [\"spiffe://test.example/pool/linux\"]
results_identities = [\"spiffe://test.example/verifier/results\"]
pools = [\"linux\"]
max_vsa_age_s = 60
systems = [\"generic\"]
repositories = [\"acme/app\"]
levels = [\"ASSAY_NODE_ATTESTED\"]
[tools.cc]
";
pub(super) const GOOD: [&str; 5] =
    ["app.bin", "--results", "results", "--bundle", "app.bin.sigstore.json"];

/// The codes of every broken link, with the link's name.
#[track_caller]
pub(super) fn broken(output: &Output) -> Vec<(String, String)> {
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

pub(super) fn at(link: &str, code: &str) -> (String, String) {
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
