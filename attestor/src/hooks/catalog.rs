//! The files of each system, and what is filled into them.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::HookError;

/// A CI system that there are hooks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookSystem {
    /// Buildkite's agent.
    Buildkite,
    /// GitHub Actions runner.
    GitHub,
    /// GitLab Runner with its custom executor.
    GitLab,
    /// A Jenkins agent that connects to its controller.
    Jenkins,
    /// Tekton Pipelines.
    Tekton,
}

/// Where a file of the catalogue goes.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Below the folder of the system's hooks.
    Hooks(&'static str),
    /// Elsewhere below the root.
    Root(&'static str),
}

/// A file as it stands in the program.
#[derive(Clone, Copy, Debug)]
struct Template {
    place: Place,
    text: &'static str,
    /// Run by the system, and so executable.
    is_program: bool,
    /// Makes decisions about jobs on this worker, and so belongs to the measured tools.
    is_measured: bool,
}

const fn program(place: Place, text: &'static str) -> Template {
    Template { place, text, is_program: true, is_measured: true }
}

const fn unit(path: &'static str, text: &'static str) -> Template {
    Template { place: Place::Root(path), text, is_program: false, is_measured: true }
}

const GITHUB: &[Template] = &[
    program(Place::Hooks("job-started.sh"), include_str!("../../hooks/github/job-started.sh")),
    program(Place::Hooks("jit-runner.sh"), include_str!("../../hooks/github/jit-runner.sh")),
    program(Place::Hooks("stop.sh"), include_str!("../../hooks/github/stop.sh")),
    unit(
        "etc/systemd/system/assay-github-runner.service",
        include_str!("../../hooks/github/assay-github-runner.service"),
    ),
    unit(
        "etc/systemd/system/assay-stop-github.path",
        include_str!("../../hooks/github/assay-stop-github.path"),
    ),
    unit(
        "etc/systemd/system/assay-stop-github.service",
        include_str!("../../hooks/github/assay-stop-github.service"),
    ),
];
const GITLAB: &[Template] = &[
    program(Place::Hooks("config.sh"), include_str!("../../hooks/gitlab/config.sh")),
    program(Place::Hooks("prepare.sh"), include_str!("../../hooks/gitlab/prepare.sh")),
    program(Place::Hooks("run.sh"), include_str!("../../hooks/gitlab/run.sh")),
    program(Place::Hooks("stages.sh"), include_str!("../../hooks/gitlab/stages.sh")),
    program(Place::Hooks("cleanup.sh"), include_str!("../../hooks/gitlab/cleanup.sh")),
    unit(
        "etc/systemd/system/gitlab-runner.service.d/50-assay.conf",
        include_str!("../../hooks/gitlab/50-assay.conf"),
    ),
];
const BUILDKITE: &[Template] = &[
    program(
        Place::Root("etc/buildkite-agent/hooks/pre-bootstrap"),
        include_str!("../../hooks/buildkite/pre-bootstrap"),
    ),
    program(
        Place::Root("etc/buildkite-agent/hooks/pre-exit"),
        include_str!("../../hooks/buildkite/pre-exit"),
    ),
    program(Place::Hooks("bootstrap.sh"), include_str!("../../hooks/buildkite/bootstrap.sh")),
    unit(
        "etc/systemd/system/buildkite-agent.service.d/50-assay.conf",
        include_str!("../../hooks/buildkite/50-assay.conf"),
    ),
];
const JENKINS: &[Template] = &[
    program(Place::Hooks("agent.sh"), include_str!("../../hooks/jenkins/agent.sh")),
    unit(
        "etc/systemd/system/assay-jenkins-agent.service",
        include_str!("../../hooks/jenkins/assay-jenkins-agent.service"),
    ),
];
/// For the cluster: nothing on the worker reads it.
const TEKTON: &[Template] = &[Template {
    place: Place::Hooks("stepaction.yaml"),
    text: include_str!("../../hooks/tekton/stepaction.yaml"),
    is_program: false,
    is_measured: false,
}];

impl HookSystem {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Buildkite, Self::GitHub, Self::GitLab, Self::Jenkins, Self::Tekton];

    /// The name, as on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Buildkite => "buildkite",
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Jenkins => "jenkins",
            Self::Tekton => "tekton",
        }
    }

    /// What is hooked, in a line.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::Buildkite => "agent: pre-bootstrap hook, and a bootstrap under the permit",
            Self::GitHub => "runner: a job-started hook, just-in-time registration",
            Self::GitLab => "runner: scripts of the custom executor",
            Self::Jenkins => "agent: a unit that connects only an attested worker",
            Self::Tekton => "a StepAction for the cluster",
        }
    }

    /// The user whose processes run the jobs, as the system's packages name it.
    #[must_use]
    pub const fn default_user(self) -> &'static str {
        match self {
            Self::Buildkite => "buildkite-agent",
            Self::GitHub => "runner",
            Self::GitLab => "gitlab-runner",
            Self::Jenkins => "jenkins",
            Self::Tekton => "nobody",
        }
    }

    /// Name of the measured tool.
    #[must_use]
    pub fn tool_name(self) -> String {
        format!("assay-hook-{self}")
    }

    const fn templates(self) -> &'static [Template] {
        match self {
            Self::Buildkite => BUILDKITE,
            Self::GitHub => GITHUB,
            Self::GitLab => GITLAB,
            Self::Jenkins => JENKINS,
            Self::Tekton => TEKTON,
        }
    }
}

