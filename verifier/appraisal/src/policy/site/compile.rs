//! A policy's document, checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proto::digest::HashAlg;

use super::{
    super::golden_set::{GoldenProblem, name, problem, syntax_problem},
    Rule, SitePolicy,
    cel::Program,
    document::{KernelDocument, RuleDocument, RuleScope, SCHEMA, SitePolicyDocument},
    limits::{MAX_KERNEL_DIGESTS, MAX_MESSAGE_BYTES, MAX_POLICY_BYTES, MAX_RULES},
    schema::{INPUT, JOB_INPUT, Type},
};

impl SitePolicy {
    /// Parses, checks and compiles a policy.
    ///
    /// # Errors
    /// Every problem found, never only the first (a syntax error of the document hides the rest; of each expression
    /// the first one is told).
    pub fn parse(text: &str) -> Result<Self, Vec<GoldenProblem>> {
        let document = Self::document(text)?;
        let mut problems = Vec::new();
        head(&document, &mut problems);
        let kernels = kernels(&document.kernel, &mut problems);
        let rules = rules(&document.rule, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            name: document.name,
            version: document.version,
            digest: HashAlg::Sha256.hash(&[text.as_bytes()]),
            pools: document.pools,
            kernels,
            rules,
        })
    }

    /// What judges for a policy that is in force, whatever became of it: left out it would lift what it demands.
    ///
    /// A text that cannot be used, because another version of this software read it otherwise for one, gives a policy that
    /// denies every node of its pools, of every pool if they cannot be read. The second value says why.
    #[must_use]
    pub fn in_force(text: &str) -> (Self, Vec<GoldenProblem>) {
        let problems = match Self::parse(text) {
            Ok(policy) => return (policy, Vec::new()),
            Err(problems) => problems,
        };
        let document = Self::document(text).ok();
        let (name, version, pools) = document.map_or_else(
            || ("unusable".to_owned(), 0, Vec::new()),
            |document| (document.name, document.version, document.pools),
        );
        let message = "This policy is in force and cannot be used: bring one that can.".to_owned();
        let program = Program::compile("false", INPUT).expect("a literal is an expression");
        let policy = Self {
            name,
            version,
            digest: HashAlg::Sha256.hash(&[text.as_bytes()]),
            pools,
            kernels: BTreeMap::new(),
            rules: vec![Rule {
                name: "unusable".to_owned(),
                message,
                program,
                at: RuleScope::Always,
            }],
        };
        (policy, problems)
    }

    /// The document in a text, its rules not yet checked.
    ///
    /// # Errors
    /// A document that is too large, not TOML, or has keys that are not known.
    pub fn document(text: &str) -> Result<SitePolicyDocument, Vec<GoldenProblem>> {
        if text.len() > MAX_POLICY_BYTES {
            let len = text.len();
            let what = format!("{len} bytes, a policy has at most {MAX_POLICY_BYTES}");
            return Err(vec![problem("document", what)]);
        }
        toml::from_str(text).map_err(|error| vec![syntax_problem(text, &error)])
    }
}

fn head(document: &SitePolicyDocument, problems: &mut Vec<GoldenProblem>) {
    if document.schema != SCHEMA {
        problems.push(problem("schema", format!("{:?}, expected {SCHEMA:?}", document.schema)));
    }
    name("name", &document.name, problems);
    for (at, pool) in document.pools.iter().enumerate() {
        name(&format!("pools[{at}]"), pool, problems);
    }
    if document.version == 0 {
        problems.push(problem("version", "0, the first version is 1"));
    }
    if document.rule.len() > MAX_RULES {
        let len = document.rule.len();
        problems.push(problem("rule", format!("{len} rules, a policy has at most {MAX_RULES}")));
    }
}

fn kernels(
    kernels: &[KernelDocument],
    problems: &mut Vec<GoldenProblem>,
) -> BTreeMap<String, Arc<str>> {
    let mut out = BTreeMap::new();
    let mut count = 0_usize;
    for (at, kernel) in kernels.iter().enumerate() {
        let version: Arc<str> = Arc::from(kernel.version.as_str());
        if kernel.version.is_empty() || kernel.digests.is_empty() {
            problems
                .push(problem(format!("kernel[{at}]"), "has a version and at least one digest"));
        }
        for (n, digest) in kernel.digests.iter().enumerate() {
            count = count.saturating_add(1);
            if out.insert(digest.to_string(), Arc::clone(&version)).is_some() {
                let at = format!("kernel[{at}].digests[{n}]");
                problems.push(problem(at, format!("{digest} stands twice")));
            }
        }
    }
    if count > MAX_KERNEL_DIGESTS {
        let what = format!("{count} digests, a policy has at most {MAX_KERNEL_DIGESTS}");
        problems.push(problem("kernel", what));
    }
    out
}

fn rules(rules: &[RuleDocument], problems: &mut Vec<GoldenProblem>) -> Vec<Rule> {
    let mut names = BTreeSet::new();
    let mut out = Vec::new();
    // More than these are refused as a whole: there is no end to what could be said of each.
    for (at, rule) in rules.iter().take(MAX_RULES).enumerate() {
        let at = format!("rule[{at}]");
        name(&format!("{at}.name"), &rule.name, problems);
        if !names.insert(&rule.name) {
            problems.push(problem(format!("{at}.name"), format!("{:?} stands twice", rule.name)));
        }
        if rule.message.trim().is_empty() || rule.message.len() > MAX_MESSAGE_BYTES {
            let what = format!(
                "says what the rule means and what to do, in at most {MAX_MESSAGE_BYTES} bytes"
            );
            problems.push(problem(format!("{at}.message"), what));
        }
        match compile(&rule.expr, rule.at) {
            Ok(program) => out.push(Rule {
                name: rule.name.clone(),
                message: rule.message.clone(),
                program,
                at: rule.at,
            }),
            Err((place, what)) => {
                problems.push(problem(format!("{at}.expr ({:?}), {place}", rule.name), what));
            }
        }
    }
    out
}

/// The program, or the place in the expression and what is wrong there.
fn compile(expr: &str, at: RuleScope) -> Result<Program, (String, String)> {
    let input = match at {
        RuleScope::Always => INPUT,
        RuleScope::Job => JOB_INPUT,
    };
    let program = Program::compile(expr, input).map_err(|wrong| {
        let is_for_jobs = at == RuleScope::Always && Program::compile(expr, JOB_INPUT).is_ok();
        let help = if is_for_jobs { "; a rule about jobs has at = \"job\"" } else { "" };
        (place(expr, wrong.at), wrong.what + help)
    })?;
    match program.kind() {
        Type::Bool => Ok(program),
        other => Err((place(expr, 0), format!("a rule is a condition, this is {other}"))),
    }
}

/// Line and column, in characters.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count().saturating_add(1);
    let column = before.rsplit('\n').next().unwrap_or("").chars().count().saturating_add(1);
    format!("line {line}, column {column}")
}
