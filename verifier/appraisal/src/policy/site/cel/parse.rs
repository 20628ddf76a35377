//! Tokens as a tree.

use std::{ops::Range, sync::Arc};

use super::{
    super::value::Value,
    Wrong,
    ast::{Expr, Fold, Macro, Node, Operator},
    functions::{Function, Style},
    hint::did_you_mean,
    limits::{MAX_DEPTH, MAX_EXPRESSION_BYTES},
    names::RESERVED,
    token::{Token, tokens},
};

/// Parses an expression; names are not resolved yet.
pub(super) fn parse(text: &str) -> Result<Node, Wrong> {
    if text.len() > MAX_EXPRESSION_BYTES {
        let len = text.len();
        let what = format!("{len} bytes, an expression has at most {MAX_EXPRESSION_BYTES}");
        return Err(Wrong::new(0, what));
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let node = parser.conditional()?;
    match parser.peek() {
        Token::End => Ok(node),
        other => {
            let what = format!("{} where the expression should end", shown(other));
            Err(Wrong::new(parser.at(), what))
        }
    }
}

struct Parser {
    tokens: Vec<(Token, Range<usize>)>,
    next: usize,
    /// Open parentheses, brackets, calls and signs: how deep this recursion is.
    depth: u16,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(token, _)| token)
    }

    /// Where the next token begins.
    fn at(&self) -> usize {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |(_, span)| span.start)
    }

    /// Where the last token ended.
    fn end(&self) -> usize {
        let last = self.next.checked_sub(1).and_then(|at| self.tokens.get(at));
        last.map_or(0, |(_, span)| span.end)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next = self.next.saturating_add(1);
        token
    }

    fn takes(&mut self, symbol: &str) -> bool {
        let is_next = matches!(self.peek(), Token::Symbol(next) if *next == symbol);
        if is_next {
            self.next = self.next.saturating_add(1);
        }
        is_next
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Wrong> {
        if self.takes(symbol) {
            return Ok(());
        }
        Err(Wrong::new(self.at(), format!("{} where {symbol:?} should be", shown(self.peek()))))
    }

    /// A node over what was taken since `start`.
    fn node(&self, start: usize, expr: Expr) -> Result<Node, Wrong> {
        let below = children(&expr).map(|child| child.height).max().unwrap_or(0);
        let height = below.saturating_add(1);
        if height > MAX_DEPTH {
            return Err(too_deep(start));
        }
        Ok(Node { span: start..self.end(), height, expr })
    }

    /// One level deeper.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Wrong>) -> Result<T, Wrong> {
        if self.depth >= MAX_DEPTH {
            return Err(too_deep(self.at()));
        }
        self.depth = self.depth.saturating_add(1);
        let out = parse(self);
        self.depth = self.depth.saturating_sub(1);
        out
    }

    fn conditional(&mut self) -> Result<Node, Wrong> {
        let start = self.at();
        let condition = self.or()?;
        if !self.takes("?") {
            return Ok(condition);
        }
        let then = self.nested(Self::or)?;
        self.expect(":")?;
        let otherwise = self.nested(Self::conditional)?;
        self.node(start, Expr::If(Box::new([condition, then, otherwise])))
    }

    fn or(&mut self) -> Result<Node, Wrong> {
        self.chain("||", Self::and, Expr::Or)
    }

    fn and(&mut self) -> Result<Node, Wrong> {
        self.chain("&&", Self::relation, Expr::And)
    }

    /// `a && b && c` is one node: long lists of conditions are not deep.
    fn chain(
        &mut self,
        symbol: &str,
        part: fn(&mut Self) -> Result<Node, Wrong>,
        of: fn(Vec<Node>) -> Expr,
    ) -> Result<Node, Wrong> {
        let start = self.at();
        let first = part(self)?;
        if !self.takes(symbol) {
            return Ok(first);
        }
        let mut parts = vec![first, part(self)?];
        while self.takes(symbol) {
            parts.push(part(self)?);
        }
        self.node(start, of(parts))
    }

    fn relation(&mut self) -> Result<Node, Wrong> {
        const RELATIONS: [(&str, Operator); 6] = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        self.left(&RELATIONS, true, Self::sum)
    }

    fn sum(&mut self) -> Result<Node, Wrong> {
        self.left(&[("+", Operator::Add), ("-", Operator::Subtract)], false, Self::product)
    }

    fn product(&mut self) -> Result<Node, Wrong> {
        const PRODUCTS: [(&str, Operator); 3] =
            [("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Remainder)];
        self.left(&PRODUCTS, false, Self::unary)
    }

    /// Operators of one precedence, from left to right.
    fn left(
        &mut self,
        operators: &[(&str, Operator)],
        with_in: bool,
        part: fn(&mut Self) -> Result<Node, Wrong>,
    ) -> Result<Node, Wrong> {
        let start = self.at();
        let mut node = part(self)?;
        loop {
            let operator = match self.peek() {
                Token::Word(word) if with_in && word == "in" => Some(Operator::In),
                Token::Symbol(symbol) => {
                    operators.iter().find(|(s, _)| s == symbol).map(|(_, o)| *o)
                }
                _ => None,
            };
            let Some(operator) = operator else { return Ok(node) };
            let _ = self.take();
            let right = part(self)?;
            node = self.node(start, Expr::Binary(operator, Box::new([node, right])))?;
        }
    }

    fn unary(&mut self) -> Result<Node, Wrong> {
        let start = self.at();
        if self.takes("!") {
            let of = self.nested(Self::unary)?;
            return self.node(start, Expr::Not(Box::new(of)));
        }
        if self.takes("-") {
            if let Token::Int(magnitude) = *self.peek() {
                let _ = self.take();
                let Some(value) = 0_i64.checked_sub_unsigned(magnitude) else {
                    return Err(Wrong::new(start, "an integer below 64 bits"));
                };
                let node = self.node(start, Expr::Literal(Value::Int(value)))?;
                return self.members(start, node);
            }
            let of = self.nested(Self::unary)?;
            return self.node(start, Expr::Negate(Box::new(of)));
        }
        let node = self.primary()?;
        self.members(start, node)
    }

    fn primary(&mut self) -> Result<Node, Wrong> {
        let start = self.at();
        match self.take() {
            Token::Int(magnitude) => {
                let value = i64::try_from(magnitude)
                    .map_err(|_| Wrong::new(start, "an integer above 64 bits"))?;
                self.node(start, Expr::Literal(Value::Int(value)))
            }
            Token::Text(text) => self.node(start, Expr::Literal(Value::text(text))),
            Token::Symbol("(") => {
                let inner = self.nested(Self::conditional)?;
                self.expect(")")?;
                Ok(Node { span: start..self.end(), ..inner })
            }
            Token::Symbol("[") => {
                let elements = self.nested(|parser| parser.until("]"))?;
                self.node(start, Expr::List(elements))
            }
            Token::Word(word) => self.word(start, &word),
            other => {
                let what = format!("{} where a value should be", shown(&other));
                Err(Wrong::new(start, what))
            }
        }
    }

    fn word(&mut self, start: usize, word: &str) -> Result<Node, Wrong> {
        match word {
            "true" => return self.node(start, Expr::Literal(Value::Bool(true))),
            "false" => return self.node(start, Expr::Literal(Value::Bool(false))),
            "null" => {
                let what = "there is no null: what is not there is absent, and has() asks for it";
                return Err(Wrong::new(start, what));
            }
            _ if RESERVED.contains(&word) => {
                return Err(Wrong::new(start, format!("{word:?} is a reserved word")));
            }
            _ => {}
        }
        if !self.takes("(") {
            return self.node(start, Expr::Name(Arc::from(word)));
        }
        let arguments = self.nested(|parser| parser.until(")"))?;
        if word == "has" {
            return self.has(start, arguments);
        }
        self.call(start, word, arguments, false)
    }

    fn has(&self, start: usize, arguments: Vec<Node>) -> Result<Node, Wrong> {
        let one: Result<[Node; 1], _> = arguments.try_into();
        match one.map(|[argument]| argument.expr) {
            Ok(Expr::Select(of, field)) => self.node(start, Expr::Has(of, field)),
            _ => {
                let what = "has() takes one field, as in has(tpm.model); a key of a map is asked for by `in`";
                Err(Wrong::new(start, what))
            }
        }
    }

    /// What follows a value: `.field`, `.function(…)`, `[key]`.
    fn members(&mut self, start: usize, mut node: Node) -> Result<Node, Wrong> {
        loop {
            if self.takes("[") {
                let key = self.nested(Self::conditional)?;
                self.expect("]")?;
                node = self.node(start, Expr::Index(Box::new(node), Box::new(key)))?;
                continue;
            }
            if !self.takes(".") {
                return Ok(node);
            }
            let at = self.at();
            let Token::Word(word) = self.take() else {
                return Err(Wrong::new(at, "a name should follow the dot"));
            };
            if !self.takes("(") {
                node = self.node(start, Expr::Select(Box::new(node), Arc::from(word)))?;
                continue;
            }
            if let Some((_, kind)) = Macro::ALL.iter().find(|(name, _)| *name == word) {
                node = self.fold(start, node, *kind)?;
                continue;
            }
            let mut arguments = self.nested(|parser| parser.until(")"))?;
            arguments.insert(0, node);
            node = self.call(at, &word, arguments, true)?;
            node.span.start = start;
        }
    }

    fn fold(&mut self, start: usize, over: Node, kind: Macro) -> Result<Node, Wrong> {
        let variable_at = self.at();
        let variable: Arc<str> = match self.take() {
            Token::Word(word) if !RESERVED.contains(&word.as_str()) => Arc::from(word),
            other => {
                let what = format!("{} where the macro's variable should be", shown(&other));
                return Err(Wrong::new(variable_at, what));
            }
        };
        self.expect(",")?;
        let body = self.nested(Self::conditional)?;
        self.expect(")")?;
        self.node(start, Expr::Macro(kind, Box::new(Fold { over, variable, variable_at, body })))
    }

    fn call(
        &self,
        at: usize,
        name: &str,
        arguments: Vec<Node>,
        is_member: bool,
    ) -> Result<Node, Wrong> {
        let Some(function) = Function::named(name) else {
            let known = Function::ALL.iter().map(|(_, name, _)| *name);
            let macros = Macro::ALL.iter().map(|(name, _)| *name);
            let hint = match name {
                "matches" => {
                    "; regular expressions are not supported: use startsWith, endsWith, contains"
                        .into()
                }
                _ => did_you_mean(name, known.chain(macros).chain(["has"])),
            };
            return Err(Wrong::new(at, format!("no function {name}{hint}")));
        };
        match (function.style(), is_member) {
            (Style::Global, true) => Err(Wrong::new(at, format!("{name} is called as {name}(…)"))),
            (Style::Member, false) => {
                Err(Wrong::new(at, format!("{name} is called as text.{name}(…)")))
            }
            _ if arguments.len() != function.arguments() => {
                let wanted = function.arguments().saturating_sub(usize::from(is_member));
                let given = arguments.len().saturating_sub(usize::from(is_member));
                Err(Wrong::new(at, format!("{name} takes {wanted} arguments, not {given}")))
            }
            _ => self.node(at, Expr::Call(function, arguments)),
        }
    }

    /// Expressions with commas between them, up to this symbol.
    fn until(&mut self, symbol: &str) -> Result<Vec<Node>, Wrong> {
        let mut out = Vec::new();
        if self.takes(symbol) {
            return Ok(out);
        }
        loop {
            out.push(self.conditional()?);
            if self.takes(symbol) {
                return Ok(out);
            }
            self.expect(",")?;
        }
    }
}

fn too_deep(at: usize) -> Wrong {
    Wrong::new(at, format!("nested deeper than {MAX_DEPTH} levels"))
}

fn shown(token: &Token) -> String {
    match token {
        Token::Int(value) => value.to_string(),
        Token::Text(text) => format!("{text:?}"),
        Token::Word(word) => format!("{word:?}"),
        Token::Symbol(symbol) => format!("{symbol:?}"),
        Token::End => "the end".to_owned(),
    }
}

fn children(expr: &Expr) -> impl Iterator<Item = &Node> {
    let (one, many): (Vec<&Node>, &[Node]) = match expr {
        Expr::Literal(_) | Expr::Name(_) | Expr::Input(_) | Expr::Variable(_) => (vec![], &[]),
        Expr::Select(of, _) | Expr::Has(of, _) | Expr::Not(of) | Expr::Negate(of) => {
            (vec![of.as_ref()], &[])
        }
        Expr::Index(of, key) => (vec![of.as_ref(), key.as_ref()], &[]),
        Expr::List(parts) | Expr::And(parts) | Expr::Or(parts) | Expr::Call(_, parts) => {
            (vec![], parts.as_slice())
        }
        Expr::If(parts) => (vec![], parts.as_slice()),
        Expr::Binary(_, parts) => (vec![], parts.as_slice()),
        Expr::Macro(_, fold) => (vec![&fold.over, &fold.body], &[]),
    };
    one.into_iter().chain(many)
}
