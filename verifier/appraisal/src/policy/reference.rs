//! What judges the nodes of one pool: every combination of sets, groups and parts that is accepted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proto::{
    digest::{Digest, HashAlg, PcrIndex, PcrSelection, PcrSet},
    tool_log::ToolState,
};

use super::{
    golden_set::{GoldenProblem, GoldenSet, Manifests, problem},
    rules::Rules,
};
use crate::{claims::Claims, ima::ImaPolicy, verdict::MatchedTool};

/// Alternatives of one pool: four sets of eight kernels on eight platforms.
pub const MAX_ALTERNATIVES: usize = 256;

/// The reference values of one pool.
///
/// A node is accepted if it meets every rule of one alternative. An alternative is one of the pool's sets, one of its groups,
/// and one group of one version of each part that it includes: what belongs together is never mixed.
#[derive(Clone, Debug)]
pub struct ReferenceValues {
    pool: String,
    digest: Digest,
    /// Each once, however many alternatives share them.
    pub(super) rules: Vec<Arc<Rules>>,
    /// At least one.
    pub(super) alternatives: Vec<Alternative>,
}

/// What is judged together.
#[derive(Clone, Debug)]
pub(super) struct Alternative {
    /// `linux@3#kernel-6.1 + platform@2`.
    pub(super) label: String,
    /// Places in [`ReferenceValues::rules`].
    pub(super) rules: Vec<usize>,
}

/// A set that cannot judge anybody as long as this is so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{set}: {what}")]
pub struct Unresolved {
    /// Name and version of the set.
    pub set: String,
    /// What is missing, and what to do.
    pub what: String,
}

/// One document's choice: its base and one of its groups.
struct Choice<'s> {
    set: &'s GoldenSet,
    group: Option<&'s str>,
    rules: Vec<&'s Arc<Rules>>,
}

impl ReferenceValues {
    /// Puts the active sets of one pool together with the active parts that they include.
    ///
    /// Sets that cannot be resolved are left out, which only ever denies; the second value says why. `None` if no set is
    /// left. The order of `sets` and `parts` does not matter.
    #[must_use]
    pub fn resolve(
        pool: &str,
        sets: &[Arc<GoldenSet>],
        parts: &[Arc<GoldenSet>],
    ) -> (Option<Self>, Vec<Unresolved>) {
        let mut unresolved = Vec::new();
        let mut used: BTreeMap<(&str, u64), &GoldenSet> = BTreeMap::new();
        let mut out = Self {
            pool: pool.to_owned(),
            digest: HashAlg::Sha256.hash(&[]),
            rules: Vec::new(),
            alternatives: Vec::new(),
        };
        let mut sets: Vec<&Arc<GoldenSet>> =
            sets.iter().filter(|set| set.pool() == Some(pool)).collect();
        // The newest first: where two are equally near, words are about what is newest.
        sets.sort_by(|a, b| (a.name(), b.version()).cmp(&(b.name(), a.version())));
        for set in sets {
            match combinations(set, parts) {
                Ok(combined) if out.alternatives.len() + combined.len() > MAX_ALTERNATIVES => {
                    unresolved.push(Unresolved {
                        set: identity(set),
                        what: format!(
                            "with it the pool has more than {MAX_ALTERNATIVES} alternatives; retire what no node boots any more"
                        ),
                    });
                }
                Ok(combined) => {
                    for choices in &combined {
                        for choice in choices {
                            used.insert((choice.set.name(), choice.set.version()), choice.set);
                        }
                        out.push(choices);
                    }
                }
                Err(what) => unresolved.push(Unresolved { set: identity(set), what }),
            }
        }
        out.digest = digest_of(pool, used.values().copied());
        ((!out.alternatives.is_empty()).then_some(out), unresolved)
    }

    /// The reference values that one document is by itself.
    ///
    /// # Errors
    /// As [`GoldenSet::parse`], and for a part or a set that includes others.
    pub fn parse(
        text: &str,
        tool_pcr: PcrIndex,
        manifests: &Manifests,
    ) -> Result<Self, Vec<GoldenProblem>> {
        let set = Arc::new(GoldenSet::parse(text, tool_pcr, manifests)?);
        let Some(pool) = set.pool().map(str::to_owned) else {
            return Err(vec![problem("pool", "none: a part judges nobody by itself")]);
        };
        match Self::resolve(&pool, &[set], &[]) {
            (Some(values), _) => Ok(values),
            (None, unresolved) => {
                Err(unresolved.into_iter().map(|found| problem("include", found.what)).collect())
            }
        }
    }

