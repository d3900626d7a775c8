//! Who asks, as far as a request has to know.

use std::net::IpAddr;

use ployz_api::{CertificateName, LOCAL_NETWORK, MachineId};
use ployz_core::MachineRecord;

/// Where the caller is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    /// Root of this host.
    is_here: bool,
    /// Of a relayed request, the address of the machine between.
    address: IpAddr,
}

impl Asker {
    /// A caller that the server has authorised.
    pub(crate) fn new(caller: &CertificateName, address: IpAddr) -> Self {
        Self {
            is_here: caller.network == LOCAL_NETWORK,
            address,
        }
    }

    /// Whether the answer has to go through a machine that will not pass it on any more.
    pub(super) fn sits_at(self, own: MachineId, machine: &MachineRecord) -> bool {
        let overlay = [IpAddr::from(machine.overlay_ip), machine.overlay_ip6.into()];
        (self.is_here && machine.id == own) || overlay.contains(&self.address)
    }
}
