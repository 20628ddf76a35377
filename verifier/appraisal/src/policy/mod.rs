//! Reference values and the policy step: does what was proven match what is expected?

mod boot;
pub mod decide;
pub mod document;
pub mod reference;
pub mod site;

pub(crate) use boot::is_image_authority;
pub use boot::key_digest;
pub use decide::decide;
pub use reference::{GoldenProblem, Manifests, ReferenceValues};
