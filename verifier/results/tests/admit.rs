//! The chain from quote to artifact: good, and with every link broken.
mod support;

use results::{
    Code,
    admit::{AdmitPolicy, Link, rests_on},
    statement::ClaimSource,
    statement::Verdict,
    verify::Trust,
};
use support::{
    Chain, Key, NOW, at,
    chain::{digest, id, policy, without_lists},
    pki::{JOB_ID, RESULTS_ID},
};

#[test]
fn a_good_chain_is_admitted_and_prints_as_a_tree() {
    let mut chain = Chain::new();
    chain.dispatch.job.claims.remove("run_id");
    let admitted = chain.admit().expect("admitted");
    let key = chain.job_key.spki_digest();
    let build = admitted.dispatch().statement().job.build_id();
    assert_eq!(
        admitted.to_string(),
        format!(
            "artifact sha256:{}
└─ signed 2026-11-27T06:00:00Z by spiffe://build.example/pool/release
   │  job key sha256:{key}
   └─ dispatched 2026-11-27T05:59:00Z by spiffe://build.example/verifier/results
      │  build sha256:{build}
      │  permit p-0001 until 2026-11-27T06:05:00Z
      │  pool release, system github
      │  commit 5ba93c9db0cff93f52b521d7420e43f6eda2784f
      │  repository acme/app (platform-token)
      │  runner_name n1 (environment)
      │  workflow release.yml@refs/heads/main (platform-token)
      │  tool gcc 12.2.0-14 sha256:{}
      │  tool make 4.3-4.1 sha256:{}
      └─ node spiffe://build.example/node/n1 passed 2026-11-27T05:58:00Z
         │  stated 2026-11-27T05:58:00Z by spiffe://build.example/verifier/results
         │  policy https://build.example/golden/release sha256:{}
         │  levels ASSAY_BOOT_VERIFIED, ASSAY_TOOLS_VERIFIED
         ├─ quote sha256:{}
         └─ AK sha256:{}
",
            results::Sha256Digest::of(support::chain::ARTIFACT),
            digest("gcc"),
            digest("make"),
            digest("golden set"),
            digest("quote"),
            digest("ak"),
        )
    );
    assert_eq!(admitted.node(), &id("spiffe://build.example/node/n1"));
}

#[test]
fn every_broken_link_is_in_the_tree_and_what_rests_on_it_is_not_known() {
    let chain = Chain::new();
    let whole = chain.examine().expect("looked at");
    assert!(whole.broken().is_empty());
    assert!(Link::ALL.into_iter().all(|link| !whole.is_unknown(link)));
    assert!(whole.to_string().ends_with("            └─ policy: good\n"), "{whole}");
    let mut chain = Chain::new();
    chain.dispatch.pool = "nightly".to_owned();
    chain.vsa.quote = digest("another quote");
    chain.dispatch.tools.clear();
    let examined = chain.examine().expect("looked at");
    let codes: Vec<_> = examined.broken().iter().map(|(at, why)| (*at, why.code())).collect();
    assert_eq!(
        codes,
        [
            (Link::Permit, Code::AdmitPoolMismatch),
            (Link::Tpm, Code::AdmitQuoteMismatch),
            (Link::Policy, Code::AdmitPoolNotAccepted),
            (Link::Policy, Code::AdmitToolMissing),
            (Link::Policy, Code::AdmitToolMissing),
        ]
    );
    let shown = examined.to_string();
    let lines: Vec<_> = shown.lines().filter(|line| line.contains('└')).map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "└─ artifact ← job: good",
            "└─ job ← permit: BROKEN",
            "└─ permit ← node: good",
            "└─ node ← TPM: BROKEN",
            "└─ policy: BROKEN",
        ]
    );
    assert!(shown.contains("ADMIT_QUOTE_MISMATCH: vsa\n"), "{shown}");
    // What admission says is the first of them.
    assert_eq!(examined.admitted().expect_err("refused").code(), Code::AdmitPoolMismatch);
    let mut chain = Chain::new();
    // Statements of a stranger: nothing that they say is looked at.
    chain.results_leaf.uris = vec![JOB_ID.to_owned()];
    let examined = chain.examine().expect("looked at");
    assert!(!examined.is_unknown(Link::Job));
    let unknown = [Link::Permit, Link::Node, Link::Tpm, Link::Policy];
    assert!(unknown.into_iter().all(|link| examined.is_unknown(link)), "{examined}");
    assert!(examined.to_string().contains("└─ policy: not known"), "{examined}");
    assert_eq!(examined.broken().len(), 2, "{examined}");
}

