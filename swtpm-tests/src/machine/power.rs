//! A machine's hardware: a TPM and firmware variables that outlive a boot, and the processes that are it.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use proto::digest::Digest;
use tempfile::TempDir;
use tokio::net::UnixListener;

use crate::{
    cluster::ek_of,
    machine::{Guest, Image, MachineError, Parts, console::Console},
    manufacturer::Manufacturer,
    raw::Bank,
    swtpm::{HarnessError, Swtpm, SwtpmOptions, io, not_installed, tail},
};

/// Names the accelerator (`kvm`). Unless told, the processor is emulated in software: `/dev/kvm` may
/// exist and fail.
const ACCELERATOR: &str = "ASSAY_MACHINE_ACCELERATOR";
/// How long swtpm may take to listen, and QEMU to connect.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Memory, MB: the firmware wants the image several times over.
const MEMORY_MB: &str = "1024";

/// Whether the firmware starts only what is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecureBoot {
    /// It does; OVMF's published test key is enrolled.
    On,
    /// It starts anything; no key is enrolled.
    Off,
}

/// Where the guest's console is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Terminal {
    /// In a file, for errors.
    #[default]
    Kept,
    /// On this program's terminal.
    Here,
}

/// A machine that is off.
#[derive(Debug)]
pub struct Machine {
    folder: Arc<TempDir>,
    parts: Parts,
    manufacturer: Arc<Manufacturer>,
    ek: Digest,
    terminal: Terminal,
    /// Whether a reset by the guest boots again, instead of ending the machine.
    resets: bool,
}

impl Machine {
    /// A new machine: new TPM with EK certificates of the shared test manufacturer, SHA-256 and SHA-384
    /// banks, and the firmware's variables as delivered.
    ///
    /// # Errors
    /// swtpm fails, or a file cannot be written.
    pub async fn manufacture(parts: &Parts, secure_boot: SecureBoot) -> Result<Self, MachineError> {
        let folder = Arc::new(io("creating a machine's folder", tempfile::tempdir)?);
        let at = |name: &str| folder.path().join(name);
        let options =
            SwtpmOptions { banks: vec![Bank::Sha256, Bank::Sha384], ..Default::default() };
        let manufacturer = Arc::clone(&options.manufacturer);
        let mut tpm = aside(move || Ok(Swtpm::start(options)?)).await?;
        let ek = ek_of(&tpm.tcti(), attestor::tpm::EkPreference::Auto).await;
        let ek = ek.map_err(MachineError::Site)?;
        tpm.power_off();
        let template = match secure_boot {
            SecureBoot::On => &parts.variables_on,
            SecureBoot::Off => &parts.variables_off,
        };
        io("making the machine's folders", || {
            fs::create_dir(at("tpm"))?;
            fs::create_dir_all(at("disk/EFI/BOOT"))?;
            // Content only: the package's file is read-only.
            fs::write(at("variables.fd"), fs::read(template)?)
        })?;
        tpm.snapshot()?.write(&at("tpm"))?;
        let (parts, terminal, resets) = (parts.clone(), Terminal::default(), false);
        Ok(Self { folder, parts, manufacturer, ek, terminal, resets })
    }

    /// Digest of the EK that its attestor will show.
    #[must_use]
    pub const fn ek(&self) -> Digest {
        self.ek
    }

    /// Who certified its EKs.
    #[must_use]
    pub fn manufacturer(&self) -> &Manufacturer {
        &self.manufacturer
    }

    /// Shows the console here from the next boot on.
    pub const fn set_terminal(&mut self, terminal: Terminal) {
        self.terminal = terminal;
    }

    /// Lets a guest reset the machine ([`Guest::reset`]) from the next boot on. Otherwise a reset, and so
    /// a kernel panic, ends it.
    pub const fn allow_reset(&mut self) {
        self.resets = true;
    }

    /// Puts `image` on the disk, powers on, and waits until the guest takes scripts.
    ///
    /// # Errors
    /// The image cannot be built, a process does not start, or the guest does not come up.
    pub async fn boot(&mut self, image: &Image) -> Result<Guest, MachineError> {
        let mut guest = self.power_on(image).await?;
        guest.ready().await?;
        Ok(guest)
    }

    /// As [`Machine::boot`], but returns while the firmware works: for images that it will not start.
    ///
    /// # Errors
    /// The image cannot be built, or a process does not start.
    pub async fn power_on(&mut self, image: &Image) -> Result<Guest, MachineError> {
        let image = image.clone();
        let image = aside(move || image.build()).await?;
        let boot = self.at("disk/EFI/BOOT/BOOTX64.EFI");
        // A copy: what the guest writes to its disk, QEMU writes to this folder.
        io("putting the image on the disk", || fs::copy(&image, &boot))?;
        let agent = self.at("agent");
        let _ = fs::remove_file(&agent);
        let listener = io("listening for the guest's agent", || UnixListener::bind(&agent))?;
        let console = Console::new(self.at("console"));
        io("emptying the console", || fs::write(console.path(), b""))?;
        let tpm = self.start_tpm()?;
        let mut qemu = Process(self.start_qemu(&console)?);
        let accepted = self.accept(&listener, &mut qemu).await?;
        Ok(Guest::new(accepted, qemu, tpm, console, Arc::clone(&self.folder)))
    }

