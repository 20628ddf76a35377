use std::collections::BTreeMap;

use super::*;
use crate::UnixTime;

fn digest(text: &str) -> Sha256Digest {
    Sha256Digest::of(text.as_bytes())
}

fn reference(name: &str) -> PolicyRef {
    PolicyRef { uri: format!("https://v.example/{name}"), digest: digest(name) }
}

fn vsa() -> Vsa {
    Vsa {
        ak_public: digest("ak"),
        quote: digest("quote"),
        node: "spiffe://b.example/node/n1".parse().expect("an ID"),
        verifier: VerifierId {
            id: "spiffe://b.example/results".to_owned(),
            version: BTreeMap::from([("assay".to_owned(), "0.1.0".to_owned())]),
        },
        time_verified: UnixTime::from_unix_s(1_795_759_200).expect("a time"),
        policy: reference("policy"),
        input_attestations: vec![reference("case"), reference("golden")],
        result: Verdict::Passed,
        levels: vec!["ASSAY_BOOT".to_owned(), "ASSAY_TOOLS".to_owned()],
    }
}

fn dispatch() -> Dispatch {
    let claim = Claim { source: ClaimSource::PlatformToken, value: "acme/app".to_owned() };
    Dispatch {
        job: JobClaims {
            claims: BTreeMap::from([("repository".to_owned(), claim)]),
            system: "github".to_owned(),
        },
        git_commit: Some("a".repeat(40)),
        job_key: digest("key"),
        quote: digest("quote"),
        vsa: digest("vsa"),
        tools: vec![Tool {
            name: "gcc".to_owned(),
            version: "12".to_owned(),
            purl: "pkg:deb/debian/gcc@12".to_owned(),
            digest: digest("gcc"),
        }],
        producer: "spiffe://b.example/results".to_owned(),
        permit_id: "p-1".to_owned(),
        node: "spiffe://b.example/node/n1".parse().expect("an ID"),
        pool: "release".to_owned(),
        expires: UnixTime::from_unix_s(1_795_759_500).expect("a time"),
    }
}

fn text(statement: &impl Predicate) -> String {
    String::from_utf8(statement.to_json().expect("a statement")).expect("UTF-8")
}

fn code(text: &str) -> Code {
    Statement::parse(text.as_bytes()).expect_err("it is refused").code()
}

#[test]
fn a_vsa_has_the_fields_of_its_specification_in_one_order() {
    let [ak, quote, policy, case, golden] = ["ak", "quote", "policy", "case", "golden"].map(digest);
    let expected = format!(
        concat!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":["#,
            r#"{{"name":"ak-public","digest":{{"sha256":"{}"}}}},"#,
            r#"{{"name":"quote","digest":{{"sha256":"{}"}}}}],"#,
            r#""predicateType":"https://slsa.dev/verification_summary/v1","predicate":{{"#,
            r#""verifier":{{"id":"spiffe://b.example/results","version":{{"assay":"0.1.0"}}}},"#,
            r#""timeVerified":"2026-11-27T06:00:00Z","resourceUri":"spiffe://b.example/node/n1","#,
            r#""policy":{{"uri":"https://v.example/policy","digest":{{"sha256":"{}"}}}},"#,
            r#""inputAttestations":["#,
            r#"{{"uri":"https://v.example/case","digest":{{"sha256":"{}"}}}},"#,
            r#"{{"uri":"https://v.example/golden","digest":{{"sha256":"{}"}}}}],"#,
            r#""verificationResult":"PASSED","verifiedLevels":["ASSAY_BOOT","ASSAY_TOOLS"]}}}}"#
        ),
        ak, quote, policy, case, golden
    );
    assert_eq!(text(&vsa()), expected);
    assert_eq!(Statement::parse(expected.as_bytes()), Ok(Statement::Vsa(vsa())));
    let failed = Vsa { result: Verdict::Failed, levels: Vec::new(), ..vsa() };
    assert_eq!(Vsa::parse(text(&failed).as_bytes()), Ok(failed));
}

