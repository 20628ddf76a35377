//! JWT-SVIDs: fetched through the job's source, validated by the job's bundle.

use std::sync::Arc;

use jose::sign::Es256Key;
use tokio::sync::Notify;
use tonic::Code;
use workload::{
    Credentials, JobHandle, JobIdentity, JwtGrant, JwtRefusal, JwtRequest, JwtSource, JwtSvid,
    Limits, Registry,
    pb::{JwtsvidRequest, ValidateJwtsvidRequest},
};

use crate::world::{Client, World, id, own_process, refused, token};

fn ask(audiences: &[&str], spiffe_id: &str) -> JwtsvidRequest {
    let audience = audiences.iter().map(|&audience| audience.to_owned()).collect();
    JwtsvidRequest { audience, spiffe_id: spiffe_id.to_owned() }
}

fn with_source(world: &World, source: impl JwtSource) -> JobHandle {
    let jwt = Some(JwtGrant { spiffe_ids: vec![id("/job/7")], source: Arc::new(source) });
    let credentials = Credentials { jwt, ..world.authority.credentials("/job/7") };
    let job = JobIdentity { id: "7".parse().unwrap(), selectors: own_process(), credentials };
    world.registry.admit(job).unwrap()
}

async fn validate(client: &mut Client, svid: &str, audience: &str) -> Result<String, String> {
    let (svid, audience) = (svid.to_owned(), audience.to_owned());
    match client.validate_jwtsvid(ValidateJwtsvidRequest { audience, svid }).await {
        Ok(response) => Ok(response.into_inner().spiffe_id),
        Err(status) => {
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            Err(status.message().to_owned())
        }
    }
}

#[tokio::test]
async fn a_token_is_fetched_for_its_audiences_and_validates_for_each() {
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    let mut client = world.client().await;
    let own_id = id("/job/7").to_string();
    for asked in ["", own_id.as_str()] {
        let response =
            client.fetch_jwtsvid(ask(&["one", "two"], asked)).await.unwrap().into_inner();
        assert_eq!(response.svids.len(), 1);
        let svid = &response.svids[0];
        assert_eq!(svid.spiffe_id, own_id);
        for audience in ["one", "two"] {
            assert_eq!(validate(&mut client, &svid.svid, audience).await, Ok(own_id.clone()));
        }
        let refused = validate(&mut client, &svid.svid, "three").await.unwrap_err();
        assert!(refused.starts_with("WORKLOAD_TOKEN_INVALID: JWT_AUDIENCE_MISMATCH"), "{refused}");
    }
    let request = ValidateJwtsvidRequest {
        audience: "one".to_owned(),
        svid: client.fetch_jwtsvid(ask(&["one"], "")).await.unwrap().into_inner().svids[0]
            .svid
            .clone(),
    };
    let claims = client.validate_jwtsvid(request).await.unwrap().into_inner().claims.unwrap();
    let names: Vec<_> = claims.fields.keys().map(String::as_str).collect();
    assert_eq!(names, ["aud", "exp", "iat", "jti", "sub"]);
    drop(handle);
}

