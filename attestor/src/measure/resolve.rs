//! Paths to files, link by link: every symbolic link on the way is seen and recorded, none is
//! followed by the kernel.
//!
//! A resolver asks the system once for each path and remembers the answer for one measurement.

use std::{
    collections::HashMap,
    ffi::OsStr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
    rc::Rc,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, readlinkat, statat},
    io::Errno,
};

use super::{
    file::Facts,
    glob::{Component, Pattern},
};

/// Links on the way to one file: the kernel's own limit.
const MAX_LINKS: usize = 40;
/// Steps on the way to one file, all links together.
const MAX_STEPS: usize = 1000;
/// Directory entries that one measurement looks at.
const MAX_VISITED: usize = 1_000_000;

/// A symbolic link that was followed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Where it stands; no component of this path is a link.
    pub(crate) path: Vec<u8>,
    /// Where it points, as written.
    pub(crate) target: Vec<u8>,
}

/// What stands at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A directory.
    Directory,
    /// A regular file.
    File(Facts),
    /// Nothing.
    Missing,
    /// A device, socket or FIFO.
    Other,
}

/// A path with its links resolved.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// The path without links; of the first missing component if there is nothing.
    pub(crate) path: Rc<[u8]>,
    /// What stands there.
    pub(crate) end: End,
    /// Links followed, in order.
    pub(crate) links: Vec<Rc<Link>>,
}

/// A path that the system does not let us look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Where.
    pub(crate) path: Vec<u8>,
    /// Why.
    pub(crate) errno: Errno,
}

/// A path that a pattern matches.
#[derive(Debug)]
pub(crate) struct Match {
    /// The path in the words of the pattern.
    pub(crate) listed: Vec<u8>,
    /// Where it leads.
    pub(crate) resolved: Resolved,
}

#[derive(Clone, Debug)]
enum Node {
    End(End),
    Link(Rc<Link>),
}

/// Names in a directory.
type Names = Rc<[Vec<u8>]>;

/// Answers of the file system, remembered for one measurement.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    nodes: HashMap<Vec<u8>, Node>,
    parents: HashMap<Vec<u8>, Resolved>,
    names: HashMap<Vec<u8>, Names>,
    visited: usize,
}

impl Resolver {
    /// Follows an absolute path to its end.
    pub(crate) fn resolve(&mut self, path: &[u8]) -> Result<Resolved, Refused> {
        let mut steps = MAX_STEPS;
        self.walk(path, MAX_LINKS, &mut steps)
    }

    /// What stands behind `name` in a resolved directory.
    pub(crate) fn child(&mut self, parent: &Resolved, name: &[u8]) -> Result<Resolved, Refused> {
        let mut steps = MAX_STEPS;
        self.step(parent, name, MAX_LINKS, &mut steps)
    }

    /// Names in a resolved directory, ascending; empty for anything else.
    pub(crate) fn names(&mut self, directory: &Resolved) -> Result<Names, Refused> {
        if directory.end != End::Directory {
            return Ok(Rc::new([]));
        }
        if let Some(names) = self.names.get(&*directory.path) {
            return Ok(Rc::clone(names));
        }
        let refused = |error: &std::io::Error| Refused {
            path: directory.path.to_vec(),
            errno: Errno::from_io_error(error).unwrap_or(Errno::IO),
        };
        let mut names = Vec::new();
        let entries = std::fs::read_dir(OsStr::from_bytes(&directory.path))
            .map_err(|error| refused(&error))?;
        for entry in entries {
            names.push(entry.map_err(|error| refused(&error))?.file_name().into_vec());
            self.visited += 1;
            if self.visited > MAX_VISITED {
                return Err(Refused { path: directory.path.to_vec(), errno: Errno::TOOBIG });
            }
        }
        names.sort_unstable();
        let names: Names = names.into();
        self.names.insert(directory.path.to_vec(), Rc::clone(&names));
        Ok(names)
    }

    /// Everything that a pattern matches and that is not missing. Directories that a wildcard
    /// matches are left out, links to directories are not; below `**` they are not entered.
    pub(crate) fn expand(&mut self, pattern: &Pattern) -> Result<Vec<Match>, Refused> {
        let root = self.resolve(b"/")?;
        let mut matches = Vec::new();
        self.expand_from(&root, b"", pattern.components(), &mut matches)?;
        Ok(matches)
    }

