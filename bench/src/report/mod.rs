//! The same record as a table, as Markdown, as JSON and as charts.

mod chart;
mod grid;
mod header;
pub(crate) mod json;
pub(crate) mod number;
mod svg;
mod table;
mod targets;

use anyhow::Result;

use crate::args::Output;
use crate::console;
use crate::record::Record;

/// Prints the record, and draws it where charts were asked for.
pub(crate) fn show(record: &Record, output: &Output) -> Result<()> {
    let table = table::of(record);
    let targets = Some(targets::of(record)).filter(|targets| !targets.rows.is_empty());
    if output.markdown {
        console::result(&header::markdown(record));
        console::result(&table.markdown());
        targets
            .iter()
            .for_each(|targets| console::result(&targets.markdown()));
    } else {
        console::result(&header::text(record));
        console::result(&format!("{}\n", table.text()));
        targets
            .iter()
            .for_each(|targets| console::result(&format!("{}\n", targets.text())));
    }
    if let Some(directory) = &output.charts {
        for file in chart::draw(record, directory)? {
            console::result(&format!("chart: {}", file.display()));
        }
    }
    Ok(())
}
