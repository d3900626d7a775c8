//! The store's server: a real `nats-server`, as a process or a unit of its own that outlives `ployzd`.

#[cfg(test)]
mod contract;
mod error;
mod log;
mod server;
mod settings;
mod unit;
mod users;
mod version;

pub(crate) use error::NatsError;
pub(crate) use server::{Certificates, DIRECTORY, FORMER_DIRECTORY, NEXT_DIRECTORY, NatsServer};
pub(crate) use settings::{
    CHANGED, EVENT_NEWS, EVENT_SUBJECTS, EVENTS, NEWS, Settings, User, inbox_prefix,
    instance_subject, listing_subject,
};
pub(crate) use unit::Unit;
pub(crate) use users::{StoreRole, own_user, store_settings};
pub(crate) use version::{Version, refuse_old};
