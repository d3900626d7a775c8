//! Labels that operators put on machines, as `tier=db`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const LEN_MAX: usize = 63;

/// Text that is no label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a label: a key is 1 to 63 letters, digits and -_./, beginning and ending with a letter or digit; a value \
     is the same, or empty"
)]
pub struct InvalidLabel(String);

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $fits:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidLabel;

            fn try_from(text: String) -> Result<Self, InvalidLabel> {
                let fits: fn(&str) -> bool = $fits;
                if fits(&text) { Ok(Self(text)) } else { Err(InvalidLabel(text)) }
            }
        }

        impl FromStr for $name {
            type Err = InvalidLabel;

            fn from_str(text: &str) -> Result<Self, InvalidLabel> {
                text.to_owned().try_into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text!(
    /// The name of a label.
    LabelKey,
    is_word
);
text!(
    /// The value of a label; it may be empty.
    LabelValue,
    |text| text.is_empty() || is_word(text)
);

fn is_word(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= LEN_MAX && text.bytes().all(inner) && edge(bytes.first()) && edge(bytes.last())
}

/// A change of one label, as an operator writes it: `key=value`, or `key-` to take it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelChange {
    /// Which label.
    pub key: LabelKey,
    /// The new value; none removes the label.
    pub value: Option<LabelValue>,
}

impl FromStr for LabelChange {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        if let Some((key, value)) = text.split_once('=') {
            return Ok(Self {
                key: key.parse()?,
                value: Some(value.parse()?),
            });
        }
        let key = text
            .strip_suffix('-')
            .ok_or_else(|| InvalidLabel(text.to_owned()))?;
        Ok(Self {
            key: key.parse()?,
            value: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_sets_or_takes_away() {
        let change = |text: &str| text.parse::<LabelChange>();
        let set = change("example.org/tier=db-1").unwrap();
        assert_eq!(
            (set.key.as_str(), set.value.unwrap().as_str()),
            ("example.org/tier", "db-1")
        );
        assert_eq!(change("a=").unwrap().value.unwrap().as_str(), "");
        assert_eq!(change("a-").unwrap().value, None);
        let long = "x".repeat(64);
        for bad in [
            "",
            "=",
            "-",
            "a",
            "=b",
            "a--",
            "a=b=c",
            "a b=c",
            "ä=b",
            "a=-",
            &format!("{long}-"),
        ] {
            assert!(change(bad).is_err(), "{bad}");
        }
    }
}
