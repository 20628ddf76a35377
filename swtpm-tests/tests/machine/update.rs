//! A fleet through kernel updates: predicted, signed, staged, tried, put in force, and the old one retired.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use attestor::output::Status;
use swtpm_tests::{
    cluster::AnyError,
    machine::{Guest, Image, SecureBoot, Site, program},
};

use tokio::process::Command;

use super::{ADMITTED, judged, reasons};

/// Pool of this fleet; the name of its golden set.
const POOL: &str = "fleet";

/// The administrator's side: the program, as a person calls it.
struct Admin {
    folder: PathBuf,
    verifier: PathBuf,
    server: String,
    key: PathBuf,
}

/// What a command printed, and how it ended.
struct Said {
    text: String,
    code: i32,
}

impl Admin {
    fn of(site: &Site) -> Result<Self, AnyError> {
        Ok(Self {
            folder: site.cluster.folder().to_owned(),
            verifier: program("verifier")?,
            server: site.cluster.running().address.to_string(),
            key: site.cluster.folder().join("state/admin/security.key"),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    async fn run(&self, args: &[&str]) -> Result<Said, AnyError> {
        let output = Command::new(&self.verifier)
            .env_clear()
            .env("ASSAY_CONFIG", self.path("verifier.toml"))
            .env("ASSAY_SERVER", &self.server)
            .args(args)
            .output()
            .await?;
        let text = String::from_utf8(output.stdout)? + &String::from_utf8_lossy(&output.stderr);
        Ok(Said { text, code: output.status.code().unwrap_or(-1) })
    }

    async fn succeeds(&self, args: &[&str]) -> Result<String, AnyError> {
        let said = self.run(args).await?;
        if said.code == 0 {
            return Ok(said.text);
        }
        Err(format!("{args:?} ended with {}: {}", said.code, said.text).into())
    }

    async fn is_refused(&self, args: &[&str], code: &str) -> Result<(), AnyError> {
        let said = self.run(args).await?;
        if said.code == 3 && said.text.contains(code) {
            return Ok(());
        }
        Err(format!("{args:?}: expected {code}, ended with {}: {}", said.code, said.text).into())
    }

    /// A prediction from the set in `from`, written to `to`; proposed and signed.
    async fn predicts(
        &self,
        from: &str,
        (old, new): (&Image, &Image),
        to: &str,
    ) -> Result<(), AnyError> {
        let (from, to) = (self.path(from), self.path(to));
        let (old, new) = (old.build()?, new.build()?);
        let output = Command::new(&self.verifier)
            .args(["golden", "predict", "--from"])
            .arg(&from)
            .arg("--uki")
            .arg(new)
            .arg("--old-uki")
            .arg(old)
            .output()
            .await?;
        if !output.status.success() {
            return Err(format!("predict: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        fs::write(&to, output.stdout)?;
        let key = text(&self.key);
        self.succeeds(&["golden", "propose", &text(&to), "--key", &key]).await.map(drop)
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// No healthy boot is denied while the fleet moves, and the old kernel is denied once its set is retired.
pub(super) async fn followed_by_its_golden_set(site: Arc<Site>) -> Result<(), AnyError> {
    let admin = Admin::of(&site)?;
    let old = site.image()?;
    let new = site.image()?.with_other_kernel()?;
    let newest = new.clone().append_command_line("lockdown=none");

    // Two machines of today; the set comes from the first.
    let mut first = site.worker("fleet-1", POOL, SecureBoot::On).await?;
    let mut guest = first.boot(&old).await?;
    site.configure(&mut guest).await?;
    judged(&site, &mut guest, &[("POLICY_NO_REFERENCE_VALUES", "pool fleet")]).await?;
    let captured = admin.succeeds(&["golden", "capture", "fleet-1"]).await?;
    fs::write(admin.path("fleet-1.toml"), captured)?;
    let (set, key) = (text(&admin.path("fleet-1.toml")), text(&admin.key));
    admin.succeeds(&["golden", "apply", &set, "--key", &key, "--yes"]).await?;
    judged(&site, &mut guest, ADMITTED).await?;
    guest.power_off().await?;
    let mut second = site.worker("fleet-2", POOL, SecureBoot::On).await?;
    let mut guest_2 = second.boot(&old).await?;
    site.configure(&mut guest_2).await?;
    judged(&site, &mut guest_2, ADMITTED).await?;

    // The update, known before anything boots it: staged, it is reported and not enforced.
    admin.predicts("fleet-1.toml", (&old, &new), "fleet-2.toml").await?;
    admin.succeeds(&["golden", "stage", "fleet@2"]).await?;
    let words = admin.succeeds(&["golden", "diff", "fleet@1", "fleet@2"]).await?;
    if !words.contains("PCR 4") || !words.contains(".linux") {
        return Err(format!("the difference is in other words: {words}").into());
    }
    judged(&site, &mut guest_2, ADMITTED).await?;
    // Who boots it too early is told that it is no fault of the machine.
    let mut guest = first.boot(&new).await?;
    site.configure(&mut guest).await?;
    let status = site.attest(&mut guest).await?;
    waits_for(&status, "fleet@2")?;

    // Alone it would turn away whoever has not rebooted yet: said before, and refused.
    let tried = admin.run(&["golden", "dry-run", "fleet@2"]).await?;
    let names = |node: &str, what: &str| {
        let of_node = tried.text.lines().find(|line| line.contains(node));
        of_node.is_some_and(|line| line.contains(what))
    };
    if tried.code != 3
        || !names("fleet-1", "would be admitted")
        || !names("fleet-2", "WOULD BE DENIED")
        || !tried.text.contains("boot application")
    {
        return Err(format!("the dry run says (exit {}): {}", tried.code, tried.text).into());
    }
    admin.is_refused(&["golden", "activate", "fleet@2", "--yes"], "GOLDEN_DENIES_TOO_MANY").await?;
    admin.succeeds(&["golden", "dry-run", "fleet@2", "--alongside"]).await?;
    admin.succeeds(&["golden", "activate", "fleet@2", "--alongside", "--yes"]).await?;
    judged(&site, &mut guest, ADMITTED).await?;
    judged(&site, &mut guest_2, ADMITTED).await?;

    // A second update before the second machine reboots: it skips the first.
    admin.predicts("fleet-2.toml", (&new, &newest), "fleet-3.toml").await?;
    admin.succeeds(&["golden", "activate", "fleet@3", "--alongside", "--yes"]).await?;
    judged(&site, &mut guest, ADMITTED).await?;
    guest_2.power_off().await?;
    let mut guest_2 = second.boot(&newest).await?;
    site.configure(&mut guest_2).await?;
    judged(&site, &mut guest_2, ADMITTED).await?;

    // Nobody runs the first kernel any more.
    let without = admin.succeeds(&["golden", "dry-run", "--retire", "fleet@1"]).await?;
    if without.contains("newly denied") || without.contains("undecided") {
        return Err(format!("retiring the old set: {without}").into());
    }
    admin
        .succeeds(&["golden", "retire", "fleet@1", "--reason", "nobody boots it", "--yes"])
        .await?;
    judged(&site, &mut guest, ADMITTED).await?;
    judged(&site, &mut guest_2, ADMITTED).await?;
    guest_2.power_off().await?;
    let mut guest_2 = second.boot(&old).await?;
    site.configure(&mut guest_2).await?;
    old_kernel_is_denied(&site, &mut guest_2).await?;
    // A version that was left behind does not come back by itself.
    admin.is_refused(&["golden", "activate", "fleet@1", "--yes"], "GOLDEN_STATE_INVALID").await?;
    // In an emergency its content does, as a new version, in one step.
    admin
        .succeeds(&["golden", "revert", "fleet@1", "--key", &key, "--yes", "--accept-denials"])
        .await?;
    judged(&site, &mut guest_2, ADMITTED).await?;
    guest_2.power_off().await?;
    Ok(guest.power_off().await?)
}

/// Denied, and told that staged reference values accept the state.
fn waits_for(status: &Status, staged: &str) -> Result<(), AnyError> {
    if status.outcome == "denied" && status.accepted_by_staged == staged {
        return Ok(());
    }
    Err(format!("expected a denial that {staged} explains, got {status:#?}").into())
}

async fn old_kernel_is_denied(site: &Site, guest: &mut Guest) -> Result<(), AnyError> {
    let status = site.attest(guest).await?;
    let reasons = reasons(&status);
    let is_named = reasons.iter().any(|(code, subject)| {
        *code == "POLICY_PCR_NOT_ALLOWED" && subject.contains("boot application")
    });
    if status.outcome == "denied" && is_named {
        return Ok(());
    }
    Err(format!("the old kernel after its set retired: {status:#?}").into())
}
