//! The main path on machines that really boot: what a golden set captured from one boot admits, and what it denies.
//!
//! Each boot costs some 20 s of a processor, so that one site, one golden set and few boots serve every
//! assertion. `cargo xtask machine` starts such a machine for a person.

#[path = "machine/predicted.rs"]
mod predicted;
#[path = "machine/update.rs"]
mod update;

use std::{collections::BTreeSet, sync::Arc};

use appraisal::{ima::Manifest, policy::document::GoldenDocument};
use attestor::output::Status;
use proto::eventlog::{EventLog, EventType};
use swtpm_tests::{
    cluster::AnyError,
    machine::{Guest, Image, Machine, MachineError, Requirement, SecureBoot, Site, require},
};
use tokio::{sync::Semaphore, task::JoinSet};
use verifier::store::{NewManifest, NodeChange};

/// Machines that run side by side: each keeps one processor busy.
const SIDE_BY_SIDE: usize = 2;
/// The golden set's pool.
const POOL: &str = "linux";

/// Reason code and subject of every finding, in order; none is an admission. To expect more of a row (the
/// event, the file), change it here.
type Expected = &'static [(&'static str, &'static str)];

const ADMITTED: Expected = &[];
/// Codes for a genuine TPM that is nobody's node.
const UNKNOWN_TPM: [&str; 2] = ["NODE_PENDING", "POLICY_NO_REFERENCE_VALUES"];
const PCR: &str = "POLICY_PCR_NOT_ALLOWED";
const EVENT: &str = "POLICY_EVENT_NOT_ALLOWED";
const APPLICATION: &str = "POLICY_BOOT_APPLICATION_NOT_ALLOWED";
const LOADED_IMAGE: &str = "event 29 (PCR 4): boot application \\EFI\\BOOT\\BOOTX64.EFI";

/// A worker of the pool that boots something else.
struct OtherBoot {
    name: &'static str,
    secure_boot: SecureBoot,
    image: fn(Image) -> Result<Image, MachineError>,
    /// Succeeds in the guest where the difference is there.
    is_there: &'static str,
    expected: Expected,
}

const OTHER_BOOTS: [OtherBoot; 4] = [
    OtherBoot {
        name: "another-command-line",
        secure_boot: SecureBoot::On,
        image: |image| Ok(image.append_command_line("lockdown=none")),
        is_there: "grep -q lockdown=none /proc/cmdline",
        expected: &[
            (APPLICATION, "event 29 (PCR 4): boot application"),
            ("POLICY_BOOT_COMMAND_LINE_NOT_ALLOWED", "event 35 (PCR 11): kernel command line"),
            (EVENT, "event 38 (PCR 9): kernel command line"),
            (PCR, LOADED_IMAGE),
            (PCR, "event 35 (PCR 11): kernel image section .cmdline"),
        ],
    },
    OtherBoot {
        name: "another-initrd",
        secure_boot: SecureBoot::On,
        image: |image| Ok(image.with_file("/etc/profile", b"# a back door\n")),
        is_there: "grep -q 'back door' /etc/profile",
        expected: &[
            (APPLICATION, "event 29 (PCR 4): boot application"),
            (EVENT, "event 39 (PCR 9): initial RAM disk"),
            (PCR, LOADED_IMAGE),
            (PCR, "event 37 (PCR 11): kernel image section .initrd"),
        ],
    },
    OtherBoot {
        name: "another-kernel",
        secure_boot: SecureBoot::On,
        image: Image::with_other_kernel,
        // The text that differs is the boot protocol's, which Linux does not show.
        is_there: "true",
        expected: &[
            (APPLICATION, "event 29 (PCR 4): boot application"),
            (PCR, LOADED_IMAGE),
            (PCR, "event 31 (PCR 11): kernel image section .linux"),
        ],
    },
    OtherBoot {
        // The same program without its signature, which its Authenticode digest leaves out. Yet PCR 4 differs: where
        // Secure Boot is off, firmware loads and measures the kernel inside of it too. PCR 0 differs because
        // OVMF measures a firmware volume that depends on the mode.
        name: "secure-boot-off",
        secure_boot: SecureBoot::Off,
        image: |image| Ok(image.unsigned()),
        is_there: "grep -q '\\[none\\]' /sys/kernel/security/lockdown",
        expected: &[
            (APPLICATION, "event 37 (PCR 4): boot application"),
            ("POLICY_BOOT_PROBLEM", "event log, PCR 7, event 5: SETUP_MODE"),
            ("POLICY_BOOT_SECURE_BOOT", "Secure Boot"),
            (PCR, "event 2 (PCR 0): firmware code, 917504 bytes at 0x820000"),
            (
                PCR,
                "event 37 (PCR 4): boot application VenMedia(55c5d1f8-04cd-46b5-8a20-e56cbb3052d0)",
            ),
            (PCR, "event 4 (PCR 7): firmware variable SecureBoot"),
        ],
    },
];