#[tokio::test]
async fn tokens_that_prove_nothing_are_refused() {
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    let mut client = world.client().await;
    let good = token(&world.authority.token_key, &id("/job/7"), vec!["one".to_owned()]);
    assert_eq!(validate(&mut client, &good, "one").await, Ok(id("/job/7").to_string()));
    let foreign_key = Es256Key::generate().unwrap();
    let foreign = token(&foreign_key, &id("/job/7"), vec!["one".to_owned()]);
    let elsewhere = "spiffe://other.example/job/7".parse().unwrap();
    let elsewhere = token(&world.authority.token_key, &elsewhere, vec!["one".to_owned()]);
    let cut = &good[..good.len() - 4];
    for (token, code) in [
        (foreign.as_str(), "JWS_KEY_UNKNOWN"),
        (elsewhere.as_str(), "SVID_TRUST_DOMAIN_MISMATCH"),
        (cut, "JWS_"),
        ("not a token", "JWS_"),
    ] {
        let refused = validate(&mut client, token, "one").await.unwrap_err();
        assert!(refused.starts_with(&format!("WORKLOAD_TOKEN_INVALID: {code}")), "{refused}");
    }
    let empty = validate(&mut client, "", "one").await.unwrap_err();
    assert!(empty.starts_with("WORKLOAD_TOKEN_INVALID"), "{empty}");
    let long = validate(&mut client, &"a".repeat(16 * 1024 + 1), "one").await.unwrap_err();
    assert!(long.starts_with("WORKLOAD_TOKEN_TOO_LONG"), "{long}");
    let nobody = validate(&mut client, &good, "").await.unwrap_err();
    assert!(nobody.starts_with("WORKLOAD_AUDIENCE_INVALID"), "{nobody}");
    handle.end("over");
    let request = ValidateJwtsvidRequest { audience: "one".to_owned(), svid: good };
    let expected = (Code::PermissionDenied, "WORKLOAD_IDENTITY_NONE".to_owned());
    assert_eq!(refused(client.validate_jwtsvid(request).await), expected);
}

#[tokio::test]
async fn requests_are_bounded_and_for_own_identities_only() {
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    let mut client = world.client().await;
    let mut code = async |request: JwtsvidRequest| {
        let result = client.fetch_jwtsvid(request).await;
        result.map(drop).map_err(|status| crate::world::refusal(&status))
    };
    let invalid = |code: &str| Err((Code::InvalidArgument, code.to_owned()));
    let (longest, long) = ("a".repeat(255), "a".repeat(256));
    let most: Vec<String> = (0..9).map(|number| number.to_string()).collect();
    let most: Vec<&str> = most.iter().map(String::as_str).collect();
    assert_eq!(code(ask(&most[..8], "")).await, Ok(()));
    assert_eq!(code(ask(&[&longest], "")).await, Ok(()));
    for audiences in [&[][..], &[""], &["one", ""], &[&long], &most] {
        assert_eq!(code(ask(audiences, "")).await, invalid("WORKLOAD_AUDIENCE_INVALID"));
    }
    assert_eq!(code(ask(&["one"], "job/7")).await, invalid("WORKLOAD_SPIFFE_ID_INVALID"));
    let other = id("/job/8").to_string();
    let not_granted = (Code::PermissionDenied, "WORKLOAD_IDENTITY_NOT_GRANTED".to_owned());
    assert_eq!(code(ask(&["one"], &other)).await, Err(not_granted));
    drop(handle);
}

#[tokio::test]
async fn a_job_that_asks_for_ever_more_tokens_is_refused_and_others_are_not() {
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    let mut client = world.client().await;
    let mut given = 0;
    let status = loop {
        match client.fetch_jwtsvid(ask(&[&format!("audience {given}")], "")).await {
            Ok(_) => given += 1,
            Err(status) => break status,
        }
        assert!(given < 1_000, "there is no bound");
    };
    let too_many = (Code::ResourceExhausted, "WORKLOAD_JWT_TOO_MANY".to_owned());
    assert_eq!(crate::world::refusal(&status), too_many);
    assert!(given >= 64, "{given}");
    // What costs no signature goes on, and so does another job.
    client.fetch_x509svid(workload::pb::X509svidRequest {}).await.unwrap();
    handle.end("over");
    let handle = world.admit("8", own_process());
    client.fetch_jwtsvid(ask(&["one"], "")).await.unwrap();
    drop(handle);
}

