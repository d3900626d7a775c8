//! A host as the operator names it.

use std::fmt;
use std::str::FromStr;

/// `user@host`, or `host` with ssh's default user; ssh's own configuration resolves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target(String);

impl Target {
    /// As ssh takes it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The part that is an address or a name.
    pub(crate) fn host(&self) -> &str {
        self.0.rsplit('@').next().unwrap_or_default()
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let host = text.rsplit('@').next().unwrap_or_default();
        let is_word = |c: char| c.is_ascii_graphic() && !matches!(c, '\'' | '"' | '\\' | '$' | '`');
        // What begins with a dash is an option to ssh.
        let fits = !host.is_empty() && !text.starts_with(['-', '@']) && !host.starts_with('-');
        if fits && text.chars().all(is_word) {
            Ok(Self(text.to_owned()))
        } else {
            Err("expected user@host".to_owned())
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_word_that_ssh_takes_for_a_host() {
        for (good, host) in [
            ("op@10.0.0.1", "10.0.0.1"),
            ("alice@example.org", "example.org"),
            ("m1", "m1"),
            ("a@b@c", "c"),
            ("op@fd00::1", "fd00::1"),
        ] {
            assert_eq!(good.parse::<Target>().unwrap().host(), host);
        }
        for bad in [
            "",
            "@m1",
            "op@",
            "-oProxyCommand=sh",
            "op@-h",
            "m 1",
            "$(id)",
            "a`b`",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
