//! X.509-SVIDs and bundles: what comes, when, and how it ends.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tonic::Code;
use workload::{
    Credentials, JobIdentity, Limits, Registry, Selector, SelectorParts,
    conformance::{check_x509_response, split},
    pb::{JwtBundlesRequest, X509BundlesRequest, X509svidRequest, X509svidResponse},
};

use crate::world::{
    TRUST_DOMAIN, World, client, domain, id, now_unix_s, own, own_process, refusal, refused,
};

fn denied(code: &str) -> (Code, String) {
    (Code::PermissionDenied, code.to_owned())
}

fn ids(response: &X509svidResponse) -> Vec<String> {
    response.svids.iter().map(|svid| svid.spiffe_id.clone()).collect()
}

#[tokio::test]
async fn the_first_message_comes_at_once_and_holds_together() {
    let world = World::start().await;
    let mut credentials = world.authority.credentials("/pool/release");
    credentials.x509[0].hint = "signing".to_owned();
    credentials.x509.push(world.authority.svid("/pool/release/job/github/7", "job"));
    let job = JobIdentity { id: "7".parse().unwrap(), selectors: own_process(), credentials };
    let handle = world.registry.admit(job).unwrap();
    let mut stream =
        world.client().await.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    let checked = check_x509_response(&first, now_unix_s()).unwrap();
    let found: Vec<_> = checked.iter().map(|svid| svid.spiffe_id().clone()).collect();
    assert_eq!(found, [id("/pool/release"), id("/pool/release/job/github/7")]);
    let hints: Vec<_> = first.svids.iter().map(|svid| svid.hint.as_str()).collect();
    assert_eq!(hints, ["signing", "job"]);
    assert!(first.crl.is_empty() && first.federated_bundles.is_empty());
    for svid in &first.svids {
        assert_eq!(svid.bundle, world.authority.root.der, "roots only");
        assert_eq!(split(&svid.x509_svid, 8).unwrap()[1], world.authority.intermediate.der);
    }
    drop(handle);
}

#[tokio::test]
async fn a_rotation_brings_the_complete_new_state_and_the_end_says_why() {
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    let mut client = world.client().await;
    let mut stream = client.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    handle.update(world.authority.credentials("/job/other-name")).unwrap();
    let second = stream.message().await.unwrap().unwrap();
    check_x509_response(&second, now_unix_s()).unwrap();
    assert_eq!(ids(&second), [id("/job/other-name").to_string()]);
    assert_ne!(first.svids[0].x509_svid_key, second.svids[0].x509_svid_key);
    // What does not hold together is not taken over, and nothing is sent.
    let mut wrong = world.authority.credentials("/job/7");
    wrong.x509[0].key_pkcs8 = world.authority.svid("/job/7", "").key_pkcs8;
    assert_eq!(handle.update(wrong).map_err(|error| error.code()), Err("SVID_KEY_MISMATCH"));
    handle.end("the build is over\nforged: line");
    let status = stream.message().await.expect_err("ended");
    assert_eq!(refusal(&status), denied("WORKLOAD_JOB_ENDED"));
    let expected = "WORKLOAD_JOB_ENDED: the permit of job 7 ended: the build is over forged: line";
    assert_eq!(status.message(), expected);
    let after = client.fetch_x509svid(X509svidRequest {}).await;
    assert_eq!(refused(after), denied("WORKLOAD_IDENTITY_NONE"));
    assert!(world.registry.job_ids().is_empty());
}

#[tokio::test]
async fn letting_go_of_the_handle_ends_the_job() {
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    let twice = world.try_admit("7", own_process());
    assert_eq!(twice.map(drop).map_err(|error| error.code()), Err("JOB_DUPLICATE"));
    let mut stream =
        world.client().await.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    drop(handle);
    let status = stream.message().await.expect_err("ended");
    assert_eq!(refusal(&status), denied("WORKLOAD_JOB_ENDED"));
    // The name is free again.
    drop(world.admit("7", own_process()));
}

