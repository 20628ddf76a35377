use std::{io::Write, path::PathBuf};

use super::*;

const EXAMPLE: &str = include_str!("../../examples/verifier.toml");

fn minimal() -> String {
    format!(
        "trust_domain = \"example.org\"\nfleet_id = \"{}\"\n[service]\nnames = [\"verifier\"]\n",
        "5a".repeat(32)
    )
}

fn problems(text: &str) -> Vec<String> {
    match Config::parse(text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_example_is_good_and_shows_the_defaults() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/verifier.toml");
    let example = check_config(&path).expect("the example is good");
    let defaults = Config::parse(&minimal()).expect("the defaults are good");
    let expected = Config {
        trust_domain: example.trust_domain.clone(),
        fleet_id: example.fleet_id,
        names: example.names.clone(),
        ..defaults
    };
    assert_eq!(example, expected);
    assert_eq!(example.limits, Limits::default());
    assert_eq!(example.pcrs.iter().count(), 14);
    // Every key of the reader stands in the example.
    for key in ["[service]", "[certificate]", "[pcr]", "[ek]", "[inventory]", "[retention]"] {
        assert!(EXAMPLE.contains(key), "{key}");
    }
}

#[test]
fn every_problem_is_named_with_line_and_key() {
    let text = format!(
        "trust_domain = \"Example.org\"\nfleet_id = \"{}\"\nstate_dir = \"var\"\nfoo = 1\n\
         [service]\nlisten = \"0.0.0.0\"\nnames = []\nlisen = 3\n[certificate]\nlifetime = \"25h\"\n\
         [pcr]\nsha256 = [0, 24]\ntool_pcr = 16\n[ek]\nprofile = \"off\"\nrevocation = false\n\
         [inventory]\nallow_pending = \"yes\"\n[retention]\nevidence_age = \"1h\"\n\
         evidence_count = -1\nresults_age = \"7d\"\nresults_count = 999\n[limits]\nstreams = 5000\nchallenge_lifetime = \"5m\"\n[bogus]\na = 1\n",
        "00".repeat(32)
    );
    let found = problems(&text);
    let expected = [
        "line 1: trust_domain: \"Example.org\" has the character 'E' at byte 0",
        "line 2: fleet_id: must be random",
        "line 3: state_dir: must be an absolute path",
        "line 4: foo: is not a key; remove it",
        "line 6: service.listen: must be an address and a port",
        "line 7: service.names: must list the DNS names",
        "line 8: service.lisen: is not a key; did you mean service.listen?",
        "line 10: certificate.lifetime: must be from 1m to 1d",
        "line 12: pcr.sha256: must be a whole number from 0 to 23",
        "line 13: pcr.tool_pcr: must be 8, 9 or 11 to 15",
        "line 15: ek.profile: must be \"strict\" or \"manufacturers\"",
        "line 16: ek.revocation: must be a text in quotes",
        "line 18: inventory.allow_pending: must be true or false",
        "line 20: retention.evidence_age: must be from 1d to 3653d",
        "line 21: retention.evidence_count: must be a whole number from 1000",
        "line 22: retention.results_age: must be from 8d to 3653d",
        "line 23: retention.results_count: must be a whole number from 1000 to 1000000000",
        "line 25: limits.streams: must be a whole number from 1 to 1024",
        "line 26: limits.challenge_lifetime: must be from 15s to 1m",
        "line 27: bogus: is not a key; remove it",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found:?} does not begin with {expected:?}");
    }
}

