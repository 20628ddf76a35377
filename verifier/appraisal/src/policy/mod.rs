//! Reference values and the policy step: does what was proven match what is expected?

pub mod decide;
pub mod document;
pub mod reference;

pub use decide::decide;
pub use reference::{GoldenProblem, ReferenceValues};
