//! Workloads: their names, specifications and states.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, MachineId};
use crate::name::Name;
use crate::secret::Secret;

/// The namespace of a workload that is named without one.
const NAMESPACE_DEFAULT: &str = "default";

/// A workload's namespace and name, as in `default/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct WorkloadName {
    /// The namespace.
    pub namespace: Name,
    /// The name within the namespace.
    pub name: Name,
}

/// Text that is no workload's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a workload: give namespace/name, or a name in the namespace `default`")]
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

/// The specification of a workload. Only the machine that runs it is shown the values of its environment.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    /// The program that runs.
    pub program: Program,
    /// Its environment, beside what it gets anyway.
    pub env: BTreeMap<String, Secret>,
    /// Directories that are kept, by name, and where it finds them.
    pub volumes: BTreeMap<Name, String>,
    /// Ports of the machine that lead to its own.
    pub publish: Vec<PublishedPort>,
}

/// The program that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// A container of this image, with runtime `docker`.
    Image(String),
    /// A command for `/bin/sh -c`, with runtime `host`.
    Exec(String),
}

impl Program {
    /// The runtime that it takes.
    pub const fn runtime(&self) -> &'static str {
        match self {
            Self::Image(_) => "docker",
            Self::Exec(_) => "host",
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(image) => f.write_str(image),
            Self::Exec(command) => f.write_str(command),
        }
    }
}

/// A TCP port of the machine that leads to one of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The machine's.
    pub machine: u16,
    /// The workload's.
    pub workload: u16,
}

/// A spec that cannot be run anywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpec {
    /// Nothing would run.
    #[error("the image or command is empty")]
    Nothing,
    /// No name of a variable.
    #[error("'{0}' is not the name of an environment variable: use letters, digits and _")]
    Variable(String),
    /// A value that no environment can hold.
    #[error("the value of {0} contains a NUL byte")]
    Value(String),
    /// Not a place in a file system.
    #[error("'{0}' is not an absolute path below / without '..', ':' and control characters")]
    Path(String),
    /// Containers have no privileged mode.
    #[error("containers are never privileged: --privileged takes a command of the host")]
    Privileged,
    /// A process of the host has no ports but the host's.
    #[error("a command of the host listens on the host's own ports: only containers publish ports")]
    Publish,
    /// The specification has to fit into a record.
    #[error("the workload has {len} bytes as JSON; {SPEC_LEN_MAX} are allowed")]
    TooLong {
        /// How long it is.
        len: usize,
    },
}

/// A request has 64 KiB; this leaves room for what else is in it.
pub const SPEC_LEN_MAX: usize = 48 * 1024;

impl WorkloadSpec {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// [`InvalidSpec`].
    pub fn check(&self) -> Result<(), InvalidSpec> {
        let (Program::Image(what) | Program::Exec(what)) = &self.program;
        if what.trim().is_empty() || what.contains('\0') {
            return Err(InvalidSpec::Nothing);
        }
        if matches!(self.program, Program::Exec(_)) && !self.publish.is_empty() {
            return Err(InvalidSpec::Publish);
        }
        for (name, value) in &self.env {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let begins = name
                .bytes()
                .next()
                .is_some_and(|byte| !byte.is_ascii_digit());
            if !begins || !name.bytes().all(inner) {
                return Err(InvalidSpec::Variable(name.clone()));
            }
            if value.expose().contains('\0') {
                return Err(InvalidSpec::Value(name.clone()));
            }
        }
        for path in self.volumes.values() {
            let odd = |c: char| c.is_control() || c == ':';
            let is_up = path.split('/').any(|part| part == "..");
            // "//" and "/." are the root, too.
            let is_root = Path::new(path).parent().is_none();
            if !path.starts_with('/') || is_root || is_up || path.contains(odd) {
                return Err(InvalidSpec::Path(path.clone()));
            }
        }
        let len = serde_json::to_vec(self).map_or(usize::MAX, |json| json.len());
        if len > SPEC_LEN_MAX {
            return Err(InvalidSpec::TooLong { len });
        }
        Ok(())
    }
}

/// How an instance is, in its machine's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkloadState {
    /// No machine has reported on it yet, or for a while.
    Unknown,
    /// Its volumes come from the machine that it is moved from.
    Copying,
    /// Another machine is to run it, and copies its volumes.
    Paused,
    /// The workload is about to run.
    Starting,
    /// The workload is running.
    Running,
    /// The workload has failed, and is started again after a while.
    Waiting,
    /// The workload has ended with success, and is not started again.
    Exited,
}

impl fmt::Display for WorkloadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Copying => "copying",
            Self::Paused => "paused",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Exited => "exited",
        })
    }
}

