//! Executes the tree: one function per rule of Go's `text/template/exec.go` and `funcs.go`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write;

use super::parse::{Base, Command, FUNCTIONS, Function, Node, Operand, Pipeline};
use super::{Fault, Value};

pub(super) fn run(nodes: &[Node], data: &Value<'_>) -> Result<String, Fault> {
    let mut state = State {
        variables: vec![("$", data.clone())],
        out: String::new(),
    };
    state.nodes(nodes, data)?;
    Ok(state.out)
}

struct State<'t, 'd> {
    variables: Vec<(&'t str, Value<'d>)>,
    out: String,
}

impl<'t, 'd: 't> State<'t, 'd> {
    fn nodes(&mut self, nodes: &'t [Node], dot: &Value<'d>) -> Result<(), Fault> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.set.is_none() {
                        let _infallible = write!(self.out, "{value}");
                    }
                }
                Node::Branch {
                    rebinds,
                    condition,
                    then,
                    otherwise,
                } => {
                    let scope = self.variables.len();
                    let value = self.pipeline(condition, dot)?;
                    match truth(&value) {
                        true if *rebinds => self.nodes(then, &value)?,
                        true => self.nodes(then, dot)?,
                        false => self.nodes(otherwise, dot)?,
                    }
                    self.variables.truncate(scope);
                }
            }
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &'t Pipeline, dot: &Value<'d>) -> Result<Value<'d>, Fault> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
        }
        let value = last
            .ok_or(())
            .or_else(|()| Fault::new(pipeline.at, "missing value for command"))?;
        match &pipeline.set {
            Some((name, true)) => self.variables.push((name, value.clone())),
            Some((name, false)) => {
                if let Some((_, variable)) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
                    *variable = value.clone();
                }
            }
            None => {}
        }
        Ok(value)
    }

    /// `piped` is the value of the command before, which becomes the last argument.
    fn command(&mut self, command: &'t Command, dot: &Value<'d>, piped: Option<Value<'d>>) -> Result<Value<'d>, Fault> {
        let (first, rest) = command.operands.split_first().ok_or(Fault {
            at: command.at,
            what: String::new(),
        })?;
        let Base::Function(function) = first.base else {
            if !rest.is_empty() || piped.is_some() {
                return Fault::new(command.at, "can't give argument to non-function");
            }
            return self.operand(first, dot);
        };
        // `and` and `or` stop evaluating where the result is known.
        let mut arguments = Vec::new();
        for operand in rest {
            let value = self.operand(operand, dot)?;
            let decided = match function {
                Function::And => !truth(&value),
                Function::Or => truth(&value),
                _ => false,
            };
            if decided {
                return Ok(value);
            }
            arguments.push(value);
        }
        arguments.extend(piped);
        let value = call(function, arguments).or_else(|what| {
            let name = FUNCTIONS
                .iter()
                .find(|(_, known)| *known == function)
                .map_or("", |(name, _)| name);
            Fault::new(first.at, format!("error calling {name}: {what}"))
        })?;
        fields(value, first)
    }

    fn operand(&mut self, operand: &'t Operand, dot: &Value<'d>) -> Result<Value<'d>, Fault> {
        let value = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map_or(Value::None, |(_, value)| value.clone())
            }
            Base::Text(text) => Value::Text(Cow::Owned(text.clone())),
            Base::Int(value) => Value::Int(*value),
            Base::Bool(value) => Value::Bool(*value),
            Base::Nested(pipeline) => self.pipeline(pipeline, dot)?,
            Base::Function(function) => call(*function, Vec::new()).or_else(|what| Fault::new(operand.at, what))?,
        };
        fields(value, operand)
    }
}

fn fields<'d>(mut value: Value<'d>, operand: &Operand) -> Result<Value<'d>, Fault> {
    for field in &operand.fields {
        value = match value {
            Value::None => Value::None,
            Value::Map(map) => map.get(field).map_or(Value::None, |text| Value::from(text.as_str())),
            Value::Struct(type_name, fields) => match fields.into_iter().find(|(name, _)| name == field) {
                Some((_, value)) => value,
                None => return Fault::new(operand.at, format!("can't evaluate field {field} in type {type_name}")),
            },
            other => {
                let what = format!("can't evaluate field {field} in type {}", kind(&other));
                return Fault::new(operand.at, what);
            }
        };
    }
    Ok(value)
}

