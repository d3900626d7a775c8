//! What an engine takes from its machine besides packets and time.

use std::time::Duration;

use x25519_dalek::StaticSecret;
use zeroize::Zeroize;

/// Fills bytes with randomness.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;
/// Reads the wall clock: the time since the Unix epoch.
pub type UnixTime = Box<dyn Fn() -> Duration + Send>;

/// Randomness and the wall clock.
pub struct Sources {
    /// Nobody can guess it: ephemeral private keys come from here.
    pub random: Random,
    /// For the timestamps of handshakes. It may be wrong, and it may be set.
    pub unix_time: UnixTime,
}

impl Sources {
    pub(crate) fn draw_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        (self.random)(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// An ephemeral key.
    pub(crate) fn draw_secret(&mut self) -> StaticSecret {
        let mut bytes = [0; 32];
        (self.random)(&mut bytes);
        let secret = StaticSecret::from(bytes);
        bytes.zeroize();
        secret
    }

    /// Less than `limit`, which is at most 2^32 ns.
    pub(crate) fn draw_duration(&mut self, limit: Duration) -> Duration {
        let scaled = u128::from(self.draw_u32()) * limit.as_nanos();
        Duration::from_nanos((scaled >> 32) as u64)
    }
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}