#[tokio::test]
async fn bundles_come_by_trust_domain_and_change_with_the_job() {
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    let mut client = world.client().await;
    let mut x509 = client.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap().into_inner();
    let mut jwt = client.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap().into_inner();
    let domain_id = format!("spiffe://{TRUST_DOMAIN}");
    let first = x509.message().await.unwrap().unwrap();
    assert_eq!(first.bundles.keys().collect::<Vec<_>>(), [&domain_id]);
    assert_eq!(first.bundles[&domain_id], world.authority.root.der);
    let keys = jwt.message().await.unwrap().unwrap();
    let set = jose::jwk::JwkSet::parse(&keys.bundles[&domain_id]).unwrap();
    assert_eq!(set.keys().len(), 1);
    // A second root comes: old and new stand side by side.
    let mut credentials = world.authority.credentials("/job/7");
    let other = crate::world::Authority::new();
    let roots = vec![world.authority.root.der.clone(), other.root.der.clone()];
    let bundle = jose::spiffe_bundle::Bundle::new(roots.clone(), Vec::new()).unwrap();
    credentials.bundles = [(domain(), bundle)].into();
    handle.update(credentials).unwrap();
    let second = x509.message().await.unwrap().unwrap();
    assert_eq!(split(&second.bundles[&domain_id], 8).unwrap(), roots);
    let keys = jwt.message().await.unwrap().unwrap();
    assert_eq!(keys.bundles[&domain_id], br#"{"keys":[]}"#);
    handle.end("over");
    for status in [x509.message().await.map(drop), jwt.message().await.map(drop)] {
        assert_eq!(refused(status), denied("WORKLOAD_JOB_ENDED"));
    }
}

#[tokio::test]
async fn nothing_is_answered_before_the_worker_is_ready() {
    let registry = Registry::new();
    let world = World::start_with(registry, Limits::default()).await;
    let handle = world.admit("7", own_process());
    let mut client = world.client().await;
    let not_ready = (Code::Unavailable, "WORKLOAD_NOT_READY".to_owned());
    assert_eq!(refused(client.fetch_x509svid(X509svidRequest {}).await), not_ready);
    world.registry.set_ready(true);
    let mut stream = client.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    // The node's certificate was lost: streams end, clients come again.
    world.registry.set_ready(false);
    assert_eq!(refused(stream.message().await), not_ready);
    drop(handle);
}

#[tokio::test]
async fn the_closest_job_is_served_and_of_two_equals_none() {
    let world = World::start().await;
    let uid = rustix::process::geteuid().as_raw();
    let mut client = world.client().await;
    let mut fetch = async || -> Result<String, (Code, String)> {
        let result = client.fetch_x509svid(X509svidRequest {}).await;
        let mut stream = result.map_err(|status| refusal(&status))?.into_inner();
        Ok(ids(&stream.message().await.unwrap().unwrap()).concat())
    };
    assert_eq!(fetch().await, Err(denied("WORKLOAD_IDENTITY_NONE")));
    let stranger = world.admit("stranger", vec![Selector::user(uid + 1)]);
    assert_eq!(fetch().await, Err(denied("WORKLOAD_IDENTITY_NONE")));
    let user = world.admit("user", vec![Selector::user(uid)]);
    assert_eq!(fetch().await, Ok(id("/job/user").to_string()));
    let user_too = world.admit("user-too", vec![Selector::user(uid)]);
    assert_eq!(fetch().await, Err(denied("WORKLOAD_IDENTITY_AMBIGUOUS")));
    // A closer one wins over both.
    let closer = world.admit("closer", own_process());
    assert_eq!(fetch().await, Ok(id("/job/closer").to_string()));
    // A selector with more parts is no closer: ancestor is ancestor.
    let parts = SelectorParts { uid: Some(uid), ancestor: Some(own()), ..SelectorParts::default() };
    let as_close = world.admit("as-close", vec![parts.try_into().unwrap()]);
    assert_eq!(fetch().await, Err(denied("WORKLOAD_IDENTITY_AMBIGUOUS")));
    closer.end("over");
    assert_eq!(fetch().await, Ok(id("/job/as-close").to_string()));
    drop((stranger, user, user_too, as_close));
}

#[tokio::test]
async fn a_stream_does_not_go_on_when_the_process_is_anothers() {
    let world = World::start().await;
    let uid = rustix::process::geteuid().as_raw();
    let first = world.admit("first", vec![Selector::user(uid)]);
    let mut stream =
        world.client().await.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let second = world.admit("second", own_process());
    first.update(world.authority.credentials("/job/first")).unwrap();
    assert_eq!(refused(stream.message().await), denied("WORKLOAD_JOB_CHANGED"));
    drop((first, second));
}

#[tokio::test]
async fn an_expired_svid_is_not_handed_out() {
    let now = Arc::new(AtomicU64::new(now_unix_s()));
    let clock = Arc::clone(&now);
    let registry = Registry::with_clock(Arc::new(move || clock.load(Ordering::SeqCst)));
    registry.set_ready(true);
    let world = World::start_with(registry, Limits::default()).await;
    let handle = world.admit("7", own_process());
    let mut client = world.client().await;
    client.fetch_x509svid(X509svidRequest {}).await.unwrap();
    now.fetch_add(3602, Ordering::SeqCst);
    let expired = (Code::Unavailable, "WORKLOAD_SVID_EXPIRED".to_owned());
    assert_eq!(refused(client.fetch_x509svid(X509svidRequest {}).await), expired);
    client.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap();
    let again = handle.update(world.authority.credentials("/job/7"));
    assert_eq!(again.map_err(|error| error.code()), Err("SVID_EXPIRED"));
}

#[tokio::test]
async fn what_is_not_of_one_trust_domain_or_nothing_at_all_is_not_admitted() {
    let world = World::start().await;
    let admit = |selectors, credentials| {
        let job = JobIdentity { id: "7".parse().unwrap(), selectors, credentials };
        world.registry.admit(job).map(drop).map_err(|error| error.code())
    };
    let good = || world.authority.credentials("/job/7");
    assert_eq!(admit(own_process(), good()), Ok(()));
    assert_eq!(admit(Vec::new(), good()), Err("JOB_SELECTOR_COUNT"));
    assert_eq!(admit(vec![Selector::user(1); 17], good()), Err("JOB_SELECTOR_COUNT"));
    let nothing = Credentials { x509: Vec::new(), jwt: None, ..good() };
    assert_eq!(admit(own_process(), nothing), Err("JOB_NO_IDENTITY"));
    let no_bundle = Credentials { bundles: [].into(), ..good() };
    assert_eq!(admit(own_process(), no_bundle), Err("JOB_BUNDLES_MISMATCH"));
    let mut foreign = good();
    foreign.bundles.insert("other.example".parse().unwrap(), world.authority.bundle());
    assert_eq!(admit(own_process(), foreign), Err("JOB_BUNDLES_MISMATCH"));
    let mut mixed = good();
    mixed.jwt.as_mut().unwrap().spiffe_ids = vec!["spiffe://other.example/job/7".parse().unwrap()];
    assert_eq!(admit(own_process(), mixed), Err("JOB_BUNDLES_MISMATCH"));
    let mut pathless = good();
    pathless.jwt.as_mut().unwrap().spiffe_ids =
        vec![format!("spiffe://{TRUST_DOMAIN}").parse().unwrap()];
    assert_eq!(admit(own_process(), pathless), Err("SVID_ID_MALFORMED"));
    let mut alike = good();
    alike.x509 = vec![world.authority.svid("/a", "x"), world.authority.svid("/b", "x")];
    assert_eq!(admit(own_process(), alike), Err("HINT_DUPLICATE"));
}

#[tokio::test]
async fn a_job_without_x509_identity_has_tokens_only() {
    let world = World::start().await;
    let credentials = Credentials { x509: Vec::new(), ..world.authority.credentials("/job/7") };
    let job = JobIdentity { id: "7".parse().unwrap(), selectors: own_process(), credentials };
    let handle = world.registry.admit(job).unwrap();
    let mut client = world.client().await;
    let result = client.fetch_x509svid(X509svidRequest {}).await;
    assert_eq!(refused(result), denied("WORKLOAD_IDENTITY_NONE"));
    client.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap();
    drop(handle);
}

#[tokio::test]
async fn streams_go_with_their_client() {
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    let mut client = world.client().await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = client.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        streams.push(stream);
    }
    assert_eq!(world.registry.open_streams(), 5);
    // One that is cancelled, then those of a connection that is gone.
    streams.pop();
    while world.registry.open_streams() != 4 {
        tokio::task::yield_now().await;
    }
    drop((streams, client));
    while world.registry.open_streams() != 0 {
        tokio::task::yield_now().await;
    }
    drop(handle);
}

