//! The rules of a policy over one input.

use std::{borrow::Cow, fmt::Write as _};

use proto::reason::ReasonCode;
use serde::Serialize;

use super::{
    PolicyInput, Rule, RuleScope, SitePolicy,
    cel::{Fault, Reads},
    limits::{MAX_OBSERVED_BYTES, MAX_SHOWN_VALUE_BYTES},
    value::{Value, cut},
};
use crate::verdict::Finding;

/// What became of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Met.
    True,
    /// Not met.
    False,
    /// It has no value: denies as well.
    Error,
}

/// A rule over one input, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The rule.
    pub rule: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What the rule means and what to do.
    pub message: String,
    /// Why it has no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it read, in order: the expression's own words and the value.
    pub read: Vec<(String, String)>,
}

/// What a rule has against an input.
#[derive(Clone, Debug)]
pub(crate) struct RuleFinding {
    pub(crate) finding: Finding,
    /// Where the rule is judged.
    pub(crate) at: RuleScope,
    /// Fields of the input that it wanted and that are not there.
    wanted: Vec<String>,
}

impl RuleFinding {
    /// Whether evidence that is lacking may bring what the rule wanted: a PCR with what a log says of it, or the kernel's
    /// list.
    pub(crate) fn is_for_want_of(&self, lacking: &[Finding]) -> bool {
        let lacks = |codes: &[ReasonCode]| lacking.iter().any(|one| codes.contains(&one.code));
        self.wanted.iter().any(|field| match field.as_str() {
            "boot" | "pcrs" => lacks(&[ReasonCode::PcrSelectionIncomplete]),
            "ima" => lacks(&[ReasonCode::PolicyImaListMissing, ReasonCode::ImaOffsetInvalid]),
            _ => false,
        })
    }
}

/// The field of the input that a path begins with.
fn field_of(path: &str) -> String {
    let is_of_name = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
    path.trim_start().chars().take_while(is_of_name).collect()
}

/// What a rule wanted to have: what it could not read, or where it has a value, what it asked for and was not there.
fn wanted(result: &Result<Value, Fault>, reads: &Reads) -> Vec<String> {
    match result {
        Err(Fault::Missing(path)) => vec![field_of(path)],
        Ok(_) => {
            let absent = reads.values.iter().filter(|(_, value)| *value == Value::Bool(false));
            let asked = absent.filter_map(|(words, _)| words.strip_prefix("has"));
            asked.filter_map(|asked| asked.trim_start().strip_prefix('(')).map(field_of).collect()
        }
        Err(_) => Vec::new(),
    }
}

impl SitePolicy {
    /// What the policy has against this input, a finding for each rule that is not true; nothing if it has nothing.
    #[must_use]
    pub fn judge(&self, input: &PolicyInput) -> Vec<Finding> {
        self.findings(input).into_iter().map(|found| found.finding).collect()
    }

    /// The same, with what each rule wanted and was not there.
    pub(crate) fn findings(&self, input: &PolicyInput) -> Vec<RuleFinding> {
        let input = self.with_kernel(input);
        self.asked(&input).filter_map(|rule| self.finding(rule, &input)).collect()
    }

    /// Rules that are asked of this input.
    fn asked(&self, input: &PolicyInput) -> impl Iterator<Item = &Rule> {
        let is_job = input.root().get("job").is_some();
        self.rules.iter().filter(move |rule| rule.at == RuleScope::Always || is_job)
    }

    /// Every rule that is asked of this input, with what it read.
    #[must_use]
    pub fn explain(&self, input: &PolicyInput) -> Vec<Explanation> {
        let input = self.with_kernel(input);
        let explained = self.asked(&input).map(|rule| {
            let (result, reads) = rule.program.trace(input.root());
            let (outcome, error) = match &result {
                Ok(Value::Bool(true)) => (Outcome::True, None),
                Ok(Value::Bool(false)) => (Outcome::False, None),
                Ok(other) => (Outcome::Error, Some(not_a_bool(other))),
                Err(fault) => (Outcome::Error, Some(fault.to_string())),
            };
            let shown = |(words, value): &(String, Value)| {
                (words.clone(), value.shown(MAX_SHOWN_VALUE_BYTES))
            };
            let read = reads.values.iter().map(shown).collect();
            let (rule, message) = (rule.name.clone(), rule.message.clone());
            Explanation { rule, outcome, message, error, read }
        });
        explained.collect()
    }

    fn finding(&self, rule: &Rule, input: &PolicyInput) -> Option<RuleFinding> {
        // Nearly every rule of nearly every appraisal ends here.
        if rule.program.evaluate(input.root()) == Ok(Value::Bool(true)) {
            return None;
        }
        let (result, reads) = rule.program.trace(input.root());
        let wanted = wanted(&result, &reads);
        let (code, why) = match result {
            Ok(Value::Bool(false)) => (ReasonCode::PolicyRuleFalse, None),
            Ok(other) => (ReasonCode::PolicyRuleError, Some(not_a_bool(&other))),
            Err(fault) => (ReasonCode::PolicyRuleError, Some(Fault::to_string(&fault))),
        };
        let finding = Finding::new(
            code,
            format!("rule {}/{}", self.name, rule.name),
            rule.message.clone(),
            observed(why, &reads),
        );
        Some(RuleFinding { finding, at: rule.at, wanted })
    }

    /// The input, with the version of the kernel that booted if the policy knows it for certain.
    fn with_kernel<'a>(&self, input: &'a PolicyInput) -> Cow<'a, PolicyInput> {
        match self.kernel_version(input) {
            Some(version) => Cow::Owned(input.with_kernel_version(version)),
            None => Cow::Borrowed(input),
        }
    }

    /// The version of the kernel that booted: of the last image of PCR 4, or of the kernel inside of a unified image.
    ///
    /// An image that is known and after which an unknown one was started is not what runs. Where images of several
    /// versions were started, nobody says which one runs. Without PCR 4 it is not known what was started at all.
    fn kernel_version(&self, input: &PolicyInput) -> Option<&str> {
        if self.kernels.is_empty() {
            return None;
        }
        let boot = input.root().get("boot")?;
        let Some(Value::List(applications)) = boot.get("applications") else { return None };
        let inside = boot.get("sections").and_then(|sections| sections.get(".linux"));
        let version = |digest: &Value| match digest {
            Value::Text(digest) => self.kernels.get(&**digest).map(AsRef::as_ref),
            _ => None,
        };
        let last = applications.last().and_then(version);
        let booted = last.or_else(|| inside.and_then(version))?;
        let mut started = applications.iter().chain(inside).filter_map(version);
        started.all(|version| version == booted).then_some(booted)
    }
}

fn not_a_bool(value: &Value) -> String {
    format!("{} is not a condition", value.shown(MAX_SHOWN_VALUE_BYTES))
}

/// What was seen: the fault, then what the rule read.
fn observed(why: Option<String>, reads: &Reads) -> String {
    let mut out = why.unwrap_or_default();
    for (words, value) in &reads.values {
        if !out.is_empty() {
            out.push_str("; ");
        }
        // Writing into a string cannot fail.
        let _ = write!(out, "{words} = {}", value.shown(MAX_SHOWN_VALUE_BYTES));
        if out.len() > MAX_OBSERVED_BYTES {
            return cut(out, MAX_OBSERVED_BYTES);
        }
    }
    if reads.more {
        out.push_str("; …");
    }
    if out.is_empty() { "false, whatever the input".to_owned() } else { out }
}
