//! What the nodes of each pool are judged by: compiled once from the documents in force, shared, swapped as a whole.
//!
//! The same code compiles what is in force now, what was in force when a recorded case was judged, and what would be in force
//! after a change: a dry run and a replay judge exactly as an attestation does.

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use appraisal::{
    context,
    ima::ImaPolicy,
    policy::{GoldenProblem, GoldenSet, Manifests, ReferenceValues, Unresolved, site::SitePolicy},
};
use proto::digest::{Digest, PcrIndex};

use crate::store::{DocumentKind, DocumentState};

/// A document that judges or is about to.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Whether it is only reported yet.
    pub is_staged: bool,
    /// Its rules.
    pub rules: CompiledRules,
}

/// Rules of a document.
#[derive(Clone, Debug)]
pub enum CompiledRules {
    /// A golden set or a part.
    Golden(Arc<GoldenSet>),
    /// A policy of the site.
    Policy(Arc<SitePolicy>),
}

impl Compiled {
    /// Checks and compiles a document; `manifests` has those that it names.
    ///
    /// # Errors
    /// Every problem of the document.
    pub fn parse(
        kind: DocumentKind,
        text: &str,
        is_staged: bool,
        sha256: Digest,
        tool_pcr: PcrIndex,
        manifests: &Manifests,
    ) -> Result<Option<Self>, Vec<GoldenProblem>> {
        let rules = match kind {
            DocumentKind::Golden => {
                CompiledRules::Golden(Arc::new(GoldenSet::parse(text, tool_pcr, manifests)?))
            }
            DocumentKind::Policy => CompiledRules::Policy(Arc::new(SitePolicy::parse(text)?)),
            DocumentKind::Keys => return Ok(None),
        };
        Ok(Some(Self { sha256, is_staged, rules }))
    }

    fn golden(&self) -> Option<&Arc<GoldenSet>> {
        match &self.rules {
            CompiledRules::Golden(set) => Some(set),
            CompiledRules::Policy(_) => None,
        }
    }

    fn policy(&self) -> Option<&Arc<SitePolicy>> {
        match &self.rules {
            CompiledRules::Policy(policy) => Some(policy),
            CompiledRules::Golden(_) => None,
        }
    }

    /// As a case names it.
    #[must_use]
    pub const fn named(&self) -> Named {
        Named { kind: self.kind(), is_staged: self.is_staged, sha256: self.sha256 }
    }

    /// Name of the document.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.rules {
            CompiledRules::Golden(set) => set.name(),
            CompiledRules::Policy(policy) => policy.name(),
        }
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> u64 {
        match &self.rules {
            CompiledRules::Golden(set) => set.version(),
            CompiledRules::Policy(policy) => policy.version(),
        }
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> DocumentKind {
        match &self.rules {
            CompiledRules::Golden(_) => DocumentKind::Golden,
            CompiledRules::Policy(_) => DocumentKind::Policy,
        }
    }
}

/// Whether a document's state makes it judge, and how.
#[must_use]
pub const fn judges(state: DocumentState) -> Option<bool> {
    match state {
        DocumentState::Active => Some(false),
        DocumentState::Staged => Some(true),
        _ => None,
    }
}

/// What one pool is judged by.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Its golden sets; `None`: nothing is accepted.
    pub reference: Option<ReferenceValues>,
    /// Policies of the site that are about it, by name.
    pub site: Vec<Arc<SitePolicy>>,
}

impl Expected {
    /// As the appraisal takes it.
    #[must_use]
    pub fn as_context(&self) -> context::Expected<'_> {
        context::Expected { reference: self.reference.as_ref(), site: &self.site }
    }
}

/// A document that a pool is judged by, as a case names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// Kind.
    pub kind: DocumentKind,
    /// Whether it is only reported yet.
    pub is_staged: bool,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
}

/// What one pool is judged by, and what would be if all that is staged were activated.
#[derive(Clone, Debug, Default)]
pub struct PoolExpectations {
    /// Enforced.
    pub in_force: Expected,
    /// Judged and reported; `None`: nothing that is staged is about this pool.
    pub staged: Option<Expected>,
    /// Every document that had a part in it.
    pub documents: Vec<Named>,
    /// Sets that cannot judge anybody as long as what they include is missing.
    pub unresolved: Vec<Unresolved>,
}

