//! A site whose worker runs jobs: a verifier in this process, and the real `attestor` on a software TPM.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use attestor::{hooks::HookSystem, tpm::EkPreference};

use crate::{
    clock::SkewedClock,
    cluster::{AnyError, Cluster, Tools, booted, ek_of},
    process::{Ended, Process},
    proxy::Proxy,
    road::Road,
    swtpm::{Swtpm, SwtpmOptions},
};

/// How long anything here may take: a TPM and two processes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Verifier, TPM, tools, and the daemon with its sockets.
#[derive(Debug)]
pub struct JobSite {
    // In the order in which they end.
    daemon: Ended,
    /// Tools of the worker.
    pub tools: Tools,
    /// What the daemon reaches the TPM through, and what counts its commands.
    pub proxy: Proxy,
    /// The worker's TPM.
    pub tpm: Swtpm,
    /// The verifier.
    pub cluster: Cluster,
    /// Its clock.
    pub clock: Arc<SkewedClock>,
    /// The daemon's way to it.
    pub road: Road,
    folder: tempfile::TempDir,
}

/// What differs between sites.
#[derive(Clone, Debug)]
pub struct JobSiteOptions {
    /// Further lines of the daemon's `[jobs]`, with `@FOLDER@` for the site's folder.
    pub jobs: String,
    /// Lines of the verifier's `[jobs]`.
    pub verifier_jobs: String,
    /// Lines of the verifier's `[results]`.
    pub verifier_results: String,
    /// Users that may ask, as the configuration has them.
    pub users: Vec<String>,
    /// CI system whose hooks are installed below `root` in the site's folder, for the user `nobody`, and measured.
    pub hooks: Option<HookSystem>,
    /// Most descriptors that the daemon may have.
    pub descriptors: Option<u32>,
    /// Audience of the tokens that its hooks ask for.
    pub audience: Option<String>,
}

impl Default for JobSiteOptions {
    fn default() -> Self {
        Self {
            jobs: String::new(),
            verifier_jobs: "check_every = \"1s\"\n".to_owned(),
            verifier_results: String::new(),
            users: Vec::new(),
            hooks: None,
            audience: None,
            descriptors: None,
        }
    }
}

