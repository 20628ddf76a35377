//! `verifier inspect ima`: an IMA list, replayed without a quote.

use std::{collections::BTreeMap, path::PathBuf};

use appraisal::ima::{IMA_PCR, ListReplay, TemplateHashing};
use clap::Args;
use proto::{
    digest::PcrIndex,
    ima::{BankAlg, ImaEntry, ImaListReader, ListEnd, ListFormat},
    reason::ReasonCode,
    tool_log::path_text,
};
use serde_json::{Map, Value, json};

use super::super::{Done, Failure, files::read_bytes, output::Output};

/// Problems that are listed; more are counted.
const MAX_PROBLEMS: usize = 1000;

#[derive(Args, Debug)]
pub(in super::super) struct ImaArgs {
    /// The binary list; `-` for the standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Every entry.
    #[arg(long)]
    entries: bool,
    /// The PCR that the kernel extends.
    #[arg(long, value_name = "N", default_value_t = IMA_PCR.get(),
          value_parser = clap::value_parser!(u8).range(0..=23))]
    pcr: u8,
}

pub(super) fn run(output: Output, args: &ImaArgs) -> Done {
    let bytes = read_bytes(&args.file)?;
    let pcr = PcrIndex::new(args.pcr).unwrap_or(IMA_PCR);
    let format = match ListFormat::detect(&bytes) {
        Some(format) => format,
        None if bytes.is_empty() => ListFormat::ALL[0],
        None => {
            let file = args.file.display();
            return Err(Failure::refused(format!("{file} is not a binary IMA list")).with_help(
                "the binary list is binary_runtime_measurements, not ascii_runtime_measurements",
            ));
        }
    };
    let report = Report::read(&bytes, format, pcr, args.entries);
    if output.is_json() {
        output.json(&report.to_json())?;
    } else {
        report.print(output)?;
    }
    if report.is_damaged { Err(Failure::problems_found()) } else { Ok(()) }
}

/// What a list says, and what it replays to.
struct Report<'l> {
    format: ListFormat,
    pcr: PcrIndex,
    /// As far as every entry could be extended.
    replay: ListReplay,
    entries: u64,
    violations: u64,
    templates: BTreeMap<&'l str, u64>,
    algorithms: BTreeMap<String, u64>,
    boot_aggregate: Option<String>,
    first: Option<Value>,
    last: Option<Value>,
    listed: Vec<Value>,
    problems: Vec<(ReasonCode, u64, String)>,
    more_problems: u64,
    partial_bytes: usize,
    /// An integrity problem: the PCR's value is not known.
    is_damaged: bool,
}

impl<'l> Report<'l> {
    fn read(bytes: &'l [u8], format: ListFormat, pcr: PcrIndex, list: bool) -> Self {
        let mut report = Self {
            format,
            pcr,
            replay: ListReplay::new(pcr, &BankAlg::ALL),
            entries: 0,
            violations: 0,
            templates: BTreeMap::new(),
            algorithms: BTreeMap::new(),
            boot_aggregate: None,
            first: None,
            last: None,
            listed: Vec::new(),
            problems: Vec::new(),
            more_problems: 0,
            partial_bytes: 0,
            is_damaged: false,
        };
        let mut reader = ImaListReader::new(bytes, format);
        for entry in reader.by_ref() {
            match entry {
                Ok(entry) => report.entry(&entry, list),
                Err(error) => {
                    report.is_damaged = true;
                    let detail = format!("at byte {}: {}", error.at, error.kind);
                    report.problem(error.code(), report.entries, detail);
                }
            }
        }
        if let (ListEnd::Partial { left, .. }, false) = (reader.end(), report.is_damaged) {
            report.partial_bytes = left;
        }
        report
    }

    fn entry(&mut self, entry: &ImaEntry<'l>, list: bool) {
        let index = self.entries;
        self.entries = index.saturating_add(1);
        count(&mut self.templates, entry.template.untrusted_name());
        if let Err(finding) = self.replay.push(entry) {
            self.is_damaged = true;
            let detail = format!("expected {}, observed {}", finding.expected, finding.observed);
            self.problem(finding.code, index, detail);
        }
        let fields = entry.untrusted_fields();
        let name = fields.name.map_or_else(|| "what has no name".to_owned(), path_text);
        if entry.is_violation {
            self.violations = self.violations.saturating_add(1);
            let detail = format!("a violation, said to be of {name}");
            self.problem(ReasonCode::PolicyImaViolation, index, detail);
        }
        if let Some(digest) = fields.digest.filter(|_| !entry.is_violation) {
            let name_of = digest.algorithm.map_or(digest.algorithm_name, |alg| alg.name());
            count(&mut self.algorithms, name_of.to_owned());
            let is_strong = digest.algorithm.is_some_and(|alg| alg.appraised().is_some());
            if !is_strong && !entry.is_boot_aggregate() {
                let detail = format!("{name} was measured with {name_of}");
                self.problem(ReasonCode::PolicyImaDigestWeak, index, detail);
            }
        }
        if index == 0 {
            let is_aggregate = entry.is_boot_aggregate() && !entry.is_violation;
            match fields.digest.filter(|_| is_aggregate) {
                Some(digest) => self.boot_aggregate = Some(digest.to_string()),
                None => {
                    let detail = format!("the first entry is of {name}");
                    self.problem(ReasonCode::ImaBootAggregateMissing, index, detail);
                }
            }
        }
        let shown = json!({
            "event": index,
            "pcr": entry.untrusted_pcr,
            "template": entry.template.untrusted_name(),
            "template_digest": entry.recorded.to_string(),
            "violation": entry.is_violation,
            "digest": fields.digest.map(|digest| digest.to_string()),
            "name": fields.name.map(path_text),
            "signed": fields.signature.is_some(),
        });
        self.first.get_or_insert_with(|| shown.clone());
        if list {
            self.listed.push(shown.clone());
        }
        self.last = Some(shown);
    }

