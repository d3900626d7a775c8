//! The store's server: a real `nats-server`, as a process of its own that outlives `ployzd`.

mod log;
mod process;
mod server;
mod settings;
mod version;

pub(crate) use server::{Certificates, DIRECTORY, NatsServer};
pub(crate) use settings::{
    CHANGED, EVENT_NEWS, NEWS, Settings, User, inbox_prefix, listing_subject,
};
pub(crate) use version::{Version, refuse_old};
