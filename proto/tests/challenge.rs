//! What a worker takes from a verifier: a challenge within bounds, or nothing.

use proto::{
    evidence::{ChallengeParts, LogKind},
    limits::{MAX_CREDENTIAL_BYTES, MAX_LOG_KINDS, MAX_PCR_BANKS},
    pb,
    reason::ReasonCode::{self, EvidenceFieldInvalid as Invalid, EvidenceLimitExceeded as Limit},
};

fn good() -> pb::Challenge {
    pb::Challenge {
        challenge: vec![1; 32],
        verifier_id: vec![2; 32],
        credential: Some(pb::Credential { id_object: vec![3; 70], encrypted_secret: vec![4; 258] }),
        pcr_selection: vec![pb::PcrSelection { hash_alg: 0x000b, pcr_bits: 0x7fff }],
        logs_wanted: vec![pb::LogWanted { kind: pb::LogKind::Tools.into(), from_bytes: 7 }],
        deadline_ms: 60_000,
        node_key_wanted: true,
    }
}

#[test]
fn a_good_challenge_comes_out_as_it_went_in() {
    let parts = ChallengeParts::try_from(good()).expect("good");
    assert_eq!(parts.challenge.as_bytes(), &[1; 32]);
    assert_eq!(parts.verifier_id.as_bytes(), &[2; 32]);
    assert_eq!(parts.credential, Some((vec![3; 70], vec![4; 258])));
    assert_eq!(parts.pcr_selection.iter().count(), 15);
    assert_eq!(parts.logs_wanted, [(LogKind::Tools, 7)]);
    assert!(parts.node_key_wanted);
}

#[test]
fn each_bound_has_its_code() {
    type Change = fn(&mut pb::Challenge);
    let cases: [(&str, ReasonCode, Change); 12] = [
        ("no challenge", Invalid, |c| c.challenge.clear()),
        ("long challenge", Invalid, |c| c.challenge.push(0)),
        ("short verifier id", Invalid, |c| c.verifier_id.truncate(31)),
        ("long verifier id", Invalid, |c| c.verifier_id.push(0)),
        ("many banks", Limit, |c| c.pcr_selection = vec![c.pcr_selection[0]; MAX_PCR_BANKS + 1]),
        ("unknown bank", Invalid, |c| c.pcr_selection[0].hash_alg = 0x0010),
        ("PCR beyond the last", Invalid, |c| c.pcr_selection[0].pcr_bits = 1 << 24),
        ("many logs", Limit, |c| c.logs_wanted = vec![c.logs_wanted[0]; MAX_LOG_KINDS + 1]),
        ("one log twice", Invalid, |c| c.logs_wanted = vec![c.logs_wanted[0]; 2]),
        ("unknown log", Invalid, |c| c.logs_wanted[0].kind = 99),
        ("long id object", Limit, |c| {
            let credential = c.credential.as_mut().expect("there");
            credential.id_object = vec![0; MAX_CREDENTIAL_BYTES + 1];
        }),
        ("long encrypted secret", Limit, |c| {
            let credential = c.credential.as_mut().expect("there");
            credential.encrypted_secret = vec![0; MAX_CREDENTIAL_BYTES + 1];
        }),
    ];
    for (what, code, change) in cases {
        let mut challenge = good();
        change(&mut challenge);
        let error = ChallengeParts::try_from(challenge).expect_err(what);
        assert_eq!(error.code, code, "{what}: {error}");
    }
}
