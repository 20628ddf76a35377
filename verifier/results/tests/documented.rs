//! docs/RESULTS.md says what the code does.
mod support;

use results::{Code, admit::AdmitPolicy, statement::Predicate};
use support::chain::{digest, dispatch, vsa};

const DOCUMENT: &str = include_str!("../../../docs/RESULTS.md");

#[test]
fn every_code_is_documented() {
    let documented: Vec<&str> = DOCUMENT
        .lines()
        .filter(|line| line.starts_with("| `RESULT_") || line.starts_with("| `ADMIT_"))
        .collect();
    let mut expected: Vec<_> =
        Code::ALL.iter().map(|code| format!("| `{code}` | {} |", code.meaning())).collect();
    expected.sort_by_key(|row| !row.contains("RESULT_"));
    assert_eq!(documented, expected, "the table should be:\n{}", expected.join("\n"));
}

/// The example that is explained line by line.
#[test]
fn the_example_of_a_policy_can_be_used() {
    let text = include_str!("../../../docs/examples/admit/release.toml");
    let policy: AdmitPolicy = toml::from_str(text).expect("a policy");
    assert_eq!(policy.check(), Ok(()));
    // It shows every field that there is.
    let serde_json::Value::Object(fields) = serde_json::to_value(&policy).expect("JSON") else {
        panic!("an object");
    };
    assert_eq!(fields.len(), 10, "{fields:?}");
    let unknown = text.replace("levels =", "level =");
    assert!(toml::from_str::<AdmitPolicy>(&unknown).is_err(), "a field that is not known");
}

#[test]
fn the_examples_are_real() {
    let vsa = vsa();
    let vsa_json = vsa.to_json().expect("a statement");
    let dispatch = dispatch(digest("key"), results::Sha256Digest::of(&vsa_json));
    let dispatch_json = dispatch.to_json().expect("a statement");
    for (name, json) in [("vsa", vsa_json), ("dispatch", dispatch_json)] {
        let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        let expected = format!("<!-- example: {name} -->\n```json\n{}\n```\n", ordered(&json));
        assert!(DOCUMENT.contains(&expected), "{name} should be:\n{expected}");
        let shown = ordered(&json);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
    }
}

/// Indented, members in the order in which they stand.
fn ordered(json: &[u8]) -> String {
    let text = std::str::from_utf8(json).expect("UTF-8");
    let (mut out, mut depth, mut in_string, mut escaped) = (String::new(), 0_usize, false, false);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    for character in text.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = character == '\\' && !escaped;
            out.push(character);
            continue;
        }
        match character {
            '{' | '[' => {
                depth += 1;
                out.push(character);
                line(&mut out, depth);
            }
            '}' | ']' => {
                depth -= 1;
                line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(character);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => {
                in_string = character == '"';
                out.push(character);
            }
        }
    }
    out
}

#[test]
fn the_policy_in_the_document_is_one() {
    let begin = DOCUMENT.find("```toml\n").expect("a policy") + 8;
    let text = &DOCUMENT[begin..begin + DOCUMENT[begin..].find("```").expect("an end")];
    let policy: AdmitPolicy = toml::from_str(text).expect("a policy");
    assert_eq!(policy.tools.len(), 2);
    assert_eq!(policy.pools, ["release"]);
}
