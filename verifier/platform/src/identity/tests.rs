use jose::{
    Algorithm,
    testing::{NOW, Signer},
};
use serde_json::json;

use super::*;
use crate::{
    Platforms,
    config::PlatformConfig,
    testing::{AUDIENCE, COMMIT, claims, issuer, keys_of},
};

fn code(result: Result<PlatformIdentity, Refusal>) -> &'static str {
    result.map_or_else(|error| error.code(), |_| "accepted")
}

#[test]
fn reads_each_system_by_its_own_names() {
    let signer = Signer::rsa();
    let keys = keys_of(&[("k", &signer)]);
    let read = |system| {
        let token = signer.token(Algorithm::Rs256, "k", &claims(system));
        verify(&token, &issuer(system), &keys, NOW).expect("accepted")
    };
    let github = read(CiSystem::GitHub);
    assert_eq!(github.issuer, "https://token.actions.githubusercontent.com");
    assert_eq!(github.subject, "repo:acme/app:ref:refs/heads/main");
    assert_eq!(github.repository.as_deref(), Some("acme/app"));
    assert_eq!(github.reference, "refs/heads/main");
    assert_eq!(github.commit, COMMIT);
    assert_eq!(
        github.workflow.as_deref(),
        Some("acme/app/.github/workflows/ci.yml@refs/heads/main")
    );
    assert_eq!(github.run_id, "22259804324");
    assert_eq!(github.attempt.as_deref(), Some("1"));
    assert_eq!(github.job_id.as_deref(), Some("90000001"));
    assert_eq!(github.actor.as_deref(), Some("ada"));
    assert_eq!(github.environment, None);
    assert_eq!(github.token_id, "t-1");
    assert_eq!(github.expires_unix_s, NOW + 300);
    assert_eq!(github.key_id, "k");
    assert_eq!(github.other["runner_environment"], "self-hosted");
    assert_eq!(github.other["head_ref"], "");
    let gitlab = read(CiSystem::GitLab);
    assert_eq!(gitlab.repository.as_deref(), Some("acme/app"));
    assert_eq!(gitlab.reference, "main");
    assert_eq!(gitlab.run_id, "1519139981");
    assert_eq!(gitlab.job_id.as_deref(), Some("8222997048"));
    assert_eq!(gitlab.attempt, None);
    assert_eq!(gitlab.actor.as_deref(), Some("ada"));
    assert_eq!(gitlab.environment.as_deref(), Some("production"));
    assert_eq!(gitlab.other["runner_id"], 1);
    let buildkite = read(CiSystem::Buildkite);
    assert_eq!(buildkite.repository, None);
    assert_eq!(buildkite.reference, "refs/heads/main");
    assert_eq!(buildkite.run_id, "5");
    assert_eq!(buildkite.workflow.as_deref(), Some("app"));
    assert!(!buildkite.other.contains_key("step_key"), "null says that there is none");
    let mut tagged = claims(CiSystem::Buildkite);
    tagged["build_tag"] = "v1".into();
    let token = signer.token(Algorithm::Rs256, "k", &tagged);
    let tagged = verify(&token, &issuer(CiSystem::Buildkite), &keys, NOW).expect("accepted");
    assert_eq!(tagged.reference, "refs/tags/v1");
}

