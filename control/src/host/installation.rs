//! The installation that this daemon is part of.

use ployz_install::Layout;

/// None if the daemon was started by hand, beside an installation or without one.
pub(crate) fn own() -> Option<Layout> {
    let layout = Layout::system();
    let program = std::env::current_exe().ok()?;
    layout.holds(&program).then_some(layout)
}
