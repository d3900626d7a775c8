//! The machines that `scripts/lab` makes are real ones: a systemd that has all it wants, a user who becomes root by
//! sudo, a TUN and io_uring's kernel below. What was written when the power went is there when it is back; nobody else
//! has it.

use ployz_netns_tests::command::PATIENCE;
use ployz_netns_tests::wait::wait_until;
use ployz_netns_tests::{Lab, Outcome};

#[test]
fn machines_boot_lose_power_and_boot_again() -> Outcome {
    let lab = Lab::up(2)?;
    for machine in [1, 2] {
        let said = lab.ssh(machine, "sudo test -c /dev/net/tun && hostname")?;
        assert_eq!(said.success()?.stdout.trim(), format!("m{machine}"));
        wait_until("systemd to have all it wants", PATIENCE, || {
            lab.ssh(machine, "systemctl is-system-running")
                .is_ok_and(|said| said.stdout.trim() == "running")
        })?;
    }
    let ids = [1, 2].map(|machine| lab.ssh(machine, "cat /etc/machine-id"));
    let [first, second] = ids.map(|id| id.map(|said| said.stdout));
    assert_ne!(first?, second?);

    lab.ssh(1, "echo kept > file && sync")?.success()?;
    let ping = ["ping", "-c", "1", "-W", "1", &Lab::address(1)];
    lab.run(&ping, b"", PATIENCE)?.success()?;
    lab.kill(1)?;
    assert!(!lab.ssh(1, "true")?.succeeded(), "it has no power");
    lab.boot(1)?;
    assert_eq!(lab.ssh(1, "cat file")?.success()?.stdout.trim(), "kept");
    assert!(!lab.ssh(2, "test -e file")?.succeeded());
    Ok(())
}
