//! An invite and what can happen to it.
//!
//! ```text
//!             redeem                       (the same machine again: still consumed, and let in)
//!   active ────────────▶ consumed ◀─┐
//!     │ │                    └──────┘
//!     │ └── revoke ─────▶ revoked ◀── revoke
//!     └──── time ───────▶ expired        (computed when it is read, never stored)
//! ```
//!
//! There is no way back to active, and a record is never deleted: single use means single use for ever. A machine that
//! was removed after it had used its invite is another machine to that invite.

use std::collections::BTreeMap;

use ployz_api::{
    Code, Failure, InviteId, InviteRequest, InviteRow, InviteStatus, LabelKey, LabelValue,
    Lifecycle, MachineId, Name, fingerprint,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::machines::RECORD_VERSION;

/// An invite in bucket `invites`, under its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRecord {
    version: u32,
    id: InviteId,
    /// SHA-256 of the secret: the store never holds the secret itself.
    secret_digest: String,
    created_at: u64,
    expires_at: u64,
    /// The name of the machine that uses it.
    name: Option<Name>,
    /// Its region, whatever it says itself.
    #[serde(default)]
    region: Option<Name>,
    #[serde(default)]
    labels: BTreeMap<LabelKey, LabelValue>,
    /// Whether it is on standby when it has joined.
    #[serde(default)]
    standby: bool,
    #[serde(default)]
    consumed_by: Option<MachineId>,
    /// The revision in `machines` by which that machine had been removed before, if it had been.
    #[serde(default)]
    removed_before: Option<u64>,
    #[serde(default)]
    revoked_at: Option<u64>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// The way in which an invite admits a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redemption {
    /// For the first time: the record has to be written before anything else happens.
    Consume(Box<InviteRecord>),
    /// This machine has been here before and did not hear the answer.
    Again,
}

/// The reason why an invite admits no machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteRefusal {
    /// There is no such invite, or the secret is wrong: a stranger is not told which.
    #[error("there is no such invite")]
    Invalid,
    /// Its time is over.
    #[error("the invite has expired")]
    Expired,
    /// Another machine has used it.
    #[error("the invite has been used by another machine")]
    Consumed,
    /// The invite was revoked.
    #[error("the invite has been revoked")]
    Revoked,
}

impl From<InviteRefusal> for Failure {
    fn from(refusal: InviteRefusal) -> Self {
        let code = match refusal {
            InviteRefusal::Invalid => Code::InviteInvalid,
            InviteRefusal::Expired => Code::InviteExpired,
            InviteRefusal::Consumed => Code::InviteConsumed,
            InviteRefusal::Revoked => Code::InviteRevoked,
        };
        Self::new(code, refusal.to_string())
            .hint("ployzctl machine invite create (on a machine of the network)")
    }
}

impl InviteRecord {
    /// A new one, with the [`secret_digest`] of its secret.
    pub fn new(
        id: InviteId,
        secret_digest: String,
        created_at: u64,
        request: InviteRequest,
    ) -> Self {
        Self {
            version: RECORD_VERSION,
            id,
            secret_digest,
            created_at,
            expires_at: created_at.saturating_add(request.ttl_secs),
            name: request.name,
            region: request.region,
            labels: request.labels,
            standby: request.standby,
            consumed_by: None,
            removed_before: None,
            revoked_at: None,
            unknown: Map::new(),
        }
    }

    /// The status at this time.
    pub const fn status(&self, unix_secs: u64) -> InviteStatus {
        if self.consumed_by.is_some() {
            InviteStatus::Consumed
        } else if self.revoked_at.is_some() {
            InviteStatus::Revoked
        } else if unix_secs >= self.expires_at {
            InviteStatus::Expired
        } else {
            InviteStatus::Active
        }
    }

    /// A machine shows a secret. If it has been removed from the network, `removed` is the revision in `machines` that
    /// says so: only a removal that the invite has not seen makes it of no more use.
    ///
    /// # Errors
    /// [`InviteRefusal`].
    pub fn redeem(
        &self,
        machine: MachineId,
        secret: &str,
        removed: Option<u64>,
        unix_secs: u64,
    ) -> Result<Redemption, InviteRefusal> {
        if secret_digest(secret) != self.secret_digest {
            return Err(InviteRefusal::Invalid);
        }
        match self.status(unix_secs) {
            InviteStatus::Active => Ok(Redemption::Consume(Box::new(Self {
                consumed_by: Some(machine),
                removed_before: removed,
                ..self.clone()
            }))),
            InviteStatus::Consumed
                if self.consumed_by == Some(machine) && removed <= self.removed_before =>
            {
                Ok(Redemption::Again)
            }
            InviteStatus::Consumed => Err(InviteRefusal::Consumed),
            InviteStatus::Revoked => Err(InviteRefusal::Revoked),
            InviteStatus::Expired => Err(InviteRefusal::Expired),
        }
    }

    /// An operator takes it back. `None` when there is nothing to write: it is revoked already.
    ///
    /// # Errors
    /// [`InviteRefusal::Consumed`]: then there is a machine to be removed instead.
    pub fn revoke(&self, unix_secs: u64) -> Result<Option<Self>, InviteRefusal> {
        match self.status(unix_secs) {
            InviteStatus::Active | InviteStatus::Expired => Ok(Some(Self {
                revoked_at: Some(unix_secs),
                ..self.clone()
            })),
            InviteStatus::Revoked => Ok(None),
            InviteStatus::Consumed => Err(InviteRefusal::Consumed),
        }
    }

    /// The name of the machine that uses it, if the operator has given one.
    pub const fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// The region of the machine that uses it, if the operator has said so.
    pub const fn region(&self) -> Option<&Name> {
        self.region.as_ref()
    }

