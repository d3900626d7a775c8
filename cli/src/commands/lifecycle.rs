//! `ployzctl machine activate`, `drain` and `standby`.

use std::time::{Duration, Instant};

use ployz_api::{Code, Failure, MachineId, MachineLifecycle, Payload, Posture, Request};

use super::unexpected;
use crate::arguments::{DrainArguments, StandbyArguments};
use crate::connection::Connection;
use crate::outcome::{Outcome, Success};

/// Draining takes minutes, so half a second is soon enough to notice its end.
const WAIT_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) fn activate(connection: &Connection, machine: String) -> Outcome {
    let set = ask(connection, &Request::MachineActivate { machine })?;
    Ok(set.success())
}

pub(crate) fn standby(connection: &Connection, arguments: StandbyArguments) -> Outcome {
    let StandbyArguments { machine, force } = arguments;
    let set = ask(connection, &Request::MachineStandby { machine, force })?;
    Ok(set.success())
}

pub(crate) fn drain(connection: &Connection, arguments: DrainArguments) -> Outcome {
    let machine = arguments.machine;
    let mut set = ask(connection, &Request::MachineDrain { machine })?;
    if arguments.wait && set.lifecycle.to != Posture::Drained {
        wait_drained(connection, set.lifecycle.id)?;
        set.message += ", and is drained";
        set.lifecycle.to = Posture::Drained;
        set.lifecycle.workloads = 0;
        set.lifecycle.holds.clear();
    }
    Ok(set.success())
}

/// The answer to a change of lifecycle.
struct Set {
    message: String,
    lifecycle: MachineLifecycle,
}

impl Set {
    fn success(self) -> Success {
        let mut text = self.message.clone();
        for workload in &self.lifecycle.holds {
            text += &format!("\nholds       {workload}");
        }
        let payload = Payload::MachineLifecycle(self.lifecycle);
        Success::new(self.message, text, Some(&payload))
    }
}

fn ask(connection: &Connection, request: &Request) -> Result<Set, Failure> {
    let answer = connection.ask(request)?;
    let Some(Payload::MachineLifecycle(lifecycle)) = answer.payload else {
        return Err(unexpected());
    };
    Ok(Set {
        message: answer.message,
        lifecycle,
    })
}

/// Waits until it holds no workload. The daemon's view may lag behind what it has just been told.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line waits for a person"
)]
fn wait_drained(connection: &Connection, id: MachineId) -> Result<(), Failure> {
    let deadline = Instant::now() + connection.patience();
    let (mut was_draining, mut reported) = (false, None);
    loop {
        let answer = connection.ask(&Request::MachineInspect {
            machine: id.to_string(),
        })?;
        let Some(Payload::MachineInspect(inspect)) = answer.payload else {
            return Err(unexpected());
        };
        let (name, left) = (&inspect.machine.name, inspect.machine.workloads);
        match inspect.machine.lifecycle {
            Posture::Drained => return Ok(()),
            Posture::Draining => was_draining = true,
            other @ (Posture::Active | Posture::Standby) if was_draining => {
                let message = format!("{name} was set to {other} by another client");
                return Err(Failure::new(Code::Conflict, message)
                    .hint(format!("ployzctl machine drain --wait {name}")));
            }
            Posture::Active | Posture::Standby => {}
        }
        if reported != Some(left) {
            connection.progress(&format!("{name} holds {left} workloads"));
            reported = Some(left);
        }
        if Instant::now() >= deadline {
            let message = format!("{name} still holds {left} workloads; draining continues");
            return Err(Failure::new(Code::Timeout, message).hint(format!(
                "ployzctl workload ls --machine {name}, then migrate or remove them"
            )));
        }
        if !connection.pause(WAIT_INTERVAL) {
            let message = format!("interrupted; {name} continues to drain");
            return Err(Failure::new(Code::Timeout, message));
        }
    }
}
