//! Bundles and lists of authorities: refused, or written as they were read; and against one fixed list,
//! whatever is presented, nothing is verified but what its job and its verifier signed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use results::{
    Sha256Digest, SpiffeId, UnixTime,
    bundle::{Bundle, TrustedRoot},
    dsse::Envelope,
    statement::Statement,
    verify::Trust,
};

/// What the fixture's job built.
const ARTIFACT: &[u8] = b"what the job built\n";
/// When it did.
const NOW_UNIX_S: u64 = 1_795_759_200;

static ROOT: LazyLock<TrustedRoot> = LazyLock::new(|| {
    TrustedRoot::parse(include_bytes!("../fixtures/results_root.json")).expect("the fixture is one")
});
static IDENTITIES: LazyLock<[SpiffeId; 2]> = LazyLock::new(|| {
    ["spiffe://build.example/pool/release", "spiffe://build.example/results"]
        .map(|id| id.parse().expect("an ID"))
});

fuzz_target!(|data: &[u8]| {
    if let Ok(root) = TrustedRoot::parse(data) {
        assert_eq!(TrustedRoot::parse(root.to_json().as_bytes()), Ok(root));
    }
    if let Ok(envelope) = Envelope::parse(data) {
        assert_eq!(Envelope::parse(envelope.to_json().as_bytes()), Ok(envelope));
    }
    let Ok(bundle) = Bundle::parse(data) else { return };
    assert_eq!(Bundle::parse(bundle.to_json().as_bytes()).as_ref(), Ok(&bundle));
    let now = UnixTime::from_unix_s(NOW_UNIX_S).expect("an instant");
    let Ok(stamped) = bundle.prove_time(&ROOT, now) else { return };
    let trust = Trust { root: &ROOT, identities: &*IDENTITIES };
    if let Ok(artifact) = stamped.verify_artifact(&Sha256Digest::of(ARTIFACT), &trust) {
        assert_eq!(artifact.signature().signed_at(), now);
    }
    assert!(stamped.verify_artifact(&Sha256Digest::of(b"another"), &trust).is_err());
    if let Ok(statement) = stamped.verify_any_statement(&trust) {
        let node = match statement.statement() {
            Statement::Vsa(vsa) => &vsa.node,
            Statement::Dispatch(dispatch) => &dispatch.node,
        };
        assert_eq!(node.as_str(), "spiffe://build.example/node/n1");
    }
});
