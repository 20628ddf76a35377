//! Site policy: its document, its findings, its cases, its properties.

mod site;

use appraisal::{
    policy::site::{Outcome, PolicyInput, SitePolicy, SitePolicyDocument, run_cases, schema},
    verdict::Finding,
};
use proptest::prelude::*;
use proto::reason::ReasonCode;
use serde_json::{Value, json};
use site::Site;

fn rule(name: &str, expr: &str) -> String {
    format!("[[rule]]\nname = {name:?}\nmessage = \"what to do\"\nexpr = '''{expr}'''\n")
}

fn text_of(rules: &[(&str, &str)]) -> String {
    let rules: String = rules.iter().map(|(name, expr)| rule(name, expr)).collect();
    format!("schema = \"assay.policy/v1\"\nname = \"p\"\nversion = 1\n{rules}")
}

#[track_caller]
fn policy(rules: &[(&str, &str)]) -> SitePolicy {
    SitePolicy::parse(&text_of(rules)).expect("a policy")
}

#[track_caller]
fn problems(text: &str) -> Vec<String> {
    let problems = SitePolicy::parse(text).expect_err("refused");
    problems.iter().map(ToString::to_string).collect()
}

fn json_input() -> Value {
    json!({
        "node": { "name": "w1", "pool": "linux" },
        "ek": { "digest": "sha256:00", "trust": "certificate", "root": "sha256:01", "oddities": [] },
        "tpm": {
            "manufacturer": "id:49465800", "manufacturer_name": "IFX", "model": "SLB 9670",
            "firmware_version": "0007005500110000", "clock_safe": true, "reset_count": 3, "restart_count": 0,
            "firmware": { "major": 7, "minor": 85, "build": 1_114_112, "dotted": "7.85.1114112" },
        },
        "pcrs": { "sha256": { "7": "07" } },
        "boot": {
            "secure_boot": true, "setup_mode": false, "debug_mode": false, "dma_protection_off": false,
            "applications": ["sha256:aa"], "sections": { ".linux": format!("sha256:{}", "ee".repeat(32)) },
            "command_lines": ["root=/dev/sda1 quiet"], "problems": [],
        },
        "tools": { "gcc": { "state": "present", "digest": "sha256:11", "version": "13.2.0" } },
        "ima": { "entries": 12, "violations": 0 },
    })
}

fn input() -> PolicyInput {
    PolicyInput::from_json(&json_input()).expect("an input")
}

#[test]
fn a_document_is_refused_with_every_problem() {
    let text = "schema = \"assay.policy/v2\"\nname = \"P\"\nversion = 0\npools = [\"\"]\n\
        [[rule]]\nname = \"a\"\nmessage = \"\"\nexpr = \"tmp.model == 'x'\"\n\
        [[rule]]\nname = \"a\"\nmessage = \"m\"\nexpr = \"true &&\\n  tpm.model\"\n\
        [[rule]]\nname = \"b\"\nmessage = \"m\"\nexpr = \"size(tools)\"\n\
        [[kernel]]\nversion = \"\"\ndigests = []\n";
    let found = problems(text);
    let starts = [
        "schema: \"assay.policy/v2\", expected \"assay.policy/v1\"",
        "name: \"P\": lower-case",
        "pools[0]: \"\": lower-case",
        "version: 0, the first version is 1",
        "kernel[0]: has a version",
        "rule[0].message: says what",
        "rule[0].expr (\"a\"), line 1, column 1: no field tmp; did you mean tpm?",
        "rule[1].name: \"a\" stands twice",
        "rule[1].expr (\"a\"), line 2, column 3: && takes a bool, not string",
        "rule[2].expr (\"b\"), line 1, column 1: a rule is a condition, this is int",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}");
    }
    assert!(problems("schema = 1")[0].starts_with("line 1, column 10"));
    let unknown = format!("{}\nseverity = 1\n", text_of(&[("a", "true")]));
    assert!(problems(&unknown)[0].contains("severity"));
    // One without rules lifts what stood before.
    assert_eq!(SitePolicy::parse(&text_of(&[])).expect("a policy").rules().count(), 0);
    let rules: Vec<String> = (0..65).map(|n| rule(&format!("r{n}"), "true")).collect();
    let many = format!("{}{}", text_of(&[]), rules.concat());
    assert!(problems(&many)[0].contains("at most 64"));
    let large = format!("{}#{}", text_of(&[("a", "true")]), "x".repeat(300_000));
    assert!(problems(&large)[0].contains("at most 262144"));
}