/// What happens in a guest that booted what it should.
struct Event {
    name: &'static str,
    happens: &'static str,
    expected: Expected,
    /// Puts right what happened: then the guest is admitted again.
    is_undone_by: &'static str,
}

const EVENTS: [Event; 2] = [
    Event {
        name: "values in PCR 16 and 23, which anybody can extend and reset",
        happens: EXTEND_16_AND_23,
        expected: ADMITTED,
        is_undone_by: RESET_16,
    },
    Event {
        name: "another library under the build tool",
        // The assembler still runs: its zlib has grown by a byte.
        happens: "cp /lib/x86_64-linux-gnu/libz.so.1 /tmp/libz && echo >> \
                  /lib/x86_64-linux-gnu/libz.so.1 && as --version",
        expected: &[("POLICY_TOOL_NOT_ALLOWED", "tool as: /lib/x86_64-linux-gnu/libz.so.1")],
        is_undone_by: "cat /tmp/libz > /lib/x86_64-linux-gnu/libz.so.1",
    },
];

/// The log of an honest boot, changed before it is sent.
struct EditedLog {
    name: &'static str,
    edit: fn(&mut Vec<u8>),
    expected: Expected,
}

const EDITED_LOGS: [EditedLog; 5] = [
    EditedLog {
        name: "Secure Boot's variable says another value than its digest",
        edit: |log| {
            let event = event(log, 7, EventType::EFI_VARIABLE_DRIVER_CONFIG);
            log[event.end - 1] ^= 1;
        },
        // Nothing that stands before the separator is believed then.
        expected: &[
            ("POLICY_BOOT_KEY_NOT_ALLOWED", "KEK"),
            ("POLICY_BOOT_KEY_NOT_ALLOWED", "PK"),
            ("POLICY_BOOT_KEY_NOT_ALLOWED", "db"),
            ("POLICY_BOOT_PROBLEM", "event log, PCR 7, event 4: DATA_NOT_VOUCHED"),
            ("POLICY_BOOT_PROBLEM", "event log, PCR 7: SECURE_BOOT_UNKNOWN"),
            ("POLICY_BOOT_SECURE_BOOT", "Secure Boot"),
        ],
    },
    EditedLog {
        name: "a boot application is called a separator",
        edit: |log| {
            let event = event(log, 4, EventType::EFI_BOOT_SERVICES_APPLICATION);
            let separator = EventType::SEPARATOR.0.to_le_bytes();
            log[event.start + 4..event.start + 8].copy_from_slice(&separator);
        },
        expected: &[("POLICY_BOOT_PROBLEM", "event log, PCR 4, event 29: TYPE_MISLABELLED")],
    },
    EditedLog {
        name: "the boot application is left out",
        edit: |log| {
            let event = event(log, 4, EventType::EFI_BOOT_SERVICES_APPLICATION);
            log.drain(event);
        },
        expected: &[(REPLAY, "event log, PCR 4 (sha256)")],
    },
    EditedLog {
        name: "a separator is added",
        edit: |log| {
            let separator = event(log, 4, EventType::SEPARATOR);
            let copy = log[separator.clone()].to_vec();
            log.splice(separator.end..separator.end, copy);
        },
        expected: &[(REPLAY, "event log, PCR 4 (sha256)")],
    },
    EditedLog {
        name: "it ends inside an event",
        edit: |log| log.truncate(log.len() - 1),
        expected: &[("EVENT_LOG_MALFORMED", "event log")],
    },
];

const REPLAY: &str = "EVENT_LOG_REPLAY_MISMATCH";
/// Where the kernel has the logs, and where a hostile worker keeps its own.
const FIRMWARE_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
const IMA_LIST: &str = "/sys/kernel/security/ima/binary_runtime_measurements";
const EDITED: &str = "/tmp/edited";

