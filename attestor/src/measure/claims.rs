//! What a tool says of itself and what the package manager says of it: recorded, never trusted.

use std::{
    io::Read,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use proto::limits::MAX_TEXT_BYTES;

/// A version command answers at once; five seconds are for a cold disk.
const DEADLINE: Duration = Duration::from_secs(5);
const MAX_OUTPUT_BYTES: u64 = 4096;
/// Environment of every command: nothing of the daemon's own leaks into it.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The first line that a version command prints.
pub(crate) fn version(command: &[String]) -> Result<String, String> {
    let (program, arguments) = command.split_first().ok_or("is empty")?;
    let output = run(Command::new(program).args(arguments))?;
    let text = String::from_utf8_lossy(&output);
    let line = clean(text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default());
    if line.is_empty() { Err(format!("`{program}` printed nothing")) } else { Ok(line) }
}

/// Package URL of the Debian package that owns a path; `None` if none does.
pub(crate) fn debian_package(path: &[u8]) -> Result<Option<String>, String> {
    let mut owner = query_owner(path)?;
    // Packages from before the merge of /usr list /bin/x for what lies at /usr/bin/x.
    if let (None, Some(rest)) = (&owner, path.strip_prefix(b"/usr")) {
        owner = query_owner(rest)?;
    }
    let Some(owner) = owner else { return Ok(None) };
    let format = "${Package} ${Version} ${Architecture}";
    let output = run(Command::new("dpkg-query").args(["-W", "-f", format, "--", &owner]))?;
    let text = String::from_utf8_lossy(&output).into_owned();
    let mut words = text.split_whitespace();
    let (Some(name), Some(version), Some(arch)) = (words.next(), words.next(), words.next()) else {
        return Err(format!("dpkg-query says nothing about {owner}"));
    };
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let distribution = release
        .lines()
        .find_map(|line| line.strip_prefix("ID="))
        .map_or("debian", |id| id.trim_matches('"'));
    let (name, version) = (escape(name), escape(version));
    Ok(Some(clean(&format!("pkg:deb/{}/{name}@{version}?arch={arch}", escape(distribution)))))
}

fn query_owner(path: &[u8]) -> Result<Option<String>, String> {
    let path = std::ffi::OsStr::from_bytes(path);
    // `-S` takes patterns: a path with their characters is escaped by none, so it is not asked for.
    if path.as_bytes().iter().any(|byte| b"*?[\\".contains(byte)) {
        return Ok(None);
    }
    match run(Command::new("dpkg-query").args(["-S".as_ref(), "--".as_ref(), path])) {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output).into_owned();
            let owner = text.lines().find(|line| !line.starts_with("diversion by"));
            // `gcc-12, other:amd64: /usr/bin/gcc-12`
            Ok(owner
                .and_then(|line| line.split_once(": "))
                .and_then(|(owners, _)| owners.split(", ").next())
                .map(str::to_owned))
        }
        Err(error) if error.ends_with("exit status: 1") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Percent-encoding of package URLs.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// Text within the measurement's rules.
fn clean(text: &str) -> String {
    let mut out: String = text.trim().chars().filter(|char| !char.is_control()).collect();
    while out.len() > MAX_TEXT_BYTES {
        out.pop();
    }
    out
}

/// Standard output of a command that ends well, in time.
fn run(command: &mut Command) -> Result<Vec<u8>, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let fail = |why: String| format!("`{program}` {why}");
    let mut child = command
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .env("LC_ALL", "C")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| fail(error.to_string()))?;
    let deadline = Instant::now() + DEADLINE;
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        // Ends with the last process that holds the pipe: at the latest when the group is killed.
        std::thread::spawn(move || {
            let mut output = Vec::new();
            if stdout.take(MAX_OUTPUT_BYTES).read_to_end(&mut output).is_ok() {
                // Nobody may be waiting any more.
                let _ = sender.send(output);
            }
        });
    }
    let output = receiver.recv_timeout(DEADLINE).ok();
    let status = wait_until(&mut child, deadline);
    match (output, status) {
        (Some(output), Some(status)) if status.success() => Ok(output),
        (_, Some(status)) => Err(fail(format!("ended with {status}"))),
        (_, None) => Err(fail(format!("did not end within {} s", DEADLINE.as_secs()))),
    }
}

/// The exit status; at the deadline the whole process group is killed.
fn wait_until(child: &mut Child, deadline: Instant) -> Option<std::process::ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            _ => break,
        }
    }
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    let _ = child.wait();
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Result<String, String> {
        version(&["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()])
    }

    #[test]
    fn the_first_line_is_the_version() {
        assert_eq!(sh("echo; echo ' tool 1.2 '; echo more"), Ok("tool 1.2".to_owned()));
        assert_eq!(sh("printf 'a\\033b'"), Ok("ab".to_owned()));
        assert_eq!(sh("printf '%0300d' 1").map(|line| line.len()), Ok(MAX_TEXT_BYTES));
        assert_eq!(sh("echo $HOME$USER-"), Ok("-".to_owned()), "no environment");
    }

    #[test]
    fn failures_say_what_happened() {
        assert_eq!(sh("exit 3"), Err("`/bin/sh` ended with exit status: 3".to_owned()));
        assert_eq!(sh(":"), Err("`/bin/sh` printed nothing".to_owned()));
        let none = version(&["/none/tool".to_owned()]).expect_err("no such program");
        assert!(none.contains("No such file"), "{none}");
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_its_children() {
        let start = Instant::now();
        let error = sh("sleep 60 & sleep 60").expect_err("too slow");
        assert_eq!(error, "`/bin/sh` did not end within 5 s");
        assert!(start.elapsed() < DEADLINE + Duration::from_secs(5));
    }

    #[test]
    fn endless_output_is_cut() {
        let error = sh("yes").expect_err("the pipe is closed under it");
        assert!(error.contains("ended with"), "{error}");
    }
}
