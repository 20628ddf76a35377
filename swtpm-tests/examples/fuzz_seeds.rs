//! Writes the committed fuzz seeds and fixtures under proto/fuzz, from a real (software) TPM.
//!
//! `cargo xtask fuzz-seeds` runs it. Keys are fresh each time, so run it only when a format changes; with the argument
//! `logs` it writes the seeds of firmware logs only, which have no keys in them.

use std::{error::Error, fs, path::PathBuf};

use appraisal::{
    ak::BoundAk,
    boot::{Boot, BootDocument, Counters},
    claims::{EkClaims, EkTrust},
};
use prost::Message;
use proto::{
    binding::{Challenge, Purpose, QualifyingData, VerifierId},
    digest::{Digest, HashAlg, PcrIndex},
    eventlog::EventLog,
    pb::{self, attest_request::Message as Request},
    spki,
    tool_log::{
        EntryKind, FileRole, ToolEntry, ToolLogState, ToolMeasurement, ToolState, encode_event,
    },
    tpm::{
        attest::Attest,
        constants::RH_ENDORSEMENT,
        name::Name,
        public::{ObjectAttributes, Public},
    },
};
use swtpm_tests::{
    firmware::Firmware,
    manufacturer::{DAY, EkProfile, EkTemplate, Issuer, Manufacturer, spki as certificate_spki},
    raw::{Bank, Primary, RH_NULL, RawTpm},
    swtpm::{Swtpm, SwtpmOptions},
};
use x509_cert::der::Encode;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What the fuzz target `appraise` assumes.
const CHALLENGE: [u8; 32] = [0xc1; 32];
const VERIFIER_ID: [u8; 32] = [0x1d; 32];
const ENDORSEMENTS: &[u8] = b"fuzz";
const TOOL_PCR: u8 = 14;

fn main() -> Outcome<()> {
    let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../proto/fuzz").canonicalize()?;
    let out = Output { fuzz };
    firmware_logs(&out)?;
    if std::env::args().nth(1).as_deref() == Some("logs") {
        return Ok(());
    }
    let tpm = Swtpm::start(SwtpmOptions::with_all_eks())?;
    Firmware::default().boot_swtpm(&tpm)?;
    endorsement(&out, &tpm)?;
    attestation(&out, tpm.raw(), &tpm.ek(EkTemplate::Rsa2048)?)?;
    for (target, name, bytes) in soft_tpm::ima_seeds::seeds() {
        out.seed(target, &name, &bytes)?;
    }
    println!("wrote {}", out.fuzz.display());
    Ok(())
}

struct Output {
    fuzz: PathBuf,
}

impl Output {
    fn seed(&self, target: &str, name: &str, bytes: &[u8]) -> Outcome<()> {
        self.write(&format!("seeds/{target}"), name, bytes)
    }

    fn fixture(&self, name: &str, bytes: &[u8]) -> Outcome<()> {
        self.write("fixtures", name, bytes)
    }

    fn write(&self, directory: &str, name: &str, bytes: &[u8]) -> Outcome<()> {
        let directory = self.fuzz.join(directory);
        fs::create_dir_all(&directory)?;
        Ok(fs::write(directory.join(name), bytes)?)
    }
}

/// Logs of firmware and of systemd, and the data of one event of each type.
fn firmware_logs(out: &Output) -> Outcome<()> {
    let firmware = Firmware::default();
    let log = firmware.event_log(&[Bank::Sha256]);
    out.seed("uefi_log", "sha256", &log)?;
    out.seed("uefi_log", "all_banks", &firmware.event_log(&Bank::ALL))?;
    let off = Firmware { secure_boot: false, ..Firmware::default() };
    let mut padded = off.event_log(&[Bank::Sha256, Bank::Sha384]);
    padded.extend([0xff; 64]);
    out.seed("uefi_log", "padded", &padded)?;
    let mut old = Vec::new();
    let mut seen = Vec::new();
    for event in EventLog::parse(&log)?.events() {
        if event.is_extended() {
            // The same events as a log in the format of TPM 1.2.
            old.extend(event.pcr.map_or(u32::MAX, |pcr| pcr.get().into()).to_le_bytes());
            old.extend(event.untrusted_type.0.to_le_bytes());
            old.extend(Bank::Sha1.hash(event.untrusted_data));
            old.extend(u32::try_from(event.untrusted_data.len())?.to_le_bytes());
            old.extend(event.untrusted_data);
        }
        if !seen.contains(&event.untrusted_type) {
            seen.push(event.untrusted_type);
            let name = event.untrusted_type.to_string().to_lowercase();
            out.seed("efi_variable", &name, event.untrusted_data)?;
        }
    }
    out.seed("uefi_log", "tpm12", &old)?;
    let mut records = String::new();
    for (pcr, text) in [(11, "enter-initrd"), (11, "sysinit"), (15, "machine-id:0123456789abcdef")]
    {
        let digest = HashAlg::Sha256.hash(&[text.as_bytes()]);
        let record = serde_json::json!({
            "pcr": pcr,
            "digests": [{ "hashAlg": "sha256", "digest": hex::encode(digest.as_bytes()) }],
            "content_type": "systemd",
            "content": { "string": text, "bootId": "00", "timestamp": 1, "eventType": "phase" },
        });
        records.push_str(&format!("\u{1e}{record}\n"));
    }
    out.seed("systemd_log", "boot", records.as_bytes())
}

