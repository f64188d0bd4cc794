//! Values that differ from request to request: a table with a name for each column. Pure.

use std::sync::Arc;

/// A table; cheap to copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Data {
    columns: Arc<[String]>,
    rows: Arc<[Box<[String]>]>,
}

impl Data {
    /// Columns only: every arrival brings its own values.
    pub fn columns_only(columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            columns: columns.into_iter().map(Into::into).collect(),
            rows: Arc::new([]),
        }
    }

    /// Reads CSV (RFC 4180) whose first line names the columns.
    ///
    /// # Errors
    /// In words, with the line.
    pub fn from_csv(text: &[u8]) -> Result<Self, String> {
        let mut reader = csv::Reader::from_reader(text);
        let at = |error: csv::Error| match (error.position().map(csv::Position::line), error.kind()) {
            (Some(line), csv::ErrorKind::UnequalLengths { expected_len, len, .. }) => {
                format!("line {line}: {len} values, but the first line names {expected_len} columns")
            }
            (Some(line), _) => format!("line {line}: {error}"),
            (None, _) => error.to_string(),
        };
        let columns: Arc<[String]> = reader
            .headers()
            .map_err(at)?
            .iter()
            .map(|name| name.trim().to_owned())
            .collect();
        if columns.is_empty() || columns.iter().any(String::is_empty) {
            return Err("line 1: must name the columns, and none of them may be empty".to_owned());
        }
        if let Some((_, twice)) = columns
            .iter()
            .enumerate()
            .find(|(nth, name)| columns[..*nth].contains(name))
        {
            return Err(format!("line 1: two columns are called {twice:?}"));
        }
        let rows: Result<Arc<[Box<[String]>]>, _> = reader
            .records()
            .map(|record| {
                record
                    .map(|record| record.iter().map(str::to_owned).collect())
                    .map_err(at)
            })
            .collect();
        let rows = rows?;
        if rows.is_empty() {
            return Err("there is no line of values after the first, which names the columns".to_owned());
        }
        Ok(Self { columns, rows })
    }

    /// Names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// All rows; each as long as there are columns.
    pub(crate) fn rows(&self) -> &[Box<[String]>] {
        &self.rows
    }

    /// The row of the n-th request; empty when there are none.
    pub(crate) fn row(&self, nth: u64) -> &[String] {
        let count = self.rows.len() as u64;
        let index = nth.checked_rem(count).and_then(|index| usize::try_from(index).ok());
        index.map_or(&[], |index| &self.rows[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_csv_and_goes_round() {
        let data = Data::from_csv(b"user, id\nann,1\n\"b, \"\"ob\"\"\",2\n").expect("CSV");
        assert_eq!(data.columns(), ["user", "id"]);
        assert_eq!(data.row(1), ["b, \"ob\"", "2"]);
        assert_eq!((data.row(0), data.row(4)), (data.row(2), data.row(0)));
        assert_eq!(Data::columns_only(["a"]).row(3), [""; 0]);
    }

    #[test]
    fn says_which_line_is_wrong() {
        for (text, words) in [
            ("a,b\n1,2\n3\n", "line 3: 1 values, but the first line names 2 columns"),
            ("a,a\n1,2\n", "two columns are called \"a\""),
            ("a,\n1,2\n", "none of them may be empty"),
            ("", "line 1: must name the columns"),
            ("a\n", "no line of values"),
        ] {
            let error = Data::from_csv(text.as_bytes()).expect_err(text);
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
