//! The main path on machines that really boot: what a golden set captured from one boot admits, and what it denies.
//!
//! Each boot costs some 20 s of a processor, so that one site, one golden set and few boots serve every
//! assertion. `cargo xtask machine` starts such a machine by hand.

use std::sync::Arc;

use attestor::output::Status;
use swtpm_tests::{
    cluster::AnyError,
    machine::{
        BootRecord, Guest, Image, Machine, MachineError, Parts, Requirement, SecureBoot, Site,
        require,
    },
};
use tokio::{sync::Semaphore, task::JoinSet};

/// Machines that run side by side: each keeps one processor busy.
const SIDE_BY_SIDE: usize = 2;
/// The golden set's pool.
const POOL: &str = "linux";

/// A worker that is not what the golden set says, and how it must be denied.
struct Scenario {
    name: &'static str,
    secure_boot: SecureBoot,
    image: fn(Image) -> Result<Image, MachineError>,
    /// In the guest, before it attests.
    script: &'static str,
    /// Reason code and subject of every finding, in order.
    expected: &'static [(&'static str, &'static str)],
}

const PCR_NOT_ALLOWED: &str = "POLICY_PCR_NOT_ALLOWED";

/// To expect more of a scenario (an event, a file), change its row.
const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "another-command-line",
        secure_boot: SecureBoot::On,
        image: |image| Ok(image.append_command_line("lockdown=none")),
        script: "grep -q lockdown=none /proc/cmdline",
        expected: &[
            (PCR_NOT_ALLOWED, "PCR 4 (sha256)"),
            (PCR_NOT_ALLOWED, "PCR 9 (sha256)"),
            (PCR_NOT_ALLOWED, "PCR 11 (sha256)"),
        ],
    },
    Scenario {
        name: "another-initrd",
        secure_boot: SecureBoot::On,
        image: |image| Ok(image.with_file("/etc/profile", b"# a back door\n")),
        script: "test -s /etc/profile",
        expected: &[
            (PCR_NOT_ALLOWED, "PCR 4 (sha256)"),
            (PCR_NOT_ALLOWED, "PCR 9 (sha256)"),
            (PCR_NOT_ALLOWED, "PCR 11 (sha256)"),
        ],
    },
    Scenario {
        name: "another-kernel",
        secure_boot: SecureBoot::On,
        image: Image::with_other_kernel,
        script: "true",
        expected: &[
            (PCR_NOT_ALLOWED, "PCR 4 (sha256)"),
            (PCR_NOT_ALLOWED, "PCR 11 (sha256)"),
        ],
    },
    Scenario {
        name: "secure-boot-off",
        secure_boot: SecureBoot::Off,
        image: |image| Ok(image.unsigned()),
        script: "true",
        expected: &[
            (PCR_NOT_ALLOWED, "PCR 0 (sha256)"),
            (PCR_NOT_ALLOWED, "PCR 7 (sha256)"),
        ],
    },
    Scenario {
        name: "another-library-under-the-build-tool",
        secure_boot: SecureBoot::On,
        image: Ok,
        // The assembler still runs; its zlib has grown by a byte.
        script: "echo >> /lib/x86_64-linux-gnu/libz.so.1 && as --version",
        expected: &[("POLICY_TOOL_NOT_ALLOWED", "as: /usr/lib/x86_64-linux-gnu/libz.so.1")],
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_golden_set_admits_the_boots_it_was_captured_from_and_denies_others_by_name() {
    let Requirement::Met(parts) = require() else { return };
    let site = Arc::new(Site::start(&parts).await.expect("verifier"));
    golden_boot(&site).await;
    let mut running = JoinSet::new();
    let room = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    for scenario in SCENARIOS {
        let (site, room) = (Arc::clone(&site), Arc::clone(&room));
        running.spawn(async move {
            let _place = room.acquire().await.expect("never closed");
            scenario.play(&site).await
        });
    }
    let mut wrong = Vec::new();
    while let Some(ended) = running.join_next().await {
        wrong.extend(ended.expect("no panic").err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Captures the golden set, and sees it admit what must be admitted.
async fn golden_boot(site: &Site) {
    let mut worker = site.worker("w1", POOL, SecureBoot::On).await.expect("machine");
    let image = site.image().expect("image");
    worker.machine.allow_reset();
    let mut guest = worker.machine.boot(&image).await.expect("boot");
    site.configure(&mut guest).await.expect("configuration");
    assert_reasons(&attest(site, &mut guest).await, &["POLICY_NO_REFERENCE_VALUES"]);
    let golden = site.cluster.golden_from("w1", |text| text).await.expect("golden set");
    for pcr in [0, 1, 2, 3, 4, 5, 6, 7, 9, 11] {
        assert!(golden.contains(&format!("index = {pcr}\n")), "PCR {pcr} is not in {golden}");
    }
    assert_admitted(&attest(site, &mut guest).await);
    guest.reset().await.expect("second boot");
    site.configure(&mut guest).await.expect("configuration");
    assert_admitted(&attest(site, &mut guest).await);
    guest.power_off().await.expect("power off");
}

impl Scenario {
    /// Boots a worker of its own in the pool; says what is wrong with the verdict.
    async fn play(&self, site: &Site) -> Result<(), String> {
        let status = self.verdict(site).await.map_err(|error| format!("{}: {error}", self.name))?;
        let found: Vec<(&str, &str)> = status
            .reasons
            .iter()
            .map(|reason| (reason.code.as_str(), reason.subject.as_str()))
            .collect();
        if status.outcome == "denied" && found == self.expected {
            return Ok(());
        }
        Err(format!("{}: {} with {found:#?}, expected {:#?}", self.name, status.outcome, self.expected))
    }

    async fn verdict(&self, site: &Site) -> Result<Status, AnyError> {
        let mut worker = site.worker(self.name, POOL, self.secure_boot).await?;
        let image = (self.image)(site.image()?)?;
        let mut guest = worker.machine.boot(&image).await?;
        guest.succeed(self.script).await?;
        site.configure(&mut guest).await?;
        let status = site.attest(&mut guest).await?;
        guest.power_off().await?;
        Ok(status)
    }
}

async fn attest(site: &Site, guest: &mut Guest) -> Status {
    site.attest(guest).await.expect("an answer")
}

fn assert_admitted(status: &Status) {
    assert_eq!(status.outcome, "admitted", "{status:#?}");
}

fn assert_reasons(status: &Status, codes: &[&str]) {
    let found: Vec<&str> = status.reasons.iter().map(|reason| reason.code.as_str()).collect();
    assert_eq!((status.outcome.as_str(), found.as_slice()), ("denied", codes), "{status:#?}");
}
