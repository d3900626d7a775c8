//! What `wg` sets is what `wg` shows, and changing one thing leaves the others alone.
//!
//! ```text
//!   a ========== b      a is configured in every way that the wg tool has
//! ```

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::wait::now;
use ployz_netns_tests::wg::{base64, hex};
use ployz_netns_tests::{Daemon, Host, Keys, Netns, Pair, Plan, Stage, Wg, story, traffic};

const MANY_ALLOWED_IPS: u32 = 130_000;
const MANY_PEERS: u32 = 1000;

/// For one request of that size, in either direction.
const PROMPT: Duration = Duration::from_secs(5);

mod semantics {
    use super::*;
    story!(set_and_show);
}

mod files {
    use super::*;
    story!(setconf_syncconf_addconf);
}

mod multitudes {
    use super::*;
    story!(many_allowed_ips_and_many_peers);
}

fn set_and_show(stage: &Stage) -> Result<()> {
    let netns = Netns::new(stage, "a")?;
    let daemon = Daemon::start(stage, &netns)?;
    let wg = Wg::new(&netns, daemon.interface());
    let (own, one, two) = (
        Keys::generate(stage)?,
        Keys::generate(stage)?,
        Keys::generate(stage)?,
    );

    ensure!(wg.dump()?.private_key.is_none(), "born with a private key");
    wg.set(&format!("private-key {}", own.path()))?;
    let device = wg.dump()?;
    ensure!(
        device.private_key.as_ref() == Some(&own.private),
        "{device:?}"
    );
    ensure!(
        device.public_key.as_ref() == Some(&own.public),
        "{device:?}"
    );
    keys_are_clamped(stage, &wg)?;
    wg.set("private-key /dev/null")?;
    ensure!(
        wg.dump()?.private_key.is_none(),
        "the private key cannot be taken away"
    );

    let absent = netns.attempt("wg set nothere0 listen-port 1")?;
    ensure!(
        !absent.succeeded(),
        "an interface that does not exist was configured"
    );

    prefixes_move(&wg, &one, &two)?;
    unknown_peers(&daemon, &wg, &own)?;
    allowed_ip_by_allowed_ip(&daemon, &wg, &one)
}

/// A scalar has five bits that do not matter; they read back as they are used.
fn keys_are_clamped(stage: &Stage, wg: &Wg<'_>) -> Result<()> {
    let mut clamped = [0xff; 32];
    clamped[0] = 0xf8;
    clamped[31] = 0x7f;
    wg.set(&format!(
        "private-key {}",
        stage.file("key", &base64(&[0xff; 32]))?.display()
    ))?;
    ensure!(
        wg.dump()?.private_key == Some(base64(&clamped)),
        "the private key is not clamped"
    );
    Ok(())
}

fn prefixes_move(wg: &Wg<'_>, one: &Keys, two: &Keys) -> Result<()> {
    let wide = "0.0.0.0/0,10.0.0.0/8,100.0.0.0/10,172.16.0.0/12,192.168.0.0/16";
    wg.set(&format!("peer {} allowed-ips {wide}", one.public))?;
    wg.set(&format!("peer {} allowed-ips 0.0.0.0/0", two.public))?;
    let left = wg.peer(&one.public)?.allowed_ips;
    ensure!(
        left.len() == 4 && !left.contains(&"0.0.0.0/0".to_owned()),
        "left with {left:?}"
    );
    wg.set(&format!(
        "peer {} allowed-ips ::/0,1700::/111,5000::/4,e000::/37,9000::/75",
        one.public
    ))?;
    wg.set(&format!("peer {} allowed-ips ::/0", two.public))?;
    let left = wg.peer(&one.public)?.allowed_ips;
    ensure!(
        left.len() == 4 && !left.contains(&"::/0".to_owned()),
        "left with {left:?}"
    );

    // Host bits are cut off.
    wg.set(&format!(
        "peer {} allowed-ips 10.1.2.3/8,fd00::1/64",
        one.public
    ))?;
    let mut cut = wg.peer(&one.public)?.allowed_ips;
    cut.sort();
    ensure!(
        cut == ["10.0.0.0/8", "fd00::/64"],
        "host bits are left: {cut:?}"
    );
    wg.set(&format!(
        "peer {} remove peer {} remove",
        one.public, two.public
    ))
}