#[test]
fn required_claims_are_there_and_have_their_types() {
    let signer = Signer::rsa();
    let keys = keys_of(&[("k", &signer)]);
    for (system, required) in [
        (
            CiSystem::GitHub,
            &["sub", "jti", "repository", "ref", "sha", "workflow_ref", "run_id", "run_attempt"][..],
        ),
        (CiSystem::GitLab, &["sub", "jti", "project_path", "ref", "sha", "pipeline_id", "job_id"]),
        (
            CiSystem::Buildkite,
            &[
                "sub",
                "jti",
                "organization_slug",
                "pipeline_slug",
                "build_branch",
                "build_commit",
                "build_number",
                "job_id",
            ],
        ),
    ] {
        let judged = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
            let mut claims = claims(system);
            change(claims.as_object_mut().expect("an object"));
            let token = signer.token(Algorithm::Rs256, "k", &claims);
            verify(&token, &issuer(system), &keys, NOW)
        };
        assert_eq!(code(judged(&|_| {})), "accepted", "{system}");
        let optional: Vec<_> =
            claims(system).as_object().expect("an object").keys().cloned().collect();
        for name in required {
            for change in [None, Some(Value::Null), Some(json!(""))] {
                if *name == "build_number" && change == Some(json!("")) {
                    continue;
                }
                let refused = judged(&|claims| match &change {
                    None => drop(claims.remove(*name)),
                    Some(value) => drop(claims.insert((*name).to_owned(), value.clone())),
                });
                let refused = refused.expect_err(name);
                assert_eq!(refused.code(), "PLATFORM_CLAIM_MISSING", "{system} {name}");
                assert!(matches!(refused, Refusal::ClaimMissing(found) if found == *name));
            }
            let foreign = if *name == "build_number" { json!("5") } else { json!(5) };
            for value in [foreign, json!([1]), json!("a\nb"), json!("a".repeat(513)), json!(1.5)] {
                let refused =
                    judged(&|claims| drop(claims.insert((*name).to_owned(), value.clone())));
                assert_eq!(code(refused), "PLATFORM_TOKEN_MALFORMED", "{system} {name} {value}");
            }
        }
        // What is only read on the way has its type as well.
        for name in optional.iter().filter(|name| !required.contains(&name.as_str())) {
            let refused =
                judged(&|claims| drop(claims.insert(name.clone(), json!({"an": "object"}))));
            assert_eq!(code(refused), "PLATFORM_TOKEN_MALFORMED", "{system} {name}");
        }
        for (name, value) in [("sha", "HEAD"), ("build_commit", "HEAD"), ("run_attempt", "01")] {
            if required.contains(&name) {
                let refused = judged(&|claims| drop(claims.insert(name.to_owned(), value.into())));
                assert_eq!(code(refused), "PLATFORM_TOKEN_MALFORMED", "{system} {name}");
            }
        }
    }
}

#[test]
fn times_and_audience_have_their_codes() {
    let signer = Signer::rsa();
    let keys = keys_of(&[("k", &signer)]);
    let judged = |change: Value| {
        let mut claims = claims(CiSystem::GitHub);
        for (name, value) in change.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        let token = signer.token(Algorithm::Rs256, "k", &claims);
        code(verify(&token, &issuer(CiSystem::GitHub), &keys, NOW))
    };
    for (change, expected) in [
        (json!({}), "accepted"),
        (json!({"aud": [AUDIENCE]}), "accepted"),
        (json!({"aud": [AUDIENCE, "b"]}), "PLATFORM_AUDIENCE_MISMATCH"),
        (json!({"aud": "https://ASSAY.example.org"}), "PLATFORM_AUDIENCE_MISMATCH"),
        (json!({"aud": null}), "PLATFORM_TOKEN_MALFORMED"),
        (json!({"iat": NOW - 400, "nbf": NOW - 400, "exp": NOW - 59}), "accepted"),
        (json!({"iat": NOW - 400, "nbf": NOW - 400, "exp": NOW - 60}), "PLATFORM_TOKEN_EXPIRED"),
        (json!({"exp": "soon"}), "PLATFORM_TOKEN_MALFORMED"),
        (json!({"exp": 1.5}), "PLATFORM_TOKEN_MALFORMED"),
        (json!({"nbf": NOW + 60}), "accepted"),
        (json!({"nbf": NOW + 61}), "PLATFORM_TOKEN_NOT_YET_VALID"),
        (json!({"iat": NOW + 60}), "accepted"),
        (json!({"iat": NOW + 61}), "PLATFORM_TOKEN_NOT_YET_VALID"),
        (json!({"exp": NOW + 3600, "iat": NOW}), "accepted"),
        (json!({"exp": NOW + 3601, "iat": NOW}), "PLATFORM_TOKEN_LIFETIME_TOO_LONG"),
        (json!({"iss": "https://other.example"}), "PLATFORM_ISSUER_UNKNOWN"),
        (json!({"iss": 1}), "PLATFORM_TOKEN_MALFORMED"),
    ] {
        assert_eq!(judged(change.clone()), expected, "{change}");
    }
    for name in ["aud", "exp", "iss"] {
        let mut claims = claims(CiSystem::GitHub);
        claims.as_object_mut().expect("an object").remove(name);
        let token = signer.token(Algorithm::Rs256, "k", &claims);
        let refused = verify(&token, &issuer(CiSystem::GitHub), &keys, NOW);
        assert_eq!(code(refused), "PLATFORM_CLAIM_MISSING", "{name}");
    }
}

