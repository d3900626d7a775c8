//! The WireGuard userspace protocol (<https://www.wireguard.com/xplatform/>), by which `wg` shows and sets an
//! interface.
//!
//! [`parse`] and [`render`] know the text and do no I/O; [`Server`] carries it over a Unix socket and asks whatever
//! implements [`Interface`]. Of our own are two operations: `status=1`, which answers with lines of `key=value`, and
//! `measure=COUNT`, which tests the way to every peer so many times in quick succession.

mod interface;
pub(crate) mod literal;
mod operation;
pub mod parse;
pub mod render;
mod server;

pub use interface::{Interface, InterfaceDescription, InterfaceError};
pub use operation::Operation;
pub use server::{SOCKET_DIRECTORY, Server, ServerError};