fn unknown_peers(daemon: &Daemon, wg: &Wg<'_>, stranger: &Keys) -> Result<()> {
    let key = hex(&stranger.public)?;
    for request in [
        "update_only=true\nallowed_ip=10.0.0.0/8",
        "remove=true",
        "update_only=true",
    ] {
        let errno = daemon.uapi().set(&format!("public_key={key}\n{request}"))?;
        ensure!(errno == 0, "{request:?} on an unknown peer: errno {errno}");
        ensure!(wg.dump()?.peers.is_empty(), "{request:?} made a peer");
    }
    Ok(())
}

/// Newer `wg` tools add and remove single prefixes.
fn allowed_ip_by_allowed_ip(daemon: &Daemon, wg: &Wg<'_>, peer: &Keys) -> Result<()> {
    if !daemon.contender().is_ployzd() {
        return Ok(());
    }
    let key = hex(&peer.public)?;
    let set = |line: &str| daemon.uapi().set(&format!("public_key={key}\n{line}"));
    let shown = || wg.peer(&peer.public).map(|peer| peer.allowed_ips);
    ensure!(set("allowed_ip=10.0.0.0/8")? == 0);
    ensure!(set("allowed_ip=+10.1.0.0/16")? == 0, "the + form");
    ensure!(shown()?.len() == 2, "{:?}", shown());
    ensure!(set("allowed_ip=-10.1.0.0/16")? == 0, "the - form");
    ensure!(shown()? == ["10.0.0.0/8"], "{:?}", shown());
    ensure!(
        set("allowed_ip=-172.16.0.0/12")? == 0,
        "removing what is not there"
    );
    ensure!(shown()? == ["10.0.0.0/8"], "{:?}", shown());
    ensure!(set("replace_allowed_ips=true\nallowed_ip=10.2.0.0/16")? == 0);
    ensure!(shown()? == ["10.2.0.0/16"], "{:?}", shown());
    Ok(())
}

fn setconf_syncconf_addconf(stage: &Stage) -> Result<()> {
    let Pair { a, b } = Pair::new(stage, Plan::of(stage))?;
    let third = Keys::generate(stage)?;
    traffic::ping(&a.netns, b.inner(Family::V4))?;
    a.wg()
        .set(&format!("peer {} persistent-keepalive 25", b.keys.public))?;

    let written = a.wg().showconf()?;
    copies_are_equal(stage, &written).context("showconf, then setconf on another interface")?;

    let session = a.wg().peer(&b.keys.public)?;
    let more = format!(
        "[Peer]\nPublicKey = {}\nAllowedIPs = 10.77.0.0/16\n",
        third.public
    );
    a.wg().configure("addconf", &more)?.success()?;
    ensure!(a.wg().dump()?.peers.len() == 2, "addconf did not add");
    same_session(&a, &b, &session).context("addconf")?;

    // What the file does not name goes, what it names as it is stays untouched.
    a.wg().configure("syncconf", &written)?.success()?;
    ensure!(
        a.wg().peer(&third.public).is_err(),
        "syncconf kept what is not in the file"
    );
    same_session(&a, &b, &session).context("syncconf")?;
    traffic::ping(&b.netns, a.inner(Family::V4)).context("after syncconf")?;

    a.wg().configure("setconf", &written)?.success()?;
    let fresh = a.wg().peer(&b.keys.public)?;
    // It may already have shaken hands again, for the sake of its keepalives, and tested the path; a session that was
    // kept does neither.
    let is_counted_anew = fresh.sent < session.sent && fresh.received < session.received;
    let is_fresh = is_counted_anew || fresh.latest_handshake > session.latest_handshake;
    ensure!(
        is_fresh,
        "setconf kept a session: {session:?} became {fresh:?}"
    );
    ensure!(
        fresh.persistent_keepalive == 25 && fresh.allowed_ips.len() == 2,
        "{fresh:?}"
    );
    traffic::ping(&a.netns, b.inner(Family::V4)).context("after setconf")
}

