//! The attacker: root on a worker, owner of genuine TPMs, speaker of the protocol by hand.
//!
//! Everything runs on the real verifier and on real software TPMs. What no TPM would do (sign a structure
//! that it did not make) is done with a software AK whose boot record is put into the store, and the row says
//! so in `assumes`: it shows that a check stands even where the TPM would already have refused.
//!
//! # Verbs of a row
//! In order of effect; without any, the attempt is an honest enrolment and is admitted.
//!
//! | verb | what |
//! |---|---|
//! | `golden:…`, `node:…`, `import:crl`, `store:…`, `disk:…` | state of the site, put back afterwards |
//! | `boot:…`, `tools:…` | what the machine boots and carries |
//! | `uefi:…`, `ima:…` | the logs of firmware and kernel, as they are shown |
//! | `renew` | enrol honestly first; the rest acts on the renewal |
//! | `machine:other` | the second machine (node `w2`, pending) |
//! | `ak:…`, `ek:…`, `ek-cert:…` | keys and certificates shown |
//! | `send:…`, `silence:…`, `flood` | order and number of messages |
//! | `meanwhile:…` | between challenge and answer |
//! | `secret:…`, `node-key:…`, `certify:…`, `quote:…`, `select:…`, `values:…`, `log:…`, `forge:…` | evidence |
//! | `cut`, `append`, `grow`, `clear`, `flip` with a field's name, `drop:…` | bytes of a message |
//! | `admin:…` | the administration service |

pub mod admin;
pub mod ek;
pub mod evidence;
pub mod judging;
pub mod logs;
pub mod machine;
pub mod mutate;
pub mod site;
pub mod stream;
pub mod tpm;

use std::collections::BTreeSet;

use proto::{
    evidence::{ChallengeParts, LogSuffix, PROTOCOL_VERSION},
    pb::{self, attest_request::Message as Outgoing, attest_response::Message as Incoming},
};
use tonic::{Status, transport::Channel};
use verifier::service::status::reason_of;

use self::{
    evidence::Answerer, machine::Machine, mutate::Mutations, site::Site, stream::Stream, tpm::Key,
};
use crate::{
    case::{Attack, Layer},
    cluster::AnyError,
};

/// How an attempt ended.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Every code of the answer.
    pub codes: BTreeSet<String>,
    /// Which layer answered.
    pub layer: Layer,
    /// Whether a certificate came, in the answer or before it.
    pub certificate: bool,
    /// Decision in the answer.
    pub decision: Option<String>,
    /// For people.
    pub detail: String,
    /// The whole result, where there was one.
    pub result: Option<pb::AttestationResult>,
}

impl Observed {
    /// An error status.
    #[must_use]
    pub fn status(status: &Status, layer: Layer) -> Self {
        let code = reason_of(status)
            .map_or_else(|| format!("grpc:{:?}", status.code()), |code| code.as_str().to_owned());
        Self {
            codes: BTreeSet::from([code]),
            layer,
            certificate: false,
            decision: None,
            detail: status.message().to_owned(),
            result: None,
        }
    }

    /// A result; its layer is told by what was recorded.
    #[must_use]
    pub fn result(result: pb::AttestationResult) -> Self {
        let detail: Vec<String> = result
            .findings
            .iter()
            .map(|finding| format!("{}: {}", finding.subject, finding.observed))
            .collect();
        Self {
            codes: result.findings.iter().map(|finding| finding.code.clone()).collect(),
            layer: if result.decision_id.is_empty() { Layer::Hello } else { Layer::Appraisal },
            certificate: !result.certificate_chain.is_empty()
                || !result.spiffe_id.is_empty()
                || result.outcome() != pb::Outcome::Deny,
            decision: (!result.decision_id.is_empty()).then(|| result.decision_id.clone()),
            detail: detail.join("; "),
            result: Some(result),
        }
    }
}

/// What an enrolment leaves to a renewal.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// The AK; a software AK has no handle.
    pub ak: Key,
    /// Name of the node key in the boot's record.
    pub node_key: Vec<u8>,
    /// Evidence as sent.
    pub evidence: pb::Evidence,
    /// Secret as recovered.
    pub secret: Vec<u8>,
    /// The challenge that was answered.
    pub challenge: ChallengeParts,
    /// The result.
    pub observed: Observed,
}

