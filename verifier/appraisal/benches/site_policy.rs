//! Site policy: 36 rules over an input with 194 values.

use std::{fmt::Write as _, hint::black_box};

use appraisal::policy::site::{PolicyInput, SitePolicy};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Map, Value, json};

const RULES: usize = 36;
const VALUES: usize = 194;

/// Rules of the usual kinds in turn.
fn policy() -> String {
    let kinds = [
        "tpm.manufacturer == 'id:49465800' && version_at_least(tpm.firmware.dotted, '7.85')",
        "boot.secure_boot && !boot.debug_mode && !boot.setup_mode",
        "boot.command_lines.all(line, !line.contains('debug') && !line.contains('init='))",
        "node.pool != 'release' || version_at_least(tools['tool-3'].version, '13')",
        "tools.all(t, tools[t].state == 'present')",
        "boot.applications.all(a, a in ['sha256:aa', 'sha256:bb', 'sha256:cc'])",
    ];
    let mut out = "schema = \"assay.policy/v1\"\nname = \"bench\"\nversion = 1\n".to_owned();
    for (n, expr) in kinds.iter().cycle().take(RULES).enumerate() {
        let _ = write!(out, "[[rule]]\nname = \"r{n}\"\nmessage = \"m\"\nexpr = \"{expr}\"\n");
    }
    out
}

fn input() -> Value {
    let pcrs = |bytes: usize| -> Map<String, Value> {
        (0..24).map(|n: u8| (n.to_string(), json!(format!("{n:02x}").repeat(bytes)))).collect()
    };
    let tools: Map<String, Value> = (0..29)
        .map(|n| {
            let tool = json!({
                "state": "present", "digest": format!("sha256:{}", "ab".repeat(32)), "version": "13.2.0",
                "purl": format!("pkg:deb/debian/tool-{n}@13.2.0-5"),
            });
            (format!("tool-{n}"), tool)
        })
        .collect();
    json!({
        "node": { "name": "w1", "pool": "release" },
        "ek": { "digest": "sha256:00", "trust": "certificate", "root": "sha256:01", "oddities": [] },
        "tpm": {
            "manufacturer": "id:49465800", "manufacturer_name": "IFX", "model": "SLB 9670", "version": "id:0755",
            "firmware_version": "0007005500110000", "clock_safe": true, "reset_count": 3, "restart_count": 0,
            "firmware": { "major": 7, "minor": 85, "build": 1_114_112, "dotted": "7.85.1114112" },
        },
        "pcrs": { "sha256": pcrs(32), "sha384": Map::from_iter(pcrs(48).into_iter().take(19)) },
        "boot": {
            "secure_boot": true, "setup_mode": false, "audit_mode": false, "deployed_mode": false,
            "debug_mode": false, "dma_protection_off": false, "signers": ["sha256:dd"],
            "applications": ["sha256:aa", "sha256:bb"], "sections": { ".linux": "sha256:ee" },
            "command_lines": ["root=/dev/sda1 ro quiet"], "command_line_digests": ["sha256:ff"], "problems": [],
        },
        "tools": tools,
        "ima": { "entries": 1200, "violations": 0, "refused": 0, "excluded": 4 },
    })
}

/// Leaves; an empty list is one.
fn values(value: &Value) -> usize {
    match value {
        Value::Array(list) if !list.is_empty() => list.iter().map(values).sum(),
        Value::Object(object) => object.values().map(values).sum(),
        _ => 1,
    }
}

fn benches(criterion: &mut Criterion) {
    let json = input();
    assert_eq!(values(&json), VALUES);
    let input = PolicyInput::from_json(&json).expect("an input");
    let text = policy();
    let policy = SitePolicy::parse(&text).expect("a policy");
    assert_eq!(policy.judge(&input), []);
    let mut group = criterion.benchmark_group("site_policy");
    group.bench_function("judge_36_rules", |b| b.iter(|| policy.judge(black_box(&input))));
    group.bench_function("input_194_values", |b| {
        b.iter(|| PolicyInput::from_json(black_box(&json)))
    });
    group.bench_function("parse_36_rules", |b| b.iter(|| SitePolicy::parse(black_box(&text))));
    group.finish();
}

criterion_group!(site_policy, benches);
criterion_main!(site_policy);
