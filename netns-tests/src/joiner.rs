//! A machine that joins, without a daemon: an identity of its own, and what it sends. Written from `docs/protocol.md`,
//! so that it proves its keys as that says and not as the daemon does.

use anyhow::{Context as _, Result, anyhow};
use hmac::{Hmac, Mac as _};
use ployz_api::{KeyProofs, MachineId, Name, RedeemRequest, Secret, Token};
use ployz_engine::{PrivateKey, PublicKey};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use sha2::Sha256;

/// An identity.
pub struct Joiner {
    /// The id that it gives.
    pub id: MachineId,
    wireguard: PrivateKey,
    store: nkeys::KeyPair,
    certificate: KeyPair,
}

impl std::fmt::Debug for Joiner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Joiner({})", self.id)
    }
}

impl Joiner {
    /// A new one.
    ///
    /// # Errors
    /// No randomness.
    pub fn new(id: MachineId) -> Result<Self> {
        // Whoever knows one key of P-256 has 32 random bytes.
        let certificate = KeyPair::generate()?;
        let seed = KeyPair::generate()?.serialize_der();
        let wireguard = seed.last_chunk().context("32 bytes")?;
        Ok(Self {
            id,
            wireguard: PrivateKey::from_bytes(*wireguard),
            store: nkeys::KeyPair::new_user(),
            certificate,
        })
    }

    /// What it shows, proving its keys if the token asks for that.
    ///
    /// # Errors
    /// The token's key is none.
    pub fn introduction(&self, token: &Token) -> Result<RedeemRequest> {
        let mut request = RedeemRequest {
            invite_id: token.invite_id,
            secret: Secret::new(token.secret.expose().to_owned()),
            machine_id: self.id,
            name: Name::nearest("joiner"),
            region: "local".to_owned(),
            wireguard_key: self.wireguard.public_key().to_string(),
            nkey: self.store.public_key(),
            certificate_key: hex::encode(self.certificate.der_bytes()),
            endpoints: Vec::new(),
            proofs: None,
        };
        self.prove(token, &mut request)?;
        Ok(request)
    }

    /// Proves, with its own keys, whatever a request says by now.
    ///
    /// # Errors
    /// The token's key is none.
    pub fn prove(&self, token: &Token, request: &mut RedeemRequest) -> Result<()> {
        let Some(named) = &token.coordinators else {
            return Ok(());
        };
        let digest = request.digest(token.network_id);
        let proof_key = PublicKey::from_base64(&named.proof_key)?;
        let shared = self.wireguard.agree(&proof_key).context("a key")?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&*shared)?;
        mac.update(&digest);
        let nkey = self.store.sign(&digest);
        request.proofs = Some(KeyProofs {
            wireguard: hex::encode(mac.finalize().into_bytes()),
            nkey: hex::encode(nkey.map_err(|error| anyhow!("{error}"))?),
            certificate: hex::encode(self.certificate.sign(&digest)?),
        });
        Ok(())
    }
}
