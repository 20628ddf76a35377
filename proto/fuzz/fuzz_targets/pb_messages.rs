//! Wire messages: from protobuf through the only door to domain types, log collection included.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use proto::{
    evidence::{ChallengeParts, Evidence, Hello, LogCollector, LogKind},
    pb::{self, attest_request::Message as Request, attest_response::Message as Response},
};

fuzz_target!(|data: &[u8]| {
    // A stream: each message with its length before it, as gRPC frames them.
    let mut rest = data;
    let mut logs = LogCollector::default();
    let wanted = [(LogKind::Tools, 0), (LogKind::Uefi, 0)];
    while !rest.is_empty() {
        let Ok(request) = pb::AttestRequest::decode_length_delimited(&mut rest) else { break };
        match request.message {
            Some(Request::Hello(hello)) => drop(Hello::try_from(hello)),
            Some(Request::Evidence(evidence)) => drop(Evidence::try_from(evidence)),
            Some(Request::LogChunk(chunk)) => drop(logs.take(chunk, &wanted)),
            Some(Request::End(_)) | None => {}
        }
    }
    let mut held = 0;
    for suffix in logs.finish() {
        held += suffix.bytes.len();
    }
    assert!(held <= data.len(), "nothing is held that was not sent");
    // The worker reads what a hostile verifier sends.
    if let Ok(response) = pb::AttestResponse::decode(data)
        && let Some(Response::Challenge(challenge)) = response.message
    {
        drop(ChallengeParts::try_from(challenge));
    }
});
