//! A running boot, and what can be done in it.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};

use crate::{
    machine::{MachineError, console::Console, power::Process},
    swtpm::HarnessError,
};

/// What `init` says when it takes scripts.
const READY: &[u8] = b"ASSAY-AGENT-READY\n";
/// Firmware and kernel, in software, on a machine that is busy with other things: 20 s when it is not.
const BOOT_DEADLINE: Duration = Duration::from_secs(400);
/// One script: an attestation takes 2 s where nothing else runs.
const SCRIPT_DEADLINE: Duration = Duration::from_secs(200);
/// Bytes of a file that one script carries: well within what the serial port's line takes at once.
const WRITE_BYTES: usize = 6 * 1024;

/// What a script left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit status.
    pub status: u8,
    /// Standard output and standard error.
    pub bytes: Vec<u8>,
}

impl Output {
    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// A running boot. Dropped, it is powered off as by pulling the plug.
#[derive(Debug)]
pub struct Guest {
    agent: BufReader<UnixStream>,
    // Field order is drop order: QEMU before its TPM, both before their folder.
    qemu: Process,
    tpm: Process,
    console: Console,
    _folder: Arc<TempDir>,
}

impl Guest {
    pub(super) fn new(
        agent: UnixStream,
        qemu: Process,
        tpm: Process,
        console: Console,
        folder: Arc<TempDir>,
    ) -> Self {
        Self { agent: BufReader::new(agent), qemu, tpm, console, _folder: folder }
    }

    /// Waits until `init` takes scripts; what the firmware prints before is passed over.
    ///
    /// # Errors
    /// [`MachineError::Deadline`], [`MachineError::Ended`].
    pub async fn ready(&mut self) -> Result<(), MachineError> {
        self.wait_for("boot", BOOT_DEADLINE, |line| line.ends_with(READY)).await
    }

    /// Waits until the firmware prints a line with `text`: for boots that never get to a kernel.
    ///
    /// # Errors
    /// [`MachineError::Deadline`], [`MachineError::Ended`].
    pub async fn firmware_says(&mut self, text: &str) -> Result<(), MachineError> {
        let is_it = |line: &[u8]| String::from_utf8_lossy(line).contains(text);
        self.wait_for(text, BOOT_DEADLINE, is_it).await
    }

    /// Runs a shell script, whatever its exit status.
    ///
    /// # Errors
    /// [`MachineError::Deadline`], [`MachineError::Ended`], [`MachineError::Agent`].
    pub async fn run(&mut self, script: &str) -> Result<Output, MachineError> {
        self.send(script).await?;
        let mut encoded = Vec::new();
        loop {
            let line = self.line(script, SCRIPT_DEADLINE).await?;
            let Some(status) = line.strip_prefix(b"END ") else {
                encoded.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
                continue;
            };
            let unexpected = || MachineError::Agent(String::from_utf8_lossy(&line).into_owned());
            let status = std::str::from_utf8(status).ok().and_then(|text| text.trim().parse().ok());
            let status = status.ok_or_else(unexpected)?;
            let bytes = BASE64_STANDARD.decode(&encoded).map_err(|_| unexpected())?;
            return Ok(Output { status, bytes });
        }
    }

    /// Runs a shell script that must succeed; what it printed.
    ///
    /// # Errors
    /// As [`Guest::run`], and [`MachineError::Script`].
    pub async fn succeed(&mut self, script: &str) -> Result<Vec<u8>, MachineError> {
        let output = self.run(script).await?;
        if output.status == 0 {
            return Ok(output.bytes);
        }
        let (script, status) = (script.to_owned(), output.status);
        Err(MachineError::Script { script, status, output: output.text() })
    }

    /// A file of the guest.
    ///
    /// # Errors
    /// As [`Guest::succeed`].
    pub async fn read(&mut self, path: &str) -> Result<Vec<u8>, MachineError> {
        self.succeed(&format!("cat '{path}'")).await
    }

