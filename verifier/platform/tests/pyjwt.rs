//! Tokens by PyJWT, an implementation of others, are read as they were meant.

use std::{path::Path, process::Command};

use platform::{Issuer, PlatformConfig, Platforms};
use proto::job::CiSystem;
use serde_json::Value;

const AUDIENCE: &str = "https://assay.example.org";
const NOW: i64 = 1_790_000_000;

fn issuer(system: CiSystem) -> Issuer {
    Issuer::try_from(PlatformConfig::new(system, AUDIENCE)).expect("an issuer")
}

#[test]
fn what_pyjwt_signs_is_accepted() {
    let Some(python) = independent::python("import jwt, cryptography; jwt.PyJWKSet") else {
        return;
    };
    let output = Command::new(&python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pyjwt.py"))
        .args([AUDIENCE, &NOW.to_string()])
        .output()
        .expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let systems = [CiSystem::GitHub, CiSystem::GitLab, CiSystem::Buildkite];
    let platforms = Platforms::new(systems.map(issuer).into()).expect("three");
    for platform in platforms.all() {
        let keys = said["keys"].to_string();
        platform.keys().replace(keys.as_bytes(), NOW).expect("keys");
    }
    for system in systems {
        let token = said["tokens"][system.as_str()].as_str().expect("a token");
        let identity = platforms.verify(token, NOW).expect("accepted");
        assert_eq!((identity.system, identity.run_id.as_str()), (system, "42"));
        assert_eq!(identity.expires_unix_s, NOW + 300);
        let late = platforms.verify(token, NOW + 360).expect_err("expired");
        assert_eq!(late.code(), "PLATFORM_TOKEN_EXPIRED");
    }
    let tampered = said["tampered"].as_str().expect("a token");
    let refused = platforms.verify(tampered, NOW).expect_err("tampered");
    assert_eq!(refused.code(), "PLATFORM_SIGNATURE_INVALID");
}
