//! The printer, and nothing else, writes to the terminal: data to stdout, everything else to stderr.

use std::cell::Cell;
use std::fmt;
use std::io::Write as _;

use ployz_api::{Code, text};
use serde_json::{Map, Value, json};

use crate::arguments::global::OutputArguments;
use crate::outcome::{Outcome, Success};
use crate::terminal;

#[derive(Debug)]
pub(crate) struct Printer {
    mode: Mode,
    quiet: bool,
    /// Documents take one line each, because there are several.
    is_stream: Cell<bool>,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    Text,
    Json,
    Plain,
}

/// The notes on stderr while a command runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notes {
    is_verbose: bool,
    has_progress: bool,
    has_stages: bool,
}

impl Notes {
    pub(crate) const SILENT: Self = Self {
        is_verbose: false,
        has_progress: false,
        has_stages: false,
    };

    pub(crate) fn new(arguments: &OutputArguments) -> Self {
        let is_wanted = !arguments.no_progress && !arguments.quiet;
        Self {
            is_verbose: arguments.verbose,
            has_progress: is_wanted && terminal::stderr_is_terminal(),
            has_stages: is_wanted,
        }
    }

    #[expect(clippy::print_stderr, reason = "this is what prints")]
    pub(crate) fn progress(self, text: &str) {
        if self.has_progress {
            eprintln!("{}", text::line(text));
        }
    }

    /// How far one of several is; said to a log as well.
    #[expect(clippy::print_stderr, reason = "this is what prints")]
    pub(crate) fn stage(self, of: impl fmt::Display, text: &str) {
        if self.has_stages {
            eprintln!("{}", text::line(&format!("{of}  {text}")));
        }
    }

    #[expect(clippy::print_stderr, reason = "this is what prints")]
    pub(crate) fn verbose(self, text: &str) {
        if self.is_verbose {
            eprintln!("{}", text::line(text));
        }
    }
}

impl Printer {
    /// A printer of JSON documents.
    pub(crate) const fn json() -> Self {
        Self {
            mode: Mode::Json,
            quiet: false,
            is_stream: Cell::new(false),
        }
    }

    pub(crate) fn new(arguments: &OutputArguments) -> Self {
        let mode = match (arguments.json, arguments.plain) {
            (true, _) => Mode::Json,
            (false, true) => Mode::Plain,
            (false, false) => Mode::Text,
        };
        Self {
            mode,
            quiet: arguments.quiet,
            is_stream: Cell::new(false),
        }
    }

    /// From now on there are several results, and a document is a line.
    pub(crate) fn begin_stream(&self) {
        self.is_stream.set(true);
    }

    /// As [`Self::print`], but on a terminal the new text replaces the former.
    pub(crate) fn print_again(&self, result: &Outcome) {
        if matches!(self.mode, Mode::Text) && !self.quiet && terminal::stdout_is_terminal() {
            self.print_clear();
        }
        self.print(result);
    }

    fn print_clear(&self) {
        // To the corner, and clear what comes (ECMA-48, 8.3.21 and 8.3.39).
        write_out("\x1b[H\x1b[2J");
    }

    #[expect(clippy::print_stderr, reason = "this is what prints")]
    pub(crate) fn print(&self, result: &Outcome) {
        if let Some(text) = self.stdout(result) {
            write_out(&format!("{text}\n"));
        }
        if let Some(text) = self.stderr(result) {
            eprintln!("{text}");
        }
    }

    fn stdout(&self, result: &Outcome) -> Option<String> {
        match (self.mode, result) {
            (Mode::Json | Mode::Text | Mode::Plain, Ok(success)) if success.is_silent() => None,
            (Mode::Json, _) if self.is_stream.get() => Some(escaped(&document(result).to_string())),
            (Mode::Json, _) => Some(escaped(&format!("{:#}", document(result)))),
            (Mode::Text | Mode::Plain, Err(_)) => None,
            (Mode::Text | Mode::Plain, Ok(_)) if self.quiet => None,
            (Mode::Text, Ok(success)) => Some(text::lines(&success.text).into_owned()),
            (Mode::Plain, Ok(success)) => Some(records(success)),
        }
    }

