//! The values of flags, parsed.

use std::str::FromStr;
use std::time::Duration;

use ployz_api::{LabelKey, LabelValue, Name, PublishedPort};

/// A host, by address or name, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostAndPort(String);

impl HostAndPort {
    /// As a resolver takes it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostAndPort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("quic://").unwrap_or("");
        match rest.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self(rest.to_owned()))
            }
            Some(_) | None => Err("expected quic://HOST:PORT, as in quic://192.0.2.1:51821"),
        }
    }
}

/// A key and a value.
pub(super) fn label(text: &str) -> Result<(LabelKey, LabelValue), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let key = key.parse().map_err(|error| format!("{error}"))?;
    let value = value.parse().map_err(|error| format!("{error}"))?;
    Ok((key, value))
}

/// A number and us, ms, s, m, h or d.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let micros = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err("expected a number and a unit (us, ms, s, m, h, d), as in 10s".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "the number is missing or too large".to_owned())?;
    let span = number
        .checked_mul(micros)
        .ok_or("the duration is too long")?;
    Ok(Duration::from_micros(span))
}

pub(super) fn variable(text: &str) -> Result<(String, String), String> {
    if let Some((name, value)) = text.split_once('=') {
        return Ok((name.to_owned(), value.to_owned()));
    }
    let value = std::env::var(text)
        .map_err(|_| format!("{text} is not set in this environment: give {text}=VALUE"))?;
    Ok((text.to_owned(), value))
}

pub(super) fn port(text: &str) -> Result<PublishedPort, String> {
    let (machine, workload) = text.split_once(':').unwrap_or((text, text));
    let parse = |part: &str| part.parse().ok().filter(|port| *port != 0);
    let both = parse(machine).zip(parse(workload));
    let (machine, workload) =
        both.ok_or("expected PORT, or PORT:PORT with the machine's port first")?;
    Ok(PublishedPort { machine, workload })
}

/// A repository. What begins with a dash is an option to git.
pub(super) fn git_url(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.starts_with('-') || text.contains(char::is_control) {
        return Err("expected a URL or a path that does not begin with '-'");
    }
    Ok(text.to_owned())
}

/// A branch, a tag or a commit: git-check-ref-format(1) has the characters that no name of one contains, of which a
/// refspec is made.
pub(super) fn git_reference(text: &str) -> Result<String, &'static str> {
    let odd = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    if text.is_empty() || text.starts_with(['-', '+']) || text.contains(odd) {
        return Err("expected the name of a branch, a tag or a commit");
    }
    Ok(text.to_owned())
}

/// A volume's name and its path in the workload.
pub(super) fn volume(text: &str) -> Result<(Name, String), String> {
    let (name, path) = text.split_once(':').ok_or("expected NAME:PATH")?;
    let name = name.parse().map_err(|error| format!("{error}"))?;
    Ok((name, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "5", "s", "-1s", "1y", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_for_git_are_no_options_and_no_refspecs() {
        for good in [
            "https://example.org/ployz",
            "git@example.org:ployz",
            "/srv/a b",
        ] {
            assert_eq!(git_url(good), Ok(good.to_owned()));
        }
        for bad in ["", "-", "--upload-pack=touch /tmp/x", "-c", "a\nb"] {
            assert!(git_url(bad).is_err(), "{bad}");
        }
        for good in ["main", "v1.0", "feature/a-b", "0a1b2c", "HEAD"] {
            assert_eq!(git_reference(good), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "-",
            "--upload-pack=x",
            "+main",
            "a:b",
            "refs/*",
            "a b",
            "a^",
        ] {
            assert!(git_reference(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn endpoints_are_urls() {
        for good in ["192.0.2.1:1", "[2001:db8::1]:51821", "host.example:51821"] {
            assert_eq!(
                format!("quic://{good}").parse(),
                Ok(HostAndPort(good.to_owned()))
            );
        }
        for bad in [
            "",
            "192.0.2.1:1",
            "quic://",
            "quic://:1",
            "quic://host",
            "quic://host:port",
        ] {
            assert!(bad.parse::<HostAndPort>().is_err(), "{bad}");
        }
    }
}
