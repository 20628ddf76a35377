//! A verifier on this host's loopback, and workers that are machines.

use std::{env, path::PathBuf};

use attestor::output::{STATUS_FILE, Status};
use proto::digest::Digest;
use verifier::store::NodeChange;

use crate::{
    cluster::{AnyError, Cluster},
    machine::{Guest, Image, InitialRamDisk, Machine, MachineError, Parts, SecureBoot, Systemd},
    manufacturer::Manufacturer,
    swtpm::io,
};

/// The host's loopback on QEMU's user network.
const HOST: &str = "10.0.2.2";
/// The guest's attestor.
const ATTESTOR: &str = "/usr/bin/attestor";
/// Its files.
const CONFIG: &str = "/etc/assay/attestor.toml";
const BUNDLE: &str = "/etc/assay/bundle.pem";
const TOOLS: &str = "/etc/assay/tools.toml";
const OUTPUT: &str = "/run/assay";
/// `attestor` was denied: an answer, no failure.
const DENIED: u8 = 3;
/// There was no verdict.
const NO_VERDICT: u8 = 1;
/// Golden sets that come into force while one attestation is tried again.
const COME_AGAIN: usize = 5;
/// Its node key, as it keeps it.
const NODE_KEY: &str = "/run/assay/node-key.pem";
/// A stop removes the status of before; the start returns when the daemon runs, which is before it has an answer.
const RESTART_SERVICE: &str = r#"
systemctl stop assay-attestor.service
systemctl start assay-attestor.service || { journalctl --no-pager -u assay-attestor.service; exit 1; }
for _ in $(seq 600); do
    case "$(cat /run/assay/status.json 2>/dev/null)" in
        "" | *'"outcome": "starting"'*) sleep 0.1 ;;
        *) exit 0 ;;
    esac
done
journalctl --no-pager -u assay-attestor.service
exit 1
"#;
/// The build tool of these workers: the assembler, with the libraries that it needs.
const TOOL: &str = "as";
/// The tool list, which is not part of what was booted.
const TOOL_LIST: &str = "[[tool]]\nname = \"as\"\npaths = [\"/usr/bin/as\"]\n";

/// A verifier in this process that trusts the test manufacturer.
#[derive(Debug)]
pub struct Site {
    /// The verifier.
    pub cluster: Cluster,
    parts: Parts,
}

