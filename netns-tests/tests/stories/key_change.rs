//! A new private key takes effect with the next packet, and the old one is worth nothing.
//!
//! ```text
//!   a ========== b      a changes its key; b learns the new one and forgets the old
//! ```

use anyhow::{Result, ensure};
use ployz_netns_tests::pair::Family;
use ployz_netns_tests::wg::preshared_key;
use ployz_netns_tests::{Host, Keys, Pair, Plan, Stage, story, traffic};

story!(immediate_handshake);

fn immediate_handshake(stage: &Stage) -> Result<()> {
    let Pair { mut a, b } = Pair::new(
        stage,
        Plan {
            preshared_key: false,
            ..Plan::of(stage)
        },
    )?;
    traffic::ping(&a.netns, b.inner(Family::V4))?;
    let old = a.keys.public.clone();

    a.keys = Keys::generate(stage)?;
    a.wg().set(&format!("private-key {}", a.keys.path()))?;
    let device = a.wg().dump()?;
    ensure!(
        device.public_key.as_ref() == Some(&a.keys.public),
        "{device:?}"
    );
    ensure!(
        device.peers.len() == 1,
        "a key change lost peers: {device:?}"
    );

    b.know(&a, "")?;
    b.wg().set(&format!("peer {old} remove"))?;
    ensure!(b.wg().peer(&old).is_err(), "the old peer is still there");
    traffic::ping(&a.netns, b.inner(Family::V4))?;
    ensure!(
        b.wg().peer(&a.keys.public)?.latest_handshake != 0,
        "no handshake with the new key"
    );

    the_old_key_is_refused(stage, &a, &b)?;
    a_preshared_key_is_part_of_it(stage, &a, &b)
}

fn the_old_key_is_refused(stage: &Stage, a: &Host, b: &Host) -> Result<()> {
    let stranger = Keys::generate(stage)?;
    a.wg().set(&format!("private-key {}", stranger.path()))?;
    traffic::ping_in_vain(&a.netns, b.inner(Family::V4))?;
    a.wg().set(&format!("private-key {}", a.keys.path()))?;
    // The handshake that failed is under way for five seconds; a change of the key starts anew.
    traffic::ping(&a.netns, b.inner(Family::V4))
}

/// The next handshake needs it at both ends; taken away at both ends, it is not needed any more.
fn a_preshared_key_is_part_of_it(stage: &Stage, a: &Host, b: &Host) -> Result<()> {
    let psk = preshared_key(stage)?;
    a.wg()
        .set(&format!("peer {} preshared-key {psk}", b.keys.public))?;
    ensure!(
        a.wg().peer(&b.keys.public)?.preshared_key.is_some(),
        "not shown"
    );
    a.wg().set(&format!("private-key {}", a.keys.path()))?;
    b.wg()
        .set(&format!("peer {} preshared-key {psk}", a.keys.public))?;
    new_session(stage, a, b)?;

    for (host, other) in [(a, b), (b, a)] {
        host.wg().set(&format!(
            "peer {} preshared-key /dev/null",
            other.keys.public
        ))?;
        ensure!(
            host.wg().peer(&other.keys.public)?.preshared_key.is_none(),
            "still shown"
        );
    }
    new_session(stage, a, b)
}

/// Removing and adding the peer drops the session on one side.
fn new_session(stage: &Stage, a: &Host, b: &Host) -> Result<()> {
    let psk = match a.wg().peer(&b.keys.public)?.preshared_key {
        Some(key) => format!("preshared-key {}", stage.file("psk", &key)?.display()),
        None => String::new(),
    };
    a.wg().set(&format!("peer {} remove", b.keys.public))?;
    a.know(b, &format!("{psk} endpoint {}", b.endpoint(Family::V4)))?;
    traffic::ping(&a.netns, b.inner(Family::V4))
}
