//! Workloads as transient units of systemd, which outlive this daemon. A unit runs the launcher.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use ployz_api::{InstanceId, Program};
use ployz_core::Seen;

use crate::host::error::HostError;
use crate::host::files::DataDirectory;
use crate::host::systemd::run;
use crate::workloads::error::WorkloadError;
use crate::workloads::job::{Job, LOGS_LEN_MAX, directory, last_lines};
use crate::workloads::launch;

const STOP_WAIT_SECS: u64 = 10;
/// The sandbox of a unit, systemd.exec(5), beside what the launcher does. All of it is known to systemd 245.
const SANDBOX: [&str; 15] = [
    "NoNewPrivileges=yes",
    // The launcher's, which gives them up with the user id of root: mounts, and becoming the workload's user.
    "CapabilityBoundingSet=CAP_SYS_ADMIN CAP_SETUID CAP_SETGID CAP_DAC_OVERRIDE",
    // Not strict: mount points of volumes are created where they are missing.
    "ProtectSystem=full",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "LockPersonality=yes",
    // The launcher enters one.
    "RestrictNamespaces=mnt",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
];

#[derive(Debug)]
pub(super) struct Units {
    files: Rc<DataDirectory>,
}

impl Units {
    pub(super) const fn new(files: Rc<DataDirectory>) -> Self {
        Self { files }
    }

    pub(super) async fn observe(
        &self,
        ids: &[InstanceId],
    ) -> Result<BTreeMap<InstanceId, Seen>, WorkloadError> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut line = vec!["show", "--property=Id,ActiveState,SubState"];
        let units: Vec<String> = ids.iter().map(|id| unit(*id)).collect();
        line.extend(units.iter().map(String::as_str));
        let said = run("systemctl", &line).await?;
        let blocks = said.split("\n\n").map(properties);
        let seen = blocks.filter_map(|unit| {
            let at = units
                .iter()
                .position(|known| unit.get("Id") == Some(&known.as_str()))?;
            Some((
                ids[at],
                state(unit.get("ActiveState")?, unit.get("SubState")?),
            ))
        });
        Ok(seen.collect())
    }

    pub(super) async fn start(&self, job: &Job<'_>) -> Result<(), WorkloadError> {
        let (id, spec) = (job.record.id, &job.record.spec);
        let Program::Exec(command) = &spec.program else {
            return Err(WorkloadError::Runtime {
                runtime: "host",
                programs: "containers",
            });
        };
        // A unit that has failed keeps its name until it is reset.
        let _unless_it_never_ran = run("systemctl", &["stop", &unit(id)]).await;
        let _unless_it_never_failed = run("systemctl", &["reset-failed", &unit(id)]).await;
        let launch = launch::write(&self.files, job, command)?;
        // The environment as the version before has written it.
        self.files.remove(&format!("{}/env", directory(id)))?;
        let ourselves = std::env::current_exe();
        let ourselves = ourselves.map_err(HostError::file("find", Path::new("ployzd")))?;
        let mut line = vec![
            "--quiet".to_owned(),
            format!("--unit={}", unit(id)),
            format!("--description=ployz workload {}", job.record.workload),
            "--property=RemainAfterExit=yes".to_owned(),
            format!("--property=TimeoutStopSec={STOP_WAIT_SECS}"),
            format!("--property=StandardInput=file:{}", launch.display()),
        ];
        if job.user.is_some() {
            line.extend(SANDBOX.map(|property| format!("--property={property}")));
        }
        line.extend(["--".to_owned(), ourselves.display().to_string()]);
        line.push("launch".to_owned());
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        run("systemd-run", &line).await?;
        Ok(())
    }

    pub(super) async fn stop(&self, id: InstanceId) -> Result<(), WorkloadError> {
        let seen = self.observe(&[id]).await?;
        if seen.get(&id).is_none_or(|seen| *seen == Seen::Nothing) {
            return Ok(());
        }
        run("systemctl", &["stop", &unit(id)]).await?;
        let _unless_it_never_failed = run("systemctl", &["reset-failed", &unit(id)]).await;
        Ok(())
    }

    pub(super) async fn logs(
        &self,
        id: InstanceId,
        lines: u32,
    ) -> Result<Vec<String>, WorkloadError> {
        // Without systemd's own messages about the unit.
        let (own, lines_wanted) = (format!("_SYSTEMD_UNIT={}", unit(id)), lines.to_string());
        let line = [&own, "--lines", &lines_wanted, "--output=cat", "--no-pager"];
        let said = run("journalctl", &line).await?;
        let first = said.len().saturating_sub(LOGS_LEN_MAX);
        let first = said.ceil_char_boundary(first);
        Ok(last_lines(&said[first..], lines))
    }
}

fn unit(id: InstanceId) -> String {
    format!("ployz-workload-{id}.service")
}

fn properties(block: &str) -> BTreeMap<&str, &str> {
    block
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect()
}

fn state(active: &str, sub: &str) -> Seen {
    match (active, sub) {
        ("active", "exited") => Seen::Succeeded,
        ("active" | "activating" | "deactivating" | "reloading", _) => Seen::Running,
        ("failed", _) => Seen::Failed,
        _ => Seen::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_units_are_understood() {
        for (active, sub, expected) in [
            ("inactive", "dead", Seen::Nothing),
            ("activating", "start", Seen::Running),
            ("active", "running", Seen::Running),
            ("deactivating", "stop-sigterm", Seen::Running),
            ("active", "exited", Seen::Succeeded),
            ("failed", "failed", Seen::Failed),
        ] {
            assert_eq!(state(active, sub), expected, "{active} {sub}");
        }
    }

    #[test]
    fn what_systemctl_shows_of_several_units_is_told_apart() {
        let said =
            "Id=a.service\nActiveState=active\nSubState=running\n\nId=b=c.service\nnonsense\n";
        let units: Vec<_> = said.split("\n\n").map(properties).collect();
        assert_eq!(units[0]["SubState"], "running");
        assert_eq!((units[1]["Id"], units[1].len()), ("b=c.service", 1));
        let id = InstanceId::new(1, 1);
        assert!(unit(id).starts_with("ployz-workload-") && unit(id).ends_with(".service"));
    }
}
