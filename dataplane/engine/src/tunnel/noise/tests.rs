//! The secrets of a handshake, computed beside the engine.

use std::time::Duration;

use super::*;
use crate::key::PrivateKey;

/// What both ends of a handshake know, and what they compute on the way.
pub(in crate::tunnel) struct Known<'a> {
    pub(in crate::tunnel) initiator: &'a PrivateKey,
    pub(in crate::tunnel) responder: &'a PrivateKey,
    pub(in crate::tunnel) preshared_key: &'a PresharedKey,
    pub(in crate::tunnel) ephemerals: [[u8; KEY_LEN]; 2],
    pub(in crate::tunnel) unix_time: Duration,
}

impl Known<'_> {
    /// Everything that is nobody else's business.
    pub(in crate::tunnel) fn secrets(&self) -> Vec<Vec<u8>> {
        let identities = [self.initiator, self.responder].map(|key| Identity::new(key.copy()));
        let [initiator, responder] = &identities;
        let mut to_responder = Remote::new(initiator, &responder.public_key()).unwrap();
        let mut to_initiator = Remote::new(responder, &initiator.public_key()).unwrap();
        for remote in [&mut to_responder, &mut to_initiator] {
            remote.set_preshared_key(Some(self.preshared_key));
        }
        let [first, second] = self.ephemerals.map(StaticSecret::from);
        let dh = |ours: &StaticSecret, theirs: &StaticSecret| {
            ours.diffie_hellman(&Point::from(theirs)).to_bytes()
        };
        let mut secrets = vec![
            self.initiator.expose().to_vec(),
            self.responder.expose().to_vec(),
            self.preshared_key.expose().to_vec(),
            to_responder.static_secret.to_bytes().to_vec(),
            dh(&first, responder.secret()).to_vec(),
            dh(&first, &second).to_vec(),
            dh(initiator.secret(), &second).to_vec(),
        ];
        secrets.extend(self.ephemerals.map(|it| it.to_vec()));

        let mut initiation = [0; HANDSHAKE_INITIATION_LEN];
        let mut response = [0; HANDSHAKE_RESPONSE_LEN];
        let time = Tai64n::new(self.unix_time);
        let (to, from) = (&to_responder, &to_initiator);
        let pending = Pending::initiate(initiator, to, 0, first, time, &mut initiation);
        let claim = Claim::read(responder, &initiation).unwrap();
        secrets.push(claim.transcript.secret().to_vec());
        secrets.push(pending.transcript.secret().to_vec());
        let proven = claim.prove(from, &initiation).unwrap();
        let agreed = proven.respond(from, 0, &second, &mut response).unwrap();
        secrets.push(agreed.sending.to_vec());
        secrets.push(agreed.receiving.to_vec());
        secrets
    }
}
