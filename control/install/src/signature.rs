//! Signatures of minisign, of which only the prehashed kind is accepted.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use minisign_verify::{PublicKey as Key, Signature};
use ployz_api::{Code, Failure};

/// The key that releases are signed with: the line of base64 of a minisign public key.
#[derive(Clone)]
pub struct PublicKey {
    key: Key,
    text: String,
}

/// The text is not a minisign public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKey;

impl PublicKey {
    /// Reads a file as `minisign -G` writes it, or with the key's line alone.
    ///
    /// # Errors
    ///
    /// `INSTALL_FAILED`: it cannot be read, or is no such file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |cause: String| {
            let message = format!("the releases' public key {}: {cause}", path.display());
            Failure::new(Code::InstallFailed, message)
        };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        text.parse()
            .map_err(|error: InvalidKey| failed(error.to_string()))
    }

    /// Checks that the holder of the key has signed this content, with this trusted comment and no other.
    ///
    /// The comment is what ties the content to its purpose: it names the version, so that a good signature of one
    /// version is none of another.
    pub(crate) fn verify(
        &self,
        name: &str,
        content: &[u8],
        signature: &str,
        comment: &str,
    ) -> Result<(), Failure> {
        let refused = |cause: String| {
            Failure::new(
                Code::InstallFailed,
                format!("{name} is not trusted: {cause}"),
            )
            .hint("nothing was changed; check whether the file was altered, and whether the public key is the right one")
        };
        let signature = Signature::decode(signature)
            .map_err(|_| refused("the signature is damaged".to_owned()))?;
        self.key
            .verify(content, &signature, false)
            .map_err(|error| refused(format!("the signature is not valid ({error})")))?;
        if signature.trusted_comment() != comment {
            let said = signature.trusted_comment();
            return Err(refused(format!(
                "the trusted comment is {said:?} instead of {comment:?}"
            )));
        }
        Ok(())
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        let line = line.ok_or(InvalidKey)?;
        Ok(Self {
            key: Key::from_base64(line).map_err(|_| InvalidKey)?,
            text: line.to_owned(),
        })
    }
}

/// The line of base64.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a minisign public key")
    }
}

impl std::error::Error for InvalidKey {}