    fn stderr(&self, result: &Outcome) -> Option<String> {
        let (Mode::Text | Mode::Plain, Err(failure)) = (self.mode, result) else {
            return None;
        };
        let label = if terminal::stderr_has_colours() {
            "\x1b[1;31merror\x1b[0m"
        } else {
            "error"
        };
        let message = text::lines(&failure.message);
        let error = format!("{label} [{}]: {message}", failure.code);
        Some(match &failure.hint {
            Some(hint) => format!("{error}\nhint: {}", text::lines(hint)),
            None => error,
        })
    }
}

/// Ends the program if the reader of stdout has closed it, as `head` does.
fn write_out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    if written.and_then(|()| stdout.flush()).is_err() {
        std::process::exit(1);
    }
}

fn document(result: &Outcome) -> Value {
    match result {
        Ok(success) => {
            let Success {
                message, payload, ..
            } = success;
            let code = success.partial.unwrap_or(Code::Ok);
            json!({"ok": code == Code::Ok, "code": code, "message": message, "payload": payload})
        }
        Err(failure) => json!({
            "ok": false, "code": failure.code, "message": failure.message, "hint": failure.hint,
        }),
    }
}

/// A list is a line for each of its rows; everything else is one line.
fn records(success: &Success) -> String {
    let payload = &success.payload;
    let lists: Vec<&Vec<Value>> = [
        "rows",
        "invites",
        "credentials",
        "contexts",
        "checks",
        "events",
        "operations",
        "joined",
        "failed",
    ]
    .into_iter()
    .filter_map(|key| payload.get(key)?.as_array())
    .collect();
    if lists.is_empty() && payload.is_empty() {
        return format!("message={}", bare(&Value::from(success.message.as_str())));
    }
    if lists.is_empty() {
        return record(payload);
    }
    let rows = lists.into_iter().flatten().filter_map(Value::as_object);
    rows.map(record).collect::<Vec<_>>().join("\n")
}

/// Renders a line of `key=value`; nested objects are flattened with a dot.
fn record(payload: &Map<String, Value>) -> String {
    let mut words = Vec::new();
    for (key, value) in payload.iter().filter(|(key, _)| *key != "kind") {
        match value {
            Value::Object(parts) => {
                words.extend(
                    parts.iter().map(|(part, value)| {
                        format!("{}.{}={}", word(key), word(part), bare(value))
                    }),
                );
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                words.push(format!("{}={}", word(key), bare(value)));
            }
        }
    }
    words.join(" ")
}

/// A value without spaces is bare; others are quoted as in JSON, so that a line is a record whatever is in it.
fn bare(value: &Value) -> String {
    let is_plain = |text: &&str| !text.is_empty() && !text.contains(is_odd);
    let text = value.as_str().filter(is_plain);
    text.map_or_else(|| escaped(&value.to_string()), str::to_owned)
}

/// A key, which has no spaces whoever has written it.
fn word(key: &str) -> String {
    key.replace(is_odd, &text::REPLACEMENT.to_string())
}

/// Whether a character would end a word, or act on a terminal.
fn is_odd(c: char) -> bool {
    c.is_whitespace() || !text::is_printable(c) || c == '"' || c == '='
}

/// A document that may go to a terminal.
fn escaped(json: &str) -> String {
    text::escaped(json).into_owned()
}

#[cfg(test)]
mod tests {
    use ployz_api::Failure;

    use super::*;

    fn success() -> Outcome {
        let Value::Object(payload) = json!({"kind": "status", "peers": 2, "drops": {"spoof": 1}})
        else {
            unreachable!()
        };
        Ok(Success {
            text: "two peers".to_owned(),
            payload,
            ..Success::default()
        })
    }

    fn failure() -> Outcome {
        Err(Failure::new(Code::DaemonUnreachable, "no answer").hint("start it"))
    }

