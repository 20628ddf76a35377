//! What a dry run finds: for each node, and together.

use appraisal::verdict::Finding;
use serde::Serialize;

/// How many nodes fare how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Nodes of the fleet, but no revoked ones.
    pub nodes: u32,
    /// Admitted today and admitted then.
    pub still_admitted: u32,
    /// Denied today, and not for certain admitted then.
    pub still_denied: u32,
    /// Admitted today, denied then.
    pub newly_denied: u32,
    /// Denied today, admitted then.
    pub newly_admitted: u32,
    /// Admitted today, and the evidence does not tell what then.
    pub undecided: u32,
    /// Nodes that never proved anything, or whose evidence is gone.
    pub without_evidence: u32,
}

impl Summary {
    /// Nodes that are admitted today.
    #[must_use]
    pub const fn admitted_now(&self) -> u32 {
        self.still_admitted.saturating_add(self.newly_denied).saturating_add(self.undecided)
    }

    /// Whether more than this share of the nodes admitted today would not be for certain.
    #[must_use]
    pub fn denies_more_than(&self, percent: u8) -> bool {
        let turned_away = u64::from(self.newly_denied) + u64::from(self.undecided);
        turned_away * 100 > u64::from(self.admitted_now()) * u64::from(percent)
    }

    pub(super) fn count(&mut self, judged: &Judged) {
        let counter = match judged {
            Judged::WithoutEvidence => &mut self.without_evidence,
            Judged::Same { admitted: true } => &mut self.still_admitted,
            Judged::Same { admitted: false } => &mut self.still_denied,
            Judged::Changed(change) => match change.what {
                What::Denied => &mut self.newly_denied,
                What::Admitted => &mut self.newly_admitted,
                What::Undecided => &mut self.undecided,
                What::DeniedDifferently | What::DeniedUndecided => &mut self.still_denied,
            },
        };
        *counter = counter.saturating_add(1);
        self.nodes = self.nodes.saturating_add(1);
    }
}

/// How one node fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It never proved anything, or its evidence is gone.
    WithoutEvidence,
    /// As today.
    Same {
        /// Whether it is admitted.
        admitted: bool,
    },
    /// Otherwise.
    Changed(Box<NodeChange>),
}

/// What changes for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Admitted today, denied then.
    Denied,
    /// Denied today, admitted then.
    Admitted,
    /// Admitted today, and the evidence does not tell what then.
    Undecided,
    /// Denied today and then, for other reasons.
    DeniedDifferently,
    /// Denied today, and the evidence does not tell whether then, or not why.
    DeniedUndecided,
}

impl What {
    /// Stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Admitted => "admitted",
            Self::Undecided => "undecided",
            Self::DeniedDifferently => "denied-differently",
            Self::DeniedUndecided => "denied-undecided",
        }
    }
}

/// What changes for a node, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeChange {
    /// Node.
    pub node: String,
    /// Its pool.
    pub pool: String,
    /// What changes.
    pub what: What,
    /// Decision whose evidence was judged.
    pub decision: String,
    /// When that was.
    pub evidence_unix_s: i64,
    /// What would be met, or is nearest.
    pub judged_by: String,
    /// Why it would be denied, or what the evidence lacks.
    pub findings: Vec<Finding>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(what: What) -> Judged {
        Judged::Changed(Box::new(NodeChange {
            node: "n1".to_owned(),
            pool: "linux".to_owned(),
            what,
            decision: String::new(),
            evidence_unix_s: 0,
            judged_by: String::new(),
            findings: Vec::new(),
        }))
    }

    #[test]
    fn every_node_is_counted_once() {
        let all = [
            Judged::WithoutEvidence,
            Judged::Same { admitted: true },
            Judged::Same { admitted: false },
            changed(What::Denied),
            changed(What::Admitted),
            changed(What::Undecided),
            changed(What::DeniedDifferently),
            changed(What::DeniedUndecided),
        ];
        let mut summary = Summary::default();
        all.iter().for_each(|judged| summary.count(judged));
        let expected = Summary {
            nodes: 8,
            still_admitted: 1,
            // As it was, for other reasons, and not told.
            still_denied: 3,
            newly_denied: 1,
            newly_admitted: 1,
            undecided: 1,
            without_evidence: 1,
        };
        assert_eq!(summary, expected);
        assert_eq!(summary.admitted_now(), 3);
    }

    #[test]
    fn the_share_is_of_those_that_are_admitted_today() {
        let of = |still_admitted, newly_denied, undecided| Summary {
            still_admitted,
            newly_denied,
            undecided,
            // None of these is admitted today.
            still_denied: 1_000,
            newly_admitted: 1_000,
            without_evidence: 1_000,
            nodes: 0,
        };
        let cases = [
            (of(100, 0, 0), 0, false),
            (of(99, 1, 0), 0, true),
            // What is not told may be a denial.
            (of(99, 0, 1), 0, true),
            // More than, not as much as.
            (of(90, 10, 0), 10, false),
            (of(89, 11, 0), 10, true),
            (of(89, 6, 5), 10, true),
            (of(90, 5, 5), 10, false),
            (of(0, 1, 0), 99, true),
            (of(0, 1, 0), 100, false),
            // Nobody is admitted: nobody can be turned away.
            (of(0, 0, 0), 0, false),
            // No overflow at the limits of the counters.
            (of(0, u32::MAX, u32::MAX), 100, true),
        ];
        for (summary, percent, expected) in cases {
            assert_eq!(summary.denies_more_than(percent), expected, "{percent} % of {summary:?}");
        }
    }
}