/// Go: the zero value of its type, or nothing at all, is false. A struct is always true.
fn truth(value: &Value<'_>) -> bool {
    match value {
        Value::None => false,
        Value::Bool(value) => *value,
        Value::Int(value) => *value != 0,
        Value::Text(text) => !text.is_empty(),
        Value::Map(map) => !map.is_empty(),
        Value::Struct(..) => true,
    }
}

fn kind(value: &Value<'_>) -> &'static str {
    match value {
        Value::None => "nil",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Text(_) => "string",
        Value::Map(_) => "map[string]string",
        Value::Struct(name, _) => name,
    }
}

fn call<'d>(function: Function, arguments: Vec<Value<'d>>) -> Result<Value<'d>, String> {
    let (least, most) = match function {
        Function::Not | Function::Len => (1, 1),
        Function::Ne | Function::Lt | Function::Le | Function::Gt | Function::Ge => (2, 2),
        Function::Eq => (2, usize::MAX),
        Function::And | Function::Or | Function::Index | Function::Slice | Function::Printf => (1, usize::MAX),
        Function::Print | Function::Println => (0, usize::MAX),
    };
    if arguments.len() < least || arguments.len() > most {
        return Err(format!("wrong number of args: want {least} got {}", arguments.len()));
    }
    let rest = arguments.get(1..).unwrap_or_default();
    Ok(match function {
        // Nothing before the last argument decided.
        Function::And | Function::Or => arguments.into_iter().next_back().unwrap_or(Value::None),
        Function::Not => Value::Bool(!truth(&arguments[0])),
        Function::Eq => {
            let mut any = false;
            for other in rest {
                any = any || equal(&arguments[0], other)?;
            }
            Value::Bool(any)
        }
        Function::Ne => Value::Bool(!equal(&arguments[0], &rest[0])?),
        Function::Lt => Value::Bool(order(&arguments[0], &rest[0])?.is_lt()),
        Function::Le => Value::Bool(order(&arguments[0], &rest[0])?.is_le()),
        Function::Gt => Value::Bool(order(&arguments[0], &rest[0])?.is_gt()),
        Function::Ge => Value::Bool(order(&arguments[0], &rest[0])?.is_ge()),
        Function::Len => match &arguments[0] {
            Value::Text(text) => Value::Int(count(text.len())),
            Value::Map(map) => Value::Int(count(map.len())),
            other => return Err(format!("len of type {}", kind(other))),
        },
        Function::Index => index(&arguments)?,
        Function::Slice => slice(&arguments)?,
        Function::Print => Value::Text(print(&arguments, false).into()),
        Function::Println => Value::Text((print(&arguments, true) + "\n").into()),
        Function::Printf => match &arguments[0] {
            Value::Text(format) => Value::Text(printf(format, rest)?.into()),
            other => return Err(format!("wrong type for value; expected string; got {}", kind(other))),
        },
    })
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn equal(left: &Value<'_>, right: &Value<'_>) -> Result<bool, String> {
    match (left, right) {
        (Value::Map(_) | Value::Struct(..), _) | (_, Value::Map(_) | Value::Struct(..)) => {
            Err("non-comparable type".to_owned())
        }
        (Value::None, other) | (other, Value::None) => Ok(*other == Value::None),
        (Value::Bool(_), Value::Bool(_)) | (Value::Int(_), Value::Int(_)) | (Value::Text(_), Value::Text(_)) => {
            Ok(left == right)
        }
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn order(left: &Value<'_>, right: &Value<'_>) -> Result<Ordering, String> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Ok(left.cmp(right)),
        (Value::Text(left), Value::Text(right)) => Ok(left.cmp(right)),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

/// A missing entry of a map is the empty string here; of a string, the byte.
fn index<'d>(arguments: &[Value<'d>]) -> Result<Value<'d>, String> {
    let mut value = arguments[0].clone();
    for key in &arguments[1..] {
        value = match (&value, key) {
            (Value::Map(map), Value::Text(key)) => map.get(key.as_ref()).map_or("", String::as_str).into(),
            (Value::Text(text), Value::Int(at)) => {
                let byte = usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at));
                Value::Int(i64::from(*byte.ok_or_else(|| format!("index out of range: {at}"))?))
            }
            (Value::None, _) => return Err("index of untyped nil".to_owned()),
            (other, key) => return Err(format!("can't index item of type {} by {}", kind(other), kind(key))),
        };
    }
    Ok(value)
}