/// Two issuers with a key of the same name, and keys of their own.
#[test]
fn an_issuer_is_judged_by_its_own_keys_only() {
    let (github, gitlab) = (Signer::rsa(), Signer::rsa());
    let platforms = Platforms::new(vec![issuer(CiSystem::GitHub), issuer(CiSystem::GitLab)])
        .expect("two issuers");
    let [first, second] = platforms.all() else { unreachable!("two") };
    let document = keys_of(&[("same", &github), ("g", &github)]).to_json();
    first.keys().replace(document.as_bytes(), NOW).expect("keys");
    let document = keys_of(&[("same", &gitlab), ("l", &gitlab)]).to_json();
    second.keys().replace(document.as_bytes(), NOW).expect("keys");
    let judged = |signer: &Signer, key: &str, system| {
        let token = signer.token(Algorithm::Rs256, key, &claims(system));
        code(platforms.verify(&token, NOW))
    };
    for (signer, key, system, expected) in [
        (&github, "same", CiSystem::GitHub, "accepted"),
        (&github, "g", CiSystem::GitHub, "accepted"),
        (&gitlab, "same", CiSystem::GitLab, "accepted"),
        (&gitlab, "l", CiSystem::GitLab, "accepted"),
        (&gitlab, "same", CiSystem::GitHub, "PLATFORM_SIGNATURE_INVALID"),
        (&gitlab, "l", CiSystem::GitHub, "PLATFORM_KEY_UNKNOWN"),
        (&github, "same", CiSystem::GitLab, "PLATFORM_SIGNATURE_INVALID"),
        (&github, "g", CiSystem::GitLab, "PLATFORM_KEY_UNKNOWN"),
        (&github, "same", CiSystem::Buildkite, "PLATFORM_ISSUER_UNKNOWN"),
    ] {
        assert_eq!(judged(signer, key, system), expected, "{key} {system}");
    }
    // A name that only nearly is an issuer's.
    let mut nearly = claims(CiSystem::GitLab);
    for iss in ["https://gitlab.com/", "https://GITLAB.com", "http://gitlab.com", "gitlab.com", ""]
    {
        nearly["iss"] = iss.into();
        let token = gitlab.token(Algorithm::Rs256, "same", &nearly);
        assert_eq!(code(platforms.verify(&token, NOW)), "PLATFORM_ISSUER_UNKNOWN", "{iss}");
    }
    nearly["iss"] = Value::Null;
    let token = gitlab.token(Algorithm::Rs256, "same", &nearly);
    assert_eq!(code(platforms.verify(&token, NOW)), "PLATFORM_CLAIM_MISSING");
    assert_eq!(code(platforms.verify("a.b", NOW)), "PLATFORM_TOKEN_MALFORMED");
}