    fn expand_from(
        &mut self,
        base: &Resolved,
        listed: &[u8],
        components: &[Component],
        matches: &mut Vec<Match>,
    ) -> Result<(), Refused> {
        let Some((component, rest)) = components.split_first() else {
            return Ok(());
        };
        let below = |name: &[u8]| [listed, b"/", name].concat();
        match component {
            Component::Literal(name) => {
                let child = self.child(base, name)?;
                self.expand_child(child, below(name), rest, matches)?;
            }
            Component::Wild(_) => {
                for name in self.names(base)?.iter().filter(|name| component.matches(name)) {
                    let child = self.child(base, name)?;
                    let linked = child.links.len() > base.links.len();
                    if !rest.is_empty() || linked || child.end != End::Directory {
                        self.expand_child(child, below(name), rest, matches)?;
                    }
                }
            }
            Component::AnyDepth => {
                self.expand_from(base, listed, rest, matches)?;
                for name in self.names(base)?.iter() {
                    let child = self.child(base, name)?;
                    if child.end == End::Directory && child.links.len() == base.links.len() {
                        self.expand_from(&child, &below(name), components, matches)?;
                    } else if rest.is_empty() {
                        self.expand_child(child, below(name), rest, matches)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn expand_child(
        &mut self,
        child: Resolved,
        listed: Vec<u8>,
        rest: &[Component],
        matches: &mut Vec<Match>,
    ) -> Result<(), Refused> {
        if !rest.is_empty() {
            if child.end == End::Directory {
                self.expand_from(&child, &listed, rest, matches)?;
            }
        } else if child.end != End::Missing || !child.links.is_empty() {
            matches.push(Match { listed, resolved: child });
        }
        Ok(())
    }

    fn walk(&mut self, path: &[u8], links: usize, steps: &mut usize) -> Result<Resolved, Refused> {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else {
            return Ok(Resolved { path: (*b"/").into(), end: End::Directory, links: Vec::new() });
        };
        let (parent, name) = (path.get(..slash), path.get(slash + 1..));
        let (parent, name) = (parent.unwrap_or_default(), name.unwrap_or_default());
        let parent = if let Some(known) = self.parents.get(parent) {
            known.clone()
        } else {
            *steps = steps.checked_sub(1).ok_or_else(|| too_many_links(path))?;
            let resolved = self.walk(parent, links, steps)?;
            self.parents.insert(parent.to_vec(), resolved.clone());
            resolved
        };
        self.step(&parent, name, links, steps)
    }

    fn step(
        &mut self,
        parent: &Resolved,
        name: &[u8],
        links: usize,
        steps: &mut usize,
    ) -> Result<Resolved, Refused> {
        if parent.end != End::Directory {
            return Ok(Resolved { end: End::Missing, ..parent.clone() });
        }
        let base: &[u8] = if *parent.path == *b"/" { b"" } else { &parent.path };
        match name {
            b"" | b"." => return Ok(parent.clone()),
            b".." => {
                let slash = base.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                let up = base.get(..slash).filter(|up| !up.is_empty()).unwrap_or(b"/");
                return Ok(Resolved { path: up.into(), ..parent.clone() });
            }
            _ => {}
        }
        let path = [base, b"/", name].concat();
        let link = match self.node(&path)? {
            Node::End(end) => {
                return Ok(Resolved { path: path.into(), end, links: parent.links.clone() });
            }
            Node::Link(link) => link,
        };
        let left = links.checked_sub(1).ok_or_else(|| too_many_links(&path))?;
        *steps = steps.checked_sub(1).ok_or_else(|| too_many_links(&path))?;
        let next = if link.target.starts_with(b"/") {
            link.target.clone()
        } else {
            [base, b"/", &link.target].concat()
        };
        let mut end = self.walk(&next, left, steps)?;
        let mut all = parent.links.clone();
        all.push(link);
        all.append(&mut end.links);
        if all.len() > MAX_LINKS {
            return Err(too_many_links(&path));
        }
        Ok(Resolved { links: all, ..end })
    }

    fn node(&mut self, path: &[u8]) -> Result<Node, Refused> {
        if let Some(node) = self.nodes.get(path) {
            return Ok(node.clone());
        }
        let refused = |errno| Refused { path: path.to_vec(), errno };
        let os_path = Path::new(OsStr::from_bytes(path));
        let node = match statat(CWD, os_path, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT | Errno::NOTDIR) => Node::End(End::Missing),
            Err(errno) => return Err(refused(errno)),
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Node::End(End::File(Facts::of(&stat))),
                FileType::Directory => Node::End(End::Directory),
                FileType::Symlink => {
                    let target = readlinkat(CWD, os_path, Vec::new()).map_err(refused)?;
                    Node::Link(Rc::new(Link { path: path.to_vec(), target: target.into_bytes() }))
                }
                _ => Node::End(End::Other),
            },
        };
        self.nodes.insert(path.to_vec(), node.clone());
        Ok(node)
    }
}

fn too_many_links(path: &[u8]) -> Refused {
    Refused { path: path.to_vec(), errno: Errno::LOOP }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn links(resolved: &Resolved, root: &Path) -> Vec<(String, String)> {
        let root = root.to_str().expect("UTF-8");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(root, "");
        resolved.links.iter().map(|link| (text(&link.path), text(&link.target))).collect()
    }

    #[test]
    fn every_hop_is_recorded_even_of_directories() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("exists");
        fs::create_dir_all(root.join("usr/lib/real")).expect("created");
        fs::write(root.join("usr/lib/real/f"), "x").expect("written");
        symlink("usr/lib", root.join("lib")).expect("linked");
        symlink("../lib/real/./f", root.join("usr/lib/g")).expect("linked");
        symlink(root.join("lib/g"), root.join("h")).expect("linked");
        let mut resolver = Resolver::default();
        let end = resolver.resolve(root.join("h").as_os_str().as_bytes()).expect("resolves");
        assert_eq!(*end.path, *root.join("usr/lib/real/f").as_os_str().as_bytes());
        assert!(matches!(end.end, End::File(facts) if facts.size_bytes == 1));
        let text = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            links(&end, &root),
            [text("/h", "/lib/g"), text("/lib", "usr/lib"), text("/usr/lib/g", "../lib/real/./f"),],
            "the second way through /lib is already physical"
        );
    }

    #[test]
    fn loops_and_missing_ends_are_told_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("exists");
        symlink("b", root.join("a")).expect("linked");
        symlink("a", root.join("b")).expect("linked");
        symlink("gone", root.join("dangling")).expect("linked");
        fs::write(root.join("file"), "").expect("written");
        let mut resolver = Resolver::default();
        let mut resolve = |name: &str| resolver.resolve(root.join(name).as_os_str().as_bytes());
        assert_eq!(resolve("a").expect_err("a loop").errno, Errno::LOOP);
        let dangling = resolve("dangling").expect("resolves");
        assert_eq!((dangling.end, dangling.links.len()), (End::Missing, 1));
        assert_eq!(resolve("file/x").expect("resolves").end, End::Missing);
        assert_eq!(resolve("none/x").expect("resolves").end, End::Missing);
    }

