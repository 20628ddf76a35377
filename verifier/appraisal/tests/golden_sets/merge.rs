//! One set of many captures: it admits every node that it was made of, and no mix of them.

use appraisal::{
    boot_log::ProblemCode,
    policy::{
        MAX_GROUPS,
        document::{BootRules, GoldenDocument},
        merge::{MergeError, Merged, merge},
    },
};
use proptest::prelude::*;
use proto::tool_log::ToolMeasurement;

use crate::{
    change::other_ld,
    log_support::Boot,
    machine::{Machine, empty, plain, reference},
    site::{cc, ld, sha256, tool},
};

/// A kernel, its initrd and its command line.
fn kernel(number: usize) -> Boot {
    Boot {
        kernel: format!("kernel {number}").into_bytes(),
        initrd: format!("initrd {number}").into_bytes(),
        command_line: format!("root=/dev/vda{number} ro"),
        ..plain()
    }
}

fn merged(machines: &[Machine]) -> Merged {
    let captures = machines.iter().map(|it| (it.name.clone(), it.capture())).collect();
    merge(captures).expect("captures of one pool")
}

/// Why machines are not admitted.
fn refused(document: &GoldenDocument, machines: &[Machine]) -> Vec<String> {
    let set = reference(document).unwrap_or_else(|problems| panic!("{problems}\n{document:#?}"));
    let findings = |machine: &Machine| {
        machine
            .findings(&set)
            .into_iter()
            .map(|found| format!("{}: {found}", machine.name))
            .collect()
    };
    machines.iter().flat_map(|machine| -> Vec<String> { findings(machine) }).collect()
}

fn noted(merged: &Merged, words: &str) -> bool {
    merged.notes.iter().any(|note| note.contains(words))
}

#[test]
fn one_capture_stays_as_it_is() {
    let machine = Machine::booted("w1", &plain());
    let one = merged(std::slice::from_ref(&machine));
    assert_eq!(one.document, machine.capture());
    assert!(noted(&one, "as it was captured"), "{:?}", one.notes);
}

#[test]
fn what_cannot_be_merged_is_refused() {
    assert_eq!(merge(Vec::new()), Err(MergeError::NoCapture));
    let mut other = empty();
    other.pool = Some("other".into());
    let captures = vec![("a".to_owned(), empty()), ("b".to_owned(), other)];
    assert_eq!(merge(captures), Err(MergeError::OtherPool("b".into())));
    let mut including = empty();
    including.include.push("platform".into());
    let captures = vec![("a".to_owned(), including)];
    assert_eq!(merge(captures), Err(MergeError::NotACapture("a".into())));
    let captures = vec![("a".to_owned(), empty()), ("b".to_owned(), empty())];
    assert_eq!(merge(captures), Err(MergeError::NothingStable));
}

#[test]
fn nodes_that_agree_need_no_group() {
    let machines = ["w1", "w2", "w3"].map(|name| Machine::booted(name, &plain()));
    let all = merged(&machines);
    assert!(all.document.group.is_empty());
    assert_eq!(all.document.pcr.len(), machines[0].capture().pcr.len());
    assert_eq!(refused(&all.document, &machines), Vec::<String>::new());
    assert!(noted(&all, "All 3 nodes meet the same rules"), "{:?}", all.notes);
}

/// Old kernel with old initrd, new with new; with and without the firmware's log.
#[test]
fn kernels_and_initrds_of_two_groups_are_never_mixed() {
    let mixed = Boot { initrd: kernel(2).initrd, ..kernel(1) };
    let two = [("w1", 1), ("w2", 2), ("w3", 1)];
    for with_log in [true, false] {
        let machine = |name: &str, boot: &Boot| {
            let machine = Machine::booted(name, boot);
            if with_log { machine } else { machine.without_log() }
        };
        let machines = two.map(|(name, number)| machine(name, &kernel(number)));
        let both = merged(&machines);
        assert_eq!(both.document.group.len(), 2);
        assert_eq!(refused(&both.document, &machines), Vec::<String>::new());
        let first = both.document.group[0].description.as_deref().expect("a description");
        assert!(first.starts_with("2 nodes (w1, w3): "), "{first}");
        assert!(noted(&both, "2 groups"), "{:?}", both.notes);
        assert_ne!(refused(&both.document, &[machine("mixed", &mixed)]), Vec::<String>::new());
        // PCR 4 of one and PCR 9 and 11 of the other, each of them good by itself.
        for pcrs in [vec![9, 11, 12], vec![11], vec![4]] {
            let other = Machine::booted("other", &kernel(2));
            let values: Vec<_> = pcrs.iter().map(|pcr| (*pcr, other.value(*pcr))).collect();
            let mixed = Machine::new("mixed", Some(&kernel(1)), vec![cc(), ld()], &values);
            let mixed = if with_log { mixed } else { mixed.without_log() };
            assert_ne!(refused(&both.document, &[mixed]), Vec::<String>::new(), "{pcrs:?}");
        }
    }
}

