//! Machines that boot Debian 12's own systemd: it measures its boot phases into PCR 11, and writes no log of them.
//!
//! The units are the distribution's, the kernel image is measured by the real stub, and the attestor runs as its service.
//! Two images: one whose initrd is a script, as Debian's are, and one whose initrd runs systemd.

use std::{fs, sync::Arc};

use appraisal::boot_log::{EventSource, Later, explain};
use attestor::output::Status;
use proto::{
    digest::{Digest, HashAlg, PcrIndex, PcrSet},
    eventlog::EventLog,
    evidence::PcrValue,
};
use swtpm_tests::{
    cluster::AnyError,
    machine::{
        BootRecord, Guest, Image, InitialRamDisk, Machine, Requirement, SecureBoot, Site, Systemd,
        require,
    },
};

/// The version that measures phases and keeps no log: Debian 12's.
const WITHOUT_LOG: u32 = 252;
/// Names this host's distribution and its release.
const OS_RELEASE: &str = "/etc/os-release";
/// PCR of the sections of a kernel image and of boot phases.
const PHASE_PCR: u8 = 11;
/// Where a later systemd keeps its log.
const SYSTEMD_LOG: &str = "/run/log/systemd/tpm2-measure.log";

/// Reason code and subject of every finding, in order; none is an admission.
type Expected = &'static [(&'static str, &'static str)];

const ADMITTED: Expected = &[];
const UNEXPLAINED: Expected = &[("EVENT_LOG_REPLAY_MISMATCH", "event log, PCR 11 (sha256)")];

/// How a machine boots, and what that measures.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    initial: InitialRamDisk,
    phases: &'static [&'static str],
}

const FROM_A_SCRIPT: Way =
    Way { name: "from-a-script", initial: InitialRamDisk::Script, phases: &["sysinit", "ready"] };
const FROM_SYSTEMD: Way = Way {
    name: "from-systemd",
    initial: InitialRamDisk::Systemd,
    phases: &["enter-initrd", "leave-initrd", "sysinit", "ready"],
};

/// What happens in a guest after its boot, and the verdict on it: each on top of those before.
struct Event {
    name: &'static str,
    happens: &'static str,
    /// Phases that are told then; `None` where nothing leads to PCR 11.
    phases: Option<&'static [&'static str]>,
    expected: Expected,
}

const EVENTS_OF_A_SCRIPT: [Event; 2] = [
    Event {
        name: "systemd's unit measures the next phase",
        happens: "systemctl stop systemd-pcrphase.service",
        phases: Some(&["sysinit", "ready", "shutdown"]),
        expected: ADMITTED,
    },
    Event {
        name: "and then one that was before",
        happens: "systemctl start systemd-pcrphase.service",
        phases: None,
        expected: UNEXPLAINED,
    },
];
const EVENTS_OF_SYSTEMD: [Event; 1] = [Event {
    name: "systemd's program measures a word that is no phase",
    happens: "/usr/lib/systemd/systemd-pcrphase intruder",
    phases: None,
    expected: UNEXPLAINED,
}];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn boot_phases_that_no_log_tells_explain_pcr_11() {
    let Requirement::Met(parts) = require() else { return };
    let release = fs::read_to_string(OS_RELEASE).expect("this host's release");
    if !is_debian_12(&release) {
        // Not for want of a part: another release has another systemd, also in CI.
        eprintln!("skipped: only Debian 12's systemd measures phases and keeps no log");
        return;
    }
    let systemd = Systemd::find().expect("systemd, unpacked");
    assert_eq!(systemd.version(), WITHOUT_LOG, "what is unpacked is not Debian 12's");
    let site = Arc::new(Site::start(&parts).await.expect("verifier"));
    let one =
        tokio::spawn(way(Arc::clone(&site), systemd.clone(), FROM_A_SCRIPT, &EVENTS_OF_A_SCRIPT));
    let other = tokio::spawn(way(site, systemd, FROM_SYSTEMD, &EVENTS_OF_SYSTEMD));
    for ended in [one.await, other.await] {
        if let Err(wrong) = ended.expect("no panic") {
            panic!("{wrong}");
        }
    }
}

/// Whether this is how Debian 12 names itself.
fn is_debian_12(os_release: &str) -> bool {
    let has = |field: &str| os_release.lines().any(|line| line.replace('"', "") == field);
    has("ID=debian") && has("VERSION_ID=12")
}

#[test]
fn debian_12_is_told_from_others() {
    let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
    assert!(is_debian_12(debian));
    assert!(!is_debian_12(&debian.replace("\"12\"", "\"13\"")));
    assert!(!is_debian_12(&debian.replace("ID=debian", "ID=ubuntu")));
}

