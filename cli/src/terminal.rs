//! Properties of the terminal, if there is one.

use std::io::IsTerminal as _;

/// How many columns stdout has; none if it is no terminal.
pub(crate) fn width() -> Option<usize> {
    let (terminal_size::Width(width), _) = terminal_size::terminal_size_of(std::io::stdout())?;
    Some(width.into()).filter(|width| *width > 0)
}

/// Tells whether stdout is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Tells whether stderr is a terminal.
pub(crate) fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Tells whether stderr shows colours and `NO_COLOR` is unset (<https://no-color.org>).
pub(crate) fn stderr_has_colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    stderr_is_terminal() && !refused && !is_dumb
}