    async fn accept(
        &self,
        listener: &UnixListener,
        qemu: &mut Process,
    ) -> Result<tokio::net::UnixStream, MachineError> {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        let begin = Instant::now();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = io("QEMU's connection", || accepted)?;
                    return Ok(stream);
                }
                _ = looks.tick() => {}
            }
            let ended = io("looking after QEMU", || qemu.0.try_wait())?;
            if ended.is_none() && begin.elapsed() < START_DEADLINE {
                continue;
            }
            let status = match ended {
                Some(status) => status,
                None => qemu.end()?,
            };
            let output = tail(&fs::read_to_string(self.at("qemu.log")).unwrap_or_default());
            let program = "qemu-system-x86_64".to_owned();
            return Err(HarnessError::Program { program, status, output }.into());
        }
    }

    /// Starts swtpm on the machine's state and waits until it listens.
    fn start_tpm(&self) -> Result<Process, MachineError> {
        let log = io("creating swtpm's log", || fs::File::create(self.at("swtpm.log")))?;
        let socket = self.at("tpm.socket");
        let _ = fs::remove_file(&socket);
        let child = Command::new(&self.parts.swtpm)
            // It ends with QEMU, should nobody be left to end it.
            .args(["socket", "--tpm2", "--terminate", "--tpmstate"])
            .arg(format!("dir={}", self.at("tpm").display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|source| not_installed("swtpm", source))?;
        let mut process = Process(child);
        let deadline = Instant::now() + START_DEADLINE;
        while UnixStream::connect(&socket).is_err() {
            let ended = io("looking after swtpm", || process.0.try_wait())?;
            if ended.is_some() || Instant::now() > deadline {
                let output = tail(&fs::read_to_string(self.at("swtpm.log")).unwrap_or_default());
                let status = process.end()?;
                let program = "swtpm".to_owned();
                return Err(HarnessError::Program { program, status, output }.into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(process)
    }

    fn start_qemu(&self, console: &Console) -> Result<Child, MachineError> {
        let log = io("creating QEMU's log", || fs::File::create(self.at("qemu.log")))?;
        let accelerator = env::var_os(ACCELERATOR).unwrap_or_else(|| OsString::from("tcg"));
        let mut command = Command::new(&self.parts.qemu);
        command.arg("-accel").arg(accelerator).args(["-cpu", "max", "-m", MEMORY_MB]);
        // OVMF of this build wants system management mode, and its variables out of the guest's reach.
        command.args(["-machine", "q35,smm=on"]);
        command.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
        command.args(["-nodefaults", "-display", "none"]);
        if !self.resets {
            command.arg("-no-reboot");
        }
        let firmware = format!("unit=0,readonly=on,file={}", self.parts.firmware.display());
        let variables = format!("unit=1,file={}", self.at("variables.fd").display());
        for flash in [firmware, variables] {
            command.arg("-drive").arg(format!("if=pflash,format=raw,{flash}"));
        }
        command
            .arg("-drive")
            .arg(format!("format=raw,file=fat:rw:{}", self.at("disk").display()))
            .arg("-chardev")
            .arg(format!("socket,id=tpm,path={}", self.at("tpm.socket").display()))
            .args(["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0"])
            .args(["-netdev", "user,id=net0", "-device", "e1000,netdev=net0"])
            .arg("-serial")
            .arg(match self.terminal {
                Terminal::Here => "mon:stdio".to_owned(),
                Terminal::Kept => format!("file:{}", console.path().display()),
            })
            .arg("-chardev")
            .arg(format!("socket,id=agent,path={}", self.at("agent").display()))
            .args(["-serial", "chardev:agent"]);
        if self.terminal == Terminal::Kept {
            command.stdin(Stdio::null()).stdout(Stdio::null());
        }
        command.stderr(log).spawn().map_err(|source| not_installed("qemu", source).into())
    }

    fn at(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }
}

/// Does what takes a while and awaits nothing beside the threads that run everybody's tasks: the verifier may be among them.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MachineError> + Send + 'static,
) -> Result<T, MachineError> {
    tokio::task::spawn_blocking(work).await.map_err(|panic| MachineError::Site(panic.into()))?
}

/// A process of ours, ended by its own id when dropped.
#[derive(Debug)]
pub(super) struct Process(pub(super) Child);

impl Process {
    /// Ends it, if it runs, and says how it ended.
    pub(super) fn end(&mut self) -> Result<std::process::ExitStatus, HarnessError> {
        // Failure means that it has ended already.
        let _ = self.0.kill();
        io("ending a process", || self.0.wait())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