    /// Writes a file in the guest, with the folders above it.
    ///
    /// # Errors
    /// As [`Guest::succeed`].
    pub async fn write(&mut self, path: &str, content: &[u8]) -> Result<(), MachineError> {
        self.succeed(&format!("mkdir -p \"$(dirname '{path}')\" && : > '{path}'")).await?;
        for piece in content.chunks(WRITE_BYTES) {
            let piece = BASE64_STANDARD.encode(piece);
            self.succeed(&format!("echo {piece} | base64 -d >> '{path}'")).await?;
        }
        Ok(())
    }

    /// Resets the machine from within, and waits for the next boot to take scripts. Only where
    /// [`super::Machine::allow_reset`] was called before this boot.
    ///
    /// # Errors
    /// [`MachineError::Deadline`], [`MachineError::Ended`].
    pub async fn reset(&mut self) -> Result<(), MachineError> {
        self.send("reboot -f").await?;
        self.ready().await
    }

    /// Powers off in an orderly way: the kernel tells the TPM.
    ///
    /// # Errors
    /// [`MachineError::Deadline`].
    pub async fn power_off(mut self) -> Result<(), MachineError> {
        self.send("poweroff -f").await?;
        self.ended().await
    }

    /// Waits until the machine powers itself off.
    ///
    /// # Errors
    /// [`MachineError::Deadline`].
    pub async fn ended(mut self) -> Result<(), MachineError> {
        // QEMU's end closes the agent's connection.
        while self.read_line("power off", SCRIPT_DEADLINE).await?.is_some() {}
        self.qemu.0.wait().map_err(|source| wait_failed("QEMU", source))?;
        self.tpm.end()?;
        Ok(())
    }

    /// As [`Guest::ended`], however long it takes: for a person at the console.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn ended_by_hand(mut self) -> Result<(), MachineError> {
        let mut line = Vec::new();
        while self.agent.read_until(b'\n', &mut line).await.is_ok_and(|len| len > 0) {
            line.clear();
        }
        self.qemu.0.wait().map_err(|source| wait_failed("QEMU", source))?;
        self.tpm.end()?;
        Ok(())
    }

    /// What was printed on the console so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.console.text()
    }

    /// Sends a script without waiting for its end.
    ///
    /// # Errors
    /// [`MachineError::Ended`].
    pub async fn send(&mut self, script: &str) -> Result<(), MachineError> {
        let line = BASE64_STANDARD.encode(script) + "\n";
        let sent = self.agent.write_all(line.as_bytes()).await;
        sent.map_err(|_| self.ended_during(script))
    }

    async fn wait_for(
        &mut self,
        awaited: &str,
        deadline: Duration,
        is_it: impl Fn(&[u8]) -> bool,
    ) -> Result<(), MachineError> {
        let lines = async {
            while !is_it(&self.line(awaited, deadline).await?) {}
            Ok(())
        };
        let outcome = timeout(deadline, lines).await;
        outcome.unwrap_or_else(|_| Err(self.late(awaited, deadline)))
    }

    /// The agent's next line.
    async fn line(&mut self, awaited: &str, deadline: Duration) -> Result<Vec<u8>, MachineError> {
        self.read_line(awaited, deadline).await?.ok_or_else(|| self.ended_during(awaited))
    }

    /// The agent's next line, or `None` at the machine's end.
    async fn read_line(
        &mut self,
        awaited: &str,
        deadline: Duration,
    ) -> Result<Option<Vec<u8>>, MachineError> {
        let mut line = Vec::new();
        match timeout(deadline, self.agent.read_until(b'\n', &mut line)).await {
            Ok(Ok(len)) => Ok((len > 0).then_some(line)),
            // A connection that breaks is a QEMU that ended.
            Ok(Err(_)) => Ok(None),
            Err(_) => Err(self.late(awaited, deadline)),
        }
    }

    fn late(&self, awaited: &str, deadline: Duration) -> MachineError {
        MachineError::Deadline {
            awaited: awaited.to_owned(),
            deadline,
            console: self.console.tail(),
        }
    }

    fn ended_during(&self, awaited: &str) -> MachineError {
        MachineError::Ended { awaited: awaited.to_owned(), console: self.console.tail() }
    }
}

fn wait_failed(program: &str, source: std::io::Error) -> HarnessError {
    HarnessError::Io { what: format!("awaiting the end of {program}"), source }
}
