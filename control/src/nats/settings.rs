//! The server's configuration file, written as JSON, which its format accepts: nothing has to be quoted by hand.

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
/// Every machine has one connection; tools and reconnections are added to that.
const CONNECTIONS_MAX: u32 = 1_024;
/// Connections of machines that do not hold the store: four of each, and however many one of them makes, the holders'
/// are left.
const MACHINE_CONNECTIONS_MAX: u32 = 896;
const _: () = assert!(MACHINE_CONNECTIONS_MAX < CONNECTIONS_MAX);
const TLS_TIMEOUT_SECS: u32 = 5;
/// The interval of pings. Until a server whose machine has lost power is noticed, others still send it requests.
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
/// The subjects under which the store republishes each write: `<this>.<bucket>.<key>`.
pub(crate) const CHANGED: &str = "ployz.changed";
/// All of these subjects.
pub(crate) const NEWS: &str = "ployz.changed.>";
/// The subjects under which the store republishes each event: `ployz.<subject>`.
pub(crate) const EVENT_NEWS: &str = "ployz.events.>";
/// The subjects that machines write, each those that end with its own id.
const WRITTEN: [&str; 3] = ["$KV.observed.*", "$KV.rtt.*", EVENT_SUBJECTS];
/// The subject that machines read of a stream that they may not list, each with its own id in place of the first `*`.
const READ: &str = "$JS.API.DIRECT.GET.KV_workloads.$KV.workloads.instance.*.*";
/// The subjects that machines subscribe to.
const HEARD: [&str; 2] = [NEWS, EVENT_NEWS];

/// The settings of a server.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) machine: MachineId,
    pub(crate) listen: SocketAddr,
    pub(crate) users: Vec<User>,
    /// The servers of the store's other holders; none for a single holder, as a cluster of one cannot elect a leader.
    pub(crate) cluster: Option<Cluster>,
}

/// The servers of one store.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The name of the cluster.
    pub(crate) name: String,
    /// The address at which they reach this server.
    pub(crate) listen: SocketAddr,
    /// The secret that only holders have: a certificate of the network's authority does not suffice, as every machine
    /// has one.
    pub(crate) secret: Secret,
    /// The addresses of all servers.
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

/// A machine that may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) machine: MachineId,
    pub(crate) nkey: String,
    /// Coordinators write everything; other machines read, and write their own observed record.
    pub(crate) coordinator: bool,
}

impl Settings {
    /// The content of the file. Paths are relative, for a server that is started in the directory of its files: a copy
    /// of the directory must not lead back to the original.
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

    /// The accounts: the store's, which coordinators use as well, and that of all other machines.
    ///
    /// Permissions cover neither the subject that an answer is sent to nor the one that a consumer delivers to: with
    /// permissions alone, every client that may send a request can have the store write anywhere. Between accounts,
    /// only exports that the other account imports pass, and answers stay in the account of the request.
    ///
    /// Only users ever change: the imports of an account that is added by a reload do not work (nats-server #8560).
    fn accounts(&self) -> Value {
        let (coordinators, machines): (Vec<&User>, Vec<&User>) =
            self.users.iter().partition(|user| user.coordinator);
        let users = |users: Vec<&User>| users.into_iter().map(User::render).collect::<Vec<_>>();
        // A listing has as many answers as there are records.
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
            "MACHINES": {
                "users": users(machines),
                "imports": imports,
                "limits": { "max_connections": MACHINE_CONNECTIONS_MAX },
            },
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

/// The subject of requests for the whole content of a stream.
pub(crate) fn listing_subject(stream: &str) -> String {
    format!("$JS.API.DIRECT.GET.{stream}")
}

/// The subject of a machine's requests for what it is to run.
pub(crate) fn instance_subject(machine: MachineId, id: impl std::fmt::Display) -> String {
    format!("$JS.API.DIRECT.GET.KV_workloads.$KV.workloads.instance.{machine}.{id}")
}

/// The prefix of subjects for answers to a machine, which no other machine may subscribe to.
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
        let limits = &full["MACHINES"]["limits"];
        assert_eq!(limits["max_connections"], MACHINE_CONNECTIONS_MAX);
        assert_eq!(full["STORE"]["limits"], Value::Null, "the rest is theirs");
    }

