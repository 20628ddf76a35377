//! Evaluation, in counted steps.

use std::sync::Arc;

use super::{
    super::value::Value,
    Fault,
    ast::{Expr, Fold, Macro, Node, Operator},
    functions::Function,
    limits::MAX_STEPS,
    version,
};

/// Reads that are kept: what a person looks at.
const MAX_READS: usize = 24;

/// What an evaluation read: the expression's own words, and the value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::policy::site) struct Reads {
    pub(in crate::policy::site) values: Vec<(String, Value)>,
    /// More were read than are kept.
    pub(in crate::policy::site) more: bool,
}

impl Reads {
    fn note(&mut self, what: &str, value: &Value) {
        if self.values.iter().any(|(known, seen)| known == what && seen == value) {
            return;
        }
        if self.values.len() < MAX_READS {
            self.values.push((what.to_owned(), value.clone()));
        } else {
            self.more = true;
        }
    }
}

/// Evaluates a checked tree; `reads` is told what was read.
pub(super) fn evaluate(
    node: &Node,
    text: &str,
    input: &Value,
    reads: Option<&mut Reads>,
) -> Result<Value, Fault> {
    Machine { text, input, variables: Vec::new(), steps: 0, reads }.of(node)
}

/// Whether a path begins in the input.
fn is_of_input(node: &Node) -> bool {
    match &node.expr {
        Expr::Input(_) => true,
        Expr::Select(of, _) | Expr::Index(of, _) => is_of_input(of),
        _ => false,
    }
}

struct Machine<'a> {
    text: &'a str,
    input: &'a Value,
    variables: Vec<Value>,
    steps: u32,
    reads: Option<&'a mut Reads>,
}

