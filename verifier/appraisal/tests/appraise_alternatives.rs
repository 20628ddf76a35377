//! Several sets, groups and parts: what belongs together is never mixed, and no set turns away what another accepts.

mod site;

use std::sync::{Arc, LazyLock};

use appraisal::{
    Appraisal, StagedOutcome,
    context::{Expected, Signer},
    policy::{GoldenSet, Manifests, ReferenceValues, Unresolved, site::SitePolicy},
    verdict::Verdict,
};
use proptest::prelude::*;
use proto::{digest::HashAlg, digest::PcrIndex, reason::ReasonCode};
use site::{POOL, Site, admitted, evidence, tool_pcr};

static SITE: LazyLock<Site> = LazyLock::new(Site::new);

/// The value that the worker has in a PCR.
fn good(pcr: u8) -> String {
    let index = PcrIndex::new(pcr).expect("a PCR");
    hex::encode(SITE.tpm.pcrs[&(HashAlg::Sha256, index)].as_bytes())
}

const BAD: &str = "abababababababababababababababababababababababababababababababab";

fn rule(table: &str, pcr: u8, values: &[&str]) -> String {
    let accept: Vec<_> = values.iter().map(|value| format!("{{ value = \"{value}\" }}")).collect();
    format!("[[{table}]]\nbank = \"sha256\"\nindex = {pcr}\naccept = [{}]\n", accept.join(", "))
}

fn head(name: &str, version: u64, more: &str) -> String {
    format!("schema = \"assay.golden/v1\"\nname = \"{name}\"\nversion = {version}\n{more}\n")
}

fn pool_head(name: &str, version: u64, more: &str) -> String {
    head(name, version, &format!("pool = \"{POOL}\"\n{more}"))
}

fn set(text: &str) -> Arc<GoldenSet> {
    Arc::new(GoldenSet::parse(text, tool_pcr(), &Manifests::new()).expect("a golden set"))
}

