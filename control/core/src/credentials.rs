//! The records of credentials: who has been certified, and who is believed no more.

use ployz_api::{CredentialId, CredentialRow, CredentialStatus, Name, Role};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::machines::RECORD_VERSION;

/// A credential in bucket `credentials`, under its id. It has nothing secret: the key is its holder's alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/protocol.md describes every field")]
pub struct CredentialRecord {
    pub version: u32,
    pub id: CredentialId,
    pub name: Option<Name>,
    pub role: Role,
    pub created_at: u64,
    /// The end of its validity, which its certificate states as well.
    pub expires_at: Option<u64>,
    pub revoked_at: Option<u64>,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl CredentialRecord {
    /// A credential that is good from now on.
    pub fn new(
        id: CredentialId,
        role: Role,
        name: Option<Name>,
        created_at: u64,
        ttl_secs: Option<u64>,
    ) -> Self {
        Self {
            version: RECORD_VERSION,
            id,
            name,
            role,
            created_at,
            expires_at: ttl_secs.map(|ttl| created_at.saturating_add(ttl)),
            revoked_at: None,
            unknown: Map::new(),
        }
    }

    /// The status at `now`, in seconds since 1970.
    pub fn status(&self, now: u64) -> CredentialStatus {
        if self.revoked_at.is_some() {
            CredentialStatus::Revoked
        } else if self.expires_at.is_some_and(|at| at <= now) {
            CredentialStatus::Expired
        } else {
            CredentialStatus::Active
        }
    }

    /// The record of a credential that is taken back; `None` if it has been before.
    #[must_use]
    pub fn revoke(&self, now: u64) -> Option<Self> {
        self.revoked_at.is_none().then(|| Self {
            revoked_at: Some(now),
            ..self.clone()
        })
    }

    /// As a list shows it.
    pub fn row(&self, now: u64) -> CredentialRow {
        CredentialRow {
            credential_id: self.id,
            name: self.name.clone(),
            role: self.role,
            status: self.status(now),
            created_at: self.created_at,
            expires_at: self.expires_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_good_until_its_time_is_over_or_somebody_says_so() {
        use CredentialStatus::{Active, Expired, Revoked};
        let id = CredentialId::new(1, 1);
        let for_ever = CredentialRecord::new(id, Role::Reader, None, 100, None);
        let brief = CredentialRecord::new(id, Role::Reader, None, 100, Some(10));
        let revoked = brief.revoke(105).unwrap();
        for (record, at, status) in [
            (&for_ever, u64::MAX, Active),
            (&brief, 109, Active),
            (&brief, 110, Expired),
            (&revoked, 105, Revoked),
            (&revoked, 111, Revoked),
        ] {
            assert_eq!(record.status(at), status, "at {at}");
        }
        assert_eq!(revoked.revoke(106), None, "and once is enough");
    }
}
