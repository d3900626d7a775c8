//! What a certificate says, once it has been verified.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::token::fingerprint;

/// How long the certificate of a machine is good for. It is renewed every day: a week without any machine that signs is
/// survived twice, and whoever has no news of a removal believes a removed machine no longer than this.
pub const CERTIFICATE_SECS: u64 = 14 * 24 * 3600;

/// No certificate of a machine ends later than this, 1 January 4000; those of earlier versions have no end.
const NO_END: i64 = 64_060_588_800;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The public key: of an elliptic curve, the point.
    pub public_key: Vec<u8>,
    /// Seconds since 1970; none if it has no end.
    pub expires_at: Option<u64>,
    /// Its DNS names, in their order.
    pub names: Vec<String>,
}

impl Facts {
    /// Reads a certificate; none if it is not one.
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let end = parsed.validity().not_after.timestamp();
        let names = parsed.subject_alternative_name().ok()?;
        let names = names.map(|found| &found.value.general_names);
        let dns = names.into_iter().flatten().filter_map(|name| {
            if let GeneralName::DNSName(name) = name {
                Some((*name).to_owned())
            } else {
                None
            }
        });
        Some(Self {
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
            expires_at: (end < NO_END).then(|| u64::try_from(end).unwrap_or_default()),
            names: dns.collect(),
        })
    }

    /// SHA-256 of the public key, in hexadecimal digits.
    pub fn key(&self) -> String {
        fingerprint(&self.public_key)
    }

    /// When a machine's certificate was issued; none if it has no end.
    pub fn issued_at(&self) -> Option<u64> {
        self.expires_at
            .map(|end| end.saturating_sub(CERTIFICATE_SECS))
    }
}
