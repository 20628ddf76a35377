use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{
        schema::{INPUT, Type},
        value::Value,
    },
    Fault, Program,
};
use crate::policy::site::PolicyInput;

fn input() -> PolicyInput {
    PolicyInput::from_json(&serde_json::json!({
        "node": { "name": "w1", "pool": "linux" },
        "ek": { "digest": "sha256:00", "trust": "allow-listed" },
        "tpm": {
            "firmware_version": "0007005500110000", "clock_safe": true, "reset_count": 3, "restart_count": 0,
            "firmware": { "major": 7, "minor": 85, "build": 4352, "dotted": "7.85.4352" },
        },
        "pcrs": { "sha256": { "0": "00", "7": "07" } },
        "boot": { "applications": ["sha256:aa", "sha256:bb"], "problems": [] },
        "tools": {
            "gcc": { "state": "present", "digest": "sha256:11", "version": "13.2.0" },
            "c++": { "state": "absent", "digest": "sha256:22" },
            "odd": { "state": "present", "digest": "sha256:33", "version": "1.x" },
        },
    }))
    .expect("an input of the schema")
}

fn value(text: &str) -> Result<Value, Fault> {
    match Program::compile(text, INPUT) {
        Ok(program) => program.evaluate(input().root()),
        Err(wrong) => panic!("{text}: {} at {}", wrong.what, wrong.at),
    }
}

fn wrong(text: &str) -> String {
    match Program::compile(text, INPUT) {
        Ok(program) => panic!("{text} is a {}", program.kind()),
        Err(wrong) => format!("{}: {}", wrong.at, wrong.what),
    }
}

#[test]
fn conditions_are_true_or_false() {
    for text in [
        "true",
        "!false",
        "!!true",
        "(true)",
        "1 < 2",
        "2 <= 2",
        "-1 < 0",
        "0x10 == 16",
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "7 / 2 == 3",
        "-7 / 2 == -3",
        "-7 % 2 == -1",
        "10 - 3 - 2 == 5",
        "'a' == \"a\"",
        r"'\x41\u0042\n\\\'' == 'AB\n\\\''",
        r"r'\n'.size() == 2",
        "size('äö') == 2",
        "node.name == 'w1'",
        "tpm.firmware.major == 7",
        "tpm . clock_safe",
        "pcrs.sha256['7'] == '07'",
        "tools['gcc'].version == '13.2.0'",
        "tools.gcc.version.startsWith('13.')",
        "'gcc' in tools",
        "!('cc' in tools)",
        "node.pool in ['linux', 'lab']",
        "1 in [1, 2]",
        "boot.applications[1] == 'sha256:bb'",
        "has(tpm.firmware)",
        "!has(tpm.model)",
        "!has(tools.gcc.purl)",
        "has(tools.gcc)",
        "!has(tools.cc)",
        "true ? true : false",
        "1 > 2 ? false : true",
        "size(tools) == 3",
        "tools.size() == 3",
        "boot.applications.all(a, a.startsWith('sha256:'))",
        "boot.applications.exists(a, a.endsWith('bb'))",
        "boot.applications.exists_one(a, a.contains('a'))  == false",
        "boot.problems.all(p, false)",
        "!boot.problems.exists(p, true)",
        "boot.applications.filter(a, a == 'sha256:aa').size() == 1",
        "boot.applications.map(a, size(a)) == [9, 9]",
        "tools.exists(t, tools[t].state == 'absent')",
        "boot.applications.all(a, boot.applications.exists(b, a == b))",
        "int('12') == 12",
        "string(12) == '12'",
        "string(true) == 'true'",
        "version_at_least(tools['gcc'].version, '13')",
        "!version_at_least(tools.gcc.version, '13.2.1')",
        "version_at_least(tpm.firmware.dotted, '7.85')",
        "true // a comment\n && true",
        "1 == 1\n\t&& 2 == 2",
        "[true, false][0]",
        "'x' != 'y'",
        "-9223372036854775808 < 0",
    ] {
        assert_eq!(value(text), Ok(Value::Bool(true)), "{text}");
    }
}

