//! What a command that did not succeed says, and with which exit code.

use std::{fmt::Display, io::Write as _, process::ExitCode};

use appraisal::policy::GoldenProblem;

use super::output::{printable, printable_lines};
use crate::service::status::chain;

/// Failed.
const FAILED: u8 = 1;
/// Wrong usage, as clap has it.
const USAGE: u8 = 2;
/// Refused, denied, or problems found.
const REFUSED: u8 = 3;

/// Why a command ends with another exit code than 0.
#[derive(Debug)]
pub(super) struct Failure {
    exit: u8,
    /// Empty: everything was said already.
    message: String,
    reason: Option<String>,
    help: Option<String>,
}

impl Failure {
    /// Failed, for this reason and its sources.
    pub(super) fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        Self { exit: FAILED, message: chain(error), reason: None, help: None }
    }

    /// Failed.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { exit: FAILED, message: message.into(), reason: None, help: None }
    }

    /// The arguments do not fit together.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { exit: USAGE, ..Self::failed(message) }
    }

    /// The verifier said no.
    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self { exit: REFUSED, ..Self::failed(message) }
    }

    /// A check found problems, and they were printed.
    pub(super) const fn problems_found() -> Self {
        Self { exit: REFUSED, message: String::new(), reason: None, help: None }
    }

    /// What was given has problems: all of them, after `what` has them.
    pub(super) fn problems(what: impl Display, problems: &[GoldenProblem]) -> Self {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Self::refused(format!("{what}: {}", lines.join("; ")))
    }

    /// Nobody reads the output any more: nothing to say, nothing wrong.
    pub(super) const fn reader_gone() -> Self {
        Self { exit: 0, message: String::new(), reason: None, help: None }
    }

    /// What was being done.
    pub(super) fn while_doing(mut self, what: &str) -> Self {
        self.message = format!("cannot {what}: {}", self.message);
        self
    }

    /// The reason code.
    pub(super) fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// What to do.
    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says it on the standard error output; with `json` as one object.
    pub(super) fn report(self, json: bool) -> ExitCode {
        if !self.message.is_empty() {
            let mut err = std::io::stderr().lock();
            // Nobody to tell if this fails.
            let _ = if json {
                let object = serde_json::json!({
                    "error": self.message, "reason": self.reason, "help": self.help,
                });
                writeln!(err, "{object}")
            } else {
                writeln!(err, "{}", self.in_words())
            };
        }
        ExitCode::from(self.exit)
    }

    /// For people: a message may quote a file or a server, so nothing of it reaches the terminal as it is.
    fn in_words(&self) -> String {
        let code = self.reason.as_deref().map(|reason| format!(" [{}]", printable(reason)));
        let help = self.help.as_deref().map(|help| format!("\nhelp: {}", printable_lines(help)));
        let message = printable_lines(&self.message);
        format!("error{}: {message}{}", code.unwrap_or_default(), help.unwrap_or_default())
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::of(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_message_moves_a_cursor() {
        let failure = Failure::refused("line 1\u{1b}[2J\nline 2\u{9b}1A\r\u{202e}gpj")
            .with_reason("CODE")
            .with_help("say\u{7} it\nso\u{2066}");
        assert_eq!(
            failure.in_words(),
            "error [CODE]: line 1\\u{1b}[2J\nline 2\\u{9b}1A\\r\\u{202e}gpj\n\
             help: say\\u{7} it\nso\\u{2066}"
        );
        assert_eq!(Failure::failed("why").in_words(), "error: why");
    }
}
