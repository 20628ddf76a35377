//! Names and types: what passes here fails at run time for the reasons of [`super::Fault`] only.

use std::sync::Arc;

use super::{
    super::{
        schema::{Field, Type},
        value::Value,
    },
    Wrong,
    ast::{Expr, Fold, Macro, Node, Operator},
    functions::Function,
    hint::did_you_mean,
    limits::MAX_MACRO_DEPTH,
    version,
};

/// Resolves every name in the tree and tells the type of its value.
pub(super) fn check(node: &mut Node, input: Type) -> Result<Type, Wrong> {
    let Type::Record(fields) = input else {
        return Err(Wrong::new(0, "the input is a record"));
    };
    Checker { fields, variables: Vec::new() }.of(node)
}

struct Checker {
    fields: &'static [Field],
    variables: Vec<(Arc<str>, Type)>,
}

impl Checker {
    fn of(&mut self, node: &mut Node) -> Result<Type, Wrong> {
        let at = node.span.start;
        match &mut node.expr {
            Expr::Literal(value) => Ok(literal(value)),
            Expr::Name(name) => {
                let (expr, kind) = self.name(name, at)?;
                node.expr = expr;
                Ok(kind)
            }
            // The parser makes none of these.
            Expr::Input(_) | Expr::Variable(_) => Err(Wrong::new(at, "checked already")),
            Expr::Select(of, field) | Expr::Has(of, field) => {
                let end = of.span.end;
                let kind = select(self.of(of)?, field, end)?;
                Ok(if matches!(node.expr, Expr::Has(..)) { Type::Bool } else { kind })
            }
            Expr::Index(of, key) => {
                let (of, key_at) = (self.of(of)?, key.span.start);
                index(of, self.of(key)?, key_at)
            }
            Expr::List(elements) => self.list(elements, at),
            Expr::Not(of) => self.all_bool(std::slice::from_mut(of.as_mut()), "!"),
            Expr::Negate(of) => match self.of(of)? {
                Type::Int => Ok(Type::Int),
                other => Err(Wrong::new(at, format!("- takes an int, not {other}"))),
            },
            Expr::And(parts) => self.all_bool(parts, "&&"),
            Expr::Or(parts) => self.all_bool(parts, "||"),
            Expr::If(parts) => {
                let [condition, then, otherwise] = parts.as_mut();
                self.all_bool(std::slice::from_mut(condition), "? :")?;
                let (then, otherwise) = (self.of(then)?, self.of(otherwise)?);
                if then == otherwise {
                    return Ok(then);
                }
                Err(Wrong::new(at, format!("? : gives {then} or {otherwise}: it must be one type")))
            }
            Expr::Binary(operator, parts) => {
                let [left, right] = parts.as_mut();
                let kinds = (self.of(left)?, self.of(right)?);
                binary(*operator, kinds).map_err(|what| Wrong::new(at, what))
            }
            Expr::Call(function, arguments) => self.call(*function, arguments),
            Expr::Macro(kind, fold) => self.fold(*kind, fold, at),
        }
    }

    fn name(&self, name: &Arc<str>, at: usize) -> Result<(Expr, Type), Wrong> {
        if let Some(slot) = self.variables.iter().rposition(|(known, _)| known == name)
            && let Some((_, kind)) = self.variables.get(slot)
        {
            return Ok((Expr::Variable(slot), *kind));
        }
        if let Some(field) = self.fields.iter().find(|field| *field.name == **name) {
            return Ok((Expr::Input(Arc::clone(name)), field.kind));
        }
        let known = self.fields.iter().map(|field| field.name);
        let variables = self.variables.iter().map(|(name, _)| name.as_ref());
        let hint = did_you_mean(name, known.chain(variables));
        Err(Wrong::new(at, format!("no field {name}{hint}")))
    }

    fn all_bool(&mut self, parts: &mut [Node], operator: &str) -> Result<Type, Wrong> {
        for part in parts {
            let kind = self.of(part)?;
            if kind != Type::Bool {
                let what = format!("{operator} takes a bool, not {kind}");
                return Err(Wrong::new(part.span.start, what));
            }
        }
        Ok(Type::Bool)
    }

