//! Which files and links make up a tool: what its declaration lists, and what those files need to
//! run.
//!
//! The walk is repeated until every file it meets has been read: a file's needs are known only
//! then.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::Path,
    rc::Rc,
    sync::Arc,
};

use proto::{
    limits::MAX_TOOL_ENTRIES,
    tool_log::{FileRole, path_text},
};

use super::{
    Problem, ProblemKind,
    cache::{Cache, Known},
    elf::{Elf, Machine},
    file::{Facts, FileError},
    hash::Job,
    list::Tool,
    loader::{LoaderConfig, default_directories, musl_directories, search_path},
    needs::{Needs, env_program},
    resolve::{End, Refused, Resolved, Resolver},
};

/// Scripts whose interpreter is a script: the kernel's own limit is 4 or 5.
const MAX_SCRIPT_DEPTH: usize = 5;
/// Libraries that one program loads.
const MAX_LIBRARIES: usize = 4096;
/// Where `env` in a `#!` line finds its program: the PATH of a Debian root shell.
const EXEC_PATH: [&[u8]; 6] =
    [b"/usr/local/sbin", b"/usr/local/bin", b"/usr/sbin", b"/usr/bin", b"/sbin", b"/bin"];

/// Files that the walk met: known, to be read, or impossible to read.
pub(crate) struct Files<'a> {
    cache: &'a mut Cache,
    fresh: bool,
    wanted: HashMap<(u64, u64), Job>,
    failed: HashMap<(u64, u64), FileError>,
}

enum Lookup {
    Known(Known),
    Wanted,
    Failed(FileError),
}

impl<'a> Files<'a> {
    pub(crate) fn new(cache: &'a mut Cache, fresh: bool) -> Self {
        cache.begin();
        Self { cache, fresh, wanted: HashMap::new(), failed: HashMap::new() }
    }

    fn get(&mut self, path: &[u8], facts: &Facts) -> Lookup {
        let key = (facts.dev, facts.ino);
        if let Some(known) = self.cache.get(facts, self.fresh) {
            return Lookup::Known(known);
        }
        if let Some(error) = self.failed.get(&key) {
            return Lookup::Failed(*error);
        }
        self.wanted.entry(key).or_insert_with(|| Job { path: path.to_vec(), facts: *facts });
        Lookup::Wanted
    }

    /// What has to be read before the walk can go on.
    pub(crate) fn take_wanted(&mut self) -> Vec<Job> {
        self.wanted.drain().map(|(_, job)| job).collect()
    }

    /// Takes what was read.
    pub(crate) fn put(&mut self, job: &Job, result: Result<super::file::Hashed, FileError>) {
        match result {
            Ok(hashed) => self.cache.put(hashed),
            Err(error) => {
                self.failed.insert((job.facts.dev, job.facts.ino), error);
            }
        }
    }

    pub(crate) fn finish(self) -> &'a mut Cache {
        self.cache.end();
        self.cache
    }
}

/// A path of a tool while it is put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Draft {
    File { sha256: [u8; 32], size_bytes: u64, role: FileRole },
    Link { target: Vec<u8> },
}

/// A tool while it is put together.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) entries: BTreeMap<Vec<u8>, Draft>,
    pub(crate) problems: Vec<Problem>,
    /// Matches of the declaration that are regular files, the first one first.
    pub(crate) listed: Vec<Rc<[u8]>>,
}

/// What one program needs, for all tools that have it.
#[derive(Debug, Default)]
struct Needed {
    files: Vec<(Resolved, FileRole)>,
    problems: Vec<(Vec<u8>, ProblemKind)>,
}

/// The walk.
pub(crate) struct Walk<'a, 'c> {
    pub(crate) files: &'a mut Files<'c>,
    resolver: Resolver,
    config: LoaderConfig,
    programs: HashMap<Rc<[u8]>, Rc<Needed>>,
    system: HashMap<(Vec<u8>, Machine), Rc<[Found]>>,
}

/// A library where the loader finds it.
#[derive(Clone, Debug)]
struct Found {
    /// The path that the loader opens: its `$ORIGIN`.
    opened: Vec<u8>,
    resolved: Resolved,
    elf: Arc<Needs>,
}

/// An object that the loader has loaded.
struct Loaded {
    origin: Vec<u8>,
    needs: Arc<Needs>,
    loader: Option<usize>,
}

impl<'a, 'c> Walk<'a, 'c> {
    pub(crate) fn new(files: &'a mut Files<'c>) -> Self {
        Self {
            files,
            resolver: Resolver::default(),
            config: LoaderConfig::read(
                Path::new("/etc/ld.so.cache"),
                Path::new("/etc/ld.so.preload"),
            ),
            programs: HashMap::new(),
            system: HashMap::new(),
        }
    }

