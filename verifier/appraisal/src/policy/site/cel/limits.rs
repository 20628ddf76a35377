//! What an expression may cost. Every number is checked where the document is parsed, or counted while it runs.

/// Bytes of an expression: twenty conditions of a hundred characters.
pub(in crate::policy::site) const MAX_EXPRESSION_BYTES: usize = 2_048;
/// Height of an expression's tree, and so of every recursion over it. `&&` and `||` count once however long.
pub(super) const MAX_DEPTH: u16 = 32;
/// Macros within macros: one list against another is enough, three lists would be cubic.
pub(super) const MAX_MACRO_DEPTH: usize = 2;
/// Steps of one evaluation: a step is one node of the tree, or 64 bytes or 8 elements that it looks at. A macro over
/// the 1 000 tools that a log may have takes some 10 000.
pub(in crate::policy::site) const MAX_STEPS: u32 = 50_000;
/// Components of a version, and digits of each: more is no version.
pub(super) const MAX_VERSION_COMPONENTS: usize = 8;