    fn problem(&mut self, code: ReasonCode, event: u64, detail: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push((code, event, detail));
        } else {
            self.more_problems = self.more_problems.saturating_add(1);
        }
    }

    /// Bank and value; none for a damaged list, whose entries cannot all be extended.
    fn values(&self, hashing: TemplateHashing) -> Vec<(BankAlg, String)> {
        if self.is_damaged {
            return Vec::new();
        }
        BankAlg::ALL
            .into_iter()
            .filter_map(|bank| {
                let value = self.replay.value(bank, hashing)?;
                Some((bank, hex::encode(value.as_bytes())))
            })
            .collect()
    }

    fn to_json(&self) -> Value {
        let object = |hashing| -> Value {
            let values = self.values(hashing);
            if values.is_empty() {
                return Value::Null;
            }
            let pairs =
                values.into_iter().map(|(bank, value)| (bank.name().to_owned(), value.into()));
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        let problems: Vec<Value> = self
            .problems
            .iter()
            .map(|(code, event, detail)| json!({ "code": code, "event": event, "detail": detail }))
            .collect();
        let mut out = json!({
            "byte_order": self.format.order.name(),
            "template_digest": self.format.recorded.name(),
            "pcr": self.pcr.get(),
            format!("pcr{}", self.pcr): object(TemplateHashing::PerBank),
            format!("pcr{}_padded_sha1", self.pcr): object(TemplateHashing::PaddedSha1),
            "entries": self.entries,
            "violations": self.violations,
            "partial_bytes": self.partial_bytes,
            "templates": self.templates,
            "digest_algorithms": self.algorithms,
            "boot_aggregate": self.boot_aggregate,
            "first": self.first,
            "last": self.last,
            "problems": problems,
            "more_problems": self.more_problems,
        });
        if let (false, Some(object)) = (self.listed.is_empty(), out.as_object_mut()) {
            object.insert("list".to_owned(), self.listed.clone().into());
        }
        out
    }

    fn print(&self, output: Output) -> Done {
        let counts = |counts: Vec<String>| {
            if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
        };
        let of = |name: &str, number: &u64| format!("{name}: {number}");
        let mut facts = vec![
            ("entries", self.entries.to_string()),
            ("violations", self.violations.to_string()),
            ("byte order", self.format.order.name().to_owned()),
            ("template digests", self.format.recorded.to_string()),
            ("templates", counts(self.templates.iter().map(|(n, c)| of(n, c)).collect())),
            ("file digests", counts(self.algorithms.iter().map(|(n, c)| of(n, c)).collect())),
            ("boot_aggregate", self.boot_aggregate.clone().unwrap_or_else(|| "none".to_owned())),
        ];
        if self.partial_bytes > 0 {
            let text = format!("within an entry: {} bytes of it", self.partial_bytes);
            facts.push(("the list ends", text));
        }
        output.facts(&facts)?;
        if self.is_damaged {
            output.line(format!("\nThe list is damaged: PCR {} is not known.", self.pcr))?;
        } else {
            let mut rows = Vec::new();
            for (hashing, name) in [
                (TemplateHashing::PerBank, "each bank's own"),
                (TemplateHashing::PaddedSha1, "padded SHA-1 (kernels before 5.8)"),
            ] {
                for (bank, value) in self.values(hashing) {
                    rows.push(vec![bank.to_string(), name.to_owned(), value]);
                }
            }
            output.line(format!("\nPCR {}, if nothing but this list extended it:", self.pcr))?;
            output.table(&["BANK", "TEMPLATE HASH", "VALUE"], &rows, "")?;
        }
        if !self.listed.is_empty() {
            let text = |value: &Value| match value {
                Value::String(text) => text.clone(),
                Value::Null => "-".to_owned(),
                other => other.to_string(),
            };
            let keys = ["event", "template", "name", "digest", "signed", "violation"];
            let row = |entry: &Value| keys.iter().map(|key| text(&entry[*key])).collect();
            let rows: Vec<Vec<String>> = self.listed.iter().map(row).collect();
            output.line("")?;
            let heads = ["ENTRY", "TEMPLATE", "NAME", "DIGEST", "SIGNED", "VIOLATION"];
            output.table(&heads, &rows, "")?;
        }
        if !self.problems.is_empty() {
            let rows: Vec<Vec<String>> = self
                .problems
                .iter()
                .map(|(code, event, detail)| {
                    vec![event.to_string(), code.to_string(), detail.clone()]
                })
                .collect();
            output.line("")?;
            output.table(&["ENTRY", "CODE", "PROBLEM"], &rows, "")?;
            if self.more_problems > 0 {
                output.line(format!("and {} more", self.more_problems))?;
            }
        }
        Ok(())
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    let number = counts.entry(key).or_insert(0);
    *number = number.saturating_add(1);
}
