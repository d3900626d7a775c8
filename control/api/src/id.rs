//! ULIDs, one type for each thing that has one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

/// Text that is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 26 characters of Crockford's base 32, as in 01JX3Z5E9V5R2K7Q8W4N6T1M0B")]
pub struct InvalidId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// The id of a thing made at this time, told apart from others of that millisecond by chance.
            pub const fn new(unix_ms: u64, random: u128) -> Self {
                Self(Ulid::from_parts(unix_ms, random))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Ulid::from_string(&text.to_ascii_uppercase()).map(Self).map_err(|_| InvalidId)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// A machine, for as long as its data directory lives.
    MachineId
}
id! {
    /// A network of machines.
    NetworkId
}
id! {
    /// An invitation into a network.
    InviteId
}
id! {
    /// A certificate of a person's, or of what acts for one.
    CredentialId
}

id! {
    /// A workload on a machine: on another machine, or deployed again, it has another one.
    InstanceId
}
id! {
    /// A piece of long work.
    OperationId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_read_back_in_any_case() {
        let (early, late) = (MachineId::new(1, u128::MAX >> 48), MachineId::new(2, 0));
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(late.to_string().to_lowercase().parse(), Ok(late));
        assert_eq!("01".parse::<MachineId>(), Err(InvalidId));
    }
}