fn same_session(a: &Host, b: &Host, before: &ployz_netns_tests::wg::Peer) -> Result<()> {
    let after = a.wg().peer(&b.keys.public)?;
    ensure!(
        after.latest_handshake == before.latest_handshake,
        "the session is gone: {after:?}"
    );
    ensure!(
        after.endpoint == before.endpoint,
        "the endpoint has changed: {after:?}"
    );
    ensure!(
        after.sent >= before.sent && after.received >= before.received,
        "counters fell"
    );
    ensure!(
        after.allowed_ips == before.allowed_ips,
        "allowed IPs have changed: {after:?}"
    );
    Ok(())
}

fn copies_are_equal(stage: &Stage, written: &str) -> Result<()> {
    let netns = Netns::new(stage, "copy")?;
    let daemon = Daemon::start(stage, &netns)?;
    let wg = Wg::new(&netns, daemon.interface());
    wg.configure("setconf", written)?.success()?;
    let copy = wg.showconf()?;
    ensure!(copy == written, "wrote\n{written}\nand read\n{copy}");
    Ok(())
}

fn many_allowed_ips_and_many_peers(stage: &Stage) -> Result<()> {
    let Pair { a, b } = Pair::new(stage, Plan::of(stage))?;
    let mut one_peer = a.wg().showconf()?;
    for number in 0..MANY_ALLOWED_IPS {
        let [_, x, y, z] = (number * 4).to_be_bytes();
        writeln!(one_peer, "AllowedIPs = 11.{x}.{y}.{z}/30")?;
    }
    promptly("set", || {
        a.wg().configure("setconf", &one_peer)?.success().map(drop)
    })?;
    promptly("shown", || {
        let count = a.wg().peer(&b.keys.public)?.allowed_ips.len();
        ensure!(
            count == MANY_ALLOWED_IPS as usize + 2,
            "{count} allowed IPs of {MANY_ALLOWED_IPS}"
        );
        Ok(())
    })?;
    traffic::pings(&a.netns, b.inner(Family::V4), 100)?;

    let mut many_peers = a.wg().showconf()?;
    let cut = many_peers.find("AllowedIPs").context("no allowed IPs")?;
    many_peers.truncate(cut);
    writeln!(
        many_peers,
        "AllowedIPs = {}\nEndpoint = {}",
        b.allowed_ips(),
        b.endpoint(Family::V4)
    )?;
    for number in 0..MANY_PEERS {
        many_peers.push_str(&peer_section(number)?);
    }
    promptly("set", || {
        a.wg()
            .configure("syncconf", &many_peers)?
            .success()
            .map(drop)
    })?;
    promptly("shown", || {
        let count = a.wg().dump()?.peers.len();
        ensure!(
            count == MANY_PEERS as usize + 1,
            "{count} peers of {MANY_PEERS}"
        );
        Ok(())
    })?;
    b.wg().set(&format!(
        "peer {} endpoint {}",
        a.keys.public,
        a.endpoint(Family::V4)
    ))?;
    traffic::pings(&a.netns, b.inner(Family::V6), 100).context("among a thousand peers")
}

fn peer_section(number: u32) -> Result<String> {
    let mut key = [0x42; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    let [_, _, y, z] = number.to_be_bytes();
    let mut section = format!("[Peer]\nPublicKey = {}\n", base64(&key));
    for prefix in 0..52 {
        writeln!(section, "AllowedIPs = 10.{prefix}.{y}.{z}/32")?;
    }
    writeln!(section, "AllowedIPs = fd22:{number:x}::/64")?;
    Ok(section)
}

fn promptly(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = now();
    work()?;
    let took = now() - start;
    ensure!(took < PROMPT, "a multitude took {took:?} to be {what}");
    Ok(())
}
