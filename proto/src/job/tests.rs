use super::*;

const COMMIT: &str = "9f3182061f1e2cca4702c368cbc039b7dc9d4485";

fn github() -> Vec<(&'static str, &'static str)> {
    vec![
        ("GITHUB_RUN_ID", "22259804324"),
        ("GITHUB_RUN_ATTEMPT", "1"),
        ("GITHUB_JOB", "build"),
        ("GITHUB_REPOSITORY", "acme/app"),
        ("GITHUB_SHA", COMMIT),
        ("GITHUB_WORKFLOW_REF", "acme/app/.github/workflows/ci.yml@refs/heads/main"),
        ("GITHUB_ACTOR", "not read"),
    ]
}

fn map(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn text(system: CiSystem, variables: &[(&str, &str)]) -> String {
    from_environment(system, &map(variables)).expect("claims").canonical_json()
}

#[test]
fn every_system_has_its_variables() {
    assert_eq!(
        text(CiSystem::GitHub, &github()),
        format!(
            r#"{{"attempt":"1","commit":"{COMMIT}","job":"build","repository":"acme/app","run_id":"22259804324","system":"github","workflow":"acme/app/.github/workflows/ci.yml@refs/heads/main"}}"#
        )
    );
    let gitlab = [
        ("CI_PIPELINE_ID", "1519139981"),
        ("CI_JOB_ID", "8222997048"),
        ("CI_PROJECT_PATH", "acme/app"),
        ("CI_COMMIT_SHA", COMMIT),
        ("CI_CONFIG_PATH", ".gitlab-ci.yml"),
    ];
    let expected = format!(
        r#"{{"commit":"{COMMIT}","job":"8222997048","repository":"acme/app","run_id":"1519139981","system":"gitlab","workflow":".gitlab-ci.yml"}}"#
    );
    assert_eq!(text(CiSystem::GitLab, &gitlab), expected);
    let custom: Vec<_> =
        gitlab.iter().map(|(name, value)| (format!("CUSTOM_ENV_{name}"), *value)).collect();
    let mut custom: Vec<_> = custom.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    // The executor's own variables are not the job's.
    custom.push(("CI_JOB_ID", "1"));
    custom.push(("CI_PIPELINE_ID", "1"));
    assert_eq!(text(CiSystem::GitLab, &custom), expected);
    assert_eq!(
        text(
            CiSystem::Buildkite,
            &[
                ("BUILDKITE_BUILD_ID", "b1"),
                ("BUILDKITE_JOB_ID", "j1"),
                ("BUILDKITE_RETRY_COUNT", "0"),
                ("BUILDKITE_REPO", "git@git.example.org:acme/app.git"),
                ("BUILDKITE_COMMIT", COMMIT),
                ("BUILDKITE_PIPELINE_SLUG", "app"),
            ]
        ),
        format!(
            r#"{{"attempt":"0","commit":"{COMMIT}","job":"j1","repository":"git@git.example.org:acme/app.git","run_id":"b1","system":"buildkite","workflow":"app"}}"#
        )
    );
    assert_eq!(
        text(
            CiSystem::Jenkins,
            &[
                ("BUILD_TAG", "jenkins-app-7"),
                ("JOB_NAME", "app"),
                ("BUILD_NUMBER", "7"),
                ("GIT_COMMIT", ""),
            ]
        ),
        r#"{"job":"jenkins-app-7","run_id":"7","system":"jenkins","workflow":"app"}"#
    );
    assert_eq!(
        text(
            CiSystem::Tekton,
            &[
                ("ASSAY_TEKTON_PIPELINE_RUN_UID", "p"),
                ("ASSAY_TEKTON_TASK_RUN_UID", "t"),
                ("ASSAY_TEKTON_RETRY_COUNT", "2"),
                ("ASSAY_TEKTON_PIPELINE", "build"),
                ("ASSAY_TEKTON_REPOSITORY", "https://git.example.org/app"),
                ("ASSAY_TEKTON_COMMIT", COMMIT),
            ]
        ),
        format!(
            r#"{{"attempt":"2","commit":"{COMMIT}","job":"t","repository":"https://git.example.org/app","run_id":"p","system":"tekton","workflow":"build"}}"#
        )
    );
    assert_eq!(
        text(CiSystem::Generic, &[("ASSAY_JOB_RUN_ID", "r"), ("ASSAY_JOB_ID", "j")]),
        r#"{"job":"j","run_id":"r","system":"generic"}"#
    );
}

#[test]
fn a_required_variable_that_is_missing_is_named() {
    for system in CiSystem::ALL {
        let all: Vec<_> = variables(system)
            .iter()
            .map(|variable| {
                let value = if variable.claim == JobClaim::Commit { COMMIT } else { "1" };
                (variable.name, value)
            })
            .collect();
        let claims = from_environment(system, &map(&all)).expect("claims");
        assert_eq!(claims.system(), system);
        assert_eq!(claims.iter().count(), variables(system).len());
        assert!(claims.iter().all(|(_, claim)| claim.source() == Source::Environment));
        for variable in variables(system) {
            for value in [None, Some("")] {
                let mut some = map(&all);
                some.remove(variable.name);
                some.extend(value.map(|value| (variable.name.to_owned(), value.to_owned())));
                let expected = if variable.is_required {
                    Err(JobError::Missing { claim: variable.claim, variable: Some(variable.name) })
                } else {
                    Ok(None)
                };
                let found = from_environment(system, &some)
                    .map(|claims| claims.value(variable.claim).map(str::to_owned));
                assert_eq!(found, expected, "{system} {}", variable.name);
            }
        }
        let mut required: Vec<_> =
            variables(system).iter().filter(|v| v.is_required).map(|v| v.claim).collect();
        required.retain(|claim| claim.is_required());
        assert_eq!(required.len(), 2, "{system} tells its jobs apart");
    }
}

#[test]
fn values_are_bounded_text() {
    let judged = |name: &str, value: &str| {
        let mut variables = map(&github());
        variables.insert(name.to_owned(), value.to_owned());
        from_environment(CiSystem::GitHub, &variables).map_or_else(|error| error.code(), |_| "good")
    };
    let long = "r".repeat(MAX_CLAIM_BYTES);
    for (name, value, expected) in [
        ("GITHUB_REPOSITORY", long.as_str(), "good"),
        ("GITHUB_REPOSITORY", &format!("{long}r"), "JOB_CLAIM_INVALID"),
        ("GITHUB_REPOSITORY", "acme/äpp \"x\\y\"", "good"),
        ("GITHUB_REPOSITORY", "acme\napp", "JOB_CLAIM_INVALID"),
        ("GITHUB_REPOSITORY", "acme\u{7f}app", "JOB_CLAIM_INVALID"),
        ("GITHUB_REPOSITORY", "acme\u{85}app", "JOB_CLAIM_INVALID"),
        ("GITHUB_JOB", "a\0", "JOB_CLAIM_INVALID"),
        ("GITHUB_SHA", &"a".repeat(64), "good"),
        ("GITHUB_SHA", &"a".repeat(41), "JOB_CLAIM_INVALID"),
        ("GITHUB_SHA", &"A".repeat(40), "JOB_CLAIM_INVALID"),
        ("GITHUB_SHA", &"g".repeat(40), "JOB_CLAIM_INVALID"),
        ("GITHUB_SHA", "HEAD", "JOB_CLAIM_INVALID"),
        ("GITHUB_RUN_ATTEMPT", "9999999999", "good"),
        ("GITHUB_RUN_ATTEMPT", "10000000000", "JOB_CLAIM_INVALID"),
        ("GITHUB_RUN_ATTEMPT", "01", "JOB_CLAIM_INVALID"),
        ("GITHUB_RUN_ATTEMPT", "-1", "JOB_CLAIM_INVALID"),
        ("GITHUB_RUN_ATTEMPT", "one", "JOB_CLAIM_INVALID"),
    ] {
        assert_eq!(judged(name, value), expected, "{name}={value}");
    }
}

#[test]
fn claims_have_one_encoding() {
    let mut variables = map(&github());
    variables.insert("GITHUB_JOB".to_owned(), "a \"b\\c\" é 😀".to_owned());
    let claims = from_environment(CiSystem::GitHub, &variables).expect("claims");
    let text = claims.canonical_json();
    assert!(text.contains(r#""job":"a \"b\\c\" é 😀""#), "{text}");
    // An encoder of others gives the same bytes for the same members.
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value.to_string(), text);
    let read = JobClaims::from_canonical_json(text.as_bytes(), Source::Environment);
    assert_eq!(read.as_ref(), Ok(&claims));
    let code = |text: &str| {
        JobClaims::from_canonical_json(text.as_bytes(), Source::Environment)
            .map_or_else(|error| error.code(), |_| "read")
    };
    for (text, expected) in [
        (r#"{"job":"j","run_id":"r","system":"generic"}"#, "read"),
        (r#"{"job":"j", "run_id":"r","system":"generic"}"#, "JOB_ENCODING_INVALID"),
        (r#"{"run_id":"r","job":"j","system":"generic"}"#, "JOB_ENCODING_INVALID"),
        (r#"{"job":"j","job":"j","run_id":"r","system":"generic"}"#, "JOB_ENCODING_INVALID"),
        (r#"{"job":"\u006a","run_id":"r","system":"generic"}"#, "JOB_ENCODING_INVALID"),
        (r#"{"job":"j","own":"x","run_id":"r","system":"generic"}"#, "JOB_ENCODING_INVALID"),
        (r#"{"job":1,"run_id":"r","system":"generic"}"#, "JOB_ENCODING_INVALID"),
        (r#"{"job":"j","run_id":"r"}"#, "JOB_ENCODING_INVALID"),
        (r#"{"job":"j","run_id":"r","system":"generic"} "#, "JOB_ENCODING_INVALID"),
        ("[]", "JOB_ENCODING_INVALID"),
        (r#"{"job":"j","run_id":"r","system":"other"}"#, "JOB_SYSTEM_UNKNOWN"),
        (r#"{"job":"j","system":"generic"}"#, "JOB_CLAIM_MISSING"),
        (r#"{"job":"","run_id":"r","system":"generic"}"#, "JOB_CLAIM_INVALID"),
    ] {
        assert_eq!(code(text), expected, "{text}");
    }
    assert_eq!(code(&" ".repeat(MAX_JOB_CLAIMS_BYTES + 1)), "JOB_ENCODING_INVALID");
    // The largest claims there can be still fit.
    let largest = JobClaims::new(
        CiSystem::Buildkite,
        JobClaim::ALL.map(|claim| {
            let value = match claim {
                JobClaim::Attempt => "1".to_owned(),
                JobClaim::Commit => "a".repeat(64),
                _ => "\"".repeat(MAX_CLAIM_BYTES),
            };
            (claim, value, Source::Environment)
        }),
    );
    let largest = largest.expect("claims").canonical_json();
    assert!(largest.len() <= MAX_JOB_CLAIMS_BYTES, "{}", largest.len());
    assert_eq!(code(&largest), "read");
}

#[test]
fn the_digest_is_of_values_and_not_of_sources() {
    let claims = from_environment(CiSystem::GitHub, &map(&github())).expect("claims");
    let text = claims.canonical_json();
    assert_eq!(claims.digest(), HashAlg::Sha256.hash(&[text.as_bytes()]));
    let told = JobClaims::from_canonical_json(text.as_bytes(), Source::PlatformToken);
    let told = told.expect("claims");
    assert_ne!(told, claims);
    assert_eq!(told.digest(), claims.digest());
    let mut other = map(&github());
    other.insert("GITHUB_RUN_ATTEMPT".to_owned(), "2".to_owned());
    let other = from_environment(CiSystem::GitHub, &other).expect("claims");
    assert_ne!(other.digest(), claims.digest());
}

#[test]
fn a_claim_is_made_once() {
    let job = || (JobClaim::Job, "j".to_owned(), Source::Environment);
    let run = || (JobClaim::RunId, "r".to_owned(), Source::Environment);
    JobClaims::new(CiSystem::Generic, [job(), run()]).expect("claims");
    let error = JobClaims::new(CiSystem::Generic, [job(), run(), job()]).expect_err("twice");
    assert_eq!(error, JobError::Twice { claim: JobClaim::Job });
    let error = JobClaims::new(CiSystem::Generic, [job()]).expect_err("no run");
    assert_eq!(error, JobError::Missing { claim: JobClaim::RunId, variable: None });
    for system in CiSystem::ALL {
        assert_eq!(system.as_str().parse(), Ok(system));
        let json = serde_json::to_string(&system).expect("JSON");
        assert_eq!(json, format!("\"{system}\""));
    }
}
