//! The lifecycle of a machine, and the transitions that an operator may ask for.
//!
//! ```text
//!               ┌────────── activate ───────────┐
//!               ▼                               │
//!   Standby ─activate─▶ Active ────drain────▶ Draining
//!      ▲                  │                     │
//!      └──── standby ─────┴────── standby ──────┘      unless it holds workloads
//! ```
//!
//! A machine that is draining and holds none is shown as drained; that is computed and never stored. Whatever a machine
//! already is, it may be told to be again.

use ployz_api::{Code, Failure, Lifecycle, Posture};

use crate::machines::MachineRecord;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Take workloads.
    Activate,
    /// Take no more.
    Drain,
    /// Be parked.
    Standby {
        /// Although it holds some.
        force: bool,
    },
}

/// Why a machine stays what it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransitionRefusal {
    /// There is no such way.
    #[error("{machine} is {from} and cannot become {to}")]
    Invalid {
        /// The name of the machine.
        machine: String,
        /// The present lifecycle of the machine.
        from: Posture,
        /// The lifecycle that was asked for.
        to: Lifecycle,
    },
    /// A machine with workloads does not go on standby.
    #[error("{machine} holds {workloads}")]
    Holds {
        /// The name of the machine.
        machine: String,
        /// Their names.
        workloads: String,
    },
    /// The machine accepts no workloads.
    #[error("{machine} is {posture} and accepts no workloads")]
    NotActive {
        /// The name of the machine.
        machine: String,
        /// The present lifecycle of the machine.
        posture: Posture,
    },
}

impl From<TransitionRefusal> for Failure {
    fn from(refusal: TransitionRefusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            TransitionRefusal::Invalid { machine, .. }
            | TransitionRefusal::NotActive { machine, .. } => {
                Self::new(Code::InvalidTransition, message)
                    .hint(format!("ployzctl machine activate {machine}"))
            }
            TransitionRefusal::Holds { machine, .. } => {
                Self::new(Code::MachineHoldsWorkloads, message).hint(format!(
                    "ployzctl migrate apply <workload> --to <machine>, or ployzctl machine standby --force {machine}"
                ))
            }
        }
    }
}

impl Transition {
    /// The lifecycle that the transition leads to.
    pub const fn to(self) -> Lifecycle {
        match self {
            Self::Activate => Lifecycle::Active,
            Self::Drain => Lifecycle::Draining,
            Self::Standby { .. } => Lifecycle::Standby,
        }
    }

    /// The lifecycle of the machine after the transition.
    ///
    /// # Errors
    /// [`TransitionRefusal`]; never for what it already is.
    pub fn apply(self, machine: &MachineRecord) -> Result<Lifecycle, TransitionRefusal> {
        let to = self.to();
        match (machine.lifecycle, self) {
            (Lifecycle::Standby, Self::Standby { .. })
            | (Lifecycle::Standby | Lifecycle::Draining | Lifecycle::Active, Self::Activate)
            | (Lifecycle::Active | Lifecycle::Draining, Self::Drain) => Ok(to),
            (Lifecycle::Standby, Self::Drain) => Err(TransitionRefusal::Invalid {
                machine: machine.name.to_string(),
                from: machine.posture(),
                to,
            }),
            (Lifecycle::Active | Lifecycle::Draining, Self::Standby { force }) => {
                if force || machine.workloads.is_empty() {
                    return Ok(to);
                }
                let names: Vec<String> = machine
                    .workloads
                    .values()
                    .map(ToString::to_string)
                    .collect();
                Err(TransitionRefusal::Holds {
                    machine: machine.name.to_string(),
                    workloads: names.join(", "),
                })
            }
        }
    }
}

/// Whether a workload may be placed on a machine.
///
/// # Errors
/// [`TransitionRefusal::NotActive`].
pub fn may_place(machine: &MachineRecord) -> Result<(), TransitionRefusal> {
    match machine.lifecycle {
        Lifecycle::Active => Ok(()),
        Lifecycle::Standby | Lifecycle::Draining => Err(TransitionRefusal::NotActive {
            machine: machine.name.to_string(),
            posture: machine.posture(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use ployz_api::InstanceId;

    use super::*;
    use crate::machines::examples;

    fn machine(lifecycle: Lifecycle, holds: u8) -> MachineRecord {
        let mut machine = MachineRecord {
            lifecycle,
            ..examples::machine(1, 1)
        };
        for number in 0..holds {
            let name = format!("w{number}").parse().unwrap();
            machine
                .workloads
                .insert(InstanceId::new(number.into(), 0), name);
        }
        machine
    }

    /// The table: every state, with workloads and without, and every command.
    #[test]
    fn every_state_meets_every_command() {
        use Lifecycle::{Active, Draining, Standby};
        let park = Transition::Standby { force: false };
        let force = Transition::Standby { force: true };
        let (ok, invalid, holds) = (
            Code::Ok,
            Code::InvalidTransition,
            Code::MachineHoldsWorkloads,
        );
        #[rustfmt::skip]
        let table = [
            //               activate            drain              standby           standby --force
            (Standby,  0, [(Transition::Activate, ok), (Transition::Drain, invalid), (park, ok),    (force, ok)]),
            (Standby,  2, [(Transition::Activate, ok), (Transition::Drain, invalid), (park, ok),    (force, ok)]),
            (Active,   0, [(Transition::Activate, ok), (Transition::Drain, ok),      (park, ok),    (force, ok)]),
            (Active,   2, [(Transition::Activate, ok), (Transition::Drain, ok),      (park, holds), (force, ok)]),
            (Draining, 0, [(Transition::Activate, ok), (Transition::Drain, ok),      (park, ok),    (force, ok)]),
            (Draining, 2, [(Transition::Activate, ok), (Transition::Drain, ok),      (park, holds), (force, ok)]),
        ];
        for (lifecycle, count, commands) in table {
            for (command, expected) in commands {
                let outcome = command
                    .apply(&machine(lifecycle, count))
                    .map_err(Failure::from);
                let code = outcome.as_ref().map_or_else(|refused| refused.code, |_| ok);
                assert_eq!(code, expected, "{lifecycle} {count} {command:?}");
                if let Ok(after) = outcome {
                    assert_eq!(after, command.to());
                }
            }
        }
    }

    #[test]
    fn a_refusal_names_what_is_held() {
        let park = Transition::Standby { force: false };
        let refused = park.apply(&machine(Lifecycle::Active, 2)).unwrap_err();
        assert_eq!(refused.to_string(), "m1 holds default/w0, default/w1");
    }

    #[test]
    fn only_active_machines_take_workloads_and_drained_is_computed() {
        for (lifecycle, holds, posture, takes) in [
            (Lifecycle::Standby, 0, Posture::Standby, false),
            (Lifecycle::Standby, 1, Posture::Standby, false),
            (Lifecycle::Active, 0, Posture::Active, true),
            (Lifecycle::Active, 1, Posture::Active, true),
            (Lifecycle::Draining, 0, Posture::Drained, false),
            (Lifecycle::Draining, 1, Posture::Draining, false),
        ] {
            let machine = machine(lifecycle, holds);
            assert_eq!(machine.posture(), posture);
            assert_eq!(may_place(&machine).is_ok(), takes, "{posture}");
        }
    }
}