/// What cannot be used lifts nothing.
#[test]
fn a_policy_in_force_that_cannot_be_used_denies() {
    let sound = text_of(&[("a", "true")]);
    let (policy, found) = SitePolicy::in_force(&sound);
    assert_eq!((policy.judge(&input()), found), (Vec::new(), Vec::new()));
    let broken = sound.replace("version = 1", "version = 1\npools = [\"linux\"]");
    for (text, name, pools) in [
        (broken.replace("true", "node.name < 'x'"), "p", (true, false)),
        (sound.replace("true", "node.name < 'x'"), "p", (true, true)),
        ("no TOML".to_owned(), "unusable", (true, true)),
        ("x".repeat(300_000), "unusable", (true, true)),
    ] {
        let (policy, found) = SitePolicy::in_force(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((policy.applies_to("linux"), policy.applies_to("lab")), pools);
        let findings = policy.judge(&input());
        let told: Vec<_> = findings.iter().map(|it| (it.code, it.subject.as_str())).collect();
        let subject = format!("rule {name}/unusable");
        assert_eq!(told, [(ReasonCode::PolicyRuleFalse, subject.as_str())]);
        assert_eq!(*policy.digest(), site::sha256(text.as_bytes()));
    }
}

#[test]
fn a_policy_says_what_it_is() {
    let text = format!(
        "{}{}",
        "schema = \"assay.policy/v1\"\nname = \"p\"\nversion = 7\npools = [\"linux\"]\n",
        rule("a", "true")
    );
    let policy = SitePolicy::parse(&text).expect("a policy");
    assert_eq!((policy.name(), policy.version()), ("p", 7));
    assert_eq!(*policy.digest(), site::sha256(text.as_bytes()));
    assert!(policy.applies_to("linux") && !policy.applies_to("lab"));
    assert!(self::policy(&[("a", "true")]).applies_to("lab"), "no pools: every pool");
    let document: SitePolicyDocument = toml::from_str(&text).expect("a document");
    let again = toml::to_string(&document).expect("TOML");
    assert_eq!(toml::from_str::<SitePolicyDocument>(&again).expect("a document"), document);
}

#[test]
fn a_rule_that_is_not_true_is_a_finding() {
    let policy = policy(&[
        ("infineon", "tpm.manufacturer_name == 'IFX'"),
        ("floor", "version_at_least(tpm.firmware.dotted, '7.86')"),
        ("version", "tpm.version == 'id:0755'"),
        ("overflow", "tpm.reset_count + 9223372036854775807 > 0"),
        ("never", "false"),
    ]);
    let finding = |code, rule: &str, observed: &str| {
        Finding::new(code, format!("rule p/{rule}"), "what to do", observed)
    };
    assert_eq!(
        policy.judge(&input()),
        [
            finding(ReasonCode::PolicyRuleFalse, "floor", "tpm.firmware.dotted = \"7.85.1114112\""),
            finding(ReasonCode::PolicyRuleError, "version", "tpm.version is absent"),
            finding(
                ReasonCode::PolicyRuleError,
                "overflow",
                "integer overflow; tpm.reset_count = 3"
            ),
            finding(ReasonCode::PolicyRuleFalse, "never", "false, whatever the input"),
        ]
    );
    let outcomes: Vec<_> = policy.explain(&input()).into_iter().map(|rule| rule.outcome).collect();
    assert_eq!(
        outcomes,
        [Outcome::True, Outcome::False, Outcome::Error, Outcome::Error, Outcome::False]
    );
}

/// However large the input is, a finding is not.
#[test]
fn what_was_observed_is_bounded() {
    let mut json = json_input();
    json["boot"]["command_lines"] = (0..500).map(|n| format!("{n} {}", "ä".repeat(500))).collect();
    let input = PolicyInput::from_json(&json).expect("an input");
    let findings = policy(&[("r", "boot.command_lines.exists(l, l == '')")]).judge(&input);
    assert!(findings[0].observed.len() < 1_100, "{}", findings[0].observed.len());
}

#[test]
fn the_kernels_that_the_site_knows_give_the_version() {
    let known = |applications: Value, sections: Value| {
        let mut json = json_input();
        json["boot"]["applications"] = applications;
        json["boot"]["sections"] = sections;
        PolicyInput::from_json(&json).expect("an input")
    };
    let digest = |byte: &str| format!("sha256:{}", byte.repeat(32));
    let text = format!(
        "{}[[kernel]]\nversion = \"6.12.9\"\ndigests = [\"{}\", \"{}\"]\n[[kernel]]\nversion = \"6.1.0\"\ndigests = [\"{}\"]\n",
        text_of(&[("kernel", "version_at_least(boot.kernel_version, '6.12')")]),
        digest("aa"),
        digest("ab"),
        digest("bb"),
    );
    let policy = SitePolicy::parse(&text).expect("a policy");
    let codes = |input: &PolicyInput| -> Vec<ReasonCode> {
        policy.judge(input).iter().map(|finding| finding.code).collect()
    };
    assert_eq!(codes(&known(json!([digest("11"), digest("aa")]), json!({}))), []);
    assert_eq!(codes(&known(json!([]), json!({ ".linux": digest("ab") }))), []);
    assert_eq!(codes(&known(json!([digest("aa")]), json!({ ".linux": digest("ab") }))), []);
    assert_eq!(codes(&known(json!([digest("bb")]), json!({}))), [ReasonCode::PolicyRuleFalse]);
    assert_eq!(codes(&known(json!([digest("cc")]), json!({}))), [ReasonCode::PolicyRuleError]);
    // What was started after it runs, whatever it is, unless it is the kernel inside of a unified image.
    for applications in
        [json!([digest("aa"), digest("cc")]), json!([digest("aa"), digest("11"), digest("cc")])]
    {
        assert_eq!(codes(&known(applications, json!({}))), [ReasonCode::PolicyRuleError]);
    }
    assert_eq!(codes(&known(json!([digest("11")]), json!({ ".linux": digest("ab") }))), []);
    assert_eq!(
        codes(&known(json!([digest("aa"), digest("11")]), json!({ ".linux": digest("ab") }))),
        []
    );
    let two_of_one_version = json!([digest("aa"), digest("11"), digest("ab")]);
    assert_eq!(codes(&known(two_of_one_version, json!({}))), []);
    // Nobody says which of the two runs.
    for (applications, sections) in [
        (json!([digest("aa"), digest("bb")]), json!({})),
        (json!([digest("bb"), digest("aa")]), json!({})),
        (json!([digest("aa"), digest("bb"), digest("aa")]), json!({})),
        (json!([digest("bb"), digest("11")]), json!({ ".linux": digest("ab") })),
        (json!([digest("aa")]), json!({ ".linux": digest("bb") })),
    ] {
        let input = known(applications, sections);
        assert_eq!(codes(&input), [ReasonCode::PolicyRuleError], "{input:?}");
    }
    // Nor what was started at all, where no log leads to PCR 4.
    let mut json = json_input();
    json["boot"]["sections"] = json!({ ".linux": digest("ab") });
    let input = |json: &Value| PolicyInput::from_json(json).expect("an input");
    assert_eq!(codes(&input(&json)), []);
    json["boot"].as_object_mut().expect("an object").remove("applications");
    assert_eq!(codes(&input(&json)), [ReasonCode::PolicyRuleError]);
    let twice = text.replace(&digest("ab"), &digest("aa"));
    assert!(problems(&twice)[0].contains("stands twice"));
}

/// What a real appraisal proves, as rules see it.
#[test]
fn the_input_of_an_appraisal() {
    let site = Site::new();
    let proven = site.enrol();
    let input = PolicyInput::of(&proven.claims, &site.node);
    assert_eq!(input, PolicyInput::of(&proven.claims, &site.node));
    let json = serde_json::to_value(&input).expect("JSON");
    assert_eq!(json["node"], json!({ "name": "w1", "pool": "linux" }));
    assert_eq!(json["ek"]["trust"], "allow-listed");
    assert_eq!(json["tpm"]["firmware"]["dotted"], "1.2.196612");
    assert_eq!(json["tools"]["cc"]["version"], "1.0");
    assert_eq!(json["tools"]["cc"]["state"], "present");
    assert_eq!(json["pcrs"]["sha256"]["7"].as_str().map(str::len), Some(64));
    assert!(json["boot"].is_null() && json["tpm"]["manufacturer"].is_null());
    // What is recorded gives the same, and reads back.
    let recorded = serde_json::to_string(&proven.claims.document()).expect("JSON");
    let recorded = serde_json::from_str(&recorded).expect("a document");
    assert_eq!(PolicyInput::of_document(&recorded, "w1", "linux"), input);
    assert_eq!(PolicyInput::from_json(&json).expect("of the schema"), input);
    let policy = policy(&[
        ("pool", "node.pool == 'linux'"),
        ("secure", "boot.secure_boot"),
        ("maker", "tpm.manufacturer == 'id:49465800'"),
    ]);
    let subjects: Vec<_> = policy.judge(&input).into_iter().map(|f| (f.code, f.subject)).collect();
    let error = ReasonCode::PolicyRuleError;
    assert_eq!(subjects, [(error, "rule p/secure".into()), (error, "rule p/maker".into())]);
}

#[test]
fn an_input_is_of_the_schema() {
    let wrong = json!({ "node": { "nam": "x", "pool": 1 }, "tools": { "a": { "state": [] } }, "boot": { "kernel_version": "6" } });
    let found: Vec<String> = PolicyInput::from_json(&wrong)
        .expect_err("refused")
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        found,
        [
            "input.node.nam: is not in the schema; did you mean name?",
            "input.node.pool: string expected",
            "input.tools.\"a\".state: string expected",
        ]
    );
    let derived = json!({ "boot": { "kernel_version": "6" } });
    assert!(PolicyInput::from_json(&derived).expect_err("refused")[0].what.contains("[[kernel]]"));
}