#[test]
fn algorithms_and_keys_are_those_that_are_allowed() {
    let (rsa, ec) = (Signer::rsa(), Signer::p256());
    let system = CiSystem::GitHub;
    let keys = keys_of(&[("rsa", &rsa), ("ec", &ec)]);
    let allowed = |algorithms: &[&str]| {
        let mut config = crate::testing::config(system);
        config.algorithms = Some(algorithms.iter().map(|&name| name.to_owned()).collect());
        Issuer::try_from(config).expect("an issuer")
    };
    let judged = |signer: &Signer, key: &str, algorithm, issuer: &Issuer| {
        let token = signer.token(algorithm, key, &claims(system));
        code(verify(&token, issuer, &keys, NOW))
    };
    let default = issuer(system);
    let both = allowed(&["RS256", "ES256"]);
    assert_eq!(judged(&rsa, "rsa", Algorithm::Rs256, &default), "accepted");
    assert_eq!(judged(&ec, "ec", Algorithm::Es256, &both), "accepted");
    let refused = "PLATFORM_ALGORITHM_NOT_ALLOWED";
    assert_eq!(judged(&ec, "ec", Algorithm::Es256, &default), refused);
    assert_eq!(judged(&rsa, "rsa", Algorithm::Ps256, &both), refused);
    assert_eq!(judged(&rsa, "ec", Algorithm::Rs256, &both), "PLATFORM_KEY_UNKNOWN");
    let header = r#"{"alg":"none","kid":"rsa"}"#;
    let token = rsa.token_of(Algorithm::Rs256, header, claims(system).to_string().as_bytes());
    assert_eq!(code(verify(&token, &default, &keys, NOW)), refused);
    // GitHub's header has a thumbprint, Buildkite's no `typ`.
    for header in
        [r#"{"alg":"RS256","kid":"rsa","typ":"JWT","x5t":"rsa"}"#, r#"{"alg":"RS256","kid":"rsa"}"#]
    {
        let token = rsa.token_of(Algorithm::Rs256, header, claims(system).to_string().as_bytes());
        assert_eq!(code(verify(&token, &default, &keys, NOW)), "accepted", "{header}");
    }
    let header = r#"{"alg":"RS256","kid":"rsa","jku":"https://evil.example/keys"}"#;
    let token = rsa.token_of(Algorithm::Rs256, header, claims(system).to_string().as_bytes());
    assert_eq!(code(verify(&token, &default, &keys, NOW)), "PLATFORM_TOKEN_MALFORMED");
}

#[test]
fn keys_are_loaded_good_and_not_too_old() {
    let (old, new) = (Signer::rsa(), Signer::rsa());
    let platforms = Platforms::new(vec![issuer(CiSystem::GitHub)]).expect("an issuer");
    let platform = &platforms.all()[0];
    let judged = |signer: &Signer, key: &str, loaded_s: i64| {
        let mut claims = claims(CiSystem::GitHub);
        for (name, at) in [("iat", 0), ("nbf", 0), ("exp", 300)] {
            claims[name] = (NOW + loaded_s + at).into();
        }
        let token = signer.token(Algorithm::Rs256, key, &claims);
        code(platforms.verify(&token, NOW + loaded_s))
    };
    assert_eq!(platform.keys().state(), None);
    assert_eq!(judged(&old, "old", 0), "PLATFORM_KEYS_UNAVAILABLE");
    let set = |keys: &[(&str, &Signer)]| keys_of(keys).to_json();
    let replace = |document: &str, now| {
        platform.keys().replace(document.as_bytes(), now).map_err(|error| error.code())
    };
    replace(&set(&[("old", &old)]), NOW).expect("keys");
    let day = 24 * 3600;
    assert_eq!(judged(&old, "old", 0), "accepted");
    assert_eq!(judged(&old, "old", day), "accepted");
    assert_eq!(judged(&old, "old", day + 1), "PLATFORM_KEYS_UNAVAILABLE");
    assert_eq!(judged(&old, "old", -day), "accepted", "the clock was put back");
    // Nothing of this replaces the good set.
    let encryption =
        keys_of(&[("e", &new)]).to_json().replace("\"kty\"", "\"use\":\"enc\",\"kty\"");
    let nameless = keys_of(&[("n", &new)]).to_json().replace("\"kid\":\"n\",", "");
    for (document, expected) in [
        ("", "JWK_SET_MALFORMED"),
        ("<html>", "JWK_SET_MALFORMED"),
        (r#"{"keys":[]}"#, "PLATFORM_KEYS_EMPTY"),
        (r#"{"keys":[{"kty":"OKP","kid":"x"}]}"#, "PLATFORM_KEYS_EMPTY"),
        (&set(&[("ec", &Signer::p256())]), "PLATFORM_KEYS_EMPTY"),
        (&encryption, "PLATFORM_KEYS_EMPTY"),
        (&nameless, "PLATFORM_KEYS_EMPTY"),
        (r#"{"keys":[{"kty":"RSA","kid":"x","n":"AA","e":"AQAB"}]}"#, "JWK_KEY_MALFORMED"),
    ] {
        assert_eq!(replace(document, NOW + 9), Err(expected), "{document}");
        let state = platform.keys().state().expect("keys");
        assert_eq!((state.keys, state.loaded_unix_s), (1, NOW));
        assert_eq!(judged(&old, "old", 0), "accepted");
    }
    // A rotation: both, then the new one alone.
    replace(&set(&[("old", &old), ("new", &new)]), NOW + 10).expect("keys");
    assert_eq!(judged(&old, "old", 10), "accepted");
    assert_eq!(judged(&new, "new", 10), "accepted");
    replace(&set(&[("new", &new)]), NOW + 20).expect("keys");
    assert_eq!(judged(&old, "old", 20), "PLATFORM_KEY_UNKNOWN");
    assert_eq!(judged(&new, "new", 20), "accepted");
    assert_eq!(judged(&old, "new", 20), "PLATFORM_SIGNATURE_INVALID");
}

#[test]
fn an_issuer_stands_once() {
    let twice = vec![issuer(CiSystem::GitHub), issuer(CiSystem::GitHub)];
    assert_eq!(Platforms::new(twice).expect_err("twice").key, "issuer");
    let many = (0..=crate::MAX_ISSUERS).map(|n| {
        let config = PlatformConfig {
            issuer: Some(format!("https://gitlab{n}.example")),
            jwks_file: Some("/k".into()),
            ..crate::testing::config(CiSystem::GitLab)
        };
        Issuer::try_from(config).expect("an issuer")
    });
    let mut many: Vec<_> = many.collect();
    assert_eq!(Platforms::new(many.clone()).expect_err("too many").key, "issuer");
    many.pop();
    assert_eq!(Platforms::new(many).expect("the bound").all().len(), crate::MAX_ISSUERS);
}
