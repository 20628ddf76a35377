//! What Linux says of a process: its memory, descriptors, threads and processor time.

use crate::cluster::AnyError;

/// Clock ticks a second of `/proc/PID/stat` on Linux.
const TICKS: f64 = 100.0;

/// A process of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Process(u32);

impl Process {
    /// This one.
    #[must_use]
    pub fn own() -> Self {
        Self(std::process::id())
    }

    /// One that was started.
    #[must_use]
    pub fn of(child: &std::process::Child) -> Self {
        Self(child.id())
    }

    fn read(self, file: &str) -> Result<String, AnyError> {
        Ok(std::fs::read_to_string(format!("/proc/{}/{file}", self.0))?)
    }

    fn status(self, field: &str) -> Result<f64, AnyError> {
        let status = self.read("status")?;
        let is_it = |line: &&str| line.split(':').next() == Some(field);
        let line = status.lines().find(is_it).ok_or("no such field")?;
        Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
    }

    /// MiB of a field of `status`: `VmRSS`, `VmHWM`, `RssAnon`.
    ///
    /// # Errors
    /// The process is gone, or there is no such field.
    pub fn memory_mib(self, field: &str) -> Result<f64, AnyError> {
        Ok(self.status(field)? / 1024.0)
    }

    /// Its threads.
    ///
    /// # Errors
    /// The process is gone.
    pub fn threads(self) -> Result<f64, AnyError> {
        self.status("Threads")
    }

    /// Numbers of its open descriptors.
    ///
    /// # Errors
    /// The process is gone, or is another user's.
    pub fn descriptors(self) -> Result<Vec<u32>, AnyError> {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.0))?;
        let number = |entry: std::io::Result<std::fs::DirEntry>| -> Result<u32, AnyError> {
            Ok(entry?.file_name().to_string_lossy().parse()?)
        };
        folder.map(number).collect()
    }

    /// User and system time so far, seconds.
    ///
    /// # Errors
    /// The process is gone.
    pub fn cpu_s(self) -> Result<f64, AnyError> {
        let stat = self.read("stat")?;
        // The program's name stands in parentheses and may hold any character.
        let (_, fields) = stat.rsplit_once(')').ok_or("an unreadable stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |at: usize| -> Result<f64, AnyError> {
            Ok(fields.get(at).ok_or("a short stat")?.parse::<f64>()?)
        };
        Ok((ticks(11)? + ticks(12)?) / TICKS)
    }
}