    fn push(&mut self, choices: &[Choice<'_>]) {
        let mut rules = Vec::new();
        for wanted in choices.iter().flat_map(|choice| &choice.rules) {
            let known = self.rules.iter().position(|rules| Arc::ptr_eq(rules, wanted));
            rules.push(known.unwrap_or_else(|| {
                self.rules.push(Arc::clone(wanted));
                self.rules.len() - 1
            }));
        }
        let labels: Vec<String> = choices
            .iter()
            .map(|choice| {
                let group = choice.group.map(|group| format!("#{group}")).unwrap_or_default();
                identity(choice.set) + &group
            })
            .collect();
        self.alternatives.push(Alternative { label: labels.join(" + "), rules });
    }

    /// Pool whose nodes they judge.
    #[must_use]
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// SHA-256 over name, version and digest of every document that they are made of.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What each alternative is made of, for people: `linux@3#kernel-6.1 + platform@2`.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.alternatives.iter().map(|alternative| alternative.label.as_str())
    }

    /// Tools that a golden set names and accepts as they were measured; by name.
    pub(crate) fn matched_tools(&self, claims: &Claims) -> Vec<MatchedTool> {
        let latest = &claims.tools().latest;
        let present = latest.iter().filter(|(_, tool)| tool.state == ToolState::Present);
        present
            .filter_map(|(name, tool)| {
                let mut named = self.rules.iter().filter_map(|rules| rules.tools.get(name));
                let accepted = named.find_map(|rule| {
                    rule.accept.iter().find(|accepted| accepted.digest == tool.digest)
                })?;
                Some(MatchedTool {
                    name: name.clone(),
                    digest: tool.digest,
                    version: accepted.version.clone(),
                    purl: accepted.purl.clone(),
                })
            })
            .collect()
    }

    pub(super) fn rules_of<'s>(
        &'s self,
        alternative: &'s Alternative,
    ) -> impl Iterator<Item = &'s Rules> {
        alternative.rules.iter().filter_map(|at| self.rules.get(*at)).map(AsRef::as_ref)
    }

    /// PCRs that they read by value, by event, or for what booted: these in the first of the alternative's banks.
    ///
    /// All of them are asked for; what must be answered is [`Self::required_selection`].
    #[must_use]
    pub fn selection(&self) -> PcrSelection {
        selection(self.alternatives.iter().flat_map(|alternative| self.read_by(alternative)))
    }

    /// PCRs that every alternative reads. A node without one of them meets none, whatever it is.
    ///
    /// What only some read is missed by these alone, so that one set never turns away what another accepts.
    #[must_use]
    pub fn required_selection(&self) -> PcrSelection {
        let mut of_each = self.alternatives.iter().map(|alternative| self.read_by(alternative));
        let mut common = of_each.next().unwrap_or_default();
        for read in of_each {
            common.retain(|wanted| read.contains(wanted));
        }
        selection(common)
    }

    fn read_by(&self, alternative: &Alternative) -> BTreeSet<(HashAlg, PcrIndex)> {
        let mut read: BTreeSet<_> = self
            .rules_of(alternative)
            .flat_map(|rules| rules.measured().collect::<Vec<_>>())
            .collect();
        if let Some((bank, _)) = read.first().copied() {
            let boot: Vec<PcrIndex> = self
                .rules_of(alternative)
                .flat_map(|rules| rules.boot_pcrs().collect::<Vec<_>>())
                .collect();
            read.extend(boot.into_iter().map(|index| (bank, index)));
        }
        read
    }

    /// The bank in which what booted is read: the first of each alternative's banks. Of several the one in which most
    /// alternatives judge the boot, then in which most judge anything, then the lowest.
    #[must_use]
    pub fn facts_bank(&self) -> Option<HashAlg> {
        let mut counts: BTreeMap<HashAlg, (usize, usize)> = BTreeMap::new();
        for alternative in &self.alternatives {
            let measured = self.rules_of(alternative).flat_map(Rules::measured);
            let Some(bank) = measured.map(|(bank, _)| bank).min() else { continue };
            let judges_boot = self.rules_of(alternative).any(|rules| rules.boot.is_some());
            let (boot, all) = counts.entry(bank).or_default();
            *boot = boot.saturating_add(usize::from(judges_boot));
            *all = all.saturating_add(1);
        }
        // Of equal ones the last is taken: from the end.
        counts.into_iter().rev().max_by_key(|(_, counts)| *counts).map(|(bank, _)| bank)
    }

    /// PCRs that any alternative reads from firmware's log.
    #[must_use]
    pub fn every_log_pcr(&self) -> PcrSet {
        self.rules.iter().flat_map(|rules| rules.log_pcrs().iter().collect::<Vec<_>>()).collect()
    }

    /// PCRs that firmware's log must lead to, whichever alternative a node is.
    ///
    /// What only some alternatives read is refused by these alone, so that one set never turns away what another accepts.
    #[must_use]
    pub fn log_pcrs(&self) -> PcrSet {
        let mut of_each = self.alternatives.iter().map(|alternative| {
            self.rules_of(alternative)
                .flat_map(|rules| rules.log_pcrs().iter().collect::<Vec<_>>())
                .collect::<PcrSet>()
        });
        let first = of_each.next().unwrap_or_default();
        of_each
            .fold(first, |common, next| common.iter().filter(|pcr| next.contains(*pcr)).collect())
    }

    /// How alternatives judge the kernel's IMA list: each policy once.
    #[must_use]
    pub fn ima_policies(&self) -> Vec<&Arc<ImaPolicy>> {
        let mut out: Vec<&Arc<ImaPolicy>> = Vec::new();
        for policy in self.rules.iter().filter_map(|rules| rules.ima.as_ref()) {
            if !out.iter().any(|known| known.digest() == policy.digest()) {
                out.push(policy);
            }
        }
        out
    }

    /// Whether every alternative judges the list.
    #[must_use]
    pub fn needs_ima(&self) -> bool {
        self.alternatives
            .iter()
            .all(|alternative| self.rules_of(alternative).any(|rules| rules.ima.is_some()))
    }
}