#[test]
fn tools_that_differ_make_groups_and_tools_that_are_missing_do_not() {
    let linker = tool("linker", &[("/usr/bin/lld", b"lld")]);
    let machines = [
        Machine::new("w1", Some(&plain()), vec![cc(), ld()], &[]),
        Machine::new("w2", Some(&plain()), vec![cc(), other_ld()], &[]),
        Machine::new("w3", Some(&plain()), vec![cc(), ld(), linker], &[]),
    ];
    let all = merged(&machines);
    assert_eq!(refused(&all.document, &machines), Vec::<String>::new());
    let groups: Vec<_> = all.document.group.iter().map(|group| group.tool.len()).collect();
    assert_eq!(groups, [1, 1], "{:#?}", all.document.group);
    let in_base: Vec<_> =
        all.document.tool.iter().map(|tool| (tool.name.as_str(), tool.required)).collect();
    assert_eq!(in_base, [("cc", true), ("linker", false)]);
    assert!(noted(&all, "Tool linker is on 1 of 3 nodes"), "{:?}", all.notes);
    // Another state of the tool that some lack is denied everywhere.
    let other = tool("linker", &[("/usr/bin/lld", b"another lld")]);
    let other = Machine::new("w4", Some(&plain()), vec![cc(), ld(), other], &[]);
    assert_ne!(refused(&all.document, &[other]), Vec::<String>::new());
}

/// PCR 6 has something of each machine; by its events where they are known.
#[test]
fn what_differs_node_by_node_is_judged_by_event_or_named() {
    let names = ["w1", "w2", "w3", "w4", "w5"];
    let machines: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let serial = [(6, sha256(name.as_bytes()))];
            Machine::new(name, Some(&kernel(at % 2)), vec![cc(), ld()], &serial)
        })
        .collect();
    let all = merged(&machines);
    assert_eq!(all.document.group.len(), 2);
    assert!(noted(&all, "PCR 6 is not judged: it is unstable"), "{:?}", all.notes);
    assert!(!all.document.pcr.iter().any(|rule| rule.index == 6));
    assert_eq!(refused(&all.document, &machines), Vec::<String>::new());
    // Command lines of each node's own, and no section that has them too.
    let machines: Vec<_> = names
        .iter()
        .map(|name| {
            let command_line = format!("root=UUID={name} ro");
            Machine::booted(name, &Boot { command_line, ..plain() })
        })
        .collect();
    let captures = machines.iter().map(|it| {
        let mut document = it.capture();
        document.pcr.retain(|rule| rule.index != 11);
        (it.name.clone(), document)
    });
    let all = merge(captures.collect()).expect("merged");
    assert!(all.document.group.is_empty(), "{:#?}", all.document.group);
    assert!(noted(&all, "PCR 12 is judged event by event"), "{:?}", all.notes);
    assert!(noted(&all, "command lines are listed"), "{:?}", all.notes);
    assert_eq!(refused(&all.document, &machines), Vec::<String>::new());
}

/// One of two nodes has no log: nothing of what the other booted can be asked of it.
#[test]
fn a_node_without_what_tells_the_others_apart_has_a_group_too() {
    let machines = ["w1", "w2"].map(|name| Machine::booted(name, &plain()));
    let mut captures: Vec<_> = machines.iter().map(|it| (it.name.clone(), it.capture())).collect();
    captures[0].1.boot.tolerate.push(ProblemCode::DebugMode);
    captures[1].1.boot = BootRules::default();
    let both = merge(captures.clone()).expect("merged");
    assert_eq!(both.document.group.len(), 2);
    assert!(both.document.boot == BootRules::default());
    assert!(noted(&both, "Group variant-2 repeats PCR 0 of the base"), "{:?}", both.notes);
    assert_eq!(refused(&both.document, &machines), Vec::<String>::new());
    // With too many kernels for groups, the log is not judged at all, and that is said.
    for at in 0..=MAX_GROUPS {
        let mut other = captures[0].1.clone();
        let value = hex::encode(sha256(&at.to_le_bytes()).as_bytes());
        other
            .pcr
            .iter_mut()
            .filter(|it| it.index == 4)
            .for_each(|it| it.accept[0].value = value.clone());
        captures.push((format!("x{at}"), other));
    }
    let all = merge(captures).expect("merged");
    assert!(all.document.group.is_empty() && all.document.boot == BootRules::default());
    assert!(noted(&all, "captured with it: the firmware's event log"), "{:?}", all.notes);
}

#[test]
fn groups_are_bounded() {
    let base = Machine::booted("w", &plain()).capture();
    let capture = |at: usize, pcr: u8| {
        let mut document = base.clone();
        for rule in document.pcr.iter_mut().filter(|rule| rule.index == pcr) {
            rule.accept[0].value = hex::encode(sha256(&at.to_le_bytes()).as_bytes());
            rule.accept[0].events.clear();
        }
        (format!("w{at}"), document)
    };
    let boots = merge((0..=MAX_GROUPS).map(|at| capture(at, 4)).collect()).expect("merged");
    assert!(boots.document.group.is_empty());
    assert!(noted(&boots, "too many groups even for what the nodes boot"), "{:?}", boots.notes);
    let pcr = boots.document.pcr.iter().find(|rule| rule.index == 4).expect("PCR 4");
    assert_eq!(pcr.accept.len(), MAX_GROUPS + 1);
    let tools = (0..=MAX_GROUPS).map(|at| {
        let mut document = base.clone();
        document.tool[0].accept[0].digest = sha256(&at.to_le_bytes());
        (format!("w{at}"), document)
    });
    let tools = merge(tools.collect()).expect("merged");
    assert!(tools.document.group.is_empty());
    assert!(noted(&tools, "combination of tools"), "{:?}", tools.notes);
    let most = merge((0..MAX_GROUPS).map(|at| capture(at, 4)).collect()).expect("merged");
    assert_eq!(most.document.group.len(), MAX_GROUPS);
}

