//! Tokens to a tree: lists of nodes, pipelines of commands, commands of operands.

use std::iter::Peekable;
use std::vec::IntoIter;

use super::Fault;
use super::lex::{Piece, Token};

#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    /// `if`, or `with` when `rebinds` the dot.
    Branch {
        rebinds: bool,
        condition: Pipeline,
        then: Vec<Self>,
        otherwise: Vec<Self>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    /// `$name :=` (true) or `$name =` (false).
    pub(super) set: Option<(String, bool)>,
    pub(super) commands: Vec<Command>,
    pub(super) at: usize,
}

/// A function or value, and arguments.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) operands: Vec<Operand>,
    pub(super) at: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
    pub(super) at: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Function(Function),
    Text(String),
    Int(i64),
    Bool(bool),
    Nested(Box<Pipeline>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Len,
    Index,
    Slice,
    Print,
    Printf,
    Println,
}

pub(super) const FUNCTIONS: [(&str, Function); 15] = [
    ("and", Function::And),
    ("or", Function::Or),
    ("not", Function::Not),
    ("eq", Function::Eq),
    ("ne", Function::Ne),
    ("lt", Function::Lt),
    ("le", Function::Le),
    ("gt", Function::Gt),
    ("ge", Function::Ge),
    ("len", Function::Len),
    ("index", Function::Index),
    ("slice", Function::Slice),
    ("print", Function::Print),
    ("printf", Function::Printf),
    ("println", Function::Println),
];

type Tokens = Peekable<IntoIter<(usize, Token)>>;

pub(super) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, Fault> {
    let mut parser = Parser {
        pieces: pieces.into_iter(),
        variables: vec!["$".to_owned()],
    };
    match parser.list()? {
        (nodes, None) => Ok(nodes),
        (_, Some(stop)) => Fault::new(stop.at, format!("unexpected {{{{{}}}}}", stop.word)),
    }
}

struct Parser {
    pieces: IntoIter<Piece>,
    /// Names in scope, so that an undeclared one is an error of the template and not of one execution.
    variables: Vec<String>,
}

/// `{{else ..}}` or `{{end}}`, which end a list.
struct Stop {
    at: usize,
    word: String,
    rest: Tokens,
}