    #[test]
    fn patterns_expand_to_files_and_links_but_do_not_enter_linked_directories_in_depth() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("exists");
        fs::create_dir_all(root.join("d/e")).expect("created");
        for file in ["d/one", "d/e/two", "d/.three"] {
            fs::write(root.join(file), "").expect("written");
        }
        symlink("..", root.join("d/e/up")).expect("linked");
        symlink("d", root.join("l")).expect("linked");
        let base = root.to_str().expect("UTF-8");
        let expand = |pattern: &str| -> Vec<String> {
            let pattern = Pattern::new(&format!("{base}{pattern}")).expect("a pattern");
            let mut matches: Vec<_> = Resolver::default()
                .expand(&pattern)
                .expect("expands")
                .into_iter()
                .map(|found| String::from_utf8_lossy(&found.listed).replace(base, ""))
                .collect();
            matches.sort();
            matches
        };
        assert_eq!(expand("/d/**"), ["/d/.three", "/d/e/two", "/d/e/up", "/d/one"]);
        assert_eq!(expand("/d/**/t*"), ["/d/e/two"]);
        assert_eq!(expand("/d/*"), ["/d/.three", "/d/one"], "no directories");
        assert_eq!(expand("/l/o*"), ["/l/one"]);
        assert_eq!(expand("/*/one"), ["/d/one", "/l/one"]);
        assert_eq!(expand("/none/*"), Vec::<String>::new());
    }
}
