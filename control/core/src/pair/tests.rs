use ployz_api::{MachineId, Verdict};

use super::*;

fn report(name: &str, other: &str, bytes: u64) -> PairReport {
    PairReport {
        id: MachineId::new(1, 1),
        name: name.parse().unwrap(),
        unix_ms: 1_000,
        view_age_secs: 3,
        wireguard_key: name.to_owned(),
        mtu: 1420,
        refused: 0,
        known_key: Some(other.to_owned()),
        peer: Some(PeerReport {
            endpoint: Some("192.0.2.1:51820".parse().unwrap()),
            no_route: None,
            handshake_age_secs: Some(1),
            rx_bytes: bytes,
            tx_bytes: bytes,
            path_mtu: Some(1500),
        }),
    }
}

fn side(name: &str, other: &str) -> Side {
    Side {
        before: report(name, other, 0),
        after: report(name, other, 100),
    }
}

fn healthy() -> Pair {
    Pair {
        here: side("a", "b"),
        there: Ok(side("b", "a")),
        name: "b".to_owned(),
        skew_ms: 20,
    }
}

fn peer(side: &mut Side) -> &mut PeerReport {
    side.after.peer.as_mut().unwrap()
}

fn there(pair: &mut Pair) -> &mut Side {
    pair.there.as_mut().unwrap()
}

fn deaf(side: &mut Side) {
    peer(side).rx_bytes = 0;
}

#[test]
fn nothing_is_wrong_with_a_pair_that_talks() {
    let checks = diagnose(&healthy());
    let wrong: Vec<_> = checks
        .iter()
        .filter(|it| it.verdict != Verdict::Ok)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Every cause: what is broken, the check that has to say so, and a word of what it says.
#[test]
fn every_cause_is_named() {
    type Break = fn(&mut Pair);
    let table: [(Break, &str, Verdict, &str); 15] = [
        (
            |p| p.here.after.view_age_secs = 61,
            "view",
            Verdict::Fail,
            "stale",
        ),
        (
            |p| there(p).after.view_age_secs = 61,
            "view",
            Verdict::Fail,
            "view of b",
        ),
        (
            |p| there(p).after.known_key = None,
            "view",
            Verdict::Fail,
            "does not know",
        ),
        (
            |p| peer(&mut p.here).no_route = Some("unreachable".to_owned()),
            "route",
            Verdict::Fail,
            "no route from this machine",
        ),
        (
            |p| peer(there(p)).endpoint = None,
            "route",
            Verdict::Fail,
            "b knows no endpoint",
        ),
        (
            |p| there(p).after.wireguard_key = "c".to_owned(),
            "key",
            Verdict::Fail,
            "the WireGuard key of b differs",
        ),
        (
            |p| p.here.after.peer = None,
            "key",
            Verdict::Fail,
            "interface of a",
        ),
        (
            |p| deaf(&mut p.here),
            "udp",
            Verdict::Fail,
            "nothing from b arrives at a",
        ),
        (
            |p| deaf(there(p)),
            "udp",
            Verdict::Fail,
            "nothing from a arrives at b",
        ),
        (
            |p| {
                deaf(&mut p.here);
                deaf(there(p));
            },
            "udp",
            Verdict::Fail,
            "both ways",
        ),
        (
            |p| peer(&mut p.here).handshake_age_secs = Some(SESSION_SECS),
            "handshake",
            Verdict::Fail,
            "though datagrams arrive",
        ),
        (
            |p| {
                deaf(&mut p.here);
                p.here.after.refused = 1;
            },
            "handshake",
            Verdict::Fail,
            "though datagrams arrive",
        ),
        (
            |p| peer(&mut p.here).path_mtu = Some(1400),
            "mtu",
            Verdict::Warn,
            "1400 bytes",
        ),
        (
            |p| p.skew_ms = 3_600_000,
            "clock",
            Verdict::Fail,
            "3600 s ahead",
        ),
        (|p| p.skew_ms = -6_000, "clock", Verdict::Fail, "6 s behind"),
    ];
    for (number, (breaks, check, verdict, word)) in table.into_iter().enumerate() {
        let mut pair = healthy();
        breaks(&mut pair);
        let checks = diagnose(&pair);
        let found = checks.iter().any(|it| {
            it.check == check
                && it.verdict == verdict
                && it.cause.contains(word)
                && it.mend.is_some()
        });
        assert!(found, "{number}: no {check} with '{word}' in {checks:#?}");
    }
}

#[test]
fn a_machine_that_cannot_be_asked_is_judged_by_what_arrives() {
    let mut pair = healthy();
    pair.there = Err("no answer".to_owned());
    let verdict = |pair: &Pair| {
        let checks = diagnose(pair);
        let udp = checks
            .iter()
            .find(|it| it.check == "udp")
            .map(|it| it.verdict);
        assert!(
            checks
                .iter()
                .any(|it| it.check == "asked" && it.verdict == Verdict::Fail)
        );
        udp
    };
    assert_eq!(verdict(&pair), Some(Verdict::Ok));
    deaf(&mut pair.here);
    assert_eq!(verdict(&pair), Some(Verdict::Fail));
}
