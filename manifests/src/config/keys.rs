//! Reads the `data` of a ConfigMap key by key; what nobody asked for is an error with the nearest name.

use std::collections::BTreeMap;

/// The key under which Knative's ConfigMaps carry their documentation.
pub(super) const EXAMPLE: &str = "_example";

/// One thing that is wrong with a ConfigMap.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("data.{key}: {message}")]
pub struct ConfigError {
    /// The key in `data`.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub hint: String,
    /// The line of the value's text, from 1, where that is more than one.
    pub line: Option<usize>,
}

impl ConfigError {
    pub(super) fn new(key: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            message: message.into(),
            hint: hint.into(),
            line: None,
        }
    }
}

/// A reader that collects every error and knows which keys exist.
pub(super) struct Keys<'a> {
    data: &'a BTreeMap<String, String>,
    known: Vec<&'static str>,
    errors: Vec<ConfigError>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(data: &'a BTreeMap<String, String>) -> Self {
        Self {
            data,
            known: vec![EXAMPLE],
            errors: Vec::new(),
        }
    }

    /// The raw value of `key`, or of the name it had in earlier Knative versions.
    pub(super) fn text(&mut self, key: &'static str, former: &'static str) -> Option<&'a str> {
        self.known.push(key);
        if !former.is_empty() {
            self.known.push(former);
        }
        self.data.get(key).or_else(|| self.data.get(former)).map(String::as_str)
    }

    /// The parsed value of `key`, or `default` when it is not given. `parse` says what would be right.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        former: &'static str,
        default: T,
        parse: impl FnOnce(&'a str) -> Result<T, String>,
    ) -> T {
        let Some(text) = self.text(key, former) else {
            return default;
        };
        match parse(text) {
            Ok(value) => value,
            Err(hint) => {
                self.error(key, format!("invalid value {text:?}"), hint);
                default
            }
        }
    }

    pub(super) fn error(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.errors.push(ConfigError::new(key, message, hint));
    }

    pub(super) fn error_at(&mut self, key: &str, problem: crate::problem::Problem) {
        let line = problem.line;
        let error = ConfigError::new(key, problem.message, problem.hint);
        self.errors.push(ConfigError { line, ..error });
    }

    /// Adds an error for every key nobody asked for.
    pub(super) fn finish<T>(mut self, config: T) -> Result<T, Vec<ConfigError>> {
        for key in self.data.keys().filter(|key| !self.known.contains(&key.as_str())) {
            let hint = match crate::nearest(key, self.known.iter().copied()) {
                Some(nearest) => format!("did you mean {nearest:?}?"),
                None => String::new(),
            };
            self.errors.push(ConfigError::new(key, "unknown key", hint));
        }
        if self.errors.is_empty() {
            Ok(config)
        } else {
            Err(self.errors)
        }
    }
}

/// Go: `strconv.ParseBool`.
pub(super) fn flag(text: &str) -> Result<bool, String> {
    crate::golang::parse_bool(text).map_err(|_| "write \"true\" or \"false\"".to_owned())
}

/// One of a few words, in any case.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    match words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
        Some((_, value)) => Ok(*value),
        None => {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            Err(format!("write {}", words.join(" or ")))
        }
    }
}
