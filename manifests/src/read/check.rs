//! A tree against a schema: every unknown field, wrong type and double key, each at its place, and the JSON of what is right.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::document::Place;
use super::tree::{Data, Entry, Node, Scalar};
use super::words::{empty, expected, found, hint_for_type, is_time, whole};
use crate::nearest;
use crate::problem::Problem;
use crate::resources::{Base64, ObjectShape, Quantity, Shape};

/// Most values one document may have once aliases are written out.
const MAX_VALUES: usize = 200_000;
/// Most problems reported of one document; the rest is counted.
const MAX_PROBLEMS: usize = 200;

/// Where nobody means to write a field that is found nowhere else: output, and rare twins of common places.
const ASIDE: [&str; 4] = ["status", "managedFields", "initContainers", "volumes"];

/// Checks one document.
pub(super) struct Checker<'a> {
    file: &'a Arc<str>,
    index: usize,
    root: Shape,
    values: usize,
    pub(super) problems: Vec<Problem>,
    pub(super) places: HashMap<String, Place>,
    pub(super) damaged: Vec<String>,
    /// Where the first line of a text behind `|` stands.
    pub(super) texts: HashMap<String, usize>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(file: &'a Arc<str>, index: usize, root: Shape) -> Self {
        Self {
            file,
            index,
            root,
            values: 0,
            problems: Vec::new(),
            places: HashMap::new(),
            damaged: Vec::new(),
            texts: HashMap::new(),
        }
    }

    /// The whole document as JSON, without what is wrong.
    pub(super) fn object(&mut self, root: &Node) -> Value {
        let value = self.value(root, self.root, "", root.place).unwrap_or_default();
        if self.values > MAX_VALUES {
            self.report(
                "",
                root.place,
                "aliases expand to more than 200,000 values",
                "write fewer aliases",
            );
        }
        if self.problems.len() > MAX_PROBLEMS {
            let more = self.problems.len() - MAX_PROBLEMS;
            self.problems.truncate(MAX_PROBLEMS);
            let place = root.place;
            let problem = Problem::new(self.file, self.index, format!("and {more} problems more"));
            self.problems.push(problem.at(place.line, place.column));
        }
        value
    }

    /// One value as JSON, `None` when it is wrong or left out. `null` is "not given".
    fn value(&mut self, node: &Node, shape: Shape, path: &str, place: Place) -> Option<Value> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return None;
        }
        self.places.entry(path.to_owned()).or_insert(place);
        match (&node.data, shape) {
            (_, Shape::Any) => Some(self.any(node, path)),
            (Data::Map(entries), Shape::Object(object)) => Some(self.fields(entries, object, path)),
            (Data::Map(entries), Shape::Map(of)) => Some(self.keys(entries, *of, path)),
            (Data::List(items), Shape::List(of)) => Some(self.items(items, *of, path)),
            (Data::Scalar(scalar), _) => {
                // An alias stands where its anchor does.
                if scalar.literal && node.place.line >= place.line {
                    self.texts.insert(path.to_owned(), place.line + 1);
                }
                self.scalar(scalar, shape, path, place)
            }
            (Data::Map(_) | Data::List(_), _) => {
                let found = if matches!(node.data, Data::Map(_)) {
                    "an object"
                } else {
                    "a list"
                };
                let hint = match (&node.data, shape) {
                    (Data::Map(_), Shape::List(_)) => "begin each item with `- `",
                    (Data::List(_), Shape::Object(_) | Shape::Map(_)) => "remove the `- `",
                    _ => "",
                };
                self.report(
                    path,
                    place,
                    &format!("must be {}, found {found}", expected(shape)),
                    hint,
                );
                None
            }
        }
    }

    fn fields(&mut self, entries: &[Entry], object: &'static ObjectShape, path: &str) -> Value {
        let mut fields = Map::new();
        for entry in entries {
            let field_path = join(path, &entry.key);
            let Some(shape) = object.field(&entry.key) else {
                let hint = self.hint_for_unknown(&entry.key, object, path);
                self.report(
                    &field_path,
                    entry.place,
                    &format!("unknown field `{}`", entry.key),
                    &hint,
                );
                continue;
            };
            if self.is_double(entry, &field_path) {
                continue;
            }
            if let Some(value) = self.value(&entry.value, *shape, &field_path, entry.place) {
                fields.insert(entry.key.clone(), value);
            }
        }
        Value::Object(fields)
    }

    fn keys(&mut self, entries: &[Entry], of: Shape, path: &str) -> Value {
        let mut fields = Map::new();
        for entry in entries {
            let field_path = join(path, &entry.key);
            if self.is_double(entry, &field_path) {
                continue;
            }
            if entry.value.is_null() {
                self.report(
                    &field_path,
                    entry.place,
                    "has no value",
                    "write \"\" for an empty one, or remove the key",
                );
            } else if let Some(value) = self.value(&entry.value, of, &field_path, entry.place) {
                fields.insert(entry.key.clone(), value);
            }
        }
        Value::Object(fields)
    }

    fn items(&mut self, items: &[std::rc::Rc<Node>], of: Shape, path: &str) -> Value {
        let mut list = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let item_path = format!("{path}[{index}]");
            if item.is_null() {
                self.report(
                    &item_path,
                    item.place,
                    "the item is empty",
                    "write the item after `- `, or remove the dash",
                );
            }
            // A wrong item is kept as an empty one, so that the indices of the others stay true.
            let value = self.value(item, of, &item_path, item.place);
            list.push(value.filter(|value| !value.is_null()).unwrap_or_else(|| empty(of)));
        }
        Value::Array(list)
    }

    fn scalar(&mut self, scalar: &Scalar, shape: Shape, path: &str, place: Place) -> Option<Value> {
        let value = scalar.resolve();
        let fits = match (&value, shape) {
            (Value::Null, _) => return Some(Value::Null),
            (Value::String(_), Shape::String) | (Value::Bool(_), Shape::Bool) => true,
            (Value::String(text), Shape::Time) => is_time(text),
            (Value::String(text), Shape::Base64) => Base64(text.clone()).decode().is_some(),
            (Value::Number(_), Shape::Int(low, high)) => return self.integer(&value, low, high, path, place),
            (Value::Number(_), Shape::IntOrString) => {
                return self.integer(&value, i64::from(i32::MIN), i64::from(i32::MAX), path, place);
            }
            (Value::String(_), Shape::IntOrString) => true,
            (Value::String(text), Shape::Quantity) => text.parse::<Quantity>().is_ok(),
            (Value::Number(_), Shape::Quantity) => true,
            _ => false,
        };
        if fits {
            return Some(value);
        }
        let message = format!("must be {}, found {}", expected(shape), found(&value));
        self.report(path, place, &message, &hint_for_type(&value, scalar, shape));
        None
    }

    /// A number that must be whole and in range; `5.0` is 5, as it is for `kubectl`.
    fn integer(&mut self, value: &Value, low: i64, high: i64, path: &str, place: Place) -> Option<Value> {
        let whole = value
            .as_i64()
            .map(i128::from)
            .or_else(|| value.as_u64().map(i128::from))
            .or_else(|| whole(value));
        match whole {
            Some(whole) if (i128::from(low)..=i128::from(high)).contains(&whole) => {
                i64::try_from(whole).ok().map(Value::from)
            }
            Some(_) => {
                self.report(
                    path,
                    place,
                    &format!("{value} is out of range"),
                    &format!("must be {low} to {high}"),
                );
                None
            }
            None => {
                self.report(path, place, &format!("must be a whole number, found {value}"), "");
                None
            }
        }
    }

    /// JSON that nobody looks into.
    fn any(&mut self, node: &Node, path: &str) -> Value {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Value::Null;
        }
        match &node.data {
            Data::Scalar(scalar) => scalar.resolve(),
            Data::List(items) => Value::Array(items.iter().map(|item| self.any(item, path)).collect()),
            Data::Map(entries) => {
                let mut fields = Map::new();
                for entry in entries {
                    if !self.is_double(entry, &join(path, &entry.key)) {
                        fields.insert(entry.key.clone(), self.any(&entry.value, path));
                    }
                }
                Value::Object(fields)
            }
        }
    }

    fn is_double(&mut self, entry: &Entry, path: &str) -> bool {
        if let Some(first) = entry.doubles {
            let message = format!("`{}` is given twice, first in line {}", entry.key, first.line);
            self.report(path, entry.place, &message, "keep one");
        }
        entry.doubles.is_some()
    }

    fn report(&mut self, path: &str, place: Place, message: &str, hint: &str) {
        let problem = Problem::new(self.file, self.index, message).on(path);
        self.problems.push(problem.at(place.line, place.column).hint(hint));
        self.damaged.push(path.to_owned());
    }

    /// Where an unknown field may belong: here under another name, or elsewhere under this one.
    fn hint_for_unknown(&self, key: &str, object: &ObjectShape, path: &str) -> String {
        let names = || object.fields.iter().map(|field| field.name);
        if let Some(name) = names().find(|name| name.eq_ignore_ascii_case(key)) {
            return format!("did you mean `{name}`?");
        }
        if let Some(elsewhere) = elsewhere(self.root, key, path) {
            return format!("`{key}` belongs in {elsewhere}");
        }
        if let Some(name) = nearest(key, names()) {
            return format!("did you mean `{name}`?");
        }
        if object.fields.len() <= 8 {
            format!("known here: {}", names().collect::<Vec<_>>().join(", "))
        } else {
            String::new()
        }
    }
}

/// The object nearest to the root that has a field `key`, in the user's part of the resource.
fn elsewhere(root: Shape, key: &str, path: &str) -> Option<String> {
    let mut level = vec![(String::new(), root)];
    while !level.is_empty() {
        let mut next = Vec::new();
        for (at, shape) in level {
            match shape {
                Shape::Object(object) => {
                    if object.field(key).is_some() && generic(&at) != generic(path) {
                        return Some(if at.is_empty() {
                            "the document itself".to_owned()
                        } else {
                            at
                        });
                    }
                    let fields = object.fields.iter().filter(|field| !ASIDE.contains(&field.name));
                    next.extend(fields.map(|field| (join(&at, field.name), field.shape)));
                }
                Shape::List(of) => next.push((format!("{at}[]"), *of)),
                _ => {}
            }
        }
        level = next;
    }
    None
}

/// A path without its indices.
fn generic(path: &str) -> String {
    let mut inside = false;
    path.chars()
        .filter(|c| {
            inside = *c == '[' || (inside && *c != ']');
            !inside && *c != ']'
        })
        .collect()
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