#[test]
fn a_claim_cannot_turn_the_tree_around() {
    let mut chain = Chain::new();
    set_claim(&mut chain, "run_id", "7\u{202e}\u{2066}nekot-mroftalp");
    let shown = chain.admit().expect("admitted").to_string();
    assert!(shown.contains("run_id 7\\u{202e}\\u{2066}nekot"), "{shown}");
}

/// A change to a good chain, and the refusal that it must meet.
type Row = (&'static str, fn(&mut Chain), Code, &'static str);

#[test]
fn each_broken_link_is_named() {
    let rows: [Row; 14] = [
        (
            "another job's key",
            |chain| chain.dispatch.job_key = Key::new().spki_digest(),
            Code::AdmitJobKeyMismatch,
            "dispatch",
        ),
        (
            "another permit than the leaf's",
            |chain| name_job(chain, "spiffe://build.example/pool/release/job/github/p-0002"),
            Code::AdmitPermitMismatch,
            "dispatch",
        ),
        (
            "another pool than the leaf's",
            |chain| name_job(chain, "spiffe://build.example/pool/nightly"),
            Code::AdmitPoolMismatch,
            "dispatch",
        ),
        (
            "another VSA",
            |chain| {
                chain.rests_on_vsa = false;
                chain.dispatch.vsa = digest("another");
            },
            Code::AdmitVsaMismatch,
            "vsa",
        ),
        (
            "a node that failed",
            |chain| {
                chain.vsa.result = Verdict::Failed;
                chain.vsa.levels.clear();
            },
            Code::AdmitVsaNotPassed,
            "vsa",
        ),
        (
            "the VSA of another node",
            |chain| chain.vsa.node = id("spiffe://build.example/node/n2"),
            Code::AdmitVsaNodeMismatch,
            "vsa",
        ),
        (
            "another quote of the node",
            |chain| chain.vsa.quote = digest("another quote"),
            Code::AdmitQuoteMismatch,
            "vsa",
        ),
        (
            "verified after dispatch",
            |chain| chain.vsa.time_verified = at(NOW - 59),
            Code::AdmitVsaAfterDispatch,
            "vsa",
        ),
        (
            "verified long before dispatch",
            |chain| chain.vsa.time_verified = at(NOW - 361),
            Code::AdmitVsaTooOld,
            "vsa",
        ),
        (
            "dispatched after the artifact was signed",
            |chain| chain.dispatched_at = NOW + 1,
            Code::AdmitDispatchAfterSignature,
            "dispatch",
        ),
        (
            "signed after the dispatch expired",
            |chain| chain.dispatch.expires = at(NOW - 1),
            Code::AdmitDispatchExpired,
            "artifact",
        ),
        (
            "the job's statement about itself",
            |chain| chain.results_leaf.uris = vec![JOB_ID.to_owned()],
            Code::IdentityNotAccepted,
            "dispatch: signer",
        ),
        (
            "the verifier's own artifact",
            |chain| chain.job_leaf.uris = vec![RESULTS_ID.to_owned()],
            Code::IdentityNotAccepted,
            "artifact: signer",
        ),
        (
            "a statement by who was no longer valid",
            |chain| chain.results_leaf.until = NOW - 100,
            Code::CertificateNotValidThen,
            "dispatch: signer's certificate",
        ),
    ];
    for (what, change, code, subject) in rows {
        let mut chain = Chain::new();
        change(&mut chain);
        let refusal = chain.admit().expect_err(what);
        assert_eq!((refusal.code(), refusal.subject()), (code, subject), "{what}: {refusal}");
    }
}

/// A chain whose job has that identity, which the policy accepts.
fn name_job(chain: &mut Chain, uri: &str) {
    chain.job_leaf.uris = vec![uri.to_owned()];
    chain.policy.job_identities.push(id(uri));
}

#[test]
fn the_limits_of_each_link_are_admitted() {
    type Change = fn(&mut Chain);
    let rows: [(&str, Change); 5] = [
        ("the leaf's own permit", |chain| {
            name_job(chain, "spiffe://build.example/pool/release/job/github/p-0001");
        }),
        ("a leaf that names no pool", |chain| name_job(chain, "spiffe://build.example/signer")),
        ("verified as it was dispatched", |chain| chain.vsa.time_verified = at(NOW - 60)),
        ("as old as may be", |chain| chain.vsa.time_verified = at(NOW - 360)),
        ("signed as the dispatch expired", |chain| {
            chain.dispatch.expires = at(NOW);
            chain.dispatched_at = NOW;
        }),
    ];
    for (what, change) in rows {
        let mut chain = Chain::new();
        change(&mut chain);
        let _admitted = chain.admit().expect(what);
    }
}