#[test]
fn authorities_of_others_are_read_and_their_problems_named() {
    let with = |results: &str| format!("{}{results}", minimal());
    let authority = |more: &str| {
        format!(
            "[[results.timestamp_authority]]\nurl = \"http://tsa.example/\"\nca = \"/tsa.pem\"\n{more}"
        )
    };
    assert_eq!(Config::parse(&minimal()).expect("none").results, Results::default());
    let both = authority("stamps = true\n") + &authority("");
    let read = Config::parse(&with(&both)).expect("two").results.timestamp_authorities;
    let stamps: Vec<_> = read.iter().map(|authority| authority.stamps).collect();
    assert_eq!(stamps, [true, false]);
    assert_eq!(
        (&*read[0].url.to_string(), &read[0].ca),
        ("http://tsa.example/", &"/tsa.pem".into())
    );
    for (results, expected) in [
        (
            authority("")
                + "[[results.timestamp_authority]]\nurl = \"https://tsa.example/\"\nca = \"/a\"\n",
            "line 9: results.timestamp_authority[1].url: must begin with http://",
        ),
        (
            authority("").replace("/tsa.pem", "tsa.pem"),
            "line 7: results.timestamp_authority[0].ca: must be an absolute",
        ),
        (
            authority("stamp = true\n"),
            "line 8: results.timestamp_authority[0].stamp: is not a key; did you mean",
        ),
        (
            authority("stamps = 1\n"),
            "line 8: results.timestamp_authority[0].stamps: must be true or false",
        ),
        (
            authority("").replace("ca = \"/tsa.pem\"\n", ""),
            "results.timestamp_authority[0].ca: is missing",
        ),
        (
            authority("stamps = true\n").repeat(2),
            "line 5: results.timestamp_authority: at most one",
        ),
        (
            authority("").repeat(9),
            "line 5: results.timestamp_authority: must be there at most 8 times",
        ),
        (
            "[results]\ntimestamp_authority = 1\n".to_owned(),
            "line 6: results.timestamp_authority: must be tables",
        ),
        (
            "[results]\ntimestamp_authority = [1]\n".to_owned(),
            "line 6: results.timestamp_authority: must be tables",
        ),
        (
            "[results]\ntimestamp_autority = []\n".to_owned(),
            "line 6: results.timestamp_autority: is not a key; did you mean results.timestamp_authority?",
        ),
    ] {
        let found = problems(&with(&results));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(expected), "{found:#?} for {results}");
    }
}

#[test]
fn the_documented_authority_is_read() {
    let document = include_str!("../../../docs/RESULTS.md");
    let block = document.split("```toml\n# verifier.toml\n").nth(1).expect("the block");
    let block = block.split("```").next().expect("its end");
    let config = Config::parse(&(minimal() + block)).expect("it is good");
    let [authority] = config.results.timestamp_authorities.as_slice() else { panic!("one") };
    assert!(authority.stamps);
    // The example's, which is commented out.
    let commented = EXAMPLE.split("# [[results.timestamp_authority]]\n").nth(1).expect("there");
    let lines = commented.lines().take_while(|line| line.starts_with("# "));
    let lines: Vec<_> = lines.map(|line| line.trim_start_matches("# ")).collect();
    let text = format!("{}[[results.timestamp_authority]]\n{}\n", minimal(), lines.join("\n"));
    let example = Config::parse(&text).expect("it is good").results;
    assert_eq!(example, config.results);
}

#[test]
fn the_files_that_a_configuration_names_are_checked_with_it() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| folder.path().join(name);
    let (platforms, ca) = (at("platforms.toml"), at("tsa.pem"));
    let text = format!(
        "{}[jobs]\nplatforms = \"{}\"\n[[results.timestamp_authority]]\nurl = \"http://tsa.example/\"\n\
         ca = \"{}\"\n",
        minimal(),
        platforms.display(),
        ca.display()
    );
    std::fs::write(at("verifier.toml"), text).expect("written");
    std::fs::write(&platforms, "[[platform]]\n").expect("written");
    std::fs::write(&ca, "nothing").expect("written");
    let found = check_config(&at("verifier.toml")).expect_err("two problems").problems;
    let told: Vec<_> = found.iter().map(|problem| (problem.line, &*problem.key)).collect();
    let expected = [(6, "jobs.platforms"), (9, "results.timestamp_authority[0].ca")];
    assert_eq!(told, expected, "{found:#?}");
    assert!(
        found
            .iter()
            .all(|problem| problem.what.contains("/tsa.pem")
                || problem.what.contains("/platforms.toml")),
        "{found:#?}"
    );
}

#[test]
fn what_is_missing_is_named() {
    let found = problems("");
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found.iter().any(|p| p.starts_with("trust_domain: is missing")), "{found:#?}");
    assert!(found.iter().any(|p| p.starts_with("fleet_id: is missing")), "{found:#?}");
    assert!(found.iter().any(|p| p.starts_with("service.names: must list")), "{found:#?}");
}

#[test]
fn syntax_errors_have_their_line() {
    let found = problems("trust_domain = \"a\"\nfleet_id = \n");
    assert!(found.iter().all(|problem| problem.starts_with("line 2: is not TOML")), "{found:#?}");
    assert!(!found.is_empty());
    let found = problems("a = 1\na = 2\n");
    assert!(found.iter().any(|problem| problem.starts_with("line 2: is not TOML")), "{found:#?}");
}

