//! Documents and changes to them, by chance.
//!
//! Every change turns something over that is there or not, in a small world in which some machine has it: so that many
//! documents admit somebody.

use std::collections::BTreeMap;

use appraisal::{
    boot_log::ProblemCode,
    policy::document::{
        AcceptedCommandLine, AcceptedDigest, AcceptedEvent, AcceptedTool, AcceptedValue, BootRules,
        EventRule, GoldenDocument, Group, PcrRule, SectionRule, ToolRule,
    },
};
use proptest::prelude::*;
use proto::{
    digest::{Digest, HashAlg},
    eventlog::{LogDigest, text::to_utf16},
};

use crate::{
    log_support::certificate,
    machine::empty,
    site::{cc, ld, sha256},
};

/// What changes, and which of its kind.
pub type Change = (usize, usize);

pub fn change() -> impl Strategy<Value = Change> {
    (0..KINDS, 0..12_usize)
}

/// Kinds of changes that meet each other: where one decides what another does.
const THEMES: [&[usize]; 6] = [
    &[4, 5, 17, 18, 19],
    &[2, 3],
    &[0, 1, 2],
    &[6, 7, 8, 9, 10, 11, 12, 13],
    &[14, 15, 16],
    &[20, 21, 22],
];

/// Changes of one theme: some to begin with, then some more.
pub fn of_one_theme() -> impl Strategy<Value = (Vec<Change>, Vec<Change>)> {
    prop::sample::select(THEMES.to_vec()).prop_flat_map(|kinds| {
        let changes = |most| {
            prop::collection::vec((prop::sample::select(kinds.to_vec()), 0..12_usize), 0..most)
        };
        (changes(5), changes(4))
    })
}

/// What captures of the machines have: values to turn over.
pub struct World {
    pub captures: Vec<GoldenDocument>,
}

struct Place<'d> {
    boot: &'d mut BootRules,
    pcr: &'d mut Vec<PcrRule>,
    events: &'d mut Vec<EventRule>,
    tool: &'d mut Vec<ToolRule>,
}

const KINDS: usize = 24;

impl World {
    /// A document of some changes to one that only names a PCR.
    pub fn document(&self, changes: &[Change]) -> GoldenDocument {
        let mut out = empty();
        out.pcr.push(self.captures[0].pcr[0].clone());
        for change in changes {
            self.apply(&mut out, *change);
        }
        out
    }

    /// Makes one change; the document is another one after it.
    pub fn apply(&self, document: &mut GoldenDocument, (kind, which): Change) {
        match kind {
            0..=13 => self.rule(&mut place(document), kind, which),
            14..=16 => self.group(document, kind, which),
            17 => document.tools.closed = !document.tools.closed,
            18 => toggle(&mut document.tools.deny, tool(which).digest()),
            19 => toggle(&mut document.tools.start, sha256(&[u8::from(which < 6)])),
            20 => {
                let ids = ["id:49465800", "id:4D534654"];
                toggle(&mut document.tpm.manufacturers, ids[which % 2].to_owned());
            }
            21 => {
                let id = ["*", "id:49465800", "id:4d534654"][which % 3].to_owned();
                let floors = &mut document.tpm.firmware_floor;
                if floors.remove(&id).is_none() {
                    floors.insert(id, format!("{:016x}", (which / 3) << 48));
                }
            }
            22 => document.tpm.require_safe_clock = !document.tpm.require_safe_clock,
            _ => match which % 3 {
                0 => document.version += 1,
                1 => document.description = Some(format!("{:?}", document.description)),
                _ => document.pcr.iter_mut().take(1).for_each(|rule| {
                    rule.accept.iter_mut().for_each(|value| {
                        value.value = value.value.to_ascii_uppercase();
                    });
                    document.version += 1;
                }),
            },
        }
    }

