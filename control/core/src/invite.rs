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
    /// SHA-256 of the three public keys of that machine: whoever names it with others is another.
    #[serde(default)]
    consumed_keys: Option<String>,
    /// Whether the machine that uses it has to prove that it holds its keys; earlier versions do not ask for it.
    #[serde(default)]
    asks_for_proofs: bool,
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

/// A machine that shows the secret of an invite.
#[derive(Clone, Copy, Debug)]
pub struct Redeemer<'a> {
    /// The id that it gives.
    pub machine: MachineId,
    /// SHA-256 of its three public keys, in hexadecimal digits.
    pub keys: &'a str,
    /// Whether it has proven that it holds their private halves.
    pub has_proven_keys: bool,
    /// Whether the network has a machine of this id, and it has not proven to be that one.
    pub claims_member: bool,
    /// The revision in `machines` by which a machine of this id was removed, if one was: only a removal that the invite
    /// has not seen makes it of no more use.
    pub removed: Option<u64>,
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
    /// The keys are not proven, or not all of them.
    #[error("the machine has not proven that it holds the private halves of its keys")]
    Unproven,
    /// The network has a machine of this id, and this is another one.
    #[error("the network has a machine of this id with other keys")]
    Member,
}

impl From<InviteRefusal> for Failure {
    fn from(refusal: InviteRefusal) -> Self {
        let code = match refusal {
            InviteRefusal::Invalid => Code::InviteInvalid,
            InviteRefusal::Expired => Code::InviteExpired,
            InviteRefusal::Consumed => Code::InviteConsumed,
            InviteRefusal::Revoked => Code::InviteRevoked,
            InviteRefusal::Unproven => Code::Forbidden,
            InviteRefusal::Member => Code::Conflict,
        };
        let hint = match refusal {
            InviteRefusal::Unproven => "update ployzd on the joining machine",
            InviteRefusal::Member => "restore identity.json, or join with a new data directory",
            InviteRefusal::Invalid
            | InviteRefusal::Expired
            | InviteRefusal::Consumed
            | InviteRefusal::Revoked => {
                "ployzctl machine invite create (on a machine of the network)"
            }
        };
        Self::new(code, refusal.to_string()).hint(hint)
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
            consumed_keys: None,
            asks_for_proofs: true,
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

    /// A machine shows a secret.
    ///
    /// # Errors
    /// [`InviteRefusal`].
    pub fn redeem(
        &self,
        by: &Redeemer<'_>,
        secret: &str,
        unix_secs: u64,
    ) -> Result<Redemption, InviteRefusal> {
        if secret_digest(secret) != self.secret_digest {
            return Err(InviteRefusal::Invalid);
        }
        match self.status(unix_secs) {
            InviteStatus::Active | InviteStatus::Consumed
                if self.asks_for_proofs && !by.has_proven_keys =>
            {
                Err(InviteRefusal::Unproven)
            }
            // An invite makes a new machine, or lets in one whose keys are proven, and never another in its name.
            InviteStatus::Active if by.claims_member => Err(InviteRefusal::Member),
            InviteStatus::Active => Ok(Redemption::Consume(Box::new(Self {
                consumed_by: Some(by.machine),
                consumed_keys: Some(by.keys.to_owned()),
                removed_before: by.removed,
                ..self.clone()
            }))),
            InviteStatus::Consumed if self.is_consumed_by(by) => Ok(Redemption::Again),
            InviteStatus::Consumed => Err(InviteRefusal::Consumed),
            InviteStatus::Revoked => Err(InviteRefusal::Revoked),
            InviteStatus::Expired => Err(InviteRefusal::Expired),
        }
    }

    /// Whether this very machine has consumed it, and has not been removed since.
    fn is_consumed_by(&self, by: &Redeemer<'_>) -> bool {
        let keys = self.consumed_keys.as_deref();
        // An earlier version has not noted the keys, nor asked for proofs.
        let is_same = keys.map_or(by.has_proven_keys, |keys| keys == by.keys);
        self.consumed_by == Some(by.machine) && is_same && by.removed <= self.removed_before
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
        let Ok(Redemption::Consume(record)) = fresh().redeem(&machine(ALICE), "right", EARLY)
        else {
            unreachable!()
        };
        *record
    }

    /// One that is not in the network and has proven its keys.
    const fn machine(id: MachineId) -> Redeemer<'static> {
        Redeemer {
            machine: id,
            keys: "its own",
            has_proven_keys: true,
            claims_member: false,
            removed: None,
        }
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
            let redeem = |id, secret| {
                let redemption = record.redeem(&machine(id), secret, at);
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
        let removed = |removed| Redeemer {
            removed,
            ..machine(ALICE)
        };
        let invited = fresh().redeem(&removed(Some(7)), "right", EARLY);
        let Ok(Redemption::Consume(invited_anew)) = invited else {
            unreachable!()
        };
        let refused = Err(InviteRefusal::Consumed);
        for (record, revision, expected) in [
            (&never, None, Ok(Redemption::Again)),
            (&never, Some(7), refused.clone()),
            (&invited_anew, None, Ok(Redemption::Again)),
            (&invited_anew, Some(7), Ok(Redemption::Again)),
            (&invited_anew, Some(8), refused),
        ] {
            assert_eq!(
                record.redeem(&removed(revision), "right", LATE),
                expected,
                "{revision:?}"
            );
        }
    }

    /// Whoever has the secret and names another machine gets nothing of it, before the invite is used and after.
    #[test]
    fn an_invite_makes_a_new_machine_or_lets_in_the_one_that_it_made() {
        let own = machine(ALICE);
        let unproven = Redeemer {
            has_proven_keys: false,
            ..own
        };
        let member = Redeemer {
            claims_member: true,
            ..own
        };
        let other_keys = Redeemer {
            keys: "of an attacker",
            claims_member: true,
            ..own
        };
        let mut former = fresh();
        former.asks_for_proofs = false;
        let Ok(Redemption::Consume(of_former)) = former.redeem(&unproven, "right", EARLY) else {
            panic!("a joining machine of the earlier version is let in");
        };
        let mut noted_by_none = of_former.clone();
        noted_by_none.consumed_keys = None;
        use InviteRefusal::{Consumed, Member, Unproven};
        for (record, by, expected) in [
            (&fresh(), unproven, Err(Unproven)),
            (&fresh(), member, Err(Member)),
            (&former, member, Err(Member)),
            (&consumed(), member, Ok(Redemption::Again)),
            (&consumed(), unproven, Err(Unproven)),
            (&consumed(), other_keys, Err(Consumed)),
            (&of_former, other_keys, Err(Consumed)),
            (&of_former, unproven, Ok(Redemption::Again)),
            (&noted_by_none, unproven, Err(Consumed)),
            (&noted_by_none, own, Ok(Redemption::Again)),
        ] {
            assert_eq!(record.redeem(&by, "right", EARLY), expected, "{by:?}");
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
                let by = Redeemer {
                    removed,
                    ..machine(MachineId::new(0, number))
                };
                let answer = record.redeem(&by, &shown, at);
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