#[test]
fn pcrs_and_the_tool_pcr_must_agree() {
    let with = |pcr: &str| format!("{}[pcr]\n{pcr}", minimal());
    let good = Config::parse(&with("sha256 = [0, 15]\nsha384 = [15]\ntool_pcr = 15\n"));
    let good = good.expect("two banks");
    assert_eq!(good.tool_pcr.get(), 15);
    assert_eq!(good.pcrs.banks().len(), 2);
    for (pcr, expected) in [
        ("sha256 = [0, 1]\n", "pcr.sha256: must include the tool PCR, 14"),
        ("sha256 = [14]\nsha384 = [0]\n", "pcr.sha384: must include the tool PCR, 14"),
        ("tool_pcr = 15\n", "pcr.tool_pcr: must include the tool PCR, 15"),
        ("sha256 = []\n", "pcr.sha256: must name at least one PCR"),
        ("sha1 = [0]\n", "pcr.sha1: SHA-1 banks are never appraised"),
        ("tool_pcr = 10\n", "pcr.tool_pcr: must be 8, 9 or 11 to 15"),
        ("tool_pcr = 7\n", "pcr.tool_pcr: must be 8, 9 or 11 to 15"),
        ("sha256 = 14\n", "pcr.sha256: must be a list of numbers"),
    ] {
        let found = problems(&with(pcr));
        assert_eq!(found.len(), 1, "{pcr}: {found:#?}");
        assert!(found.iter().all(|p| p.contains(expected)), "{pcr}: {found:#?}");
    }
    let found = problems(&format!("pcr = 3\n{}", minimal()));
    assert!(found.iter().any(|p| p.contains("pcr: must be a table, [pcr]")), "{found:#?}");
}

#[test]
fn addresses_must_differ() {
    let text = minimal() + "listen = \"127.0.0.1:9464\"\n";
    let found = problems(&text);
    assert!(found.iter().any(|p| p.contains("metrics_listen: must differ")), "{found:#?}");
}

#[test]
fn durations() {
    let with = |lifetime: &str| format!("{}[certificate]\nlifetime = {lifetime}\n", minimal());
    for (text, seconds) in [("60s", 60), ("1m", 60), ("90m", 5400), ("24h", 86_400), ("1d", 86_400)]
    {
        let config = Config::parse(&with(&format!("\"{text}\""))).expect(text);
        assert_eq!(config.certificate_lifetime, Duration::from_secs(seconds));
    }
    for text in [
        "\"\"",
        "\"h\"",
        "\"1\"",
        "\"1.5h\"",
        "\"-1h\"",
        "\"1 h\"",
        "\"1w\"",
        "3600",
        "\"+1h\"",
        "\"99999999999999999999h\"",
        "\"18446744073709551615d\"",
        "\"59s\"",
        "\"1é\"",
    ] {
        assert_eq!(problems(&with(text)).len(), 1, "{text}");
    }
}

#[test]
fn results_are_kept_from_eight_days_to_ten_years() {
    let with = |lines: &str| format!("{}[retention]\n{lines}\n", minimal());
    let default = Config::parse(&minimal()).expect("the defaults are good").retention;
    assert_eq!(default.results_age, Duration::from_secs(400 * 24 * 3600));
    for (lines, age_days, count) in [
        ("results_age = \"8d\"\nresults_count = 1000", 8, 1000),
        ("results_age = \"3653d\"\nresults_count = 1000000000", 3653, 1_000_000_000),
    ] {
        let Retention { results_age, results_count, evidence_age, evidence_count } =
            Config::parse(&with(lines)).expect(lines).retention;
        assert_eq!((results_age.as_secs(), results_count), (age_days * 24 * 3600, count));
        assert_eq!((evidence_age, evidence_count), (default.evidence_age, default.evidence_count));
    }
    for lines in [
        "results_age = \"191h\"",
        "results_age = \"3654d\"",
        "results_age = 400",
        "results_count = 0",
        "results_count = 1000000001",
        "results_count = \"1000\"",
    ] {
        assert_eq!(problems(&with(lines)).len(), 1, "{lines}");
    }
}

#[test]
fn a_file_that_cannot_be_read_says_what_to_do() {
    let error = Config::load(Path::new("/nonexistent/verifier.toml")).expect_err("no such file");
    assert!(error.to_string().contains("verifier init"), "{error}");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&[0xff, 0xfe]).expect("written");
    let error = Config::load(file.path()).expect_err("not text");
    assert!(error.to_string().contains("is not text"), "{error}");
}

#[test]
fn the_verifier_id_depends_on_domain_and_fleet() {
    let one = Config::parse(&minimal()).expect("good");
    let domain = Config::parse(&minimal().replace("example.org", "example.com")).expect("good");
    let fleet =
        Config::parse(&minimal().replace(&"5a".repeat(32), &"5b".repeat(32))).expect("good");
    assert_ne!(one.verifier_id(), domain.verifier_id());
    assert_ne!(one.verifier_id(), fleet.verifier_id());
    assert_eq!(one.verifier_id(), Config::parse(&minimal()).expect("good").verifier_id());
}
