//! Properties of parsers: whatever they are given, they answer; what they take has one spelling.
mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use results::{
    Sha256Digest,
    bundle::{Bundle, TrustedRoot},
    certificate::Certificate,
    dsse::Envelope,
    statement::{Claim, ClaimSource, Dispatch, Predicate, Statement},
    timestamp::{Request, Response},
};
use support::{
    Chain, NOW,
    chain::{digest, dispatch, vsa},
};

/// Bytes with some of them changed, left out or put in.
fn changed(bytes: &[u8], edits: &[(usize, u8, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (place, kind, byte) in edits {
        let place = place % bytes.len().max(1);
        match kind % 3 {
            0 => bytes.get_mut(place).map_or((), |old| *old = *byte),
            1 => drop((!bytes.is_empty()).then(|| bytes.remove(place))),
            _ => bytes.insert(place, *byte),
        }
    }
    bytes
}

fn edits() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
    prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_statement_that_is_read_is_written_alike(edits in edits(), is_vsa: bool) {
        let good = if is_vsa {
            vsa().to_json()
        } else {
            dispatch(digest("key"), digest("vsa")).to_json()
        };
        let bytes = changed(&good.expect("a statement"), &edits);
        match Statement::parse(&bytes) {
            Ok(Statement::Vsa(vsa)) => prop_assert_eq!(vsa.to_json(), Ok(bytes)),
            Ok(Statement::Dispatch(dispatch)) => prop_assert_eq!(dispatch.to_json(), Ok(bytes)),
            Err(refusal) => prop_assert!(!refusal.to_string().chars().any(char::is_control)),
        }
    }

    #[test]
    fn claims_of_any_text_are_read_back(
        claims in prop::collection::btree_map("[a-z0-9_.-]{1,64}", ("[^\\p{Cc}]{1,100}", any::<bool>()), 0..8),
    ) {
        let source = |is_token| match is_token {
            true => ClaimSource::PlatformToken,
            false => ClaimSource::Environment,
        };
        let claims: BTreeMap<_, _> = claims
            .into_iter()
            .map(|(name, (value, is_token))| (name, Claim { source: source(is_token), value }))
            .collect();
        let mut dispatch = dispatch(digest("key"), digest("vsa"));
        dispatch.job.claims = claims;
        let json = dispatch.to_json().expect("a statement");
        prop_assert_eq!(Dispatch::parse(&json), Ok(dispatch));
    }

    #[test]
    fn random_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Statement::parse(&bytes).is_err());
        prop_assert!(Envelope::parse(&bytes).is_err());
        prop_assert!(Bundle::parse(&bytes).is_err());
        prop_assert!(TrustedRoot::parse(&bytes).is_err());
        prop_assert!(Response::parse(&bytes).is_err());
        prop_assert!(Request::parse(&bytes).is_err());
        prop_assert!(Certificate::parse("certificate", &bytes).is_err());
    }
}

/// Changes of real files: each is made once, as keys are slow to make.
#[test]
fn changed_files_are_answered_and_what_is_taken_is_written_alike() {
    let chain = Chain::new();
    let request = Request::new(digest("x"), &[1, 2, 3]).expect("a request").to_der().expect("DER");
    let (bundle, root) = (chain.vsa_bundle().to_json(), chain.world.trusted_root().to_json());
    let (stamp, leaf) = (chain.world.stamp(b"x", NOW), chain.world.tsa_der.clone());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..Default::default()
    });
    let result = runner.run(&edits(), |edits| {
        if let Ok(bundle) = Bundle::parse(&changed(bundle.as_bytes(), &edits)) {
            prop_assert_eq!(Bundle::parse(bundle.to_json().as_bytes()), Ok(bundle));
        }
        if let Ok(root) = TrustedRoot::parse(&changed(root.as_bytes(), &edits)) {
            prop_assert_eq!(TrustedRoot::parse(root.to_json().as_bytes()), Ok(root));
        }
        let bytes = changed(&request, &edits);
        if let Ok(request) = Request::parse(&bytes) {
            prop_assert_eq!(Request::parse(&request.to_der().expect("DER")), Ok(request));
        }
        let _answered = Certificate::parse("certificate", &changed(&leaf, &edits));
        if let Ok(response) = Response::parse(&changed(&stamp, &edits)) {
            let authorities = [chain.world.tsa_authority()];
            let time = response.verify(&Sha256Digest::of(b"x"), &authorities, support::at(NOW));
            prop_assert!(time.is_err() || time.map(|time| time.at()) == Ok(support::at(NOW)));
        }
        Ok(())
    });
    assert_eq!(result, Ok(()));
}
