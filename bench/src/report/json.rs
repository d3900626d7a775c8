//! The record as a file.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::record::Record;

pub(crate) fn write(record: &Record, file: &Path) -> Result<()> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    let text = serde_json::to_string_pretty(record)?;
    std::fs::write(file, text + "\n").with_context(|| file.display().to_string())
}

pub(crate) fn read(file: &Path) -> Result<Record> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let record: Record = serde_json::from_str(&text).context("this is no record of ployz-bench")?;
    if record.schema != Record::SCHEMA {
        bail!(
            "the record has schema {}, this program reads {}",
            record.schema,
            Record::SCHEMA
        );
    }
    Ok(record)
}