impl PoolExpectations {
    /// What `documents` say of one pool. Their order does not matter.
    #[must_use]
    pub fn compile(pool: &str, documents: &[Compiled]) -> Self {
        let active: Vec<&Compiled> = documents.iter().filter(|one| !one.is_staged).collect();
        let staged: Vec<&Compiled> = documents.iter().filter(|one| one.is_staged).collect();
        let (in_force, mut unresolved, mut used) = expected(pool, &active);
        // A staged version takes the place of the active ones of its name, as activating it would.
        let replaced = |one: &&Compiled| {
            staged.iter().any(|next| next.kind() == one.kind() && next.name() == one.name())
        };
        let next: Vec<&Compiled> = active
            .iter()
            .copied()
            .filter(|one| !replaced(one))
            .chain(staged.iter().copied())
            .collect();
        let (after, more_unresolved, mut used_then) = expected(pool, &next);
        // A staged version may be about another pool, and yet take away what judges this one.
        let takes_away = |next: &&Compiled| {
            active.iter().any(|one| {
                next.kind() == one.kind()
                    && next.name() == one.name()
                    && used.contains(&one.named())
            })
        };
        used_then.extend(staged.iter().copied().filter(takes_away).map(Compiled::named));
        let is_about_it = used_then.iter().any(|named| named.is_staged);
        if is_about_it {
            unresolved.extend(more_unresolved);
            used.extend(used_then);
        }
        Self {
            in_force,
            staged: is_about_it.then_some(after),
            documents: used.into_iter().collect(),
            unresolved,
        }
    }
}

impl PoolExpectations {
    /// The golden sets in force, then those that are staged.
    pub fn references(&self) -> impl Iterator<Item = &ReferenceValues> {
        let staged = self.staged.as_ref().and_then(|staged| staged.reference.as_ref());
        self.in_force.reference.iter().chain(staged)
    }

    /// How they judge the kernel's IMA list.
    pub fn ima_policies(&self) -> impl Iterator<Item = &Arc<ImaPolicy>> {
        self.references().flat_map(ReferenceValues::ima_policies)
    }
}

fn expected(pool: &str, documents: &[&Compiled]) -> (Expected, Vec<Unresolved>, BTreeSet<Named>) {
    let golden = |is_part: bool| -> Vec<Arc<GoldenSet>> {
        documents
            .iter()
            .filter_map(|one| one.golden())
            .filter(|set| match set.pool() {
                None => is_part,
                Some(of) => !is_part && of == pool,
            })
            .map(Arc::clone)
            .collect()
    };
    let (sets, parts) = (golden(false), golden(true));
    let included: BTreeSet<&String> = sets.iter().flat_map(|set| set.include()).collect();
    let used = documents
        .iter()
        .filter(|one| match &one.rules {
            CompiledRules::Golden(set) => match set.pool() {
                Some(of) => of == pool,
                None => included.iter().any(|name| *name == set.name()),
            },
            CompiledRules::Policy(policy) => policy.applies_to(pool),
        })
        .map(|one| one.named())
        .collect();
    let (reference, unresolved) = ReferenceValues::resolve(pool, &sets, &parts);
    let mut site: Vec<Arc<SitePolicy>> = documents
        .iter()
        .filter_map(|one| one.policy())
        .filter(|policy| policy.applies_to(pool))
        .map(Arc::clone)
        .collect();
    site.sort_by(|a, b| (a.name(), a.version()).cmp(&(b.name(), b.version())));
    (Expected { reference, site }, unresolved, used)
}

/// What every pool is judged by.
#[derive(Clone, Debug, Default)]
pub struct Expectations {
    pools: HashMap<String, Arc<PoolExpectations>>,
}

impl Expectations {
    /// Compiles what `documents` say of every pool that they name.
    #[must_use]
    pub fn compile(documents: &[Compiled]) -> Self {
        let pools: BTreeSet<&str> =
            documents.iter().filter_map(|one| one.golden().and_then(|set| set.pool())).collect();
        let pools = pools
            .into_iter()
            .map(|pool| (pool.to_owned(), Arc::new(PoolExpectations::compile(pool, documents))))
            .collect();
        Self { pools }
    }

    /// What a pool is judged by; a pool that nobody named accepts nothing.
    #[must_use]
    pub fn of(&self, pool: &str) -> Arc<PoolExpectations> {
        self.pools.get(pool).map(Arc::clone).unwrap_or_default()
    }

    /// Every pool that a document names.
    pub fn pools(&self) -> impl Iterator<Item = (&str, &Arc<PoolExpectations>)> {
        self.pools.iter().map(|(pool, expected)| (pool.as_str(), expected))
    }
}
