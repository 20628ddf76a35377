use super::{
    testing::{golden, including, policy, staged},
    *,
};

/// Every order of three or four documents.
fn orders(documents: &[Compiled]) -> Vec<Vec<Compiled>> {
    if documents.len() < 2 {
        return vec![documents.to_vec()];
    }
    let mut out = Vec::new();
    for first in 0..documents.len() {
        let mut rest = documents.to_vec();
        let first = rest.remove(first);
        for mut order in orders(&rest) {
            order.push(first.clone());
            out.push(order);
        }
    }
    out
}

/// What judges, and what would: `linux@1 | linux@2`.
fn labels(expected: &PoolExpectations) -> String {
    let of = |expected: &Expected| {
        let reference = expected.reference.as_ref();
        let mut labels: Vec<&str> =
            reference.into_iter().flat_map(ReferenceValues::labels).collect();
        labels.sort_unstable();
        let site =
            expected.site.iter().map(|policy| format!("{}@{}", policy.name(), policy.version()));
        labels.into_iter().map(str::to_owned).chain(site).collect::<Vec<_>>().join(", ")
    };
    let staged = expected.staged.as_ref().map(of);
    format!("{} | {}", of(&expected.in_force), staged.unwrap_or_else(|| "-".to_owned()))
}

fn named(document: &Compiled) -> Named {
    Named { kind: document.kind(), is_staged: document.is_staged, sha256: document.sha256 }
}

/// For every order of `documents`: the same labels, the same digests, the same names.
fn compiled(documents: &[Compiled], expected: &str) -> PoolExpectations {
    let first = PoolExpectations::compile("linux", documents);
    assert_eq!(labels(&first), expected);
    for order in orders(documents) {
        let again = PoolExpectations::compile("linux", &order);
        assert_eq!(labels(&again), expected, "{order:?}");
        assert_eq!((&again.documents, &again.unresolved), (&first.documents, &first.unresolved));
        let digests = |one: &PoolExpectations| {
            one.references().map(|reference| *reference.digest()).collect::<Vec<_>>()
        };
        assert_eq!(digests(&again), digests(&first));
    }
    first
}

#[test]
fn a_staged_version_takes_the_place_of_every_active_one_of_its_name() {
    let documents = [
        golden("linux", 1, Some("linux")),
        golden("linux", 2, Some("linux")),
        golden("extra", 1, Some("linux")),
        staged(golden("linux", 3, Some("linux"))),
    ];
    compiled(&documents, "extra@1, linux@1, linux@2 | extra@1, linux@3");
}

#[test]
fn a_staged_set_of_a_new_name_stands_beside_what_is_active() {
    let documents = [golden("linux", 1, Some("linux")), staged(golden("extra", 1, Some("linux")))];
    compiled(&documents, "linux@1 | extra@1, linux@1");
}

#[test]
fn what_is_staged_for_another_pool_is_not_reported() {
    let documents = [
        golden("linux", 1, Some("linux")),
        staged(golden("mac", 1, Some("mac"))),
        staged(policy("macs", 1, &["mac"])),
        // A part that nothing of this pool includes.
        staged(golden("platform", 1, None)),
    ];
    let expected = compiled(&documents, "linux@1 | -");
    assert_eq!(expected.documents, [named(&documents[0])]);
}

#[test]
fn parts_are_put_in_where_they_are_included_in_each_active_version() {
    let documents = [
        including("linux", 1, "linux", &["platform"]),
        golden("platform", 1, None),
        golden("platform", 2, None),
        golden("unused", 1, None),
    ];
    let expected = compiled(&documents, "linux@1 + platform@1, linux@1 + platform@2 | -");
    let mut used: Vec<Named> = documents[..3].iter().map(named).collect();
    used.sort();
    assert_eq!(expected.documents, used, "a part that nothing includes has no part in it");
}

#[test]
fn a_staged_part_is_judged_with_the_sets_that_include_it() {
    let documents = [
        including("linux", 1, "linux", &["platform"]),
        golden("platform", 1, None),
        staged(golden("platform", 2, None)),
    ];
    compiled(&documents, "linux@1 + platform@1 | linux@1 + platform@2");
}

