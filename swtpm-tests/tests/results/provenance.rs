//! `verifier results provenance`: what a builder's SLSA provenance gets, and the documented way into it.

use std::process::{Command, Output};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use results::Sha256Digest;
use serde_json::{Value, json};
use swtpm_tests::job_site::finish;

use super::{RESULTS, Signed, all, documented};

impl Signed {
    /// `verifier results provenance` with the site's trusted root and more arguments.
    async fn provenance(&self, arguments: &[&str]) -> Output {
        let root = self.root.display().to_string();
        let command = ["results", "provenance", "--trusted-root", &root];
        self.anybody(&[&command[..], arguments].concat()).await
    }

    /// The bytes that a bundle's envelope signs: digest and, parsed, what they say.
    fn payload(&self, name: &str) -> (String, Value) {
        let bundle: Value = serde_json::from_slice(&self.read(name)).unwrap();
        let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap();
        let payload = STANDARD.decode(payload).unwrap();
        (Sha256Digest::of(&payload).to_string(), serde_json::from_slice(&payload).unwrap())
    }
}

const MINE: [&str; 4] = ["--results", "results", "--identity", RESULTS];
const DISPATCH: &str = "results/dispatch.sigstore.json";
const NODE: &str = "results/node.sigstore.json";

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_command_merges_the_parts_into_a_builder_s_provenance() {
    let signed = Signed::new().await;
    let output = signed.provenance(&[&MINE[..], &["--out", "assay.json"]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    let own = |name: &str| json!({ "name": name, "digest": { "sha256": "5a".repeat(32) } });
    let full = json!({
        "buildDefinition": {
            "buildType": "https://builds.example/make",
            "externalParameters": { "target": "app" },
            "internalParameters": { "runner": "r1" },
            "resolvedDependencies": [own("source")],
        },
        "runDetails": {
            "builder": { "id": "https://builds.example", "builderDependencies": [own("agent")] },
            "metadata": { "invocationId": "7" },
            "byproducts": [own("log")],
        },
    });
    // The least that a predicate has.
    let least = json!({
        "buildDefinition": { "buildType": "x:y", "externalParameters": {} },
        "runDetails": { "builder": { "id": "x:z" } },
    });
    let ((vsa, _), (dispatch, said)) = (signed.payload(NODE), signed.payload(DISPATCH));
    for predicate in [&full, &least] {
        std::fs::write(signed.site.path("predicate.json"), predicate.to_string()).unwrap();
        let mut command = Command::new("sh");
        command.args(["-euc", &documented("merge-provenance")]).current_dir(signed.site.path(""));
        let output = finish(command).await.unwrap();
        assert!(output.status.success(), "{}", all(&output));
        let merged: Value = serde_json::from_slice(&signed.read("merged.json")).unwrap();
        // What the builder had comes first, then what is added.
        let added = |at: &str| -> Vec<Value> {
            let had = predicate.pointer(at).map_or(&[][..], |list| list.as_array().unwrap());
            let list = merged.pointer(at).unwrap().as_array().unwrap();
            assert_eq!(&list[..had.len()], had, "{at}");
            list[had.len()..].to_vec()
        };
        let statement = |name: &str, digest: &str| {
            json!([{
                "name": name, "digest": { "sha256": digest },
                "mediaType": "application/vnd.in-toto+json",
            }])
        };
        let dependencies = added("/runDetails/builder/builderDependencies");
        assert_eq!(Value::from(dependencies), statement("assay-vsa", &vsa));
        let byproducts = added("/runDetails/byproducts");
        assert_eq!(Value::from(byproducts), statement("assay-dispatch", &dispatch));
        let tools: Vec<Value> = said["predicate"]["attributes"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|attribute| attribute["attribute"] == "TOOL_DIGEST_MATCHED")
            .map(|attribute| attribute["target"]["digest"]["sha256"].clone())
            .collect();
        let dependencies = added("/buildDefinition/resolvedDependencies");
        let digests: Vec<Value> =
            dependencies.iter().map(|tool| tool["digest"]["sha256"].clone()).collect();
        assert!(!tools.is_empty() && digests == tools, "{digests:?} {tools:?}");
        let assay = &merged["buildDefinition"]["internalParameters"]["assay"];
        assert_eq!(assay["nodeId"], "spiffe://test.example/node/w1");
        assert_eq!(assay["pool"], "linux");
        // All else is the builder's, as it was.
        let mut rest = merged.clone();
        for (at, name) in [
            ("/buildDefinition", "resolvedDependencies"),
            ("/runDetails", "byproducts"),
            ("/runDetails/builder", "builderDependencies"),
            ("/buildDefinition/internalParameters", "assay"),
        ] {
            let fields = rest.pointer_mut(at).unwrap().as_object_mut().unwrap();
            fields.remove(name).unwrap();
            if let Some(had) = predicate.pointer(&format!("{at}/{name}")) {
                fields.insert(name.to_owned(), had.clone());
            }
        }
        if predicate == &least {
            let definition = rest["buildDefinition"].as_object_mut().unwrap();
            assert_eq!(definition.remove("internalParameters"), Some(json!({})));
        }
        assert_eq!(&rest, predicate);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_for_provenance_are_of_verified_statements_that_belong_together() {
    let mut signed = Signed::new().await;
    signed.another_job("other.bin", "others").await;
    signed.site.cluster.stop_verifier().await.unwrap();
    let printed = signed.provenance(&MINE).await;
    assert_eq!(printed.status.code(), Some(0), "{}", all(&printed));
    let said: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let names: Vec<&String> = said.as_object().unwrap().keys().collect();
    assert_eq!(names, ["buildDefinition", "runDetails"]);
    // The same by the names of the files, and into a file.
    let by_name =
        ["--dispatch", DISPATCH, "--node", NODE, "--identity", RESULTS, "--out", "assay.json"];
    let written = signed.provenance(&by_name).await;
    assert_eq!(written.status.code(), Some(0), "{}", all(&written));
    assert_eq!(signed.read("assay.json"), printed.stdout);

    let other = "others/node.sigstore.json";
    let own = "app.bin.sigstore.json";
    let mut bundle: Value = serde_json::from_slice(&signed.read(NODE)).unwrap();
    let text = STANDARD.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
    let text = String::from_utf8(text).unwrap().replacen("node/w1", "node/w2", 1);
    bundle["dsseEnvelope"]["payload"] = STANDARD.encode(text).into();
    std::fs::write(signed.site.path("changed.json"), bundle.to_string()).unwrap();
    for (dispatch, node, identity, code) in [
        (DISPATCH, NODE, super::POOL, "RESULT_IDENTITY_NOT_ACCEPTED"),
        (DISPATCH, other, RESULTS, "ADMIT_VSA_MISMATCH"),
        (DISPATCH, "changed.json", RESULTS, "RESULT_SIGNATURE_INVALID"),
        (DISPATCH, DISPATCH, RESULTS, "RESULT_PREDICATE_UNKNOWN"),
        (own, NODE, RESULTS, "RESULT_CONTENT_UNEXPECTED"),
    ] {
        let files = ["--dispatch", dispatch, "--node", node, "--identity", identity];
        let output = signed.provenance(&[&files[..], &["--out", "refused.json"]].concat()).await;
        assert_eq!(output.status.code(), Some(3), "{code}: {}", all(&output));
        assert!(all(&output).contains(code), "{code}: {}", all(&output));
        assert!(!signed.site.path("refused.json").exists(), "{code}");
    }
    // Without --identity nobody may have signed.
    let output = signed.provenance(&["--results", "results"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", all(&output));
    assert!(output.stdout.is_empty() && all(&output).contains("--identity"), "{}", all(&output));
    for (arguments, code) in [
        (&["--identity", RESULTS][..], 2),
        (&["--dispatch", DISPATCH], 2),
        (&["--results", "results", "--node", NODE], 2),
        (&["--results", "results", "--identity", "node/w1"], 2),
        (&["--results", "nowhere", "--identity", RESULTS], 1),
    ] {
        let output = signed.provenance(arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", all(&output));
    }
}
