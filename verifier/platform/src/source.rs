//! Where key sets come from.

pub mod file;
#[cfg(feature = "fetch")]
pub mod https;
#[cfg(feature = "fetch")]
pub mod refresh;