#[test]
fn each_demand_of_the_policy_is_met_or_named() {
    let rows: [Row; 12] = [
        (
            "a pool",
            |chain| {
                chain.dispatch.pool = "nightly".to_owned();
                name_job(chain, "spiffe://build.example/signer");
            },
            Code::AdmitPoolNotAccepted,
            "dispatch: pool",
        ),
        (
            "a system",
            |chain| chain.dispatch.job.system = "gitlab".to_owned(),
            Code::AdmitSystemNotAccepted,
            "dispatch: system",
        ),
        (
            "a repository",
            |chain| set_claim(chain, "repository", "acme/fork"),
            Code::AdmitRepositoryNotAccepted,
            "dispatch: repository",
        ),
        (
            "a repository, without any",
            |chain| drop(chain.dispatch.job.claims.remove("repository")),
            Code::AdmitRepositoryNotAccepted,
            "dispatch: repository",
        ),
        (
            "a workflow",
            |chain| set_claim(chain, "workflow", "release.yml@refs/heads/feature"),
            Code::AdmitWorkflowNotAccepted,
            "dispatch: workflow",
        ),
        (
            "a claim",
            |chain| chain.policy.platform_claims = vec!["actor".to_owned()],
            Code::AdmitClaimMissing,
            "dispatch: actor",
        ),
        (
            "a claim of the platform",
            |chain| {
                let claims = &mut chain.dispatch.job.claims;
                claims.get_mut("workflow").expect("a claim").source = ClaimSource::Environment;
            },
            Code::AdmitClaimSource,
            "dispatch: workflow",
        ),
        (
            "a level",
            |chain| chain.vsa.levels = vec!["ASSAY_TOOLS_VERIFIED".to_owned()],
            Code::AdmitLevelMissing,
            "dispatch: verifiedLevels",
        ),
        (
            "any level",
            |chain| chain.vsa.levels.clear(),
            Code::AdmitLevelMissing,
            "dispatch: verifiedLevels",
        ),
        (
            "a tool",
            |chain| drop(chain.dispatch.tools.pop()),
            Code::AdmitToolMissing,
            "dispatch: make",
        ),
        (
            "a tool's digest",
            |chain| chain.dispatch.tools[0].digest = digest("another gcc"),
            Code::AdmitToolDigestNotAccepted,
            "dispatch: gcc",
        ),
        (
            "a VSA's age of none",
            |chain| chain.policy.max_vsa_age_s = 0,
            Code::AdmitVsaTooOld,
            "vsa",
        ),
    ];
    for (what, change, code, subject) in rows {
        let mut chain = Chain::new();
        change(&mut chain);
        let refusal = chain.admit().expect_err(what);
        assert_eq!((refusal.code(), refusal.subject()), (code, subject), "{what}: {refusal}");
    }
    // What no list limits is admitted as it is.
    let mut chain = Chain::new();
    chain.policy = without_lists(policy());
    chain.dispatch.job.system = "gitlab".to_owned();
    chain.dispatch.job.claims.clear();
    chain.dispatch.tools.clear();
    let _admitted = chain.admit().expect("admitted");
}

#[test]
fn only_the_authority_that_knows_of_permits_stamps_artifacts_unless_the_policy_says_otherwise() {
    let others = "http://tsa.example/";
    for (uri, named, is_accepted) in [
        ("spiffe://build.example", None, true),
        (others, None, false),
        // Another trust domain's knows nothing of this one's permits.
        ("spiffe://build.example.org", None, false),
        ("spiffe://build", None, false),
        (others, Some(vec![others]), true),
        (others, Some(vec!["http://tsa.example", "spiffe://build.example"]), false),
        // Who names others does without the trust domain's own, if it is not among them.
        ("spiffe://build.example", Some(vec![others]), false),
        ("spiffe://build.example", Some(vec![others, "spiffe://build.example"]), true),
    ] {
        let mut chain = Chain::new();
        chain.world.tsa_uri = uri;
        chain.policy.artifact_timestamp_authorities =
            named.map(|named| named.into_iter().map(str::to_owned).collect());
        let what = format!("{uri} with {:?}", chain.policy.artifact_timestamp_authorities);
        match chain.admit() {
            Ok(admitted) => {
                assert!(is_accepted, "{what}");
                let told =
                    admitted.to_string().matches("time stamp of http://tsa.example/").count();
                assert_eq!(told, if uri == others { 3 } else { 0 }, "{admitted}");
            }
            Err(refusal) => {
                assert!(!is_accepted, "{what}: {refusal}");
                assert_eq!(refusal.code(), Code::AdmitTimestampAuthorityNotAccepted, "{what}");
                assert_eq!(refusal.observed(), format!("{uri:?}"));
                let examined = chain.examine().expect("looked at");
                assert_eq!(examined.broken(), [(Link::Job, refusal)], "{what}");
            }
        }
    }
}