#[tokio::test]
async fn what_the_source_refuses_or_gets_wrong_is_told_apart() {
    let world = World::start().await;
    let mut client = world.client().await;
    let mut check =
        async |source: fn(JwtRequest) -> Result<Vec<JwtSvid>, JwtRefusal>, code, reason: &str| {
            let handle = with_source(&world, move |request| std::future::ready(source(request)));
            let result = client.fetch_jwtsvid(ask(&["one"], "")).await;
            assert_eq!(refused(result), (code, reason.to_owned()));
            handle.end("over");
        };
    let denied = |_| Err(JwtRefusal::Denied("the policy says no".to_owned()));
    check(denied, Code::PermissionDenied, "WORKLOAD_JWT_REFUSED").await;
    let unavailable = |_| Err(JwtRefusal::Unavailable("no verifier".to_owned()));
    check(unavailable, Code::Unavailable, "WORKLOAD_JWT_UNAVAILABLE").await;
    check(|_| Ok(Vec::new()), Code::Internal, "WORKLOAD_JWT_SOURCE_FAULTY").await;
    let of_another = |request: JwtRequest| {
        let key = Es256Key::generate().unwrap();
        let token = token(&key, &id("/job/8"), request.audiences);
        Ok(vec![JwtSvid { spiffe_id: id("/job/7"), token, hint: String::new() }])
    };
    check(of_another, Code::Internal, "WORKLOAD_JWT_SOURCE_FAULTY").await;
    let none = Credentials { jwt: None, ..world.authority.credentials("/job/7") };
    let job = JobIdentity { id: "7".parse().unwrap(), selectors: own_process(), credentials: none };
    let handle = world.registry.admit(job).unwrap();
    let result = client.fetch_jwtsvid(ask(&["one"], "")).await;
    let expected = (Code::PermissionDenied, "WORKLOAD_IDENTITY_NONE".to_owned());
    assert_eq!(refused(result), expected);
    drop(handle);
}

#[tokio::test]
async fn a_job_that_ends_while_its_issuer_thinks_gets_nothing() {
    let world = World::start().await;
    let asked = Arc::new(Notify::new());
    let began = Arc::clone(&asked);
    let handle = with_source(&world, move |_| {
        began.notify_one();
        std::future::pending()
    });
    let mut client = world.client().await;
    let request = tokio::spawn(async move { client.fetch_jwtsvid(ask(&["one"], "")).await });
    asked.notified().await;
    handle.end("cancelled");
    let expected = (Code::PermissionDenied, "WORKLOAD_JOB_ENDED".to_owned());
    assert_eq!(refused(request.await.unwrap()), expected);
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_is_given_up() {
    let registry = Registry::new();
    registry.set_ready(true);
    let mut limits = Limits::default();
    limits.request_timeout = std::time::Duration::from_millis(100);
    let world = World::start_with(registry, limits).await;
    let handle = with_source(&world, |_| std::future::pending());
    let result = world.client().await.fetch_jwtsvid(ask(&["one"], "")).await;
    let expected = (Code::DeadlineExceeded, "WORKLOAD_REQUEST_TIMEOUT".to_owned());
    assert_eq!(refused(result), expected);
    drop(handle);
}

/// A job cannot have its worker flood the verifier.
#[tokio::test]
async fn a_jobs_requests_for_tokens_wait_for_each_other() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let world = World::start().await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (open, highest) = (Arc::clone(&now), Arc::clone(&most));
    let key = Arc::clone(&world.authority.token_key);
    let handle = with_source(&world, move |request: JwtRequest| {
        let token = token(&key, &id("/job/7"), request.audiences);
        let (open, highest) = (Arc::clone(&open), Arc::clone(&highest));
        async move {
            highest.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            open.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, JwtRefusal>(vec![JwtSvid {
                spiffe_id: id("/job/7"),
                token,
                hint: String::new(),
            }])
        }
    });
    let client = world.client().await;
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut client = client.clone();
        requests.spawn(async move { client.fetch_jwtsvid(ask(&["one"], "")).await.map(drop) });
    }
    while let Some(result) = requests.join_next().await {
        result.unwrap().unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 4);
    drop(handle);
}