/// A part that decides outweighs one that has no value, wherever it stands; else the fault is the value.
#[test]
fn faults_are_outweighed_as_cel_has_it() {
    let missing = || Err(Fault::Missing("tpm.model".into()));
    assert_eq!(value("tpm.model == 'x'"), missing());
    assert_eq!(value("!(tpm.model == 'x')"), missing());
    assert_eq!(value("tpm.model == 'x' && true"), missing());
    assert_eq!(value("tpm.model == 'x' || false"), missing());
    assert_eq!(value("tpm.model == 'x' && false"), Ok(Value::Bool(false)));
    assert_eq!(value("tpm.model == 'x' || true"), Ok(Value::Bool(true)));
    assert_eq!(value("tpm.model == 'x' ? true : true"), missing());
    assert_eq!(value("[tpm.model == 'x', true][1]"), missing());
    let version = Err(Fault::Missing("tools[t].version".into()));
    assert_eq!(value("tools.all(t, version_at_least(tools[t].version, '1'))"), version);
    assert_eq!(
        value("tools.exists(t, version_at_least(tools[t].version, '1'))"),
        Ok(Value::Bool(true))
    );
    assert_eq!(value("tools.exists_one(t, version_at_least(tools[t].version, '1'))"), version);
}

#[test]
fn what_has_no_value_says_why() {
    for (text, fault) in [
        ("boot.secure_boot", Fault::Missing("boot.secure_boot".into())),
        ("ima.entries == 0", Fault::Missing("ima".into())),
        ("tools['cc'].state == 'present'", Fault::Missing("tools['cc']".into())),
        ("boot.applications[2] == ''", Fault::OutOfBounds { index: 2, len: 2 }),
        ("boot.applications[-1] == ''", Fault::OutOfBounds { index: -1, len: 2 }),
        ("9223372036854775807 + 1 == 0", Fault::Overflow),
        ("-9223372036854775808 - 1 == 0", Fault::Overflow),
        ("9223372036854775807 * 2 == 0", Fault::Overflow),
        ("-9223372036854775808 / -1 == 0", Fault::Overflow),
        ("-9223372036854775808 % -1 == 0", Fault::Overflow),
        ("-(-9223372036854775808) == 0", Fault::Overflow),
        ("1 / 0 == 0", Fault::DivisionByZero),
        ("1 % 0 == 0", Fault::DivisionByZero),
        ("int('x') == 0", Fault::NotAnInteger("x".into())),
        ("version_at_least(tools.odd.version, '1')", Fault::NotAVersion("1.x".into())),
        ("version_at_least('1', tools.odd.version)", Fault::NotAVersion("1.x".into())),
    ] {
        assert_eq!(value(text), Err(fault), "{text}");
    }
}