    #[test]
    fn each_mode_says_it_its_own_way() {
        let printer = |mode, quiet| Printer {
            mode,
            quiet,
            is_stream: Cell::new(false),
        };
        assert_eq!(
            printer(Mode::Text, false).stdout(&success()).as_deref(),
            Some("two peers")
        );
        let plain = printer(Mode::Plain, false).stdout(&success());
        assert_eq!(plain.as_deref(), Some("drops.spoof=1 peers=2"));
        assert_eq!(printer(Mode::Text, true).stdout(&success()), None);
        let json = printer(Mode::Json, true).stdout(&success()).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&json["ok"], &json["payload"]["kind"]),
            (&json!(true), &json!("status"))
        );
    }

    /// Whatever another machine has written, no mode lets it act on a terminal or begin a line.
    #[test]
    fn nothing_acts_on_a_terminal_in_any_mode() {
        let odd = "a\u{1b}[2J\u{9b}31m\u{202e}\u{200b}\u{7f}\r";
        let rows = json!([{ "version": odd, "x\ny=1 z\u{1b}": { "k\n\u{202e}": odd } }]);
        let Value::Object(payload) = json!({ "kind": "l", "rows": rows }) else {
            unreachable!()
        };
        let (message, text) = (odd.to_owned(), format!("1\t{odd}\n2"));
        let success = Ok(Success {
            message,
            text,
            payload: payload.clone(),
            ..Success::default()
        });
        let failure = Err(Failure::new(Code::Conflict, odd).hint(odd));
        for mode in [Mode::Text, Mode::Plain, Mode::Json] {
            for is_stream in [false, true] {
                let printer = Printer {
                    mode,
                    quiet: false,
                    is_stream: Cell::new(is_stream),
                };
                for result in [&success, &failure] {
                    for shown in [printer.stdout(result), printer.stderr(result)]
                        .iter()
                        .flatten()
                    {
                        let is_shown = |c| c == '\n' || c == '\t' || text::is_printable(c);
                        assert!(shown.chars().all(is_shown), "{mode:?} {shown:?}");
                    }
                }
                let lines = printer.stdout(&success).unwrap().lines().count();
                match (mode, is_stream) {
                    (Mode::Text, _) => assert_eq!(lines, 2),
                    (Mode::Plain, _) | (Mode::Json, true) => assert_eq!(lines, 1),
                    (Mode::Json, false) => {}
                }
                if let Mode::Json = mode {
                    let shown = printer.stdout(&success).unwrap();
                    let document: Value = serde_json::from_str(&shown).unwrap();
                    assert_eq!(document["payload"], Value::Object(payload.clone()));
                }
            }
        }
    }

    #[test]
    fn a_list_is_a_line_for_each_row() {
        let Value::Object(payload) = json!({"kind": "l", "rows": [{"id": 1}, {"id": 2}]}) else {
            unreachable!()
        };
        let list = Success {
            text: String::new(),
            payload,
            ..Success::default()
        };
        assert_eq!(records(&list), "id=1\nid=2");
    }

    #[test]
    fn failures_go_to_stderr_except_in_json() {
        let text = Printer {
            mode: Mode::Text,
            quiet: true,
            is_stream: Cell::new(false),
        };
        assert_eq!(text.stdout(&failure()), None);
        let expected = "error [DAEMON_UNREACHABLE]: no answer\nhint: start it";
        assert_eq!(text.stderr(&failure()).as_deref(), Some(expected));
        let json = Printer {
            mode: Mode::Json,
            quiet: false,
            is_stream: Cell::new(true),
        };
        assert_eq!(json.stdout(&failure()).unwrap().lines().count(), 1);
        assert_eq!(json.stderr(&failure()), None);
        let document: Value = serde_json::from_str(&json.stdout(&failure()).unwrap()).unwrap();
        assert_eq!(document["code"], "DAEMON_UNREACHABLE");
        assert_eq!(document["ok"], false);
    }
}
