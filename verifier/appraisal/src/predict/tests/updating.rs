//! The set after an update: what the old state leaves, what others keep.

use super::*;
use crate::policy::document::{AcceptedCommandLine, AcceptedDigest, Group, SectionRule};

const OTHER: Parts<'_> =
    Parts { command_line: "single", initrd: b"other initrd", kernel: b"other" };

fn document() -> GoldenDocument {
    GoldenDocument::new("linux".to_owned(), Some("linux".to_owned()), 1)
}

fn update<'a>(old: Option<&'a [u8]>, new: &'a [u8]) -> Update<'a> {
    Update { what: What::Uki { old, new }, label: "new.efi".to_owned() }
}

/// The set after the new image took the old one's place.
#[track_caller]
fn replaced(document: &GoldenDocument, from: GroupName<'_>) -> GoldenDocument {
    let (old, new) = (image(OLD), image(NEW));
    let updated = updated(document, from, &update(Some(&old), &new), Before::Replaced);
    let updated = updated.expect("a set");
    assert_eq!((updated.gaps, updated.document.version), (Vec::new(), document.version + 1));
    updated.document
}

fn values_in(rules: &[PcrRule], index: u8) -> Vec<String> {
    let found = rules.iter().filter(|rule| (rule.bank, rule.index) == (HashAlg::Sha256, index));
    found.flat_map(|rule| rule.accept.iter().map(|value| value.value.clone())).collect()
}

fn value_of(events: &[Event]) -> String {
    value(HashAlg::Sha256, events)
}

fn application(image: &[u8]) -> AcceptedDigest {
    let digest = Image::parse(image).expect("an image").authenticode(HashAlg::Sha256);
    digest_of("an image", digest)
}

fn hash(bytes: &[u8]) -> AcceptedDigest {
    digest_of("a digest", HashAlg::Sha256.hash(&[bytes]))
}

fn digests(list: &[AcceptedDigest]) -> Vec<String> {
    list.iter().map(|accepted| accepted.digest.to_string()).collect()
}

fn line(text: &str) -> AcceptedCommandLine {
    AcceptedCommandLine::Digest(hash(text.as_bytes()))
}

fn text(text: &str) -> AcceptedCommandLine {
    AcceptedCommandLine::Text { text: text.to_owned() }
}

fn group(name: &str) -> Group {
    let pcr = rules(7, &[vec![event("firmware variable", name)]]);
    Group { name: name.to_owned(), pcr, ..Group::default() }
}

fn digest_of(what: &str, digest: Digest) -> AcceptedDigest {
    AcceptedDigest { digest: digest.into(), what: Some(what.into()) }
}

#[test]
fn groups_that_the_update_is_not_about_keep_what_they_accept() {
    let mut set = document();
    set.pcr = rules(4, &[pcr_4(OLD)]);
    set.pcr.extend(rules(0, &[vec![event("firmware", "1.0")]]));
    set.events = BANKS.map(|bank| event_rule(bank, 9, &pcr_9(OLD))).to_vec();
    set.boot.applications = vec![application(&image(OLD))];
    set.boot.command_lines = vec![line(OLD.command_line)];
    set.boot.sections =
        vec![SectionRule { name: ".initrd".into(), accept: vec![hash(OLD.initrd)] }];
    set.group = vec![group("a"), group("b")];
    let next = replaced(&set, Some("a"));
    assert_eq!(values_in(&next.pcr, 0), values_in(&set.pcr, 0), "nothing of it changes");
    assert_eq!(next.pcr.len(), BANKS.len());
    assert!(next.events.is_empty() && next.boot.is_empty(), "{next:#?}");
    for (at, parts) in [(0, NEW), (1, OLD)] {
        let group = &next.group[at];
        assert_eq!(values_in(&group.pcr, 4), [value_of(&pcr_4(parts))]);
        assert_eq!(values_in(&group.pcr, 7), values_in(&set.group[at].pcr, 7));
        let expected = BANKS.map(|bank| event_rule(bank, 9, &pcr_9(parts)));
        assert_eq!(group.events, expected);
        assert_eq!(digests(&group.boot.applications), digests(&[application(&image(parts))]));
        assert!(rules::is_same_line(&group.boot.command_lines[0], &line(parts.command_line)));
        assert_eq!(digests(&group.boot.sections[0].accept), digests(&[hash(parts.initrd)]));
    }
    // Of one group alone the base holds for nobody else.
    set.group.pop();
    let next = replaced(&set, None);
    assert_eq!(values_in(&next.pcr, 4), [value_of(&pcr_4(NEW))]);
    assert_eq!(next.group, set.group);
}

