//! A CSV file with named columns, read row by row; what is wrong is said with file, line and column.

use std::io::Read;
use std::str::FromStr;

use csv::{Reader, ReaderBuilder, StringRecord};

use super::TraceError;

pub(super) struct Table<R> {
    file: String,
    heads: StringRecord,
    reader: Reader<R>,
}

/// A column of a table.
#[derive(Clone, Copy)]
pub(super) struct Column(usize);

impl<R: Read> Table<R> {
    /// `file` is for what is said of it.
    pub(super) fn new(file: &str, read: R) -> Result<Self, TraceError> {
        let mut reader = ReaderBuilder::new()
            .trim(csv::Trim::All)
            .comment(Some(b'#'))
            .from_reader(read);
        let heads = reader.headers().map_err(|error| wrong(file, error))?.clone();
        Ok(Self {
            file: file.to_owned(),
            heads,
            reader,
        })
    }

    pub(super) fn heads(&self) -> &StringRecord {
        &self.heads
    }

    pub(super) fn column(&self, name: &str) -> Result<Column, TraceError> {
        let index = self.heads.iter().position(|head| head == name);
        index.map(Column).ok_or_else(|| self.missing(name))
    }

    /// The error of a column that is not there, or not where it should be.
    pub(super) fn missing(&self, name: &str) -> TraceError {
        let mut there: Vec<_> = self.heads.iter().take(8).collect();
        if self.heads.len() > there.len() {
            there.push("...");
        }
        TraceError::Column {
            file: self.file.clone(),
            column: name.to_owned(),
            there: there.join(", "),
        }
    }

    pub(super) fn row(&mut self) -> Result<Option<StringRecord>, TraceError> {
        let mut row = StringRecord::new();
        let more = self
            .reader
            .read_record(&mut row)
            .map_err(|error| wrong(&self.file, error))?;
        Ok(more.then_some(row))
    }

    /// A cell that holds a number.
    pub(super) fn number<T: FromStr>(
        &self,
        row: &StringRecord,
        Column(index): Column,
        wanted: &'static str,
    ) -> Result<T, TraceError> {
        let cell = row.get(index).unwrap_or_default();
        cell.parse().map_err(|_| self.cell(row, Column(index), wanted))
    }

    /// The error of a cell that does not hold what it should.
    pub(super) fn cell(&self, row: &StringRecord, Column(index): Column, wanted: &'static str) -> TraceError {
        TraceError::Cell {
            file: self.file.clone(),
            line: row.position().map_or(0, csv::Position::line),
            column: self.heads.get(index).unwrap_or_default().to_owned(),
            said: row.get(index).unwrap_or_default().to_owned(),
            wanted,
        }
    }
}

/// The text of a cell.
pub(super) fn text(row: &StringRecord, Column(index): Column) -> &str {
    row.get(index).unwrap_or_default()
}

fn wrong(file: &str, error: csv::Error) -> TraceError {
    TraceError::Csv {
        file: file.to_owned(),
        error,
    }
}
