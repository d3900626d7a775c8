//! Data messages that are sealed together.

use ployz_aead::{GROUP_LEN_MAX, Key, Message};

use crate::message::{DATA_HEADER_LEN, data_counter};

/// Seals data messages that stand end to end, all of `message_len` bytes but perhaps the last. Each has its header and
/// its packet in place, and room for the tag behind them; the counter in the header is its nonce.
pub fn seal_messages(key: &Key, messages: &mut [u8], message_len: usize) {
    for group in messages.chunks_mut(GROUP_LEN_MAX * message_len) {
        let count = group.len().div_ceil(message_len);
        key.seal(&mut in_place(group, message_len)[..count]);
    }
}

/// What the AEAD works on in up to [`GROUP_LEN_MAX`] data messages that stand end to end; empty ones follow them.
pub(crate) fn in_place(messages: &mut [u8], message_len: usize) -> [Message<'_>; GROUP_LEN_MAX] {
    let mut chunks = messages.chunks_mut(message_len);
    std::array::from_fn(|_| {
        chunks.next().map_or_else(Message::default, |message| {
            let counter = data_counter(message).unwrap_or_default();
            let bytes = &mut message[DATA_HEADER_LEN..];
            Message { counter, bytes }
        })
    })
}