/// EK public areas, certificates, chains and CRLs, good and forged.
fn endorsement(out: &Output, tpm: &Swtpm) -> Outcome<()> {
    let manufacturer = tpm.manufacturer();
    for template in EkTemplate::ALL {
        let name = format!("ek_{template:?}").to_lowercase();
        out.seed("tpm_public", &name, tpm.ek(template)?.as_bytes())?;
        let certificate = tpm.raw().nv_read(template.certificate_index())?;
        out.seed("x509", &name, &certificate)?;
    }
    let intermediate = manufacturer.intermediate_der()?;
    out.seed("x509", "intermediate", &intermediate)?;
    out.seed("x509", "root", &manufacturer.root_der()?)?;
    let ek = tpm.ek(EkTemplate::EccP256)?;
    let good = manufacturer.issue(&ek, &EkProfile { not_after: None, ..EkProfile::default() })?;
    let since = EkProfile::default().not_before;
    let crl = manufacturer.crl(std::slice::from_ref(&good.serial), since, since + 30 * DAY)?;
    out.seed("x509", "crl", &crl)?;
    out.fixture("ek_root.der", &manufacturer.root_der()?)?;
    out.fixture("ek_leaf.der", &good.der)?;
    out.fixture("ek_public.bin", ek.as_bytes())?;
    out.seed("ek_chain", "good", &presented(&ek, &good.der, &good.chain)?)?;
    let issuers = [Issuer::NotCa, Issuer::Deep(3), Issuer::Impostor, Issuer::Loop];
    for issuer in issuers {
        let forged = Manufacturer::new("Assay Test TPMs")?
            .issue(&ek, &EkProfile { issuer, ..EkProfile::default() })?;
        let name = format!("forged_{issuer:?}").to_lowercase().replace(['(', ')'], "");
        out.seed("ek_chain", &name, &presented(&ek, &forged.der, &forged.chain)?)?;
    }
    Ok(())
}

/// The input of the target `ek_chain`: fields with two bytes of length.
fn presented(ek: &Public, leaf: &[u8], chain: &[Vec<u8>]) -> Outcome<Vec<u8>> {
    let mut out = Vec::new();
    for field in [ek.as_bytes(), leaf].into_iter().chain(chain.iter().map(Vec::as_slice)) {
        out.extend_from_slice(&u16::try_from(field.len())?.to_be_bytes());
        out.extend_from_slice(field);
    }
    Ok(out)
}

