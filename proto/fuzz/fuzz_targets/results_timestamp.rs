//! Time stamps, requests for them and certificates; against one fixed authority, whatever is presented,
//! the only time that is believed is the one that it stamped.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use results::{
    Sha256Digest, UnixTime,
    bundle::TrustedRoot,
    certificate::Certificate,
    timestamp::{Request, Response},
};

const STAMPED: &[u8] = b"what the job built\n";
const NOW_UNIX_S: u64 = 1_795_759_200;

static ROOT: LazyLock<TrustedRoot> = LazyLock::new(|| {
    TrustedRoot::parse(include_bytes!("../fixtures/results_root.json")).expect("the fixture is one")
});

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = Request::parse(data) {
        let der = request.to_der().expect("what was read can be written");
        assert_eq!(Request::parse(&der), Ok(request));
    }
    if let Ok(certificate) = Certificate::parse("certificate", data) {
        let _one_name_or_none = certificate.spiffe_id();
    }
    let Ok(response) = Response::parse(data) else { return };
    let now = UnixTime::from_unix_s(NOW_UNIX_S).expect("an instant");
    let authorities = ROOT.timestamp_authorities();
    if let Ok(time) = response.verify(&Sha256Digest::of(STAMPED), authorities, now) {
        assert_eq!(time.at(), now);
    }
    assert!(response.verify(&Sha256Digest::of(b"another"), authorities, now).is_err());
});