/// A workload to deploy, and the machine to place it on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// The name of the workload.
    pub workload: WorkloadName,
    /// On which machine; the one that has the fewest if none is given.
    pub machine: Option<String>,
    /// The specification of the workload.
    pub spec: WorkloadSpec,
    /// Run the command as root and without a sandbox, which is an admin's to say. Left out where it is not said, since
    /// a daemon of the version before does not know it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub privileged: bool,
}

impl DeployRequest {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// [`InvalidSpec`].
    pub fn check(&self) -> Result<(), InvalidSpec> {
        if self.privileged && matches!(self.spec.program, Program::Image(_)) {
            return Err(InvalidSpec::Privileged);
        }
        self.spec.check()
    }
}

/// For fields that are left out where they have their default.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// Workloads that machines hold.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkloadList {
    /// By name.
    pub rows: Vec<WorkloadRow>,
}

/// A workload in the list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is named as its content is")]
pub struct WorkloadRow {
    pub workload: WorkloadName,
    pub id: InstanceId,
    pub machine: Name,
    pub machine_id: MachineId,
    pub state: WorkloadState,
}

/// Everything about one workload but the values of its environment.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is named as its content is")]
pub struct WorkloadInspect {
    pub workload: WorkloadRow,
    pub created_at: u64,
    pub program: Program,
    pub env: Vec<String>,
    pub volumes: BTreeMap<Name, String>,
    pub publish: Vec<PublishedPort>,
    /// Whether it runs as root and without a sandbox.
    #[serde(default, skip_serializing_if = "is_false")]
    pub privileged: bool,
}

/// The output of a workload, from stdout and stderr.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkloadLogs {
    /// Which one.
    pub workload: WorkloadName,
    /// The last lines, the oldest first.
    pub lines: Vec<String>,
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

    fn spec() -> WorkloadSpec {
        WorkloadSpec {
            program: Program::Exec("sleep 1".to_owned()),
            env: BTreeMap::from([("A_1".to_owned(), Secret::new("b".to_owned()))]),
            volumes: BTreeMap::from([(Name::nearest("data"), "/srv/data".to_owned())]),
            publish: Vec::new(),
        }
    }

    #[test]
    fn what_no_machine_could_run_is_refused() {
        assert_eq!(spec().check(), Ok(()));
        type Edit = fn(&mut WorkloadSpec);
        let edits: [Edit; 10] = [
            |spec| spec.program = Program::Exec(" ".to_owned()),
            |spec| spec.program = Program::Image("a\0".to_owned()),
            |spec| spec.env = BTreeMap::from([("1A".to_owned(), Secret::new(String::new()))]),
            |spec| spec.env = BTreeMap::from([("A".to_owned(), Secret::new("\0".to_owned()))]),
            |spec| spec.volumes = BTreeMap::from([(Name::nearest("d"), "srv".to_owned())]),
            |spec| spec.volumes = BTreeMap::from([(Name::nearest("d"), "/a/../b".to_owned())]),
            |spec| spec.volumes = BTreeMap::from([(Name::nearest("d"), "//".to_owned())]),
            |spec| spec.volumes = BTreeMap::from([(Name::nearest("d"), "/./".to_owned())]),
            |spec| {
                spec.publish = vec![PublishedPort {
                    machine: 1,
                    workload: 1,
                }]
            },
            |spec| spec.program = Program::Exec("x".repeat(SPEC_LEN_MAX)),
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            let mut spec = spec();
            edit(&mut spec);
            assert!(spec.check().is_err(), "edit {number}");
        }
    }

    /// A daemon of the version before refuses fields that it does not know.
    #[test]
    fn a_request_without_privileges_is_what_it_was_before_there_were_any() {
        let request = |privileged| DeployRequest {
            workload: "web".parse().unwrap(),
            machine: None,
            spec: spec(),
            privileged,
        };
        let json = serde_json::to_value(request(false)).unwrap();
        assert_eq!(json.get("privileged"), None);
        let read: DeployRequest = serde_json::from_value(json).unwrap();
        assert!(!read.privileged && read.check().is_ok());
        let json = serde_json::to_value(request(true)).unwrap();
        assert_eq!(json["privileged"], true);
    }

    #[test]
    fn only_a_command_of_the_host_may_be_privileged() {
        let mut request = DeployRequest {
            workload: "web".parse().unwrap(),
            machine: None,
            spec: spec(),
            privileged: true,
        };
        assert_eq!(request.check(), Ok(()));
        request.spec.program = Program::Image("web:1".to_owned());
        assert_eq!(request.check(), Err(InvalidSpec::Privileged));
    }
}
