//! One direction of a session.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

#[cfg(target_arch = "x86_64")]
use crate::avx512::WideKey;
use crate::message::{Authentic, GROUP_LEN_MAX, KEY_LEN, Message, TAG_LEN};
use crate::wiped::Wiped;

/// From so many messages on, doing them side by side costs less than one after the other.
#[cfg(target_arch = "x86_64")]
const WIDE_LEN_MIN: usize = 4;

/// A key, made ready for use, and wiped when it is dropped.
pub struct Key(Wiped<Parts>);

struct Parts {
    ring: LessSafeKey,
    #[cfg(target_arch = "x86_64")]
    wide: Option<WideKey>,
}

impl Key {
    /// From its bytes.
    pub fn new(bytes: &[u8; KEY_LEN]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("the length is right");
        Self(Wiped::new(Parts {
            ring: LessSafeKey::new(key),
            #[cfg(target_arch = "x86_64")]
            wide: WideKey::new(bytes),
        }))
    }

    /// Encrypts up to [`GROUP_LEN_MAX`] messages in place and writes their tags.
    ///
    /// # Panics
    /// If there are more messages, or one has no room for a tag.
    pub fn seal(&self, messages: &mut [Message<'_>]) {
        check(messages);
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = self.wide_for(messages) {
            return wide.seal(messages);
        }
        for message in messages {
            self.seal_one(message);
        }
    }

    /// Decrypts up to [`GROUP_LEN_MAX`] messages in place and says which were authentic. What the others hold is
    /// rubbish.
    ///
    /// # Panics
    /// If there are more messages, or one is shorter than a tag.
    pub fn open(&self, messages: &mut [Message<'_>]) -> Authentic {
        check(messages);
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = self.wide_for(messages) {
            return wide.open(messages);
        }
        let mut authentic = Authentic::default();
        for (index, message) in messages.iter_mut().enumerate() {
            if self.open_one(message) {
                authentic.insert(index);
            }
        }
        authentic
    }

    #[cfg(target_arch = "x86_64")]
    fn wide_for(&self, messages: &[Message<'_>]) -> Option<&WideKey> {
        let wide = self.0.wide.as_ref();
        wide.filter(|_| messages.len() >= WIDE_LEN_MIN)
    }

    fn seal_one(&self, message: &mut Message<'_>) {
        let (text, tag) = message.bytes.split_at_mut(message.bytes.len() - TAG_LEN);
        let sealed = self
            .0
            .ring
            .seal_in_place_separate_tag(nonce(message.counter), Aad::empty(), text)
            .expect("no text is too long for its nonce");
        tag.copy_from_slice(sealed.as_ref());
    }

    fn open_one(&self, message: &mut Message<'_>) -> bool {
        self.0
            .ring
            .open_in_place(nonce(message.counter), Aad::empty(), message.bytes)
            .is_ok()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

fn check(messages: &[Message<'_>]) {
    assert!(messages.len() <= GROUP_LEN_MAX);
    assert!(messages.iter().all(|it| it.bytes.len() >= TAG_LEN));
}

/// Paper, section 5.4.6.
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}
