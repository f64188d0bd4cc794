//! TOML as a tree whose every field knows its path and its line, so that a mistake can be shown where it is. Pure.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file's text.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    text: &'a str,
    name: &'a str,
}

/// Where a field is.
#[derive(Clone)]
pub(super) struct Place<'a> {
    source: Source<'a>,
    path: String,
    start: usize,
}

/// A value and where it is.
pub(super) struct Field<'a> {
    pub(super) place: Place<'a>,
    value: DeValue<'a>,
}

/// A table whose fields are known.
pub(super) struct Table<'a> {
    pub(super) place: Place<'a>,
    fields: Vec<(String, Field<'a>)>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str, name: &'a str) -> Self {
        Self { text, name }
    }

    /// The whole file, a table of these fields.
    pub(super) fn parse(self, known: &[&str]) -> Result<Table<'a>, String> {
        let place = |start| Place {
            source: self,
            path: String::new(),
            start,
        };
        let table = DeTable::parse(self.text)
            .map_err(|error| place(error.span().map_or(0, |span: Range<usize>| span.start)).wrong(error.message()))?;
        Table::new(place(0), table.into_inner(), known)
    }
}

impl Place<'_> {
    /// `FILE:LINE: FIELD: what`.
    pub(super) fn wrong(&self, what: &str) -> String {
        let before = self.source.text.get(..self.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let separator = if self.path.is_empty() { "" } else { ": " };
        format!("{}:{line}: {}{separator}{what}", self.source.name, self.path)
    }

    fn within(&self, key: &str, start: usize) -> Self {
        let path = match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        Self {
            path,
            start,
            ..self.clone()
        }
    }
}

impl<'a> Table<'a> {
    fn new(place: Place<'a>, table: DeTable<'a>, known: &[&str]) -> Result<Self, String> {
        let mut fields = Vec::new();
        for (key, value) in table {
            let start = key.span().start;
            let key = key.into_inner().into_owned();
            if !known.is_empty() && !known.contains(&key.as_str()) {
                let near = match nearest(&key, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", known.join(", ")),
                };
                return Err(place.within(&key, start).wrong(&format!("unknown field; {near}")));
            }
            let field = Field {
                place: place.within(&key, start),
                value: value.into_inner(),
            };
            fields.push((key, field));
        }
        Ok(Self { place, fields })
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.fields.iter().any(|(name, _)| name == key)
    }

    /// A field, if it is there.
    pub(super) fn take(&mut self, key: &str) -> Option<Field<'a>> {
        let index = self.fields.iter().position(|(name, _)| name == key)?;
        Some(self.fields.swap_remove(index).1)
    }

    /// A field that must be there.
    pub(super) fn need(&mut self, key: &str, what: &str) -> Result<Field<'a>, String> {
        self.take(key)
            .ok_or_else(|| self.place.wrong(&format!("`{key}` is missing: {what}")))
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        self.take(key).map(|field| field.text("a text in quotes")).transpose()
    }

    /// A list that must be there and not be empty.
    pub(super) fn list(&mut self, key: &str, what: &str) -> Result<Vec<Field<'a>>, String> {
        let field = self.need(key, &format!("there must be {what}"))?;
        let place = field.place.clone();
        let list = field.list(what)?;
        if list.is_empty() {
            return Err(place.wrong(&format!("is empty, but there must be {what}")));
        }
        Ok(list)
    }

    /// All that were not taken, by name.
    pub(super) fn rest(self) -> Vec<(String, Field<'a>)> {
        self.fields
    }
}

impl<'a> Field<'a> {
    fn wrong(&self, must: &str) -> String {
        let is = match &self.value {
            DeValue::String(text) => format!("{text:?}"),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(time) => time.to_string(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.place.wrong(&format!("is {is}, but must be {must}"))
    }

    pub(super) fn text(self, must: &str) -> Result<String, String> {
        match self.value {
            DeValue::String(text) => Ok(text.into_owned()),
            _ => Err(self.wrong(must)),
        }
    }

    pub(super) fn boolean(self) -> Result<bool, String> {
        match self.value {
            DeValue::Boolean(value) => Ok(value),
            _ => Err(self.wrong("true or false")),
        }
    }

    /// At least `least` and finite.
    pub(super) fn number(self, least: f64, must: &str) -> Result<f64, String> {
        let number = match &self.value {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| {
                #[expect(clippy::cast_precision_loss, reason = "2^53 is out of reach")]
                let number = number as f64;
                number
            }),
            DeValue::Float(number) => number.as_str().parse().ok(),
            _ => None,
        };
        number
            .filter(|number: &f64| number.is_finite() && *number >= least)
            .ok_or_else(|| self.wrong(must))
    }

    pub(super) fn whole(self, least: u64, must: &str) -> Result<u64, String> {
        let number = match &self.value {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        number.filter(|number| *number >= least).ok_or_else(|| self.wrong(must))
    }

    pub(super) fn count(self, least: u64, must: &str) -> Result<usize, String> {
        let place = self.place.clone();
        let number = self.whole(least, must)?;
        usize::try_from(number).map_err(|_| place.wrong(&format!("is {number}, but must be {must}")))
    }

    /// Longer than zero.
    pub(super) fn duration(self) -> Result<Duration, String> {
        let read = match &self.value {
            DeValue::String(text) => humantime::parse_duration(text).ok(),
            _ => None,
        };
        read.filter(|duration| !duration.is_zero()).ok_or_else(|| {
            self.wrong("a duration in quotes that is more than zero, as in \"500ms\", \"10s\" or \"2m\"")
        })
    }

    pub(super) fn list(self, must: &str) -> Result<Vec<Self>, String> {
        match self.value {
            DeValue::Array(values) => {
                let mut all = Vec::new();
                for (nth, value) in values.into_iter().enumerate() {
                    let mut place = self.place.clone();
                    place.path = format!("{}[{nth}]", place.path);
                    place.start = Spanned::span(&value).start;
                    let value = value.into_inner();
                    all.push(Self { place, value });
                }
                Ok(all)
            }
            _ => Err(self.wrong(&format!("a list: {must}"))),
        }
    }

    pub(super) fn texts(self, must: &str) -> Result<Vec<String>, String> {
        self.list(must)?.into_iter().map(|field| field.text(must)).collect()
    }

    /// A table of these fields; of any when none is named.
    pub(super) fn table(self, known: &[&str], must: &str) -> Result<Table<'a>, String> {
        match self.value {
            DeValue::Table(table) => Table::new(self.place, table, known),
            _ => Err(self.wrong(must)),
        }
    }
}

/// The name that `word` was probably meant to be: at most a third of its letters differ.
pub(crate) fn nearest<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    let limit = (word.chars().count() / 3).max(1);
    let near = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), *name))
        .min();
    near.filter(|(distance, _)| *distance <= limit).map(|(_, name)| name)
}