fn selection(wanted: impl IntoIterator<Item = (HashAlg, PcrIndex)>) -> PcrSelection {
    PcrSelection::new(wanted.into_iter().map(|(bank, index)| (bank, PcrSet::from_iter([index]))))
}

fn identity(set: &GoldenSet) -> String {
    format!("{}@{}", set.name(), set.version())
}

/// Every way to choose one group of the set and, of each part, one version and one group of it.
fn combinations<'s>(
    set: &'s GoldenSet,
    parts: &'s [Arc<GoldenSet>],
) -> Result<Vec<Vec<Choice<'s>>>, String> {
    let mut out: Vec<Vec<Choice<'s>>> = choices(set).map(|choice| vec![choice]).collect();
    for name in set.include() {
        let mut versions: Vec<&GoldenSet> = parts
            .iter()
            .map(AsRef::as_ref)
            .filter(|part| part.pool().is_none() && part.name() == name)
            .collect();
        versions.sort_by_key(|part| std::cmp::Reverse(part.version()));
        if versions.is_empty() {
            return Err(format!(
                "it includes {name:?}, of which no version is active; activate one"
            ));
        }
        let mut next = Vec::new();
        for chosen in &out {
            for choice in versions.iter().flat_map(|part| choices(part)) {
                if next.len() >= MAX_ALTERNATIVES {
                    return Err(format!(
                        "it has more than {MAX_ALTERNATIVES} alternatives; retire what no node boots any more"
                    ));
                }
                let mut combined: Vec<Choice<'s>> = chosen.iter().map(Choice::again).collect();
                combined.push(choice);
                next.push(combined);
            }
        }
        out = next;
    }
    let reads_nothing = |choices: &&Vec<Choice<'_>>| {
        !choices.iter().flat_map(|choice| &choice.rules).any(|rules| rules.reads_a_pcr())
    };
    if out.iter().find(reads_nothing).is_some() {
        return Err("one of its alternatives lists no PCR: everything would be accepted".to_owned());
    }
    Ok(out)
}

fn choices(set: &GoldenSet) -> impl Iterator<Item = Choice<'_>> {
    let alone = set.groups.is_empty().then(|| Choice { set, group: None, rules: vec![&set.base] });
    let grouped = set.groups.iter().map(move |(name, rules)| Choice {
        set,
        group: Some(name.as_str()),
        rules: vec![&set.base, rules],
    });
    alone.into_iter().chain(grouped)
}

impl Choice<'_> {
    fn again(&self) -> Self {
        Self { set: self.set, group: self.group, rules: self.rules.clone() }
    }
}

/// Over fields of fixed size or with their length before them.
fn digest_of<'s>(pool: &str, sets: impl Iterator<Item = &'s GoldenSet>) -> Digest {
    let mut bytes = b"assay/v1/reference-values\0".to_vec();
    let mut field = |text: &[u8]| {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text);
    };
    field(pool.as_bytes());
    for set in sets {
        field(set.name().as_bytes());
        field(&set.version().to_be_bytes());
        field(set.digest().as_bytes());
    }
    HashAlg::Sha256.hash(&[&bytes])
}