/// What the base and a group both judge a node had to meet twice: no list of the two accepts more for being moved.
#[test]
fn rules_that_move_into_a_group_narrow_its_own() {
    let mut set = document();
    set.pcr = rules(4, &[pcr_4(OLD), pcr_4(OTHER)]);
    set.boot.applications = vec![application(&image(OLD)), application(&image(OTHER))];
    set.group = vec![group("a"), group("b")];
    set.group[1].pcr.extend(rules(4, &[pcr_4(OTHER), vec![event("separator", [0; 4])]]));
    set.group[1].boot.applications = vec![application(&image(OTHER)), hash(b"a loader")];
    let next = replaced(&set, Some("a"));
    assert_eq!(values_in(&next.group[1].pcr, 4), [value_of(&pcr_4(OTHER))]);
    let other = digests(&[application(&image(OTHER))]);
    assert_eq!(digests(&next.group[1].boot.applications), other);
}

#[test]
fn the_old_image_is_not_accepted_any_more_without_a_record_of_it() {
    let mut set = document();
    let loader = hash(b"a loader");
    set.boot.applications =
        vec![loader.clone(), application(&image(OLD)), application(&image(OTHER))];
    let next = replaced(&set, None);
    let expected = [loader, application(&image(OTHER)), application(&image(NEW))];
    assert_eq!(digests(&next.boot.applications), digests(&expected));
    // By event nothing is recorded of values either.
    set.events = BANKS.map(|bank| event_rule(bank, 4, &pcr_4(OLD))).to_vec();
    let next = replaced(&set, None);
    assert_eq!(digests(&next.boot.applications), digests(&expected));
    // Where the new one was accepted already, the old one goes all the same.
    set.boot.applications.push(application(&image(NEW)));
    let next = replaced(&set, None);
    assert_eq!(digests(&next.boot.applications), digests(&expected));
}

#[test]
fn entries_of_others_stay_beside_the_new_ones() {
    let pattern = AcceptedCommandLine::Pattern { pattern: "root=* ro".into() };
    let mut set = document();
    set.pcr = rules(4, &[pcr_4(OLD), pcr_4(OTHER)]);
    set.boot.command_lines = vec![line("single"), line("quiet"), pattern.clone(), text("quiet")];
    let initrds = vec![hash(OTHER.initrd), hash(OLD.initrd)];
    set.boot.sections = vec![SectionRule { name: ".initrd".into(), accept: initrds.clone() }];
    let next = replaced(&set, None);
    assert_eq!(values_in(&next.pcr, 4), [value_of(&pcr_4(OTHER)), value_of(&pcr_4(NEW))]);
    let lines = &next.boot.command_lines;
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[..2], [line("single"), pattern]);
    assert!(rules::is_same_line(&lines[2], &line("debug")));
    let expected = [hash(OTHER.initrd), hash(NEW.initrd)];
    assert_eq!(digests(&next.boot.sections[0].accept), digests(&expected));
    // Without the old image nobody says which of them goes: that is told.
    set.pcr.clear();
    set.boot.command_lines = vec![line("single"), line("quiet")];
    let new = image(NEW);
    let updated = updated(&set, None, &update(None, &new), Before::Replaced).expect("a set");
    assert_eq!(updated.document.boot.command_lines.len(), 3);
    assert_eq!(updated.document.boot.sections[0].accept.len(), 3);
    let told: Vec<_> = updated.notes.iter().filter(|note| note.starts_with("boot.")).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("boot.command_lines: which entry is the old artifact's"));
    assert!(told[1].starts_with("boot.sections (.initrd): which entry is the old artifact's"));
    // Where there is one of the kind, it is that.
    set.boot.command_lines = vec![text("single"), line("quiet")];
    set.boot.sections[0].accept.remove(0);
    let updated = super::updated(&set, None, &update(None, &new), Before::Replaced);
    let updated = updated.expect("a set");
    let lines = &updated.document.boot.command_lines;
    assert_eq!((lines.len(), &lines[0]), (2, &text("single")));
    assert_eq!(digests(&updated.document.boot.sections[0].accept), digests(&[hash(NEW.initrd)]));
    assert_eq!(updated.notes.iter().filter(|note| note.starts_with("boot.")).count(), 0);
}

