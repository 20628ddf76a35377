//! docs/GOLDEN-SETS.md, command by command, in the practice environment.
//!
//! With `ASSAY_GUIDE=print` it prints what the commands really print instead of comparing, to be copied into the guide.

use std::{env, fs, path::Path, process::Stdio, time::Instant};

use appraisal::policy::GoldenSet;
use swtpm_tests::{
    cluster::AnyError,
    documented::{Expected, as_documented, commands, stray_commands},
    practice::Practice,
};

const GUIDE: &str = "../docs/GOLDEN-SETS.md";
const FORMAT: &str = "../docs/GOLDEN-SET-FORMAT.md";
/// Fewer commands than this, and a part of the guide was not read.
const LEAST_COMMANDS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_to_golden_sets_says_what_happens() -> Result<(), AnyError> {
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(GUIDE))?;
    let commands = commands(&guide);
    assert!(commands.len() >= LEAST_COMMANDS, "{} commands", commands.len());
    assert_eq!(stray_commands(&guide), [0; 0], "lines with commands that are not run");
    let is_printed = env::var("ASSAY_GUIDE").is_ok_and(|value| value == "print");
    let started = Instant::now();
    let practice = Practice::start().await?;
    if is_printed {
        eprintln!("{:.1} s for the environment", started.elapsed().as_secs_f32());
    }
    let mut differences = Vec::new();
    for expected in &commands {
        let started = Instant::now();
        let (printed, exit) = run(&practice, expected)?;
        if is_printed {
            eprintln!("{:.1} s for {}", started.elapsed().as_secs_f32(), expected.command);
            print(expected, &as_documented(&printed), exit);
        } else if let Err(difference) = expected.compare(&printed, exit) {
            differences.push(difference);
            // What follows builds on what did not happen here.
            if exit != expected.exit {
                break;
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

/// Every key that the page about the format shows is one.
#[test]
fn the_examples_of_the_format_are_golden_sets() -> Result<(), AnyError> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(FORMAT))?;
    let examples: Vec<&str> = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("\n```")?.0))
        .collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        // Digests are left out there.
        let digest = "5a".repeat(32);
        let text = example
            .replace("sha256:…", &format!("sha256:{digest}"))
            .replace("\"…\"", &format!("\"{digest}\""));
        let found = GoldenSet::document(&text);
        assert!(found.is_ok(), "{found:?}");
    }
    Ok(())
}

/// What the command prints, errors too, and how it ends; the environment's folder is …, as in the guide.
fn run(practice: &Practice, expected: &Expected) -> Result<(String, i32), AnyError> {
    let output = practice
        .command("bash")
        .args(["-c", &format!("exec 2>&1\n{}", expected.command)])
        .stdin(Stdio::null())
        .output()?;
    let folder = practice.folder().to_string_lossy().into_owned();
    let printed = String::from_utf8_lossy(&output.stdout).replace(&folder, "…");
    Ok((printed, output.status.code().unwrap_or(-1)))
}

fn print(expected: &Expected, printed: &str, exit: i32) {
    println!("$ {}", expected.command.replace('\n', "\n> "));
    print!("{printed}");
    if exit != 0 {
        println!("[exit {exit}]");
    }
}
