//! A kernel for the test machine, taken out of the distribution's package without installing it.
//!
//! Debian: `linux-image-amd64` depends on the package of the current kernel, which holds kernel and modules.
//! Ubuntu: `linux-image-generic` does, and the modules are in a package that the kernel's package names.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    package::{self, dependencies, files_below},
    run::{Failure, execute, target_directory},
};

/// Whether the test machine runs on this host's architecture.
pub(crate) const IS_SUPPORTED: bool = cfg!(target_arch = "x86_64");
/// Packages that always name the current kernel: Debian's, Ubuntu's.
const CURRENT: [&str; 2] = ["linux-image-amd64", "linux-image-generic"];
/// What is taken out: the kernel, the driver of the emulated network card, and the file system of firmware's variables.
const MEMBERS: [&str; 3] = ["*/boot/vmlinuz-*", "*/e1000/e1000.ko*", "*/efivarfs/efivarfs.ko*"];
/// How modules are compressed, and what undoes it.
const COMPRESSIONS: [(&str, &str); 3] = [("xz", "xz"), ("zst", "zstd"), ("gz", "gzip")];

/// Whether the kernel's files are in the target directory.
pub(crate) fn is_there() -> bool {
    let Ok(folder) = folder() else { return false };
    ["vmlinuz", "e1000.ko", "efivarfs.ko"].into_iter().all(|name| folder.join(name).is_file())
}

/// Downloads the current kernel's package and takes the kernel out.
pub(crate) fn bring() -> Result<(), Failure> {
    if !IS_SUPPORTED {
        return Err(Failure::Missing(format!(
            "the test machine is x86-64 only, and this is {}; its tests are skipped here",
            env::consts::ARCH
        )));
    }
    package::require_programs()?;
    let packages = package::find(packages)?;
    println!("Taking a kernel for the test machine out of {}", packages.join(" and "));
    let folder = folder()?;
    let work = folder.with_extension("new");
    let failed = |error| Failure::Failed(format!("{}: {error}", work.display()));
    let tree = package::unpack_into(&work, &packages, extract)?;
    let found = files_below(&tree);
    let kernel = named(&found, "vmlinuz-", &packages)?;
    fs::rename(kernel, work.join("vmlinuz")).map_err(failed)?;
    let module = unpacked(named(&found, "e1000.ko", &packages)?)?;
    fs::rename(module, work.join("e1000.ko")).map_err(failed)?;
    let variables = work.join("efivarfs.ko");
    match named(&found, "efivarfs.ko", &packages) {
        Ok(module) => fs::rename(unpacked(module)?, variables).map_err(failed)?,
        // Ubuntu's kernel has it built in: nothing to load.
        Err(_) => fs::write(variables, b"").map_err(failed)?,
    }
    fs::write(work.join("package"), packages.join("\n") + "\n").map_err(failed)?;
    fs::remove_dir_all(&tree).map_err(failed)?;
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&work, &folder).map_err(failed)
}

fn folder() -> Result<PathBuf, Failure> {
    Ok(target_directory()?.join("machine/kernel"))
}

/// The package of the current kernel, and the package of its modules where that is another.
fn packages() -> Result<Vec<String>, Failure> {
    for current in CURRENT {
        let is_of = |prefix: &'static str| move |name: &String| name.starts_with(prefix);
        let Some(image) = dependencies(current)?.into_iter().find(is_of("linux-image-")) else {
            continue;
        };
        let modules = dependencies(&image)?.into_iter().find(is_of("linux-modules-"));
        return Ok([Some(image), modules].into_iter().flatten().collect());
    }
    Err(Failure::Missing(format!(
        "neither of {} is in the package lists: the test machine has no kernel",
        CURRENT.join(", ")
    )))
}

/// Takes [`MEMBERS`] out of a package.
fn extract(package: &Path, into: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::Failed(format!("unpacking {}: {error}", package.display()));
    let mut unpack = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let archive = unpack.stdout.take().map_or_else(Stdio::null, Stdio::from);
    // tar complains where a package has only one of the members, so that its status says nothing;
    // whoever calls looks for what must be there.
    let mut tar = Command::new("tar");
    tar.args(["-x", "--wildcards", "-C"]).arg(into).args(MEMBERS).stderr(Stdio::null());
    tar.stdin(archive).status().map_err(failed)?;
    unpack.wait().map_err(failed)?;
    Ok(())
}

/// The file whose name begins so.
fn named<'a>(
    files: &'a [PathBuf],
    prefix: &str,
    packages: &[String],
) -> Result<&'a PathBuf, Failure> {
    let is_it = |file: &&PathBuf| {
        file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    };
    files.iter().find(is_it).ok_or_else(|| {
        Failure::Missing(format!("{} hold no file {prefix}…", packages.join(" and ")))
    })
}

/// Undoes a module's compression: the machine's initrd has no program for it.
fn unpacked(module: &Path) -> Result<PathBuf, Failure> {
    let extension = module.extension().unwrap_or_default();
    let Some((_, program)) = COMPRESSIONS.iter().find(|(name, _)| extension == *name) else {
        return Ok(module.to_owned());
    };
    execute(Command::new(program).args(["-d", "-q"]).arg(module))?;
    Ok(module.with_extension(""))
}
