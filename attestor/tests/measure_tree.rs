//! Measuring real files: what changes a digest, what does not, and what is reported.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should fail")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use attestor::measure::{
    Cache, Measured, Options, Problem, ProblemKind, ToolList, measure, render_text,
};
use proto::{
    digest::HashAlg,
    tool_log::{EntryKind, FileRole, ToolMeasurement, ToolState},
};

struct Tree {
    _dir: tempfile::TempDir,
    root: PathBuf,
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        Self { _dir: dir, root }
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// A list with one tool; `{}` in the text is the root.
    fn list(&self, text: &str) -> ToolList {
        let root = self.root.to_str().unwrap();
        ToolList::parse(&format!("[[tool]]\nname = \"t\"\n{}", text.replace("{}", root))).unwrap()
    }
}

fn run(list: &ToolList) -> Measured {
    measure(list, &mut Cache::new(), Options::default(), &|_| {})
}

fn only(measured: &Measured) -> &ToolMeasurement {
    assert_eq!(measured.tools.len(), 1, "{:?}", measured.problems);
    &measured.tools[0]
}

fn role(tool: &ToolMeasurement, path: &str) -> Option<FileRole> {
    match tool.entry(path.as_bytes())?.kind {
        EntryKind::File { role, .. } => Some(role),
        EntryKind::Link { .. } => None,
    }
}

#[test]
fn files_links_and_exclusions_of_a_tree() {
    let tree = Tree::new();
    tree.write("bin/tool-1", "one", 0o755);
    tree.write("bin/tool-2", "two", 0o755);
    tree.write("bin/toolbox", "no", 0o755);
    symlink("tool-1", tree.root.join("bin/tool")).unwrap();
    symlink("bin", tree.root.join("sbin")).unwrap();
    let list = tree.list("paths = [\"{}/sbin/tool*\"]\nexclude = [\"{}/sbin/toolbox\"]");
    let measured = run(&list);
    assert_eq!(measured.problems, []);
    let tool = only(&measured);
    let root = tree.root.to_str().unwrap();
    let paths: Vec<String> = tool
        .entries()
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.path).replace(root, ""))
        .filter(|path| path.starts_with("/bin") || path.starts_with("/sbin"))
        .collect();
    assert_eq!(paths, ["/bin/tool", "/bin/tool-1", "/bin/tool-2", "/sbin"]);
    let EntryKind::File { digest, size_bytes, role } =
        tool.entry(format!("{root}/bin/tool-1").as_bytes()).unwrap().kind.clone()
    else {
        panic!("a file");
    };
    assert_eq!(digest, HashAlg::Sha256.hash(&[b"one"]));
    assert_eq!((size_bytes, role), (3, FileRole::Listed));
}

#[test]
fn unchanged_files_are_not_read_again_and_fresh_reads_them_all() {
    let tree = Tree::new();
    let list = tree.list("paths = [\"{}/bin/*\"]");
    let mut cache = Cache::new();
    let read = |cache: &mut Cache, fresh: bool| {
        let count = AtomicUsize::new(0);
        let options = Options { fresh, threads: 1 };
        let measured = measure(&list, cache, options, &|progress| {
            count.fetch_max(progress.files, Ordering::Relaxed);
        });
        assert_eq!(measured.problems, []);
        (count.into_inner(), only(&measured).digest())
    };
    let first = loop {
        let began = Instant::now();
        for n in 0..20 {
            tree.write(&format!("bin/{n}"), "x", 0o644);
        }
        let (count, first) = read(&mut cache, false);
        assert_eq!(count, 20);
        let again = read(&mut cache, false);
        // A busy machine may take longer, and tells nothing then.
        if began.elapsed() < Duration::from_millis(1900) {
            assert_eq!(again, (20, first), "changed less than two seconds ago");
            break first;
        }
    };
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(read(&mut cache, false), (20, first));
    assert_eq!(read(&mut cache, false), (0, first));
    assert_eq!(read(&mut cache, true), (20, first));
    assert_eq!(read(&mut cache, false), (0, first));

    // The same size and mtime: ctime tells.
    let path = tree.root.join("bin/7");
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "y").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(mtime).unwrap();
    let (count, second) = read(&mut cache, false);
    assert_eq!(count, 1);
    assert_ne!(second, first);
    fs::remove_file(&path).unwrap();
    assert_ne!(read(&mut cache, false).1, second);
    assert_eq!(cache.len(), 19, "what is gone is forgotten");
}