    /// Forgets conclusions that were drawn before all files were read.
    pub(crate) fn again(&mut self) {
        self.programs.clear();
        self.system.clear();
    }

    /// Files, links and problems of one tool, as far as its files have been read.
    pub(crate) fn tool(&mut self, tool: &Tool) -> Parts {
        let mut parts = Parts::default();
        let problem = |path: &[u8], kind| Problem {
            tool: tool.name.clone(),
            path: Some(path_text(path)),
            kind,
        };
        for pattern in &tool.paths {
            let matches = match self.resolver.expand(pattern) {
                Ok(matches) => matches,
                Err(refused) => {
                    parts.problems.push(problem(&refused.path, unreadable(&refused)));
                    continue;
                }
            };
            for found in matches {
                let path = &found.resolved.path;
                if tool.exclude.iter().any(|no| no.matches(&found.listed) || no.matches(path)) {
                    continue;
                }
                match found.resolved.end {
                    End::File(_) => {
                        parts.listed.push(Rc::clone(path));
                        self.add(&mut parts, tool, &found.resolved, FileRole::Listed);
                        if tool.closure {
                            self.add_needed(&mut parts, tool, &found.resolved);
                        }
                    }
                    End::Missing => {
                        add_links(&mut parts, &found.resolved);
                        parts.problems.push(problem(&found.listed, ProblemKind::LinkDangling));
                    }
                    End::Directory if pattern.is_literal() => {
                        parts.problems.push(problem(&found.listed, ProblemKind::NotRegular));
                    }
                    End::Directory => add_links(&mut parts, &found.resolved),
                    End::Other => {
                        parts.problems.push(problem(&found.listed, ProblemKind::NotRegular));
                    }
                }
                if parts.entries.len() > MAX_TOOL_ENTRIES {
                    let kind = ProblemKind::TooManyEntries { max: MAX_TOOL_ENTRIES };
                    parts.problems.push(problem(&found.listed, kind));
                    return parts;
                }
            }
        }
        parts.problems.sort();
        parts.problems.dedup();
        parts
    }

    fn add(&mut self, parts: &mut Parts, tool: &Tool, file: &Resolved, role: FileRole) {
        add_links(parts, file);
        let End::File(facts) = file.end else { return };
        match self.files.get(&file.path, &facts) {
            Lookup::Known(Known { sha256, size_bytes, .. }) => {
                let role = match parts.entries.get(&*file.path) {
                    Some(Draft::File { role: known, .. }) => role.min(*known),
                    _ => role,
                };
                let draft = Draft::File { sha256, size_bytes, role };
                parts.entries.insert(file.path.to_vec(), draft);
            }
            Lookup::Wanted => {}
            Lookup::Failed(error) => parts.problems.push(Problem {
                tool: tool.name.clone(),
                path: Some(path_text(&file.path)),
                kind: error.into(),
            }),
        }
    }

    fn add_needed(&mut self, parts: &mut Parts, tool: &Tool, file: &Resolved) {
        let needed = self.needed(file, MAX_SCRIPT_DEPTH);
        for (file, role) in &needed.files {
            self.add(parts, tool, file, *role);
        }
        parts.problems.extend(needed.problems.iter().map(|(path, kind)| Problem {
            tool: tool.name.clone(),
            path: Some(path_text(path)),
            kind: kind.clone(),
        }));
    }

    /// What a program needs, itself not included.
    fn needed(&mut self, program: &Resolved, depth: usize) -> Rc<Needed> {
        if let Some(known) = self.programs.get(&program.path) {
            return Rc::clone(known);
        }
        let mut needed = Needed::default();
        if let Some(needs) = self.needs(program) {
            match &*needs {
                Needs::Nothing => {}
                Needs::Malformed(what) => {
                    let kind = ProblemKind::ElfMalformed { what };
                    needed.problems.push((program.path.to_vec(), kind));
                }
                Needs::Script { interpreter, argument } => {
                    self.script(&mut needed, program, interpreter, argument.as_deref(), depth);
                }
                Needs::Elf(elf) => self.load(&mut needed, program, elf, &needs),
            }
        }
        let needed = Rc::new(needed);
        self.programs.insert(Rc::clone(&program.path), Rc::clone(&needed));
        needed
    }

    fn needs(&mut self, file: &Resolved) -> Option<Arc<Needs>> {
        let End::File(facts) = file.end else {
            return None;
        };
        match self.files.get(&file.path, &facts) {
            Lookup::Known(known) => Some(known.needs),
            Lookup::Wanted | Lookup::Failed(_) => None,
        }
    }

