//! Template text to pieces: plain text, and actions as tokens.

use super::Fault;

/// Plain text, or what stands between `{{` and `}}`, with the byte it starts at.
pub(super) enum Piece {
    Text(String),
    Action(usize, Vec<(usize, Token)>),
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Token {
    /// `.`
    Dot,
    /// `.Name`, without the dot. `joined`: nothing stands between it and the token before.
    Field {
        name: String,
        joined: bool,
    },
    /// `$` or `$name`, with the dollar.
    Variable(String),
    /// A keyword or function name.
    Word(String),
    Text(String),
    Int(i64),
    Open,
    Close,
    Pipe,
    Declare,
    Assign,
}

/// Cuts `source` into pieces; trims text beside `{{-` and `-}}`.
pub(super) fn lex(source: &str) -> Result<Vec<Piece>, Fault> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut trim_left = false;
    while let Some(found) = source[at..].find("{{") {
        let open = at + found;
        let mut inside = open + 2;
        let rest = &source[inside..];
        let trim_right = rest.starts_with('-') && rest[1..].starts_with(is_space);
        push_text(&mut pieces, &source[at..open], trim_left, trim_right);
        inside += 2 * usize::from(trim_right);

        if source[inside..].starts_with("/*") {
            let Some(end) = source[inside..].find("*/") else {
                return Fault::new(open, "unclosed comment");
            };
            let after = &source[inside + end + 2..];
            trim_left = after.starts_with(" -}}");
            if !trim_left && !after.starts_with("}}") {
                return Fault::new(open, "comment ends before closing delimiter");
            }
            at = inside + end + 2 + if trim_left { 4 } else { 2 };
            continue;
        }
        let mut action = Action {
            source,
            at: inside,
            tokens: Vec::new(),
        };
        trim_left = action.read(open)?;
        at = action.at;
        pieces.push(Piece::Action(open + 2, action.tokens));
    }
    push_text(&mut pieces, &source[at..], trim_left, false);
    Ok(pieces)
}

fn push_text(pieces: &mut Vec<Piece>, text: &str, trim_left: bool, trim_right: bool) {
    let text = if trim_left {
        text.trim_start_matches(is_space)
    } else {
        text
    };
    let text = if trim_right {
        text.trim_end_matches(is_space)
    } else {
        text
    };
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

struct Action<'a> {
    source: &'a str,
    at: usize,
    tokens: Vec<(usize, Token)>,
}

impl Action<'_> {
    /// Reads to behind `}}`; says whether it was `-}}`.
    fn read(&mut self, open: usize) -> Result<bool, Fault> {
        let mut spaced = true;
        loop {
            let rest = &self.source[self.at..];
            if rest.starts_with("}}") {
                self.at += 2;
                return Ok(false);
            }
            if spaced && rest.starts_with("-}}") {
                self.at += 3;
                return Ok(true);
            }
            let Some(first) = rest.chars().next() else {
                return Fault::new(open, "unclosed action");
            };
            let start = self.at;
            if is_space(first) {
                self.at += 1;
                spaced = true;
                continue;
            }
            let token = self.token(first, spaced)?;
            self.tokens.push((start, token));
            spaced = false;
        }
    }

    fn token(&mut self, first: char, spaced: bool) -> Result<Token, Fault> {
        let rest = &self.source[self.at..];
        let (length, token) = match first {
            '(' => (1, Token::Open),
            ')' => (1, Token::Close),
            '|' => (1, Token::Pipe),
            '=' => (1, Token::Assign),
            ':' if rest.starts_with(":=") => (2, Token::Declare),
            '.' | '$' => {
                let word = word(&rest[1..]);
                let token = match (first, word) {
                    ('.', "") => Token::Dot,
                    ('.', name) => Token::Field {
                        name: name.to_owned(),
                        joined: !spaced,
                    },
                    _ => Token::Variable(rest[..1 + word.len()].to_owned()),
                };
                (1 + word.len(), token)
            }
            '"' => quoted(rest)
                .ok_or(())
                .or_else(|()| Fault::new(self.at, "bad or unterminated quoted string"))?,
            '`' => match rest[1..].find('`') {
                Some(end) => (end + 2, Token::Text(rest[1..=end].to_owned())),
                None => return Fault::new(self.at, "unterminated raw quoted string"),
            },
            '+' | '-' | '0'..='9' => {
                let length = 1 + rest[1..]
                    .find(|c: char| !is_word(c) && c != '.')
                    .unwrap_or(rest.len() - 1);
                match integer(&rest[..length]) {
                    Some(value) => (length, Token::Int(value)),
                    None => return Fault::new(self.at, format!("{:?} is not a whole number", &rest[..length])),
                }
            }
            c if is_word(c) => (word(rest).len(), Token::Word(word(rest).to_owned())),
            c => return Fault::new(self.at, format!("unexpected {c:?} in action")),
        };
        self.at += length;
        Ok(token)
    }
}

fn word(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

fn integer(text: &str) -> Option<i64> {
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let radix = match digits.get(..2).unwrap_or(digits).to_ascii_lowercase().as_str() {
        "0x" => 16,
        "0o" => 8,
        "0b" => 2,
        _ => return format!("{sign}{digits}").parse().ok(),
    };
    i64::from_str_radix(&format!("{sign}{}", &digits[2..]), radix).ok()
}

/// A double-quoted string with Go's common escapes, and its length in the source.
fn quoted(text: &str) -> Option<(usize, Token)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((at + 1, Token::Text(value))),
            '\n' => return None,
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}
