//! Seeds of the fuzz targets `ima_log` and `ima_manifest`: good ones of every form, and their near misses.

use std::fmt::Write as _;

use crate::ima::{ImaKernel, ImaList, ImaValue, hash};

/// Target, name and bytes of each seed.
#[must_use]
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut out = Vec::new();
    let mut log = |name: String, bytes: &[u8]| out.push(("ima_log", name, bytes.to_vec()));
    for (order, is_big_endian) in [("little", false), ("big", true)] {
        for recorded in ["sha1", "sha256", "sha384", "sha512"] {
            let list = list(ImaKernel { is_big_endian, recorded, ..ImaKernel::default() });
            log(format!("{order}_{recorded}"), list.bytes());
        }
    }
    let list = list(ImaKernel::default());
    let cut = list.bytes().len() - 9;
    log("cut".to_owned(), &list.bytes()[..cut]);
    let mut custom = list.clone();
    let digest = hash("sha256", &[b"custom"]);
    let values = [ImaValue::Name("/a"), ImaValue::U32(0), ImaValue::Digest("sha256", &digest)];
    custom.entry("n-ng|igid|d-ng", &values);
    log("custom".to_owned(), custom.bytes());
    let mut manifest =
        "{\"assay_ima_manifest\":1,\"name\":\"seed\",\"sources\":[\"a\"]}\n".to_owned();
    for (prefix, algorithm, path) in [
        ("", "sha256", ",\"path\":\"/usr/bin/a\""),
        ("", "sha512", ",\"path\":\"/usr/bin/a b\\\\xff\""),
        ("verity:", "sha256", ""),
    ] {
        let digest: String =
            hash(algorithm, &[path.as_bytes()]).iter().fold(String::new(), |mut text, byte| {
                // Writing to a String cannot fail.
                let _ = write!(text, "{byte:02x}");
                text
            });
        let _ = writeln!(manifest, "{{\"digest\":\"{prefix}{algorithm}:{digest}\"{path}}}");
    }
    out.push(("ima_manifest", "manifest".to_owned(), manifest.into_bytes()));
    for (name, pattern) in [
        ("pattern_literal", "/usr/bin/foo\n/usr/bin/foo"),
        ("pattern_stars", "/var/**/*.log\n/var/a/b/c.log"),
        ("pattern_escape", "**/\\*?\n/a/*b"),
    ] {
        out.push(("ima_manifest", name.to_owned(), pattern.as_bytes().to_vec()));
    }
    out
}

/// A list after the firmware that the target knows: PCR n is the hash of `firmware` and n.
fn list(kernel: ImaKernel) -> ImaList {
    let values: Vec<Vec<u8>> =
        (0..10).map(|index| hash("sha256", &[b"firmware", &[index]])).collect();
    let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let mut list = ImaList::booted(kernel, "ima-ng", "sha256", &values);
    for (template, name) in [
        ("ima-ng", "/usr/bin/a"),
        ("ima-sig", "/usr/bin/evil"),
        ("ima-ngv2", "/var/log/x.log"),
        ("ima-sigv2", "/usr/bin/b"),
        ("ima-modsig", "/usr/lib/modules/x.ko"),
        ("evm-sig", "/usr/bin/c"),
    ] {
        let digest = hash("sha256", &[name.as_bytes()]);
        let signature = [3, 2, 4, 0xaa, 0xbb, 0xcc, 0xdd, 0, 4, 1, 2, 3, 4];
        list.file(template, "sha256", &digest, name, &signature);
    }
    list.buffer("sha256", "kexec-cmdline", b"root=/dev/vda1");
    list.violation("/var/log/messages");
    list.file("ima", "sha1", &hash("sha1", &[b"old"]), "/usr/bin/old", &[]);
    list
}
