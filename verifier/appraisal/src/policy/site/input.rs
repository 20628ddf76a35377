//! What rules read of one appraisal: a document of the types in [`super::schema`].

use std::{collections::BTreeMap, sync::Arc};

use proto::{
    digest::{Digest, HashAlg},
    job::{Claim, JobClaims},
    tool_log::ToolState,
};
use serde::Serialize;

use super::{
    super::{
        golden_set::{GoldenProblem, problem},
        rules::canonical_id,
    },
    cel::did_you_mean,
    schema::{JOB_INPUT, Type},
    value::Value,
};
use crate::{
    claims::{BootClaims, Claims, ClaimsDocument, EkTrust, ImaClaims, ToolClaims, TpmClaims},
    context::{JobContext, NodeRecord},
    ima::ImaCounts,
};

/// What rules read. Deterministic: the same claims and node give the same input, byte for byte.
///
/// What is not known is absent, never empty or false: a rule that reads it has no value, and denies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PolicyInput {
    root: Value,
}

impl PolicyInput {
    /// Of what was proven in this appraisal, as rules in force read it.
    #[must_use]
    pub fn of(claims: &Claims, node: &NodeRecord) -> Self {
        Self::of_document(&claims.document(), &node.name, &node.pool)
    }

    /// The same, where these policies judge the kernel's list: those beside which the rules stand.
    pub(crate) fn judged_by(claims: &Claims, node: &NodeRecord, ima: Vec<Digest>) -> Self {
        let mut document = claims.document();
        if let Some(claims) = &mut document.ima {
            claims.judges = ima;
        }
        Self::of_document(&document, &node.name, &node.pool)
    }

    /// Of claims as they are recorded.
    #[must_use]
    pub fn of_document(claims: &ClaimsDocument, node: &str, pool: &str) -> Self {
        let mut root = Fields::default();
        root.add("node", Fields::of([("name", Value::text(node)), ("pool", Value::text(pool))]));
        root.add("ek", ek(claims));
        root.add("tpm", tpm(claims, &claims.tpm));
        root.add("pcrs", pcrs(claims));
        root.maybe("boot", claims.boot.as_ref().and_then(boot));
        root.add("tools", tools(&claims.tools));
        root.maybe("ima", claims.ima.as_ref().filter(|ima| !ima.judges.is_empty()).map(ima));
        Self { root: root.into_value() }
    }

    /// With the job that asks for a permit.
    #[must_use]
    pub(crate) fn with_job(&self, job: &JobContext) -> Self {
        let Value::Map(root) = &self.root else { return self.clone() };
        let mut fields = Fields::default();
        // Claims that could not be read stand against the job already; rules find nothing of it.
        if let Ok(claims) = JobClaims::from_json_with_sources(job.claims.as_bytes()) {
            fields.add("system", Value::text(claims.system().as_str()));
            let map = |value: fn(&Claim) -> &str| {
                let entries = claims.iter();
                let entries = entries
                    .map(|(name, claim)| (Arc::from(name.as_str()), Value::text(value(claim))));
                Value::Map(Arc::new(entries.collect()))
            };
            fields.add("claims", map(Claim::value));
            fields.add("sources", map(|claim| claim.source().as_str()));
        }
        if !job.token.is_empty() {
            let entries = job.token.iter();
            let entries =
                entries.map(|(name, value)| (Arc::from(name.as_str()), Value::text(value)));
            fields.add("token", Value::Map(Arc::new(entries.collect())));
        }
        let mut root = BTreeMap::clone(root);
        root.insert(Arc::from("job"), fields.into_value());
        Self { root: Value::Map(Arc::new(root)) }
    }

    /// Of a document, for tests of a policy.
    ///
    /// # Errors
    /// Every field that is not in the schema or of another type.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, Vec<GoldenProblem>> {
        let mut problems = Vec::new();
        let root = typed(json, JOB_INPUT, "input", &mut problems);
        match root {
            Some(root) if problems.is_empty() => {
                if root.get("boot").is_some_and(|boot| boot.get("kernel_version").is_some()) {
                    let what = "is not input: the policy's [[kernel]] table gives it; write the digest under boot.applications or boot.sections";
                    return Err(vec![problem("input.boot.kernel_version", what)]);
                }
                Ok(Self { root })
            }
            _ => Err(problems),
        }
    }

    pub(super) const fn root(&self) -> &Value {
        &self.root
    }

    /// With the version that a policy gives to the kernel that booted.
    pub(super) fn with_kernel_version(&self, version: &str) -> Self {
        let (Value::Map(root), Some(Value::Map(boot))) = (&self.root, self.root.get("boot")) else {
            return self.clone();
        };
        let (mut root, mut boot) = (BTreeMap::clone(root), BTreeMap::clone(boot));
        boot.insert(Arc::from("kernel_version"), Value::text(version));
        root.insert(Arc::from("boot"), Value::Map(Arc::new(boot)));
        Self { root: Value::Map(Arc::new(root)) }
    }
}

