//! What the control task and the store's client know.

use std::fmt::Write as _;

use crate::host::clock;
use crate::machine::Machine;
use crate::metrics::{family, gauge};
use crate::network::Network;

/// Its part of the page; only the first line of it for a machine in no network.
pub(crate) fn page(machine: &Machine) -> String {
    let mut text = String::new();
    let network = machine.network();
    let help = "1 while this machine takes part in a network.";
    gauge(
        &mut text,
        "ployz_network_running",
        help,
        u64::from(network.is_some()),
    );
    if let Some(network) = network {
        let labels = format!(
            "{{network=\"{}\",machine=\"{}\"}}",
            network.membership.network, machine.identity.machine_id
        );
        let help = "The network and the machine, as labels.";
        family(
            &mut text,
            "ployz_network_info",
            "gauge",
            help,
            [(labels, 1)],
        );
        render_view(&mut text, machine, &network);
        render_store(&mut text, &network);
    }
    text
}

fn render_view(text: &mut String, machine: &Machine, network: &Network) {
    let view = network.view();
    let now = clock::now().unix_secs;
    let help = "Machines in view.";
    gauge(text, "ployz_machines", help, view.machines().count() as u64);
    let help = "Time since the store confirmed the view.";
    gauge(text, "ployz_view_age_seconds", help, view.age_secs(now));
    let help = "The newest revision of a machine's record in view.";
    gauge(text, "ployz_view_revision", help, view.revision());
    let help = "Time since that revision arrived.";
    gauge(
        text,
        "ployz_view_revision_age_seconds",
        help,
        view.revision_age_secs(now),
    );
    let others = view
        .machines()
        .filter(|other| other.id != machine.identity.machine_id);
    let names = others.map(|machine| {
        let mut labels = format!("{{public_key={:?},", machine.wireguard_key);
        // Writing to a string cannot fail.
        let _ = write!(
            labels,
            "machine=\"{}\",name=\"{}\"}}",
            machine.id, machine.name
        );
        (labels, 1)
    });
    let help = "The machine of a peer's public key, as labels.";
    family(text, "ployz_peer_info", "gauge", help, names);
}

fn render_store(text: &mut String, network: &Network) {
    let store = &network.store;
    let help = "1 while there is a connection to the store.";
    gauge(
        text,
        "ployz_store_connected",
        help,
        u64::from(store.is_connected()),
    );
    let health = store.health();
    for (name, help, value) in [
        (
            "ployz_store_errors_total",
            "Calls to the store that failed; without a connection none is made.",
            health.errors(),
        ),
        (
            "ployz_store_disconnects_total",
            "Connections to the store that were lost.",
            health.disconnects(),
        ),
    ] {
        family(text, name, "counter", help, [(String::new(), value)]);
    }
    if let Some(storage) = &network.storage {
        let help = "1 while nats-server runs here.";
        gauge(
            text,
            "ployz_store_server_running",
            help,
            u64::from(storage.nats.is_running()),
        );
    }
}