impl Machine<'_> {
    fn pay(&mut self, steps: usize) -> Result<(), Fault> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS { Err(Fault::Budget) } else { Ok(()) }
    }

    /// For looking at all of these bytes.
    fn pay_bytes(&mut self, bytes: usize) -> Result<(), Fault> {
        self.pay(bytes / 64)
    }

    fn words(&self, node: &Node) -> &str {
        self.text.get(node.span.clone()).unwrap_or_default()
    }

    fn of(&mut self, node: &Node) -> Result<Value, Fault> {
        self.pay(1)?;
        match &node.expr {
            Expr::Literal(value) => Ok(value.clone()),
            Expr::Name(_) => Err(Fault::WrongType),
            Expr::Input(_) | Expr::Variable(_) | Expr::Select(..) | Expr::Index(..) => {
                let value = self.reach(node)?;
                // An element of a list that the rule itself writes is what is expected, not what was seen.
                if is_of_input(node) {
                    self.note(node, &value);
                }
                Ok(value)
            }
            Expr::Has(of, field) => {
                let has = Value::Bool(self.reach(of)?.get(field).is_some());
                if is_of_input(of) {
                    self.note(node, &has);
                }
                Ok(has)
            }
            Expr::List(elements) => {
                let list: Result<Arc<[Value]>, _> =
                    elements.iter().map(|element| self.of(element)).collect();
                list.map(Value::List)
            }
            Expr::Not(of) => self.truth(of).map(|value| Value::Bool(!value)),
            Expr::Negate(of) => self.int(of)?.checked_neg().map(Value::Int).ok_or(Fault::Overflow),
            Expr::And(parts) => self.either(parts.iter(), false).map(Value::Bool),
            Expr::Or(parts) => self.either(parts.iter(), true).map(Value::Bool),
            Expr::If(parts) => {
                let [condition, then, otherwise] = parts.as_ref();
                if self.truth(condition)? { self.of(then) } else { self.of(otherwise) }
            }
            Expr::Binary(operator, parts) => {
                let [left, right] = parts.as_ref();
                let (left, right) = (self.of(left)?, self.of(right)?);
                self.binary(*operator, &left, &right)
            }
            Expr::Call(function, arguments) => self.call(*function, arguments),
            Expr::Macro(kind, fold) => self.fold(*kind, fold),
        }
    }

    fn note(&mut self, node: &Node, value: &Value) {
        let words = self.text.get(node.span.clone()).unwrap_or_default();
        if let Some(reads) = self.reads.as_deref_mut() {
            reads.note(words, value);
        }
    }

    /// A value along a path; only the whole path counts as read.
    fn reach(&mut self, node: &Node) -> Result<Value, Fault> {
        self.pay(1)?;
        let missing = |machine: &Self| Fault::Missing(machine.words(node).to_owned());
        match &node.expr {
            Expr::Input(name) => self.input.get(name).cloned().ok_or_else(|| missing(self)),
            Expr::Variable(slot) => self.variables.get(*slot).cloned().ok_or(Fault::WrongType),
            Expr::Select(of, field) => {
                let of = self.reach(of)?;
                of.get(field).cloned().ok_or_else(|| missing(self))
            }
            Expr::Index(of, key) => {
                let of = self.reach(of)?;
                match (&of, self.of(key)?) {
                    (Value::List(list), Value::Int(index)) => usize::try_from(index)
                        .ok()
                        .and_then(|at| list.get(at))
                        .cloned()
                        .ok_or(Fault::OutOfBounds { index, len: list.len() }),
                    (Value::Map(map), Value::Text(key)) => {
                        map.get(&key).cloned().ok_or_else(|| missing(self))
                    }
                    _ => Err(Fault::WrongType),
                }
            }
            _ => self.of(node),
        }
    }

    fn truth(&mut self, node: &Node) -> Result<bool, Fault> {
        match self.of(node)? {
            Value::Bool(value) => Ok(value),
            _ => Err(Fault::WrongType),
        }
    }

    fn int(&mut self, node: &Node) -> Result<i64, Fault> {
        match self.of(node)? {
            Value::Int(value) => Ok(value),
            _ => Err(Fault::WrongType),
        }
    }

    /// `&&` and `||` as CEL has them: a part that decides outweighs one that has no value, on whichever side it
    /// stands. Only a spent budget outweighs everything.
    fn either<'n>(
        &mut self,
        parts: impl Iterator<Item = &'n Node>,
        decisive: bool,
    ) -> Result<bool, Fault> {
        let mut fault = None;
        for part in parts {
            match self.truth(part) {
                Ok(value) if value == decisive => return Ok(decisive),
                Ok(_) => {}
                Err(Fault::Budget) => return Err(Fault::Budget),
                Err(found) => fault = fault.or(Some(found)),
            }
        }
        fault.map_or(Ok(!decisive), Err)
    }

    fn binary(&mut self, operator: Operator, left: &Value, right: &Value) -> Result<Value, Fault> {
        use Operator as O;
        match operator {
            O::Equal => self.equal(left, right).map(Value::Bool),
            O::NotEqual => self.equal(left, right).map(|is| Value::Bool(!is)),
            O::In => self.is_in(left, right).map(Value::Bool),
            O::Less | O::LessOrEqual | O::Greater | O::GreaterOrEqual => {
                let (Value::Int(left), Value::Int(right)) = (left, right) else {
                    return Err(Fault::WrongType);
                };
                let order = left.cmp(right);
                Ok(Value::Bool(match operator {
                    O::Less => order.is_lt(),
                    O::LessOrEqual => order.is_le(),
                    O::Greater => order.is_gt(),
                    _ => order.is_ge(),
                }))
            }
            O::Add | O::Subtract | O::Multiply | O::Divide | O::Remainder => {
                let (Value::Int(left), Value::Int(right)) = (left, right) else {
                    return Err(Fault::WrongType);
                };
                let result = match operator {
                    O::Divide | O::Remainder if *right == 0 => return Err(Fault::DivisionByZero),
                    O::Add => left.checked_add(*right),
                    O::Subtract => left.checked_sub(*right),
                    O::Multiply => left.checked_mul(*right),
                    O::Divide => left.checked_div(*right),
                    _ => left.checked_rem(*right),
                };
                result.map(Value::Int).ok_or(Fault::Overflow)
            }
        }
    }

    fn equal(&mut self, left: &Value, right: &Value) -> Result<bool, Fault> {
        match (left, right) {
            (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
            (Value::Int(left), Value::Int(right)) => Ok(left == right),
            (Value::Text(left), Value::Text(right)) => {
                self.pay_bytes(left.len().min(right.len()))?;
                Ok(left == right)
            }
            (Value::List(left), Value::List(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                self.pay(left.len() / 8)?;
                for (left, right) in left.iter().zip(right.iter()) {
                    if !self.equal(left, right)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ => Err(Fault::WrongType),
        }
    }

    fn is_in(&mut self, value: &Value, of: &Value) -> Result<bool, Fault> {
        match (of, value) {
            (Value::List(list), _) => {
                self.pay(list.len() / 8)?;
                for element in list.iter() {
                    if self.equal(value, element)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Value::Map(map), Value::Text(key)) => Ok(map.contains_key(key)),
            _ => Err(Fault::WrongType),
        }
    }

    fn call(&mut self, function: Function, arguments: &[Node]) -> Result<Value, Fault> {
        let mut values = arguments.iter().map(|argument| self.of(argument));
        let first = values.next().unwrap_or(Err(Fault::WrongType))?;
        let second = values.next().transpose()?;
        match (function, &first, second.as_ref()) {
            (Function::Size, Value::Text(text), None) => {
                self.pay_bytes(text.len())?;
                Ok(Value::count(text.chars().count().try_into().unwrap_or(u64::MAX)))
            }
            (Function::Size, Value::List(list), None) => {
                Ok(Value::count(list.len().try_into().unwrap_or(u64::MAX)))
            }
            (Function::Size, Value::Map(map), None) => {
                Ok(Value::count(map.len().try_into().unwrap_or(u64::MAX)))
            }
            (Function::Int, Value::Int(value), None) => Ok(Value::Int(*value)),
            (Function::Int, Value::Text(text), None) => {
                self.pay_bytes(text.len())?;
                let fault = || Fault::NotAnInteger(super::super::value::cut(text.to_string(), 64));
                text.parse().map(Value::Int).map_err(|_| fault())
            }
            (Function::Text, Value::Int(value), None) => Ok(Value::text(value.to_string())),
            (Function::Text, Value::Bool(value), None) => Ok(Value::text(value.to_string())),
            (Function::Text, Value::Text(text), None) => Ok(Value::Text(Arc::clone(text))),
            (_, Value::Text(text), Some(Value::Text(part))) => {
                self.pay_bytes(text.len().saturating_add(part.len()))?;
                match function {
                    Function::StartsWith => Ok(Value::Bool(text.starts_with(&**part))),
                    Function::EndsWith => Ok(Value::Bool(text.ends_with(&**part))),
                    Function::Contains => Ok(Value::Bool(text.contains(&**part))),
                    Function::VersionAtLeast => at_least(text, part).map(Value::Bool),
                    Function::Size | Function::Int | Function::Text => Err(Fault::WrongType),
                }
            }
            _ => Err(Fault::WrongType),
        }
    }

    fn fold(&mut self, kind: Macro, fold: &Fold) -> Result<Value, Fault> {
        let over: Arc<[Value]> = match self.of(&fold.over)? {
            Value::List(list) => list,
            Value::Map(map) => {
                self.pay(map.len())?;
                map.keys().map(|key| Value::Text(Arc::clone(key))).collect()
            }
            _ => return Err(Fault::WrongType),
        };
        match kind {
            Macro::All => self.fold_either(fold, &over, false).map(Value::Bool),
            Macro::Exists => self.fold_either(fold, &over, true).map(Value::Bool),
            Macro::ExistsOne | Macro::Filter | Macro::Map => {
                let mut out = Vec::new();
                for element in over.iter() {
                    match (kind, self.body(fold, element)?) {
                        (Macro::Map, value) => out.push(value),
                        (_, Value::Bool(true)) => out.push(element.clone()),
                        (_, Value::Bool(false)) => {}
                        _ => return Err(Fault::WrongType),
                    }
                }
                Ok(match kind {
                    Macro::ExistsOne => Value::Bool(out.len() == 1),
                    _ => Value::List(out.into()),
                })
            }
        }
    }

    /// As [`Self::either`], over elements.
    fn fold_either(&mut self, fold: &Fold, over: &[Value], decisive: bool) -> Result<bool, Fault> {
        let mut fault = None;
        for element in over {
            match self.body(fold, element) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(decisive),
                Ok(Value::Bool(_)) => {}
                Ok(_) => fault = fault.or(Some(Fault::WrongType)),
                Err(Fault::Budget) => return Err(Fault::Budget),
                Err(found) => fault = fault.or(Some(found)),
            }
        }
        fault.map_or(Ok(!decisive), Err)
    }

    fn body(&mut self, fold: &Fold, element: &Value) -> Result<Value, Fault> {
        self.variables.push(element.clone());
        let out = self.of(&fold.body);
        self.variables.pop();
        out
    }
}

fn at_least(text: &str, floor: &str) -> Result<bool, Fault> {
    let nonsense = |text: &str| Fault::NotAVersion(super::super::value::cut(text.to_owned(), 64));
    let version = version::parse(text).ok_or_else(|| nonsense(text))?;
    let floor = version::parse_floor(floor).ok_or_else(|| nonsense(floor))?;
    Ok(version >= floor)
}