/// Bytes of the first event of this kind in this PCR.
fn event(log: &[u8], pcr: u8, kind: EventType) -> std::ops::Range<usize> {
    let parsed = EventLog::parse(log).expect("the kernel's own log");
    let events = parsed.events();
    let at = events
        .iter()
        .position(|event| {
            event.untrusted_type == kind && event.pcr.is_some_and(|found| found.get() == pcr)
        })
        .expect("such an event");
    let end = events.get(at + 1).map_or(log.len(), |next| next.offset);
    events[at].offset..end
}

/// `TPM2_PCR_Extend` of both, SHA-256, by a 32-byte text.
const EXTEND_16_AND_23: &str = r#"
tpm() {
    exec 4<>/dev/tpmrm0
    printf "$1" >&4
    code=$(dd bs=4096 count=1 <&4 2>/dev/null | xxd -p | cut -c 13-20)
    exec 4>&-
    test "$code" = 00000000
}
is_reset() { grep -q '^0*$' /sys/class/tpm/tpm0/pcr-sha256/$1; }
password='\x00\x00\x00\x09\x40\x00\x00\x09\x00\x00\x00\x00\x00'
for pcr in 10 17; do
    header='\x80\x02\x00\x00\x00\x41\x00\x00\x01\x82\x00\x00\x00'
    digests='\x00\x00\x00\x01\x00\x0b''assay-test-machine-extends-a-pcr'
    tpm "$header\x$pcr$password$digests" || exit 1
done
! is_reset 16 && ! is_reset 23
"#;

