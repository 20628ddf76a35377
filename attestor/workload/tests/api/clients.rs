//! Independent clients: the crate `spiffe`, and the Python package `spiffe`.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use spiffe::{WorkloadApiClient, X509Source};
use workload::conformance::{Nonconformity, check_svid};

use crate::world::{TRUST_DOMAIN, World, id, own_process};

#[tokio::test]
async fn the_rust_client_fetches_rotates_and_sees_the_end() {
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    let client = WorkloadApiClient::connect_to(&world.endpoint).await.unwrap();
    let context = client.fetch_x509_context().await.unwrap();
    let svid = context.default_svid().unwrap();
    assert_eq!(svid.spiffe_id().to_string(), id("/job/7").to_string());
    let trust_domain = spiffe::TrustDomain::new(TRUST_DOMAIN).unwrap();
    let roots = context.bundle_set().get(&trust_domain).unwrap();
    assert_eq!(roots.authorities()[0].as_bytes(), world.authority.root.der);
    client.fetch_jwt_bundles().await.unwrap();
    let token = client.fetch_jwt_token(["one"], None).await.unwrap();
    let valid = client.validate_jwt_token("one", &token).await.unwrap();
    assert_eq!(valid.spiffe_id().to_string(), id("/job/7").to_string());

    let source = X509Source::builder().endpoint(&world.endpoint).build().await.unwrap();
    assert_eq!(source.svid().unwrap().spiffe_id().to_string(), id("/job/7").to_string());
    let mut updates = source.updated();
    handle.update(world.authority.credentials("/job/rotated")).unwrap();
    updates.changed().await.unwrap();
    assert_eq!(source.svid().unwrap().spiffe_id().to_string(), id("/job/rotated").to_string());
    handle.end("the build is over");
    let refused = client.fetch_x509_context().await.expect_err("ended").to_string();
    assert!(!refused.is_empty());
    source.shutdown().await;
}

/// What this client takes and `conformance` does not; it goes when the client learns it.
#[test]
fn the_rust_client_takes_what_does_not_hold_together() {
    let authority = crate::world::Authority::new();
    let now = crate::world::now_unix_s();
    let (svid, other) = (authority.svid("/job/7", ""), authority.svid("/job/8", ""));
    let stranger = crate::world::Authority::new();
    let check = |id: &str, key: &[u8], root: &[u8]| {
        let result = check_svid(id, &svid.chain, key, &[root.to_vec()], now);
        result.map(drop).map_err(Nonconformity::code)
    };
    let own = id("/job/7").to_string();
    let root = &authority.root.der;
    assert_eq!(check(&own, &svid.key_pkcs8, root), Ok(()));
    spiffe::X509Svid::parse_from_der(&svid.chain.concat(), &other.key_pkcs8).unwrap();
    assert_eq!(check(&own, &other.key_pkcs8, root), Err("SVID_KEY_MISMATCH"));
    // It does not compare with `spiffe_id`, and no part of it builds a chain to the bundle.
    assert_eq!(check(&id("/job/8").to_string(), &svid.key_pkcs8, root), Err("SVID_ID_MISMATCH"));
    let untrusted = check(&own, &svid.key_pkcs8, &stranger.root.der);
    assert_eq!(untrusted, Err("SVID_CHAIN_UNTRUSTED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_fetches_rotates_and_sees_the_end() {
    let Some(python) = independent::python("import spiffe") else { return };
    let world = World::start().await;
    let handle = world.admit("7", own_process());
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/workload_identity.py");
    let mut child = Command::new(&python)
        .arg(script)
        .args(["--audience", "registry.example.org", "--rotations", "1", "--until-end"])
        .env("SPIFFE_ENDPOINT_SOCKET", &world.endpoint)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut handle = Some(handle);
    let mut said = Vec::new();
    tokio::task::block_in_place(|| {
        for line in lines {
            let line = line.unwrap();
            match line.split_once(' ').map(|(word, _)| word) {
                // It watches now.
                Some("watching") => {
                    let rotated = world.authority.credentials("/job/rotated");
                    handle.as_ref().unwrap().update(rotated).unwrap();
                }
                Some("rotated") => handle.take().unwrap().end("the build is over"),
                _ => {}
            }
            said.push(line);
        }
    });
    assert!(child.wait().unwrap().success(), "{said:#?}");
    let (first, second) = (id("/job/7"), id("/job/rotated"));
    let expected = [
        format!("x509 {first}"),
        format!("bundle {TRUST_DOMAIN} 1"),
        format!("jwt {first} registry.example.org"),
        format!("validated {first}"),
        "refused other.example.org".to_owned(),
        format!("watching {first}"),
        format!("rotated {second}"),
        "ended PERMISSION_DENIED".to_owned(),
    ];
    assert_eq!(said, expected);
}
