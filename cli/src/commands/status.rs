//! `ployzctl status`.

use ployz_api::{Payload, Request, Status, StorageState};

use super::{data_plane, unexpected};
use crate::connection::Connection;
use crate::outcome::{Outcome, Success};

/// Asks the daemon; the data plane alone where there is nothing else, or where it is asked for by name.
pub(crate) fn run(connection: &Connection, interface: Option<&str>) -> Outcome {
    if interface.is_some() || !connection.has_daemon() {
        return data_plane::run(interface);
    }
    let answer = connection.ask(&Request::Status)?;
    let Some(Payload::Status(status)) = &answer.payload else {
        return Err(unexpected());
    };
    Ok(Success::new(
        answer.message,
        text(status),
        answer.payload.as_ref(),
    ))
}

fn text(status: &Status) -> String {
    let dash = || "—".to_owned();
    let or_dash = |value: Option<String>| value.unwrap_or_else(dash);
    let mut lines = vec![
        ("version", status.version.clone()),
        ("service", service(status)),
        ("machine", format!("{} ({})", status.name, status.id)),
        (
            "network",
            or_dash(status.network.as_ref().map(ToString::to_string)),
        ),
        (
            "lifecycle",
            if status.removed {
                "removed from the network".to_owned()
            } else {
                or_dash(status.lifecycle.map(|it| it.to_string()))
            },
        ),
        (
            "overlay",
            or_dash(status.overlay_ip.map(|it| it.to_string())),
        ),
        ("", or_dash(status.overlay_ip6.map(|it| it.to_string()))),
        (
            "data plane",
            format!(
                "{} on {}",
                status.data_plane.backend, status.data_plane.interface
            ),
        ),
        ("offloads", offloads(status)),
        ("storage", storage(&status.storage)),
    ];
    if let Some(age) = status.control.view_age_secs {
        let connected = if status.control.connected {
            "connected"
        } else {
            "not connected"
        };
        let machines = status.control.machines;
        let control = format!("{connected}, {machines} machines, confirmed {age} s ago");
        lines.push(("control", control));
    }
    if let Some(offset) = status.control.clock_offset_secs.filter(|it| it.abs() >= 5) {
        let side = if offset > 0 { "ahead of" } else { "behind" };
        let secs = offset.unsigned_abs();
        lines.push((
            "clock",
            format!("{secs} s {side} the store's clock: set it"),
        ));
    }
    let lines: Vec<String> = lines
        .into_iter()
        .map(|(key, value)| format!("{key:<11} {value}"))
        .collect();
    lines.join("\n")
}

fn service(status: &Status) -> String {
    let installation = &status.installation;
    let installed = match &installation.current {
        Some(current) => format!("{current} is installed"),
        None => "not managed by systemd".to_owned(),
    };
    let (mode, runtime) = (&installation.service_mode, &status.runtime);
    format!("{installed}, service mode {mode}, runtime {runtime}")
}

fn offloads(status: &Status) -> String {
    let details = &status.data_plane.details;
    let offloads = ["tun_tcp_offload", "tun_udp_offload", "udp_gso", "udp_gro"];
    let used: Vec<&str> = offloads
        .into_iter()
        .filter(|key| details.get(*key).is_some_and(|value| value == "yes"))
        .collect();
    if used.is_empty() {
        "none".to_owned()
    } else {
        used.join(", ")
    }
}

fn storage(storage: &StorageState) -> String {
    match storage {
        StorageState::None => "not here".to_owned(),
        StorageState::Running { pid, version } => format!("nats-server {version}, process {pid}"),
        StorageState::Down => "nats-server is down and is being restarted".to_owned(),
    }
}
