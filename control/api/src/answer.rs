//! An answer as it comes from a machine: its document is parsed, and all text of it is cleaned.

use serde_json::Value;

use crate::response::Response;
use crate::text::clean;

/// The kinds of payload whose strings are content, not text: keys, scripts, lines of output and names of files. They
/// are used as they are, and shown by the printer's rules.
const CONTENT: [&str; 7] = [
    "credential",
    "redeemed",
    "renewed",
    "volume-bytes",
    "volume-entries",
    "workload-inspect",
    "workload-logs",
];

impl Response {
    /// Parses the document of an answer. Text in it is cleaned: it may be another machine's.
    ///
    /// # Errors
    /// If it is no answer that this version understands.
    pub fn parse(document: &[u8]) -> Result<Self, serde_json::Error> {
        let mut document: Value = serde_json::from_slice(document)?;
        clean_answer(&mut document);
        serde_json::from_value(document)
    }
}

/// Cleans the document of an answer, as it comes from another machine: its message and its hint, and all text of its
/// payload.
fn clean_answer(answer: &mut Value) {
    let Some(parts) = answer.as_object_mut() else {
        return;
    };
    for (name, part) in parts {
        let kind = part.get("kind").and_then(Value::as_str);
        let is_content = name == "payload" && kind.is_some_and(|kind| CONTENT.contains(&kind));
        if !is_content {
            clean(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_cleaned_but_for_its_content() {
        let mut answer = json!({
            "ok": true, "message": "a\u{1b}", "hint": "b\nc",
            "payload": { "kind": "machine-list", "rows": [{ "version": "1\u{202e}", "n\n": [1] }] },
        });
        clean_answer(&mut answer);
        let expected = json!({
            "ok": true, "message": "a\u{fffd}", "hint": "b\u{fffd}c",
            "payload": {
                "kind": "machine-list", "rows": [{ "version": "1\u{fffd}", "n\u{fffd}": [1] }],
            },
        });
        assert_eq!(answer, expected);
        let content = json!({
            "message": "", "payload": { "kind": "credential", "ca_pem": "a\nb\n" },
        });
        let mut answer = content.clone();
        clean_answer(&mut answer);
        assert_eq!(answer, content);
    }
}