fn slice<'d>(arguments: &[Value<'d>]) -> Result<Value<'d>, String> {
    let Value::Text(text) = &arguments[0] else {
        return Err(format!("can't slice item of type {}", kind(&arguments[0])));
    };
    let mut bounds = [0, text.len()];
    if arguments.len() > 3 {
        return Err("cannot 3-index slice a string".to_owned());
    }
    for (bound, argument) in bounds.iter_mut().zip(&arguments[1..]) {
        *bound = match argument {
            Value::Int(at) => usize::try_from(*at).map_err(|_| format!("index out of range: {at}"))?,
            other => return Err(format!("cannot index slice/array with type {}", kind(other))),
        };
    }
    let part = text.get(bounds[0]..bounds[1]);
    let part = part.ok_or_else(|| format!("index out of range: {}:{}", bounds[0], bounds[1]))?;
    Ok(Value::Text(part.to_owned().into()))
}

/// Go's `Sprint` puts spaces between operands when neither is a string; `Sprintln` always.
fn print(arguments: &[Value<'_>], always_space: bool) -> String {
    let mut text = String::new();
    for (nth, argument) in arguments.iter().enumerate() {
        let is_text = |value: &Value<'_>| matches!(value, Value::Text(_));
        if nth > 0 && (always_space || !(is_text(argument) || is_text(&arguments[nth - 1]))) {
            text.push(' ');
        }
        let _infallible = write!(text, "{argument}");
    }
    text
}

/// `%s %v %d %q %t %%` with width, `-`, `0` and precision.
fn printf(format: &str, arguments: &[Value<'_>]) -> Result<String, String> {
    let mut text = String::new();
    let mut arguments = arguments.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let length = rest
            .find(|c: char| !matches!(c, '-' | '0'..='9' | '.'))
            .unwrap_or(rest.len());
        let (flags, after) = rest.split_at(length);
        let mut after = after.chars();
        let verb = after.next().ok_or("format ends in %")?;
        rest = after.as_str();
        if verb == '%' {
            text.push('%');
            continue;
        }
        let argument = arguments.next().ok_or_else(|| format!("no argument for %{verb}"))?;
        let mut piece = match (verb, argument) {
            ('s' | 'v', value @ Value::Text(_)) | ('v' | 'd', value @ Value::Int(_)) | ('v', value) => {
                value.to_string()
            }
            ('t', Value::Bool(value)) => value.to_string(),
            ('q', Value::Text(value)) => format!("{value:?}"),
            (verb, other) => return Err(format!("%{verb} does not print a {}", kind(other))),
        };
        let (width, precision) = flags.split_once('.').unwrap_or((flags, ""));
        if let Ok(precision) = precision.parse() {
            piece = piece.chars().take(precision).collect();
        }
        let width_value = width.trim_start_matches('-').parse::<usize>().unwrap_or(0).min(1024);
        text.push_str(&match (width.starts_with('-'), width.starts_with('0')) {
            (true, _) => format!("{piece:<width_value$}"),
            (false, true) => format!("{piece:0>width_value$}"),
            (false, false) => format!("{piece:>width_value$}"),
        });
    }
    text.push_str(rest);
    if arguments.next().is_some() {
        return Err("more arguments than verbs".to_owned());
    }
    Ok(text)
}
