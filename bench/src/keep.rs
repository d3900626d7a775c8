//! A contender that is set up and kept, for perf and for experiments by hand.

use anyhow::Result;

use crate::args::{ContendersArguments, Keep, Repeat};
use crate::compare::logs;
use crate::measure::{Durations, memory};
use crate::report::number;
use crate::topology::End;
use crate::tunnel::{Plan, Tunnel};
use crate::{console, priority};

/// Keeps the tunnel until a line, the end of input, or a signal.
pub(crate) fn keep(arguments: &Keep) -> Result<()> {
    let tunnel = start(
        &arguments.contenders,
        &arguments.contender,
        arguments.idle_peers,
    )?;
    for end in [End::A, End::B] {
        let namespace = tunnel.namespace(end).name();
        let address = tunnel.address(end);
        console::result(&format!(
            "{}: ip netns exec {namespace} ...  has {address}",
            end.name()
        ));
    }
    console::result(&format!("daemons: {:?}; enter ends it", tunnel.pids()));
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Runs one measurement over and over through one tunnel.
pub(crate) fn repeat(arguments: &Repeat) -> Result<()> {
    let tunnel = start(
        &arguments.contenders,
        &arguments.contender,
        arguments.idle_peers,
    )?;
    for _ in 0..arguments.times {
        let mut readings = arguments.measurement.run(&tunnel, &Durations::FULL)?;
        readings.extend(memory(&tunnel)?);
        let shown = readings
            .iter()
            .map(|(key, value)| format!("{key}={}", number::short(*value)));
        console::result(&shown.collect::<Vec<_>>().join("  "));
    }
    Ok(())
}

fn start(contenders: &ContendersArguments, name: &str, idle_peers: u32) -> Result<Tunnel> {
    if contenders.urgent {
        priority::raise()?;
    }
    let contender = contenders.contender(name)?;
    Tunnel::start(&Plan {
        contender,
        wire: contenders.wire(),
        idle_peers,
        logs: logs()?,
    })
}
