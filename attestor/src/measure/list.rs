//! The worker's tool list: which tools are measured, and where they lie.
//!
//! # Format
//! TOML, an array of tables `[[tool]]`; unknown keys are refused.
//!
//! | key | meaning |
//! |---|---|
//! | `name` | unique, 1–256 bytes without control characters |
//! | `paths` | path patterns, see [`super::glob`] |
//! | `exclude` | path patterns whose matches are left out of `paths` (never out of the closure) |
//! | `required` | default true: a missing tool is reported as a problem |
//! | `closure` | default true: libraries, interpreters and scripts' interpreters are measured too |
//! | `version_command` | program and arguments; its first line of output is recorded as a claim |
//! | `package` | a package URL recorded as a claim, or `auto` to ask dpkg |

use std::{collections::BTreeSet, path::Path};

use proto::{
    limits::{MAX_TEXT_BYTES, MAX_TOOLS},
    tool_log::ToolMeasurement,
};
use serde::Deserialize;

use super::glob::{Pattern, PatternError};

/// Patterns that one tool may have, and arguments of its version command.
const MAX_PATTERNS: usize = 256;
/// Size of a tool list: 1000 tools with a kilobyte each.
const MAX_LIST_BYTES: usize = 1024 * 1024;

/// Tools to be measured, ascending by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolList {
    tools: Vec<Tool>,
}

/// One declared tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub paths: Vec<Pattern>,
    /// What does not belong to it.
    pub exclude: Vec<Pattern>,
    /// Whether it must be there.
    pub required: bool,
    /// Whether what it needs is measured with it.
    pub closure: bool,
    /// Program and arguments that print its version.
    pub version_command: Option<Vec<String>>,
    /// The package that it comes from.
    pub package: Option<PackageClaim>,
}

/// Where the claim about a tool's package comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackageClaim {
    /// The package manager is asked.
    Auto,
    /// The list says it.
    Given(String),
}

/// Why a tool list is not one, and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// A value has the wrong length or characters.
    #[error("tool {tool:?}: {key} {problem}")]
    Invalid {
        /// The tool's name, or its number where it has none.
        tool: String,
        /// The key.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A name stands twice.
    #[error("tool {0:?} is declared twice")]
    NameRepeated(String),
    /// A pattern is not one.
    #[error("tool {tool:?}: {key}: {pattern:?} {error}")]
    Pattern {
        /// The tool's name.
        tool: String,
        /// `paths` or `exclude`.
        key: &'static str,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        error: PatternError,
    },
    /// The file cannot be read.
    #[error("tool list {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// Not TOML, a wrong type, or an unknown key.
    #[error("tool list: {0}")]
    Syntax(String),
    /// More than the limits allow.
    #[error("tool list: more than {max} {what}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// The limit.
        max: usize,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    tool: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    paths: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default = "yes")]
    required: bool,
    #[serde(default = "yes")]
    closure: bool,
    version_command: Option<Vec<String>>,
    package: Option<String>,
}

const fn yes() -> bool {
    true
}

impl ToolList {
    /// Reads a tool list from a file.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn read(path: &Path) -> Result<Self, ListError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ListError::Read { path: path.display().to_string(), error })?;
        Self::parse(&text)
    }

    /// Parses a tool list.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn parse(text: &str) -> Result<Self, ListError> {
        if text.len() > MAX_LIST_BYTES {
            return Err(ListError::TooMany { what: "bytes", max: MAX_LIST_BYTES });
        }
        let document: Document =
            toml::from_str(text).map_err(|error| ListError::Syntax(error.to_string()))?;
        if document.tool.len() > MAX_TOOLS {
            return Err(ListError::TooMany { what: "tools", max: MAX_TOOLS });
        }
        let mut tools =
            document.tool.into_iter().map(Tool::from_entry).collect::<Result<Vec<_>, _>>()?;
        let mut names = BTreeSet::new();
        if let Some(twice) = tools.iter().find(|tool| !names.insert(&tool.name)) {
            return Err(ListError::NameRepeated(twice.name.clone()));
        }
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { tools })
    }

    /// The tools, ascending by name.
    #[must_use]
    pub fn tools(&self) -> &[Tool] {
        &self.tools
    }
}