/// The first oddity, TPM, start: what each node has is accepted for all, and said.
#[test]
fn what_is_not_of_a_group_is_accepted_for_all_and_said() {
    let machines =
        [Machine::booted("w1", &plain()), Machine::booted("w2", &Boot { exit: false, ..plain() })];
    let mut captures: Vec<_> = machines.iter().map(|it| (it.name.clone(), it.capture())).collect();
    captures[0].1.tpm.manufacturers = vec!["id:49465800".into()];
    captures[0].1.tools.deny = vec![sha256(b"bad")];
    captures[0].1.tools.closed = true;
    captures[1].1.tools.start = vec![sha256(b"mok")];
    let all = merge(captures).expect("merged");
    assert_eq!(refused(&all.document, &machines), Vec::<String>::new());
    for words in [
        "1 node (w2) show EXIT_BOOT_SERVICES_MISSING",
        "TPMs of any manufacturer are accepted",
        "1 tool digests are not denied any more",
        "tools that the set does not name are accepted",
    ] {
        assert!(noted(&all, words), "{words}: {:#?}", all.notes);
    }
    assert_eq!(all.document.tools.start, [sha256(b"mok")]);
}

/// A node of chance.
#[derive(Clone, Debug)]
struct Node {
    kernel: usize,
    command_line: bool,
    secure_boot: bool,
    exit: bool,
    with_log: bool,
    tools: usize,
    /// A value of its own in one of these PCRs.
    odd: Option<u8>,
}

fn node() -> impl Strategy<Value = Node> {
    let odd = prop::option::weighted(0.4, prop::sample::select(vec![0, 1, 3, 6, 9, 12]));
    let often = prop::bool::weighted(0.85);
    (0..3_usize, prop::bool::weighted(0.3), often, often, often, 0..4_usize, odd).prop_map(
        |(kernel, command_line, secure_boot, exit, with_log, tools, odd)| Node {
            kernel,
            command_line,
            secure_boot,
            exit,
            with_log,
            tools,
            odd,
        },
    )
}

impl Node {
    fn machine(&self, at: usize) -> Machine {
        let name = format!("w{at}");
        let mut boot = kernel(self.kernel);
        if self.command_line {
            boot.command_line = format!("root=UUID={at} ro");
        }
        boot.secure_boot = u8::from(self.secure_boot);
        boot.exit = self.exit;
        let other: Vec<_> = self.odd.iter().map(|pcr| (*pcr, sha256(name.as_bytes()))).collect();
        let machine = Machine::new(&name, Some(&boot), tools(self.tools), &other);
        if self.with_log { machine } else { machine.without_log() }
    }
}

fn tools(which: usize) -> Vec<ToolMeasurement> {
    match which {
        0 => vec![cc(), ld()],
        1 => vec![cc(), other_ld()],
        2 => vec![cc()],
        _ => vec![cc(), ld(), tool("linker", &[("/usr/bin/lld", b"lld")])],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_captured_node_is_admitted(nodes in prop::collection::vec(node(), 1..8)) {
        let machines: Vec<_> = nodes.iter().enumerate().map(|(at, it)| it.machine(at)).collect();
        let all = merged(&machines);
        prop_assert_eq!(refused(&all.document, &machines), Vec::<String>::new(), "{:#?}", all);
        prop_assert!(!all.notes.is_empty());
    }

    /// Whatever else differs, a kernel is only accepted with the initrd that came with it.
    #[test]
    fn no_mix_of_kernel_and_initrd_is_admitted(
        nodes in prop::collection::vec(node(), 2..6),
        old in 0..6_usize,
        new in 0..6_usize,
    ) {
        let (old, new) = (&nodes[old % nodes.len()], &nodes[new % nodes.len()]);
        prop_assume!(old.kernel != new.kernel);
        let machines: Vec<_> = nodes.iter().enumerate().map(|(at, it)| it.machine(at)).collect();
        let all = merged(&machines);
        let mut boot = Boot { initrd: kernel(new.kernel).initrd, ..kernel(old.kernel) };
        boot.secure_boot = u8::from(old.secure_boot);
        boot.exit = old.exit;
        let mixed = Machine::new("mixed", Some(&boot), tools(old.tools), &[]);
        let mixed = if old.with_log { mixed } else { mixed.without_log() };
        prop_assert_ne!(refused(&all.document, &[mixed]), Vec::<String>::new(), "{:#?}", all);
    }
}
