//! A bounded subset of the Common Expression Language, over inputs of a declared type.
//!
//! Expressions are parsed, then checked against the input's types, then evaluated in counted steps. What passed the
//! check can fail at run time for named reasons only ([`fault::Fault`]); nothing panics, recurses deeper than
//! [`limits::MAX_DEPTH`], or allocates more than its steps pay for.
//!
//! # Format
//! Of CEL: `? :`, `||`, `&&`, equality, the order of integers, `in`, integer arithmetic, selection, indexing, list literals,
//! `has`, `all`, `exists`, `exists_one`, `filter`, `map`, and the functions of [`functions::Function`]. Not there: doubles,
//! unsigned integers, bytes, null, map and message literals, the order of strings, regular expressions, timestamps, functions
//! of one's own. What is there means what it means in CEL; a differential test holds it to an independent implementation.
//!
//! # Source
//! Common Expression Language, `doc/langdef.md`: "Syntax", "Logical operators", "Macros", "Overflow".

mod ast;
mod check;
mod eval;
mod fault;
mod functions;
mod hint;
pub(super) mod limits;
mod names;
mod parse;
mod token;
mod version;

pub(super) use self::{eval::Reads, fault::Fault, hint::did_you_mean};
use super::{schema::Type, value::Value};

/// What is wrong with an expression, and at which byte of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) what: String,
}

impl Wrong {
    fn new(at: usize, what: impl Into<String>) -> Self {
        Self { at, what: what.into() }
    }
}

/// An expression that was parsed and checked.
#[derive(Clone, Debug)]
pub(super) struct Program {
    text: String,
    root: ast::Node,
    kind: Type,
}

impl Program {
    /// Parses and checks an expression over an input of these fields.
    pub(super) fn compile(text: &str, input: Type) -> Result<Self, Wrong> {
        let mut root = parse::parse(text)?;
        let kind = check::check(&mut root, input)?;
        Ok(Self { text: text.to_owned(), root, kind })
    }

    /// What it evaluates to.
    pub(super) const fn kind(&self) -> Type {
        self.kind
    }

    /// Evaluates it.
    pub(super) fn evaluate(&self, input: &Value) -> Result<Value, Fault> {
        eval::evaluate(&self.root, &self.text, input, None)
    }

    /// Evaluates it and keeps what it read.
    pub(super) fn trace(&self, input: &Value) -> (Result<Value, Fault>, Reads) {
        let mut reads = Reads::default();
        let result = eval::evaluate(&self.root, &self.text, input, Some(&mut reads));
        (result, reads)
    }
}

#[cfg(test)]
mod tests;