/// Texts are those of options that a boot loader handed over.
#[test]
fn the_text_of_the_old_kernel_alone_is_replaced() {
    let (old_file, new_file) = (kernel_image(OLD).build(), kernel_image(NEW).build());
    let kernel = |image, command_line| Kernel { image, initrd: None, command_line };
    let mut set = document();
    set.boot.command_lines = vec![text("single"), text("quiet")];
    let update = Update {
        what: What::Kernel {
            old: Some(kernel(&old_file, "quiet")),
            new: kernel(&new_file, "debug"),
        },
        label: "vmlinuz".to_owned(),
    };
    let updated = updated(&set, None, &update, Before::Replaced).expect("a set");
    assert_eq!(updated.document.boot.command_lines, [text("single"), text("debug")]);
}

#[test]
fn the_old_state_stays_as_a_group_and_the_new_one_is_itself_alone() {
    let mut set = document();
    set.pcr = rules(4, &[pcr_4(OLD), pcr_4(OTHER)]);
    let (old, new) = (image(OLD), image(NEW));
    let before = Before::Kept { old: "old", new: "new" };
    let updated = updated(&set, None, &update(Some(&old), &new), before).expect("a set");
    let next = updated.document;
    assert_eq!(
        next.group.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(),
        ["old", "new"]
    );
    assert!(next.pcr.is_empty());
    assert_eq!(values_in(&next.group[0].pcr, 4), [value_of(&pcr_4(OLD)), value_of(&pcr_4(OTHER))]);
    assert_eq!(values_in(&next.group[1].pcr, 4), [value_of(&pcr_4(NEW))]);
}

#[test]
fn values_say_once_where_they_come_from_and_who_put_them_there() {
    let mut set = document();
    set.pcr = rules(4, &[pcr_4(OLD), pcr_4(OTHER)]);
    let captured = set.pcr[0].accept[1].clone();
    let (old, new) = (image(OLD), image(NEW));
    let provenance = Provenance { by: Some("ann"), at: Some("2027-01-15T08:00:00Z") };
    for (label, from) in
        [("new.efi", "predicted: new.efi"), ("predicted from new.efi", "predicted from new.efi")]
    {
        let update = Update { label: label.to_owned(), ..update(Some(&old), &new) };
        let updated = updated_by(&set, None, &update, Before::Replaced, provenance).expect("a set");
        let accept = &updated.document.pcr[0].accept;
        assert_eq!(accept[0], captured, "of another image");
        let said = (accept[1].from.as_deref(), accept[1].by.as_deref(), accept[1].at.as_deref());
        assert_eq!(said, (Some(from), provenance.by, provenance.at));
    }
}

#[test]
fn rules_about_what_booted_gain_the_new_image_and_empty_ones_stay_empty() {
    let (old, new) = (image(OLD), image(NEW));
    let application =
        |image: &[u8]| Image::parse(image).expect("an image").authenticode(HashAlg::Sha256);
    let hash = |bytes: &[u8]| HashAlg::Sha256.hash(&[bytes]);
    let line = |text: &str| AcceptedCommandLine::Digest(digest_of(text, hash(text.as_bytes())));
    let rule = |name: &str, what: &str, bytes: &[u8]| SectionRule {
        name: name.into(),
        accept: vec![digest_of(what, hash(bytes))],
    };
    let mut base = Base::values(4, &[pcr_4(OLD)]);
    assert_eq!(base.update(&old, &new).boot, BootRules::default());
    base.boot = BootRules {
        applications: vec![digest_of("\\A.EFI", application(&old))],
        command_lines: vec![line("quiet")],
        sections: vec![rule(".initrd", "old", OLD.initrd), rule(".osrel", "old", b"ID=test")],
        ..BootRules::default()
    };
    let expected = BootRules {
        applications: vec![digest_of("\\A.EFI", application(&new))],
        command_lines: vec![line("debug")],
        sections: vec![rule(".initrd", "new.efi", NEW.initrd)],
        ..BootRules::default()
    };
    assert_eq!(base.update(&old, &new).boot, expected);
}
