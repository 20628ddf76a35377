//! Boot records: what an earlier activation proved, parsed once and kept in memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use appraisal::{
    Proven,
    boot::{Boot, BootDocument},
    boot_log::ProvenBootLog,
};
use proto::digest::Digest;

use crate::{
    objects::StoredObject,
    store::{self, PutBoot, Store, StoreError},
};

/// Parsed boots kept in memory; beyond it the map is emptied and fills again.
const MAX_PARSED_BOOTS: usize = 20_000;

/// A boot's record, parsed once: the AK's key is ready to verify.
#[derive(Debug)]
pub(super) struct ParsedBoot {
    /// Version of the stored record.
    version: u64,
    pub(super) boot: Boot,
    /// The record as recorded cases refer to it.
    pub(super) record: StoredObject,
}

/// Records parsed so far, by AK Name.
#[derive(Debug, Default)]
pub(super) struct Boots {
    parsed: Mutex<HashMap<Vec<u8>, Arc<ParsedBoot>>>,
    logs: Logs,
}

/// What firmware logs proved, by the log's digest, for as long as a boot holds it: a fleet of one kind of machine
/// keeps it once, not once a node.
#[derive(Debug, Default)]
struct Logs(Mutex<HashMap<Digest, Weak<ProvenBootLog>>>);

impl Logs {
    /// The boot, with a log that another one holds already if both say the same.
    fn share(&self, boot: Boot) -> Boot {
        let Some(own) = boot.boot_log().proven().cloned() else { return boot };
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = logs.get(&own.log).and_then(Weak::upgrade) {
            return boot.sharing(&known);
        }
        if logs.len() >= MAX_PARSED_BOOTS {
            logs.retain(|_, log| log.strong_count() > 0);
        }
        logs.insert(own.log, Arc::downgrade(&own));
        boot
    }
}

/// A boot's record, about to be written.
pub(super) struct WrittenBoot {
    pub(super) put: PutBoot,
    boot: Boot,
    record: StoredObject,
}

impl Boots {
    /// The stored record, parsed at most once a version.
    ///
    /// The error is for the log: whoever cannot be recognised proves the boot again.
    pub(super) fn parsed(
        &self,
        store: &Store,
        known: &store::KnownBoot,
    ) -> Result<Arc<ParsedBoot>, String> {
        let ak_name = &known.boot.ak_name;
        let mut boots = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parsed) = boots.get(ak_name).filter(|parsed| parsed.version == known.version) {
            return Ok(Arc::clone(parsed));
        }
        let bytes = &known.boot.record;
        let document: BootDocument = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let boot = Boot::assert_from_store(document).map_err(|e| e.to_string())?;
        let boot = self.logs.share(boot);
        let record = store.objects().put(bytes).map_err(|e| e.to_string())?;
        let parsed = Arc::new(ParsedBoot { version: known.version, boot, record });
        insert(&mut boots, ak_name.clone(), Arc::clone(&parsed));
        Ok(parsed)
    }

    /// Keeps what was just written under this version.
    pub(super) fn keep(&self, written: WrittenBoot, version: u64) {
        let WrittenBoot { put, boot, record } = written;
        let boot = self.logs.share(boot);
        let mut boots = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        insert(&mut boots, put.boot.ak_name, Arc::new(ParsedBoot { version, boot, record }));
    }
}

fn insert(
    boots: &mut HashMap<Vec<u8>, Arc<ParsedBoot>>,
    ak_name: Vec<u8>,
    parsed: Arc<ParsedBoot>,
) {
    if boots.len() >= MAX_PARSED_BOOTS {
        boots.clear();
    }
    boots.insert(ak_name, parsed);
}

impl WrittenBoot {
    /// The boot's record, if it must be written: it is new, or a log that it reads went on.
    ///
    /// After a denial the log is recorded as unread, so that the next one is read whole and can name
    /// files. Blocks: the record becomes an object, for the cases that will stand on it.
    pub(super) fn of(
        proven: &Proven,
        node: &str,
        known: Option<&ParsedBoot>,
        replaces: Option<u64>,
        denied: bool,
        now_unix_s: i64,
        store: &Store,
    ) -> Result<Option<Self>, StoreError> {
        let boot = if denied {
            proven.boot.clone().with_tool_log_restarted()
        } else {
            proven.boot.clone()
        };
        let is_same = |known: &ParsedBoot| {
            known.boot.tool_log().head == boot.tool_log().head && known.boot.ima() == boot.ima()
        };
        if known.is_some_and(is_same) {
            return Ok(None);
        }
        let bytes = serde_json::to_vec(&boot.document()).unwrap_or_default();
        let record = store.objects().put(&bytes)?;
        let counters = boot.counters();
        let put = PutBoot {
            boot: store::Boot {
                ak_name: boot.ak_name().as_bytes().to_vec(),
                node: node.to_owned(),
                counters: store::Counters {
                    reset_count: counters.reset_count,
                    restart_count: counters.restart_count,
                },
                record: bytes,
                created_at: now_unix_s,
                updated_at: now_unix_s,
            },
            expected_version: replaces,
        };
        Ok(Some(Self { put, boot, record }))
    }
}