    fn group(&self, document: &mut GoldenDocument, kind: usize, which: usize) {
        let name = format!("g{}", which % 2);
        let known = document.group.iter().position(|group| group.name == name);
        match (kind, known) {
            (14, Some(at)) if which < 6 => {
                document.group.remove(at);
            }
            (15, Some(at)) => document.group[at].name = format!("g{}", 2 + which % 3),
            (_, Some(at)) => {
                let group = &mut document.group[at];
                let mut place = Place {
                    boot: &mut group.boot,
                    pcr: &mut group.pcr,
                    events: &mut group.events,
                    tool: &mut group.tool,
                };
                self.rule(&mut place, which % 5, which);
            }
            (_, None) => {
                let capture = &self.captures[which % self.captures.len()];
                let pcr = capture.pcr.iter().filter(|rule| rule.index == 4).cloned().collect();
                document.group.push(Group { name, pcr, ..Group::default() });
            }
        }
    }

    fn rule(&self, place: &mut Place<'_>, kind: usize, which: usize) {
        let capture = &self.captures[which % self.captures.len()];
        match kind {
            // A PCR by value, and one more value of it.
            0 | 1 => {
                let index = [0, 2, 4, 7, 11, 12][which % 6];
                let Some(rule) = capture.pcr.iter().find(|rule| rule.index == index) else {
                    return place.boot.secure_boot = next(place.boot.secure_boot);
                };
                let known = place.pcr.iter().position(|rule| rule.index == index);
                match (kind, known) {
                    (0, Some(at)) => drop(place.pcr.remove(at)),
                    (_, None) => place.pcr.push(rule.clone()),
                    (_, Some(at)) => toggle_value(&mut place.pcr[at].accept, &rule.accept[0]),
                }
            }
            2 | 3 => self.event(place, kind, which),
            4 => toggle_tool(place.tool, which),
            5 => {
                let name = if which.is_multiple_of(2) { "cc" } else { "ld" };
                match place.tool.iter_mut().find(|rule| rule.name == name) {
                    Some(rule) => rule.required = !rule.required,
                    None => toggle_tool(place.tool, which),
                }
            }
            6 => {
                let files = [b"shim".as_slice(), b"kernel", b"kernel 2"];
                toggle(&mut place.boot.applications, accepted(files[which % 3]));
            }
            7 => toggle(&mut place.boot.command_lines, line(which)),
            8 => {
                let (name, content) = [
                    (".linux", b"kernel".as_slice()),
                    (".linux", b"kernel 2"),
                    (".initrd", b"initrd"),
                    (".initrd", b"initrd 2"),
                ][which % 4];
                toggle_section(&mut place.boot.sections, name, accepted(content));
            }
            9 => place.boot.secure_boot = next(place.boot.secure_boot),
            10 => {
                let keys = &mut place.boot.keys;
                let list = match which % 3 {
                    0 => &mut keys.pk,
                    1 => &mut keys.kek,
                    _ => &mut keys.db,
                };
                let key = if which < 6 { certificate() } else { b"another".to_vec() };
                toggle(list, accepted(&key));
            }
            11 => {
                let entry = if which < 6 { which % 3 } else { 77 };
                toggle(&mut place.boot.keys.dbx, accepted(&entry.to_le_bytes()));
            }
            12 => {
                let key = if which < 6 { certificate() } else { b"another".to_vec() };
                toggle(&mut place.boot.signers, accepted(&key));
            }
            _ => {
                let codes = [ProblemCode::ExitBootServicesMissing, ProblemCode::DebugMode];
                toggle(&mut place.boot.tolerate, codes[which % 2]);
            }
        }
    }

    fn event(&self, place: &mut Place<'_>, kind: usize, which: usize) {
        let index = [1, 5, 9][which % 3];
        let of = |capture: &GoldenDocument| {
            capture.events.iter().find(|rule| rule.index == index).cloned().expect("captured")
        };
        let rule = of(&self.captures[which % 2]);
        let known = place.events.iter().position(|rule| rule.index == index);
        match (kind, known) {
            (2, Some(at)) if which < 4 => drop(place.events.remove(at)),
            (_, None) => place.events.push(rule),
            (2, Some(at)) => {
                let event = rule.accept[which % rule.accept.len()].clone();
                toggle_event(&mut place.events[at].accept, event);
            }
            (_, Some(at)) => {
                let accept = &mut place.events[at].accept;
                match accept.len() {
                    0 => accept.push(rule.accept[0].clone()),
                    many => accept[which % many].required = !accept[which % many].required,
                }
            }
        }
    }
}

