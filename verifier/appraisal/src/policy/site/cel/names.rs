//! Words that CEL keeps for itself.

/// Reserved by CEL: no field and no variable is called so.
pub(super) const RESERVED: [&str; 19] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "namespace",
    "package",
    "return",
    "var",
    "void",
    "while",
    "null",
    "in",
];
