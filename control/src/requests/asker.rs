//! Who asks, as far as a request has to know.

use std::net::IpAddr;

use ployz_api::{LOCAL_NETWORK, MachineId, Role};
use ployz_core::MachineRecord;

use crate::host::ca::PublicPoint;
use crate::host::tls::Caller;

/// Where the caller is.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    /// Root of this host.
    is_here: bool,
    /// Of a relayed request, the address of the machine between.
    address: IpAddr,
    /// The machine that asks, and the public key of its certificate.
    machine: Option<(MachineId, Vec<u8>)>,
}

impl Asker {
    /// A caller that the server has authorised.
    pub(crate) fn new(caller: &Caller, address: IpAddr) -> Self {
        let is_machine = caller.role == Role::Machine;
        let id = is_machine.then(|| caller.subject.parse().ok()).flatten();
        let key = caller.certificate.as_ref().map(|it| it.public_key.clone());
        Self {
            is_here: caller.network == LOCAL_NETWORK,
            address,
            machine: id.zip(key),
        }
    }

    /// The machine that asks, and the public key of its certificate.
    pub(super) fn into_machine(self) -> Option<(MachineId, PublicPoint)> {
        let (id, key) = self.machine?;
        Some((id, PublicPoint::of_certificate(key)))
    }

    /// Whether the answer has to go through a machine that will not pass it on any more.
    pub(super) fn sits_at(&self, own: MachineId, machine: &MachineRecord) -> bool {
        let overlay = [IpAddr::from(machine.overlay_ip), machine.overlay_ip6.into()];
        (self.is_here && machine.id == own) || overlay.contains(&self.address)
    }
}