/// A boot with one measured tool, its quote, its record and its golden set.
fn attestation(out: &Output, tpm: RawTpm, ek: &Public) -> Outcome<()> {
    let ak = primary(tpm, RH_ENDORSEMENT, ObjectAttributes::RESTRICTED)?;
    let node_key = primary(tpm, RH_NULL, 0)?;
    out.seed("tpm_public", "ak", &ak.public)?;
    out.seed("tpm_public", "node_key", &node_key.public)?;
    let ak_public = Public::decode(&ak.public)?;
    let node_key_public = Public::decode(&node_key.public)?;
    let qualified_name =
        Name::qualified_primary(RH_ENDORSEMENT, HashAlg::Sha256, &ak_public.name());
    BoundAk::assert_from_store(&ak_public, qualified_name.clone())
        .map_err(|denial| format!("the AK is refused: {}", denial.code()))?;

    let pcr = PcrIndex::new(TOOL_PCR).ok_or("PCR 14 is a PCR")?;
    let log = tool_log(tpm, pcr)?;
    out.seed("tool_log", "boot", &log)?;
    let mut state = ToolLogState::at_reset(pcr, &[HashAlg::Sha256]);
    state.apply(&log)?;

    let (challenge, verifier) = (Challenge::new(CHALLENGE), VerifierId::new(VERIFIER_ID));
    let data = QualifyingData::for_quote(
        &Purpose::Node,
        &challenge,
        &verifier,
        &node_key_public.name(),
        &state.head,
    );
    let bits = [0u8, 4, 7, TOOL_PCR].iter().fold(0u32, |bits, pcr| bits | 1 << pcr);
    let (attest, signature) = tpm.quote(ak.handle, data.as_bytes(), &[(Bank::Sha256, bits)])?;
    let certify_data = QualifyingData::for_node_key(&challenge, &verifier, &node_key_public.name());
    let (certify, _) = tpm.certify(node_key.handle, ak.handle, certify_data.as_bytes())?;
    for (name, bytes) in [("quote", &attest), ("certify", &certify)] {
        out.seed("tpm_attest", name, bytes)?;
    }
    out.seed("tpm_signature", "ecdsa", &signature)?;
    // RSASSA with SHA-256, RSAPSS with SHA-384: headers as a TPM writes them.
    for (name, scheme, hash) in [("rsassa", 0x14u8, 0x0b), ("rsapss", 0x16, 0x0c)] {
        let mut bytes = vec![0, scheme, 0, hash, 1, 0];
        bytes.extend_from_slice(&[0x5a; 256]);
        out.seed("tpm_signature", name, &bytes)?;
    }

    let mut values = Vec::new();
    for index in [0u8, 4, 7, TOOL_PCR] {
        let digest = tpm.pcr_read(Bank::Sha256, index)?.ok_or("the SHA-256 bank is allocated")?;
        values.push(pb::PcrValue {
            hash_alg: Bank::Sha256.tpm_id().into(),
            index: index.into(),
            digest,
        });
    }
    let golden = golden_set(&values, &state);
    out.fixture("golden.toml", golden.as_bytes())?;
    out.seed("golden_set", "golden", golden.as_bytes())?;

    let clock = Attest::decode(&attest)?;
    let boot = BootDocument {
        ak_public: hex::encode(&ak.public),
        ak_qualified_name: qualified_name,
        ek: EkClaims {
            digest: spki::ek_digest(ek),
            trust: EkTrust::AllowListed,
            manufacturer: None,
            model: None,
            version: None,
        },
        endorsements: HashAlg::Sha256.hash(&[ENDORSEMENTS]),
        ek_valid_until_unix_s: None,
        counters: Counters::from(clock.clock_info),
        firmware_version: clock.firmware_version,
        node_key: hex::encode(&node_key.public),
        tool_log: state.into(),
        boot_log: appraisal::boot::BootLog::Absent,
        ima: None,
    };
    Boot::assert_from_store(boot.clone())?;
    out.fixture("boot.json", &serde_json::to_vec_pretty(&boot)?)?;

    let evidence = pb::Evidence {
        activation_secret: Vec::new(),
        quote: Some(pb::SignedAttest { attest, signature }),
        pcr_values: values,
        node_key: None,
    };
    let mut framed = Vec::new();
    evidence.encode_length_delimited(&mut framed)?;
    out.fixture("evidence.bin", &framed)?;
    out.seed("appraise", "renewal", &framed)?;
    let mut with_log = framed.clone();
    with_log.extend_from_slice(&log);
    out.seed("appraise", "renewal_with_log", &with_log)?;
    messages(out, ek, &ak.public, &node_key.public, evidence, &log)?;
    // The SPKI of certificate and contract agree; said here because both are at hand.
    assert_eq!(certificate_spki(ek)?.to_der()?, spki::canonical_spki(ek));
    tpm.flush(ak.handle)?;
    tpm.flush(node_key.handle)?;
    Ok(())
}

/// A whole stream of worker messages, and a challenge.
fn messages(
    out: &Output,
    ek: &Public,
    ak_public: &[u8],
    node_key: &[u8],
    mut evidence: pb::Evidence,
    log: &[u8],
) -> Outcome<()> {
    evidence.node_key = Some(pb::NodeKey {
        public: node_key.to_vec(),
        parent_public: node_key.to_vec(),
        certify: evidence.quote.clone(),
    });
    let tools = pb::LogKind::Tools.into();
    let hello = pb::Hello {
        protocol_version: 1,
        ek_public: ek.as_bytes().to_vec(),
        ek_certificate: Vec::new(),
        ek_chain: Vec::new(),
        ak_public: ak_public.to_vec(),
        logs: vec![pb::LogState { kind: tools, size_bytes: u64::try_from(log.len())? }],
        attestor_version: "0.1.0".into(),
        job: None,
    };
    let (first, second) = log.split_at(log.len() / 2);
    let chunk = |offset: usize, data: &[u8]| -> Outcome<Request> {
        let offset_bytes = u64::try_from(offset)?;
        Ok(Request::LogChunk(pb::LogChunk { kind: tools, offset_bytes, data: data.to_vec() }))
    };
    let stream = [
        Request::Hello(hello),
        Request::Evidence(evidence),
        chunk(0, first)?,
        chunk(first.len(), second)?,
        Request::End(pb::End {}),
    ];
    let mut bytes = Vec::new();
    for message in stream {
        pb::AttestRequest { message: Some(message) }.encode_length_delimited(&mut bytes)?;
    }
    out.seed("pb_messages", "stream", &bytes)?;
    let challenge = pb::Challenge {
        challenge: CHALLENGE.to_vec(),
        verifier_id: VERIFIER_ID.to_vec(),
        credential: None,
        pcr_selection: vec![pb::PcrSelection {
            hash_alg: Bank::Sha256.tpm_id().into(),
            pcr_bits: 0xff,
        }],
        logs_wanted: vec![pb::LogWanted { kind: tools, from_bytes: 0 }],
        deadline_ms: 60_000,
        node_key_wanted: true,
    };
    let response =
        pb::AttestResponse { message: Some(pb::attest_response::Message::Challenge(challenge)) };
    out.seed("pb_messages", "challenge", &response.encode_to_vec())
}