    fn rendered(cluster: Option<Cluster>) -> Value {
        let machine = MachineId::new(1, 1);
        let settings = Settings {
            machine,
            listen: "[fd00::1]:4222".parse().unwrap(),
            users: Vec::new(),
            cluster,
        };
        settings.render()
    }

    #[test]
    fn a_server_acknowledges_what_is_on_its_disk_and_trusts_nobody_without_a_certificate() {
        let alone = rendered(None);
        assert_eq!(alone["server_name"], MachineId::new(1, 1).to_string());
        assert_eq!(alone["listen"], "[fd00::1]:4222");
        assert_eq!(alone["jetstream"]["sync_interval"], "always");
        assert_eq!(alone["tls"]["verify"], true);
        assert_eq!(
            alone.get("cluster"),
            None,
            "a cluster of one elects no leader"
        );
    }

    /// A copy of the directory must not lead back to the original.
    #[test]
    fn every_path_is_relative() {
        let settings = rendered(Some(Cluster {
            name: "n-1".to_owned(),
            listen: ([10, 0, 1, 1], 4_223).into(),
            secret: Secret::new("s".to_owned()),
            routes: Vec::new(),
        }));
        let tls = ["cert_file", "key_file", "ca_file"];
        let files = tls.map(|name| [&settings["tls"][name], &settings["cluster"]["tls"][name]]);
        let others = [&settings["log_file"], &settings["jetstream"]["store_dir"]];
        for path in files.iter().flatten().copied().chain(others) {
            let path = path.as_str().expect("a path");
            assert!(!path.is_empty() && !path.starts_with('/'), "{path}");
        }
    }

    #[test]
    fn the_servers_of_a_cluster_prove_who_they_are_to_each_other() {
        let routes = vec![
            SocketAddr::from(([10, 0, 1, 1], 4_223)),
            "[fd00::2]:4223".parse().unwrap(),
        ];
        let settings = rendered(Some(Cluster {
            name: "n-1".to_owned(),
            listen: routes[0],
            secret: Secret::new("0123abcd".to_owned()),
            routes,
        }));
        let cluster = &settings["cluster"];
        let expected = [
            "nats-route://ployz:0123abcd@10.0.1.1:4223",
            "nats-route://ployz:0123abcd@[fd00::2]:4223",
        ];
        assert_eq!(cluster["routes"], json!(expected));
        assert_eq!(cluster["authorization"]["password"], "0123abcd");
        assert_eq!(cluster["tls"]["verify"], true);
        assert_eq!(cluster["listen"], "10.0.1.1:4223");
        assert_eq!(
            cluster["no_advertise"], true,
            "others learn addresses from records"
        );
    }

    #[test]
    fn what_is_exported_to_machines_is_imported_and_nothing_else() {
        let accounts = rendered(None)["accounts"].clone();
        let subjects = |account: &str, list: &str, kind: &str| -> Vec<String> {
            let all = accounts[account][list].as_array().unwrap().iter();
            let of_kind = all.filter_map(|it| match &it[kind] {
                Value::String(subject) => Some(subject.clone()),
                Value::Object(import) => {
                    assert_eq!(import["account"], STORE_ACCOUNT);
                    import["subject"].as_str().map(str::to_owned)
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
            });
            of_kind.collect()
        };
        for kind in ["service", "stream"] {
            let exported = subjects(STORE_ACCOUNT, "exports", kind);
            assert!(!exported.is_empty());
            assert_eq!(exported, subjects("MACHINES", "imports", kind));
        }
        // Neither of these is for every machine: they say who is to come, and what others run.
        let all = accounts.to_string();
        for secret in ["KV_invites", "KV_leases", "GET.KV_workloads\""] {
            assert!(!all.contains(secret), "{secret}");
        }
    }
}
