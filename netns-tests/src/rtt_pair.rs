//! A pair with a link of known delay between them, which one of them measures.
//!
//! ```text
//!   a ====== a link of known delay ====== b      a relay on b's host, see `delay_link.rs`
//! ```
//!
//! Nobody sends anything else, so that every datagram of a test's length is a test of `a`'s or its reply.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::delay_link::{DelayLink, Judge};
use crate::pair::{Family, Host, RttReport};
use crate::wait::{wait_for, wait_until};
use crate::{Pair, Plan, Stage};

/// A test or a reply: IPv6 and UDP header, 44 bytes, three TLVs, and what the tunnel adds.
pub const TEST_LEN: usize = 40 + 8 + 44 + 8 + 20 + 20 + 32;
/// Tests that are sent without being asked for while nobody uses the session: the first, and a burst when it is
/// answered.
const FIRST_TESTS: u64 = 1 + 20;
/// A handshake, a second, a test and a burst.
const MEETING: Duration = Duration::from_secs(10);
/// Between two tests of a burst, and as long again for a busy machine; replies are waited for two seconds.
const TEST_TIME: Duration = Duration::from_millis(4);
const REPLY_TIME: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct RttPair {
    pub pair: Pair,
    pub link: DelayLink,
}

/// What was said, and what was true.
#[derive(Debug, Clone)]
pub struct Measured {
    pub report: RttReport,
    pub truth: Duration,
}

impl RttPair {
    /// Both have tested each other, and are silent.
    pub fn meet(stage: &Stage, judge: Box<Judge>) -> Result<Self> {
        let pair = Pair::strangers(stage, Plan::of(stage))?;
        let Pair { a, b } = &pair;
        let (address, server) = (b.outer(Family::V4), b.endpoint(Family::V4));
        let link = DelayLink::start(&b.netns, address, server, TEST_LEN, judge)?;
        b.know(a, "")?;
        // A keepalive makes a session, and is no use of it.
        a.know(
            b,
            &format!("endpoint {} persistent-keepalive 25", link.address),
        )?;
        let is_silent = |host: &Host| {
            let counts = host.rtt().map(|rtt| rtt.counts);
            counts.is_some_and(|it| it.sent >= FIRST_TESTS && it.under_way == 0)
        };
        wait_until("both to have tested the link", MEETING, || {
            is_silent(a) && is_silent(b)
        })?;
        Ok(Self { pair, link })
    }

    /// Has `a` test the link so many times.
    pub fn measure(&self, count: u16) -> Result<Measured> {
        self.link.forget();
        let report = self.test(count)?;
        let truth = self.link.kept().round_trip();
        Ok(Measured { report, truth })
    }

    /// As [`Self::measure`], but what the link did before is not forgotten.
    pub fn test(&self, count: u16) -> Result<RttReport> {
        let a = &self.pair.a;
        let before = a.rtt().context("a measures")?.counts.sent;
        a.measure(count)?;
        let patience = TEST_TIME * count.into() + REPLY_TIME;
        wait_for("the tests to be over", patience, || {
            a.rtt().filter(|rtt| {
                rtt.counts.sent > before + u64::from(count) && rtt.counts.under_way == 0
            })
        })
        .with_context(|| format!("a says {:?}", a.rtt()))
    }
}

impl Measured {
    /// How far what was said is from what was true, in microseconds.
    #[must_use]
    pub fn error_us(&self) -> f64 {
        (self.report.p50.as_secs_f64() - self.truth.as_secs_f64()) * 1e6
    }
}