#[test]
fn a_set_whose_part_is_missing_judges_nobody_and_is_named() {
    let documents = [including("linux", 1, "linux", &["platform"])];
    let expected = compiled(&documents, " | -");
    assert!(expected.in_force.reference.is_none());
    let unresolved: Vec<&str> = expected.unresolved.iter().map(|one| one.set.as_str()).collect();
    assert_eq!(unresolved, ["linux@1"]);
    // Staged, its part does not resolve what is in force, but what would be.
    let documents =
        [including("linux", 1, "linux", &["platform"]), staged(golden("platform", 1, None))];
    let expected = compiled(&documents, " | linux@1 + platform@1");
    assert!(expected.in_force.reference.is_none());
}

#[test]
fn a_set_is_no_part_and_a_part_judges_nobody() {
    let documents = [
        including("linux", 1, "linux", &["mac"]),
        golden("mac", 1, Some("mac")),
        golden("linux-part", 1, None),
    ];
    let expected = compiled(&documents, " | -");
    assert_eq!(expected.unresolved.len(), 1, "{:?}", expected.unresolved);
}

#[test]
fn policies_judge_their_pools_or_all() {
    let documents = [
        golden("linux", 1, Some("linux")),
        policy("everywhere", 1, &[]),
        policy("here", 1, &["linux", "mac"]),
        policy("there", 1, &["mac"]),
    ];
    let expected = compiled(&documents, "linux@1, everywhere@1, here@1 | -");
    assert!(!expected.documents.contains(&named(&documents[3])));
    let mut changed = documents[..3].to_vec();
    changed.push(staged(policy("here", 2, &["linux"])));
    compiled(&changed, "linux@1, everywhere@1, here@1 | linux@1, everywhere@1, here@2");
}

#[test]
fn a_staged_version_that_leaves_the_pool_is_reported_there() {
    let documents = [
        golden("linux", 1, Some("linux")),
        policy("here", 1, &["linux"]),
        staged(policy("here", 2, &["mac"])),
    ];
    let expected = compiled(&documents, "linux@1, here@1 | linux@1");
    // A case that names it judges the same again.
    assert!(expected.documents.contains(&named(&documents[2])));
    let documents = [golden("linux", 1, Some("linux")), staged(golden("linux", 2, Some("mac")))];
    compiled(&documents, "linux@1 | ");
}

#[test]
fn the_digest_is_of_what_judges() {
    let digest = |documents: &[Compiled]| {
        let expected = PoolExpectations::compile("linux", documents);
        *expected.in_force.reference.expect("values").digest()
    };
    let set = including("linux", 1, "linux", &["platform"]);
    let part = golden("platform", 1, None);
    let one = digest(&[set.clone(), part.clone()]);
    let unrelated = [golden("mac", 1, Some("mac")), golden("unused", 1, None), policy("p", 1, &[])];
    let more: Vec<Compiled> = [set.clone(), part.clone()].into_iter().chain(unrelated).collect();
    assert_eq!(one, digest(&more), "of nothing else");
    assert_ne!(one, digest(&[set, golden("platform", 2, None)]));
}

#[test]
fn pools_are_those_that_sets_name_and_every_other_accepts_nothing() {
    let documents = [
        golden("linux", 1, Some("linux")),
        staged(golden("mac", 1, Some("mac"))),
        golden("platform", 1, None),
        policy("everywhere", 1, &["windows"]),
    ];
    let expectations = Expectations::compile(&documents);
    let mut pools: Vec<&str> = expectations.pools().map(|(pool, _)| pool).collect();
    pools.sort_unstable();
    assert_eq!(pools, ["linux", "mac"]);
    assert!(expectations.of("mac").in_force.reference.is_none(), "it is only staged");
    let unknown = expectations.of("windows");
    assert!(unknown.in_force.reference.is_none() && unknown.staged.is_none());
    assert!(unknown.documents.is_empty());
}
