//! Every attack of `attacks/*.toml` against a real verifier, with real software TPMs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use proto::{pb, reason::ReasonCode};
use swtpm_tests::{
    attacker::{Observed, attack, mutate::Mutations, silence, site::Site},
    case::{Attack, Layer, attacks, attacks_by_file, threats},
};

/// Rows whose identifier contains this text alone are run: for work on one row.
const FILTER: &str = "ASSAY_ATTACKS";

#[tokio::test(flavor = "multi_thread")]
async fn every_attack_is_refused_with_its_code() {
    let started = Instant::now();
    let filter = std::env::var(FILTER).unwrap_or_default();
    let rows: Vec<Attack> = attacks()
        .expect("rows")
        .into_iter()
        .filter(|row| row.layer != Layer::Unit && row.id.contains(&filter))
        .collect();
    let mut site = Site::start().await.expect("site");
    // Silence takes as long as a deadline: it goes on while the others attack.
    let mut silent = BTreeMap::new();
    for row in &rows {
        if let Some(what) = Mutations::of(&row.mutate).arg("silence") {
            let (channel, hello) = (site.channel.clone(), site.hello_of_nobody());
            let what = what.to_owned();
            let task = tokio::spawn(async move { silence(&channel, &what, hello).await });
            silent.insert(row.id.clone(), task);
        }
    }
    let mut table = Table::default();
    for row in rows.iter().filter(|row| !silent.contains_key(&row.id)) {
        let begun = Instant::now();
        let observed = match attack(&mut site, row).await {
            Ok(observed) => observed,
            Err(error) => {
                table.broken(row, &format!("the harness failed: {error}"));
                continue;
            }
        };
        let problems = judge(&site, row, &observed).await;
        table.add(row, &observed, begun.elapsed(), &problems);
    }
    for row in &rows {
        let begun = Instant::now();
        let Some(task) = silent.remove(&row.id) else { continue };
        let observed = task.await.expect("no panic").expect("an answer");
        let problems = judge(&site, row, &observed).await;
        table.add(row, &observed, begun.elapsed(), &problems);
    }
    // On the same verifier, after all of that.
    let honest = site.honest_worker().await.expect("a verdict");
    let admitted = honest.outcome() == pb::Outcome::Admit && !honest.certificate_chain.is_empty();
    let chain = site.cluster.store().verify_chain(|_, _| {}).await.expect("chain");
    let text = table.render(admitted, started.elapsed());
    println!("{text}");
    write_report(&text);
    assert!(table.failures.is_empty(), "{:#?}", table.failures);
    assert!(admitted, "an honest worker is refused after the attacks: {:#?}", honest.findings);
    assert!(chain.broken.is_none(), "the audit chain is broken: {chain:?}");
}