#[test]
fn absent_and_required() {
    let tree = Tree::new();
    let measured = run(&tree.list("paths = [\"{}/none\"]"));
    assert_eq!(only(&measured).state(), ToolState::Absent);
    assert_eq!(
        measured.problems,
        [Problem { tool: "t".into(), path: None, kind: ProblemKind::RequiredAbsent }]
    );
    assert!(!measured.problems[0].blocks(), "absence is a state that can be attested");
    let measured = run(&tree.list("paths = [\"{}/none\"]\nrequired = false"));
    assert_eq!(measured.problems, []);
    assert_eq!(only(&measured).state(), ToolState::Absent);
}

#[test]
fn dangling_links_special_files_and_directories_are_named() {
    let tree = Tree::new();
    symlink("gone", tree.root.join("link")).unwrap();
    let fifo = tree.root.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    fs::create_dir(tree.root.join("dir")).unwrap();
    tree.write("file", "", 0o644);
    let measured = run(&tree.list("paths = [\"{}/link\", \"{}/fifo\", \"{}/dir\", \"{}/file\"]"));
    let kinds: Vec<_> = measured
        .problems
        .iter()
        .map(|problem| {
            let path = problem.path.as_deref().unwrap();
            (Path::new(path).file_name().unwrap().to_str().unwrap(), &problem.kind)
        })
        .collect();
    assert_eq!(
        kinds,
        [
            ("dir", &ProblemKind::NotRegular),
            ("fifo", &ProblemKind::NotRegular),
            ("link", &ProblemKind::LinkDangling),
        ]
    );
    assert_eq!(only(&measured).state(), ToolState::Present);
}

#[test]
fn an_unreadable_file_leaves_the_tool_out_and_says_why() {
    if rustix::process::geteuid().is_root() {
        // Root reads everything; a loop of links is refused to root too.
        let tree = Tree::new();
        symlink("b", tree.root.join("a")).unwrap();
        symlink("a", tree.root.join("b")).unwrap();
        let measured = run(&tree.list("paths = [\"{}/a\"]"));
        assert_eq!(measured.tools, []);
        let problem = measured.blocking().next().unwrap().to_string();
        assert!(problem.contains("Too many levels of symbolic links"), "{problem}");
        return;
    }
    let tree = Tree::new();
    let path = tree.write("secret", "x", 0o000);
    let measured = run(&tree.list("paths = [\"{}/secret\"]"));
    assert_eq!(measured.tools, []);
    let problem = measured.blocking().next().unwrap().to_string();
    let expected = format!("tool t: {} cannot be read: Permission denied", path.display());
    assert!(problem.starts_with(&expected), "{problem}");
}

#[test]
fn scripts_bring_their_interpreters_and_those_their_libraries() {
    let tree = Tree::new();
    tree.write("direct", "#!/bin/sh\n", 0o755);
    tree.write("via-env", "#!/usr/bin/env sh\n", 0o755);
    tree.write("data", "#!/none\n", 0o644);
    let broken = tree.write("broken", "#!/none/interpreter\n", 0o755);
    let measured = run(&tree.list("paths = [\"{}/*\"]"));
    let tool = only(&measured);
    let sh = fs::canonicalize("/bin/sh").unwrap();
    assert_eq!(role(tool, sh.to_str().unwrap()), Some(FileRole::ScriptInterpreter));
    let env = fs::canonicalize("/usr/bin/env").unwrap();
    assert_eq!(role(tool, env.to_str().unwrap()), Some(FileRole::ScriptInterpreter));
    let libc = tool.entries().iter().any(|entry| {
        entry.path.windows(9).any(|part| part == b"libc.so.6")
            && matches!(entry.kind, EntryKind::File { role: FileRole::Library, .. })
    });
    assert!(libc, "the interpreter's libc");
    let path = Some(broken.to_str().unwrap().to_owned());
    let kind = ProblemKind::InterpreterMissing { name: "/none/interpreter".into() };
    assert_eq!(measured.problems, [Problem { tool: "t".into(), path, kind }]);

    let without = run(&tree.list("paths = [\"{}/direct\"]\nclosure = false"));
    assert_eq!(role(only(&without), sh.to_str().unwrap()), None);
}

/// The same files as the loader itself would map.
#[test]
fn the_closure_is_what_ldd_says() {
    let mut compared = 0;
    for program in ["/usr/bin/git", "/usr/bin/env", "/usr/bin/python3", "/usr/bin/ld"] {
        let Ok(output) = Command::new("ldd").arg(program).output() else { continue };
        if !output.status.success() || !Path::new(program).exists() {
            continue;
        }
        let mut expected: Vec<String> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
            .map(|path| fs::canonicalize(path).unwrap().to_str().unwrap().to_owned())
            .collect();
        expected.sort();
        expected.dedup();
        let list = ToolList::parse(&format!("[[tool]]\nname = \"t\"\npaths = [\"{program}\"]"));
        let measured = run(&list.unwrap());
        assert_eq!(measured.problems, []);
        let found: Vec<String> = only(&measured)
            .entries()
            .iter()
            .filter(|entry| match entry.kind {
                EntryKind::File { role, .. } => role != FileRole::Listed,
                EntryKind::Link { .. } => false,
            })
            .map(|entry| String::from_utf8(entry.path.clone()).unwrap())
            .collect();
        assert_eq!(found, expected, "{program}");
        compared += 1;
    }
    if compared == 0 {
        println!("skipped: ldd or the programs are not there");
    }
}