impl Parser {
    fn list(&mut self) -> Result<(Vec<Node>, Option<Stop>), Fault> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (at, tokens) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(at, tokens) => (at, tokens),
            };
            let mut tokens = tokens.into_iter().peekable();
            let keyword = match tokens.peek() {
                Some((_, Token::Word(word))) => word.clone(),
                _ => String::new(),
            };
            match keyword.as_str() {
                "else" | "end" => {
                    tokens.next();
                    return Ok((
                        nodes,
                        Some(Stop {
                            at,
                            word: keyword,
                            rest: tokens,
                        }),
                    ));
                }
                "if" | "with" => {
                    tokens.next();
                    nodes.push(self.branch(at, keyword == "with", tokens)?);
                }
                "range" | "define" | "template" | "block" | "break" | "continue" => {
                    return Fault::new(at, format!("{{{{{keyword}}}}} is not supported in templates of Knarr"));
                }
                _ => nodes.push(Node::Print(self.whole_pipeline(at, tokens)?)),
            }
        }
        Ok((nodes, None))
    }

    fn branch(&mut self, at: usize, rebinds: bool, tokens: Tokens) -> Result<Node, Fault> {
        let scope = self.variables.len();
        let condition = self.whole_pipeline(at, tokens)?;
        let (then, stop) = self.list()?;
        self.variables
            .truncate(scope + usize::from(matches!(condition.set, Some((_, true)))));
        let Some(mut stop) = stop else {
            return Fault::new(at, "unexpected end of template: {{end}} is missing");
        };
        let mut otherwise = Vec::new();
        if stop.word == "else" {
            match stop.rest.next() {
                None => {
                    let (nodes, end) = self.list()?;
                    otherwise = nodes;
                    match end {
                        None => return Fault::new(at, "unexpected end of template: {{end}} is missing"),
                        Some(end) if end.word == "else" => return Fault::new(end.at, "expected end; found {{else}}"),
                        Some(end) => stop = end,
                    }
                }
                // `{{else if}}` shares the outer `{{end}}`, which the nested branch has consumed.
                Some((at, Token::Word(word))) if word == "if" || (word == "with" && rebinds) => {
                    otherwise.push(self.branch(at, word == "with", stop.rest)?);
                    stop.rest = Vec::new().into_iter().peekable();
                }
                Some((at, _)) => return Fault::new(at, "unexpected token after else"),
            }
        }
        self.variables.truncate(scope);
        if let Some((at, _)) = stop.rest.next() {
            return Fault::new(at, "unexpected token after end");
        }
        Ok(Node::Branch {
            rebinds,
            condition,
            then,
            otherwise,
        })
    }

    fn whole_pipeline(&mut self, at: usize, mut tokens: Tokens) -> Result<Pipeline, Fault> {
        let pipeline = self.pipeline(at, &mut tokens)?;
        match tokens.next() {
            None => Ok(pipeline),
            Some((at, token)) => Fault::new(at, format!("unexpected {token:?} in action")),
        }
    }

    /// Up to the end or an unmatched `)`.
    fn pipeline(&mut self, at: usize, tokens: &mut Tokens) -> Result<Pipeline, Fault> {
        let set = match tokens.peek() {
            Some((_, Token::Variable(_))) => self.declaration(tokens),
            _ => None,
        };
        let mut commands = Vec::new();
        loop {
            let mut operands = Vec::new();
            while let Some((_, token)) = tokens.peek() {
                if matches!(token, Token::Pipe | Token::Close) {
                    break;
                }
                operands.push(self.operand(tokens)?);
            }
            let Some(first) = operands.first() else {
                return Fault::new(at, "missing value for command");
            };
            let is_literal = matches!(first.base, Base::Text(_) | Base::Int(_) | Base::Bool(_));
            if is_literal && !commands.is_empty() {
                return Fault::new(first.at, "non executable command in pipeline");
            }
            commands.push(Command { at: first.at, operands });
            if !matches!(tokens.peek(), Some((_, Token::Pipe))) {
                break;
            }
            tokens.next();
        }
        if let Some((name, true)) = &set {
            self.variables.push(name.clone());
        }
        Ok(Pipeline { set, commands, at })
    }

    fn declaration(&self, tokens: &mut Tokens) -> Option<(String, bool)> {
        let mut ahead = tokens.clone();
        let Some((_, Token::Variable(name))) = ahead.next() else {
            return None;
        };
        let declares = match ahead.next() {
            Some((_, Token::Declare)) => true,
            Some((_, Token::Assign)) if self.variables.contains(&name) => false,
            _ => return None,
        };
        *tokens = ahead;
        Some((name, declares))
    }

    fn operand(&mut self, tokens: &mut Tokens) -> Result<Operand, Fault> {
        let Some((at, token)) = tokens.next() else {
            return Fault::new(0, "missing operand");
        };
        let mut fields = Vec::new();
        let base = match token {
            Token::Dot => Base::Dot,
            Token::Field { name, .. } => {
                fields.push(name);
                Base::Dot
            }
            Token::Variable(name) if self.variables.contains(&name) => Base::Variable(name),
            Token::Variable(name) => return Fault::new(at, format!("undefined variable {name:?}")),
            Token::Text(text) => Base::Text(text),
            Token::Int(value) => Base::Int(value),
            Token::Word(word) if word == "true" || word == "false" => Base::Bool(word == "true"),
            Token::Word(word) => match FUNCTIONS.iter().find(|(name, _)| *name == word) {
                Some((_, function)) => Base::Function(*function),
                None => return Fault::new(at, format!("function {word:?} not defined")),
            },
            Token::Open => {
                let nested = self.pipeline(at, tokens)?;
                match tokens.next() {
                    Some((_, Token::Close)) => Base::Nested(Box::new(nested)),
                    _ => return Fault::new(at, "unclosed left paren"),
                }
            }
            token @ (Token::Close | Token::Pipe | Token::Declare | Token::Assign) => {
                return Fault::new(at, format!("unexpected {token:?} in operand"));
            }
        };
        while let Some((_, Token::Field { joined: true, .. })) = tokens.peek() {
            if let Some((_, Token::Field { name, .. })) = tokens.next() {
                fields.push(name);
            }
        }
        Ok(Operand { base, fields, at })
    }
}
