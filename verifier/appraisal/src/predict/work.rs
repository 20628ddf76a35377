//! The rules about PCRs, one after the other.

use proto::digest::{Digest, HashAlg, PcrIndex};

use super::{
    Gap, GapReason, PredictError, Subject,
    measured::{Measured, OPTIONS_PCR},
    replace::{Entry, Order, Replacement},
};
use crate::policy::document::{AcceptedEvent, AcceptedValue, EventRule, PcrRule, RecordedEvent};

/// What is done for each rule.
pub(super) struct Work<'m> {
    pub(super) old: Option<&'m [Measured]>,
    pub(super) new: &'m Subject,
    pub(super) gaps: Vec<Gap>,
    /// Whether any rule had events of the old artifact.
    pub(super) is_found: bool,
    /// Values that the new ones take the place of.
    pub(super) replaced: Vec<PcrRule>,
}

impl Work<'_> {
    fn replacement(&self, bank: HashAlg, pcr: u8, order: Order) -> Replacement<'_> {
        Replacement { pcr, bank, order, old: self.old, new: &self.new.events }
    }

    /// The new values of a PCR: one for each of the old that has the old artifact's events.
    pub(super) fn values(&mut self, rule: &PcrRule) -> Result<Option<PcrRule>, PredictError> {
        let (bank, index) = (rule.bank, rule.index);
        let mut accept: Vec<AcceptedValue> = Vec::new();
        let mut why: Option<GapReason> = None;
        let mut is_found = false;
        let mut led_to: Vec<String> = Vec::new();
        // The old artifact's values, and those of which it is not known whose they are.
        let (mut old, mut unknown) = (Vec::new(), Vec::new());
        for accepted in &rule.accept {
            let record = entries(bank, index, &accepted.events)?;
            let replaced = if record.is_empty() {
                Err(GapReason::NoEvents)
            } else {
                self.replacement(bank, index, Order::Sequence).apply(&record)
            };
            match replaced {
                Ok(events) => {
                    is_found = true;
                    old.push(accepted);
                    if let Some(value) = self.value(rule, events) {
                        led_to.push(value.value.clone());
                        let is_new =
                            |known: &AcceptedValue| !known.value.eq_ignore_ascii_case(&value.value);
                        if rule.accept.iter().chain(&accept).all(is_new) {
                            accept.push(value);
                        }
                    }
                }
                // The most telling reason: one that is about the artifact, not about another alternative.
                Err(GapReason::NotFound) => {
                    let _ = why.get_or_insert(GapReason::NotFound);
                }
                Err(reason) => {
                    why = Some(reason);
                    unknown.push(accepted);
                }
            }
        }
        self.is_found |= is_found;
        if !accept.is_empty() {
            old.append(&mut unknown);
        }
        old.retain(|old| led_to.iter().all(|new| !new.eq_ignore_ascii_case(&old.value)));
        if !old.is_empty() {
            let accept = old.into_iter().cloned().collect();
            self.replaced.push(PcrRule { bank, index, accept });
        }
        if !is_found && let Some(why) = why {
            self.gap(bank, index, why);
        }
        Ok((!accept.is_empty()).then_some(PcrRule { bank, index, accept }))
    }

    /// The value that events lead to.
    fn value(&self, rule: &PcrRule, events: Vec<Entry>) -> Option<AcceptedValue> {
        let start = PcrIndex::new(rule.index)?.reset_value(rule.bank);
        let value = events.iter().fold(start, |value, event| value.extended(&event.digest));
        let value = hex::encode(value.as_bytes());
        let events = events.into_iter().map(|event| RecordedEvent {
            digest: hex::encode(event.digest.as_bytes()),
            what: event.what,
        });
        let from = Some(provenance(&self.new.label));
        Some(AcceptedValue { value, from, events: events.collect(), ..AcceptedValue::default() })
    }

    pub(super) fn events(&mut self, rule: &EventRule) -> Result<Option<EventRule>, PredictError> {
        let (bank, index) = (rule.bank, rule.index);
        let mut list = Vec::with_capacity(rule.accept.len());
        for accepted in &rule.accept {
            list.push(Entry {
                digest: digest(bank, index, &accepted.digest)?,
                what: accepted.what.clone().unwrap_or_default(),
                required: accepted.required,
            });
        }
        let replaced = match self.replacement(bank, index, Order::Set).apply(&list) {
            Ok(replaced) => replaced,
            Err(why) => {
                self.gap(bank, index, why);
                return Ok(None);
            }
        };
        self.is_found = true;
        if replaced == list {
            return Ok(None);
        }
        let accept = replaced.into_iter().map(|entry| AcceptedEvent {
            digest: hex::encode(entry.digest.as_bytes()),
            what: (!entry.what.is_empty()).then_some(entry.what),
            required: entry.required,
        });
        Ok(Some(EventRule { bank, index, why: rule.why.clone(), accept: accept.collect() }))
    }

    /// PCR 12 need not have anything of a kernel: only some boot loaders measure there.
    fn gap(&mut self, bank: HashAlg, index: u8, why: GapReason) {
        if index != OPTIONS_PCR || why != GapReason::NotFound {
            self.gaps.push(Gap { bank, index, why });
        }
    }
}

/// Where a predicted value comes from; a label may say already that it is predicted.
fn provenance(label: &str) -> String {
    if label.starts_with("predicted") { label.to_owned() } else { format!("predicted: {label}") }
}

fn entries(bank: HashAlg, index: u8, events: &[RecordedEvent]) -> Result<Vec<Entry>, PredictError> {
    let entry = |event: &RecordedEvent| {
        let digest = digest(bank, index, &event.digest)?;
        Ok(Entry { digest, what: event.what.clone(), required: false })
    };
    events.iter().map(entry).collect()
}

fn digest(bank: HashAlg, index: u8, text: &str) -> Result<Digest, PredictError> {
    let bytes = hex::decode(text).ok();
    let digest = bytes.and_then(|bytes| Digest::new(bank, &bytes).ok());
    digest.ok_or_else(|| PredictError::Digest { bank, index, text: text.to_owned() })
}
