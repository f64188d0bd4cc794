//! YAML text to a tree of nodes with positions. Aliases and merges are resolved here, all within bounds.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::document::Place;
use super::surrogates;

/// Deepest nesting, aliases included. The deepest field of a resource lies at 16.
const MAX_DEPTH: usize = 64;
/// Most entries that merges (`<<`) may copy in one document.
const MAX_MERGED: usize = 100_000;

/// A value with its position.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) data: Data,
    height: usize,
}

/// What a value holds.
#[derive(Debug)]
pub(super) enum Data {
    Scalar(Scalar),
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

/// A scalar as written.
#[derive(Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Neither quoted nor a block: may be a number, a boolean or null.
    pub(super) plain: bool,
    /// Line by line as it stands there, behind `|`.
    pub(super) literal: bool,
    /// The suffix of a core tag: `str`, `int`, ...
    pub(super) tag: Option<String>,
}

/// One key of a map.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: Rc<Node>,
    /// The first entry of the same key, when this one is a double.
    pub(super) doubles: Option<Place>,
}

/// Text that is not YAML, or more than we take.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) hint: &'static str,
}

impl Node {
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar(scalar) if scalar.is_null())
    }
}

/// Parses the documents of a chunk whose first line has this number. Ends at the first syntax error.
pub(super) fn parse(chunk: &str, first_line: usize) -> Vec<Result<Rc<Node>, SyntaxError>> {
    let documents = parse_yaml(chunk, first_line);
    // Only what is not YAML is read as JSON's own: no valid text changes its meaning.
    let is_escape = |error: &SyntaxError| error.message.contains("Unicode character escape");
    match documents.last() {
        Some(Err(error)) if is_escape(error) => match surrogates::join(chunk) {
            Some(joined) => parse_yaml(&joined, first_line),
            None => documents,
        },
        _ => documents,
    }
}

fn parse_yaml(chunk: &str, first_line: usize) -> Vec<Result<Rc<Node>, SyntaxError>> {
    let mut parser = Parser::new_from_str(chunk);
    let mut documents = Vec::new();
    let mut builder = Builder::new(first_line);
    while let Some(event) = parser.next_event() {
        match builder.take(event) {
            Ok(Some(root)) => documents.push(Ok(root)),
            Ok(None) => {}
            Err(error) => {
                documents.push(Err(error));
                break;
            }
        }
    }
    documents
}

/// Folds the parser's events into nodes. The stack holds the collections that are open.
struct Builder {
    first_line: usize,
    stack: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    merged: usize,
}

struct Open {
    place: Place,
    anchor: usize,
    items: Vec<Rc<Node>>,
    is_map: bool,
}

impl Builder {
    fn new(first_line: usize) -> Self {
        Self {
            first_line,
            stack: Vec::new(),
            anchors: HashMap::new(),
            root: None,
            merged: 0,
        }
    }

