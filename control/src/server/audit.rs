//! The audit trail: what each change was, who asked for it, and how it ended.

use ployz_api::{
    CertificateName, Code, EVENT_MESSAGE_LEN_MAX, EVENT_TARGET_LEN_MAX, Effect, Event, Operation,
    Outcome, Payload, Request, Role, text,
};

use crate::host::clock;
use crate::machine::Machine;

/// What the trail needs of a request before it is carried out.
#[derive(Debug)]
pub(super) struct Attempt {
    operation: Operation,
    target: String,
}

impl Attempt {
    /// None if the request changes nothing.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let row = request.operation().row();
        (row.effect == Effect::Change).then(|| Self {
            operation: row.operation,
            target: request.target(),
        })
    }

    /// Writes how it ended. An event that cannot be written now goes to the log only: a change is not undone for it.
    pub(super) async fn record(
        self,
        machine: &Machine,
        caller: &CertificateName,
        outcome: &Outcome,
    ) {
        // A caller without a certificate could fill the stream with guesses.
        if outcome.is_err() && caller.role == Role::Stranger {
            return;
        }
        // A store that did not answer would keep the caller waiting once more.
        let code = outcome.as_ref().err().map(|failure| failure.code);
        if code == Some(Code::StoreUnavailable) {
            return;
        }
        let Some(network) = machine.network() else {
            return;
        };
        let event = self.event(machine, caller, outcome);
        if let Err(failure) = network.store.publish_event(&event).await {
            tracing::warn!(?event, cause = %failure, "event not written to the store");
        }
    }

    fn event(self, machine: &Machine, caller: &CertificateName, outcome: &Outcome) -> Event {
        let (code, message) = match outcome {
            Ok(success) => (Code::Ok, success.message.clone()),
            Err(failure) => (failure.code, failure.message.clone()),
        };
        let success = outcome.as_ref().ok();
        let made = success.and_then(|success| made(success.payload.as_ref()));
        Event {
            at: clock::now().unix_secs,
            machine: machine.identity.machine_id,
            subject: caller.subject.to_uppercase(),
            role: caller.role,
            operation: self.operation,
            target: text::bounded(&made.unwrap_or(self.target), EVENT_TARGET_LEN_MAX),
            code,
            message: text::bounded(&message, EVENT_MESSAGE_LEN_MAX),
        }
    }
}

/// What a change has made, where only the answer knows its name.
fn made(payload: Option<&Payload>) -> Option<String> {
    match payload? {
        Payload::Invite(invite) => Some(invite.invite_id.to_string()),
        Payload::Credential(credential) => Some(credential.credential_id.to_string()),
        Payload::MachineJoin(join) => Some(join.network.to_string()),
        Payload::MeshInit(_)
        | Payload::Redeemed(_)
        | Payload::Status(_)
        | Payload::MachineList(_)
        | Payload::MachineRtt(_)
        | Payload::MachineInspect(_)
        | Payload::InviteList(_)
        | Payload::CredentialList(_)
        | Payload::Doctor(_)
        | Payload::PairReport(_)
        | Payload::RttReport(_)
        | Payload::EventList(_)
        | Payload::Event(_)
        | Payload::OperationList(_)
        | Payload::Operation(_)
        | Payload::MeshList(_)
        | Payload::MeshStatus(_)
        | Payload::MeshReady(_)
        | Payload::MeshSelfRecord(_)
        | Payload::MachineRecord(_)
        | Payload::Workload(_)
        | Payload::WorkloadList(_)
        | Payload::WorkloadInspect(_)
        | Payload::WorkloadLogs(_)
        | Payload::MigratePreview(_)
        | Payload::MigrateApply(_)
        | Payload::VolumeEntries(_)
        | Payload::VolumeBytes(_)
        | Payload::MachineLifecycle(_)
        | Payload::MachineRemove(_)
        | Payload::MachineRetired(_)
        | Payload::Renewed(_)
        | Payload::MachineUpdate(_)
        | Payload::StoragePromotion(_)
        | Payload::StorageReport(_)
        | Payload::StorageList(_)
        | Payload::MachineHealth(_)
        | Payload::ReleaseFetched(_) => None,
    }
}