#[test]
fn a_dispatch_has_the_fields_of_its_specification_in_one_order() {
    let build = dispatch().job.build_id();
    assert_eq!(
        build,
        digest(concat!(
            r#"{"claims":{"repository":{"source":"platform-token","value":"acme/app"}},"#,
            r#""system":"github"}"#
        ))
    );
    let [key, quote, vsa, gcc] = ["key", "quote", "vsa", "gcc"].map(digest);
    let commit = "a".repeat(40);
    let expected = format!(
        concat!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":["#,
            r#"{{"name":"build","digest":{{"sha256":"{}"}}}},"#,
            r#"{{"name":"job-key","digest":{{"sha256":"{}"}}}},"#,
            r#"{{"name":"source","digest":{{"gitCommit":"{}"}}}}],"#,
            r#""predicateType":"https://in-toto.io/attestation/scai/v0.3","predicate":{{"#,
            r#""attributes":[{{"attribute":"BUILD_DISPATCHED_TO_ATTESTED_NODE","conditions":{{"#,
            r#""expires":"2026-11-27T06:05:00Z","#,
            r#""job":{{"claims":{{"repository":{{"source":"platform-token","value":"acme/app"}}}},"#,
            r#""system":"github"}},"nodeId":"spiffe://b.example/node/n1","#,
            r#""permitId":"p-1","pool":"release"}},"#,
            r#""evidence":{{"name":"quote","digest":{{"sha256":"{}"}}}}}},"#,
            r#"{{"attribute":"NODE_VERIFICATION_PASSED","#,
            r#""evidence":{{"name":"vsa","digest":{{"sha256":"{}"}}}}}},"#,
            r#"{{"attribute":"TOOL_DIGEST_MATCHED","#,
            r#""target":{{"name":"gcc","uri":"pkg:deb/debian/gcc@12","#,
            r#""digest":{{"sha256":"{}"}},"annotations":{{"version":"12"}}}}}}],"#,
            r#""producer":{{"uri":"spiffe://b.example/results"}}}}}}"#
        ),
        build, key, commit, quote, vsa, gcc
    );
    assert_eq!(text(&dispatch()), expected);
    assert_eq!(Statement::parse(expected.as_bytes()), Ok(Statement::Dispatch(dispatch())));
    let least = Dispatch { git_commit: None, tools: Vec::new(), ..dispatch() };
    assert_eq!(Dispatch::parse(text(&least).as_bytes()), Ok(least));
}

#[test]
fn unknown_statements_and_predicates_are_refused() {
    let good = text(&vsa());
    for (from, to) in [
        ("Statement/v1", "Statement/v0.1"),
        ("verification_summary/v1", "verification_summary/v2"),
        ("verification_summary/v1", "provenance/v1"),
    ] {
        let text = good.replace(from, to);
        assert_eq!(code(&text), Code::PredicateUnknown, "{to}");
        assert_eq!(
            Vsa::parse(text.as_bytes()).err().map(|e| e.code()),
            Some(Code::PredicateUnknown)
        );
    }
    // Known, but not what was asked for.
    let other = Dispatch::parse(good.as_bytes()).expect_err("a VSA").code();
    assert_eq!(other, Code::PredicateUnknown);
}

#[test]
fn what_is_no_statement_is_refused() {
    let good = text(&vsa());
    let rows = [
        (String::new(), "nothing"),
        ("[]".to_owned(), "no object"),
        (format!("{good} "), "white space"),
        (good.replacen(',', ", ", 1), "white space"),
        (good.replacen("\"policy\":", "\"extra\":1,\"policy\":", 1), "another field"),
        (good.replacen("{\"sha256\":", "{\"sha256\":\"x\",\"sha256\":", 1), "a key twice"),
        (good.replacen("PASSED", "passed", 1), "another verdict"),
        (good.replacen("2026-11-27T06:00:00Z", "2026-11-27T06:00:00+00:00", 1), "another time"),
        (good.replacen("ak-public", "\\u0061k-public", 1), "another spelling"),
        (good.replacen("spiffe://b.example/node/n1", "spiffe://b.example", 1), "no node"),
    ];
    for (text, what) in rows {
        assert_eq!(code(&text), Code::Malformed, "{what}");
    }
    let large = "x".repeat(MAX_STATEMENT_BYTES + 1);
    assert_eq!(code(&large), Code::TooLarge);
}

#[test]
fn what_a_vsa_must_not_say_is_neither_written_nor_read() {
    type Change = fn(&mut Vsa);
    let rows: [(&str, Change); 12] = [
        ("a level of SLSA", |vsa| vsa.levels = vec!["SLSA_BUILD_LEVEL_3".to_owned()]),
        ("a prefix alone", |vsa| vsa.levels = vec![LEVEL_PREFIX.to_owned()]),
        ("lower case", |vsa| vsa.levels = vec!["ASSAY_boot".to_owned()]),
        ("another order", |vsa| vsa.levels.reverse()),
        ("a level twice", |vsa| vsa.levels = vec!["ASSAY_BOOT".to_owned(); 2]),
        ("levels of who failed", |vsa| vsa.result = Verdict::Failed),
        ("no evidence", |vsa| vsa.input_attestations.clear()),
        ("no URI of the policy", |vsa| vsa.policy.uri = "policy".to_owned()),
        ("spaces in a URI", |vsa| vsa.policy.uri = "https://a b".to_owned()),
        ("no URI of an input", |vsa| vsa.input_attestations[0].uri.clear()),
        ("no URI of the verifier", |vsa| vsa.verifier.id = ":x".to_owned()),
        ("control characters", |vsa| {
            vsa.verifier.version.insert("assay".to_owned(), "\u{1b}[2J".to_owned());
        }),
    ];
    for (what, change) in rows {
        let mut vsa = vsa();
        change(&mut vsa);
        assert_eq!(vsa.to_json().expect_err(what).code(), Code::StatementInvalid, "{what}");
    }
    let good = text(&vsa());
    for (from, to) in [
        ("ASSAY_BOOT", "SLSA_BOOT"),
        ("PASSED", "FAILED"),
        ("\"ak-public\"", "\"quote\""),
        ("\"name\":\"ak-public\"", "\"name\":\"ak-public\",\"uri\":\"x:y\""),
        ("\"sha256\"", "\"sha512\""),
    ] {
        assert_eq!(code(&good.replacen(from, to, 1)), Code::StatementInvalid, "{to}");
    }
    let many = Vsa { input_attestations: vec![reference("x"); MAX_REFERENCES + 1], ..vsa() };
    assert_eq!(many.to_json().expect_err("too many").code(), Code::TooLarge);
    let long = Vsa {
        policy: PolicyRef { uri: format!("x:{}", "y".repeat(MAX_TEXT_BYTES)), ..reference("x") },
        ..vsa()
    };
    assert_eq!(long.to_json().expect_err("too long").code(), Code::TooLarge);
}

