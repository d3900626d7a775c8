//! Sixteen messages at a time in registers of 512 bits.
//!
//! ChaCha20 computes sixteen blocks side by side, one in each 32-bit lane, whichever messages they belong to. Poly1305
//! goes through eight messages side by side, one in each 64-bit lane, with the 52-bit multiplier (IFMA). So no lane
//! waits for another block of its own message, and short messages fill the registers as well as long ones.
//!
//! Nothing branches on, and no address depends on, a secret: only lengths and counters decide.
#![expect(
    unsafe_code,
    reason = "vector loads and stores, and the call of code that the processor was asked for"
)]

mod chacha;
mod memory;
mod poly;
mod transpose;

use self::chacha::{BLOCK_LEN, Blocks};
use self::poly::{MESSAGES, Tag};
use crate::message::{Authentic, GROUP_LEN_MAX, KEY_LEN, Message, TAG_LEN};

/// A key for code that this processor can run. Its owner wipes it.
pub(crate) struct WideKey {
    words: [u32; 8],
}

impl WideKey {
    /// None if the processor lacks AVX-512 with its byte and 52-bit integer instructions.
    pub(crate) fn new(bytes: &[u8; KEY_LEN]) -> Option<Self> {
        let is_wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512ifma");
        is_wide.then(|| {
            let (chunks, _) = bytes.as_chunks();
            Self {
                words: std::array::from_fn(|at| u32::from_le_bytes(chunks[at])),
            }
        })
    }

    pub(crate) fn seal(&self, messages: &mut [Message<'_>]) {
        // SAFETY: there is no key of this type on a processor that was not found to have all that is enabled.
        unsafe { seal(&self.words, messages) }
    }

    pub(crate) fn open(&self, messages: &mut [Message<'_>]) -> Authentic {
        // SAFETY: as above.
        unsafe { open(&self.words, messages) }
    }
}

/// Block 0 of each message, whose first half is its one-time key (RFC 8439, section 2.6).
struct OneTimeKeys([[u8; BLOCK_LEN]; GROUP_LEN_MAX]);

impl Default for OneTimeKeys {
    fn default() -> Self {
        Self([[0; BLOCK_LEN]; GROUP_LEN_MAX])
    }
}

impl Drop for OneTimeKeys {
    fn drop(&mut self) {
        memory::wipe(&mut self.0);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
fn seal(key: &[u32; 8], messages: &mut [Message<'_>]) {
    let mut keys = OneTimeKeys::default();
    let mut blocks = Blocks::new(key);
    for (message, one_time) in messages.iter_mut().zip(&mut keys.0) {
        let (text, _) = message.bytes.split_at_mut(message.bytes.len() - TAG_LEN);
        blocks.push(message.counter, 0, one_time);
        for (at, block) in (1..).zip(text.chunks_mut(BLOCK_LEN)) {
            blocks.push(message.counter, at, block);
        }
    }
    blocks.finish();
    for (group, keys) in messages.chunks_mut(MESSAGES).zip(keys.0.chunks(MESSAGES)) {
        let tags = tags(group, keys);
        for (message, tag) in group.iter_mut().zip(tags) {
            let (_, room) = message.bytes.split_at_mut(message.bytes.len() - TAG_LEN);
            room.copy_from_slice(&tag);
        }
    }
}

/// Nothing is decrypted before it was found to be authentic.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
fn open(key: &[u32; 8], messages: &mut [Message<'_>]) -> Authentic {
    let mut keys = OneTimeKeys::default();
    let mut blocks = Blocks::new(key);
    for (message, one_time) in messages.iter_mut().zip(&mut keys.0) {
        blocks.push(message.counter, 0, one_time);
    }
    blocks.finish();
    let mut authentic = Authentic::default();
    let groups = messages.chunks(MESSAGES).zip(keys.0.chunks(MESSAGES));
    for (first, (group, keys)) in (0..).step_by(MESSAGES).zip(groups) {
        let tags = tags(group, keys);
        for ((index, message), tag) in (first..).zip(group).zip(tags) {
            let (_, theirs) = message.bytes.split_at(message.bytes.len() - TAG_LEN);
            if is_equal(theirs, &tag) {
                authentic.insert(index);
            }
        }
    }
    let mut blocks = Blocks::new(key);
    for (index, message) in messages.iter_mut().enumerate() {
        if !authentic.contains(index) {
            continue;
        }
        let (text, _) = message.bytes.split_at_mut(message.bytes.len() - TAG_LEN);
        for (at, block) in (1..).zip(text.chunks_mut(BLOCK_LEN)) {
            blocks.push(message.counter, at, block);
        }
    }
    blocks.finish();
    authentic
}

/// The tags of up to eight sealed messages. Lanes without one go along with the first.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
fn tags(messages: &[Message<'_>], keys: &[[u8; BLOCK_LEN]]) -> [Tag; MESSAGES] {
    let mut texts: [&[u8]; MESSAGES] = [&[]; MESSAGES];
    let mut lanes = [&keys[0]; MESSAGES];
    for at in 0..MESSAGES {
        let from = if at < messages.len() { at } else { 0 };
        let bytes = &messages[from].bytes;
        texts[at] = &bytes[..bytes.len() - TAG_LEN];
        lanes[at] = &keys[from];
    }
    poly::tags(&lanes, &texts)
}

/// In a time that does not depend on where they differ.
fn is_equal(theirs: &[u8], ours: &Tag) -> bool {
    let differences = theirs.iter().zip(ours).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differences) == 0
}
