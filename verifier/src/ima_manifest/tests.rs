use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use appraisal::ima::Manifest;
use tempfile::TempDir;

use super::*;

const SELECTION: Selection = Selection { digest: HashAlg::Sha256, all: false };

fn manifest(collected: &Collected) -> Manifest {
    let text = collected.builder.to_text("test", 0);
    Manifest::parse(text.as_bytes()).expect("a manifest")
}

fn paths(collected: &Collected) -> Vec<String> {
    let mut paths: Vec<String> = manifest(collected).iter().map(|(_, path)| path).collect();
    paths.sort();
    paths
}

fn digest_of(collected: &Collected, path: &str) -> Vec<String> {
    manifest(collected).digests_of(path.as_bytes(), 9)
}

/// A root with a program, a library, a script, a module and what does not run.
fn tree() -> TempDir {
    let folder = TempDir::new().expect("temporary folder");
    let put = |name: &str, content: &[u8], mode: u32| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
    };
    put("usr/bin/tool", b"program", 0o755);
    put("usr/lib/libx.so.1", b"\x7fELF library", 0o644);
    put("usr/share/x/script", b"#!/bin/sh\n", 0o644);
    put("lib/modules/6.1/x.ko.xz", b"module", 0o644);
    put("usr/share/doc/x/copyright", b"text", 0o644);
    put("etc/empty", b"", 0o644);
    std::os::unix::fs::symlink("tool", folder.path().join("usr/bin/link")).expect("linked");
    folder
}

const RUNNING: [&str; 4] =
    ["/lib/modules/6.1/x.ko.xz", "/usr/bin/tool", "/usr/lib/libx.so.1", "/usr/share/x/script"];

#[test]
fn a_directory_gives_what_can_run_or_everything() {
    let tree = tree();
    let mut last = 0;
    let out = from_root(tree.path(), SELECTION, &mut |seen| last = seen).expect("collected");
    assert_eq!(paths(&out), RUNNING);
    assert_eq!((out.seen, last), (6, 6));
    assert!(out.skipped.is_empty());
    let expected = HashAlg::Sha256.hash(&[b"program"]).to_string();
    assert_eq!(digest_of(&out, "/usr/bin/tool"), [expected]);
    let all = Selection { digest: HashAlg::Sha512, all: true };
    let out = from_root(tree.path(), all, &mut |_| {}).expect("collected");
    assert_eq!(paths(&out).len(), 6);
    assert_eq!(digest_of(&out, "/etc/empty"), [HashAlg::Sha512.hash(&[b""]).to_string()]);
    let missing = from_root(&tree.path().join("absent"), SELECTION, &mut |_| {});
    assert!(matches!(missing, Err(CollectError::Read { .. })));
}

#[test]
fn a_database_gives_what_is_packaged() {
    let tree = tree();
    let database = tree.path().join("var/lib/dpkg");
    fs::create_dir_all(database.join("info")).expect("made");
    let list = "/.\n/usr\n/usr/bin\n/usr/bin/tool\n/usr/bin/link\n/usr/bin/gone\n/lib/modules/6.1/x.ko.xz\n";
    fs::write(database.join("info/x.list"), list).expect("written");
    let status = "Package: x\nStatus: install ok installed\nVersion: 1.2-3\n\n";
    fs::write(database.join("status"), status).expect("written");
    let out = from_installed(&database, SELECTION, &mut |_| {}).expect("collected");
    let expected = ["/lib/modules/6.1/x.ko.xz", "/usr/bin/tool", "/usr/lib/modules/6.1/x.ko.xz"];
    assert_eq!(paths(&out), expected);
    assert_eq!(manifest(&out).sources(), ["package x 1.2-3, installed"]);
    assert_eq!(out.skipped.len(), 1);
    assert!(out.skipped[0].contains("usr/bin/gone"));
    let other = from_installed(tree.path(), SELECTION, &mut |_| {});
    assert!(matches!(other, Err(CollectError::NotDpkg(_))));
}

