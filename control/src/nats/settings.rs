//! The server's configuration file. Its format takes JSON, so that nothing has to be quoted by hand.

use std::net::SocketAddr;

use ployz_api::{MachineId, Secret};
use serde_json::{Value, json};

/// The stream of events.
pub(crate) const EVENTS: &str = "events";
/// Each machine has a subject of it.
pub(crate) const EVENT_SUBJECTS: &str = "events.*";

/// A cluster's records are some hundred kilobytes; this is for their history.
const STORE_BYTES_MAX: u64 = 256 << 20;
const MEMORY_BYTES_MAX: u64 = 64 << 20;
const LOG_BYTES_MAX: u64 = 4 << 20;
/// Every machine has one connection; tools and reconnections come on top.
const CONNECTIONS_MAX: u32 = 1_024;
const TLS_TIMEOUT_SECS: u32 = 5;
/// A server whose machine has lost power says nothing more, and until that is noticed others ask it.
const PING_INTERVAL: &str = "3s";
const PINGS_MAX: u32 = 2;

/// The account of the store.
const STORE_ACCOUNT: &str = "STORE";
/// The streams that every machine may list.
const LISTED: [&str; 6] = [
    "KV_machines",
    "KV_observed",
    "KV_rtt",
    "KV_credentials",
    "KV_operations",
    EVENTS,
];
/// Where the store says what has changed, once it has: `<this>.<bucket>.<key>`.
pub(crate) const CHANGED: &str = "ployz.changed";
/// All of that.
pub(crate) const NEWS: &str = "ployz.changed.>";
/// Where the store says each event, once it has it: `ployz.<subject>`.
pub(crate) const EVENT_NEWS: &str = "ployz.events.>";
/// What machines write: each what ends with its own id.
const WRITTEN: [&str; 3] = ["$KV.observed.*", "$KV.rtt.*", EVENT_SUBJECTS];
/// What they read of a stream that they may not list: each what has its own id in this place.
const READ: &str = "$JS.API.DIRECT.GET.KV_workloads.$KV.workloads.instance.*.*";
/// What they hear.
const HEARD: [&str; 2] = [NEWS, EVENT_NEWS];

/// How a server is set up.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) machine: MachineId,
    pub(crate) listen: SocketAddr,
    pub(crate) users: Vec<User>,
    /// The others that hold the store; none where one machine does, for a cluster of one elects nobody.
    pub(crate) cluster: Option<Cluster>,
}

/// The servers of one store.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// What they call it.
    pub(crate) name: String,
    /// Where they reach this one.
    pub(crate) listen: SocketAddr,
    /// What they know and no other machine does: every machine of the network has a certificate of its authority.
    pub(crate) secret: Secret,
    /// Where they are.
    pub(crate) routes: Vec<SocketAddr>,
}

impl Cluster {
    fn render(&self) -> Value {
        let (user, secret) = ("ployz", self.secret.expose());
        let route = |address: &SocketAddr| format!("nats-route://{user}:{secret}@{address}");
        json!({
            "name": self.name,
            "listen": self.listen.to_string(),
            "no_advertise": true,
            "authorization": { "user": user, "password": secret, "timeout": TLS_TIMEOUT_SECS },
            "tls": tls(),
            "routes": self.routes.iter().map(route).collect::<Vec<_>>(),
        })
    }
}