    /// Takes one event; gives the root when it ends a document.
    fn take(&mut self, event: Result<(Event<'_>, Span), ScanError>) -> Result<Option<Rc<Node>>, SyntaxError> {
        let (event, span) = event.map_err(|error| self.not_yaml(&error))?;
        let place = self.place(&span);
        match event {
            Event::DocumentStart(_) => (self.anchors, self.root, self.merged) = (HashMap::new(), None, 0),
            Event::DocumentEnd => return Ok(self.root.take()),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(error(
                        place,
                        "the alias stands within the value it names",
                        "a value cannot contain itself",
                    ));
                };
                // The node keeps the place of its anchor; the field that uses it has its own, from its key.
                self.add(Rc::clone(node))?;
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let scalar = Scalar {
                    text: text.into_owned(),
                    plain,
                    literal: style == ScalarStyle::Literal,
                    tag: core_tag(tag.as_deref(), place)?,
                };
                self.finish(
                    anchor,
                    Node {
                        place,
                        data: Data::Scalar(scalar),
                        height: 0,
                    },
                )?;
            }
            Event::SequenceStart(anchor, tag) => self.open(place, anchor, tag.as_deref(), false)?,
            Event::MappingStart(anchor, tag) => self.open(place, anchor, tag.as_deref(), true)?,
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd => {}
        }
        Ok(None)
    }

    fn open(&mut self, place: Place, anchor: usize, tag: Option<&Tag>, is_map: bool) -> Result<(), SyntaxError> {
        core_tag(tag, place)?;
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(place));
        }
        self.stack.push(Open {
            place,
            anchor,
            items: Vec::new(),
            is_map,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), SyntaxError> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let height = open.items.iter().map(|node| node.height + 1).max().unwrap_or(0);
        let data = if open.is_map {
            Data::Map(self.entries(&open.items)?)
        } else {
            Data::List(open.items)
        };
        self.finish(
            open.anchor,
            Node {
                place: open.place,
                data,
                height,
            },
        )
    }

    fn finish(&mut self, anchor: usize, node: Node) -> Result<(), SyntaxError> {
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.add(node)
    }

    fn add(&mut self, node: Rc<Node>) -> Result<(), SyntaxError> {
        if self.stack.len() + node.height > MAX_DEPTH {
            return Err(too_deep(node.place));
        }
        match self.stack.last_mut() {
            Some(open) => open.items.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }

    /// Pairs keys with values, marks doubles, and puts merged entries behind the map's own.
    fn entries(&mut self, items: &[Rc<Node>]) -> Result<Vec<Entry>, SyntaxError> {
        let mut entries: Vec<Entry> = Vec::with_capacity(items.len() / 2);
        let mut first: HashMap<&str, Place> = HashMap::new();
        let mut merges = Vec::new();
        for pair in items.chunks_exact(2) {
            let Data::Scalar(key) = &pair[0].data else {
                return Err(error(
                    pair[0].place,
                    "a key must be text, not a list or a map",
                    "write `key: value`",
                ));
            };
            let place = pair[0].place;
            if key.plain && key.text == "<<" {
                merges.push(&pair[1]);
                continue;
            }
            let doubles = first.get(key.text.as_str()).copied();
            first.entry(&key.text).or_insert(place);
            entries.push(Entry {
                key: key.text.clone(),
                place,
                value: Rc::clone(&pair[1]),
                doubles,
            });
        }
        if merges.is_empty() {
            return Ok(entries);
        }
        let mut known: HashSet<String> = first.into_keys().map(str::to_owned).collect();
        for merge in merges {
            for source in merge_sources(merge)? {
                self.merged += source.len();
                if self.merged > MAX_MERGED {
                    return Err(error(
                        merge.place,
                        "merges copy more than 100,000 entries",
                        "write fewer `<<`",
                    ));
                }
                for entry in source {
                    if known.insert(entry.key.clone()) {
                        entries.push(Entry {
                            doubles: None,
                            ..entry.clone()
                        });
                    }
                }
            }
        }
        Ok(entries)
    }

    fn place(&self, span: &Span) -> Place {
        Place {
            line: self.first_line + span.start.line().saturating_sub(1),
            column: span.start.col() + 1,
        }
    }

    fn not_yaml(&self, error: &ScanError) -> SyntaxError {
        let place = self.place(&Span::empty(*error.marker()));
        if error.info() == "recursion limit exceeded" {
            return too_deep(place);
        }
        let tab = error.info().contains(" tab");
        let hint = if tab {
            "YAML is indented with spaces"
        } else {
            "check indentation, quotes and brackets here and just above"
        };
        SyntaxError {
            place,
            message: format!("not valid YAML: {}", error.info()),
            hint,
        }
    }
}

/// The maps that a `<<` names: one, or a list of them; earlier ones win.
fn merge_sources(merge: &Rc<Node>) -> Result<Vec<&[Entry]>, SyntaxError> {
    let wrong = || error(merge.place, "`<<` takes a map or a list of maps", "write `<<: *anchor`");
    match &merge.data {
        Data::Map(entries) => Ok(vec![entries.as_slice()]),
        Data::List(items) => items
            .iter()
            .map(|item| match &item.data {
                Data::Map(entries) => Ok(entries.as_slice()),
                _ => Err(wrong()),
            })
            .collect(),
        Data::Scalar(_) => Err(wrong()),
    }
}

/// Core tags are kept for scalars; the reader has no use for any other.
fn core_tag(tag: Option<&Tag>, place: Place) -> Result<Option<String>, SyntaxError> {
    match tag {
        None => Ok(None),
        Some(tag) if tag.is_yaml_core_schema() => Ok(Some(tag.suffix.clone())),
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(Some("str".to_owned())),
        Some(tag) => Err(error(
            place,
            format!("the tag `{tag}` has no meaning here"),
            "remove it",
        )),
    }
}

fn too_deep(place: Place) -> SyntaxError {
    error(place, "nested deeper than 64 levels", "no resource needs that")
}

fn error(place: Place, message: impl Into<String>, hint: &'static str) -> SyntaxError {
    SyntaxError {
        place,
        message: message.into(),
        hint,
    }
}
