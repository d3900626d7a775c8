//! Rows and columns, aligned for a terminal or for Markdown.

#[derive(Debug, Default)]
pub(crate) struct Grid {
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Grid {
    /// The first column is text, the others are right-aligned.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![self.line(&self.header)];
        lines.push("-".repeat(lines[0].chars().count()));
        lines.extend(self.rows.iter().map(|row| self.line(row)));
        lines.join("\n")
    }

    pub(crate) fn markdown(&self) -> String {
        let piped = |cells: &[String]| format!("| {} |", cells.join(" | "));
        let rule: Vec<String> = (0..self.header.len())
            .map(|at| if at == 0 { "---" } else { "---:" }.into())
            .collect();
        let mut lines = vec![piped(&self.header), piped(&rule)];
        lines.extend(self.rows.iter().map(|row| piped(row)));
        lines.join("\n") + "\n"
    }

    fn line(&self, cells: &[String]) -> String {
        let padded = cells.iter().enumerate().map(|(column, cell)| {
            let width = self.width(column);
            if column == 0 {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }

    fn width(&self, column: usize) -> usize {
        let cells = std::iter::once(&self.header).chain(&self.rows);
        cells
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let grid = Grid {
            header: words(&["metric", "a"]),
            rows: vec![words(&["tcp", "5.24"]), words(&["x", "1"])],
        };
        assert_eq!(
            grid.text(),
            "metric     a\n------------\ntcp     5.24\nx          1"
        );
        assert_eq!(
            grid.markdown(),
            "| metric | a |\n| --- | ---: |\n| tcp | 5.24 |\n| x | 1 |\n"
        );
    }
}
