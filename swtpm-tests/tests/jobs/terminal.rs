//! A job that somebody watches: the terminal is the job's while it runs, and whoever started it has it again afterwards.

use std::{
    fs::File,
    io::Write as _,
    process::{Child, ChildStdin},
};

use super::{processes::until, *};

/// `script` with a shell on a terminal of its own.
struct Screen {
    script: Child,
    keys: ChildStdin,
    screen: std::path::PathBuf,
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

impl Screen {
    /// Where the line runs, with `@EXEC@` for the beginning of a job; `None` without util-linux's `script`.
    fn run(site: &JobSite, line: &str) -> Option<Self> {
        if Command::new("script").arg("--version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "CI runs these tests with `script`");
            eprintln!("skipped: there is no `script`");
            return None;
        }
        let me = swtpm_tests::job_site::program("attestor").display().to_string();
        let line = line.replace("@EXEC@", &format!("{me} exec --job generic --"));
        let screen = site.path("screen");
        let mut command = processes::as_in(site, "script", &["-qfec", &line, "/dev/null"]);
        command.stdin(Stdio::piped()).stdout(File::create(&screen).unwrap());
        let mut script = command.stderr(Stdio::null()).spawn().unwrap();
        let keys = script.stdin.take().unwrap();
        Some(Self { script, keys, screen })
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    async fn shows(&self, text: &str) {
        let screen = || String::from_utf8_lossy(&std::fs::read(&self.screen).unwrap()).into_owned();
        until(&format!("{text:?} on the screen"), || screen().contains(text)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_has_the_terminal_until_it_ends() {
    let site = JobSite::start().await.unwrap();
    let line = "@EXEC@ sh -c 'echo begun; read -r line; echo \"the job read $line\"'; read -r line; \
                echo \"the shell read $line\"";
    let Some(mut screen) = Screen::run(&site, line) else { return };
    screen.shows("begun").await;
    // It would stand still, and so would whoever waits for it.
    screen.types("\x1a");
    screen.shows("^Z").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    screen.types("one\n");
    screen.shows("the job read one").await;
    screen.types("two\n");
    screen.shows("the shell read two").await;
    assert!(screen.script.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_of_the_terminal_are_the_jobs() {
    let site = JobSite::start().await.unwrap();
    let line = "@EXEC@ sh -c 'trap \"echo it heard; exit 5\" INT; echo begun; sleep 60 & wait'; echo \"code $?\"";
    let Some(mut screen) = Screen::run(&site, line) else { return };
    screen.shows("begun").await;
    screen.types("\x03");
    screen.shows("it heard").await;
    screen.shows("code 5").await;
    // A job that has background processes stopped for what they print does not stop the one that ends it.
    let line = "@EXEC@ sh -c 'stty tostop; echo begun; sleep 60'; echo \"code $?\"";
    let Some(screen) = Screen::run(&site, line) else { return };
    screen.shows("begun").await;
    site.tools.write("cc1", b"compiler proper 12.2.0 with a gift").unwrap();
    screen.shows("GATE_TOOL_CHANGED").await;
    screen.shows("code 3").await;
}