/// A golden set of the first boot; the second boot under it, and what happens there.
async fn way(
    site: Arc<Site>,
    systemd: Systemd,
    way: Way,
    events: &'static [Event],
) -> Result<(), String> {
    let named =
        |what: &'static str| move |error: AnyError| format!("{}, {what}: {error}", way.name);
    let image = site.image_with_systemd(&systemd, way.initial).map_err(|e| e.to_string())?;
    let mut machine = captured(&site, &image, way).await.map_err(named("captured"))?;
    let mut guest = booted(&site, &mut machine, &image, way).await.map_err(named("again"))?;
    judged(&site, &mut guest, ADMITTED).await.map_err(named("again"))?;
    for event in events {
        let happened = async {
            guest.succeed(event.happens).await?;
            let told = told_phases(&mut guest).await?;
            let expected =
                event.phases.map(|phases| phases.iter().map(|p| (*p).to_owned()).collect());
            if told != expected {
                return Err(format!("phases: {told:?}").into());
            }
            judged(&site, &mut guest, event.expected).await
        };
        happened.await.map_err(named(event.name))?;
    }
    guest.power_off().await.map_err(|error| error.to_string())
}

/// Boots a new machine, which is denied for want of reference values, and makes what it proved the golden set.
async fn captured(site: &Site, image: &Image, way: Way) -> Result<Machine, AnyError> {
    let mut machine = site.worker(way.name, way.name, SecureBoot::On).await?;
    let mut guest = booted(site, &mut machine, image, way).await?;
    let status = site.attest_as_service(&mut guest).await?;
    let missing = format!("pool {}", way.name);
    if reasons(&status) != [("POLICY_NO_REFERENCE_VALUES", missing.as_str())] {
        return Err(format!("without a golden set: {status:#?}").into());
    }
    let golden = site.cluster.golden_from(way.name, |text| text).await?;
    for phase in way.phases {
        let what = format!("what = 'measurement of the running system \"{phase}\"'");
        if !golden.contains(&what) {
            return Err(format!("no {phase} in the golden set:\n{golden}").into());
        }
    }
    judged(site, &mut guest, ADMITTED).await?;
    guest.power_off().await?;
    Ok(machine)
}

/// A boot that is up: systemd says so, keeps no log, and measured what `way` does.
async fn booted(
    site: &Site,
    machine: &mut Machine,
    image: &Image,
    way: Way,
) -> Result<Guest, AnyError> {
    let mut guest = machine.boot(image).await?;
    guest.succeed(&format!("systemctl is-system-running --wait && ! [ -e {SYSTEMD_LOG} ]")).await?;
    let told = told_phases(&mut guest).await?;
    if told.as_deref().is_none_or(|told| told != way.phases) {
        let units =
            guest.run("journalctl --no-pager -o short-monotonic -u 'systemd-pcrphase*'").await?;
        return Err(format!("phases of the boot: {told:?}\n{}", units.text()).into());
    }
    site.configure(&mut guest).await?;
    Ok(guest)
}

/// The phases that lead from the firmware's log to PCR 11 as it is now, in every bank; `None` where none do.
async fn told_phases(guest: &mut Guest) -> Result<Option<Vec<String>>, AnyError> {
    let record = BootRecord::read(guest).await?;
    let log = EventLog::parse(&record.uefi)?;
    let mut values = Vec::new();
    for (bank, pcrs) in &record.pcrs {
        let bank: HashAlg = bank.parse().map_err(|_| format!("bank {bank}"))?;
        for (index, value) in pcrs.iter().filter(|(index, _)| **index <= PHASE_PCR) {
            let index = PcrIndex::new(*index).ok_or("a PCR")?;
            values.push(PcrValue { index, value: Digest::new(bank, &hex::decode(value)?)? });
        }
    }
    values.sort_by_key(|value| (value.value.alg(), value.index));
    let explained = explain(&log, Later::default(), &values, PcrSet::default())
        .map_err(|denial| format!("{denial:?}"))?;
    if !explained.explained().iter().any(|pcr| pcr.get() == PHASE_PCR) {
        return Ok(None);
    }
    let facts = &explained.facts().userspace;
    if facts.iter().any(|fact| (fact.source, fact.pcr) != (EventSource::Inferred, PHASE_PCR)) {
        return Err(format!("facts: {facts:#?}").into());
    }
    Ok(Some(facts.iter().filter_map(|fact| fact.text.clone()).collect()))
}

/// The attestor's service attests; how the verdict is another than expected.
async fn judged(site: &Site, guest: &mut Guest, expected: Expected) -> Result<(), AnyError> {
    let status = site.attest_as_service(guest).await?;
    let outcome = if expected.is_empty() { "admitted" } else { "denied" };
    if status.outcome == outcome && reasons(&status) == expected {
        return Ok(());
    }
    Err(format!("expected {outcome} {expected:#?}, got {status:#?}").into())
}

fn reasons(status: &Status) -> Vec<(&str, &str)> {
    let reasons = status.reasons.iter();
    reasons.map(|reason| (reason.code.as_str(), reason.subject.as_str())).collect()
}
