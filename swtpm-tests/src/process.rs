//! What Linux says of a process: its memory, descriptors, threads and processor time.

use std::process::Child;

use crate::cluster::AnyError;

/// Clock ticks a second of `/proc/PID/stat` on Linux.
const TICKS: f64 = 100.0;

/// A child that does not outlive whoever has this: a test that failed, or a demo. Ended by its own id.
#[derive(Debug)]
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Failure means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

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
    pub fn of(child: &Child) -> Self {
        Self(child.id())
    }

    /// One whose number somebody wrote down.
    #[must_use]
    pub fn numbered(id: u32) -> Self {
        Self(id)
    }

    /// Its process group, unless it is gone or a zombie.
    #[must_use]
    pub fn group_while_it_runs(self) -> Option<u32> {
        let stat = self.read("stat").ok()?;
        let mut fields = after_the_name(&stat).ok()?.split_whitespace();
        let is_over = matches!(fields.next()?, "Z" | "X");
        let group = fields.nth(1)?.parse().ok()?;
        (!is_over).then_some(group)
    }

    /// Those of this process group that run.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn of_group(group: u32) -> Result<Vec<Self>, AnyError> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let Ok(id) = entry?.file_name().to_string_lossy().parse() else { continue };
            found.push(Self(id));
        }
        found.retain(|process| process.group_while_it_runs() == Some(group));
        Ok(found)
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
        let fields: Vec<&str> = after_the_name(&stat)?.split_whitespace().collect();
        let ticks = |at: usize| -> Result<f64, AnyError> {
            Ok(fields.get(at).ok_or("a short stat")?.parse::<f64>()?)
        };
        Ok((ticks(11)? + ticks(12)?) / TICKS)
    }
}

/// The fields of a `stat` from its third on: the program's name stands in parentheses and may hold any character.
fn after_the_name(stat: &str) -> Result<&str, AnyError> {
    Ok(stat.rsplit_once(')').ok_or("an unreadable stat")?.1)
}