#[tokio::test]
async fn a_slow_reader_gets_the_newest_state_only() {
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    // The window holds about one message.
    let endpoint = tonic::transport::Endpoint::from_shared(world.endpoint.clone()).unwrap();
    let endpoint = endpoint.initial_stream_window_size(2048).initial_connection_window_size(2048);
    let mut client = crate::world::marked(endpoint.connect().await.unwrap());
    let mut stream = client.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
    const ROTATIONS: usize = 200;
    for number in 0..ROTATIONS {
        let credentials = world.authority.credentials(&format!("/job/{number}"));
        handle.update(credentials).unwrap();
        // Gives the server its turn.
        tokio::task::yield_now().await;
    }
    let newest = id(&format!("/job/{}", ROTATIONS - 1)).to_string();
    let mut messages = 0;
    loop {
        let message = stream.message().await.unwrap().unwrap();
        check_x509_response(&message, now_unix_s()).unwrap();
        messages += 1;
        if ids(&message) == [newest.as_str()] {
            break;
        }
    }
    assert!(messages < ROTATIONS / 4, "{messages} messages were queued");
    drop(handle);
}

#[tokio::test]
async fn stopping_ends_streams_with_a_status_and_removes_the_file() {
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    let mut stream =
        world.client().await.fetch_x509svid(X509svidRequest {}).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let socket = world.socket();
    assert!(socket.exists());
    let registry = world.registry.clone();
    world.stop().await;
    let stopping = (Code::Unavailable, "WORKLOAD_STOPPING".to_owned());
    assert_eq!(refused(stream.message().await), stopping);
    assert!(!socket.exists());
    assert_eq!(registry.open_streams(), 0);
    drop(handle);
}

#[tokio::test]
async fn clients_of_a_stopped_server_come_again() {
    let world = World::start().await;
    let (endpoint, socket) = (world.endpoint.clone(), world.socket());
    let mut early = client(&endpoint).await;
    let result = early.fetch_x509svid(X509svidRequest {}).await;
    assert_eq!(refused(result), denied("WORKLOAD_IDENTITY_NONE"));
    world.stop().await;
    assert!(!socket.exists());
    let gone = early.fetch_x509svid(X509svidRequest {}).await.expect_err("nobody listens");
    assert_eq!(gone.code(), Code::Unavailable);
}