    fn list(&mut self, elements: &mut [Node], at: usize) -> Result<Type, Wrong> {
        let mut kind = None;
        for element in elements {
            let next = self.of(element)?;
            if *kind.get_or_insert(next) != next {
                return Err(Wrong::new(element.span.start, "a list has elements of one type"));
            }
        }
        let Some(kind) = kind else {
            return Err(Wrong::new(at, "a list without elements; compare size(…) with 0"));
        };
        kind.list().ok_or_else(|| Wrong::new(at, format!("no lists of {kind}")))
    }

    fn call(&mut self, function: Function, arguments: &mut [Node]) -> Result<Type, Wrong> {
        let name = function.name();
        for (at, argument) in arguments.iter_mut().enumerate() {
            let kind = self.of(argument)?;
            let fits = match function {
                Function::Size => {
                    matches!(kind, Type::Text | Type::List(_) | Type::Map(_))
                }
                Function::Text => matches!(kind, Type::Int | Type::Bool | Type::Text),
                Function::Int => matches!(kind, Type::Int | Type::Text),
                _ => kind == Type::Text,
            };
            if !fits {
                let what = format!("{name} does not take {kind}");
                return Err(Wrong::new(argument.span.start, what));
            }
            if function == Function::VersionAtLeast {
                self.version(at, argument)?;
            }
        }
        Ok(match function {
            Function::Size | Function::Int => Type::Int,
            Function::Text => Type::Text,
            _ => Type::Bool,
        })
    }

    /// An argument of `version_at_least`. Text that only happens to be digits would be given an order that it has not:
    /// the sixteen digits of a firmware version are no number.
    fn version(&self, at: usize, argument: &Node) -> Result<(), Wrong> {
        let wrong = |what: String| Err(Wrong::new(argument.span.start, what));
        match &argument.expr {
            Expr::Literal(Value::Text(floor)) if at == 1 => match version::parse_floor(floor) {
                Some(_) => Ok(()),
                None => wrong(format!("{floor:?}: a floor is numbers with dots between them")),
            },
            Expr::Literal(Value::Text(text)) => match version::parse(text) {
                Some(_) => Ok(()),
                None => wrong(format!("{text:?} is no version that can be compared")),
            },
            Expr::If(parts) => {
                let [_, then, otherwise] = parts.as_ref();
                self.version(at, then)?;
                self.version(at, otherwise)
            }
            _ if self.field(argument).is_some_and(|field| field.is_version) => Ok(()),
            _ => wrong(
                "no version: boot.kernel_version, tools[…].version and tpm.firmware.dotted are"
                    .to_owned(),
            ),
        }
    }

