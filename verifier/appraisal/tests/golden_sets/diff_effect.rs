//! What a difference does, against real judging.

use std::sync::LazyLock;

use appraisal::policy::{
    ReferenceValues,
    diff::{Difference, diff},
    document::GoldenDocument,
};
use proptest::prelude::*;

use crate::{
    change::{Change, World, change, of_one_theme, other_ld},
    log_support::Boot,
    machine::{Machine, plain, reference},
    site::{cc, ld, tool},
};

static MACHINES: LazyLock<Vec<Machine>> = LazyLock::new(|| {
    let kernel_2 = Boot {
        kernel: b"kernel 2".to_vec(),
        initrd: b"initrd 2".to_vec(),
        command_line: "root=/dev/vda3 ro".to_owned(),
        ..plain()
    };
    let linker = vec![tool("linker", &[("/usr/bin/lld", b"lld")])];
    vec![
        Machine::booted("plain", &plain()),
        Machine::booted("kernel-2", &kernel_2),
        Machine::booted("insecure", &Boot { secure_boot: 0, ..plain() }),
        Machine::booted("never-left", &Boot { exit: false, ..plain() }),
        Machine::new("other-ld", Some(&plain()), vec![cc(), other_ld()], &[]),
        Machine::new("no-ld", Some(&plain()), vec![cc()], &[]),
        Machine::new("more-tools", Some(&plain()), [vec![cc(), ld()], linker].concat(), &[]),
    ]
});

static WORLD: LazyLock<World> =
    LazyLock::new(|| World { captures: MACHINES.iter().map(Machine::capture).collect() });

fn admitted(reference: &ReferenceValues) -> Vec<&'static str> {
    let is_admitted = |machine: &&Machine| machine.is_admitted_by(reference);
    MACHINES.iter().filter(is_admitted).map(|machine| machine.name.as_str()).collect()
}

/// That nobody is let in by a change that does not widen, and nobody shut out by one that does not narrow.
fn hold_to_it(before: &GoldenDocument, after: &GoldenDocument, found: &[Difference]) {
    let (Ok(old), Ok(new)) = (reference(before), reference(after)) else { return };
    let (old, new) = (admitted(&old), admitted(&new));
    if !found.iter().any(|difference| difference.effect.widens()) {
        let fresh: Vec<_> = new.iter().filter(|name| !old.contains(name)).collect();
        assert!(fresh.is_empty(), "{fresh:?} let in by {found:#?}");
    }
    if !found.iter().any(|difference| difference.effect.narrows()) {
        let gone: Vec<_> = old.iter().filter(|name| !new.contains(name)).collect();
        assert!(gone.is_empty(), "{gone:?} shut out by {found:#?}");
    }
}

#[test]
fn a_machine_is_admitted_by_its_own_capture() {
    for machine in MACHINES.iter() {
        let set = reference(&machine.capture()).expect("a set");
        assert_eq!(machine.findings(&set), Vec::<String>::new(), "{}", machine.name);
    }
}

#[test]
fn captures_of_different_machines_differ_both_ways() {
    for (one, before) in WORLD.captures.iter().enumerate() {
        for (other, after) in WORLD.captures.iter().enumerate() {
            let found = diff(before, after);
            assert_eq!(found.is_empty(), one == other);
            hold_to_it(before, after, &found);
        }
    }
}

fn changes(most: usize) -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(change(), 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn nothing_differs_from_itself(changes in changes(12)) {
        let document = WORLD.document(&changes);
        prop_assert_eq!(diff(&document, &document), []);
    }

    /// A change is always seen, and does what it is said to do, in both directions.
    #[test]
    fn one_change_is_seen_and_does_what_it_says(changes in changes(8), last in change()) {
        let before = WORLD.document(&changes);
        let mut after = before.clone();
        WORLD.apply(&mut after, last);
        prop_assume!(before != after);
        for (old, new) in [(&before, &after), (&after, &before)] {
            let found = diff(old, new);
            prop_assert!(!found.is_empty());
            hold_to_it(old, new, &found);
        }
    }

    /// The same of several that meet each other, beginning with what a machine has.
    #[test]
    fn several_changes_do_what_they_say(
        machine in 0..MACHINES.len(),
        (first, then) in of_one_theme(),
    ) {
        let mut before = WORLD.captures[machine].clone();
        for change in first {
            WORLD.apply(&mut before, change);
        }
        let mut after = before.clone();
        for change in then {
            WORLD.apply(&mut after, change);
        }
        let found = diff(&before, &after);
        prop_assert_eq!(found.is_empty(), before == after);
        hold_to_it(&before, &after, &found);
        hold_to_it(&after, &before, &diff(&after, &before));
    }
}