impl Tool {
    fn from_entry(entry: Entry) -> Result<Self, ListError> {
        let Entry { name, paths, exclude, required, closure, version_command, package } = entry;
        let invalid = |key, problem: &str| ListError::Invalid {
            tool: name.clone(),
            key,
            problem: problem.to_owned(),
        };
        // The name's rules are those of the measurement.
        if let Err(error) = ToolMeasurement::absent(name.clone()) {
            return Err(invalid("name", &error.to_string()));
        }
        if paths.is_empty() {
            return Err(invalid("paths", "is empty"));
        }
        if paths.len().max(exclude.len()) > MAX_PATTERNS {
            return Err(ListError::TooMany { what: "patterns in one tool", max: MAX_PATTERNS });
        }
        let patterns = |key: &'static str, texts: Vec<String>| {
            texts
                .into_iter()
                .map(|pattern| {
                    Pattern::new(&pattern).map_err(|error| ListError::Pattern {
                        tool: name.clone(),
                        key,
                        pattern,
                        error,
                    })
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let paths = patterns("paths", paths)?;
        let exclude = patterns("exclude", exclude)?;
        if let Some(command) = &version_command {
            match command.first() {
                None => return Err(invalid("version_command", "is empty")),
                Some(program) if program.is_empty() => {
                    return Err(invalid("version_command", "has an empty program"));
                }
                _ => {}
            }
            if command.iter().any(|part| part.contains('\0')) {
                return Err(invalid("version_command", "has a NUL byte"));
            }
        }
        let package = match package {
            None => None,
            Some(text) if text == "auto" => Some(PackageClaim::Auto),
            Some(text)
                if text.is_empty()
                    || text.len() > MAX_TEXT_BYTES
                    || text.chars().any(char::is_control) =>
            {
                return Err(invalid("package", "is empty, too long or has control characters"));
            }
            Some(text) => Some(PackageClaim::Given(text)),
        };
        Ok(Self { name, paths, exclude, required, closure, version_command, package })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_entry_and_the_defaults() {
        let list = ToolList::parse(
            r#"
            [[tool]]
            name = "make"
            paths = ["/usr/bin/make"]

            [[tool]]
            name = "gcc"
            paths = ["/usr/bin/gcc*"]
            exclude = ["/usr/bin/gcc-ar*"]
            required = false
            closure = false
            version_command = ["gcc", "-dumpfullversion"]
            package = "auto"
            "#,
        )
        .expect("a list");
        let [gcc, make] = list.tools() else { panic!("two tools, sorted") };
        assert_eq!((gcc.name.as_str(), gcc.required, gcc.closure), ("gcc", false, false));
        assert_eq!(gcc.package, Some(PackageClaim::Auto));
        assert!(make.required && make.closure && make.package.is_none());
    }

    #[test]
    fn errors_say_what_and_where() {
        let tool = |rest: &str| format!("[[tool]]\nname = \"gcc\"\n{rest}");
        for (text, expected) in [
            (tool(""), "missing field `paths`"),
            (tool("paths = []"), "tool \"gcc\": paths is empty"),
            (tool("paths = [\"bin/gcc\"]"), "tool \"gcc\": paths: \"bin/gcc\" is not absolute"),
            (tool("paths = [\"/a\"]\nexclude = [\"/{b\"]"), "exclude: \"/{b\" braces"),
            (tool("paths = [\"/a\"]\ncolsure = true"), "unknown field `colsure`"),
            (tool("paths = [\"/a\"]\nversion_command = []"), "version_command is empty"),
            (tool("paths = [\"/a\"]\npackage = \"\""), "package is empty"),
            (tool("paths = \"/a\""), "expected a sequence"),
            ("[[tool]]\nname = \"\"\npaths = [\"/a\"]".to_owned(), "tool name is empty"),
            ("[[tol]]\nname = \"a\"".to_owned(), "unknown field `tol`"),
            (
                tool("paths = [\"/a\"]\n[[tool]]\nname = \"gcc\"\npaths = [\"/b\"]"),
                "tool \"gcc\" is declared twice",
            ),
        ] {
            let error = ToolList::parse(&text).expect_err(&text).to_string();
            assert!(error.contains(expected), "{text}\n→ {error}");
        }
        let error = ToolList::parse("\n\n[[tool]\n").expect_err("no TOML").to_string();
        assert!(error.contains("line 3"), "{error}");
    }
}
