use super::*;

#[derive(Clone, Copy, Debug)]
enum Event {
    Want,
    WantInTime,
    InitiationSent,
    ResponseSent,
    SessionDerived,
    HandshakeEnded,
    DataSent,
    KeepaliveSent,
    DataReceived,
    KeepaliveReceived,
}
use Event::*;

const JITTER: Duration = Duration::from_millis(200);

#[expect(clippy::disallowed_methods, reason = "a test is a driver")]
fn clock() -> Instant {
    Instant::now()
}

fn happen(timers: &mut Timers, now: Instant, event: Event) {
    match event {
        Want => timers.want_handshake(now),
        WantInTime => timers.want_handshake_in_time(now),
        InitiationSent => timers.initiation_sent(now, JITTER),
        ResponseSent => timers.response_sent(now, JITTER),
        SessionDerived => timers.session_derived(now),
        HandshakeEnded => timers.handshake_ended(),
        DataSent => {
            timers.authenticated_sent();
            timers.data_sent(now);
        }
        KeepaliveSent => timers.authenticated_sent(),
        DataReceived => {
            timers.authenticated_received();
            timers.data_received(now);
        }
        KeepaliveReceived => timers.authenticated_received(),
    }
}

/// What comes due, and when in milliseconds: the events happen at theirs, time passes in steps of 100 ms, and
/// everything that is due is done.
fn history(events: &[(u64, Event)], until_ms: u64) -> Vec<(u64, Due)> {
    let start = clock();
    let mut timers = Timers::default();
    let mut history = Vec::new();
    for now_ms in (0..=until_ms).step_by(100) {
        let now = start + Duration::from_millis(now_ms);
        for (_, event) in events.iter().filter(|(at_ms, _)| *at_ms == now_ms) {
            happen(&mut timers, now, *event);
        }
        let due = timers.poll(now);
        match due {
            Due::Nothing => continue,
            Due::Handshake => timers.initiation_sent(now, JITTER),
            Due::Keepalive => timers.authenticated_sent(),
            Due::GiveUp | Due::Forget => {}
        }
        history.push((now_ms, due));
    }
    history
}

/// Every rule of the paper's section 6, as the history that shows it.
#[test]
fn what_comes_due_after_what() {
    type Row = (
        &'static str,
        &'static [(u64, Event)],
        u64,
        &'static [(u64, Due)],
    );
    let rows: [Row; 17] = [
        ("nothing comes of nothing", &[], 1_000, &[]),
        (
            "who wants a session initiates, and repeats it after 5 s and a little",
            &[(0, Want)],
            11_000,
            &[
                (0, Due::Handshake),
                (5_200, Due::Handshake),
                (10_400, Due::Handshake),
            ],
        ),
        (
            "a response ends the repetition",
            &[(0, Want), (100, HandshakeEnded)],
            20_000,
            &[(0, Due::Handshake)],
        ),
        (
            "who wants it while it is under way changes nothing",
            &[
                (0, Want),
                (1_000, Want),
                (2_000, Want),
                (2_100, HandshakeEnded),
            ],
            20_000,
            &[(0, Due::Handshake)],
        ),
        (
            "after a response there is no initiation for 5 s, and then there is",
            &[(0, ResponseSent), (1_000, Want)],
            5_100,
            &[(5_000, Due::Handshake)],
        ),
        (
            "nor is there if the initiator uses the session meanwhile",
            &[(0, ResponseSent), (1_000, Want), (2_000, HandshakeEnded)],
            20_000,
            &[],
        ),
        (
            "who has received data and sends nothing sends a keepalive after 10 s",
            &[(0, DataReceived)],
            60_000,
            &[(10_000, Due::Keepalive)],
        ),
        (
            "who sends data or a keepalive does not",
            &[(0, DataReceived), (9_000, KeepaliveSent)],
            60_000,
            &[],
        ),
        (
            "a keepalive is not answered",
            &[(0, KeepaliveReceived)],
            60_000,
            &[],
        ),
        (
            "who goes on receiving sends another",
            &[
                (0, DataReceived),
                (9_000, DataReceived),
                (9_500, DataReceived),
            ],
            60_000,
            &[(10_000, Due::Keepalive)],
        ),
        (
            "who has sent data and hears nothing for 15 s initiates",
            &[(0, ResponseSent), (1_000, DataSent), (9_000, DataSent)],
            16_500,
            &[(16_200, Due::Handshake)],
        ),
        (
            "not if anything came",
            &[
                (0, ResponseSent),
                (1_000, DataSent),
                (16_000, KeepaliveReceived),
            ],
            60_000,
            &[],
        ),
        (
            "nor if what was sent was a keepalive",
            &[(0, ResponseSent), (1_000, KeepaliveSent)],
            60_000,
            &[],
        ),
        (
            "the last minute comes once in a session",
            &[
                (0, WantInTime),
                (100, HandshakeEnded),
                (6_000, WantInTime),
                (6_100, WantInTime),
                (6_200, HandshakeEnded),
            ],
            20_000,
            &[(0, Due::Handshake), (6_000, Due::Handshake)],
        ),
        (
            "keys are forgotten after three times 180 s without new ones",
            &[(0, SessionDerived), (120_000, SessionDerived)],
            700_000,
            &[(660_000, Due::Forget)],
        ),
        (
            "a handshake under way when they are goes on",
            &[(0, SessionDerived), (538_000, Want)],
            543_300,
            &[
                (538_000, Due::Handshake),
                (540_000, Due::Forget),
                (543_200, Due::Handshake),
            ],
        ),
        (
            "who gives up says no keepalive either",
            &[(0, Want), (90_000, DataReceived)],
            200_000,
            &[
                (0, Due::Handshake),
                (5_200, Due::Handshake),
                (10_400, Due::Handshake),
                (15_600, Due::Handshake),
                (20_800, Due::Handshake),
                (26_000, Due::Handshake),
                (31_200, Due::Handshake),
                (36_400, Due::Handshake),
                (41_600, Due::Handshake),
                (46_800, Due::Handshake),
                (52_000, Due::Handshake),
                (57_200, Due::Handshake),
                (62_400, Due::Handshake),
                (67_600, Due::Handshake),
                (72_800, Due::Handshake),
                (78_000, Due::Handshake),
                (83_200, Due::Handshake),
                (88_400, Due::Handshake),
                (93_600, Due::GiveUp),
            ],
        ),
    ];
    for (rule, events, until_ms, expected) in rows {
        assert_eq!(history(events, until_ms), expected, "{rule}");
    }
}

#[test]
fn whoever_still_wants_it_is_tried_for_longer() {
    let history = history(&[(0, Want), (60_000, Want)], 300_000);
    let (last, due) = history.last().unwrap();
    assert_eq!(*due, Due::GiveUp);
    assert!((150_000..156_000).contains(last), "{last}");
}

#[test]
fn timers_rest_when_nothing_can_come_due() {
    let now = clock();
    let later = now + FORGET_AFTER_TIME;
    for event in [Want, InitiationSent, SessionDerived, DataSent, DataReceived] {
        let mut timers = Timers::default();
        assert!(timers.are_at_rest());
        happen(&mut timers, now, event);
        assert!(!timers.are_at_rest(), "{event:?}");
        assert_ne!(timers.poll(later), Due::Nothing, "{event:?}");
    }
    for event in [
        ResponseSent,
        HandshakeEnded,
        KeepaliveSent,
        KeepaliveReceived,
    ] {
        let mut timers = Timers::default();
        happen(&mut timers, now, event);
        assert!(timers.are_at_rest(), "{event:?}");
    }
}