#[test]
fn every_threat_and_every_reason_code_has_a_row() {
    let rows = attacks().expect("rows");
    let threats = threats().expect("threats");
    let mut problems = Vec::new();
    let mut ids = BTreeSet::new();
    for row in &rows {
        let report = row.problems().into_iter().map(|problem| format!("{}: {problem}", row.id));
        problems.extend(report);
        if !ids.insert(&row.id) {
            problems.push(format!("{} stands twice", row.id));
        }
        if !threats.iter().any(|threat| threat.id == row.threat) {
            problems.push(format!("{}: no threat {}", row.id, row.threat));
        }
        for code in row.codes().iter().filter(|code| ReasonCode::from_wire(code).is_none()) {
            problems.push(format!("{}: no reason code {code}", row.id));
        }
        if let Some(at) = &row.covered_by
            && !test_exists(at)
        {
            problems.push(format!("{}: no test {at}", row.id));
        }
    }
    for (index, threat) in threats.iter().enumerate() {
        if threat.id != format!("T-{}", index + 1) {
            problems.push(format!("{} is out of order", threat.id));
        }
        let covered = rows.iter().any(|row| row.threat == threat.id);
        if covered == threat.deferred.is_some() {
            problems.push(format!("{}: has a row or a reason why not, never both", threat.id));
        }
        if threat.title.is_empty() || threat.stopped.is_empty() || threat.source.is_empty() {
            problems.push(format!("{}: title, stopped and source are required", threat.id));
        }
    }
    let expected: BTreeSet<String> = rows.iter().flat_map(Attack::codes).collect();
    for code in ReasonCode::ALL.iter().filter(|code| !expected.contains(code.as_str())) {
        problems.push(format!("{code} has no row"));
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

/// The table of docs/THREAT_MODEL.md: identifier, title and check of each threat, and its rows by file.
#[test]
fn the_threat_model_lists_every_threat_with_its_rows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("docs/THREAT_MODEL.md")).expect("the document");
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("| T-")).collect();
    let threats = threats().expect("threats");
    let mut problems = Vec::new();
    if lines.len() != threats.len() {
        problems.push(format!("{} threats, {} lines", threats.len(), lines.len()));
    }
    for (threat, line) in threats.iter().zip(&lines) {
        let rows = match &threat.deferred {
            Some(why) => format!("deferred: {why}"),
            None => rows_of(&threat.id),
        };
        let head = format!("| {} | {} | {} | ", threat.id, threat.title, threat.stopped);
        if !line.starts_with(&head) || !line.ends_with(&format!(" | {rows} |")) {
            problems.push(format!("{} reads\n{line}\nexpected\n{head}… | {rows} |", threat.id));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// `3 in [`a.toml`](…), [`b.toml`](…)`: the rows of one threat.
fn rows_of(threat: &str) -> String {
    let mut count = 0;
    let mut files = BTreeSet::new();
    for (file, row) in attacks_by_file().expect("rows") {
        if row.threat == threat {
            count += 1;
            files.insert(format!("[`{file}`](../swtpm-tests/attacks/{file})"));
        }
    }
    format!("{count} in {}", files.into_iter().collect::<Vec<_>>().join(", "))
}

/// Whether `path::test` names a test function in a file of the workspace.
fn test_exists(at: &str) -> bool {
    let Some((path, test)) = at.split_once("::") else { return false };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let Ok(text) = std::fs::read_to_string(root.join(path)) else { return false };
    let Some(found) = text.find(&format!("fn {test}(")) else { return false };
    // An attribute that makes it a test stands right before it.
    text[..found].rsplit("\n\n").next().is_some_and(|before| before.contains("test]"))
        || text[..found].rsplit('}').next().is_some_and(|before| before.contains("test"))
}

/// What is wrong with an outcome.
async fn judge(site: &Site, row: &Attack, observed: &Observed) -> Vec<String> {
    let mut problems = Vec::new();
    if observed.certificate {
        problems.push("A CERTIFICATE WAS ISSUED".to_owned());
    }
    if observed.codes != row.codes() {
        problems.push(format!("expected {:?}, got {:?}", row.codes(), observed.codes));
    }
    if observed.layer != row.layer {
        problems.push(format!("expected layer {:?}, got {:?}", row.layer, observed.layer));
    }
    if let Some(subject) = &row.subject {
        let findings = observed.result.iter().flat_map(|result| &result.findings);
        let subjects: BTreeSet<&str> = findings.map(|finding| finding.subject.as_str()).collect();
        if subjects != BTreeSet::from([subject.as_str()]) {
            problems.push(format!("expected findings about {subject:?}, got {subjects:?}"));
        }
    }
    let Some(id) = &observed.decision else { return problems };
    let store = site.cluster.store();
    let recorded = match store.decision(id).await {
        Ok(Some(recorded)) => recorded.decision,
        other => return vec![format!("decision {id} is not recorded: {other:?}")],
    };
    let codes: BTreeSet<String> = recorded.codes.iter().cloned().collect();
    let audit = row.audit.clone().map_or_else(|| row.codes(), |codes| codes.into_iter().collect());
    if codes != audit {
        problems.push(format!("the audit record says {codes:?}, expected {audit:?}"));
    }
    let verdict = site.cluster.verdict(id).await.unwrap_or_default();
    if verdict["outcome"] != "deny" {
        problems.push(format!("the recorded verdict is {}", verdict["outcome"]));
    }
    // What was expected stays with the verifier.
    let answer = format!("{:?}", observed.result);
    for finding in verdict["findings"].as_array().into_iter().flatten() {
        let expected = finding["expected"].as_str().unwrap_or_default();
        let observed = finding["observed"].as_str().unwrap_or_default();
        let digest = |text: &str| text.len() >= 64 && text.contains(|c: char| c.is_ascii_digit());
        if digest(expected) && !observed.contains(expected) && answer.contains(expected) {
            problems.push(format!("the worker was told what was expected: {expected}"));
        }
    }
    problems
}

/// The table of results.
#[derive(Default)]
struct Table {
    lines: Vec<String>,
    failures: Vec<String>,
    codes: BTreeSet<String>,
}

impl Table {
    fn add(&mut self, row: &Attack, observed: &Observed, took: Duration, problems: &[String]) {
        let codes: Vec<&str> = observed.codes.iter().map(String::as_str).collect();
        self.codes.extend(observed.codes.iter().cloned());
        let codes = codes.join(" + ");
        let mark = if problems.is_empty() { "ok  " } else { "FAIL" };
        let layer = format!("{:?}", observed.layer).to_lowercase();
        self.lines.push(format!(
            "{mark} {:<5} {:<36} {:<44} {layer:<9} {:>5} ms",
            row.threat,
            row.id,
            codes,
            took.as_millis()
        ));
        if !problems.is_empty() {
            let detail = &observed.detail;
            self.failures.push(format!("{}: {} ({detail})", row.id, problems.join("; ")));
        }
    }

    fn broken(&mut self, row: &Attack, why: &str) {
        self.lines.push(format!("FAIL {:<5} {:<36} {why}", row.threat, row.id));
        self.failures.push(format!("{}: {why}", row.id));
    }

    fn render(&self, honest: bool, took: Duration) -> String {
        let mut out = self.lines.join("\n");
        let honest = if honest { "admitted" } else { "REFUSED" };
        let _ = write!(
            out,
            "\n\n{} attacks, {} codes, {} failed; honest worker afterwards: {honest}; {:.1} s\n",
            self.lines.len(),
            self.codes.len(),
            self.failures.len(),
            took.as_secs_f64()
        );
        out
    }
}

/// `target/attacks.txt`.
fn write_report(text: &str) {
    let Ok(program) = std::env::current_exe() else { return };
    // target/PROFILE/deps/attacks-HASH
    if let Some(target) = program.ancestors().nth(3) {
        // A report that cannot be written is still on the screen.
        let _ = std::fs::write(target.join("attacks.txt"), text);
    }
}
