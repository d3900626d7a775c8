//! Names of machines and networks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name that is also a DNS label: 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

/// Text that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a name: use 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"
)]
pub struct InvalidName(String);

const LEN_MAX: usize = 63;

impl Name {
    /// The nearest name to any text, as for a host that is called `Web_1.example.org`.
    pub fn nearest(text: &str) -> Self {
        let label = text.split('.').next().unwrap_or_default();
        let lower = label.to_ascii_lowercase();
        let mut name: String = lower
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(LEN_MAX)
            .collect();
        name = name.trim_matches('-').to_owned();
        if name.is_empty() {
            "machine".clone_into(&mut name);
        }
        Self(name)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = (1..=LEN_MAX).contains(&text.len()) && text.bytes().all(inner);
        if !fits || text.starts_with('-') || text.ends_with('-') {
            return Err(InvalidName(text));
        }
        Ok(Self(text))
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        text.to_owned().try_into()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_dns_labels_are_names() {
        for good in ["a", "web-1", "0", &"x".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_host_has_a_nearest_name(text in any::<String>()) {
            let name = Name::nearest(&text);
            let again = name.as_str().parse();
            prop_assert_eq!(again, Ok(name));
        }
    }
}
