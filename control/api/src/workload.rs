//! What workloads are called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::Name;

/// Where workloads are that nobody has put elsewhere.
const NAMESPACE_DEFAULT: &str = "default";

/// A workload's namespace and name, as in `default/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct WorkloadName {
    /// Whose it is.
    pub namespace: Name,
    /// What it is called there.
    pub name: Name,
}

/// Text that is no workload's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no workload: say namespace/name, or a name in the namespace `default`")]
pub struct InvalidWorkload(String);

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.namespace, self.name))
    }
}

impl FromStr for WorkloadName {
    type Err = InvalidWorkload;

    fn from_str(text: &str) -> Result<Self, InvalidWorkload> {
        let (namespace, name) = text.split_once('/').unwrap_or((NAMESPACE_DEFAULT, text));
        let named = |part: &str| part.parse().map_err(|_| InvalidWorkload(text.to_owned()));
        Ok(Self {
            namespace: named(namespace)?,
            name: named(name)?,
        })
    }
}

impl TryFrom<String> for WorkloadName {
    type Error = InvalidWorkload;

    fn try_from(text: String) -> Result<Self, InvalidWorkload> {
        text.parse()
    }
}

impl From<WorkloadName> for String {
    fn from(name: WorkloadName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_may_be_left_out() {
        let web: WorkloadName = "web".parse().unwrap();
        assert_eq!(web.to_string(), "default/web");
        assert_eq!("default/web".parse(), Ok(web.clone()));
        let json = serde_json::to_string(&web).unwrap();
        assert_eq!(json, "\"default/web\"");
        assert_eq!(serde_json::from_str::<WorkloadName>(&json).unwrap(), web);
        for bad in ["", "/", "a/", "/a", "a/b/c", "A", "a b", "../x"] {
            assert!(bad.parse::<WorkloadName>().is_err(), "{bad}");
        }
    }
}
