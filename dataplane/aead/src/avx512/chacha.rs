//! ChaCha20 (RFC 8439, section 2.3), sixteen blocks side by side.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_rol_epi32, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_xor_si512,
};

use super::memory;
use super::transpose;

/// Bytes of a block.
pub(super) const BLOCK_LEN: usize = 64;
/// Blocks side by side.
const LANES: usize = 16;
/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Blocks that wait until there are sixteen. Each is encrypted, or decrypted, where it is.
pub(super) struct Blocks<'k, 'b> {
    key: &'k [u32; 8],
    len: usize,
    /// Words 12, 14 and 15 of each state: which block, of which message. Word 13 is zero.
    block: [u32; LANES],
    low: [u32; LANES],
    high: [u32; LANES],
    bytes: [&'b mut [u8]; LANES],
}

impl<'k, 'b> Blocks<'k, 'b> {
    pub(super) fn new(key: &'k [u32; 8]) -> Self {
        Self {
            key,
            len: 0,
            block: [0; LANES],
            low: [0; LANES],
            high: [0; LANES],
            bytes: Default::default(),
        }
    }

    /// Adds block `block` of the message with this counter: 64 bytes, or fewer if it is its last.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn push(&mut self, counter: u64, block: u32, bytes: &'b mut [u8]) {
        self.block[self.len] = block;
        self.low[self.len] = counter as u32;
        self.high[self.len] = (counter >> 32) as u32;
        self.bytes[self.len] = bytes;
        self.len += 1;
        if self.len == LANES {
            self.apply();
        }
    }

    /// Does those that are left.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub(super) fn finish(mut self) {
        if self.len > 0 {
            self.apply();
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn apply(&mut self) {
        let key_stream = transpose::u32x16(self.states());
        for (bytes, key_stream) in self.bytes[..self.len].iter_mut().zip(key_stream) {
            let text = memory::load(bytes);
            memory::store(bytes, _mm512_xor_si512(text, key_stream));
        }
        self.len = 0;
    }

    /// The sixteen words of the sixteen final states: lane i is block i.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn states(&self) -> [__m512i; 16] {
        let mut initial = [_mm512_setzero_si512(); 16];
        for at in 0..4 {
            initial[at] = _mm512_set1_epi32(CONSTANTS[at].cast_signed());
        }
        for at in 0..8 {
            initial[4 + at] = _mm512_set1_epi32(self.key[at].cast_signed());
        }
        initial[12] = memory::words(&self.block);
        initial[14] = memory::words(&self.low);
        initial[15] = memory::words(&self.high);

        let mut state = initial;
        for _ in 0..10 {
            quarter_round(&mut state, 0, 4, 8, 12);
            quarter_round(&mut state, 1, 5, 9, 13);
            quarter_round(&mut state, 2, 6, 10, 14);
            quarter_round(&mut state, 3, 7, 11, 15);
            quarter_round(&mut state, 0, 5, 10, 15);
            quarter_round(&mut state, 1, 6, 11, 12);
            quarter_round(&mut state, 2, 7, 8, 13);
            quarter_round(&mut state, 3, 4, 9, 14);
        }
        for at in 0..16 {
            state[at] = _mm512_add_epi32(state[at], initial[at]);
        }
        state
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn quarter_round(s: &mut [__m512i; 16], a: usize, b: usize, c: usize, d: usize) {
    s[a] = _mm512_add_epi32(s[a], s[b]);
    s[d] = _mm512_rol_epi32::<16>(_mm512_xor_si512(s[d], s[a]));
    s[c] = _mm512_add_epi32(s[c], s[d]);
    s[b] = _mm512_rol_epi32::<12>(_mm512_xor_si512(s[b], s[c]));
    s[a] = _mm512_add_epi32(s[a], s[b]);
    s[d] = _mm512_rol_epi32::<8>(_mm512_xor_si512(s[d], s[a]));
    s[c] = _mm512_add_epi32(s[c], s[d]);
    s[b] = _mm512_rol_epi32::<7>(_mm512_xor_si512(s[b], s[c]));
}
