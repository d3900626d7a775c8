//! The identity in a certificate: a DNS name, `<subject>.<role>.<network>.ployz`. The certificate of a machine has more
//! names: those that it shares with others, and the one that its operator gave it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::MachineId;
use crate::name::Name;

/// The role of a certificate's holder; `ployz_core::permits` has the table of permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Admin,
    /// Everything but credentials and the network itself.
    Operator,
    /// Look, and change nothing.
    Reader,
    /// A machine of the network, for what machines do among themselves.
    Machine,
    /// A client without a certificate.
    Stranger,
}

impl Role {
    /// Every role, for tables and tests.
    pub const ALL: [Self; 5] = [
        Self::Admin,
        Self::Operator,
        Self::Reader,
        Self::Machine,
        Self::Stranger,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Reader => "reader",
            Self::Machine => "machine",
            Self::Stranger => "stranger",
        }
    }
}

/// The network of certificates that a daemon signs for its own host only.
pub const LOCAL_NETWORK: &str = "local";

/// The one DNS name of a certificate that says who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateName {
    /// A machine's id, or a person's name.
    pub subject: String,
    /// The role of the holder.
    pub role: Role,
    /// The network that vouches for it.
    pub network: String,
}

impl CertificateName {
    /// The name of one machine.
    pub fn machine(id: MachineId, network: &str) -> Self {
        Self {
            subject: id.to_string(),
            role: Role::Machine,
            network: network.to_owned(),
        }
    }

    /// The name under which every machine of a network answers, whichever it is.
    pub fn any_machine(network: &str) -> String {
        format!("{}.{}.ployz", Role::Machine.name(), network.to_lowercase())
    }

    /// The name under which every machine answers that holds the store, whichever it is.
    pub fn any_holder(network: &str) -> String {
        format!("holder.{}.ployz", network.to_lowercase())
    }

    /// The name of one machine that holds the store.
    pub fn holder(id: MachineId, network: &str) -> String {
        format!("{id}.holder.{network}.ployz").to_lowercase()
    }

    /// The name that an operator gave a machine.
    pub fn named(name: &Name, network: &str) -> String {
        format!("{name}.named.{network}.ployz").to_lowercase()
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subject, network) = (self.subject.to_lowercase(), self.network.to_lowercase());
        write!(f, "{subject}.{}.{network}.ployz", self.role.name())
    }
}

impl FromStr for CertificateName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split('.').collect();
        let [subject, role, network, "ployz"] = words[..] else {
            return Err(());
        };
        let role = Role::ALL
            .into_iter()
            .find(|candidate| *candidate != Role::Stranger && candidate.name() == role)
            .ok_or(())?;
        Ok(Self {
            subject: subject.to_owned(),
            role,
            network: network.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_nobody_is_certified_a_stranger() {
        for role in Role::ALL {
            let name = CertificateName {
                subject: "root".to_owned(),
                role,
                network: LOCAL_NETWORK.to_owned(),
            };
            let expected = if role == Role::Stranger {
                Err(())
            } else {
                Ok(name.clone())
            };
            assert_eq!(name.to_string().parse(), expected);
        }
        for other in [
            "",
            "machine.local.ployz",
            "a.b.c.d.ployz",
            "x.admin.local.example",
        ] {
            assert_eq!(other.parse::<CertificateName>(), Err(()), "{other}");
        }
    }
}
