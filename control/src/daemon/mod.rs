//! The composition root: what the daemon is made of, what runs while it is in a network, and who ends it.

mod metrics;
mod participation;
pub(crate) mod run;
#[cfg(test)]
mod tests;
mod watchdog;