fn set_claim(chain: &mut Chain, name: &str, value: &str) {
    chain.dispatch.job.claims.get_mut(name).expect("a claim").value = value.to_owned();
}

#[test]
fn a_policy_that_accepts_nothing_or_too_much_is_none() {
    type Change = fn(&mut AdmitPolicy);
    let rows: [(&str, Change); 11] = [
        ("artifact_timestamp_authorities", |policy| {
            policy.artifact_timestamp_authorities = Some(Vec::new());
        }),
        ("job_identities", |policy| policy.job_identities.clear()),
        ("results_identities", |policy| policy.results_identities.clear()),
        ("pools", |policy| policy.pools.clear()),
        ("systems", |policy| policy.systems = Some(Vec::new())),
        ("repositories", |policy| policy.repositories = Some(Vec::new())),
        ("workflows", |policy| policy.workflows = Some(Vec::new())),
        ("levels", |policy| policy.levels.push("SLSA_BUILD_LEVEL_3".to_owned())),
        ("tools.gcc", |policy| {
            policy.tools.get_mut("gcc").expect("a tool").sha256 = Some(Vec::new());
        }),
        ("results_identities", |policy| policy.job_identities.push(id(RESULTS_ID))),
        ("max_vsa_age_s", |policy| policy.max_vsa_age_s = 24 * 3600 + 1),
    ];
    for (at, change) in rows {
        let mut chain = Chain::new();
        change(&mut chain.policy);
        let refusal = chain.admit().expect_err(at);
        assert_eq!(refusal.code(), Code::AdmitPolicyInvalid, "{at}: {refusal}");
        assert_eq!(refusal.subject(), format!("policy: {at}"));
    }
    let mut chain = Chain::new();
    chain.policy.pools = vec!["x".to_owned(); results::admit::MAX_POLICY_ENTRIES + 1];
    assert_eq!(chain.admit().expect_err("too many").code(), Code::TooLarge);
}

#[test]
fn a_policy_is_written_as_toml() {
    let text = r#"
job_identities = ["spiffe://build.example/pool/release"]
results_identities = ["spiffe://build.example/verifier/results"]
pools = ["release"]
max_vsa_age_s = 300
systems = ["github"]
repositories = ["acme/app"]
workflows = ["release.yml@refs/heads/main"]
platform_claims = ["repository", "workflow"]
levels = ["ASSAY_BOOT_VERIFIED"]

[tools.gcc]
sha256 = ["DIGEST"]

[tools.make]
"#
    .replace("DIGEST", &digest("gcc").to_string());
    assert_eq!(toml::from_str::<AdmitPolicy>(&text).expect("a policy"), policy());
    for wrong in ["pool = []", "[tools.ld]\nmd5 = []", "max_vsa_age_s = 1"] {
        assert!(toml::from_str::<AdmitPolicy>(&format!("{wrong}\n{text}")).is_err(), "{wrong}");
    }
}

/// What is asked of two statements without an artifact.
#[test]
fn a_dispatch_rests_on_one_statement_about_its_node_alone() {
    let rests = |chain: &Chain| {
        let root = chain.world.trusted_root();
        let identities = [id(RESULTS_ID)];
        let trust = Trust { root: &root, identities: &identities };
        let [dispatch, vsa] = [chain.dispatch_bundle(), chain.vsa_bundle()];
        let [dispatch, vsa] =
            [&dispatch, &vsa].map(|bundle| bundle.prove_time(&root, at(NOW)).expect("a time"));
        rests_on(
            &dispatch.verify_statement(&trust).expect("a dispatch"),
            &vsa.verify_statement(&trust).expect("a VSA"),
        )
    };
    assert_eq!(rests(&Chain::new()), Ok(()));
    let mut failed = Chain::new();
    failed.vsa.result = Verdict::Failed;
    failed.vsa.levels.clear();
    let mut elsewhere = Chain::new();
    elsewhere.vsa.node = id("spiffe://build.example/node/n2");
    let mut requoted = Chain::new();
    requoted.vsa.quote = digest("another quote");
    for (chain, code) in [
        (Chain { rests_on_vsa: false, ..Chain::new() }, Code::AdmitVsaMismatch),
        (failed, Code::AdmitVsaNotPassed),
        (elsewhere, Code::AdmitVsaNodeMismatch),
        (requoted, Code::AdmitQuoteMismatch),
    ] {
        assert_eq!(rests(&chain).expect_err("refused").code(), code);
    }
}