#[test]
fn what_a_dispatch_must_not_say_is_neither_written_nor_read() {
    type Change = fn(&mut Dispatch);
    let rows: [(&str, Change); 11] = [
        ("an abbreviated commit", |d| d.git_commit = Some("abcdef0".to_owned())),
        ("an upper-case commit", |d| d.git_commit = Some("A".repeat(40))),
        ("a tool without name", |d| d.tools[0].name.clear()),
        ("a tool without version", |d| d.tools[0].version.clear()),
        ("a tool that is no package", |d| d.tools[0].purl = "https://x/y".to_owned()),
        ("a tool twice", |d| d.tools.push(d.tools[0].clone())),
        ("an upper-case claim", |d| {
            let claim = d.job.claims["repository"].clone();
            d.job.claims.insert("Repository".to_owned(), claim);
        }),
        ("an empty claim", |d| d.job.claims.get_mut("repository").expect("it").value.clear()),
        ("no system", |d| d.job.system.clear()),
        ("no permit", |d| d.permit_id.clear()),
        ("a pool that is a path", |d| d.pool = "a/b".to_owned()),
    ];
    for (what, change) in rows {
        let mut dispatch = dispatch();
        change(&mut dispatch);
        assert_eq!(dispatch.to_json().expect_err(what).code(), Code::StatementInvalid, "{what}");
    }
    let good = text(&dispatch());
    let build = dispatch().job.build_id().to_string();
    for (from, to) in [
        ("acme/app", "acme/fork"),
        (build.as_str(), &digest("another").to_string()),
        ("\"name\":\"job-key\"", "\"name\":\"job\""),
        ("NODE_VERIFICATION_PASSED", "NODE_VERIFICATION_FAILED"),
        ("BUILD_DISPATCHED", "BUILD_QUEUED"),
        ("TOOL_DIGEST_MATCHED", "TOOL_PRESENT"),
        ("\"name\":\"vsa\"", "\"name\":\"vsa2\""),
        ("\"gitCommit\"", "\"gitTree\""),
        ("\"version\":\"12\"", "\"version\":\"12\",\"x\":\"y\""),
    ] {
        assert_eq!(code(&good.replacen(from, to, 1)), Code::StatementInvalid, "{to}");
    }
    // A claim that was changed is named as such.
    let changed = Dispatch::parse(good.replacen("acme/app", "acme/fork", 1).as_bytes());
    assert_eq!(changed.expect_err("refused").subject(), "subject build");
    assert_eq!(code(&good.replacen("platform-token", "rumour", 1)), Code::Malformed);
    let tool = |n: usize| Tool { name: format!("{n:04}"), ..dispatch().tools[0].clone() };
    let many = |count| Dispatch { tools: (0..count).map(tool).collect(), ..dispatch() };
    let full = many(MAX_TOOLS);
    assert_eq!(Dispatch::parse(text(&full).as_bytes()), Ok(full));
    assert_eq!(many(MAX_TOOLS + 1).to_json().expect_err("too many").code(), Code::TooLarge);
}

#[test]
fn provenance_has_each_part_in_its_place() {
    let parts = slsa::provenance_parts(&dispatch(), &digest("dispatch"));
    let parts: serde_json::Value = serde_json::from_str(&parts).expect("JSON");
    let sha256 = |path: &str| parts.pointer(path).cloned().unwrap_or_default();
    for (path, expected) in [
        ("/runDetails/builder/builderDependencies/0/digest/sha256", digest("vsa").to_string()),
        ("/runDetails/byproducts/0/digest/sha256", digest("dispatch").to_string()),
        ("/runDetails/byproducts/0/mediaType", "application/vnd.in-toto+json".to_owned()),
        ("/buildDefinition/resolvedDependencies/0/digest/sha256", digest("gcc").to_string()),
        ("/buildDefinition/resolvedDependencies/0/uri", "pkg:deb/debian/gcc@12".to_owned()),
        ("/buildDefinition/internalParameters/assay/nodeId", "spiffe://b.example/node/n1".into()),
        ("/buildDefinition/internalParameters/assay/pool", "release".to_owned()),
    ] {
        assert_eq!(sha256(path), serde_json::Value::from(expected), "{path}");
    }
}