impl JobSite {
    /// A site whose node `w1` of pool `linux` is admitted by a golden set of what it proved.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn start() -> Result<Self, AnyError> {
        Self::start_with(JobSiteOptions::default()).await
    }

    /// As [`JobSite::start`], with options.
    ///
    /// # Errors
    /// Whatever a part says.
    pub async fn start_with(options: JobSiteOptions) -> Result<Self, AnyError> {
        let tpm = booted(Swtpm::start(SwtpmOptions::default())?)?;
        let clock = Arc::<SkewedClock>::default();
        let mut cluster = Cluster::start_at(Arc::<SkewedClock>::clone(&clock)).await?;
        cluster.configure("jobs", &options.verifier_jobs).await?;
        if !options.verifier_results.is_empty() {
            cluster.configure("results", &options.verifier_results).await?;
        }
        cluster.trust(tpm.manufacturer()).await?;
        let ek = ek_of(&tpm.tcti(), EkPreference::Auto).await?;
        cluster.add_node("w1", "linux", ek).await?;
        let mut tools = Tools::new()?;
        let folder = tempfile::tempdir()?;
        // Jobs of other users have to reach the socket.
        set_mode(folder.path(), 0o755)?;
        if let Some(system) = options.hooks {
            tools.declare(&install_hooks(folder.path(), system, options.audience.as_deref())?);
        }
        let mut worker = cluster.worker(&tpm.tcti(), &tools).await?;
        worker.denied(&["POLICY_NO_REFERENCE_VALUES"]).await;
        cluster.golden_from("w1", |text| text).await?;
        worker.stop().await;
        let (proxy, road) = (Proxy::before(&tpm)?, Road::to(cluster.running().address).await?);
        let daemon =
            start_daemon(folder.path(), road.address(), &cluster, &proxy, &tools, &options)?;
        let site = Self { daemon, tools, proxy, tpm, cluster, clock, road, folder };
        site.wait_for("admitted").await?;
        Ok(site)
    }

    /// Waits until the daemon's status has this outcome.
    ///
    /// # Errors
    /// It never has.
    pub async fn wait_for(&self, outcome: &str) -> Result<(), AnyError> {
        let path = self.path("output/status.json");
        let start = tokio::time::Instant::now();
        while start.elapsed() < PATIENCE {
            let text = std::fs::read(&path).unwrap_or_default();
            let status = serde_json::from_slice::<serde_json::Value>(&text);
            if status.is_ok_and(|status| status["outcome"] == outcome) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default();
        Err(format!("the daemon never was {outcome}: {log}").into())
    }

    /// A path in the site's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The Workload API's socket.
    #[must_use]
    pub fn workload_socket(&self) -> PathBuf {
        self.path("output/workload.sock")
    }

    /// `attestor` with these arguments, in the environment of a job of no particular CI system.
    #[must_use]
    pub fn attestor(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("attestor"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("ASSAY_JOB_SOCKET", self.path("output/job.sock"))
            .env("ASSAY_JOB_ID", "build")
            .env("ASSAY_JOB_RUN_ID", "42")
            .env("ASSAY_JOB_REPOSITORY", "acme/app")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs [`JobSite::attestor`] to its end, without keeping this thread's others from working.
    ///
    /// # Errors
    /// It does not start.
    pub async fn run(&self, arguments: &[&str]) -> Result<Output, AnyError> {
        finish(self.attestor(arguments)).await
    }

    /// Process of the daemon.
    #[must_use]
    pub fn daemon_id(&self) -> u32 {
        self.daemon.0.id()
    }

    /// What the daemon holds.
    #[must_use]
    pub fn daemon(&self) -> Process {
        Process::of(&self.daemon.0)
    }

    /// What the daemon logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }
}

/// Runs a command to its end on a blocking thread.
///
/// # Errors
/// It does not start.
pub async fn finish(mut command: Command) -> Result<Output, AnyError> {
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

/// A program that `cargo test --workspace` builds beside the tests.
///
/// # Panics
/// It is not there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("this program");
    // target/debug/NAME, or target/debug/deps/NAME for a test.
    let found = here.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    let found = found.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not built; run `cargo xtask test`"))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), AnyError> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}

/// Installs hooks as an administrator does, and gives the entry in the tool list.
fn install_hooks(
    folder: &Path,
    system: HookSystem,
    audience: Option<&str>,
) -> Result<String, AnyError> {
    let root = folder.join("root");
    std::fs::create_dir_all(root.join("usr/bin"))?;
    // The hooks' own, which is measured: the one beside the tests may be built again meanwhile.
    let attestor = root.join("usr/bin/attestor");
    // By another process: see `hook_driver::write_program`.
    let copied = Command::new("install")
        .args(["-m", "755"])
        .arg(program("attestor"))
        .arg(&attestor)
        .status()?;
    if !copied.success() {
        return Err("the program cannot be copied".into());
    }
    for made in ["", "usr", "usr/bin"] {
        set_mode(&root.join(made), 0o755)?;
    }
    let list = folder.join("hooks.toml");
    let output = Command::new(&attestor)
        .args(["hook", "install", system.as_str(), "--user", "nobody", "--dir"])
        .arg(&root)
        .arg("--attestor")
        .arg(&attestor)
        .arg("--socket")
        .arg(folder.join("output/job.sock"))
        .arg("--tools")
        .arg(&list)
        .args(audience.iter().flat_map(|audience| ["--audience", audience]))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    // A cluster's files are not measured: no list is made for them.
    match std::fs::read_to_string(&list) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => Ok(read?),
    }
}

fn start_daemon(
    folder: &Path,
    verifier: SocketAddr,
    cluster: &Cluster,
    proxy: &Proxy,
    tools: &Tools,
    options: &JobSiteOptions,
) -> Result<Ended, AnyError> {
    let at = |name: &str| folder.join(name).display().to_string();
    std::fs::create_dir(at("output"))?;
    set_mode(&folder.join("output"), 0o755)?;
    std::fs::write(at("tools.toml"), tools.list_text())?;
    let config = format!(
        "[verifier]\nurl = \"https://127.0.0.1:{port}\"\nca_file = \"{ca}\"\n\n[tpm]\ntcti = \"{tcti}\"\n\n[tools]\nlist \
         = \"{list}\"\n\n[logs]\nuefi = \"none\"\nima = \"none\"\nsystemd = \"none\"\n\n[daemon]\nstate_dir = \
         \"{state}\"\noutput_dir = \"{output}\"\n\n[jobs]\nusers = {users:?}\nsocket_dir = \"{output}\"\n{more}",
        port = verifier.port(),
        ca = cluster.folder().join("state/bundle.pem").display(),
        tcti = proxy.tcti(),
        list = at("tools.toml"),
        state = tools.state().display(),
        output = at("output"),
        users = options.users,
        more = options.jobs.replace("@FOLDER@", &folder.display().to_string()),
    );
    std::fs::write(at("attestor.toml"), config)?;
    let log = std::fs::File::create(at("daemon.log"))?;
    let mut command = match options.descriptors {
        None => Command::new(program("attestor")),
        Some(most) => {
            // Becomes the daemon: it stays the same process.
            let mut limited = Command::new("prlimit");
            limited.arg(format!("--nofile={most}:{most}")).arg(program("attestor"));
            limited
        }
    };
    let child = command
        .args(["run", "--config", &at("attestor.toml")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    Ok(Ended(child))
}
