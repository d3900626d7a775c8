//! Columns of text.

use ployz_api::text;

use crate::terminal;

/// Between columns.
const GAP: usize = 2;
/// A column that is cut further says nothing any more.
const COLUMN_MIN: usize = 4;

/// A table with a heading. Cells that are empty show a dash. A cell is one line, so that none makes a row of its own.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self {
            rows: vec![heading.iter().map(|&cell| cell.to_owned()).collect()],
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        let shown = |cell: String| {
            if cell.is_empty() {
                "—".to_owned()
            } else {
                text::line(&cell).into_owned()
            }
        };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// As wide as it is, or as the terminal.
    pub(crate) fn render(&self) -> String {
        self.render_within(terminal::width().unwrap_or(usize::MAX))
    }

    fn render_within(&self, max: usize) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths = (0..columns)
            .map(|column| {
                let widths = self.rows.iter().map(|row| width(row, column));
                widths.max().unwrap_or(0)
            })
            .collect();
        let widths = fit(widths, max);
        let lines: Vec<String> = self.rows.iter().map(|row| line(row, &widths)).collect();
        lines.join("\n")
    }
}

/// Takes from the widest column, again and again; when all are as narrow as can be, the last ones go.
fn fit(mut widths: Vec<usize>, max: usize) -> Vec<usize> {
    let total =
        |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    while total(&widths) > max && !widths.is_empty() {
        let is_last = widths.len() == 1;
        match widths.iter_mut().max() {
            Some(widest) if *widest > COLUMN_MIN => *widest -= 1,
            Some(_) | None if is_last => break,
            Some(_) | None => drop(widths.pop()),
        }
    }
    widths
}

fn width(row: &[String], column: usize) -> usize {
    row.get(column).map_or(0, |cell| cell.chars().count())
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().zip(widths);
    let padded: String = cells
        .map(|(cell, &width)| format!("{:<width$}{:GAP$}", cut(cell, width), ""))
        .collect();
    padded.trim_end().to_owned()
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    let kept: String = cell.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "AZ", "ID"]);
        table.row(vec![
            "machine-1".to_owned(),
            String::new(),
            "01JX3Z5E9V5R2K7Q8W4N6T1M0B".to_owned(),
        ]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let expected = "NAME       AZ  ID\nmachine-1  —   01JX3Z5E9V5R2K7Q8W4N6T1M0B";
        assert_eq!(table().render_within(usize::MAX), expected);
        assert_eq!(table().render_within(41), expected);
    }

    #[test]
    fn no_cell_makes_a_row_of_its_own() {
        let mut table = Table::new(&["NAME", "VERSION"]);
        table.row(vec!["m1".to_owned(), "1\nm2  0.1\u{1b}[1A".to_owned()]);
        let expected = "NAME  VERSION\nm1    1\u{fffd}m2  0.1\u{fffd}[1A";
        assert_eq!(table.render_within(usize::MAX), expected);
    }

    #[test]
    fn no_line_is_longer_than_the_terminal() {
        assert_eq!(
            table().render_within(28),
            "NAME       AZ  ID\nmachine-1  —   01JX3Z5E9V5R…"
        );
        for max in 1..50 {
            let text = table().render_within(max);
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(max.max(COLUMN_MIN)), "{max}:\n{text}");
        }
    }
}