#[test]
fn cases_say_what_a_policy_says() {
    let policy = policy(&[("a", "node.pool == 'linux'"), ("b", "tpm.clock_safe")]);
    let toml = r#"
        [[case]]
        name = "good"
        input = { node = { name = "w", pool = "linux" }, tpm = { clock_safe = true } }
        expect = "allow"
        [[case]]
        name = "bad"
        input_file = "bad.json"
        expect = ["b", "a"]
        [[case]]
        name = "surprise"
        input = { node = { name = "w", pool = "linux" } }
        expect = "allow"
    "#;
    let mut read = |name: &str| match name {
        "bad.json" => Ok(r#"{ "node": { "pool": "lab" } }"#.to_owned()),
        other => Err(format!("no file {other}")),
    };
    let results = run_cases(&policy, toml, &mut read).expect("cases");
    let passed: Vec<_> =
        results.iter().map(|result| (result.case.as_str(), result.passed)).collect();
    assert_eq!(passed, [("good", true), ("bad", true), ("surprise", false)]);
    assert_eq!(results[2].denied, ["b"]);
    assert_eq!(results[2].findings[0].observed, "tpm is absent");
    let json = r#"{ "case": [{ "name": "x", "input": {}, "input_file": "y", "expect": "allow" },
        { "name": "y", "input": {}, "expect": ["c"] }, { "name": "z", "input_file": "w", "expect": "deny" }] }"#;
    let found = run_cases(&policy, json, &mut read).expect_err("refused");
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "case[0] (\"x\"): has either input or input_file",
            "case[1] (\"y\").expect: no rule \"c\"",
            "case[2] (\"z\").input_file: no file w",
            "case[2] (\"z\").expect: \"deny\": \"allow\", or a list of the rules that must deny",
        ]
    );
}

