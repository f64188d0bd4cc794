//! A port number or a port name (Kubernetes: IntOrString).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A port number or a port name; 0 when not given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(i32),
    /// A name, or a number that was written in quotes.
    String(String),
}

impl IntOrString {
    /// The number, also from a string of digits; `None` for a name (Kubernetes: IntValue gives 0 there).
    pub fn int(&self) -> Option<i32> {
        match self {
            Self::Int(number) => Some(*number),
            Self::String(text) => text.parse().ok(),
        }
    }
}

impl Default for IntOrString {
    fn default() -> Self {
        Self::Int(0)
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::String(text) => text.fmt(f),
        }
    }
}
