//! A peer with our own key would be ourselves: it is not kept.
//!
//! ```text
//!   a      one host, nobody else
//! ```

use anyhow::{Result, ensure};
use ployz_netns_tests::wg::hex;
use ployz_netns_tests::{Daemon, Keys, Netns, Stage, Wg, story};

story!(is_nobodys_peer);

fn is_nobodys_peer(stage: &Stage) -> Result<()> {
    let netns = Netns::new(stage, "a")?;
    let daemon = Daemon::start(stage, &netns)?;
    let wg = Wg::new(&netns, daemon.interface());
    let (own, next) = (Keys::generate(stage)?, Keys::generate(stage)?);

    wg.set(&format!("private-key {}", own.path()))?;
    wg.set(&format!("peer {} allowed-ips 10.0.0.0/8", own.public))?;
    ensure!(wg.dump()?.peers.is_empty(), "kept a peer with our own key");

    // The same in one request, in both orders.
    let line = format!(
        "private-key {} peer {} allowed-ips 10.0.0.0/8",
        own.path(),
        own.public
    );
    wg.set(&line)?;
    ensure!(wg.dump()?.peers.is_empty(), "kept a peer with our own key");

    // Becoming somebody whom we have as a peer.
    wg.set(&format!("peer {} allowed-ips 10.0.0.0/8", next.public))?;
    ensure!(wg.dump()?.peers.len() == 1, "an honest peer was not kept");
    wg.set(&format!("private-key {}", next.path()))?;
    ensure!(
        wg.dump()?.peers.is_empty(),
        "kept the peer that we have become"
    );

    // What such a peer is given is nobody's: the prefix is free for the next one.
    let request = format!("public_key={}\nallowed_ip=10.0.0.0/8", hex(&own.public)?);
    ensure!(daemon.uapi().set(&request)? == 0);
    ensure!(
        wg.peer(&own.public)?.allowed_ips == ["10.0.0.0/8"],
        "the prefix is not free"
    );
    Ok(())
}
