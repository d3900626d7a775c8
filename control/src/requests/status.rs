//! What this daemon is and how it is.

use ployz_api::client::key_exchanges;
use ployz_api::{Control, DataPlane, Installation, Outcome, Payload, Status, StorageState};

use ployz_install::{Layout, Version};

use crate::host::clock;
use crate::host::installation;
use crate::machine::Machine;

pub(super) async fn status(here: &Machine) -> Outcome {
    let details = here.overlay.status().await?;
    let network = here.network();
    let membership = here.membership()?;
    let membership = membership.as_ref();
    let own = here.identity.machine_id;
    let record = network
        .as_ref()
        .and_then(|network| network.view().machine(own).cloned());
    let storage = match network
        .as_ref()
        .and_then(|network| network.storage.as_ref())
    {
        Some(storage) => storage.nats.state().await,
        None => StorageState::None,
    };
    let control = network.as_ref().map_or(
        Control {
            connected: false,
            view_age_secs: None,
            machines: 0,
            clock_offset_secs: None,
        },
        |network| Control {
            connected: network.store.is_connected(),
            view_age_secs: Some(network.view().age_secs(clock::now().unix_secs)),
            machines: network.view().machines().count(),
            clock_offset_secs: network.clock_offset_secs(),
        },
    );
    Ok(Payload::Status(Box::new(Status {
        version: ployz_install::own_version().to_owned(),
        id: own,
        name: record.as_ref().map_or_else(
            || membership.map_or(&here.config.name, |it| &it.name).clone(),
            |record| record.name.clone(),
        ),
        network: membership.map(|it| it.network.clone()),
        network_id: membership.map(|it| it.network_id),
        network_state: membership.map(|it| it.state),
        lifecycle: record.map(|record| record.posture()),
        removed: network.as_ref().is_some_and(|it| it.is_removed()),
        overlay_ip: membership.map(|it| it.overlay_ip),
        overlay_ip6: membership.map(|it| it.overlay_ip6),
        runtime: here.config.runtime.name().to_owned(),
        installation: installation(here),
        data_plane: DataPlane {
            backend: here.overlay.backend().to_owned(),
            interface: here.config.interface.clone(),
            details,
        },
        storage,
        control,
        refused: here.refusals.counts(),
        key_exchanges: key_exchanges(),
    }))
    .into())
}

fn installation(here: &Machine) -> Installation {
    let config = &here.config;
    let layout = installation::own();
    let version = |of: fn(&Layout) -> Option<Version>| {
        let version = layout.as_ref().and_then(of)?;
        Some(version.to_string())
    };
    Installation {
        service_mode: config.service_mode.name().to_owned(),
        current: version(Layout::current),
        previous: version(Layout::previous),
        release_base: config.release_base.as_ref().map(ToString::to_string),
    }
}
