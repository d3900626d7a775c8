//! Carrying out a migration, on the machine that coordinates it.

use std::rc::Rc;

use ployz_api::{Code, Failure, InstanceId, MachineId, Name, WorkloadSpec};
use ployz_core::{MigrationAnswer, MigrationProcedure, MigrationStep, ServiceRecord};

use crate::network::Network;
use crate::services::migration::leftovers::overtaken;
use crate::services::placement::{claim, instruct, release, service, service_key};
use crate::services::runner::Executor;
use crate::store::operations::OperationLog;
use crate::store::{Revised, Store, WORKLOADS};
use crate::workloads::Moving;

/// Carries out the steps of a migration.
#[derive(Debug)]
pub(super) struct Coordinator {
    pub(super) network: Rc<Network>,
    /// The workload as it was when the migration began.
    pub(super) service: Revised<ServiceRecord>,
    /// What is to run; it holds an environment, and is written down once.
    pub(super) spec: Option<WorkloadSpec>,
    /// Whether it runs as root and without a sandbox, as it did before.
    pub(super) privileged: bool,
    pub(super) to: MachineId,
    /// The new instance.
    pub(super) id: InstanceId,
    pub(super) _moving: Moving,
}

impl Executor for Coordinator {
    type Procedure = MigrationProcedure;

    async fn carry_out(
        &mut self,
        step: MigrationStep,
        _log: &mut OperationLog,
    ) -> Result<MigrationAnswer, Failure> {
        match step {
            MigrationStep::Announce => {
                let announced = ServiceRecord {
                    next: Some(self.id),
                    ..self.service.value.clone()
                };
                self.write(&announced, self.service.revision).await?;
            }
            MigrationStep::Instruct => self.instruct().await?,
            MigrationStep::Claim => {
                let workload = &self.service.value.workload;
                claim(self.store(), self.to, self.id, workload).await?;
            }
            MigrationStep::Look => {
                let state = self.network.instance_state(self.to, self.id);
                return Ok(MigrationAnswer::State(state));
            }
            MigrationStep::CutOver => {
                let old = &self.service.value;
                let found = service(self.store(), &old.workload).await?;
                if found.value.next != Some(self.id) {
                    return Err(overtaken(old));
                }
                self.write(&self.moved(), found.revision).await?;
            }
            MigrationStep::Release => {
                let old = &self.service.value;
                release(self.store(), old.machine, old.id).await?;
            }
            MigrationStep::Undo => self.undo().await?,
        }
        Ok(MigrationAnswer::Done)
    }

    fn name_of(&self, machine: MachineId) -> Name {
        let view = self.network.view();
        let name = view.machine(machine).map(|it| it.name.clone());
        name.unwrap_or_else(|| Name::nearest(&machine.to_string()))
    }

    async fn save(&mut self, _migration: &MigrationProcedure, _log: &mut OperationLog) {
        // The workload's records say how far it is.
    }

    async fn close(&mut self, _outcome: &Result<(), Failure>) {}
}

impl Coordinator {
    fn store(&self) -> &Store {
        &self.network.store
    }

    /// The workload once it has moved.
    fn moved(&self) -> ServiceRecord {
        ServiceRecord {
            id: self.id,
            machine: self.to,
            ..self.service.value.clone()
        }
    }

    async fn instruct(&mut self) -> Result<(), Failure> {
        let twice = || Failure::new(Code::Internal, "the instance has been recorded already");
        let spec = self.spec.take().ok_or_else(twice)?;
        let from = Some(self.service.value.machine);
        instruct(self.store(), &self.moved(), spec, self.privileged, from).await
    }

    async fn write(&self, record: &ServiceRecord, revision: u64) -> Result<(), Failure> {
        let key = service_key(&record.workload);
        let written = self.store().update(WORKLOADS, &key, record, revision);
        if written.await? {
            return Ok(());
        }
        Err(overtaken(record))
    }

    /// The old machine goes on by itself once the new one does not claim it any more.
    async fn undo(&self) -> Result<(), Failure> {
        let old = &self.service.value;
        let undone = async {
            release(self.store(), self.to, self.id).await?;
            let found = service(self.store(), &old.workload).await?;
            if found.value.next == Some(self.id) {
                self.write(old, found.revision).await?;
            }
            Ok::<(), Failure>(())
        };
        undone.await.inspect_err(|failure| {
            // The next attempt, and a removal, begin with that.
            tracing::warn!(workload = %old.workload, cause = %failure, "migration not undone, the next attempt will");
        })
    }
}
