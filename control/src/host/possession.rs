//! Proofs that a joining machine holds the private halves of the keys that it shows.

use hmac::{Hmac, Mac as _};
use ployz_api::{KeyProofs, NetworkId, RedeemRequest};
use ployz_engine::{PrivateKey, PublicKey};
use rcgen::SigningKey as _;
use sha2::Sha256;

use crate::host::ca;
use crate::host::error::HostError;
use crate::host::identity::{Identity, from_hex, hex};

/// Proves it to the holder of the invite's key.
///
/// # Errors
/// A key of this machine cannot be used; an invite's key with which nothing can be shared proves nothing either.
pub(crate) fn prove(
    identity: &Identity,
    request: &RedeemRequest,
    network: NetworkId,
    proof_key: &PublicKey,
) -> Result<KeyProofs, HostError> {
    let digest = request.digest(network);
    let unusable = HostError::key("the key of the invite");
    let mac = mac(&identity.wireguard_key, proof_key, &digest);
    let mac = mac.ok_or("it is of low order").map_err(unusable)?;
    Ok(KeyProofs {
        wireguard: hex(&mac.finalize().into_bytes()),
        nkey: hex(&identity.sign_for_store(&digest)?),
        certificate: hex(&identity.certificate_key()?.sign(&digest)?),
    })
}

/// Whether all three keys of a request are proven. `proof_key` is the private half of the invite's.
pub(crate) fn is_proven(
    request: &RedeemRequest,
    network: NetworkId,
    proof_key: &PrivateKey,
) -> bool {
    let Some(proofs) = &request.proofs else {
        return false;
    };
    let digest = request.digest(network);
    let wireguard = || {
        let key = PublicKey::from_base64(&request.wireguard_key).ok()?;
        let shown = from_hex(&proofs.wireguard)?;
        mac(proof_key, &key, &digest)?.verify_slice(&shown).ok()
    };
    let nkey = || {
        let key = nkeys::KeyPair::from_public_key(&request.nkey).ok()?;
        key.verify(&digest, &from_hex(&proofs.nkey)?).ok()
    };
    let certificate = || from_hex(&request.certificate_key);
    wireguard().is_some()
        && nkey().is_some()
        && certificate().is_some_and(|point| ca::verify(&point, &digest, &proofs.certificate))
}

/// Whoever has one of the private keys gets to the same value.
fn mac(own: &PrivateKey, other: &PublicKey, digest: &[u8]) -> Option<Hmac<Sha256>> {
    let shared = own.agree(other)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&*shared).ok()?;
    mac.update(digest);
    Some(mac)
}

#[cfg(test)]
mod tests {
    use ployz_api::{InviteId, MachineId, Name, Secret};
    use rcgen::PublicKeyData as _;

    use super::*;
    use crate::host::ca::CertificateAuthority;

    fn request(identity: &Identity) -> RedeemRequest {
        RedeemRequest {
            invite_id: InviteId::new(1, 1),
            secret: Secret::new("ab".repeat(16)),
            machine_id: identity.machine_id,
            name: Name::nearest("m"),
            region: "local".to_owned(),
            wireguard_key: identity.wireguard_key.public_key().to_string(),
            nkey: identity.nkey().unwrap(),
            certificate_key: hex(identity.certificate_key().unwrap().der_bytes()),
            endpoints: Vec::new(),
            proofs: None,
        }
    }

    fn network() -> NetworkId {
        NetworkId::new(1, 1)
    }

    #[test]
    fn the_holder_of_all_three_keys_proves_them_and_each_that_is_anothers_is_found_out() {
        let authority = CertificateAuthority::generate("n").unwrap();
        let invite = authority.proof_key(InviteId::new(1, 1));
        let (own, victim) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let proven = |request: &RedeemRequest| is_proven(request, network(), &invite);
        let prove = |request: RedeemRequest| {
            let proofs = prove(&own, &request, network(), &invite.public_key());
            RedeemRequest {
                proofs: Some(proofs.unwrap()),
                ..request
            }
        };
        assert!(!proven(&request(&own)), "without proofs");
        assert!(proven(&prove(request(&own))));
        // The attacker repeats one public key of a victim, with everything else its own.
        let keys: [fn(&mut RedeemRequest, RedeemRequest); 3] = [
            |mine, theirs| mine.wireguard_key = theirs.wireguard_key,
            |mine, theirs| mine.nkey = theirs.nkey,
            |mine, theirs| mine.certificate_key = theirs.certificate_key,
        ];
        for repeat in keys {
            let mut stolen = request(&own);
            repeat(&mut stolen, request(&victim));
            assert!(!proven(&prove(stolen)));
        }
    }

    #[test]
    fn a_proof_is_for_one_machine_one_invite_and_one_network() {
        let authority = CertificateAuthority::generate("n").unwrap();
        let invite = authority.proof_key(InviteId::new(1, 1));
        let own = Identity::generate().unwrap();
        let mut shown = request(&own);
        shown.proofs = Some(prove(&own, &shown, network(), &invite.public_key()).unwrap());
        assert!(is_proven(&shown, network(), &invite));
        assert!(!is_proven(&shown, NetworkId::new(1, 2), &invite));
        let other_invite = authority.proof_key(InviteId::new(1, 2));
        assert!(!is_proven(&shown, network(), &other_invite));
        let changes: [fn(&mut RedeemRequest); 3] = [
            |it| it.machine_id = MachineId::new(1, 1),
            |it| it.invite_id = InviteId::new(1, 2),
            |it| it.secret = Secret::new("cd".repeat(16)),
        ];
        for change in changes {
            let proofs = prove(&own, &request(&own), network(), &invite.public_key());
            let mut changed = RedeemRequest {
                proofs: Some(proofs.unwrap()),
                ..request(&own)
            };
            change(&mut changed);
            assert!(!is_proven(&changed, network(), &invite));
        }
    }
}
