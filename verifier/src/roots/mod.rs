//! Reading manufacturers' roots, intermediates and CRLs for import, and describing them for a
//! listing.
//!
//! ```text
//! FILE (PEM bundle, DER) ─┐
//! DIR (recursive)         ├─ read ─▶ items ─ classify ─▶ Import { entries, rejected, ignored }
//! CAB (Microsoft's list)  ┘                                  │
//!                                   store, later: EndorsementRoots ─▶ describe ─▶ Row
//! ```
//! Functions here return data: they write to no store and print nothing. Paths inside a cabinet are
//! labels and hints, never places to write to.

mod cabinet;
mod classify;
mod describe;
mod pem;
mod read;

#[cfg(test)]
mod tests;

pub use cabinet::{CabinetError, MAX_CABINET_BYTES};
pub use classify::{Entry, Import, Kind, Placement, Rejected};
pub use describe::{Row, describe};
pub use read::{ImportError, MAX_DIRECTORY_DEPTH, MAX_FILE_BYTES, MAX_FILES, import};
