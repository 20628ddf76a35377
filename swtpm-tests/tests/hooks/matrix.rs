//! Which test shows which case on which system: the guide's table, held against what is here.

use std::path::Path;

/// A row of the table, GitHub Actions first: what the job's log says.
type Row = (&'static str, [Cell; 5]);
/// What the log says, the module, and the test in it; nothing where a system cannot have the case.
type Cell = Option<(&'static str, &'static str, &'static str)>;

const SYSTEMS: [&str; 5] = ["GitHub Actions", "GitLab", "Buildkite", "Jenkins", "Tekton"];

const GITHUB: &str = "github_steps_run_only_on_a_worker_that_proves_itself_and_always_steps_too";
const GITLAB: &str =
    "gitlab_stages_of_the_author_run_under_permits_and_system_failures_are_told_from_builds";
const BUILDKITE: &str = "buildkite_jobs_are_rejected_before_they_begin_or_run_under_their_permit";
const JENKINS: &str = "jenkins_agents_connect_only_from_a_worker_that_proves_itself";
const TEKTON: &str = "tekton_steps_run_only_on_a_node_that_proves_itself";
const TIME: &str = "permits_end_in_time_before_a_job_begins_and_while_it_runs";

/// The same word on every system, shown by the test of each.
const fn of_each(said: &'static str) -> [Cell; 5] {
    [
        Some((said, "github", GITHUB)),
        Some((said, "gitlab", GITLAB)),
        Some((said, "buildkite", BUILDKITE)),
        Some((said, "jenkins", JENKINS)),
        Some((said, "tekton", TEKTON)),
    ]
}

const fn token(said: [Option<&'static str>; 5]) -> [Cell; 5] {
    const TESTS: [&str; 5] = [
        "github_jobs_are_those_that_their_token_says",
        "gitlab_jobs_are_those_that_their_token_says",
        "buildkite_jobs_are_those_that_their_token_says",
        "jenkins_jobs_have_no_platform_and_use_nobody_elses",
        "tekton_jobs_have_no_platform_and_use_nobody_elses",
    ];
    const fn cell(said: Option<&'static str>, test: &'static str) -> Cell {
        match said {
            Some(said) => Some((said, "tokens", test)),
            None => None,
        }
    }
    let [a, b, c, d, e] = said;
    let [k, l, m, n, o] = TESTS;
    [cell(a, k), cell(b, l), cell(c, m), cell(d, n), cell(e, o)]
}

const NO_TOKEN: Option<&str> = Some("no token");
const MISMATCH: Option<&str> = Some("PLATFORM_CLAIM_MISMATCH");
const TWICE: Option<&str> = Some("PLATFORM_TOKEN_REPLAYED");
const REPLAYED: &str = "PERMIT_ALREADY_REDEEMED";

const MATRIX: [Row; 10] = [
    ("a healthy job", of_each("assert_summary")),
    ("a tool changed before", of_each("POLICY_TOOL_NOT_ALLOWED")),
    ("a tool changes while it runs", of_each("GATE_TOOL_CHANGED")),
    ("the verifier is stopped", of_each("GATE_NO_VERDICT")),
    ("its permit was not redeemed in time", [Some(("PERMIT_EXPIRED", "time", TIME)); 5]),
    ("it outlives its permit", [Some(("PERMIT_ENDED", "time", TIME)); 5]),
    (
        "a permit is used again",
        [
            Some((REPLAYED, "replays", "github_permits_start_no_second_job")),
            Some((REPLAYED, "gitlab", GITLAB)),
            Some((REPLAYED, "buildkite", BUILDKITE)),
            Some((REPLAYED, "replays", "jenkins_permits_start_no_second_session")),
            Some((
                REPLAYED,
                "replays",
                "tekton_permits_start_no_second_step_here_or_on_another_node",
            )),
        ],
    ),
    ("another repository's token", token([MISMATCH; 5])),
    ("a token is used again", token([TWICE, TWICE, TWICE, None, None])),
    (
        "no token where the site wants one",
        token([NO_TOKEN, NO_TOKEN, NO_TOKEN, Some("POLICY_RULE_ERROR"), Some("POLICY_RULE_FALSE")]),
    ),
];

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

#[test]
fn every_case_on_every_system_is_shown_by_a_test_and_stands_in_the_guide() {
    let guide = read("docs/CI.md");
    let (_, section) = guide.split_once("\n### What a job's log says\n").unwrap();
    let table: Vec<Vec<String>> = section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    let head: Vec<&str> = std::iter::once("case").chain(SYSTEMS).collect();
    assert_eq!(table[0], head);
    assert_eq!(table.len(), MATRIX.len() + 2, "a row of the guide, or of this list, is missing");
    for ((case, cells), row) in MATRIX.iter().zip(&table[2..]) {
        assert_eq!(row[0], *case);
        assert_eq!(row.len(), cells.len() + 1, "{case}");
        for ((cell, system), told) in cells.iter().zip(SYSTEMS).zip(&row[1..]) {
            let Some((said, module, test)) = cell else {
                assert_eq!(told, "–", "{case}, {system}");
                continue;
            };
            let source = read(&format!("swtpm-tests/tests/hooks/{module}.rs"));
            let is_test = format!("#[tokio::test(flavor = \"multi_thread\")]\nasync fn {test}()");
            assert!(source.contains(&is_test), "{case}, {system}: no test {test}");
            assert!(source.contains(said), "{case}, {system}: {module}.rs never expects {said}");
            let expected = match *said {
                "assert_summary" => "the summary".to_owned(),
                "no token" => "no token".to_owned(),
                code => format!("`{code}`"),
            };
            assert_eq!(told, &expected, "{case}, {system}");
        }
    }
}