fn tls() -> Value {
    json!({
        "cert_file": "certificate.pem",
        "key_file": "key.pem",
        "ca_file": "ca.pem",
        "verify": true,
        "timeout": TLS_TIMEOUT_SECS,
    })
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
    /// The file, for a server that is started where its files are: a copy of the directory, in another place or on another
    /// host, must not lead back to the original.
    pub(crate) fn render(&self) -> Value {
        let mut rendered = json!({
            "server_name": self.machine.to_string(),
            "listen": self.listen.to_string(),
            "max_connections": CONNECTIONS_MAX,
            "ping_interval": PING_INTERVAL,
            "ping_max": PINGS_MAX,
            "log_file": "log",
            "logfile_size_limit": LOG_BYTES_MAX,
            "logfile_max_num": 2,
            "jetstream": {
                "store_dir": "store",
                "max_file_store": STORE_BYTES_MAX,
                "max_memory_store": MEMORY_BYTES_MAX,
                // The default acknowledges writes that a power cut still takes back.
                "sync_interval": "always",
            },
            "tls": tls(),
            "accounts": self.accounts(),
        });
        if let Some(cluster) = &self.cluster {
            rendered["cluster"] = cluster.render();
        }
        rendered
    }

    /// One for the store and its coordinators, and one for all other machines.
    ///
    /// Permissions do not look at where an answer is to be sent, nor at where a consumer delivers: with those alone,
    /// whoever may ask the store for anything can have it write anywhere. Between accounts, all that comes through is
    /// what one exports and the other imports, and answers stay in the account that the question came from.
    ///
    /// Only users ever change: the imports of an account that comes with a reload are dead (nats-server #8560).
    fn accounts(&self) -> Value {
        let (coordinators, machines): (Vec<&User>, Vec<&User>) =
            self.users.iter().partition(|user| user.coordinator);
        let users = |users: Vec<&User>| users.into_iter().map(User::render).collect::<Vec<_>>();
        // A listing is as many answers as there are records.
        let listings = LISTED.map(listing_subject);
        let mut exports = listings
            .clone()
            .map(|subject| json!({ "service": subject, "response_type": "stream" }))
            .to_vec();
        exports.extend(WRITTEN.map(|subject| json!({ "service": subject })));
        exports.push(json!({ "service": READ }));
        exports.extend(HEARD.map(|subject| json!({ "stream": subject })));
        let mut imports: Vec<Value> = listings
            .into_iter()
            .chain(WRITTEN.map(str::to_owned))
            .chain([READ.to_owned()])
            .map(|subject| json!({ "service": { "account": STORE_ACCOUNT, "subject": subject } }))
            .collect();
        imports.extend(
            HEARD.map(
                |subject| json!({ "stream": { "account": STORE_ACCOUNT, "subject": subject } }),
            ),
        );
        json!({
            STORE_ACCOUNT: {
                "jetstream": "enabled",
                "users": users(coordinators),
                "exports": exports,
            },
            "MACHINES": { "users": users(machines), "imports": imports },
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
            "subscribe": { "allow": [format!("{}.>", inbox_prefix(self.machine)), NEWS, EVENT_NEWS] },
        }})
    }

    fn may_publish(&self) -> Vec<String> {
        let own = |subjects: &str| subjects.replace('*', &self.machine.to_string());
        let mut subjects = WRITTEN.map(own).to_vec();
        subjects.extend(LISTED.map(listing_subject));
        subjects.push(instance_subject(self.machine, "*"));
        subjects
    }
}

/// Where the whole content of a stream is asked for.
pub(crate) fn listing_subject(stream: &str) -> String {
    format!("$JS.API.DIRECT.GET.{stream}")
}

/// Where a machine asks for what it is to run.
pub(crate) fn instance_subject(machine: MachineId, id: impl std::fmt::Display) -> String {
    format!("$JS.API.DIRECT.GET.KV_workloads.$KV.workloads.instance.{machine}.{id}")
}

/// Where answers to a machine go: its own, so that no other can listen in.
pub(crate) fn inbox_prefix(machine: MachineId) -> String {
    format!("_INBOX.{machine}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_may_write_its_own_records_and_no_others() {
        let machine = MachineId::new(1, 1);
        let user = User {
            machine,
            nkey: "U".to_owned(),
            coordinator: false,
        };
        let expected = [
            format!("$KV.observed.{machine}"),
            format!("$KV.rtt.{machine}"),
            format!("events.{machine}"),
            "$JS.API.DIRECT.GET.KV_machines".to_owned(),
            "$JS.API.DIRECT.GET.KV_observed".to_owned(),
            "$JS.API.DIRECT.GET.KV_rtt".to_owned(),
            "$JS.API.DIRECT.GET.KV_credentials".to_owned(),
            "$JS.API.DIRECT.GET.KV_operations".to_owned(),
            "$JS.API.DIRECT.GET.events".to_owned(),
            format!("$JS.API.DIRECT.GET.KV_workloads.$KV.workloads.instance.{machine}.*"),
        ];
        assert_eq!(user.may_publish(), expected);
        let subscriptions = &user.render()["permissions"]["subscribe"]["allow"];
        assert_eq!(
            *subscriptions,
            json!([format!("_INBOX.{machine}.>"), NEWS, EVENT_NEWS])
        );
        assert_eq!(NEWS, format!("{CHANGED}.>"));
        let own = machine.to_string();
        assert_eq!(instance_subject(machine, "*"), READ.replacen('*', &own, 1));
    }

    #[test]
    fn machines_come_and_go_and_the_accounts_stay() {
        let user = |number, coordinator| User {
            machine: MachineId::new(1, number),
            nkey: format!("U{number}"),
            coordinator,
        };
        let settings = |users| Settings {
            machine: MachineId::new(1, 1),
            listen: ([10, 101, 0, 1], 4222).into(),
            users,
            cluster: None,
        };
        let alone = settings(vec![user(1, true)]).accounts();
        let mut full = settings(vec![user(1, true), user(2, false), user(3, false)]).accounts();
        assert_eq!(full["STORE"], alone["STORE"]);
        assert_eq!(full["MACHINES"]["users"].as_array().map(Vec::len), Some(2));
        full["MACHINES"]["users"] = json!([]);
        assert_eq!(full, alone);
        assert_eq!(full["MACHINES"]["jetstream"], Value::Null);
    }
}