fn place(document: &mut GoldenDocument) -> Place<'_> {
    Place {
        boot: &mut document.boot,
        pcr: &mut document.pcr,
        events: &mut document.events,
        tool: &mut document.tool,
    }
}

const fn next(state: Option<bool>) -> Option<bool> {
    match state {
        None => Some(true),
        Some(true) => Some(false),
        Some(false) => None,
    }
}

fn toggle<T: PartialEq>(list: &mut Vec<T>, entry: T) {
    match list.iter().position(|known| *known == entry) {
        Some(at) => drop(list.remove(at)),
        None => list.push(entry),
    }
}

fn toggle_value(list: &mut Vec<AcceptedValue>, value: &AcceptedValue) {
    match list.iter().position(|known| known.value.eq_ignore_ascii_case(&value.value)) {
        Some(at) => drop(list.remove(at)),
        None => list.push(value.clone()),
    }
}

fn toggle_event(list: &mut Vec<AcceptedEvent>, event: AcceptedEvent) {
    match list.iter().position(|known| known.digest == event.digest) {
        Some(at) => drop(list.remove(at)),
        None => list.push(event),
    }
}

fn toggle_section(sections: &mut Vec<SectionRule>, name: &str, content: AcceptedDigest) {
    match sections.iter_mut().find(|section| section.name == name) {
        None => sections.push(SectionRule { name: name.to_owned(), accept: vec![content] }),
        Some(section) => toggle(&mut section.accept, content),
    }
    sections.retain(|section| !section.accept.is_empty());
}

fn toggle_tool(rules: &mut Vec<ToolRule>, which: usize) {
    let tool = tool(which);
    let state = AcceptedTool {
        digest: tool.digest(),
        version: None,
        purl: None,
        from: None,
        files: BTreeMap::new(),
    };
    match rules.iter_mut().find(|rule| rule.name == tool.name()) {
        None => {
            let required = which < 6;
            rules.push(ToolRule { name: tool.name().to_owned(), required, accept: vec![state] });
        }
        Some(rule) => toggle(&mut rule.accept, state),
    }
    rules.retain(|rule| !rule.accept.is_empty());
}

fn tool(which: usize) -> proto::tool_log::ToolMeasurement {
    match which % 3 {
        0 => cc(),
        1 => ld(),
        _ => other_ld(),
    }
}

/// Another build of the linker.
pub fn other_ld() -> proto::tool_log::ToolMeasurement {
    crate::site::tool("ld", &[("/usr/bin/ld", b"another linker")])
}

fn line(which: usize) -> AcceptedCommandLine {
    let text = "root=/dev/vda2 ro lockdown=integrity";
    match which % 6 {
        0 => AcceptedCommandLine::Text { text: text.to_owned() },
        1 => AcceptedCommandLine::Text { text: "root=/dev/vda3 ro".to_owned() },
        2 => AcceptedCommandLine::Pattern { pattern: "root=/dev/* ro".to_owned() },
        3 => AcceptedCommandLine::Pattern { pattern: "root=* ro lockdown=*".to_owned() },
        4 => AcceptedCommandLine::Digest(accepted(text.as_bytes())),
        _ => AcceptedCommandLine::Digest(accepted(&to_utf16(&format!("{text}\0")))),
    }
}

pub fn accepted(content: &[u8]) -> AcceptedDigest {
    AcceptedDigest { digest: log_digest(&sha256(content)), what: None }
}

pub fn log_digest(digest: &Digest) -> LogDigest {
    assert_eq!(digest.alg(), HashAlg::Sha256);
    digest.to_string().parse().expect("a digest")
}
