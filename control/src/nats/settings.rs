//! The server's configuration file. Its format takes JSON, so that nothing has to be quoted by hand.

use std::net::SocketAddr;
use std::path::Path;

use ployz_api::MachineId;
use serde_json::{Value, json};

use crate::events::STREAM as EVENTS;

/// A cluster's records are some hundred kilobytes; this is for their history.
const STORE_BYTES_MAX: u64 = 256 << 20;
const MEMORY_BYTES_MAX: u64 = 64 << 20;
const LOG_BYTES_MAX: u64 = 4 << 20;
/// Every machine has one connection; tools and reconnections come on top.
const CONNECTIONS_MAX: u32 = 1_024;

/// How a server is set up.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) machine: MachineId,
    pub(crate) listen: SocketAddr,
    pub(crate) users: Vec<User>,
}

/// Who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) machine: MachineId,
    pub(crate) nkey: String,
    /// Coordinators write everything; other machines read, and write their own observed record.
    pub(crate) coordinator: bool,
}

impl Settings {
    /// The file, for a server that works in `directory`.
    pub(crate) fn render(&self, directory: &Path) -> Value {
        let file = |name: &str| directory.join(name).display().to_string();
        json!({
            "server_name": self.machine.to_string(),
            "listen": self.listen.to_string(),
            "max_connections": CONNECTIONS_MAX,
            "log_file": file("log"),
            "logfile_size_limit": LOG_BYTES_MAX,
            "logfile_max_num": 2,
            "jetstream": {
                "store_dir": file("store"),
                "max_file_store": STORE_BYTES_MAX,
                "max_memory_store": MEMORY_BYTES_MAX,
                // The default acknowledges writes that a power cut still takes back.
                "sync_interval": "always",
            },
            "tls": {
                "cert_file": file("certificate.pem"),
                "key_file": file("key.pem"),
                "ca_file": file("ca.pem"),
                "verify": true,
                "timeout": 5,
            },
            "authorization": { "users": self.users.iter().map(User::render).collect::<Vec<_>>() },
        })
    }
}

impl User {
    fn render(&self) -> Value {
        if self.coordinator {
            return json!({ "nkey": self.nkey });
        }
        json!({ "nkey": self.nkey, "permissions": {
            "publish": { "allow": self.may_publish() },
            "subscribe": { "allow": [format!("{}.>", inbox_prefix(self.machine))] },
        }})
    }

    fn may_publish(&self) -> Vec<String> {
        let mut subjects = vec![
            "$JS.API.INFO".to_owned(),
            format!("$KV.observed.{}", self.machine),
            format!("{EVENTS}.{}", self.machine),
        ];
        for stream in [
            "KV_machines",
            "KV_observed",
            "KV_credentials",
            "KV_operations",
            EVENTS,
        ] {
            subjects.push(format!("$JS.API.STREAM.INFO.{stream}"));
            subjects.push(format!("$JS.API.DIRECT.GET.{stream}.>"));
            // With a filter that the subject cannot hold, the name of the consumer is in the request alone.
            subjects.push(format!("$JS.API.CONSUMER.CREATE.{stream}"));
            subjects.push(format!("$JS.API.CONSUMER.CREATE.{stream}.>"));
            subjects.push(format!("$JS.API.CONSUMER.INFO.{stream}.>"));
            subjects.push(format!("$JS.API.CONSUMER.DELETE.{stream}.>"));
            subjects.push(format!("$JS.FC.{stream}.>"));
        }
        subjects
    }
}

/// Where answers to a machine go: its own, so that no other can listen in.
pub(crate) fn inbox_prefix(machine: MachineId) -> String {
    format!("_INBOX.{machine}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_may_write_its_own_observed_record_and_no_other() {
        let machine = MachineId::new(1, 1);
        let user = User {
            machine,
            nkey: "U".to_owned(),
            coordinator: false,
        };
        let allowed = user.may_publish();
        let writes: Vec<&String> = allowed.iter().filter(|it| it.starts_with("$KV")).collect();
        assert_eq!(writes, [&format!("$KV.observed.{machine}")]);
        let events: Vec<&String> = allowed
            .iter()
            .filter(|it| it.starts_with("events"))
            .collect();
        assert_eq!(events, [&format!("events.{machine}")]);
        assert!(
            !allowed
                .iter()
                .any(|it| it.contains("invites") || it.contains("leases"))
        );
        let rendered = user.render();
        let inboxes = &rendered["permissions"]["subscribe"]["allow"];
        assert_eq!(inboxes[0], format!("_INBOX.{machine}.>"));
    }
}