fn problems(text: &str) -> Vec<String> {
    let parsed = GoldenSet::parse(text, tool_pcr(), &Manifests::new());
    parsed.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn resolve(sets: &[&Arc<GoldenSet>]) -> (Option<ReferenceValues>, Vec<Unresolved>) {
    let sets: Vec<_> = sets.iter().map(|set| Arc::clone(set)).collect();
    let (pool, parts): (Vec<_>, Vec<_>) = sets.into_iter().partition(|set| set.pool().is_some());
    ReferenceValues::resolve(POOL, &pool, &parts)
}

fn judge(in_force: Option<&ReferenceValues>, staged: Option<&ReferenceValues>) -> Appraisal {
    let mut context = SITE.context();
    context.in_force = Expected { reference: in_force, ..Expected::default() };
    context.staged =
        staged.map(|staged| Expected { reference: Some(staged), ..Expected::default() });
    appraisal::appraise(&evidence(&SITE.answer()), SITE.activating(), &context)
}

fn is_admitted(sets: &[&Arc<GoldenSet>]) -> bool {
    matches!(judge(resolve(sets).0.as_ref(), None).verdict, Verdict::Admit(_))
}

fn codes(appraisal: &Appraisal) -> Vec<(ReasonCode, String)> {
    match &appraisal.verdict {
        Verdict::Admit(_) => Vec::new(),
        Verdict::Deny(denial) => {
            denial.findings().map(|finding| (finding.code, finding.subject.clone())).collect()
        }
    }
}

/// Two groups: the worker's PCR 4 stands in one, its PCR 11 in the other.
#[test]
fn groups_are_never_mixed() {
    let mixed = pool_head("linux", 1, "")
        + "[[group]]\nname = \"old\"\n"
        + &rule("group.pcr", 4, &[&good(4)])
        + &rule("group.pcr", 11, &[BAD])
        + "[[group]]\nname = \"new\"\n"
        + &rule("group.pcr", 4, &[BAD])
        + &rule("group.pcr", 11, &[&good(11)]);
    let (values, _) = resolve(&[&set(&mixed)]);
    let appraisal = judge(values.as_ref(), None);
    assert_eq!(codes(&appraisal), [(ReasonCode::PolicyPcrNotAllowed, "PCR 11 (sha256)".into())]);
    assert_eq!(appraisal.judged_by, "linux@1#old", "the first of two that are equally near");
    let whole = mixed.replacen(BAD, &good(11), 1);
    let (values, _) = resolve(&[&set(&whole)]);
    let appraisal = judge(values.as_ref(), None);
    let Verdict::Admit(admission) = appraisal.verdict else { panic!("denied") };
    assert_eq!(admission.grant().policy_version, "linux@1#old");
}

/// The base holds whatever the group says.
#[test]
fn a_group_adds_rules_and_takes_none_away() {
    let text = pool_head("linux", 1, "")
        + &rule("pcr", 0, &[BAD])
        + "[[group]]\nname = \"a\"\n"
        + &rule("group.pcr", 0, &[&good(0)]);
    let (values, _) = resolve(&[&set(&text)]);
    let appraisal = judge(values.as_ref(), None);
    assert_eq!(codes(&appraisal), [(ReasonCode::PolicyPcrNotAllowed, "PCR 0 (sha256)".into())]);
}

#[test]
fn parts_are_met_in_one_of_their_active_versions() {
    let linux = set(&(pool_head("linux", 3, "include = [\"platform\", \"tools\"]")
        + &rule("pcr", 4, &[&good(4)])));
    let platform =
        |version, value: &str| set(&(head("platform", version, "") + &rule("pcr", 0, &[value])));
    let tools = set(&head("tools", 1, "[tools]\nclosed = false"));
    let (old, new) = (platform(1, BAD), platform(2, &good(0)));
    assert!(!is_admitted(&[&linux, &old, &tools]));
    assert!(is_admitted(&[&linux, &new, &tools]));
    assert!(is_admitted(&[&linux, &old, &new, &tools]), "while the fleet moves both are good");
    let (values, _) = resolve(&[&linux, &old, &new, &tools]);
    let appraisal = judge(values.as_ref(), None);
    assert_eq!(appraisal.judged_by, "linux@3 + platform@2 + tools@1");
    // A part that is missing never widens.
    let (values, unresolved) = resolve(&[&linux, &new]);
    assert!(values.is_none());
    assert!(unresolved[0].to_string().contains("\"tools\""), "{unresolved:?}");
    assert_eq!(codes(&judge(None, None))[0].0, ReasonCode::PolicyNoReferenceValues);
}

/// A policy of these rules.
fn policy(rules: &[(&str, &str)]) -> SitePolicy {
    let rules: String = rules
        .iter()
        .map(|(name, expr)| {
            format!("[[rule]]\nname = {name:?}\nmessage = \"m\"\nexpr = '{expr}'\n")
        })
        .collect();
    let text = format!("schema = \"assay.policy/v1\"\nname = \"p\"\nversion = 1\n{rules}");
    SitePolicy::parse(&text).expect("a policy")
}

/// Who lacks evidence for a golden set is not held to rules for what only that evidence brings.
#[test]
fn rules_over_what_was_not_asked_for_are_left_open() {
    let mut site = Site::new();
    let honest = site.golden_text(&[(HashAlg::Sha256, site::set(&site::PCRS))]);
    let other = format!(
        "[[pcr]]\nbank = \"sha384\"\nindex = 13\naccept = [{{ value = \"{}\" }}]\n",
        "5a".repeat(48)
    );
    site.golden = Some(site::golden(&(honest + &other)));
    let lacking = |site: &mut Site, rules: &[(&str, &str)]| {
        site.policies = vec![Arc::new(policy(rules))];
        let appraisal = site.judge(&site::evidence(&site.answer()), site.activating());
        let found: Vec<_> =
            appraisal.lacking.iter().map(|finding| finding.subject.clone()).collect();
        let denied = site::denied(appraisal);
        assert_eq!(denied.findings().count(), 1 + rules.len(), "{denied:?}");
        found
    };
    let pcr = "PCR 13 (sha384)";
    let open = [
        ("a", "boot.secure_boot"),
        ("b", "pcrs.sha384[\"13\"] == \"00\""),
        ("c", "boot.debug_mode || node.pool == \"lab\""),
        ("d", "has(pcrs.sha384)"),
    ];
    assert_eq!(lacking(&mut site, &open), [pcr]);
    // No evidence changes these.
    let stands = [
        ("e", "tpm.model == \"x\""),
        ("f", "node.pool == \"lab\""),
        ("g", "has(tpm.model)"),
        ("h", "ima.violations == 0"),
    ];
    let told = [pcr, "rule p/e", "rule p/h", "rule p/f", "rule p/g"];
    assert_eq!(lacking(&mut site, &stands), told);
}

/// A part may demand nothing: it is met by everybody, and takes no rule of the set away.
#[test]
fn a_part_without_rules_demands_nothing() {
    let linux = |value: &str| {
        set(&(pool_head("linux", 1, "include = [\"tools\"]") + &rule("pcr", 4, &[value])))
    };
    let tools = set(&head("tools", 1, ""));
    assert_eq!(tools.pool(), None);
    assert!(is_admitted(&[&linux(&good(4)), &tools]));
    assert!(!is_admitted(&[&linux(BAD), &tools]));
    // A set that leaves the PCRs to such a part lists none.
    let nothing = set(&pool_head("linux", 1, "include = [\"tools\"]"));
    let (values, unresolved) = resolve(&[&nothing, &tools]);
    assert!(values.is_none());
    assert_eq!(
        unresolved[0].what,
        "one of its alternatives lists no PCR: everything would be accepted"
    );
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let pcr = rule("pcr", 0, &[BAD]);
    for (text, at) in [
        (head("part", 1, "include = [\"other\"]") + &pcr, "include"),
        (pool_head("linux", 1, "include = [\"linux\"]") + &pcr, "include[0]"),
        (pool_head("linux", 1, "include = [\"a\", \"a\"]") + &pcr, "include[1]"),
        (pool_head("linux", 1, "include = [\"A\"]") + &pcr, "include[0]"),
        (pool_head("linux", 1, "") + &pcr + "[[group]]\nname = \"empty\"\n", "group[0]"),
        (
            pool_head("linux", 1, "")
                + &["a", "a"]
                    .map(|name| {
                        format!("[[group]]\nname = \"{name}\"\n{}", rule("group.pcr", 4, &[BAD]))
                    })
                    .concat(),
            "group[1]",
        ),
        (
            pool_head("linux", 1, "")
                + "[[group]]\nname = \"a\"\n"
                + &rule("group.pcr", 10, &[BAD]),
            "group[0].pcr[0].index",
        ),
        (
            pool_head("linux", 1, "")
                + "[[group]]\nname = \"a\"\n[group.boot]\nsecure_boot = true\n",
            "pcr",
        ),
        (
            pool_head("linux", 1, "") + &pcr + "[boot]\ncommand_lines = [{ pattern = \"ro *\" }]\n",
            "boot.command_lines[0].pattern",
        ),
        (
            pool_head("linux", 1, "")
                + &pcr
                + "[boot]\ncommand_lines = [{ pattern = \"ro in*=/dev/vda\" }]\n",
            "boot.command_lines[0].pattern",
        ),
    ] {
        let found = problems(&text);
        assert!(
            found.iter().any(|problem| problem.starts_with(&format!("{at}: "))),
            "{at}: {found:?}"
        );
    }
    let includes: Vec<_> = (0..9).map(|n| format!("\"p{n}\"")).collect();
    let many = pool_head("linux", 1, &format!("include = [{}]", includes.join(", "))) + &pcr;
    assert!(problems(&many)[0].starts_with("include: 9 parts"), "{:?}", problems(&many));
}

/// Eight parts of two groups each are 256 ways; one more is refused rather than judged for ever.
#[test]
fn alternatives_are_bounded() {
    let names: Vec<String> = (0..8).map(|n| format!("p{n}")).collect();
    let include = format!(
        "include = [{}]",
        names.iter().map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ")
    );
    let linux = set(&(pool_head("linux", 1, &include) + &rule("pcr", 4, &[&good(4)])));
    let part = |name: &str, groups: usize| {
        let groups: String = (0..groups)
            .map(|n| format!("[[group]]\nname = \"g{n}\"\n{}", rule("group.pcr", 0, &[&good(0)])))
            .collect();
        set(&(head(name, 1, "") + &groups))
    };
    let mut all = vec![linux];
    all.extend(names.iter().map(|name| part(name, 2)));
    assert_eq!(
        resolve(&all.iter().collect::<Vec<_>>()).0.expect("within the bound").labels().count(),
        256
    );
    all[1] = part("p0", 3);
    let (values, unresolved) = resolve(&all.iter().collect::<Vec<_>>());
    assert!(values.is_none() && unresolved[0].what.contains("256 alternatives"), "{unresolved:?}");
}

/// A bank that only one set reads, which a TPM may not have: everybody is asked for it, and only that set misses it.
#[test]
fn a_set_asks_for_a_bank_and_turns_nobody_away_who_meets_another() {
    let mine = set(&(pool_head("a", 1, "") + &rule("pcr", 4, &[&good(4)])));
    let zeros = "ab".repeat(48);
    let other = set(&(pool_head("b", 1, "")
        + &format!(
            "[[pcr]]\nbank = \"sha384\"\nindex = 4\naccept = [{{ value = \"{zeros}\" }}]\n"
        )));
    let (both, _) = resolve(&[&mine, &other]);
    let both = both.expect("values");
    assert_eq!(both.selection().iter().count(), 2);
    assert_eq!(both.required_selection().iter().count(), 0);
    let alone = resolve(&[&other]).0.expect("values");
    assert_eq!(alone.required_selection(), alone.selection());
    // This TPM quotes SHA-256 alone.
    assert!(matches!(judge(Some(&both), None).verdict, Verdict::Admit(_)));
    let missed = codes(&judge(Some(&alone), None));
    assert_eq!(missed, [(ReasonCode::PcrSelectionIncomplete, "PCR 4 (sha384)".into())]);
    // Staged, it says so and takes nothing away.
    let staged = judge(resolve(&[&mine]).0.as_ref(), Some(&both));
    assert!(matches!(staged.verdict, Verdict::Admit(_)));
}

#[test]
fn what_is_staged_is_judged_and_never_enforced() {
    let bad = set(&(pool_head("linux", 1, "") + &rule("pcr", 4, &[BAD])));
    let good = set(&(pool_head("linux", 2, "") + &rule("pcr", 4, &[&good(4)])));
    let (bad, good) = (resolve(&[&bad]).0, resolve(&[&good]).0);
    let denied = judge(bad.as_ref(), good.as_ref());
    assert!(matches!(denied.verdict, Verdict::Deny(_)));
    let staged = StagedOutcome { judged_by: "linux@2".into(), findings: Vec::new() };
    assert_eq!(denied.staged, Some(staged));
    let admitted = judge(good.as_ref(), bad.as_ref());
    assert!(matches!(admitted.verdict, Verdict::Admit(_)));
    assert_eq!(admitted.staged.expect("staged").findings[0].code, ReasonCode::PolicyPcrNotAllowed);
}

/// The digest that certificates carry depends on what is judged by, not on the order of reading.
#[test]
fn the_digest_is_over_every_document() {
    let set = |name: &str, version| set(&(pool_head(name, version, "") + &rule("pcr", 4, &[BAD])));
    let (a, b, c) = (set("a", 1), set("b", 1), set("b", 2));
    let digest = |sets: &[&Arc<GoldenSet>]| *resolve(sets).0.expect("values").digest();
    assert_eq!(digest(&[&a, &b]), digest(&[&b, &a]));
    let all = [digest(&[&a]), digest(&[&b]), digest(&[&c]), digest(&[&a, &b]), digest(&[&a, &c])];
    for (at, one) in all.iter().enumerate() {
        assert!(!all[..at].contains(one));
    }
}

#[test]
fn a_renewal_is_judged_by_every_alternative_too() {
    let bad = set(&(pool_head("linux", 1, "") + &rule("pcr", 4, &[BAD])));
    let good = set(&(pool_head("linux", 2, "") + &rule("pcr", 4, &[&good(4)])));
    let (values, _) = resolve(&[&bad, &good]);
    let boot = SITE.enrol().boot;
    let mut context = SITE.context();
    context.in_force = Expected { reference: values.as_ref(), ..Expected::default() };
    let answer = SITE.renewal(&boot);
    admitted(appraisal::appraise(&evidence(&answer), Signer::Known(boot), &context));
}

/// A document of random rules over four PCRs.
#[derive(Clone, Debug)]
struct Random {
    base: Vec<(u8, bool)>,
    groups: Vec<Vec<(u8, bool)>>,
}

impl Random {
    fn set(&self, name: &str) -> Option<Arc<GoldenSet>> {
        let of = |table: &str, rules: &[(u8, bool)]| -> String {
            let mut seen = Vec::new();
            let mut text = String::new();
            for (pcr, is_good) in rules {
                if !seen.contains(pcr) {
                    seen.push(*pcr);
                    let value = if *is_good { good(*pcr) } else { BAD.to_owned() };
                    text += &rule(table, *pcr, &[&value]);
                }
            }
            text
        };
        let mut text = pool_head(name, 1, "") + &of("pcr", &self.base);
        for (at, group) in self.groups.iter().enumerate() {
            text += &format!("[[group]]\nname = \"g{at}\"\n{}", of("group.pcr", group));
        }
        GoldenSet::parse(&text, tool_pcr(), &Manifests::new()).ok().map(Arc::new)
    }
}

fn rules(least: usize) -> impl Strategy<Value = Vec<(u8, bool)>> {
    prop::collection::vec((0_u8..4, prop::bool::weighted(0.75)), least..4)
}

fn random() -> impl Strategy<Value = Random> {
    (rules(0), prop::collection::vec(rules(1), 0..3))
        .prop_map(|(base, groups)| Random { base, groups })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Two sets in one pool accept what either accepts, nothing more and nothing less.
    #[test]
    fn a_union_admits_exactly_what_either_admits(a in random(), b in random()) {
        if let (Some(a), Some(b)) = (a.set("a"), b.set("b")) {
            prop_assert_eq!(is_admitted(&[&a, &b]), is_admitted(&[&a]) || is_admitted(&[&b]));
        }
    }

    /// A rule more, in the base or in every group, or a part more, never lets a node in that was out.
    #[test]
    fn a_rule_more_never_admits(a in random(), pcr in 4_u8..8, is_good in any::<bool>()) {
        let mut more = a.clone();
        more.base.push((pcr, is_good));
        if let (Some(before), Some(after)) = (a.set("a"), more.set("a")) {
            prop_assert!(is_admitted(&[&before]) || !is_admitted(&[&after]));
            let rules = if is_good { rule("pcr", pcr, &[&good(pcr)]) } else { rule("pcr", pcr, &[BAD]) };
            let part = set(&(head("part", 1, "") + &rules));
            let mut grouped = a.clone();
            for group in &mut grouped.groups {
                group.push((pcr, is_good));
            }
            if let Some(grouped) = grouped.set("a") {
                prop_assert!(is_admitted(&[&before]) || !is_admitted(&[&grouped]));
            }
            // A part that nobody includes says nothing.
            prop_assert_eq!(is_admitted(&[&before]), is_admitted(&[&before, &part]));
        }
    }
}
