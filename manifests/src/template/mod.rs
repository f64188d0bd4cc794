//! Go's `text/template`, as far as the templates in Knative's ConfigMaps use it.
//!
//! Known: text, `{{- trim -}}`, comments, fields, variables, pipelines, parentheses, `if`, `with` and the functions
//! `and or not eq ne lt le gt ge len index slice print printf println`. Not known, and refused when parsed: `range`,
//! `define`, `template`, `block`, `html`, `js`, `urlquery`, `call`, and numbers with a fraction.
//!
//! A missing map entry prints `<no value>` as a field and nothing through `index`, as in Go.

mod eval;
mod lex;
mod parse;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {
    name: &'static str,
    source: String,
    nodes: Vec<parse::Node>,
}

/// What a template computes with.
#[derive(Clone, PartialEq, Debug)]
pub enum Value<'a> {
    /// Go's "no value": a map entry that is not there.
    None,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A string.
    Text(Cow<'a, str>),
    /// Labels, annotations.
    Map(&'a BTreeMap<String, String>),
    /// A struct: its Go type for error texts, and its fields.
    Struct(&'static str, Vec<(&'static str, Self)>),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

/// Why a template does not parse or does not execute, in Go's form: `template: NAME:LINE:COLUMN: what`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("template: {name}:{line}:{column}: {what}")]
pub struct TemplateError {
    name: &'static str,
    line: usize,
    column: usize,
    what: String,
}

impl Template {
    /// Parses `source`; `name` is for error texts.
    pub fn parse(name: &'static str, source: &str) -> Result<Self, TemplateError> {
        let nodes = lex::lex(source)
            .and_then(parse::parse)
            .map_err(|fault| fault.at(name, source))?;
        Ok(Self {
            name,
            source: source.to_owned(),
            nodes,
        })
    }

    /// A template that is only text.
    pub fn text(name: &'static str, text: &'static str) -> Self {
        Self {
            name,
            source: text.to_owned(),
            nodes: vec![parse::Node::Text(text.to_owned())],
        }
    }

    /// The text it was parsed from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Executes it with `data` as the dot.
    pub fn execute(&self, data: &Value<'_>) -> Result<String, TemplateError> {
        eval::run(&self.nodes, data).map_err(|fault| fault.at(self.name, &self.source))
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.source == other.source
    }
}

/// A fault at a byte of the source; becomes a [`TemplateError`] where the source is known.
#[derive(Debug)]
struct Fault {
    at: usize,
    what: String,
}

impl Fault {
    fn new<T>(at: usize, what: impl Into<String>) -> Result<T, Self> {
        Err(Self { at, what: what.into() })
    }

    fn at(self, name: &'static str, source: &str) -> TemplateError {
        let before = &source[..source.floor_char_boundary(self.at)];
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1);
        TemplateError {
            name,
            line,
            column,
            what: self.what,
        }
    }
}

/// As Go's `fmt.Print` writes it.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("<no value>"),
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Text(text) => text.fmt(f),
            Self::Map(map) => {
                f.write_str("map[")?;
                for (nth, (key, value)) in map.iter().enumerate() {
                    write!(f, "{}{key}:{value}", if nth == 0 { "" } else { " " })?;
                }
                f.write_str("]")
            }
            Self::Struct(_, fields) => {
                f.write_str("{")?;
                for (nth, (_, value)) in fields.iter().enumerate() {
                    write!(f, "{}{value}", if nth == 0 { "" } else { " " })?;
                }
                f.write_str("}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
