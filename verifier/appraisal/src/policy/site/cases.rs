//! Cases of a policy: inputs with what it should say to them.

use serde::{Deserialize, Serialize};

use super::{
    super::golden_set::{GoldenProblem, problem, syntax_problem},
    PolicyInput, SitePolicy,
    judge::Outcome,
};

/// Largest file of cases, bytes: a hundred whole inputs.
pub const MAX_CASES_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CasesDocument {
    case: Vec<CaseDocument>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseDocument {
    name: String,
    /// The input itself,
    #[serde(default)]
    input: Option<serde_json::Value>,
    /// or the name of a JSON file that has it.
    #[serde(default)]
    input_file: Option<String>,
    expect: Expect,
}

/// `allow`, or the rules that must deny: no more and no fewer.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Expect {
    Word(String),
    Rules(Vec<String>),
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CaseResult {
    /// Name of the case.
    pub case: String,
    /// Whether the policy said what was expected.
    pub passed: bool,
    /// Rules that were expected to deny, sorted.
    pub expected: Vec<String>,
    /// Rules that denied, sorted.
    pub denied: Vec<String>,
    /// Why each of them did.
    pub findings: Vec<crate::verdict::Finding>,
}

/// Runs the cases of one file, TOML or JSON (a JSON document begins with `{`).
///
/// `read` gives the text of a file that a case names; this crate opens none.
///
/// # Errors
/// Every problem of the file; no case is run then.
pub fn run_cases(
    policy: &SitePolicy,
    text: &str,
    read: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<Vec<CaseResult>, Vec<GoldenProblem>> {
    if text.len() > MAX_CASES_BYTES {
        let what = format!("{} bytes, at most {MAX_CASES_BYTES} are allowed", text.len());
        return Err(vec![problem("document", what)]);
    }
    let document: CasesDocument = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| vec![json_problem("", &error)])?
    } else {
        toml::from_str(text).map_err(|error| vec![syntax_problem(text, &error)])?
    };
    let mut problems = Vec::new();
    let mut ready = Vec::new();
    for (at, case) in document.case.iter().enumerate() {
        let at = format!("case[{at}] ({:?})", case.name);
        match (input(case, &at, read), expected(policy, &case.expect, &at)) {
            (Ok(input), Ok(expected)) => ready.push((case, input, expected)),
            (input, expected) => {
                problems.extend(input.err().into_iter().chain(expected.err()).flatten());
            }
        }
    }
    if document.case.is_empty() {
        problems.push(problem("case", "empty: nothing would be tested"));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let results = ready.into_iter().map(|(case, input, expected)| {
        let outcomes = policy.explain(&input);
        let mut denied: Vec<String> = outcomes
            .into_iter()
            .filter(|rule| rule.outcome != Outcome::True)
            .map(|rule| rule.rule)
            .collect();
        denied.sort_unstable();
        let passed = denied == expected;
        let findings = policy.judge(&input);
        CaseResult { case: case.name.clone(), passed, expected, denied, findings }
    });
    Ok(results.collect())
}

fn input(
    case: &CaseDocument,
    at: &str,
    read: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<PolicyInput, Vec<GoldenProblem>> {
    let json = match (&case.input, &case.input_file) {
        (Some(input), None) => input.clone(),
        (None, Some(file)) => {
            let text =
                read(file).map_err(|error| vec![problem(format!("{at}.input_file"), error)])?;
            serde_json::from_str(&text).map_err(|error| vec![json_problem(file, &error)])?
        }
        _ => return Err(vec![problem(at, "has either input or input_file")]),
    };
    PolicyInput::from_json(&json).map_err(|problems| {
        problems
            .into_iter()
            .map(|found| problem(format!("{at}.{}", found.at), found.what))
            .collect()
    })
}

fn expected(
    policy: &SitePolicy,
    expect: &Expect,
    at: &str,
) -> Result<Vec<String>, Vec<GoldenProblem>> {
    let at = format!("{at}.expect");
    let rules = match expect {
        Expect::Word(word) if word == "allow" => return Ok(Vec::new()),
        Expect::Word(word) => {
            let what = format!("{word:?}: \"allow\", or a list of the rules that must deny");
            return Err(vec![problem(at, what)]);
        }
        Expect::Rules(rules) => rules,
    };
    let unknown = rules.iter().filter(|name| policy.rules().all(|known| known != name.as_str()));
    let mut problems: Vec<_> =
        unknown.map(|name| problem(at.clone(), format!("no rule {name:?}"))).collect();
    if rules.is_empty() {
        problems.push(problem(at, "no rule; \"allow\" says that none denies"));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut rules = rules.clone();
    rules.sort_unstable();
    rules.dedup();
    Ok(rules)
}

fn json_problem(file: &str, error: &serde_json::Error) -> GoldenProblem {
    let place = format!("line {}, column {}", error.line(), error.column());
    problem(if file.is_empty() { place } else { format!("{file}, {place}") }, error.to_string())
}
