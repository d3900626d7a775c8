//! `ployzctl events`.

use ployz_api::{Event, Payload, Request};

use super::{date, unexpected};
use crate::arguments::EventsArguments;
use crate::connection::Connection;
use crate::outcome::{Outcome, Success};
use crate::printer::Printer;
use crate::table::Table;

pub(crate) fn run(
    connection: &Connection,
    printer: &Printer,
    arguments: &EventsArguments,
) -> Outcome {
    let request = Request::Events {
        follow: arguments.follow,
        limit: arguments.limit,
        machine: arguments.machine.clone(),
    };
    if arguments.follow {
        printer.begin_stream();
        connection.follow(&request, |answer| printer.print(&answer.and_then(shown)))?;
        return Ok(Success::default());
    }
    shown(connection.ask(&request)?)
}

fn shown(answer: ployz_api::Success) -> Outcome {
    let text = match &answer.payload {
        Some(Payload::EventList(list)) if list.events.is_empty() => "no events".to_owned(),
        Some(Payload::EventList(list)) => table(&list.events),
        Some(Payload::Event(event)) => cells(event).join("  "),
        Some(_) | None => return Err(unexpected()),
    };
    Ok(Success::new(answer.message, text, answer.payload.as_ref()))
}

fn table(events: &[Event]) -> String {
    let mut table = Table::new(&[
        "WHEN",
        "WRITTEN BY",
        "WHAT",
        "ABOUT",
        "HOW",
        "REPORTED CALLER",
    ]);
    for event in events {
        table.row(cells(event));
    }
    table.render()
}

/// The machine that wrote it is what the store vouches for; its caller is what that machine says.
fn cells(event: &Event) -> Vec<String> {
    let what = serde_json::to_value(event.operation).ok();
    let what = what.as_ref().and_then(|what| what.as_str());
    vec![
        date(event.at),
        event.machine.to_string(),
        what.unwrap_or_default().to_owned(),
        event.target.clone(),
        event.code.to_string(),
        format!("{} {}", event.role.name(), event.subject)
            .trim_end()
            .to_owned(),
    ]
}
