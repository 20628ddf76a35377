//! The test machine for a person: boots it, with a verifier beside it, and gives the console. With `vectors`, writes
//! the logs of real boots that tests read.

use std::{env, path::Path, process::ExitCode};

use swtpm_tests::{
    cluster::AnyError,
    machine::{
        BootRecord, EXECUTED_FILES, Guest, InitialRamDisk, Machine, Parts, SecureBoot, Site,
        Systemd, Terminal, program,
    },
};

const HELP: &str = "\
Usage: cargo xtask machine [--secure-boot] [--cmdline WORDS]

Boots a virtual machine with firmware, TPM, IMA and the attestor, and gives its console. A verifier
runs beside it and knows the machine; `attestor once` in it attests. To leave: `poweroff -f` in the
machine, or Ctrl-A then X.

  --secure-boot     the firmware starts only signed images; the kernel locks itself down
  --cmdline WORDS   more words for the kernel's command line
";

/// Where vectors go, from this package's folder.
const VECTORS: &str = "vectors";

/// What was asked.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Help,
    Play { secure_boot: SecureBoot, command_line: Option<String> },
    Vectors,
}

fn main() -> ExitCode {
    attestor::tpm::quiet::silence_tss_log();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let Some(wish) = parse(&arguments) else {
        eprint!("{HELP}");
        return ExitCode::from(2);
    };
    match run(wish) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("machine: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Option<Wish> {
    let mut secure_boot = SecureBoot::Off;
    let mut command_line = None;
    let mut rest = arguments.iter().map(String::as_str);
    while let Some(argument) = rest.next() {
        match argument {
            "--help" | "-h" => return Some(Wish::Help),
            "vectors" if arguments.len() == 1 => return Some(Wish::Vectors),
            "--secure-boot" => secure_boot = SecureBoot::On,
            "--cmdline" => command_line = Some(rest.next()?.to_owned()),
            _ => return None,
        }
    }
    Some(Wish::Play { secure_boot, command_line })
}

fn run(wish: Wish) -> Result<(), AnyError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match wish {
        Wish::Help => {
            print!("{HELP}");
            Ok(())
        }
        Wish::Play { secure_boot, command_line } => {
            runtime.block_on(play(secure_boot, command_line.as_deref()))
        }
        Wish::Vectors => runtime.block_on(vectors()),
    }
}

async fn play(secure_boot: SecureBoot, command_line: Option<&str>) -> Result<(), AnyError> {
    let site = Site::start(&Parts::find()?).await?;
    let mut image = site.image()?;
    if let Some(words) = command_line {
        image = image.append_command_line(words);
    }
    let mut machine = site.worker("machine", "linux", secure_boot).await?;
    machine.set_terminal(Terminal::Here);
    machine.allow_reset();
    println!("Booting; the console follows. To leave: `poweroff -f` there, or Ctrl-A then X.");
    let mut guest = machine.boot(&image).await?;
    site.configure(&mut guest).await?;
    // The console is in raw mode: a line begins where the one before ended.
    print!("{}", instructions(&site)?.replace('\n', "\r\n"));
    // A shell with job control on the console, again when it ends.
    guest.send("while :; do setsid cttyhack sh -l < /dev/ttyS0 > /dev/ttyS0 2>&1; done").await?;
    Ok(guest.ended_by_hand().await?)
}

/// How to go on, in the machine and beside it.
fn instructions(site: &Site) -> Result<String, AnyError> {
    let verifier = program("verifier")?;
    let verifier = verifier.display();
    Ok(format!(
        "\nIn the machine:\n  attestor inspect\n  attestor once      first denied: there is no golden set \
         yet\nIn another terminal of this host:\n  export ASSAY_STATE={} ASSAY_SERVER={}\n  {verifier} golden \
         capture machine > linux.toml\n  {verifier} golden apply linux.toml --key {}\n",
        site.cluster.folder().join("state").display(),
        site.cluster.running().address,
        site.cluster.folder().join("state/admin/security.key").display(),
    ))
}