/// Packages that dpkg-deb made, in each compression that it knows.
#[test]
fn packages_give_their_files() {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        println!("skipped: dpkg-deb is not installed");
        return;
    }
    let tree = tree();
    let long = format!("usr/lib/{}/{}", "d".repeat(120), "n".repeat(120));
    let path = tree.path().join(&long);
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    fs::write(&path, "#!").expect("written");
    fs::hard_link(tree.path().join("usr/bin/tool"), tree.path().join("usr/bin/tool2"))
        .expect("linked");
    fs::create_dir_all(tree.path().join("DEBIAN")).expect("made");
    let control = "Package: x\nVersion: 1.2-3\nArchitecture: amd64\nMaintainer: x <x@example.org>\n\
                   Description: x\n";
    fs::write(tree.path().join("DEBIAN/control"), control).expect("written");
    let made = TempDir::new().expect("temporary folder");
    for compression in ["none", "gzip", "xz", "zstd"] {
        let file = made.path().join(format!("{compression}.deb"));
        let built = Command::new("dpkg-deb")
            .args(["--build", "--root-owner-group", &format!("-Z{compression}")])
            .args([tree.path(), &file])
            .output()
            .expect("runs");
        if !built.status.success() && compression == "zstd" {
            println!("skipped: this dpkg-deb has no zstd");
            continue;
        }
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let out = from_packages(&[file], SELECTION, &mut |_| {}).expect("collected");
        let mut expected: Vec<String> = RUNNING.iter().map(|path| (*path).to_owned()).collect();
        expected.push("/usr/lib/modules/6.1/x.ko.xz".to_owned());
        expected.push("/usr/bin/tool2".to_owned());
        expected.push(format!("/{long}"));
        expected.sort();
        assert_eq!(paths(&out), expected, "{compression}");
        assert_eq!(digest_of(&out, "/usr/bin/tool2"), digest_of(&out, "/usr/bin/tool"));
        assert_eq!(manifest(&out).sources(), ["package x 1.2-3 amd64"]);
    }
    let text = made.path().join("text.deb");
    fs::write(&text, "no package").expect("written");
    let refused = from_packages(&[text], SELECTION, &mut |_| {});
    assert!(matches!(refused, Err(CollectError::ProgramFailed { .. })));
}

/// Cut or changed at any byte, a stream gives an error or files, and ends.
#[test]
fn damaged_streams_end() {
    let mut stream = Vec::new();
    for (name, content) in [("./usr/bin/a", "program a"), ("./usr/bin/b", "program b")] {
        stream.extend(tar_file(name, content.as_bytes()));
    }
    stream.extend([0; 1024]);
    let take = |stream: &[u8]| {
        let mut out = Collected::default();
        packages::take(&mut out, SELECTION, Path::new("x.deb"), stream, &mut |_| {})
            .map(|()| out.builder.files())
    };
    assert_eq!(take(&stream).expect("good"), 2);
    for cut in 0..2048 {
        assert!(take(&stream[..cut]).is_err(), "cut at {cut}");
    }
    // The checksum's field begins with a zero and ends with padding.
    for at in (0..512).filter(|at| ![148, 155].contains(at)) {
        let mut changed = stream.clone();
        changed[at] ^= 0x10;
        assert!(matches!(take(&changed), Err(CollectError::Archive { .. })), "changed at {at}");
    }
}

fn tar_file(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000755\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut out = [&header[..], content].concat();
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

#[test]
fn a_list_gives_its_files_and_says_what_it_left_out() {
    use soft_tpm::ima::{ImaKernel, ImaList};
    let mut list = ImaList::booted(ImaKernel::default(), "ima-ng", "sha256", &[b"pcr"]);
    let digest = HashAlg::Sha256.hash(&[b"a"]);
    list.file("ima-ng", "sha256", digest.as_bytes(), "/usr/bin/a", &[]);
    list.file("ima-ng", "sha256", digest.as_bytes(), "/usr/bin/a", &[]);
    list.file("ima-ng", "sha1", &[1; 20], "/usr/bin/weak", &[]);
    list.violation("/var/log/x");
    let out = from_list(list.bytes(), &mut |_| {}).expect("collected");
    assert_eq!(paths(&out), ["/usr/bin/a"]);
    assert_eq!(out.skipped.len(), 2);
    let cut = &list.bytes()[..list.ends()[1] + 7];
    let out = from_list(cut, &mut |_| {}).expect("collected");
    assert_eq!(
        out.skipped,
        [format!("7 bytes at {}: the list ends within an entry", list.ends()[1])]
    );
    assert!(matches!(from_list(b"no list", &mut |_| {}), Err(CollectError::NotAList)));
}