/// `TPM2_PCR_Reset` of PCR 16, which needs no more right than to extend it.
const RESET_16: &str = r#"
exec 4<>/dev/tpmrm0
printf '\x80\x02\x00\x00\x00\x1b\x00\x00\x01\x3d\x00\x00\x00\x10\x00\x00\x00\x09\x40\x00\x00\x09\x00\x00\x00\x00\x00' >&4
dd bs=4096 count=1 <&4 > /dev/null 2>&1
exec 4>&-
grep -q '^0*$' /sys/class/tpm/tpm0/pcr-sha256/16
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_golden_set_admits_what_it_was_captured_from_and_denies_every_other_boot() {
    let Requirement::Met(parts) = require() else { return };
    let site = Arc::new(Site::start(&parts).await.expect("verifier"));
    let (first, golden) = captured(&site).await.expect("a golden set");
    let golden = Arc::new(golden);
    let mut running = Running::default();
    running.add("kernel updates", update::followed_by_its_golden_set(Arc::clone(&site)));
    running.add("the same machine again", same_machine(Arc::clone(&site), first));
    running.add("its twin", twin(Arc::clone(&site)));
    running.add("an image that nobody signed", refused_by_firmware(Arc::clone(&site)));
    for boot in OTHER_BOOTS {
        running.add(boot.name, other_boot(Arc::clone(&site), Arc::clone(&golden), boot));
    }
    let wrong = running.ended().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Boots `w1`, which is denied for want of reference values, and makes what it proved the golden set.
async fn captured(site: &Site) -> Result<((Machine, Vec<u8>), GoldenDocument), AnyError> {
    let mut machine = site.worker("w1", POOL, SecureBoot::On).await?;
    let mut guest = machine.boot(&site.image()?).await?;
    site.configure(&mut guest).await?;
    judged(site, &mut guest, &[("POLICY_NO_REFERENCE_VALUES", "pool linux")]).await?;
    let golden = site.cluster.golden_from("w1", |text| text).await?;
    for pcr in [0, 1, 2, 3, 4, 5, 6, 7, 9, 11] {
        if !golden.contains(&format!("index = {pcr}\n")) {
            return Err(format!("PCR {pcr} is not in the golden set:\n{golden}").into());
        }
    }
    judged(site, &mut guest, ADMITTED).await?;
    let node_key = site.node_key(&mut guest).await?;
    let golden = predicted::captured(site, "w1", &mut guest).await?;
    guest.power_off().await?;
    Ok(((machine, node_key), golden))
}

/// Powered on again, and reset from within: each boot is admitted with keys of its own.
async fn same_machine(site: Arc<Site>, first: (Machine, Vec<u8>)) -> Result<(), AnyError> {
    let (mut machine, first_key) = first;
    machine.allow_reset();
    let mut guest = machine.boot(&site.image()?).await?;
    let mut keys = vec![first_key];
    for is_last in [false, true] {
        site.configure(&mut guest).await?;
        judged(&site, &mut guest, ADMITTED).await?;
        keys.push(site.node_key(&mut guest).await?);
        if !is_last {
            guest.reset().await?;
        }
    }
    guest.power_off().await?;
    keys.sort();
    keys.dedup();
    if keys.len() == 3 { Ok(()) } else { Err("a node key outlived its boot".into()) }
}

/// The same image on another TPM: nobody's node until an operator says so, and then judged by the same set.
async fn twin(site: Arc<Site>) -> Result<(), AnyError> {
    let mut machine = site.machine(SecureBoot::On).await?;
    let mut guest = machine.boot(&site.image()?).await?;
    site.configure(&mut guest).await?;
    let status = site.attest(&mut guest).await?;
    let codes: Vec<&str> = status.reasons.iter().map(|reason| reason.code.as_str()).collect();
    if codes != UNKNOWN_TPM {
        return Err(format!("an unknown TPM: {status:#?}").into());
    }
    site.approve(machine.ek(), "w2", POOL).await?;
    judged(&site, &mut guest, ADMITTED).await?;
    for event in EVENTS {
        let named = |error: AnyError| format!("{}: {error}", event.name);
        guest.succeed(event.happens).await?;
        judged(&site, &mut guest, event.expected).await.map_err(named)?;
        guest.succeed(event.is_undone_by).await?;
        judged(&site, &mut guest, ADMITTED).await.map_err(named)?;
    }
    edited_logs(&site, &mut guest).await?;
    watched(&site, &mut guest).await?;
    Ok(guest.power_off().await?)
}

/// Logs that do not say what the TPM quoted: none hides or makes a fact.
async fn edited_logs(site: &Site, guest: &mut Guest) -> Result<(), AnyError> {
    let honest = guest.read(FIRMWARE_LOG).await?;
    site.configure_with(guest, &format!("[logs]\nuefi = \"{EDITED}\"\n")).await?;
    for edited in EDITED_LOGS {
        let mut log = honest.clone();
        (edited.edit)(&mut log);
        guest.write(EDITED, &log).await?;
        judged(site, guest, edited.expected)
            .await
            .map_err(|error| format!("{}: {error}", edited.name))?;
    }
    site.configure_with(guest, "[logs]\nuefi = \"none\"\n").await?;
    let status = site.attest(guest).await?;
    let codes: BTreeSet<&str> = status.reasons.iter().map(|r| r.code.as_str()).collect();
    if codes != BTreeSet::from(["POLICY_BOOT_LOG_MISSING"]) {
        return Err(format!("without a log: {status:#?}").into());
    }
    site.configure(guest).await?;
    judged(site, guest, ADMITTED).await
}

/// In a pool whose golden set judges what the kernel ran: what ran so far is listed, and then something else runs.
async fn watched(site: &Site, guest: &mut Guest) -> Result<(), AnyError> {
    let list = guest.read(IMA_LIST).await?;
    let collected = verifier::ima_manifest::from_list(&list, &mut |_| ())?;
    let document = collected.builder.to_text("worker", 0).into_bytes();
    let manifest = Manifest::parse(&document)?;
    let (name, files) = (manifest.name().to_owned(), manifest.files() as u64);
    let (store, by) = (site.cluster.store(), site.cluster.by());
    store.import_manifest(NewManifest { name, files, document }, by.clone()).await?;
    store.change_node("w2", None, NodeChange::MoveTo { pool: "watched".into() }, by).await?;
    // The first answer in the new pool is what its set is captured from.
    site.attest(guest).await?;
    let ima = format!("\n[ima]\nmanifest = \"{}\"\n", manifest.id());
    site.cluster.golden_from("w2", |text| text + &ima).await?;
    judged(site, guest, ADMITTED).await?;
    // The programs are those that ran before; one of them has grown by a byte and runs under another name.
    guest.succeed("mkdir /tmp/unlisted && cp /bin/busybox /tmp/unlisted/").await?;
    guest.succeed("echo >> /tmp/unlisted/busybox").await?;
    judged(site, guest, ADMITTED).await.map_err(|error| format!("before it runs: {error}"))?;
    guest.succeed("/tmp/unlisted/busybox true").await?;
    for _ in 0..2 {
        let status = site.attest(guest).await?;
        let is_named = |(code, subject): &(&str, &str)| {
            *code == "POLICY_IMA_FILE_NOT_ALLOWED" && subject.ends_with(": /tmp/unlisted/busybox")
        };
        let reasons = reasons(&status);
        if status.outcome != "denied" || reasons.is_empty() || !reasons.iter().all(is_named) {
            return Err(format!("an unlisted program ran: {status:#?}").into());
        }
    }
    // A listed program that is changed where it stands is another one.
    guest.succeed("echo >> /usr/bin/as && as --version").await?;
    let status = site.attest(guest).await?;
    let is_there = |code: &str, path: &str| {
        reasons(&status).iter().any(|(found, subject)| *found == code && subject.ends_with(path))
    };
    if !is_there("POLICY_IMA_FILE_NOT_ALLOWED", ": /usr/bin/as")
        || !is_there("POLICY_TOOL_NOT_ALLOWED", "tool as: /usr/bin/as")
    {
        return Err(format!("a listed program was changed: {status:#?}").into());
    }
    // Nor does a list that leaves them out help.
    let cut = guest.read(IMA_LIST).await?;
    guest.write(EDITED, &cut[..list.len()]).await?;
    site.configure_with(guest, &format!("[logs]\nima = \"{EDITED}\"\n")).await?;
    judged(site, guest, &[("IMA_REPLAY_MISMATCH", "IMA list")]).await
}

/// Secure Boot is no mere setting: firmware does not start what is not signed.
async fn refused_by_firmware(site: Arc<Site>) -> Result<(), AnyError> {
    let mut machine = site.machine(SecureBoot::On).await?;
    let mut guest = machine.power_on(&site.image()?.unsigned()).await?;
    Ok(guest.firmware_says("Access Denied").await?)
}

/// A worker of the pool whose boot differs.
async fn other_boot(
    site: Arc<Site>,
    golden: Arc<GoldenDocument>,
    boot: OtherBoot,
) -> Result<(), AnyError> {
    let mut machine = site.worker(boot.name, POOL, boot.secure_boot).await?;
    let image = (boot.image)(site.image()?)?;
    let mut guest = machine.boot(&image).await?;
    guest.succeed(boot.is_there).await?;
    site.configure(&mut guest).await?;
    judged(&site, &mut guest, boot.expected).await?;
    if boot.secure_boot == SecureBoot::On {
        predicted::agrees(&golden, (&site.image()?, &image), &mut guest).await?;
        return Ok(guest.power_off().await?);
    }
    // Another mode is no update of the first machine, but a machine to update.
    let golden = predicted::captured(&site, boot.name, &mut guest).await?;
    guest.power_off().await?;
    let update = predicted::everything_new(site.image()?)?.unsigned();
    let mut guest = machine.boot(&update).await?;
    predicted::agrees(&golden, (&image, &update), &mut guest).await?;
    Ok(guest.power_off().await?)
}

/// Attests, and says how the verdict is another than expected; whoever is denied has no certificate.
async fn judged(site: &Site, guest: &mut Guest, expected: Expected) -> Result<(), AnyError> {
    let status = site.attest(guest).await?;
    let outcome = if expected.is_empty() { "admitted" } else { "denied" };
    let has_certificate = guest.run("test -e /run/assay/node.pem").await?.status == 0;
    let is_right = status.outcome == outcome && reasons(&status) == expected;
    if is_right && has_certificate == expected.is_empty() {
        return Ok(());
    }
    Err(format!(
        "expected {outcome} {expected:#?}, got {status:#?}, certificate: {has_certificate}"
    )
    .into())
}

fn reasons(status: &Status) -> Vec<(&str, &str)> {
    let reasons = status.reasons.iter();
    reasons.map(|reason| (reason.code.as_str(), reason.subject.as_str())).collect()
}

/// Machines side by side, as many as there is room for.
struct Running {
    tasks: JoinSet<Result<(), String>>,
    room: Arc<Semaphore>,
}

impl Default for Running {
    fn default() -> Self {
        Self { tasks: JoinSet::new(), room: Arc::new(Semaphore::new(SIDE_BY_SIDE)) }
    }
}

impl Running {
    fn add(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<(), AnyError>> + Send + 'static,
    ) {
        let room = Arc::clone(&self.room);
        self.tasks.spawn(async move {
            let _place = room.acquire().await;
            work.await.map_err(|error| format!("{name}: {error}"))
        });
    }

    /// Waits for all; what went wrong.
    async fn ended(mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(outcome) => wrong.extend(outcome.err()),
                Err(panic) => wrong.push(panic.to_string()),
            }
        }
        wrong
    }
}