/// Digits that are no version would have an order by chance.
#[test]
fn what_is_no_version_is_not_compared() {
    let wrong_of = |text: &str| wrong(&format!("version_at_least({text}, '7')"));
    for field in [
        "tpm.firmware_version",
        "tpm.version",
        "tpm.model",
        "node.name",
        "boot.applications[0]",
        "string(tpm.reset_count)",
        "tools.gcc.digest",
        "(tpm.clock_safe ? tools.gcc.version : tpm.version)",
    ] {
        assert!(wrong_of(field).contains("no version: boot.kernel_version"), "{field}");
    }
    assert_eq!(wrong_of("'6.12-rc1'"), "17: \"6.12-rc1\" is no version that can be compared");
    let variable = "boot.applications.exists(a, version_at_least(a, '1'))";
    assert!(wrong(variable).contains("no version"), "{}", wrong(variable));
    for text in [
        "version_at_least('6.12', '6')",
        "version_at_least(tools.gcc.version, '13') && version_at_least(tools['gcc'].version, '13')",
        "version_at_least(tpm.clock_safe ? tools.gcc.version : '1', '13')",
        "['gcc'].all(t, version_at_least(tools[t].version, '13'))",
        "version_at_least(tpm.firmware.dotted, '7')",
        "version_at_least(tools.gcc.version, tpm.firmware.dotted)",
    ] {
        assert_eq!(value(text), Ok(Value::Bool(true)), "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_before_anything_runs() {
    for (text, what) in [
        ("", "0: the end where a value should be"),
        ("tmp.model == 'x'", "0: no field tmp; did you mean tpm?"),
        ("tpm.firmwre.major == 1", "3: no field firmwre; did you mean firmware?"),
        ("has(tpm.modle)", "7: no field modle; did you mean model?"),
        ("tpm.model == 1", "0: string is never equal to int"),
        ("node.name.startswith('a')", "10: no function startswith; did you mean startsWith?"),
        ("node.name.matches('a')", "10: no function matches; regular expressions"),
        ("startsWith(node.name, 'a')", "0: startsWith is called as text.startsWith(…)"),
        ("node.name.size(1)", "10: size takes 0 arguments, not 1"),
        ("1.5 < 2", "0: fractions are not supported"),
        ("{'a': 1}", "0: map and message literals are not supported"),
        ("b'a' == b'a'", "0: bytes are not supported"),
        ("null == 1", "0: there is no null"),
        ("tpm.model = 'x'", "10: '=' alone is nothing"),
        ("true & true", "5: '&' alone is nothing; use &&"),
        ("'abc", "0: a string without end"),
        (r"'\q'", "1: an escape that is not known"),
        (r"'\ud800' == ''", "1: an escape that is not known"),
        ("9223372036854775808 > 0", "0: an integer above 64 bits"),
        ("-9223372036854775809 > 0", "0: an integer below 64 bits"),
        ("99999999999999999999 > 0", "0: \"99999999999999999999\" is no integer of 64 bits"),
        ("12ab > 0", "0: \"12ab\" is no integer"),
        ("[] == []", "0: a list without elements"),
        ("[1, 'a'] == [1]", "4: a list has elements of one type"),
        ("[[1]] == [[1]]", "0: no lists of list(int)"),
        ("tools == tools", "0: records and maps are compared field by field"),
        ("1 && true", "0: && takes a bool, not int"),
        ("!1", "1: ! takes a bool, not int"),
        ("true ? 1 : 'a'", "0: ? : gives int or string"),
        ("1 < 'a'", "0: two ints have an order, int and string do not"),
        ("'a' < 'b'", "0: strings have no order; versions are compared by version_at_least"),
        ("tools.gcc.version >= '13'", "0: strings have no order"),
        ("'a' + 'b' == 'ab'", "0: arithmetic takes ints"),
        ("has(tpm)", "0: has() takes one field"),
        ("has(tools['gcc'])", "0: has() takes one field"),
        ("tools.all(tpm, true)", "10: tpm is taken"),
        ("tools.all(t, tools.all(t, true))", "23: t is taken"),
        ("tools.all(1, true)", "10: 1 where the macro's variable should be"),
        ("tools.all(t, 1)", "13: the macro takes a condition, not int"),
        ("node.name.all(t, true)", "0: macros take a list or a map, not string"),
        ("version_at_least(tools.gcc.version, 'x')", "36: \"x\": a floor is numbers"),
        ("true true", "5: \"true\" where the expression should end"),
        ("for == 1", "0: \"for\" is a reserved word"),
        ("tpm['model'] == 'x'", "4: record is not indexed"),
        ("tools[0].state == ''", "6: a map is indexed by string, not int"),
        ("boot.applications['0'] == ''", "18: a list is indexed by int, not string"),
        ("\u{0}", "0: '\\0' is not part of an expression"),
    ] {
        let found = wrong(text);
        assert!(found.starts_with(what), "{text}: {found}");
    }
}

#[test]
fn every_limit_says_which_it_is() {
    let deep = |open: &str, close: &str| format!("{}true{}", open.repeat(40), close.repeat(40));
    for text in [
        deep("(", ")"),
        deep("!", ""),
        deep("true ? true : ", ""),
        deep("[", "]"),
        format!("{} == 0", vec!["1"; 40].join(" + ")),
        format!("tpm{} == 0", ".a".repeat(40)),
        format!("tools{} == 0", "['a']".repeat(40)),
    ] {
        assert!(wrong(&text).contains("nested deeper than 32 levels"), "{text}: {}", wrong(&text));
    }
    let long = format!("true && {}", "true && ".repeat(300));
    assert!(wrong(&long).contains("an expression has at most 2048"));
    // A list of conditions is long, not deep.
    assert_eq!(value(&vec!["true"; 200].join("&&")), Ok(Value::Bool(true)));
    let macros = "tools.all(a, tools.all(b, tools.all(c, true)))";
    assert!(wrong(macros).contains("macros within macros, deeper than 2"));
}

/// A thousand tools against each other: refused in bounded time, and no part that decides outweighs that.
#[test]
fn a_spent_budget_ends_the_evaluation() {
    let name = |n: u32| Arc::<str>::from(format!("tool-{n}"));
    let tools: BTreeMap<_, _> = (0..1_000).map(|n| (name(n), Value::text("x"))).collect();
    let input =
        Value::Map(Arc::new(BTreeMap::from([(Arc::from("tools"), Value::Map(Arc::new(tools)))])));
    let run = |text: &str| Program::compile(text, INPUT).expect("compiles").evaluate(&input);
    assert_eq!(run("tools.all(a, a.startsWith('tool-'))"), Ok(Value::Bool(true)));
    for text in [
        "tools.all(a, tools.all(b, a == a || b == b))",
        "tools.all(a, tools.all(b, true)) || true",
        "!tools.all(a, tools.all(b, true)) && false",
        "tools.map(a, tools.filter(b, true).size()).size() == 0",
    ] {
        assert_eq!(run(text), Err(Fault::Budget), "{text}");
    }
}

#[test]
fn reads_are_kept_in_order_and_bounded() {
    let program = Program::compile(
        "tpm.firmware.major > 7 || tools.exists(t, tools[t].state == 'gone') || has(tpm.model)",
        INPUT,
    )
    .expect("compiles");
    let (result, reads) = program.trace(input().root());
    assert_eq!(result, Ok(Value::Bool(false)));
    let words: Vec<&str> = reads.values.iter().map(|(words, _)| words.as_str()).collect();
    assert_eq!(
        words,
        ["tpm.firmware.major", "tools", "tools[t].state", "tools[t].state", "has(tpm.model)"]
    );
}

/// What a rule writes itself is what it expects: the worker, who is told what was read, must not learn it.
#[test]
fn what_a_rule_lists_is_not_read() {
    let program = Program::compile(
        "['sha256:good', 'sha256:better'].exists(d, d in boot.applications)",
        INPUT,
    )
    .expect("compiles");
    let (_, reads) = program.trace(input().root());
    let words: Vec<&str> = reads.values.iter().map(|(words, _)| words.as_str()).collect();
    assert_eq!(words, ["boot.applications"]);
}

/// A value that no schema was asked about.
fn untyped(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Object(fields) => Value::Map(Arc::new(
            fields.iter().map(|(name, json)| (Arc::from(name.as_str()), untyped(json))).collect(),
        )),
        Json::String(text) => Value::text(text),
        other => Value::Int(other.as_i64().expect("an integer")),
    }
}

#[test]
fn a_value_of_a_wrong_type_is_a_fault_and_no_panic() {
    let record = Value::Map(Arc::new(BTreeMap::from([(Arc::from("node"), Value::Int(1))])));
    let program = Program::compile("node.name == 'x'", INPUT).expect("compiles");
    assert_eq!(program.evaluate(&record), Err(Fault::Missing("node.name".into())));
    assert_eq!(program.evaluate(&Value::Int(1)), Err(Fault::Missing("node".into())));
    for (text, input, found) in [
        ("node.name == 'x'", serde_json::json!({ "node": { "name": 1 } }), Err(Fault::WrongType)),
        (
            "!tpm.clock_safe",
            serde_json::json!({ "tpm": { "clock_safe": "yes" } }),
            Err(Fault::WrongType),
        ),
        // Who asked for a condition refuses what is none.
        (
            "tpm.clock_safe",
            serde_json::json!({ "tpm": { "clock_safe": "yes" } }),
            Ok(Value::text("yes")),
        ),
        (
            "tpm.reset_count > 1",
            serde_json::json!({ "tpm": { "reset_count": "3" } }),
            Err(Fault::WrongType),
        ),
        (
            "boot.problems.all(p, true)",
            serde_json::json!({ "boot": { "problems": 1 } }),
            Err(Fault::WrongType),
        ),
    ] {
        let program = Program::compile(text, INPUT).expect("compiles");
        assert_eq!(program.evaluate(&untyped(&input)), found, "{text}");
    }
    let wrong = Program::compile("true", Type::Bool).map(|_| ()).expect_err("no record");
    assert_eq!((wrong.at, wrong.what.as_str()), (0, "the input is a record"));
}