impl fmt::Display for HookSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for HookSystem {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|system| system.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("{text:?} is none of {names}")
        })
    }
}

/// What is filled into the files: all of it stands in scripts and units as it is, so all of it is plain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// The system.
    pub system: HookSystem,
    /// Everything lies below it: `/`.
    pub root: PathBuf,
    /// The program that the hooks call.
    pub attestor: PathBuf,
    /// The daemon's socket for jobs.
    pub socket: PathBuf,
    /// User whose processes run the jobs.
    pub user: String,
    /// Audience of the platform's tokens: with one, a job without a token is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
}

/// A file to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedFile {
    /// Where.
    pub path: PathBuf,
    /// Permissions: 0755 or 0644.
    pub mode: u32,
    /// What it says.
    pub content: String,
    /// Whether it belongs to the measured tools.
    pub is_measured: bool,
}

impl Site {
    /// Checks what is filled in.
    ///
    /// # Errors
    /// `HOOK_NAME_INVALID`: a path that is not absolute or not plain, a user that is no user's name, an audience that is not
    /// plain.
    pub fn checked(self) -> Result<Self, HookError> {
        for (what, path) in
            [("folder", &self.root), ("program", &self.attestor), ("socket", &self.socket)]
        {
            plain_path(what, path)?;
        }
        let mut letters = self.user.bytes();
        let is_name = letters.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
            && letters.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.".contains(&b))
            && self.user.len() <= 32;
        if !is_name {
            return Err(HookError::Name {
                what: "user",
                value: self.user,
                rule: "must be a lower-case name of at most 32 bytes",
            });
        }
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-:".contains(&b);
        if let Some(audience) = &self.audience
            && !((1..=255).contains(&audience.len()) && audience.bytes().all(is_plain))
        {
            return Err(HookError::Name {
                what: "audience",
                value: audience.clone(),
                rule: "must be 1 to 255 letters, digits, `/`, `.`, `_`, `-` and `:`",
            });
        }
        Ok(self)
    }

    /// The folder of the system's hooks.
    #[must_use]
    pub fn hooks(&self) -> PathBuf {
        self.root.join("usr/lib/assay/hooks").join(self.system.as_str())
    }

    /// The tool list, where no other is named.
    #[must_use]
    pub fn tool_list(&self) -> PathBuf {
        self.root.join("etc/assay/tools.toml")
    }

    /// The files, filled in.
    #[must_use]
    pub fn files(&self) -> Vec<RenderedFile> {
        let templates = self.system.templates().iter();
        templates
            .map(|template| RenderedFile {
                path: match template.place {
                    Place::Hooks(name) => self.hooks().join(name),
                    Place::Root(path) => self.root.join(path),
                },
                mode: if template.is_program { 0o755 } else { 0o644 },
                content: self.fill(template.text),
                is_measured: template.is_measured,
            })
            .collect()
    }

