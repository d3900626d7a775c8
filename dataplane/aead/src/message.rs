//! What a [`crate::Key`] works on.

/// Bytes of a key.
pub const KEY_LEN: usize = 32;
/// Bytes of an authentication tag.
pub const TAG_LEN: usize = 16;
/// Messages in one call: as many as there are lanes of 32 bits in the widest registers.
pub const GROUP_LEN_MAX: usize = 16;

/// A message in place.
#[derive(Debug, Default)]
pub struct Message<'a> {
    /// The nonce: never twice under one key.
    pub counter: u64,
    /// The text and behind it [`TAG_LEN`] bytes for the tag.
    pub bytes: &'a mut [u8],
}

/// Which messages of a group were authentic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Authentic(u16);

impl Authentic {
    /// True if the message at `index` of the group was authentic.
    pub const fn contains(self, index: usize) -> bool {
        index < GROUP_LEN_MAX && self.0 & (1 << index) != 0
    }

    pub(crate) const fn insert(&mut self, index: usize) {
        self.0 |= 1 << index;
    }
}
