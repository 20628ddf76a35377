//! Differences as an operator reads them.

use appraisal::policy::{
    diff::{Difference, Effect, diff, diff_with_node, to_markdown, to_text},
    document::{
        AcceptedCommandLine, AcceptedDigest, AcceptedEvent, EventRule, GoldenDocument, Group,
    },
};
use proto::digest::HashAlg;

use crate::{
    change::{accepted, other_ld},
    log_support::Boot,
    machine::{Machine, empty, plain, tool_rule},
    site::{cc, ld, sha256},
};

fn kernel(release: &str, more: &str) -> Boot {
    Boot {
        kernel: format!("kernel {release}").into_bytes(),
        initrd: format!("initrd {release}").into_bytes(),
        command_line: format!("root=/dev/vda2 ro{more}"),
        ..plain()
    }
}

fn capture(name: &str, boot: &Boot) -> GoldenDocument {
    Machine::booted(name, boot).capture()
}

fn told(found: &[Difference]) -> Vec<(Effect, String)> {
    found.iter().map(|it| (it.effect, it.words.to_string())).collect()
}

#[test]
fn a_kernel_update_in_words() {
    let before = capture("w1", &kernel("6.1.0-18", " quiet"));
    let mut after = capture("w1", &kernel("6.1.0-21", " debug"));
    after.version = 2;
    let found = diff(&before, &after);
    let text = to_text(&found, false);
    for part in [
        "both     kernel command line: `quiet` removed, `debug` added\n",
        "both     boot application: sha256:",
        "; the 4th event differs: boot application \\EFI\\Linux\\linux.efi, of other content\n",
        "neither  version: 1 → 2\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(to_text(&found, true).contains(&before.pcr[2].accept[0].value));
}

#[test]
fn no_difference_is_said() {
    let none = diff(&empty(), &empty());
    assert_eq!(to_text(&none, true), "No difference: the two documents are equal.\n");
    assert_eq!(to_markdown(&none, true), "No difference: the two documents are equal.\n");
    assert_eq!(serde_json::to_string(&none).expect("JSON"), "[]");
    let mut other = empty();
    other.tpm.manufacturers = vec!["id:1".into(), "ID:1".into()];
    let mut again = other.clone();
    again.tpm.manufacturers.pop();
    let found = diff(&other, &again);
    let words = "only order, repetition or spelling differs; the rules are the same";
    assert_eq!(told(&found), [(Effect::Neither, words.to_owned())]);
}

/// A rule that lists one event, and requires these too.
fn events(required: &[&str]) -> EventRule {
    let event = |of: &str, required| AcceptedEvent {
        digest: hex::encode(sha256(of.as_bytes()).as_bytes()),
        what: None,
        required,
    };
    let required = required.iter().map(|of| event(of, true));
    let accept = required.chain([event("any", false)]).collect();
    EventRule { bank: HashAlg::Sha256, index: 5, why: None, accept }
}

/// One change each, and its effect.
#[test]
fn effects_kind_by_kind() {
    type Make = fn(&mut GoldenDocument);
    let group = |name: &str| Group {
        name: name.into(),
        tool: vec![tool_rule(&cc(), "w")],
        ..Group::default()
    };
    let rows: [(&str, Make, Make, Effect, Effect); 17] = [
        (
            "required event",
            |d| d.events.push(events(&[])),
            |d| d.events.push(events(&["a"])),
            Effect::Both,
            Effect::Both,
        ),
        (
            "first application",
            |_| {},
            |d| d.boot.applications.push(accepted(b"a")),
            Effect::Narrows,
            Effect::Widens,
        ),
        (
            "second application",
            |d| d.boot.applications.push(accepted(b"a")),
            |d| d.boot.applications = vec![accepted(b"a"), accepted(b"b")],
            Effect::Widens,
            Effect::Narrows,
        ),
        (
            "dbx",
            |d| d.boot.secure_boot = Some(true),
            |d| {
                d.boot.secure_boot = Some(true);
                d.boot.keys.dbx.push(accepted(b"a"));
            },
            Effect::Narrows,
            Effect::Widens,
        ),
        (
            "tolerated",
            |d| d.boot.secure_boot = Some(true),
            |d| {
                d.boot.secure_boot = Some(true);
                d.boot.tolerate.push(appraisal::boot_log::ProblemCode::DebugMode);
            },
            Effect::Widens,
            Effect::Narrows,
        ),
        (
            "only tolerated",
            |_| {},
            |d| {
                d.boot.tolerate.push(appraisal::boot_log::ProblemCode::DebugMode);
            },
            Effect::Narrows,
            Effect::Widens,
        ),
        (
            "secure boot",
            |d| d.boot.secure_boot = Some(true),
            |d| d.boot.secure_boot = Some(false),
            Effect::Both,
            Effect::Both,
        ),
        ("tool", |_| {}, |d| d.tool.push(tool_rule(&cc(), "w")), Effect::Narrows, Effect::Widens),
        (
            "tool of a closed set",
            |d| d.tools.closed = true,
            |d| {
                d.tools.closed = true;
                d.tool.push(tool_rule(&cc(), "w"));
            },
            Effect::Both,
            Effect::Both,
        ),
        (
            "required",
            |d| d.tool.push(tool_rule(&cc(), "w")),
            |d| {
                d.tool.push(tool_rule(&cc(), "w"));
                d.tool[0].required = false;
            },
            Effect::Widens,
            Effect::Narrows,
        ),
        ("deny", |_| {}, |d| d.tools.deny.push(cc().digest()), Effect::Narrows, Effect::Widens),
        ("start", |_| {}, |d| d.tools.start.push(cc().digest()), Effect::Widens, Effect::Narrows),
        (
            "start of a part",
            |d| d.pool = None,
            |d| {
                d.pool = None;
                d.tools.start.push(cc().digest());
            },
            Effect::Both,
            Effect::Both,
        ),
        (
            "floor",
            |_| {},
            |d| {
                d.tpm.firmware_floor.insert("*".into(), "0000000000000007".into());
            },
            Effect::Narrows,
            Effect::Widens,
        ),
        (
            "floor below that of all",
            |d| {
                d.tpm.firmware_floor.insert("*".into(), "0000000000000007".into());
            },
            |d| {
                d.tpm.firmware_floor.insert("*".into(), "0000000000000007".into());
                d.tpm.firmware_floor.insert("id:49465800".into(), "0000000000000003".into());
            },
            Effect::Widens,
            Effect::Narrows,
        ),
        ("clock", |_| {}, |d| d.tpm.require_safe_clock = true, Effect::Narrows, Effect::Widens),
        (
            "description",
            |_| {},
            |d| d.description = Some("x".into()),
            Effect::Neither,
            Effect::Neither,
        ),
    ];
    let effect = |before: &GoldenDocument, after: &GoldenDocument| {
        let found = diff(before, after);
        found.iter().fold(Effect::Neither, |effect, difference| effect | difference.effect)
    };
    for (name, old, new, there, back) in rows {
        let (mut before, mut after) = (empty(), empty());
        old(&mut before);
        new(&mut after);
        assert_eq!((effect(&before, &after), effect(&after, &before)), (there, back), "{name}");
    }
    let (none, mut one, mut two) = (empty(), empty(), empty());
    one.group = vec![group("a")];
    two.group = vec![group("a"), group("b")];
    two.group[1].tool.clone_from(&vec![tool_rule(&ld(), "w")]);
    assert_eq!((effect(&none, &one), effect(&one, &none)), (Effect::Narrows, Effect::Widens));
    assert_eq!((effect(&one, &two), effect(&two, &one)), (Effect::Widens, Effect::Narrows));
    let mut renamed = one.clone();
    renamed.group[0].name = "b".into();
    let words = "group `a` is called `b`, with the same rules".to_owned();
    assert_eq!(told(&diff(&one, &renamed)), [(Effect::Neither, words)]);
}

#[test]
fn tools_name_the_files_that_differ() {
    let (mut before, mut after) = (empty(), empty());
    before.tool.push(tool_rule(&ld(), "w"));
    after.tool.push(tool_rule(&other_ld(), "w"));
    before.tool[0].accept[0].version = Some("12.2.0".into());
    after.tool[0].accept[0].version = Some("12.2.1".into());
    let words = "tool ld: 12.2.0 → 12.2.1, 1 file differs: /usr/bin/ld".to_owned();
    assert_eq!(told(&diff(&before, &after)), [(Effect::Both, words)]);
}

/// Floors are numbers: one that is written shorter is no higher for that.
#[test]
fn floors_are_compared_as_numbers() {
    let of = |floor: &str| {
        let mut document = empty();
        document.tpm.firmware_floor.insert("*".into(), floor.into());
        document
    };
    let effect = |before: &str, after: &str| -> Vec<Effect> {
        told(&diff(&of(before), &of(after))).into_iter().map(|(effect, _)| effect).collect()
    };
    assert_eq!(effect("0001000200030004", "0001000200030005"), [Effect::Narrows]);
    assert_eq!(effect("000000000000000A", "0000000000000009"), [Effect::Widens]);
    assert_eq!(effect("f", "0000000000000010"), [Effect::Narrows]);
    assert_eq!(effect("0000000000000010", "F"), [Effect::Widens]);
    assert_eq!(effect("000000000000000f", "000000000000000F"), [Effect::Neither]);
    // What is no number accepts nobody: the set is refused where it is checked.
    assert_eq!(effect("ffffffffffffffff", "+000000000000001"), [Effect::Narrows]);
}

/// A pattern in place of a text that it accepts takes nothing away.
#[test]
fn a_pattern_that_covers_a_text_widens_alone() {
    let (mut before, mut after) = (empty(), empty());
    before.boot.command_lines = vec![AcceptedCommandLine::Text { text: "root=UUID=1 ro".into() }];
    let pattern = "root=UUID=* ro".to_owned();
    after.boot.command_lines = vec![AcceptedCommandLine::Pattern { pattern }];
    let words = "kernel command line: `root=UUID=1` → `root=UUID=*`".to_owned();
    assert_eq!(told(&diff(&before, &after)), [(Effect::Widens, words)]);
}

/// A log's text stays on its line, and is no markup where the words are shown.
#[test]
fn hostile_words_are_escaped() {
    let hostile = "x\n- **widens**: `|<img src=x>\u{1b}[2J\u{202e}";
    let (mut before, mut after) = (empty(), empty());
    before.boot.applications = vec![accepted(b"a")];
    after.boot.applications = vec![accepted(b"a"), accepted(b"b")];
    after.boot.applications[1] =
        AcceptedDigest { what: Some(hostile.into()), ..after.boot.applications[1].clone() };
    after.boot.command_lines = vec![AcceptedCommandLine::Text { text: hostile.into() }];
    let found = diff(&before, &after);
    for text in [to_text(&found, true), to_markdown(&found, true)] {
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text}");
    }
    let markdown = to_markdown(&found, true);
    assert_eq!(markdown.lines().filter(|line| line.starts_with("- ")).count(), found.len());
    assert!(!markdown.contains("<img") && !markdown.contains('|'), "{markdown}");
}

