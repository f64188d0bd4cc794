//! Texts of a container, of which parts are known only when a sandbox starts.
//!
//! ```text
//! manifest ─▶ convert: values, sources, $(VAR) ─▶ Text "http://{PodName}:{Port}/" ─▶ at start: Facts ─▶ "http://a-00001-x:8080/"
//! ```

use std::fmt;

use crate::units::{Bytes, Millicores};

/// A text with gaps; most have none.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Text(Vec<Part>);

/// A piece of a [`Text`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Part {
    /// As it is; never empty, never two in a row: equal texts have equal parts.
    Plain(String),
    Gap(Fact),
}

/// What is known when a sandbox starts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Fact {
    /// `metadata.name`: the sandbox's name.
    PodName,
    /// `metadata.uid`.
    PodUid,
    /// `spec.nodeName`: this machine's name.
    NodeName,
    /// The port the serving container must listen on; without isolation each sandbox has another one.
    Port,
    /// CPU that this machine can give: a limit that is asked for and not set.
    NodeCpu {
        /// In units of this many thousandths of a core, rounded up; at least 1.
        divisor: u64,
    },
    /// Memory that this machine can give: a limit that is asked for and not set.
    NodeMemory {
        /// In units of this many bytes, rounded up; at least 1.
        divisor: u64,
    },
}

/// The facts about one sandbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// [`Fact::PodName`].
    pub pod_name: String,
    /// [`Fact::PodUid`]; a UUID.
    pub pod_uid: String,
    /// [`Fact::NodeName`].
    pub node_name: String,
    /// [`Fact::Port`].
    pub port: u16,
    /// [`Fact::NodeCpu`].
    pub node_cpu: Millicores,
    /// [`Fact::NodeMemory`].
    pub node_memory: Bytes,
}

impl Facts {
    fn value(&self, fact: Fact) -> String {
        match fact {
            Fact::PodName => self.pod_name.clone(),
            Fact::PodUid => self.pod_uid.clone(),
            Fact::NodeName => self.node_name.clone(),
            Fact::Port => self.port.to_string(),
            Fact::NodeCpu { divisor } => u64::from(self.node_cpu.0).div_ceil(divisor.max(1)).to_string(),
            Fact::NodeMemory { divisor } => self.node_memory.0.div_ceil(divisor.max(1)).to_string(),
        }
    }
}

impl Text {
    /// The text without gaps, when it has none.
    pub fn plain(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Plain(text)] => Some(text),
            _ => None,
        }
    }

    /// With every gap filled.
    pub fn fill(&self, facts: &Facts) -> String {
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Plain(text) => filled.push_str(text),
                Part::Gap(fact) => filled.push_str(&facts.value(*fact)),
            }
        }
        filled
    }

    /// Whether the character is in it; what fills a gap is not looked at.
    pub fn contains(&self, wanted: char) -> bool {
        self.0
            .iter()
            .any(|part| matches!(part, Part::Plain(text) if text.contains(wanted)))
    }

    /// Whether there is nothing in it, nor will be.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a text without gaps at the end.
    pub fn push_str(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Plain(last)) => last.push_str(text),
            _ => self.0.push(Part::Plain(text.to_owned())),
        }
    }

    /// Adds another text at the end.
    pub fn push(&mut self, text: &Self) {
        for part in &text.0 {
            match part {
                Part::Plain(text) => self.push_str(text),
                Part::Gap(_) => self.0.push(part.clone()),
            }
        }
    }
}

impl From<Fact> for Text {
    fn from(fact: Fact) -> Self {
        Self(vec![Part::Gap(fact)])
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(if text.is_empty() {
            Vec::new()
        } else {
            vec![Part::Plain(text)]
        })
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.plain() == Some(*other)
    }
}

/// With gaps as `{PodName}`; the text is also what its parts' braces look like.
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Plain(text) => f.write_str(text),
            Part::Gap(fact) => write!(f, "{{{fact:?}}}"),
        })
    }
}

/// A quoted string, as if there were no gaps.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts() -> Facts {
        Facts {
            pod_name: "a-00001-x".to_owned(),
            pod_uid: "u".to_owned(),
            node_name: "box".to_owned(),
            port: 8080,
            node_cpu: Millicores(1500),
            node_memory: Bytes(3 << 20),
        }
    }

    #[test]
    fn every_fact_fills_its_gap() {
        let table = [
            (Fact::PodName, "a-00001-x"),
            (Fact::PodUid, "u"),
            (Fact::NodeName, "box"),
            (Fact::Port, "8080"),
            (Fact::NodeCpu { divisor: 1000 }, "2"),
            (Fact::NodeCpu { divisor: 1 }, "1500"),
            (Fact::NodeMemory { divisor: 1 << 20 }, "3"),
            (Fact::NodeMemory { divisor: (3 << 20) - 1 }, "2"),
        ];
        for (fact, want) in table {
            let mut text = Text::from("<");
            text.push(&fact.into());
            text.push_str(">");
            assert_eq!(text.fill(&facts()), format!("<{want}>"), "{fact:?}");
            assert_eq!(text.plain(), None);
        }
    }

    proptest! {
        #[test]
        fn however_a_text_is_put_together_it_is_the_same(pieces in proptest::collection::vec((".{0,4}", any::<bool>()), 0..6)) {
            let (mut text, mut again, mut want) = (Text::default(), Text::default(), String::new());
            for (piece, gap) in &pieces {
                let mut part = Text::from(piece.as_str());
                want.push_str(piece);
                if *gap {
                    part.push(&Fact::Port.into());
                    want.push_str("8080");
                }
                text.push(&part);
                piece.chars().for_each(|c| again.push_str(&c.to_string()));
                if *gap {
                    again.push(&Fact::Port.into());
                }
            }
            prop_assert_eq!(text.fill(&facts()), want);
            prop_assert_eq!(&text, &again);
            prop_assert_eq!(text.is_empty(), text.plain() == Some(""));
        }
    }
}
