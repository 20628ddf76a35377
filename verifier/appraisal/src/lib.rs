//! The pure appraisal core of Assay.
pub mod verdict;