/// Every field that may be absent denies a rule that reads it then, whatever the rule says of it.
#[test]
fn a_rule_over_a_missing_value_denies() {
    let empty = PolicyInput::from_json(&json!({})).expect("an input");
    let is_value = |kind: &str| kind != "record" && !kind.starts_with("map");
    // Those of a job are read by rules about jobs alone.
    for field in schema().iter().filter(|field| is_value(&field.kind)) {
        if field.path.starts_with("job.") {
            continue;
        }
        let path = field.path.replace("[NAME]", "['x']");
        for expr in [format!("{path} == {path}"), format!("!({path} != {path})")] {
            let findings = policy(&[("r", &expr)]).judge(&empty);
            let codes: Vec<_> = findings.iter().map(|finding| finding.code).collect();
            assert_eq!(codes, [ReasonCode::PolicyRuleError], "{expr}");
        }
    }
}

/// Conditions over fields that are there, that are not, and that have another type than expected never.
fn condition() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "true",
        "false",
        "node.pool == 'linux'",
        "node.name.startsWith('w')",
        "tpm.version == 'x'",
        "tpm.clock_safe",
        "tpm.firmware.major > 7",
        "version_at_least(tpm.firmware.dotted, '7.85')",
        "version_at_least(boot.kernel_version, '1')",
        "has(tpm.version)",
        "has(boot.audit_mode)",
        "boot.audit_mode",
        "boot.secure_boot",
        "'gcc' in tools",
        "tools['cc'].state == 'present'",
        "tools['gcc'].purl == ''",
        "boot.applications[0] == 'sha256:aa'",
        "boot.applications[7] == ''",
        "1 / tpm.restart_count > 0",
        "boot.command_lines.all(l, l.contains('quiet'))",
        "tools.exists(t, tools[t].purl == '')",
        "tools.all(t, size(tools[t].version) > 2)",
        "boot.problems.exists_one(p, p == '')",
        "ima.refused == 0",
        "tpm.reset_count * 9223372036854775807 > 0",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(({a}) == ({b}))")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            inner.clone().prop_map(|a| format!("boot.applications.all(v, {a} || v == '')")),
            inner.prop_map(|a| format!("[1, 2].map(n, n + 1).exists(m, m == 3 && {a})")),
        ]
    })
    .prop_filter("two macros deep", |text| SitePolicy::parse(&text_of(&[("r", text)])).is_ok())
}