/// What IMA measures in these boots: what is executed, and what user 1000 owns and anybody reads.
const READ_FILES: &str = "measure func=FILE_CHECK mask=MAY_READ fowner=1000\n";

/// Two boots, with Secure Boot and without, and what they left; the second one again after violations.
async fn vectors() -> Result<(), AnyError> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(VECTORS);
    std::fs::create_dir_all(&folder)?;
    let site = Site::start(&Parts::find()?).await?;
    let image = site.image()?.with_ima_policy(&format!("{EXECUTED_FILES}{READ_FILES}"));
    for (name, secure_boot) in
        [("secure-boot-on", SecureBoot::On), ("secure-boot-off", SecureBoot::Off)]
    {
        let mut machine: Machine = site.machine(secure_boot).await?;
        let mut guest = machine.boot(&image).await?;
        record(&mut guest, EXECUTES, &folder, name).await?;
        if secure_boot == SecureBoot::Off {
            record(&mut guest, VIOLATES, &folder, "ima-violations").await?;
        }
        guest.power_off().await?;
    }
    systemd_vectors(&site, &folder).await
}

/// Two boots of the distribution's systemd, with an initrd that is a script and with one that runs systemd too.
async fn systemd_vectors(site: &Site, folder: &Path) -> Result<(), AnyError> {
    let systemd = Systemd::find()?;
    for (suffix, initial) in [("", InitialRamDisk::Script), ("-initrd", InitialRamDisk::Systemd)] {
        let mut machine = site.machine(SecureBoot::On).await?;
        let mut guest = machine.boot(&site.image_with_systemd(&systemd, initial)?).await?;
        let name = format!("systemd-{}{suffix}", systemd.version());
        // What starts later than the agent would go on into PCR 10.
        record(&mut guest, "systemctl is-system-running --wait", folder, &name).await?;
        guest.power_off().await?;
    }
    Ok(())
}

/// Runs a script, and writes what the boot left so far.
async fn record(
    guest: &mut Guest,
    script: &str,
    folder: &Path,
    name: &str,
) -> Result<(), AnyError> {
    guest.succeed(script).await?;
    BootRecord::read(guest).await?.write(folder, name)?;
    println!("wrote {}.*", folder.join(name).display());
    Ok(())
}

/// A dynamic program with its libraries, a script with its interpreter, a program that changes between two runs,
/// and one with a space and a non-ASCII letter in its name.
const EXECUTES: &str = "\
set -e
as --version
printf '#!/bin/sh\\ntrue\\n' > /root/script
chmod +x /root/script
/root/script
cp /bin/busybox /root/echo
/root/echo first
echo >> /root/echo
/root/echo second
cp /bin/busybox '/root/\u{e9}cho twice'
ln -s '/root/\u{e9}cho twice' /root/true
/root/true
";

/// A file is written while it is open for reading, and read while it is open for writing.
const VIOLATES: &str = "\
set -e
echo one > /root/shared
chown 1000 /root/shared
exec 5< /root/shared
echo two >> /root/shared
exec 5<&-
exec 6>> /root/shared
cat /root/shared
exec 6>&-
";

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(words: &[&str]) -> Option<Wish> {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_read() {
        let play = |secure_boot, command_line: Option<&str>| {
            Some(Wish::Play { secure_boot, command_line: command_line.map(str::to_owned) })
        };
        assert_eq!(wish(&[]), play(SecureBoot::Off, None));
        assert_eq!(
            wish(&["--secure-boot", "--cmdline", "debug quiet"]),
            play(SecureBoot::On, Some("debug quiet"))
        );
        assert_eq!(wish(&["vectors"]), Some(Wish::Vectors));
        assert_eq!(wish(&["--cmdline"]), None);
        assert_eq!(wish(&["--kvm"]), None);
    }
}