#[test]
fn a_node_is_compared_with_the_nearest_group_and_only_where_it_is_refused() {
    let (old, new) = (kernel("6.1.0-18", ""), kernel("6.1.0-21", ""));
    let mut set = capture("w1", &old);
    set.tools.closed = true;
    for (name, boot) in [("old", &old), ("new", &new)] {
        let pcr = capture(name, boot).pcr.into_iter().filter(|rule| [4, 11].contains(&rule.index));
        let group = Group { name: name.into(), pcr: pcr.collect(), ..Group::default() };
        set.group.push(group);
    }
    set.pcr.retain(|rule| ![4, 11].contains(&rule.index));
    assert_eq!(diff_with_node(&set, &capture("w1", &old)), []);
    let found = diff_with_node(&set, &capture("w2", &new));
    let text = to_text(&found, false);
    assert!(found.iter().all(|it| it.group.is_none()), "its PCR 4 and 11 are of a group: {text}");
    assert!(text.contains(" in the set, on the node "), "{text}");
    let missing = Machine::new("w3", Some(&old), vec![cc()], &[]).capture();
    let words = told(&diff_with_node(&set, &missing));
    assert_eq!(words.len(), 1, "{words:?}");
    assert!(words[0].1.starts_with("tool ld in the set, not on the node (required): "));
}