/// Field names of one of these fields taken away.
fn without(mut json: Value, path: &str) -> Value {
    let pointer = format!("/{}", path.replace('.', "/"));
    let (parent, key) = pointer.rsplit_once('/').expect("a path");
    if let Some(Value::Object(object)) = json.pointer_mut(parent) {
        object.remove(key);
    }
    json
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A policy only narrows: what denied before a rule was added denies after.
    #[test]
    fn another_rule_never_takes_a_finding_away(a in condition(), b in condition()) {
        let before = policy(&[("a", &a)]).judge(&input());
        let after = policy(&[("a", &a), ("b", &b)]).judge(&input());
        for finding in before {
            prop_assert!(after.contains(&finding), "{finding:?} is gone");
        }
    }

    /// The same policy and input give the same findings, and explaining agrees with judging.
    #[test]
    fn findings_are_deterministic(a in condition(), b in condition()) {
        let text = text_of(&[("a", &a), ("b", &b)]);
        let one = SitePolicy::parse(&text).expect("a policy");
        let two = SitePolicy::parse(&text).expect("a policy");
        prop_assert_eq!(one.judge(&input()), two.judge(&input()));
        let denied = one.explain(&input()).iter().filter(|rule| rule.outcome != Outcome::True).count();
        prop_assert_eq!(denied, one.judge(&input()).len());
    }

    /// Taking a value away never turns a denial into an admission, where no rule asks whether it is there.
    #[test]
    fn a_missing_value_never_admits(
        a in condition().prop_filter("asks", |text| !text.contains("has(") && !text.contains(" in ")),
        path in prop::sample::select(vec![
            "node.pool", "tpm.clock_safe", "tpm.firmware", "tpm.model", "boot", "boot.secure_boot",
            "boot.applications", "boot.command_lines", "boot.problems", "tools", "tpm.reset_count",
        ]),
    ) {
        let policy = policy(&[("a", &a)]);
        let less = PolicyInput::from_json(&without(json_input(), path)).expect("an input");
        if policy.judge(&less).is_empty() {
            prop_assert!(policy.judge(&input()).is_empty(), "{a} without {path}");
        }
    }

    /// An independent implementation of CEL gives the same value, or has none either.
    #[test]
    fn conditions_mean_what_they_mean_in_cel(a in condition()) {
        // The function of ours is none of CEL's.
        prop_assume!(!a.contains("version_at_least"));
        let ours = policy(&[("a", &a)]).explain(&input())[0].outcome;
        let program = cel::Program::compile(&a).expect("CEL");
        let mut context = cel::Context::default();
        let Value::Object(fields) = json_input() else { unreachable!("an object") };
        for (name, value) in fields {
            context.add_variable(name, value).expect("a value");
        }
        let theirs = match program.execute(&context) {
            Ok(cel::Value::Bool(true)) => Outcome::True,
            Ok(cel::Value::Bool(false)) => Outcome::False,
            _ => Outcome::Error,
        };
        prop_assert_eq!(ours, theirs, "{}", a);
    }

    /// No text makes a policy panic.
    #[test]
    fn any_text_is_refused_or_judged(text in "[ -~]{0,60}", a in condition(), at in 0_usize..80, b in any::<char>()) {
        let mut edited: Vec<char> = a.chars().collect();
        edited.insert(at.min(edited.len()), b);
        for expr in [text, edited.into_iter().collect()] {
            let document = toml::to_string(&json!({
                "schema": "assay.policy/v1", "name": "p", "version": 1,
                "rule": [{ "name": "r", "message": "m", "expr": expr }],
            })).expect("TOML");
            if let Ok(policy) = SitePolicy::parse(&document) {
                let met = policy.explain(&input())[0].outcome == Outcome::True;
                prop_assert_eq!(policy.judge(&input()).is_empty(), met);
            }
        }
    }
}