/// A P-256 ECDSA-SHA256 signing key under `hierarchy`.
fn primary(tpm: RawTpm, hierarchy: u32, extra: u32) -> Outcome<Primary> {
    let attributes = ObjectAttributes::FIXED_TPM
        | ObjectAttributes::FIXED_PARENT
        | ObjectAttributes::SENSITIVE_DATA_ORIGIN
        | ObjectAttributes::USER_WITH_AUTH
        | ObjectAttributes::NO_DA
        | ObjectAttributes::SIGN
        | extra;
    let mut template = vec![0x00, 0x23, 0x00, 0x0b];
    template.extend_from_slice(&attributes.to_be_bytes());
    template.extend_from_slice(&[0, 0, 0x00, 0x10, 0x00, 0x18, 0x00, 0x0b]);
    template.extend_from_slice(&[0x00, 0x03, 0x00, 0x10, 0, 0, 0, 0]);
    Ok(tpm.create_primary(hierarchy, &[], &[], &template)?)
}

/// Two events: a compiler with a library and a link, and a tool that is not there; both extended.
fn tool_log(tpm: RawTpm, pcr: PcrIndex) -> Outcome<Vec<u8>> {
    let file = |path: &str, role, content: &[u8]| -> Outcome<ToolEntry> {
        let kind = EntryKind::File {
            role,
            size_bytes: u64::try_from(content.len())?,
            digest: HashAlg::Sha256.hash(&[content]),
        };
        Ok(ToolEntry { path: path.into(), kind })
    };
    let entries = vec![
        file("/usr/bin/gcc-12", FileRole::Listed, b"compiler")?,
        file("/usr/lib/libc.so.6", FileRole::Library, b"library")?,
        ToolEntry {
            path: b"/usr/bin/gcc".to_vec(),
            kind: EntryKind::Link { target: b"gcc-12".to_vec() },
        },
    ];
    let version = Some("12.2.0".to_owned());
    let package = Some("gcc-12".to_owned());
    let gcc = ToolMeasurement::new("gcc", ToolState::Present, version, package, entries)?;
    let absent = ToolMeasurement::absent("clang")?;
    let mut log = Vec::new();
    for (number, measurement) in [gcc, absent].iter().enumerate() {
        let banks = [HashAlg::Sha256];
        let event = encode_event(u64::try_from(number)?, pcr, &banks, measurement);
        let reader = proto::tool_log::ToolLogReader::new(&event).next();
        let decoded = reader.ok_or("an event decodes")??;
        let digests: Vec<_> = decoded
            .digests
            .iter()
            .map(|digest| (Bank::Sha256, digest.as_bytes().to_vec()))
            .collect();
        tpm.pcr_extend(pcr.get(), &digests)?;
        log.extend_from_slice(&event);
    }
    Ok(log)
}

/// The golden set that the boot satisfies.
fn golden_set(values: &[pb::PcrValue], state: &ToolLogState) -> String {
    let mut out = String::from(
        "schema = \"assay.golden/v1\"\nname = \"fuzz\"\npool = \"fuzz\"\nversion = 1\n",
    );
    for value in values.iter().filter(|value| value.index != u32::from(TOOL_PCR)) {
        out.push_str(&format!(
            "\n[[pcr]]\nbank = \"sha256\"\nindex = {}\naccept = [{{ value = \"{}\" }}]\n",
            value.index,
            hex::encode(&value.digest)
        ));
    }
    for (name, tool) in state.latest.iter().filter(|(_, tool)| tool.state == ToolState::Present) {
        let digest: &Digest = &tool.digest;
        out.push_str(&format!(
            "\n[[tool]]\nname = \"{name}\"\naccept = [{{ digest = \"{digest}\" }}]\n"
        ));
    }
    out
}