    /// The labels of the machine that uses it, as its record has them.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let text = self.labels.iter();
        text.map(|(key, value)| (key.to_string(), value.to_string()))
            .collect()
    }

    /// Whether the machine that uses it may be given work at once.
    pub const fn lifecycle(&self) -> Lifecycle {
        if self.standby {
            Lifecycle::Standby
        } else {
            Lifecycle::Active
        }
    }

    /// When it ceases to be of use, in seconds since 1970.
    pub const fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// For a list.
    pub const fn row(&self, unix_secs: u64) -> InviteRow {
        InviteRow {
            invite_id: self.id,
            status: self.status(unix_secs),
            created_at: self.created_at,
            expires_at: self.expires_at,
            consumed_by: self.consumed_by,
        }
    }
}

/// The digest that the store holds instead of the secret. The secret has 128 random bits, so a plain hash cannot be
/// inverted.
pub fn secret_digest(secret: &str) -> String {
    fingerprint(secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALICE: MachineId = MachineId::new(0, 1);
    const BOB: MachineId = MachineId::new(0, 2);
    const EARLY: u64 = 10;
    const LATE: u64 = 700;

    fn fresh() -> InviteRecord {
        let request = InviteRequest::lasting(600);
        InviteRecord::new(InviteId::new(0, 0), secret_digest("right"), 0, request)
    }

    fn consumed() -> InviteRecord {
        let Ok(Redemption::Consume(record)) = fresh().redeem(ALICE, "right", None, EARLY) else {
            unreachable!()
        };
        *record
    }

    fn revoked() -> InviteRecord {
        fresh().revoke(EARLY).unwrap().unwrap()
    }

    /// Every state, every input, as a table.
    #[test]
    fn every_state_meets_every_input() {
        use InviteRefusal::{Consumed, Expired, Invalid, Revoked};
        use InviteStatus as S;
        type Refused = Result<bool, InviteRefusal>;
        let (wrote, again) = (Ok(true), Ok(false));
        #[rustfmt::skip]
        let table: [(InviteRecord, u64, S, Refused, Refused, Refused, Refused); 7] = [
            // state      at     is            alice          bob             wrong secret  revoke
            (fresh(),    EARLY, S::Active,    wrote,         wrote,          Err(Invalid), wrote),
            (fresh(),    599,   S::Active,    wrote,         wrote,          Err(Invalid), wrote),
            (fresh(),    600,   S::Expired,   Err(Expired),  Err(Expired),   Err(Invalid), wrote),
            (consumed(), EARLY, S::Consumed,  again,         Err(Consumed),  Err(Invalid), Err(Consumed)),
            (consumed(), LATE,  S::Consumed,  again,         Err(Consumed),  Err(Invalid), Err(Consumed)),
            (revoked(),  EARLY, S::Revoked,   Err(Revoked),  Err(Revoked),   Err(Invalid), again),
            (revoked(),  LATE,  S::Revoked,   Err(Revoked),  Err(Revoked),   Err(Invalid), again),
        ];
        for (record, at, status, alice, bob, wrong, revoke) in table {
            let redeem = |machine, secret| {
                let redemption = record.redeem(machine, secret, None, at);
                redemption.map(|done| matches!(done, Redemption::Consume(_)))
            };
            assert_eq!(record.status(at), status);
            assert_eq!(redeem(ALICE, "right"), alice, "alice, {status} at {at}");
            assert_eq!(redeem(BOB, "right"), bob, "bob, {status} at {at}");
            assert_eq!(
                redeem(ALICE, "wrong"),
                wrong,
                "wrong secret, {status} at {at}"
            );
            let revoked = record.revoke(at).map(|written| written.is_some());
            assert_eq!(revoked, revoke, "revoke, {status} at {at}");
        }
    }

    /// A machine that was removed before the new invite may come back, and try again; one that was removed after it may
    /// not.
    #[test]
    fn a_removal_ends_what_the_invite_was_good_for() {
        let never = consumed();
        let Ok(Redemption::Consume(invited_anew)) = fresh().redeem(ALICE, "right", Some(7), EARLY)
        else {
            unreachable!()
        };
        let refused = Err(InviteRefusal::Consumed);
        for (record, removed, expected) in [
            (&never, None, Ok(Redemption::Again)),
            (&never, Some(7), refused.clone()),
            (&invited_anew, None, Ok(Redemption::Again)),
            (&invited_anew, Some(7), Ok(Redemption::Again)),
            (&invited_anew, Some(8), refused),
        ] {
            assert_eq!(
                record.redeem(ALICE, "right", removed, LATE),
                expected,
                "{removed:?}"
            );
        }
    }

    proptest! {
        /// A wrong secret, from any machine and at any time, reveals nothing and writes nothing.
        #[test]
        fn nothing_but_the_secret_is_the_secret(
            shown in ".{0,40}", number in any::<u128>(), at in any::<u64>(), removed in any::<Option<u64>>(),
        ) {
            prop_assume!(shown != "right");
            for record in [fresh(), consumed(), revoked()] {
                let answer = record.redeem(MachineId::new(0, number), &shown, removed, at);
                prop_assert_eq!(answer, Err(InviteRefusal::Invalid));
            }
        }
    }

    #[test]
    fn what_a_newer_version_wrote_is_kept() {
        let mut json = serde_json::to_value(fresh()).unwrap();
        json["later"] = "kept".into();
        let record: InviteRecord = serde_json::from_value(json).unwrap();
        let revoked = serde_json::to_value(record.revoke(1).unwrap()).unwrap();
        assert_eq!(revoked["later"], "kept");
    }
}