#[derive(Default)]
struct Fields(BTreeMap<Arc<str>, Value>);

impl Fields {
    fn of<const N: usize>(fields: [(&str, Value); N]) -> Value {
        let map = fields.into_iter().map(|(name, value)| (Arc::from(name), value)).collect();
        Self(map).into_value()
    }

    fn add(&mut self, name: &str, value: Value) {
        self.0.insert(Arc::from(name), value);
    }

    fn maybe(&mut self, name: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    fn into_value(self) -> Value {
        Value::Map(Arc::new(self.0))
    }
}

fn ek(claims: &ClaimsDocument) -> Value {
    let mut out = Fields::default();
    out.add("digest", Value::text(claims.ek.digest.to_string()));
    match &claims.ek.trust {
        EkTrust::AllowListed => out.add("trust", Value::text("allow-listed")),
        EkTrust::Certificate { root, oddities } => {
            out.add("trust", Value::text("certificate"));
            out.add("root", Value::text(root.to_string()));
            out.add("oddities", Value::texts(oddities));
        }
    }
    out.into_value()
}

fn tpm(claims: &ClaimsDocument, tpm: &TpmClaims) -> Value {
    let ek = &claims.ek;
    let mut out = Fields::default();
    let manufacturer = ek.manufacturer.as_deref().map(canonical_id);
    out.maybe("manufacturer_name", manufacturer.as_deref().and_then(vendor_name).map(Value::text));
    out.maybe("manufacturer", manufacturer.map(Value::text));
    out.maybe("model", ek.model.as_ref().map(Value::text));
    out.maybe("version", ek.version.as_ref().map(Value::text));
    out.add("firmware_version", Value::text(&tpm.firmware_version));
    out.maybe("firmware", u64::from_str_radix(&tpm.firmware_version, 16).ok().map(firmware));
    out.add("clock_safe", Value::Bool(tpm.clock_safe));
    out.add("reset_count", Value::Int(tpm.reset_count.into()));
    out.add("restart_count", Value::Int(tpm.restart_count.into()));
    out.into_value()
}

/// `id:49465800` is `IFX`.
///
/// # Source
/// TCG EK Credential Profile, "TPM Manufacturer": the identifier's four bytes, of which trailing ones may be zero or
/// a space. TCG TPM Vendor ID Registry.
fn vendor_name(id: &str) -> Option<String> {
    let bytes = hex::decode(id.strip_prefix("id:")?).ok()?;
    let end = bytes.iter().rposition(|byte| ![0, b' '].contains(byte))?;
    let name = bytes.get(..=end).filter(|_| bytes.len() == 4)?;
    let is_name = name.iter().all(u8::is_ascii_graphic);
    String::from_utf8(name.to_vec()).ok().filter(|_| is_name)
}

fn firmware(version: u64) -> Value {
    let (major, minor) = (version >> 48, (version >> 32) & 0xffff);
    let build = version & 0xffff_ffff;
    Fields::of([
        ("major", Value::count(major)),
        ("minor", Value::count(minor)),
        ("build", Value::count(build)),
        ("dotted", Value::text(format!("{major}.{minor}.{build}"))),
    ])
}

fn pcrs(claims: &ClaimsDocument) -> Value {
    let mut out = Fields::default();
    for (bank, values) in &claims.pcrs {
        let name = match bank {
            HashAlg::Sha256 => "sha256",
            HashAlg::Sha384 => "sha384",
            HashAlg::Sha512 => "sha512",
        };
        let map = values
            .iter()
            .map(|(index, value)| {
                (Arc::from(index.to_string()), Value::text(hex::encode(value.as_bytes())))
            })
            .collect();
        out.add(name, Value::Map(Arc::new(map)));
    }
    out.into_value()
}

fn boot(boot: &BootClaims) -> Option<Value> {
    if boot.unread.is_some() {
        return None;
    }
    let explains = |pcr: u8| boot.explained.iter().any(|explained| explained.get() == pcr);
    let mut out = Fields::default();
    if explains(7) {
        out.maybe("secure_boot", boot.secure_boot.map(Value::Bool));
        out.maybe("setup_mode", boot.setup_mode.map(Value::Bool));
        out.maybe("audit_mode", boot.audit_mode.map(Value::Bool));
        out.maybe("deployed_mode", boot.deployed_mode.map(Value::Bool));
        out.maybe("debug_mode", boot.debug_mode.map(Value::Bool));
        out.maybe("dma_protection_off", boot.dma_protection_off.map(Value::Bool));
        let signers = boot.signers.as_ref().filter(|signers| !signers.is_empty());
        out.maybe("signers", signers.map(Value::texts));
    }
    // Without one, a rule over all of them would be met by a boot that measured nothing.
    if explains(4) && !boot.applications.is_empty() {
        let digests = boot.applications.iter().map(ToString::to_string);
        out.add("applications", Value::texts(digests));
    }
    if explains(11) {
        out.maybe(
            "sections",
            boot.sections.as_ref().map(|sections| {
                let digest = |digest: &_| Value::text(format!("{digest}"));
                let entry = |(name, value)| (Arc::from(String::as_str(name)), digest(value));
                Value::Map(Arc::new(sections.iter().map(entry).collect()))
            }),
        );
    }
    // A line in one of the two PCRs would hide one in the other, if no log had to lead there.
    if let Some(lines) = boot.command_line_digests.as_ref().filter(|_| explains(11) && explains(12))
    {
        out.add("command_line_digests", Value::texts(lines.iter().map(ToString::to_string)));
        if boot.command_lines_told {
            out.add("command_lines", Value::texts(&boot.command_lines));
        }
    }
    out.add("problems", Value::texts(boot.problems.iter().map(|code| code.as_str())));
    Some(out.into_value())
}

fn tools(tools: &BTreeMap<String, ToolClaims>) -> Value {
    let entries = tools.iter().map(|(name, tool)| {
        let mut out = Fields::default();
        let state = match tool.state {
            ToolState::Present => "present",
            ToolState::Absent => "absent",
        };
        out.add("state", Value::text(state));
        out.add("digest", Value::text(tool.digest.to_string()));
        out.maybe("version", tool.version.as_ref().map(Value::text));
        out.maybe("purl", tool.package.as_ref().map(Value::text));
        (Arc::from(name.as_str()), out.into_value())
    });
    Value::Map(Arc::new(entries.collect()))
}

fn ima(ima: &ImaClaims) -> Value {
    let mut out = Fields::default();
    out.add("entries", Value::count(ima.entries));
    out.add("violations", Value::count(ima.violations));
    // Where the set and a part of it both judge the list, the one that says worse of it.
    let judged: Option<Vec<&ImaCounts>> =
        ima.judges.iter().map(|policy| ima.judged.get(policy)).collect();
    let worst = |of: fn(&ImaCounts) -> u64| {
        judged.iter().flatten().map(|counts| of(counts)).max().map(Value::count)
    };
    out.maybe("refused", worst(|counts| counts.refused));
    out.maybe("excluded", worst(|counts| counts.excluded));
    out.into_value()
}

/// A JSON value as one of this type.
fn typed(
    json: &serde_json::Value,
    kind: Type,
    at: &str,
    problems: &mut Vec<GoldenProblem>,
) -> Option<Value> {
    use serde_json::Value as Json;
    match (kind, json) {
        (Type::Bool, Json::Bool(value)) => return Some(Value::Bool(*value)),
        (Type::Int, Json::Number(number)) => {
            if let Some(value) = number.as_i64() {
                return Some(Value::Int(value));
            }
        }
        (Type::Text, Json::String(text)) => return Some(Value::text(text)),
        (Type::List(element), Json::Array(list)) => {
            let elements = list.iter().enumerate();
            let list: Vec<_> = elements
                .filter_map(|(n, value)| typed(value, *element, &format!("{at}[{n}]"), problems))
                .collect();
            return Some(Value::List(list.into()));
        }
        (Type::Map(value), Json::Object(object)) => {
            let map = object.iter().filter_map(|(key, json)| {
                let value = typed(json, *value, &format!("{at}.{key:?}"), problems)?;
                Some((Arc::from(key.as_str()), value))
            });
            return Some(Value::Map(Arc::new(map.collect())));
        }
        (Type::Record(fields), Json::Object(object)) => {
            let mut out = Fields::default();
            for (key, json) in object {
                let at = format!("{at}.{key}");
                match fields.iter().find(|field| field.name == key) {
                    Some(field) => out.maybe(key, typed(json, field.kind, &at, problems)),
                    None => {
                        let hint = did_you_mean(key, fields.iter().map(|field| field.name));
                        problems.push(problem(at, format!("is not in the schema{hint}")));
                    }
                }
            }
            return Some(out.into_value());
        }
        _ => {}
    }
    problems.push(problem(at, format!("{kind} expected")));
    None
}

#[cfg(test)]
mod tests {
    use super::vendor_name;

    #[test]
    fn vendor_identifiers_are_ascii() {
        assert_eq!(vendor_name("id:49465800").as_deref(), Some("IFX"));
        assert_eq!(vendor_name("id:494e5443").as_deref(), Some("INTC"));
        assert_eq!(vendor_name("id:53544d20").as_deref(), Some("STM"));
        for id in
            ["", "id:", "id:00000000", "id:ffffffff", "id:494658", "49465800", "id:4946580000"]
        {
            assert_eq!(vendor_name(id), None, "{id}");
        }
    }
}