#[test]
fn the_digest_does_not_depend_on_threads_or_order() {
    let tree = Tree::new();
    for n in 0..50_usize {
        tree.write(&format!("d/{n}"), &"x".repeat(n * 20_000), 0o644);
    }
    let list = tree.list("paths = [\"{}/d/*\"]");
    let digest = |threads| {
        let options = Options { fresh: true, threads };
        only(&measure(&list, &mut Cache::new(), options, &|_| {})).digest()
    };
    assert_eq!(digest(1), digest(4));
    assert_eq!(digest(1), digest(64));
}

#[test]
fn version_and_package_are_claims_beside_the_digest() {
    let tree = Tree::new();
    let path = tree.write("tool", "#!/bin/sh\necho version 7\n", 0o755);
    let plain = run(&tree.list("paths = [\"{}/tool\"]"));
    let text = format!(
        "paths = [\"{{}}/tool\"]\nversion_command = [\"{}\"]\npackage = \"pkg:generic/t@7\"",
        path.display()
    );
    let claimed = run(&tree.list(&text));
    assert_eq!(claimed.problems, []);
    assert_eq!(only(&claimed).version(), Some("version 7"));
    assert_eq!(only(&claimed).package(), Some("pkg:generic/t@7"));
    assert_eq!(only(&claimed).digest(), only(&plain).digest());
    let table = render_text(&claimed);
    assert!(table.contains("version 7") && table.contains("present"), "{table}");
}

#[test]
fn the_example_list_is_a_list() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tools-debian.toml");
    assert!(ToolList::read(&path).unwrap().tools().len() >= 8);
}

/// The swap of an attacker who watches the daemon: a link to a good file, between looking at the tool
/// and reading it. The tool is recorded with its link, never as a file with the good one's content.
#[test]
fn a_tool_swapped_for_a_link_while_it_is_measured_is_recorded_as_a_link() {
    let tree = Tree::new();
    // Read first, as the biggest, by the one thread; long enough to be reported on meanwhile.
    tree.write("bin/a", &"x".repeat(17 << 20), 0o755);
    let tool = tree.write("bin/b", "with a gift", 0o755);
    let good = tree.write("good/b", "as the golden set lists it", 0o755);
    let list = tree.list("paths = [\"{}/bin/*\"]");
    let swaps = AtomicUsize::new(0);
    let options = Options { threads: 1, ..Options::default() };
    let measured = measure(&list, &mut Cache::new(), options, &|_| {
        if swaps.fetch_add(1, Ordering::SeqCst) == 0 {
            fs::remove_file(&tool).unwrap();
            symlink(&good, &tool).unwrap();
        }
    });
    assert!(swaps.load(Ordering::SeqCst) > 1, "swapped while the first file was read");
    assert_eq!(measured.problems, [], "read again, as what it is now");
    let kind = |path: &Path| only(&measured).entry(path.to_str().unwrap().as_bytes()).unwrap();
    assert!(matches!(kind(&tool).kind, EntryKind::Link { .. }), "{measured:?}");
    assert!(matches!(kind(&good).kind, EntryKind::File { .. }), "{measured:?}");
}

/// Who swaps at every look gets the tool left out: its state is unknown.
#[test]
fn a_tool_that_is_swapped_again_and_again_is_reported_and_not_recorded() {
    let tree = Tree::new();
    tree.write("bin/a", &"x".repeat(17 << 20), 0o755);
    let tool = tree.write("bin/b", "with a gift", 0o755);
    let good = tree.write("good", "as the golden set lists it", 0o755);
    let list = tree.list("paths = [\"{}/bin/*\"]");
    let options = Options { threads: 1, fresh: true };
    let measured = measure(&list, &mut Cache::new(), options, &|progress| {
        // While the big file is read; another inode each time.
        if progress.files == 0 {
            fs::copy(&good, tool.with_extension("new")).unwrap();
            fs::rename(tool.with_extension("new"), &tool).unwrap();
        }
    });
    assert!(measured.tools.is_empty(), "{measured:?}");
    let kinds: Vec<_> = measured.problems.iter().map(|problem| &problem.kind).collect();
    assert!(matches!(kinds[..], [ProblemKind::Changing]), "{:?}", measured.problems);
}
