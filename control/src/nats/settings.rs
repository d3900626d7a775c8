//! The server's configuration file. Its format takes JSON, so that nothing has to be quoted by hand.

use std::net::SocketAddr;
use std::path::Path;

use ployz_api::MachineId;
use serde_json::{Map, Value, json};

/// A cluster's records are some hundred kilobytes; this is for their history.
const STORE_BYTES_MAX: u64 = 256 << 20;
const MEMORY_BYTES_MAX: u64 = 64 << 20;
const LOG_BYTES_MAX: u64 = 4 << 20;
/// Every machine has one connection; tools and reconnections come on top.
const CONNECTIONS_MAX: u32 = 1_024;

/// The account of the store.
const STORE_ACCOUNT: &str = "STORE";
/// What every machine may list and follow.
const LISTED: [&str; 2] = ["machines", "observed"];
/// Where the store says what has changed, once it has: `<this>.<bucket>.<key>`.
pub(crate) const CHANGED: &str = "ployz.changed";

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
            "accounts": self.accounts(),
        })
    }

    /// One for the store and its coordinators, and one for every other machine.
    ///
    /// Permissions do not look at where an answer is to be sent, nor at where a consumer delivers: with those, whoever
    /// may ask the store for anything can have it write anywhere. Between accounts, all that comes through is what one
    /// exports and the other imports, and answers go back to where the question came from.
    fn accounts(&self) -> Value {
        let (coordinators, others): (Vec<&User>, Vec<&User>) =
            self.users.iter().partition(|user| user.coordinator);
        let coordinators: Vec<Value> = coordinators
            .iter()
            .map(|user| json!({ "nkey": user.nkey }))
            .collect();
        let listings = LISTED.map(|bucket| {
            // A listing is as many answers as there are records.
            json!({ "service": listing_subject(bucket), "response_type": "stream" })
        });
        let mut exports = listings.to_vec();
        exports.push(json!({ "service": "$KV.observed.*" }));
        exports.push(json!({ "stream": format!("{CHANGED}.>") }));
        let store = json!({ "jetstream": "enabled", "users": coordinators, "exports": exports });
        let mut accounts = Map::from_iter([(STORE_ACCOUNT.to_owned(), store)]);
        accounts.extend(
            others
                .iter()
                .map(|user| (user.machine.to_string(), user.account())),
        );
        accounts.into()
    }
}

impl User {
    /// A machine that is no coordinator, alone.
    fn account(&self) -> Value {
        let imports: Vec<Value> = self
            .may_publish()
            .iter()
            .map(|subject| json!({ "service": { "account": STORE_ACCOUNT, "subject": subject } }))
            .chain([json!({
                "stream": { "account": STORE_ACCOUNT, "subject": format!("{CHANGED}.>") }
            })])
            .collect();
        // The account alone would make everything else go nowhere; this makes it an error that is logged.
        let permissions = json!({
            "publish": { "allow": self.may_publish() },
            "subscribe": { "allow": [format!("{}.>", inbox_prefix(self.machine)), format!("{CHANGED}.>")] },
        });
        json!({
            "users": [{ "nkey": self.nkey, "permissions": permissions }],
            "imports": imports,
        })
    }

    fn may_publish(&self) -> Vec<String> {
        let mut subjects = vec![format!("$KV.observed.{}", self.machine)];
        subjects.extend(LISTED.map(listing_subject));
        subjects
    }
}

/// Where the whole content of a bucket is asked for.
pub(crate) fn listing_subject(bucket: &str) -> String {
    format!("$JS.API.DIRECT.GET.KV_{bucket}")
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
        let expected = [
            format!("$KV.observed.{machine}"),
            "$JS.API.DIRECT.GET.KV_machines".to_owned(),
            "$JS.API.DIRECT.GET.KV_observed".to_owned(),
        ];
        assert_eq!(user.may_publish(), expected);
        let account = user.account();
        let permissions = &account["users"][0]["permissions"];
        assert_eq!(
            permissions["subscribe"]["allow"][0],
            format!("_INBOX.{machine}.>")
        );
        assert_eq!(account["imports"].as_array().map(Vec::len), Some(4));
        assert_eq!(account["jetstream"], Value::Null);
    }
}