impl Site {
    /// Starts the verifier.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn start(parts: &Parts) -> Result<Self, AnyError> {
        let cluster = Cluster::start().await?;
        cluster.trust(&Manufacturer::shared()).await?;
        Ok(Self { cluster, parts: parts.clone() })
    }

    /// What workers are expected to boot: an initrd with the attestor and one build tool.
    ///
    /// # Errors
    /// The attestor is not built, or the tool is not installed.
    pub fn image(&self) -> Result<Image, MachineError> {
        let tool = crate::swtpm::find_program(TOOL)?;
        Image::new(&self.parts)?
            .with_program(&program("attestor")?, ATTESTOR)?
            .with_program(&tool, &format!("/usr/bin/{TOOL}"))
    }

    /// As [`Site::image`], with systemd as what runs, and the attestor as its service.
    ///
    /// # Errors
    /// As [`Site::image`], and what [`Image::with_systemd`] says.
    pub fn image_with_systemd(
        &self,
        systemd: &Systemd,
        initial: InitialRamDisk,
    ) -> Result<Image, MachineError> {
        let tool = crate::swtpm::find_program(TOOL)?;
        Image::with_systemd(&self.parts, systemd, initial)?
            .with_program(&program("attestor")?, ATTESTOR)?
            .with_program(&tool, &format!("/usr/bin/{TOOL}"))
    }

    /// A new machine, active in the pool under `name`.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn worker(
        &self,
        name: &str,
        pool: &str,
        secure_boot: SecureBoot,
    ) -> Result<Machine, AnyError> {
        let machine = self.machine(secure_boot).await?;
        self.cluster.add_node(name, pool, machine.ek()).await?;
        Ok(machine)
    }

    /// A new machine that the inventory does not know.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn machine(&self, secure_boot: SecureBoot) -> Result<Machine, MachineError> {
        Machine::manufacture(&self.parts, secure_boot).await
    }

    /// Lets a machine that attested, and waits, into the pool under `name`.
    ///
    /// # Errors
    /// It did not attest, or the store fails.
    pub async fn approve(&self, ek: Digest, name: &str, pool: &str) -> Result<(), AnyError> {
        let store = self.cluster.store();
        let waiting = store.node_by_ek(&ek).await?.ok_or("no node with this EK")?;
        let change = NodeChange::Approve { name: name.into(), pool: pool.into() };
        store.change_node(&waiting.name, None, change, self.cluster.by()).await?;
        Ok(())
    }

    /// Writes what the guest's attestor is told. A boot begins without it: neither the verifier's port
    /// nor its roots are part of the image.
    ///
    /// # Errors
    /// The guest does not take it.
    pub async fn configure(&self, guest: &mut Guest) -> Result<(), MachineError> {
        self.configure_with(guest, "").await
    }

    /// As [`Site::configure`], with further sections.
    ///
    /// # Errors
    /// The guest does not take it.
    pub async fn configure_with(
        &self,
        guest: &mut Guest,
        sections: &str,
    ) -> Result<(), MachineError> {
        let port = self.cluster.running().address.port();
        let config = format!(
            "[verifier]\nurl = \"https://{HOST}:{port}\"\nca_file = \"{BUNDLE}\"\n[tpm]\ntcti = \
             \"device:/dev/tpmrm0\"\n[tools]\nlist = \"{TOOLS}\"\n[daemon]\noutput_dir = \
             \"{OUTPUT}\"\n{sections}"
        );
        let bundle = self.cluster.folder().join("state/bundle.pem");
        let bundle = io("reading the verifier's roots", || std::fs::read(bundle))?;
        guest.write(BUNDLE, &bundle).await?;
        guest.write(TOOLS, TOOL_LIST.as_bytes()).await?;
        guest.write(CONFIG, config.as_bytes()).await
    }

    /// `attestor once` in a guest: admitted or denied.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn attest(&self, guest: &mut Guest) -> Result<Status, MachineError> {
        let script = format!("{ATTESTOR} once --config {CONFIG}");
        let mut output = guest.run(&script).await?;
        // Another machine's test put a golden set in force meanwhile: the daemon comes again by itself.
        for _ in 0..COME_AGAIN {
            if output.status != NO_VERDICT || !output.text().contains("come again (Aborted)") {
                break;
            }
            output = guest.run(&script).await?;
        }
        if ![0, DENIED].contains(&output.status) {
            let (status, output) = (output.status, output.text());
            return Err(MachineError::Script { script, status, output });
        }
        status(guest).await
    }

    /// The attestor's service, started anew in a guest that systemd runs: admitted or denied.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn attest_as_service(&self, guest: &mut Guest) -> Result<Status, MachineError> {
        guest.succeed(RESTART_SERVICE).await?;
        let mut answer = status(guest).await?;
        // As above: it would come again by itself in a moment.
        for _ in 0..COME_AGAIN {
            if !answer.error.contains("come again (Aborted)") {
                break;
            }
            guest.succeed(RESTART_SERVICE).await?;
            answer = status(guest).await?;
        }
        Ok(answer)
    }

    /// The node key of an admitted guest.
    ///
    /// # Errors
    /// It has none.
    pub async fn node_key(&self, guest: &mut Guest) -> Result<Vec<u8>, MachineError> {
        guest.read(NODE_KEY).await
    }
}

/// What the guest's attestor left of its last answer.
async fn status(guest: &mut Guest) -> Result<Status, MachineError> {
    let status = guest.read(&format!("{OUTPUT}/{STATUS_FILE}")).await?;
    serde_json::from_slice(&status)
        .map_err(|_| MachineError::Agent(String::from_utf8_lossy(&status).into_owned()))
}

/// A program of the workspace, built beside this one.
///
/// # Errors
/// [`MachineError::Missing`].
pub fn program(name: &str) -> Result<PathBuf, MachineError> {
    let here = io("looking for this program", env::current_exe)?;
    // target/debug/NAME, or target/debug/deps/NAME for a test.
    let found = here.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    let mut found = found.filter(|program| program.is_file());
    found.next().ok_or_else(|| {
        let what = format!("{name}, built beside {} (`cargo xtask test` does)", here.display());
        MachineError::Missing { what, package: "of this workspace" }
    })
}