/// Rules about jobs are asked where one asks for a permit, and nowhere else; the others always.
#[test]
fn rules_about_jobs_are_asked_of_jobs() {
    let head = "schema = \"assay.policy/v1\"\nname = \"jobs\"\nversion = 1\npools = []\n";
    let rule = |name: &str, at: &str, expr: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\nmessage = \"As it should be.\"\n{at}expr = '{expr}'\n"
        )
    };
    let about_jobs = r#"job.sources["repository"] == "platform_token" && job.claims["repository"] == "acme/app""#;
    let problems = SitePolicy::parse(&(head.to_owned() + &rule("r", "", about_jobs)));
    let problems = problems.expect_err("not of every node");
    assert!(problems[0].what.contains("at = \"job\""), "{}", problems[0]);
    let text = head.to_owned()
        + &rule("repository", "at = \"job\"\n", about_jobs)
        + &rule("branch", "at = \"job\"\n", r#"job.token["reference"] == "refs/heads/main""#)
        + &rule("pool", "", r#"node.pool == "linux""#);
    let policy = SitePolicy::parse(&text).expect("a policy");
    let input = |job: serde_json::Value| {
        let mut input = serde_json::json!({ "node": { "name": "w1", "pool": "linux" } });
        if !job.is_null() {
            input["job"] = job;
        }
        PolicyInput::from_json(&input).expect("an input")
    };
    let codes = |job: serde_json::Value| -> Vec<String> {
        let findings = policy.judge(&input(job));
        findings.iter().map(|found| format!("{} {}", found.code, found.subject)).collect()
    };
    let none: [&str; 0] = [];
    assert_eq!(codes(serde_json::Value::Null), none);
    let job = |source: &str, repository: &str, token: serde_json::Value| {
        let mut job = serde_json::json!({
            "system": "github",
            "claims": { "repository": repository },
            "sources": { "repository": source },
        });
        if !token.is_null() {
            job["token"] = token;
        }
        job
    };
    let token = serde_json::json!({ "reference": "refs/heads/main" });
    assert_eq!(codes(job("platform_token", "acme/app", token.clone())), none);
    let of_another = codes(job("platform_token", "mallory/app", token.clone()));
    assert_eq!(of_another, ["POLICY_RULE_FALSE rule jobs/repository"]);
    let unproven = codes(job("environment", "acme/app", token));
    assert_eq!(unproven, ["POLICY_RULE_FALSE rule jobs/repository"]);
    let nothing = codes(serde_json::json!({}));
    let errors = ["POLICY_RULE_ERROR rule jobs/repository", "POLICY_RULE_ERROR rule jobs/branch"];
    assert_eq!(nothing, errors);
    // Without a token there is no branch: a missing value denies.
    let without = codes(job("environment", "acme/app", serde_json::Value::Null));
    let expected = ["POLICY_RULE_FALSE rule jobs/repository", "POLICY_RULE_ERROR rule jobs/branch"];
    assert_eq!(without, expected);
}
