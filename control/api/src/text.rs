//! Text that somebody else has written: the part of it that may be shown.
//!
//! A name, a version or a message of another machine can hold control sequences that move an operator's cursor, line
//! breaks that begin a row of their own, and characters without a glyph that reorder or hide what is next to them. Such
//! text is cleaned where it enters, and once more by the printer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Stands for a character that is not shown, and is as wide as one that is.
pub const REPLACEMENT: char = '\u{fffd}';
/// Stands for the end of a text that was cut.
const ELLIPSIS: char = '…';

/// Characters that change how text around them is shown and have no glyph of their own: Unicode's
/// `Default_Ignorable_Code_Point`, the other format characters, and the separators of lines and paragraphs.
const INVISIBLE: [RangeInclusive<char>; 20] = [
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{70f}'..='\u{70f}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{110bd}'..='\u{110cd}',
    '\u{13430}'..='\u{1345f}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

/// Whether a character may go to a terminal as it is.
pub fn is_printable(c: char) -> bool {
    c.is_ascii_graphic() || c == ' ' || !(c.is_control() || is_invisible(c))
}

fn is_invisible(c: char) -> bool {
    INVISIBLE.iter().any(|range| range.contains(&c))
}

/// The text as one line of printable characters.
pub fn line(text: &str) -> Cow<'_, str> {
    replaced(text, is_printable)
}

/// The text with its line breaks and tabs, and otherwise of printable characters.
pub fn lines(text: &str) -> Cow<'_, str> {
    replaced(text, |c| c == '\n' || c == '\t' || is_printable(c))
}

fn replaced(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&is_kept) {
        return Cow::Borrowed(text);
    }
    let shown = text.chars();
    Cow::Owned(
        shown
            .map(|c| if is_kept(c) { c } else { REPLACEMENT })
            .collect(),
    )
}

/// One line of printable characters, of at most so many bytes.
pub fn bounded(text: &str, len_max: usize) -> String {
    // No more is looked at than can be kept: a replacement is no shorter than any control character.
    let mut shown = String::new();
    for c in text.chars() {
        let c = if is_printable(c) { c } else { REPLACEMENT };
        if shown.len() + c.len_utf8() > len_max {
            while shown.len() + ELLIPSIS.len_utf8() > len_max && shown.pop().is_some() {}
            shown.push(ELLIPSIS);
            break;
        }
        shown.push(c);
    }
    shown
}

/// A JSON document in which every character that may not go to a terminal is escaped; it means the same.
pub fn escaped(json: &str) -> Cow<'_, str> {
    let is_kept = |c| c == '\n' || is_printable(c);
    if json.chars().all(is_kept) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if is_kept(c) {
            shown.push(c);
            continue;
        }
        // Beyond the first 65,536, JSON has two of them (RFC 8259, section 7).
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            shown += &format!("\\u{unit:04x}");
        }
    }
    Cow::Owned(shown)
}

/// Cleans every text of a document, and the names of its fields.
pub fn clean(document: &mut Value) {
    match document {
        Value::String(text) => {
            if let Cow::Owned(shown) = line(text) {
                *text = shown;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(clean),
        Value::Object(fields) => clean_fields(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// As [`clean`], of an object.
pub fn clean_fields(fields: &mut Map<String, Value>) {
    fields.values_mut().for_each(clean);
    if fields
        .keys()
        .any(|name| matches!(line(name), Cow::Owned(_)))
    {
        let named = std::mem::take(fields).into_iter();
        fields.extend(named.map(|(name, value)| (line(&name).into_owned(), value)));
    }
}

/// Text that a record has of another machine, in one of its forms.
pub trait Text {
    /// The same with lines of printable characters, each of at most so many bytes.
    #[must_use]
    fn bounded(self, len_max: usize) -> Self;
}

impl Text for String {
    fn bounded(self, len_max: usize) -> Self {
        bounded(&self, len_max)
    }
}

impl Text for Option<String> {
    fn bounded(self, len_max: usize) -> Self {
        self.map(|text| text.bounded(len_max))
    }
}

impl Text for BTreeMap<String, String> {
    fn bounded(self, len_max: usize) -> Self {
        let both = |(key, value): (String, String)| (key.bounded(len_max), value.bounded(len_max));
        self.into_iter().map(both).collect()
    }
}

/// Parses text of another machine: `#[serde(deserialize_with = "text::parse::<64, _, _>")]`.
///
/// # Errors
/// If it is no such text.
pub fn parse<'de, const LEN_MAX: usize, D: Deserializer<'de>, T: Text + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(T::deserialize(deserializer)?.bounded(LEN_MAX))
}

/// Parses the fields of a record that this version does not know.
///
/// # Errors
/// If they are no fields.
pub fn parse_fields<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Map<String, Value>, D::Error> {
    let mut fields = Map::deserialize(deserializer)?;
    clean_fields(&mut fields);
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What each does to a terminal, and how it is shown.
    #[test]
    fn what_acts_on_a_terminal_is_replaced() {
        for (text, shown) in [
            ("web-1 (ä, 漢, €)", "web-1 (ä, 漢, €)"),
            ("\u{1b}[2J", "\u{fffd}[2J"),
            ("\u{1b}]0;title\u{7}", "\u{fffd}]0;title\u{fffd}"),
            ("\u{9b}31m", "\u{fffd}31m"),
            ("a\nb\r\tc\u{7f}", "a\u{fffd}b\u{fffd}\u{fffd}c\u{fffd}"),
            ("\u{202e}drowssap\u{202c}", "\u{fffd}drowssap\u{fffd}"),
            ("\u{2066}a\u{2069}", "\u{fffd}a\u{fffd}"),
            ("ad\u{200b}min", "ad\u{fffd}min"),
            ("\u{feff}a\u{2028}b\u{e0041}", "\u{fffd}a\u{fffd}b\u{fffd}"),
            ("a\u{ad}b\u{3164}\u{fe0f}", "a\u{fffd}b\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(line(text), shown, "{text:?}");
        }
        assert_eq!(lines("a\n\tb\r\u{1b}"), "a\n\tb\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_text_is_cut_where_a_character_ends() {
        for (text, len_max, shown) in [
            ("", 0, ""),
            ("abc", 3, "abc"),
            ("abcdef", 5, "ab…"),
            ("ääää", 6, "ä…"),
            ("\u{1b}\u{1b}\u{1b}", 6, "\u{fffd}…"),
        ] {
            assert_eq!(bounded(text, len_max), shown, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_document_means_the_same_and_no_terminal_obeys_it(
            text in any::<String>(),
            odd in prop::sample::select(vec!['\u{9b}', '\u{202e}', '\u{e0041}', '\u{7f}', '\n']),
        ) {
            let value = json!({ "text": format!("{text}{odd}"), "pretty": [1] });
            for json in [value.to_string(), format!("{value:#}")] {
                let shown = escaped(&json);
                prop_assert!(shown.chars().all(|c| c == '\n' || is_printable(c)));
                prop_assert_eq!(&serde_json::from_str::<Value>(&shown).unwrap(), &value);
            }
        }

        #[test]
        fn a_bounded_text_is_printable_and_no_longer(text in any::<String>(), len_max in 3..80_usize) {
            let shown = bounded(&text, len_max);
            prop_assert!(shown.len() <= len_max && shown.chars().all(is_printable));
            prop_assert_eq!(bounded(&shown, len_max), shown);
        }
    }
}
