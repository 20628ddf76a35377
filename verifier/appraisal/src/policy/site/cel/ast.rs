//! The tree of an expression.

use std::{ops::Range, sync::Arc};

use super::{super::value::Value, functions::Function};

/// A part of an expression, with its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) height: u16,
    pub(super) expr: Expr,
}

/// What a part is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Literal(Value),
    /// As parsed; the check makes it one of the next two.
    Name(Arc<str>),
    /// A field of the input.
    Input(Arc<str>),
    /// A variable of a macro, counted from the outermost.
    Variable(usize),
    Select(Box<Node>, Arc<str>),
    Has(Box<Node>, Arc<str>),
    Index(Box<Node>, Box<Node>),
    List(Vec<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    If(Box<[Node; 3]>),
    Binary(Operator, Box<[Node; 2]>),
    Call(Function, Vec<Node>),
    Macro(Macro, Box<Fold>),
}

/// A macro over a list, or over the keys of a map.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fold {
    pub(super) over: Node,
    pub(super) variable: Arc<str>,
    pub(super) variable_at: usize,
    pub(super) body: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Macro {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

impl Macro {
    pub(super) const ALL: [(&'static str, Self); 5] = [
        ("all", Self::All),
        ("exists", Self::Exists),
        ("exists_one", Self::ExistsOne),
        ("filter", Self::Filter),
        ("map", Self::Map),
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}