    /// A `#!` line: its interpreter, and the program that `env` would run.
    fn script(
        &mut self,
        needed: &mut Needed,
        script: &Resolved,
        interpreter: &[u8],
        argument: Option<&[u8]>,
        depth: usize,
    ) {
        let Some(depth) = depth.checked_sub(1) else {
            needed.problems.push((script.path.to_vec(), ProblemKind::InterpretersNested));
            return;
        };
        let missing = |name: &[u8]| {
            (script.path.to_vec(), ProblemKind::InterpreterMissing { name: path_text(name) })
        };
        let mut programs = vec![(interpreter.to_vec(), self.resolve(needed, interpreter))];
        if interpreter.ends_with(b"/env")
            && let Some(name) = argument.and_then(env_program)
        {
            let found = if name.contains(&b'/') {
                self.resolve(needed, name)
            } else {
                EXEC_PATH.iter().find_map(|directory| {
                    self.resolve(needed, &[directory, b"/".as_slice(), name].concat()).filter(
                        |found| matches!(found.end, End::File(facts) if facts.is_executable()),
                    )
                })
            };
            programs.push((name.to_vec(), found));
        }
        for (name, program) in programs {
            match program {
                Some(program) if matches!(program.end, End::File(_)) => {
                    let more = self.needed(&program, depth);
                    needed.files.push((program, FileRole::ScriptInterpreter));
                    needed.files.extend(more.files.iter().cloned());
                    needed.problems.extend(more.problems.iter().cloned());
                }
                _ => needed.problems.push(missing(&name)),
            }
        }
    }

    /// What the dynamic loader would load, breadth first as it does.
    fn load(&mut self, needed: &mut Needed, program: &Resolved, elf: &Elf, needs: &Arc<Needs>) {
        let mut names: HashMap<Vec<u8>, ()> = HashMap::new();
        names.extend(elf.soname.clone().map(|name| (name, ())));
        let mut musl = None;
        if let Some(path) = &elf.interpreter {
            musl = musl_directories(path);
            match self.resolve(needed, path) {
                Some(found) if matches!(found.end, End::File(_)) => {
                    if let Some(Needs::Elf(loader)) = self.needs(&found).as_deref() {
                        names.extend(loader.soname.clone().map(|name| (name, ())));
                    }
                    needed.files.push((found, FileRole::Interpreter));
                }
                _ => needed.problems.push((
                    program.path.to_vec(),
                    ProblemKind::InterpreterMissing { name: path_text(path) },
                )),
            }
        }
        let mut loaded = vec![Loaded {
            origin: directory(&program.path),
            needs: Arc::clone(needs),
            loader: None,
        }];
        let mut queue: VecDeque<(usize, Vec<u8>)> = VecDeque::new();
        if elf.interpreter.is_some() && musl.is_none() {
            queue.extend(self.config.preload.iter().map(|name| (0, name.clone())));
        }
        queue.extend(elf.needed.iter().map(|name| (0, name.clone())));
        while let Some((by, name)) = queue.pop_front() {
            if names.contains_key(&name) || musl.is_some() && is_musl_libc(&name) {
                continue;
            }
            if loaded.len() >= MAX_LIBRARIES {
                let kind = ProblemKind::TooManyEntries { max: MAX_LIBRARIES };
                needed.problems.push((program.path.to_vec(), kind));
                return;
            }
            names.insert(name.clone(), ());
            let found = self.find(needed, &loaded, by, &name, elf.machine, musl.as_deref());
            if found.is_empty() {
                if !self.files.wanted.is_empty() {
                    // Perhaps one of the files that have to be read first.
                    continue;
                }
                needed.problems.push((
                    program.path.to_vec(),
                    ProblemKind::LibraryMissing { name: path_text(&name) },
                ));
            }
            for library in found {
                let Found { opened, resolved, elf: needs } = library;
                if let Needs::Elf(elf) = &*needs {
                    names.extend(elf.soname.clone().map(|name| (name, ())));
                    queue.extend(elf.needed.iter().map(|name| (loaded.len(), name.clone())));
                }
                needed.files.push((resolved, FileRole::Library));
                loaded.push(Loaded { origin: directory(&opened), needs, loader: Some(by) });
            }
        }
    }

