//! `permit --stop-parent`: whatever ends the command without a permit ends its parent, a shell here.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{Command, Output},
};

/// Runs the command line in a shell that would go on after it.
fn shell(line: &str) -> Output {
    let script = format!("{line}\necho went on\n");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env("ATTESTOR", env!("CARGO_BIN_EXE_attestor"));
    command.env_remove("ASSAY_LOG").output().unwrap()
}

fn went_on(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stdout).contains("went on")
}

#[test]
fn no_end_without_a_permit_lets_the_parent_go_on() {
    let nobody = "--job generic --socket /nowhere/job.sock";
    for line in [
        format!("$ATTESTOR permit {nobody} --stop-parent"),
        // Before anything of the command itself: its log, its arguments.
        format!("ASSAY_LOG=a=b=c $ATTESTOR permit {nobody} --stop-parent"),
        format!("$ATTESTOR permit {nobody} --stop-parent --no-such-argument"),
        format!("$ATTESTOR permit {nobody} --stop-parent=yes"),
        "$ATTESTOR permit --help --stop-parent".to_owned(),
    ] {
        let output = shell(&line);
        assert_eq!(output.status.signal(), Some(9), "{line}: {output:?}");
        assert!(!went_on(&output), "{line}");
        // A shell whose command does not ask for it goes on.
        let output = shell(&line.replace("--stop-parent=yes", "").replace("--stop-parent", ""));
        assert_eq!(output.status.signal(), None, "{line}: {output:?}");
        assert!(went_on(&output), "{line}");
    }
    // Another command's argument.
    assert!(went_on(&shell(&format!("$ATTESTOR exec {nobody} -- true --stop-parent"))));
}
