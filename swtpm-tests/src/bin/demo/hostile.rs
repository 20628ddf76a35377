//! A hostile worker with a genuine TPM.

use std::fs;

use attestor::{
    client::{Answer, Conversation, DEADLINES, connect},
    tpm::{SignedAttest, TpmConfig, TpmHandle},
    trust::{Learned, Trust},
};
use proto::{
    binding::{Purpose, QualifyingData},
    digest::{Digest, HashAlg},
    evidence::{ChallengeParts, PROTOCOL_VERSION},
    pb,
};
use swtpm_tests::cluster::AnyError;

use crate::site::Site;

/// Attests once by hand, then answers the next challenge with the
/// evidence of the first.
pub(crate) async fn replay(
    site: &Site,
    listen: &str,
    tcti: &str,
) -> Result<pb::AttestationResult, AnyError> {
    let config = TpmConfig { tcti: tcti.parse()?, ..TpmConfig::default() };
    let (tpm, thread) = TpmHandle::start(config).await?;
    let identity = tpm.enroll().await?;
    let hello = pb::Hello {
        protocol_version: PROTOCOL_VERSION,
        ek_public: identity.ek.public.as_bytes().to_vec(),
        ek_certificate: identity.ek.certificate.clone().unwrap_or_default(),
        ek_chain: identity.ek_chain.clone(),
        ak_public: identity.ak_public.as_bytes().to_vec(),
        logs: Vec::new(),
        attestor_version: "hostile".into(),
        job: None,
    };
    let trust = Trust::CaFile(site.path("state/bundle.pem"));
    let url = format!("https://{listen}");
    let log = fs::read(site.path("worker-state/tool.log"))?;
    let mut kept = None;
    let mut result = pb::AttestationResult::default();
    for _ in 0..2 {
        let channel = connect(&url, &trust.read()?, &Learned::default(), &DEADLINES).await?;
        let (conversation, answer) =
            Conversation::begin(channel, hello.clone(), &DEADLINES).await?;
        let Answer::Challenge(challenge) = answer else {
            return Err("the hostile worker was refused before its challenge".into());
        };
        let challenge = ChallengeParts::try_from(*challenge)?;
        let evidence = match kept.clone() {
            Some(evidence) => evidence,
            None => honest_evidence(&tpm, &challenge, &log).await?,
        };
        kept = Some(evidence.clone());
        let logs = challenge
            .logs_wanted
            .iter()
            .map(|(kind, from)| {
                let from_byte = usize::try_from(*from).unwrap_or(usize::MAX);
                (kind.to_pb(), *from, log.get(from_byte..).unwrap_or_default().to_vec())
            })
            .collect();
        result = conversation.finish(evidence, logs, &DEADLINES).await?;
    }
    drop(tpm);
    thread.ended().await;
    Ok(result)
}

async fn honest_evidence(
    tpm: &TpmHandle,
    challenge: &ChallengeParts,
    log: &[u8],
) -> Result<pb::Evidence, AnyError> {
    let (id_object, secret) = challenge.credential.clone().ok_or("no credential")?;
    let activation_secret = tpm.activate_credential(id_object, secret).await?.to_vec();
    let key = tpm.create_node_key().await?;
    let name = key.public().name();
    let data = QualifyingData::for_node_key(&challenge.challenge, &challenge.verifier_id, &name);
    let certify = tpm.certify_node_key(key.clone(), *data.as_bytes()).await?;
    let mut head = Digest::zero(HashAlg::Sha256);
    for event in proto::tool_log::ToolLogReader::new(log).flatten() {
        head = HashAlg::Sha256.hash(&[head.as_bytes(), event.content_digest().as_bytes()]);
    }
    let data = QualifyingData::for_quote(
        &Purpose::Node,
        &challenge.challenge,
        &challenge.verifier_id,
        &name,
        &head,
    );
    let quote = tpm.quote(*data.as_bytes(), challenge.pcr_selection.clone()).await?;
    let values = tpm.read_pcrs(challenge.pcr_selection.clone()).await?;
    let signed = |attest: SignedAttest| pb::SignedAttest {
        attest: attest.attest,
        signature: attest.signature,
    };
    Ok(pb::Evidence {
        activation_secret,
        quote: Some(signed(quote)),
        pcr_values: values
            .into_iter()
            .map(|value| pb::PcrValue {
                hash_alg: u32::from(value.bank.tpm_id()),
                index: u32::from(value.index.get()),
                digest: value.digest.as_bytes().to_vec(),
            })
            .collect(),
        node_key: Some(pb::NodeKey {
            public: key.public().as_bytes().to_vec(),
            parent_public: key.parent_public().as_bytes().to_vec(),
            certify: Some(signed(certify)),
        }),
    })
}
