//! A request that makes no sense is answered with the right errno and changes nothing.
//!
//! ```text
//!   a ========== b      a is asked for nonsense while it talks to b
//! ```

use std::net::UdpSocket;

use anyhow::{Context, Result, ensure};
use ployz_netns_tests::pair::{Family, PORT};
use ployz_netns_tests::{Host, Pair, Plan, Stage, story, traffic};

const EINVAL: i32 = 22;
const EPROTO: i32 = 71;
const EADDRINUSE: i32 = 98;

const STRANGER: &str =
    "public_key=00000000000000000000000000000000000000000000000000000000000000aa";

/// What can be wrong with the device itself.
const DEVICE: &[&str] = &[
    "private_key=zz",
    "private_key=",
    "private_key=00112233",
    "private_key=zz112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    "listen_port=70000",
    "listen_port=-1",
    "listen_port=",
    "listen_port=0x10",
    "fwmark=blue",
    "fwmark=4294967296",
    "replace_peers=maybe",
    "colour=blue",
    "protocol_version=1",
    "allowed_ip=10.0.0.0/8",
];

/// What can be wrong with a peer.
const PEER: &[&str] = &[
    "preshared_key=zz",
    "preshared_key=0011",
    "endpoint=10.0.0.1",
    "endpoint=10.0.0.1:70000",
    "endpoint=somewhere:51820",
    "endpoint=:51820",
    "persistent_keepalive_interval=65536",
    "persistent_keepalive_interval=-1",
    "allowed_ip=10.0.0.0/33",
    "allowed_ip=fd00::/129",
    "allowed_ip=10.0.0.0/-1",
    "allowed_ip=10.0.0/8",
    "allowed_ip=everything",
    "replace_allowed_ips=false",
    "remove=perhaps",
    "update_only=no",
    "protocol_version=2",
    "protocol_version=",
    "colour=blue",
];

story!(right_errno_and_nothing_changed);

fn right_errno_and_nothing_changed(stage: &Stage) -> Result<()> {
    let Pair { mut a, b } = Pair::new(stage, Plan::of(stage))?;
    traffic::ping(&a.netns, b.inner(Family::V4))?;
    for line in DEVICE {
        refused(&a, line, &[EINVAL])?;
        refused(&a, &format!("fwmark=7\n{line}"), &[EINVAL])?;
    }
    for line in PEER {
        refused(&a, &format!("{STRANGER}\n{line}"), &[EINVAL])?;
        refused(
            &a,
            &format!("fwmark=7\n{STRANGER}\nallowed_ip=10.1.0.0/16\n{line}"),
            &[EINVAL],
        )?;
    }
    for line in ["public_key=zz", "public_key=0011", "public_key="] {
        refused(&a, line, &[EINVAL])?;
    }
    for line in ["fwmark", "=", "=7", "listen_port 4444"] {
        refused(&a, line, &[EINVAL, EPROTO])?;
    }
    busy_port(&a)?;
    not_even_a_request(&mut a)?;
    traffic::ping(&a.netns, b.inner(Family::V4))
}

fn refused(host: &Host, request: &str, errnos: &[i32]) -> Result<()> {
    let before = host.wg().dump()?;
    let errno = host
        .daemon
        .uapi()
        .set(request)
        .with_context(|| format!("{request:?}"))?;
    ensure!(
        errnos.contains(&errno),
        "{request:?}: errno {errno}, not {errnos:?}"
    );
    let after = host.wg().dump()?;
    let same = before.listen_port == after.listen_port
        && before.fwmark == after.fwmark
        && before.private_key == after.private_key
        && before.peers.len() == after.peers.len()
        && before.peers[0].allowed_ips == after.peers[0].allowed_ips;
    ensure!(
        same,
        "{request:?} was refused and yet changed {before:?} to {after:?}"
    );
    Ok(())
}

fn busy_port(host: &Host) -> Result<()> {
    let (_v4, _v6) = host.netns.enter(|| {
        Ok((
            UdpSocket::bind("0.0.0.0:4242")?,
            UdpSocket::bind("[::1]:4243")?,
        ))
    })?;
    refused(host, "listen_port=4242", &[EADDRINUSE]).context("busy in IPv4")?;
    refused(host, "listen_port=4243", &[EADDRINUSE]).context("busy in IPv6")?;
    refused(
        host,
        &format!("fwmark=9\nlisten_port=4242\n{STRANGER}"),
        &[EADDRINUSE],
    )?;

    let told = host.wg().try_set("listen-port 4242")?;
    ensure!(!told.succeeded(), "the wg tool was told that all is well");
    ensure!(
        told.stderr.contains("Address already in use"),
        "the wg tool was told: {told}"
    );
    ensure!(
        host.wg().dump()?.listen_port == PORT,
        "the port has changed"
    );
    Ok(())
}

/// The connection may be closed without an answer, but the next one is served.
fn not_even_a_request(host: &mut Host) -> Result<()> {
    let endless = format!("set=1\nprivate_key={}\n\n", "0".repeat(1 << 20));
    for request in [
        "get=2\n\n",
        "set=2\n\n",
        "hello\n\n",
        "\n\n",
        "get=1\nfwmark=1\n\n",
        &endless,
    ] {
        let _whatever = host.daemon.uapi().exchange(request);
        ensure!(host.daemon.is_alive(), "the daemon died of {request:.20?}");
        ensure!(
            host.daemon.uapi().get().is_ok(),
            "no answer after {request:.20?}"
        );
    }
    // Somebody who connects and says nothing holds up nobody else.
    let silent = std::os::unix::net::UnixStream::connect(host.daemon.uapi().path())?;
    ensure!(
        host.daemon.uapi().get().is_ok(),
        "one silent client silences all"
    );
    drop(silent);
    Ok(())
}