/// Runs one attack on a site and puts the site back.
///
/// # Errors
/// The harness failed: that says nothing about the verifier.
pub async fn attack(site: &mut Site, row: &Attack) -> Result<Observed, AnyError> {
    let mutations = Mutations::of(&row.mutate);
    if let Some(verb) = mutations.arg("admin") {
        let observed = admin::attack(site, verb).await?;
        mutations.all_used()?;
        return Ok(observed);
    }
    site.prepare(&mutations).await?;
    let observed = if mutations.has("renew") {
        match enrol(site, &Mutations::none(), None).await? {
            Attempt { enrolled: Some(mut enrolled), observed } if observed.certificate => {
                site.before_renewal(&mutations, &mut enrolled).await?;
                enrol(site, &mutations, Some(enrolled)).await
            }
            Attempt { observed, .. } => {
                Err(format!("the enrolment before the attack was refused: {observed:?}").into())
            }
        }
    } else {
        enrol(site, &mutations, None).await
    };
    site.restore(&mutations).await?;
    let mut observed = observed?.observed;
    if let Some(id) = &observed.decision {
        let recorded = site.cluster.store().decision(id).await?.ok_or("no such decision")?;
        if recorded.decision.node.is_some() {
            observed.layer = Layer::Policy;
        }
    }
    mutations.all_used()?;
    Ok(observed)
}

/// An attempt's end, with what a renewal needs if evidence was sent.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The answer.
    pub observed: Observed,
    /// Keys, where it came to evidence.
    pub enrolled: Option<Enrolled>,
}

impl From<Observed> for Attempt {
    fn from(observed: Observed) -> Self {
        Self { observed, enrolled: None }
    }
}

/// One attempt, honest but for the mutations; a renewal where `known` is given.
///
/// # Errors
/// The harness failed.
pub async fn enrol(
    site: &mut Site,
    m: &Mutations,
    known: Option<Enrolled>,
) -> Result<Attempt, AnyError> {
    let channel = site.channel.clone();
    if m.has("flood") {
        return Ok(flood(site).await?.into());
    }
    let mut answerer = Answerer::new(site, m, known)?;
    let hello = answerer.hello()?;
    let mut stream = match Stream::open(&channel).await {
        Ok(stream) => stream,
        Err(status) => return Ok(Observed::status(&status, Layer::Wire).into()),
    };
    let challenge = match first(&mut stream, m, hello).await {
        Ok(Incoming::Challenge(challenge)) => challenge,
        Ok(Incoming::Result(result)) => return Ok(Observed::result(result).into()),
        Err(status) => return Ok(Observed::status(&status, Layer::Wire).into()),
    };
    let parts = ChallengeParts::try_from(challenge)?;
    let answer = answerer.answer(&parts).await?;
    second(&mut stream, m, &answer).await;
    let observed = match stream.next().await {
        Ok(Incoming::Result(result)) => Observed::result(result),
        Ok(Incoming::Challenge(_)) => return Err("a second challenge".into()),
        Err(status) => Observed::status(&status, Layer::Wire),
    };
    let enrolled = Some(answerer.enrolled(parts, answer, observed.clone()));
    Ok(Attempt { observed, enrolled })
}

/// Evidence and the log that follows it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Evidence.
    pub evidence: pb::Evidence,
    /// Tool log from the offset asked for.
    pub log: Vec<u8>,
    /// That offset.
    pub from: u64,
    /// The other logs that were asked for, each from the offset asked for.
    pub others: Vec<LogSuffix>,
}

/// Hello, or what comes in its place; then the verifier's answer.
async fn first(stream: &mut Stream, m: &Mutations, hello: pb::Hello) -> Result<Incoming, Status> {
    match m.arg("send") {
        Some("evidence-first") => {
            stream.send(Outgoing::Evidence(pb::Evidence::default())).await;
        }
        Some("log-first") => stream.send(Outgoing::LogChunk(pb::LogChunk::default())).await,
        Some("end-first") => stream.send(Outgoing::End(pb::End {})).await,
        Some("nothing-first") => stream.send_raw(pb::AttestRequest { message: None }).await,
        Some("close-first") => stream.close(),
        Some("huge-hello") => {
            let ek_certificate = vec![0; 600 * 1024];
            stream.send(Outgoing::Hello(pb::Hello { ek_certificate, ..hello })).await;
        }
        _ => stream.send(Outgoing::Hello(hello)).await,
    }
    stream.next().await
}

