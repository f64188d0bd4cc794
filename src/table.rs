//! Columns as kubectl prints them: upper-case heads, three spaces between, nothing after the last.

/// Rows under their heads, aligned.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut heads.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn aligns_by_characters_and_leaves_no_blanks_at_the_end() {
        let rows = [
            vec!["a".to_owned(), String::new()],
            vec!["größer".to_owned(), "x".to_owned()],
        ];
        assert_eq!(super::table(&["NAME", "V"], &rows), "NAME     V\na\ngrößer   x\n");
    }
}
