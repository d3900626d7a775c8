//! Which version is which, and which comes after which.

use std::fmt;
use std::str::FromStr;

use ployz_api::{Code, Failure};

/// A version as in [Semantic Versioning](https://semver.org). Its text is a good name for a file: letters, digits, `.`, `-`, `+`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(semver::Version);

/// Longer ones are nobody's version, and would be no name for a file.
const TEXT_LEN_MAX: usize = 64;

impl Version {
    /// That of this very program.
    #[must_use]
    pub fn own() -> Self {
        let own = own_version().parse();
        Self(own.expect("cargo has checked it"))
    }

    /// What it would be to go from this version to another.
    #[must_use]
    pub fn to(&self, other: &Self) -> Change {
        match self.0.cmp_precedence(&other.0) {
            std::cmp::Ordering::Less => Change::Upgrade,
            std::cmp::Ordering::Equal if self == other => Change::None,
            // The same release from another build: precedence does not know which is newer.
            std::cmp::Ordering::Equal => Change::Rebuild,
            std::cmp::Ordering::Greater => Change::Downgrade,
        }
    }

    /// Whether machines of both versions can be in one network: the one before is read, and the one after.
    ///
    /// As versions are counted before 1.0.0 the second number is the one that says so, after that the first.
    #[must_use]
    pub fn mixes_with(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        if a.major == 0 && b.major == 0 {
            return a.minor.abs_diff(b.minor) <= 1;
        }
        a.major.abs_diff(b.major) <= 1
    }

    /// Refuses to go back: records may have been written that an older version does not read.
    ///
    /// # Errors
    ///
    /// `VERSION_MISMATCH`, which names both.
    pub fn refuse_downgrade(&self, wanted: &Self) -> Result<(), Failure> {
        match self.to(wanted) {
            Change::None | Change::Upgrade | Change::Rebuild => Ok(()),
            Change::Downgrade => Err(Failure::new(
                Code::VersionMismatch,
                format!("{self} runs here, and {wanted} is older: this would be a downgrade"),
            )),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Version {
    type Err = Failure;

    /// Reads `0.4.2` or `v0.4.2`.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let refused = || {
            let message = format!("{:?} is no version", shortened(text));
            Failure::new(Code::InvalidArgument, message).hint("say one like 0.4.2")
        };
        if text.len() > TEXT_LEN_MAX {
            return Err(refused());
        }
        let number = text.strip_prefix('v').unwrap_or(text);
        number.parse().map(Self).map_err(|_| refused())
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(TEXT_LEN_MAX).collect()
}

/// The version of this program behind a mark, by which `scripts/next-version` finds it in a binary to write another one
/// over it. The spaces leave room for a longer number.
static STAMP: &str = concat!("ployz-version=", env!("CARGO_PKG_VERSION"), "        ");

/// The version of this program, as text. Every use of it reads the stamp.
#[must_use]
pub fn own_version() -> &'static str {
    // The optimiser must not know the text, or it would copy it to where it is used.
    let stamp = std::hint::black_box(STAMP);
    stamp.trim_start_matches("ployz-version=").trim_end()
}

/// From one version to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is the same one.
    None,
    /// The same release, built again.
    Rebuild,
    /// To a later one.
    Upgrade,
    /// To an earlier one.
    Downgrade,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_put_in_order() {
        for (from, to, change) in [
            ("0.1.0", "v0.1.0", Change::None),
            ("0.1.0", "0.2.0", Change::Upgrade),
            ("0.9.0", "0.10.0", Change::Upgrade),
            ("0.2.0-rc.1", "0.2.0", Change::Upgrade),
            ("0.2.0", "0.2.0-rc.1", Change::Downgrade),
            ("0.2.0+a", "0.2.0+b", Change::Rebuild),
            ("1.0.0", "0.99.0", Change::Downgrade),
        ] {
            assert_eq!(version(from).to(&version(to)), change, "{from} to {to}");
            let refused = version(from).refuse_downgrade(&version(to)).is_err();
            assert_eq!(refused, change == Change::Downgrade, "{from} to {to}");
        }
    }

    #[test]
    fn neighbours_mix() {
        for (a, b, mix) in [
            ("0.1.0", "0.2.9", true),
            ("0.1.0", "0.3.0", false),
            ("1.9.0", "2.0.0", true),
            ("0.9.0", "1.0.0", true),
            ("1.0.0", "3.0.0", false),
        ] {
            assert_eq!(version(a).mixes_with(&version(b)), mix, "{a} and {b}");
            assert_eq!(version(b).mixes_with(&version(a)), mix, "{b} and {a}");
        }
    }

    #[test]
    fn what_is_no_version_is_no_name_for_a_file_either() {
        let long = format!("0.1.0-{}", "a".repeat(TEXT_LEN_MAX));
        for text in [
            "", "latest", "0.1", "../0.1.0", "0.1.0/..", "0.1.0\n", &long,
        ] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
    }
}
