//! The versions of `nats-server` that the store supports.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::nats::error::NatsError;

/// The program prints one line.
const PATIENCE: Duration = Duration::from_secs(5);

/// Major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

/// Earlier versions lose acknowledged writes.
const OLDEST: Version = Version(2, 12, 8);

impl Version {
    /// Asks a program for its version, and refuses one that is too old.
    pub(crate) async fn of(program: &Path) -> Result<Self, NatsError> {
        let failed = |cause: &str| NatsError::NotNatsServer {
            program: program.to_owned(),
            cause: cause.to_owned(),
        };
        let asking = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, asking)
            .await
            .map_err(|_| failed("it does not print its version"))?
            .map_err(|error| failed(&error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = Self::parse(text.trim().trim_start_matches("nats-server: "))
            .ok_or_else(|| failed("it does not print its version"))?;
        refuse_old(version, &program.display().to_string())?;
        Ok(version)
    }

    /// Reads `v2.14.6` or `2.14.6`; a suffix makes no difference.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let plain = text.trim_start_matches('v').split('-').next()?;
        let mut numbers = plain.split('.').map(str::parse);
        let mut number = || numbers.next()?.ok();
        Some(Self(number()?, number()?, number()?))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Refuses a server that is too old, no matter what started it.
pub(crate) fn refuse_old(version: Version, whose: &str) -> Result<(), NatsError> {
    if version < OLDEST {
        return Err(NatsError::TooOld {
            whose: whose.to_owned(),
            version: version.to_string(),
            oldest: OLDEST.to_string(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_compared_and_refused_by_name() {
        assert_eq!(Version::parse("v2.14.6"), Some(Version(2, 14, 6)));
        assert_eq!(Version::parse("2.15.0-RC.1"), Some(Version(2, 15, 0)));
        assert_eq!(Version::parse("2.14"), None);
        for (text, good) in [
            ("2.9.10", false),
            ("2.12.7", false),
            ("2.12.8", true),
            ("2.15.1", true),
        ] {
            let version = Version::parse(text).unwrap();
            assert_eq!(refuse_old(version, "x").is_ok(), good, "{text}");
        }
        let refusal = refuse_old(Version(2, 9, 10), "/usr/bin/nats-server").unwrap_err();
        let message = refusal.to_string();
        assert!(message.contains("2.9.10") && message.contains("2.12.8"));
    }

    #[test]
    fn what_is_no_version_is_none() {
        for text in [
            "",
            "v",
            "2",
            "2.14.",
            "2..6",
            "a.b.c",
            "-2.14.6",
            "2.14.x",
            "2.14.99999999999",
        ] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        for (text, expected) in [
            ("2.14.6-beta.1", "2.14.6"),
            ("vv2.14.6", "2.14.6"),
            ("10.0.0", "10.0.0"),
        ] {
            assert_eq!(
                Version::parse(text).unwrap().to_string(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn versions_are_compared_by_numbers_and_not_by_letters() {
        let version = |text| Version::parse(text).unwrap();
        assert!(version("2.9.10") < version("2.12.8"));
        assert!(version("2.12.8") < version("2.12.10"));
        assert!(version("2.99.99") < version("10.0.0"));
        // A candidate counts as what it is a candidate for.
        assert!(refuse_old(version("2.12.8-RC.1"), "x").is_ok());
    }

    #[tokio::test]
    async fn a_program_that_is_something_else_or_nothing_is_named() {
        for program in ["/bin/cat", "/nonexistent/nats-server", "/dev/null"] {
            let error = Version::of(Path::new(program)).await.unwrap_err();
            assert!(matches!(error, NatsError::NotNatsServer { .. }), "{error}");
            let message = error.to_string();
            assert!(
                message.starts_with(&format!("{program} is no nats-server")),
                "{message}"
            );
        }
    }
}