/// Evidence, logs and End, or what comes in their place.
async fn second(stream: &mut Stream, m: &Mutations, answer: &Answer) {
    let chunk = |kind: pb::LogKind, offset_bytes: u64, data: Vec<u8>| {
        Outgoing::LogChunk(pb::LogChunk { kind: kind.into(), offset_bytes, data })
    };
    let evidence = Outgoing::Evidence(answer.evidence.clone());
    let log = |from: u64| chunk(pb::LogKind::Tools, from, answer.log.clone());
    let end = Outgoing::End(pb::End {});
    let chunk_bytes = proto::limits::MAX_LOG_CHUNK_BYTES;
    let giant = || vec![0_u8; chunk_bytes];
    match m.arg("send") {
        Some("hello-again") => {
            let hello = pb::Hello { protocol_version: PROTOCOL_VERSION, ..Default::default() };
            stream.send(Outgoing::Hello(hello)).await;
            return;
        }
        Some("end-for-evidence") => return stream.send(end).await,
        Some("log-for-evidence") => return stream.send(log(answer.from)).await,
        Some("close-for-evidence") => return stream.close(),
        _ => {}
    }
    stream.send(evidence.clone()).await;
    match m.arg("send") {
        Some("evidence-twice") => return stream.send(evidence).await,
        Some("close-for-end") => return stream.close(),
        Some("log-uefi") => return stream.send(chunk(pb::LogKind::Uefi, 0, vec![0; 64])).await,
        Some("log-ima") => return stream.send(chunk(pb::LogKind::Ima, 0, vec![0; 64])).await,
        Some("log-kind-unknown") => {
            let data = pb::LogChunk { kind: 99, ..Default::default() };
            return stream.send(Outgoing::LogChunk(data)).await;
        }
        Some("log-gap") => return stream.send(log(answer.from + 1)).await,
        Some("log-overlap") => {
            stream.send(log(answer.from)).await;
            return stream.send(log(answer.from)).await;
        }
        Some("log-chunk-giant") => {
            let data = vec![0; chunk_bytes + 1];
            return stream.send(chunk(pb::LogKind::Tools, answer.from, data)).await;
        }
        Some("log-endless") => {
            let mut offset = answer.from;
            for _ in 0..=(proto::limits::MAX_TOOL_LOG_BYTES / chunk_bytes) {
                stream.send(chunk(pb::LogKind::Tools, offset, giant())).await;
                offset += chunk_bytes as u64;
            }
            return;
        }
        Some("no-log") => {}
        _ => stream.send(log(answer.from)).await,
    }
    for log in &answer.others {
        let mut offset = log.from_bytes;
        for data in log.bytes.chunks(chunk_bytes) {
            stream.send(chunk(log.kind.to_pb(), offset, data.to_vec())).await;
            offset += data.len() as u64;
        }
    }
    stream.send(end).await;
}

/// Opens a stream and stops talking: `hello`, or `evidence`.
///
/// # Errors
/// The harness failed.
pub async fn silence(
    channel: &Channel,
    what: &str,
    hello: pb::Hello,
) -> Result<Observed, AnyError> {
    let mut stream = Stream::open(channel).await?;
    if what == "evidence" {
        stream.send(Outgoing::Hello(hello)).await;
        match stream.next().await {
            Ok(Incoming::Challenge(_)) => {}
            other => return Err(format!("no challenge: {other:?}").into()),
        }
    }
    Ok(match stream.next().await {
        Ok(Incoming::Result(result)) => Observed::result(result),
        Ok(Incoming::Challenge(_)) => return Err("a challenge for silence".into()),
        Err(status) => Observed::status(&status, Layer::Wire),
    })
}

/// As many streams as one address may have, over several connections, and one more.
async fn flood(site: &Site) -> Result<Observed, AnyError> {
    let port = site.cluster.running().address.port();
    let bundle = site.cluster.folder().join("state/bundle.pem");
    let mut held = Vec::new();
    let mut refused = None;
    for index in 0..=proto::limits::MAX_STREAMS_PER_PEER {
        if index % 16 == 0 {
            held.push((stream::connect(port, &bundle, None).await?, Vec::new()));
        }
        let (channel, streams) = held.last_mut().ok_or("no connection")?;
        match Stream::open(channel).await {
            Ok(stream) => streams.push(stream),
            Err(status) => {
                refused = Some(Observed::status(&status, Layer::Wire));
                break;
            }
        }
    }
    drop(held);
    wait_until_served(&site.channel).await?;
    refused.ok_or_else(|| "every stream was opened".into())
}

/// Waits until the places that a flood held are free again.
async fn wait_until_served(channel: &Channel) -> Result<(), AnyError> {
    for _ in 0..200 {
        if Stream::open(channel).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    Err("the verifier stays busy after the flood ended".into())
}

/// The machine that an attempt runs on.
pub(crate) fn machine<'s>(site: &'s mut Site, m: &Mutations) -> &'s mut Machine {
    if m.has("machine:other") { &mut site.other } else { &mut site.worker }
}
