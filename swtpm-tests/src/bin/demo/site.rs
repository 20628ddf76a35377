//! The demo's folder, the programs that run in it, and what is said.

use std::{
    cell::RefCell,
    env, fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use swtpm_tests::{
    cluster::{AnyError, Tools},
    process::Ended,
};

/// How long a daemon may take to be there: a debug build on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Everything of the demo; its programs run in its folder.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    programs: PathBuf,
    /// Tools of the worker.
    pub(crate) tools: Tools,
    said: RefCell<String>,
}

impl Site {
    pub(crate) fn new() -> Result<Self, AnyError> {
        let programs = env::current_exe()?.parent().ok_or("no folder of programs")?.to_owned();
        for program in ["verifier", "attestor"] {
            if !programs.join(program).is_file() {
                let path = programs.join(program);
                return Err(
                    format!("{} is not built; run `cargo xtask demo`", path.display()).into()
                );
            }
        }
        let (folder, tools) = (tempfile::tempdir()?, Tools::new()?);
        Ok(Self { folder, programs, tools, said: RefCell::default() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A heading.
    pub(crate) fn say(&self, what: &str) {
        self.tell(&format!("\n== {what}"));
    }

    /// Lines for whoever watches. The demo's folders go when it ends: paths are told from there.
    pub(crate) fn tell(&self, text: &str) {
        let mut text = text.trim_end().to_owned();
        if text.is_empty() {
            return;
        }
        for folder in [Some(self.folder.path()), self.tools.path("").ancestors().nth(1)] {
            let Some(folder) = folder else { continue };
            text = text.replace(&format!("{}/", folder.display()), "");
        }
        println!("{text}");
        let mut said = self.said.borrow_mut();
        said.push_str(&text);
        said.push('\n');
    }

    /// All that was told.
    pub(crate) fn said(&self) -> String {
        self.said.borrow().clone()
    }

    /// A program in the demo's folder. It finds the verifier's configuration, the worker's sockets and our programs.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let ours = self.programs.join(program);
        let mut path = self.programs.clone().into_os_string();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new(if ours.is_file() { ours } else { program.into() });
        command
            .args(arguments)
            .env("PATH", path)
            .env("ASSAY_CONFIG", self.path("verifier.toml"))
            .env("ASSAY_STATE", self.path("state"))
            .env("ASSAY_JOB_SOCKET", self.path("output/job.sock"))
            .env("ASSAY_LOG", "warn")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Names a command and runs it; its standard output, if it ended with one of `codes`.
    pub(crate) fn run(
        &self,
        program: &str,
        arguments: &[&str],
        codes: &[i32],
    ) -> Result<String, AnyError> {
        self.tell(&format!("$ {program} {}", shown(arguments)));
        Ok(finish(self.command(program, arguments), codes)?.0)
    }

    /// As [`Site::run`], and tells what it printed.
    pub(crate) fn show(
        &self,
        program: &str,
        arguments: &[&str],
        code: i32,
    ) -> Result<String, AnyError> {
        let printed = self.run(program, arguments, &[code])?;
        self.tell(&printed);
        Ok(printed)
    }

    /// Starts a program that goes on in the background, and waits until it is ready.
    pub(crate) fn background(
        &self,
        program: &str,
        arguments: &[&str],
        mut is_ready: impl FnMut() -> bool,
    ) -> Result<Ended, AnyError> {
        self.tell(&format!("$ {program} {} &", shown(arguments)));
        let path = self.path(&format!("{program}.log"));
        let mut command = self.command(program, arguments);
        let mut child =
            Ended(command.stdout(Stdio::null()).stderr(fs::File::create(&path)?).spawn()?);
        let started = Instant::now();
        while !is_ready() {
            if child.0.try_wait()?.is_some() || started.elapsed() > START_DEADLINE {
                let log = fs::read_to_string(&path)?;
                return Err(format!("{program} {} is not ready:\n{log}", shown(arguments)).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(child)
    }

    /// The verifier, listening.
    pub(crate) fn serve(&self, listen: &str) -> Result<Ended, AnyError> {
        self.background("verifier", &["serve"], || TcpStream::connect(listen).is_ok())
    }

    /// Writes the worker's configuration. Whoever runs the demo may run jobs.
    pub(crate) fn write_worker(&self, listen: &str, tcti: &str) -> Result<(), AnyError> {
        fs::create_dir_all(self.path("worker-state"))?;
        fs::write(self.path("tools.toml"), self.tools.list_text())?;
        let config = format!(
            "[verifier]\nurl = \"https://{listen}\"\nca_file = \"{ca}\"\n\n[tpm]\ntcti = \"{tcti}\"\n\n\
             [tools]\nlist = \"{tools}\"\n\n[logs]\nuefi = \"{uefi}\"\nima = \"none\"\nsystemd = \"none\"\n\n\
             [daemon]\nstate_dir = \"{state}\"\noutput_dir = \"{output}\"\n\n\
             [jobs]\nusers = [\"{user}\"]\nsocket_dir = \"{output}\"\n",
            ca = self.path("state/bundle.pem").display(),
            tools = self.path("tools.toml").display(),
            uefi = self.path("binary_bios_measurements").display(),
            state = self.path("worker-state").display(),
            output = self.path("output").display(),
            user = rustix::process::getuid().as_raw(),
        );
        Ok(fs::write(self.path("attestor.toml"), config)?)
    }
}

/// Runs a command to its end; its standard output and errors, if it ended with one of `codes`.
pub(crate) fn finish(mut command: Command, codes: &[i32]) -> Result<(String, String), AnyError> {
    let output = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    if output.status.code().is_some_and(|code| codes.contains(&code)) {
        return Ok((out, err));
    }
    Err(format!("{command:?} ended with {}, expected {codes:?}\n{out}{err}", output.status).into())
}

/// Arguments as one would type them.
pub(crate) fn shown(arguments: &[&str]) -> String {
    let quoted = |argument: &&str| match argument.contains(' ') {
        true => format!("'{argument}'"),
        false => (*argument).to_owned(),
    };
    arguments.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

pub(crate) fn expect(printed: &str, wanted: &str) -> Result<(), AnyError> {
    if printed.contains(wanted) {
        return Ok(());
    }
    Err(format!("expected {wanted} in:\n{printed}").into())
}

pub(crate) fn free_address() -> Result<String, AnyError> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