    fn find(
        &mut self,
        needed: &mut Needed,
        loaded: &[Loaded],
        by: usize,
        name: &[u8],
        machine: Machine,
        musl: Option<&[Vec<u8>]>,
    ) -> Vec<Found> {
        if name.contains(&b'/') {
            // A relative path depends on the directory that a job runs in.
            return if name.starts_with(b"/") {
                self.accept(needed, name.to_vec(), machine).into_iter().collect()
            } else {
                Vec::new()
            };
        }
        for path in search_paths(loaded, by, machine) {
            let found = self.find_in(needed, &path, name, machine);
            if !found.is_empty() {
                return found;
            }
        }
        if let Some(directories) = musl {
            return directories
                .iter()
                .map(|directory| self.find_in(needed, directory, name, machine))
                .find(|found| !found.is_empty())
                .unwrap_or_default();
        }
        let key = (name.to_vec(), machine);
        if let Some(found) = self.system.get(&key) {
            return found.to_vec();
        }
        let cached: Vec<Vec<u8>> = self.config.cached(name).map(<[u8]>::to_vec).collect();
        let mut found: Vec<Found> =
            cached.into_iter().filter_map(|path| self.accept(needed, path, machine)).collect();
        if found.is_empty() {
            found = default_directories(machine)
                .iter()
                .map(|directory| self.find_in(needed, directory, name, machine))
                .find(|found| !found.is_empty())
                .unwrap_or_default();
        }
        self.system.insert(key, found.clone().into());
        found
    }

    /// The library in one directory, with its variants for newer processors.
    fn find_in(
        &mut self,
        needed: &mut Needed,
        directory: &[u8],
        name: &[u8],
        machine: Machine,
    ) -> Vec<Found> {
        let mut found = Vec::new();
        let variants = [directory, b"/glibc-hwcaps"].concat();
        if let Some(resolved) = self.resolve(needed, &variants) {
            match self.resolver.names(&resolved) {
                Ok(names) => {
                    for variant in names.iter() {
                        let path = [&variants, b"/".as_slice(), variant, b"/", name].concat();
                        found.extend(self.accept(needed, path, machine));
                    }
                }
                Err(refused) => needed.problems.push((refused.path.clone(), unreadable(&refused))),
            }
        }
        found.extend(self.accept(needed, [directory, b"/", name].concat(), machine));
        found
    }

    /// The file if the loader would take it: an ELF file for the same machine.
    fn accept(&mut self, needed: &mut Needed, path: Vec<u8>, machine: Machine) -> Option<Found> {
        let resolved = self.resolve(needed, &path)?;
        let End::File(facts) = resolved.end else {
            return None;
        };
        match self.files.get(&resolved.path, &facts) {
            Lookup::Known(Known { needs, .. }) => match &*needs {
                Needs::Elf(elf) if elf.machine == machine => {
                    Some(Found { opened: path, resolved, elf: needs })
                }
                _ => None,
            },
            Lookup::Wanted => None,
            Lookup::Failed(error) => {
                needed.problems.push((resolved.path.to_vec(), error.into()));
                None
            }
        }
    }

    /// The end of a path; a refusal is a problem.
    fn resolve(&mut self, needed: &mut Needed, path: &[u8]) -> Option<Resolved> {
        match self.resolver.resolve(path) {
            Ok(resolved) => Some(resolved),
            Err(refused) => {
                needed.problems.push((refused.path.clone(), unreadable(&refused)));
                None
            }
        }
    }
}

/// `DT_RPATH`s or the `DT_RUNPATH` that apply to what `by` needs, in the loader's order.
fn search_paths(loaded: &[Loaded], by: usize, machine: Machine) -> Vec<Vec<u8>> {
    let object = |index: usize| {
        let loaded = loaded.get(index)?;
        match &*loaded.needs {
            Needs::Elf(elf) => Some((loaded, elf)),
            _ => None,
        }
    };
    if let Some((loaded, Elf { runpath: Some(runpath), .. })) =
        object(by).map(|(loaded, elf)| (loaded, &**elf))
    {
        return search_path(runpath, &loaded.origin, machine);
    }
    let mut directories = Vec::new();
    let mut next = Some(by);
    // Each object was loaded by an earlier one, so this ends.
    while let Some((loaded, elf)) = next.and_then(object) {
        if let (Some(rpath), None) = (&elf.rpath, &elf.runpath) {
            directories.extend(search_path(rpath, &loaded.origin, machine));
        }
        next = loaded.loader;
    }
    directories
}

fn add_links(parts: &mut Parts, file: &Resolved) {
    for link in &file.links {
        let draft = Draft::Link { target: link.target.clone() };
        parts.entries.entry(link.path.clone()).or_insert(draft);
    }
}

fn directory(path: &[u8]) -> Vec<u8> {
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    path.get(..slash).unwrap_or_default().to_vec()
}

/// musl's libc is its loader, under any of these names.
fn is_musl_libc(name: &[u8]) -> bool {
    name == b"libc.so" || name.starts_with(b"libc.musl-")
}

fn unreadable(refused: &Refused) -> ProblemKind {
    ProblemKind::Unreadable { error: std::io::Error::from(refused.errno).to_string() }
}