    /// The field of a record that a checked path leads to.
    fn field(&self, path: &Node) -> Option<&'static Field> {
        let Expr::Select(of, name) = &path.expr else { return None };
        let Type::Record(fields) = self.kind_of(of)? else { return None };
        fields.iter().find(|field| *field.name == **name)
    }

    /// Type of a checked path.
    fn kind_of(&self, path: &Node) -> Option<Type> {
        match &path.expr {
            Expr::Input(name) => {
                self.fields.iter().find(|field| *field.name == **name).map(|field| field.kind)
            }
            Expr::Variable(slot) => self.variables.get(*slot).map(|(_, kind)| *kind),
            Expr::Select(of, _) | Expr::Index(of, _) => match self.kind_of(of)? {
                Type::Record(_) => self.field(path).map(|field| field.kind),
                Type::Map(element) | Type::List(element) => Some(*element),
                Type::Bool | Type::Int | Type::Text => None,
            },
            _ => None,
        }
    }

    fn fold(&mut self, kind: Macro, fold: &mut Fold, at: usize) -> Result<Type, Wrong> {
        let element = match self.of(&mut fold.over)? {
            Type::List(element) => *element,
            Type::Map(_) => Type::Text,
            other => {
                return Err(Wrong::new(at, format!("macros take a list or a map, not {other}")));
            }
        };
        if self.variables.len() >= MAX_MACRO_DEPTH {
            let what = format!("macros within macros, deeper than {MAX_MACRO_DEPTH}");
            return Err(Wrong::new(at, what));
        }
        let taken = self.fields.iter().any(|field| *field.name == *fold.variable)
            || self.variables.iter().any(|(name, _)| *name == fold.variable);
        if taken {
            let what = format!("{} is taken: choose another name", fold.variable);
            return Err(Wrong::new(fold.variable_at, what));
        }
        self.variables.push((Arc::clone(&fold.variable), element));
        let body = self.of(&mut fold.body);
        self.variables.pop();
        let (body, body_at) = (body?, fold.body.span.start);
        match kind {
            Macro::Map => {
                let list = body.list();
                list.ok_or_else(|| Wrong::new(body_at, format!("no lists of {body}")))
            }
            _ if body != Type::Bool => {
                Err(Wrong::new(body_at, format!("the macro takes a condition, not {body}")))
            }
            Macro::Filter => {
                let list = element.list();
                list.ok_or_else(|| Wrong::new(at, format!("no lists of {element}")))
            }
            Macro::All | Macro::Exists | Macro::ExistsOne => Ok(Type::Bool),
        }
    }
}

const fn literal(value: &Value) -> Type {
    match value {
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        // The parser makes no other literals.
        Value::Text(_) | Value::List(_) | Value::Map(_) => Type::Text,
    }
}

fn select(of: Type, field: &str, at: usize) -> Result<Type, Wrong> {
    match of {
        Type::Record(fields) => {
            if let Some(found) = fields.iter().find(|known| known.name == field) {
                return Ok(found.kind);
            }
            let hint = did_you_mean(field, fields.iter().map(|field| field.name));
            Err(Wrong::new(at, format!("no field {field}{hint}")))
        }
        Type::Map(value) => Ok(*value),
        other => Err(Wrong::new(at, format!("{other} has no fields"))),
    }
}

fn index(of: Type, key: Type, at: usize) -> Result<Type, Wrong> {
    match (of, key) {
        (Type::List(element), Type::Int) => Ok(*element),
        (Type::Map(value), Type::Text) => Ok(*value),
        (Type::List(_), _) => Err(Wrong::new(at, format!("a list is indexed by int, not {key}"))),
        (Type::Map(_), _) => Err(Wrong::new(at, format!("a map is indexed by string, not {key}"))),
        _ => Err(Wrong::new(at, format!("{of} is not indexed; its fields are selected by a dot"))),
    }
}

fn binary(operator: Operator, kinds: (Type, Type)) -> Result<Type, String> {
    use Operator as O;
    let (left, right) = kinds;
    match operator {
        O::Equal | O::NotEqual if left != right => Err(format!("{left} is never equal to {right}")),
        O::Equal | O::NotEqual => match left {
            Type::Record(_) | Type::Map(_) | Type::List(Type::Record(_)) => {
                Err("records and maps are compared field by field".to_owned())
            }
            _ => Ok(Type::Bool),
        },
        O::Less | O::LessOrEqual | O::Greater | O::GreaterOrEqual => match kinds {
            (Type::Int, Type::Int) => Ok(Type::Bool),
            // Letter by letter "13.10" would be below "13.9".
            (Type::Text, Type::Text) => {
                Err("strings have no order; versions are compared by version_at_least".to_owned())
            }
            _ => Err(format!("two ints have an order, {left} and {right} do not")),
        },
        O::In => match right {
            Type::List(element) if *element == left => Ok(Type::Bool),
            Type::Map(_) if left == Type::Text => Ok(Type::Bool),
            _ => Err(format!("{left} is never in {right}")),
        },
        _ if kinds == (Type::Int, Type::Int) => Ok(Type::Int),
        _ => Err(format!("arithmetic takes ints, not {left} and {right}")),
    }
}
