//! The newest initiation of each machine: a recording of it, or of an older one, is worth nothing after a restart.

use ployz_engine::Tai64n;
use serde::{Deserialize, Serialize};

/// The timestamp of an initiation, on disk in hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InitiationTime(pub Tai64n);

/// Text that is no timestamp.
#[derive(Debug, thiserror::Error)]
#[error("the timestamp of an initiation has 24 hexadecimal digits")]
pub struct InvalidInitiationTime;

impl TryFrom<String> for InitiationTime {
    type Error = InvalidInitiationTime;

    fn try_from(text: String) -> Result<Self, InvalidInitiationTime> {
        let time = Tai64n::from_hex(&text).ok_or(InvalidInitiationTime)?;
        Ok(Self(time))
    }
}

impl From<InitiationTime> for String {
    fn from(time: InitiationTime) -> Self {
        time.0.to_hex()
    }
}