    fn fill(&self, text: &str) -> String {
        let below = |path: &str| self.root.join(path).display().to_string();
        // The daemon's folder is the socket's.
        let run = self.socket.parent().unwrap_or(Path::new("/")).display().to_string();
        let root = self.root.display().to_string();
        text.replace("@ATTESTOR@", &self.attestor.display().to_string())
            .replace("@HOOKS@", &self.hooks().display().to_string())
            .replace("@SOCKET@", &self.socket.display().to_string())
            .replace("@USER@", &self.user)
            .replace("@AUDIENCE@", self.audience.as_deref().unwrap_or_default())
            .replace("@RUN@", &run)
            .replace("@RUN_GITLAB@", &below("run/assay-gitlab"))
            .replace("@RUN_BUILDKITE@", &below("run/assay-buildkite"))
            .replace("@BUILDKITE_AGENT@", &below("usr/bin/buildkite-agent"))
            .replace("@ROOT@", root.trim_end_matches('/'))
    }
}

/// A path that needs no quotes in a shell, a unit, YAML or TOML, and is no pattern of the tool list.
fn plain_path(what: &'static str, path: &Path) -> Result<(), HookError> {
    let is_plain = path.to_str().is_some_and(|text| {
        text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(&b))
            && !text.split('/').any(|part| part == "..")
    });
    if path.is_absolute() && is_plain {
        return Ok(());
    }
    Err(HookError::Name {
        what,
        value: path.display().to_string(),
        rule: "must be an absolute path of letters, digits, `.`, `_`, `-` and `+`, without `..`",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(system: HookSystem) -> Site {
        Site {
            system,
            root: "/".into(),
            attestor: "/usr/bin/attestor".into(),
            socket: "/run/assay/job.sock".into(),
            user: system.default_user().to_owned(),
            audience: None,
        }
    }

    #[test]
    fn everything_is_filled_in() {
        for system in HookSystem::ALL {
            let site = site(system).checked().expect("plain");
            let files = site.files();
            assert!(!files.is_empty());
            for file in files {
                let left = file.content.lines().find(|line| {
                    line.split('@').skip(1).any(|part| {
                        part.len() > 1 && part.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
                    })
                });
                assert_eq!(left, None, "{}", file.path.display());
                assert!(!file.content.contains("//usr"), "{}", file.path.display());
                assert!(
                    file.content.contains("nstalled by `attestor hook install")
                        || file.content.contains("rinted by `attestor hook show"),
                    "{} says where it comes from",
                    file.path.display()
                );
                let is_script = file.content.starts_with("#!");
                assert_eq!(file.mode, if is_script { 0o755 } else { 0o644 });
            }
        }
    }

    #[test]
    fn what_a_shell_would_not_take_as_it_is_is_refused() {
        type Edit = fn(&mut Site);
        let cases: [Edit; 9] = [
            |site| site.audience = Some(String::new()),
            |site| site.audience = Some("a b\"".to_owned()),
            |site| site.root = "etc".into(),
            |site| site.root = "/a/../b".into(),
            |site| site.attestor = "/opt/the attestor".into(),
            |site| site.attestor = "/opt/$(reboot)".into(),
            |site| site.socket = "/run/\"x".into(),
            |site| site.user = "Root".into(),
            |site| site.user = "a\nUser=root".into(),
        ];
        for edit in cases {
            let mut site = site(HookSystem::GitHub);
            edit(&mut site);
            let error = site.checked().expect_err("refused");
            assert_eq!(error.code(), "HOOK_NAME_INVALID", "{error}");
        }
    }

    #[test]
    fn a_system_is_found_by_its_name() {
        for system in HookSystem::ALL {
            assert_eq!(system.as_str().parse(), Ok(system));
        }
        assert!("generic".parse::<HookSystem>().is_err_and(|why| why.contains("github")));
    }
}
