//! What docs/POLICY.md and its examples say of site policies.

use appraisal::policy::site::{SitePolicy, run_cases, schema};

/// The table of docs/POLICY.md is the code's.
#[test]
fn the_documented_fields_are_those_of_the_code() {
    let mut table =
        String::from("| field | type | says who | what | absent where |\n|---|---|---|---|---|\n");
    for field in schema() {
        let absent = field.absent.unwrap_or("never");
        table += &format!(
            "| `{}` | {} | {} | {} | {absent} |\n",
            field.path, field.kind, field.source, field.what
        );
    }
    let docs = include_str!("../../../docs/POLICY.md");
    assert!(docs.contains(&table), "docs/POLICY.md should have\n{table}");
}

/// Every policy of the documentation says what its cases expect.
#[test]
fn the_examples_pass_their_cases() {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/policies");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).map_err(|e| e.to_string());
    let mut policies = 0;
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    files.sort();
    for name in files.iter().filter(|name| name.ends_with(".toml") && !name.contains(".cases.")) {
        let policy = SitePolicy::parse(&read(name).expect("text"))
            .unwrap_or_else(|problems| panic!("{name}: {problems:#?}"));
        let stem = name.trim_end_matches(".toml");
        assert_eq!(policy.name(), stem);
        let is_cases = |file: &&String| file.starts_with(&format!("{stem}.cases."));
        let cases = files.iter().find(is_cases).expect("cases");
        let results = run_cases(&policy, &read(cases).expect("text"), &mut |name| read(name))
            .unwrap_or_else(|problems| panic!("{cases}: {problems:#?}"));
        let failed: Vec<_> = results.iter().filter(|result| !result.passed).collect();
        assert!(failed.is_empty(), "{cases}: {failed:#?}");
        let seen = |allows: bool| results.iter().any(|result| result.denied.is_empty() == allows);
        assert!(seen(true) && seen(false), "{cases}: one that passes and one that denies");
        policies += 1;
    }
    assert_eq!(policies, 5);
}
