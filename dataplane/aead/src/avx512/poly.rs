//! Poly1305 (RFC 8439, section 2.5) of eight messages side by side, one in each 64-bit lane.
//!
//! Numbers modulo 2^130 - 5 are in three limbs of 44, 44 and 42 bits, so that the 52-bit multiplier takes two of them
//! with room to add before it carries.

use std::arch::x86_64::{
    __m512i, __mmask8, _mm512_add_epi64, _mm512_and_si512, _mm512_cmplt_epu64_mask,
    _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_mask_add_epi64, _mm512_mask_mov_epi64,
    _mm512_or_si512, _mm512_set1_epi64, _mm512_setr_epi64, _mm512_setzero_si512, _mm512_slli_epi64,
    _mm512_srli_epi64,
};

use super::chacha::BLOCK_LEN;
use super::{memory, transpose};

/// Messages side by side.
pub(super) const MESSAGES: usize = 8;
/// Sixteen bytes, an authentication tag.
pub(super) type Tag = [u8; 16];

/// The authenticator works on blocks of sixteen bytes; a register holds four of one message.
const POLY_BLOCK_LEN: usize = 16;
const BLOCKS_PER_LOAD: usize = BLOCK_LEN / POLY_BLOCK_LEN;
const ALL: __mmask8 = 0xff;

/// The tags of `texts`, each with the one-time key at the start of its block 0 (RFC 8439, section 2.8: no associated
/// data, the text with zeros up to a multiple of 16, both lengths).
#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
pub(super) fn tags(
    keys: &[&[u8; BLOCK_LEN]; MESSAGES],
    texts: &[&[u8]; MESSAGES],
) -> [Tag; MESSAGES] {
    let mut rows = [_mm512_setzero_si512(); MESSAGES];
    for lane in 0..MESSAGES {
        rows[lane] = memory::load(keys[lane]);
    }
    let [r_low, r_high, s_low, s_high, ..] = transpose::u64x8(rows);
    let mut authenticator = Authenticator::new(r_low, r_high);

    let loads = texts.iter().map(|text| text.len()).max().unwrap_or(0);
    let whole = texts.iter().map(|text| text.len()).min().unwrap_or(0) / BLOCK_LEN;
    for load in 0..loads.div_ceil(BLOCK_LEN) {
        for lane in 0..MESSAGES {
            let start = texts[lane].len().min(load * BLOCK_LEN);
            rows[lane] = memory::load(&texts[lane][start..]);
        }
        let words = transpose::u64x8(rows);
        for block in 0..BLOCKS_PER_LOAD {
            let (low, high) = (words[2 * block], words[2 * block + 1]);
            if load < whole {
                authenticator.block(low, high);
            } else {
                let lanes = lanes_with(texts, load * BLOCK_LEN + block * POLY_BLOCK_LEN);
                authenticator.block_of(lanes, low, high);
            }
        }
    }
    let mut lengths = [0; MESSAGES];
    for lane in 0..MESSAGES {
        lengths[lane] = texts[lane].len() as i64;
    }
    let [a, b, c, d, e, f, g, h] = lengths;
    authenticator.block(
        _mm512_setzero_si512(),
        _mm512_setr_epi64(a, b, c, d, e, f, g, h),
    );
    let (low, high) = authenticator.finish(s_low, s_high);
    let (low, high) = (memory::to_u64s(low), memory::to_u64s(high));
    let mut tags = [[0; 16]; MESSAGES];
    for lane in 0..MESSAGES {
        tags[lane][..8].copy_from_slice(&low[lane].to_le_bytes());
        tags[lane][8..].copy_from_slice(&high[lane].to_le_bytes());
    }
    tags
}

/// The messages that have a byte at `at`.
fn lanes_with(texts: &[&[u8]; MESSAGES], at: usize) -> __mmask8 {
    (0..MESSAGES).fold(0, |lanes, lane| {
        lanes | (u8::from(at < texts[lane].len()) << lane)
    })
}

/// Of eight numbers.
#[derive(Clone, Copy)]
struct Limbs([__m512i; 3]);

struct Authenticator {
    sum: Limbs,
    r: Limbs,
    /// 20 r: what overflows the third limb by two bits is worth five times as much in the first.
    r1_20: __m512i,
    r2_20: __m512i,
}

impl Authenticator {
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn new(r_low: __m512i, r_high: __m512i) -> Self {
        let clamp_low = _mm512_set1_epi64(0x0fff_fffc_0fff_ffff);
        let clamp_high = _mm512_set1_epi64(0x0fff_fffc_0fff_fffc);
        let r = Limbs::new(
            _mm512_and_si512(r_low, clamp_low),
            _mm512_and_si512(r_high, clamp_high),
        );
        Self {
            sum: Limbs([_mm512_setzero_si512(); 3]),
            r,
            r1_20: times_20(r.0[1]),
            r2_20: times_20(r.0[2]),
        }
    }

    /// The next sixteen bytes of every message.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn block(&mut self, low: __m512i, high: __m512i) {
        let mut block = Limbs::new(low, high);
        // 2^128: sixteen bytes are followed by a one.
        block.0[2] = _mm512_or_si512(block.0[2], _mm512_set1_epi64(1 << 40));
        self.sum = self.times_r(self.sum.plus(block));
    }

    /// The next sixteen bytes of some messages.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn block_of(&mut self, lanes: __mmask8, low: __m512i, high: __m512i) {
        let before = self.sum;
        self.block(low, high);
        if lanes != ALL {
            self.sum = before.with(lanes, self.sum);
        }
    }

    /// Limbs of at most 46 bits go in; the first and the third come out exact, the second within a bit.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn times_r(&self, Limbs([a0, a1, a2]): Limbs) -> Limbs {
        let Limbs([r0, r1, r2]) = self.r;
        let first = Product::of(a0, r0)
            .plus(a1, self.r2_20)
            .plus(a2, self.r1_20);
        let second = Product::of(a0, r1).plus(a1, r0).plus(a2, self.r2_20);
        let third = Product::of(a0, r2).plus(a1, r1).plus(a2, r0);

        let second_low = _mm512_add_epi64(second.low, first.carry::<44, 8>());
        let second = Product {
            low: second_low,
            ..second
        };
        let third_low = _mm512_add_epi64(third.low, second.carry::<44, 8>());
        let third = Product {
            low: third_low,
            ..third
        };
        let over = third.carry::<42, 10>();
        let five = _mm512_add_epi64(over, _mm512_slli_epi64::<2>(over));
        let limb0 = _mm512_add_epi64(_mm512_and_si512(first.low, ones(44)), five);
        let limb1 = _mm512_add_epi64(
            _mm512_and_si512(second.low, ones(44)),
            _mm512_srli_epi64::<44>(limb0),
        );
        Limbs([
            _mm512_and_si512(limb0, ones(44)),
            limb1,
            _mm512_and_si512(third.low, ones(42)),
        ])
    }

    /// The sum modulo 2^130 - 5, plus the second half of the one-time key, modulo 2^128.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn finish(self, s_low: __m512i, s_high: __m512i) -> (__m512i, __m512i) {
        let (low, high) = self.sum.carried().reduced().to_words();
        let sum_low = _mm512_add_epi64(low, s_low);
        let carry = _mm512_cmplt_epu64_mask(sum_low, low);
        let sum_high = _mm512_add_epi64(high, s_high);
        let one = _mm512_set1_epi64(1);
        (
            sum_low,
            _mm512_mask_add_epi64(sum_high, carry, sum_high, one),
        )
    }
}

impl Limbs {
    /// From 128 bits.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn new(low: __m512i, high: __m512i) -> Self {
        let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
        Self([
            _mm512_and_si512(low, ones(44)),
            _mm512_and_si512(middle, ones(44)),
            _mm512_srli_epi64::<24>(high),
        ])
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn plus(self, other: Self) -> Self {
        let (Self([a0, a1, a2]), Self([b0, b1, b2])) = (self, other);
        Self([
            _mm512_add_epi64(a0, b0),
            _mm512_add_epi64(a1, b1),
            _mm512_add_epi64(a2, b2),
        ])
    }

    /// Those of `other` in `lanes`.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn with(self, lanes: __mmask8, other: Self) -> Self {
        let (Self([a0, a1, a2]), Self([b0, b1, b2])) = (self, other);
        Self([
            _mm512_mask_mov_epi64(a0, lanes, b0),
            _mm512_mask_mov_epi64(a1, lanes, b1),
            _mm512_mask_mov_epi64(a2, lanes, b2),
        ])
    }

    /// Every limb within its bits, for a number below 2^131. What goes round once can leave a bit in the second limb
    /// only where the first was all ones and is now below five, so it goes round no further.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn carried(self) -> Self {
        let Self([a0, a1, a2]) = self;
        let a1 = _mm512_add_epi64(a1, _mm512_srli_epi64::<44>(a0));
        let a2 = _mm512_add_epi64(a2, _mm512_srli_epi64::<44>(a1));
        let over = _mm512_srli_epi64::<42>(a2);
        let five = _mm512_add_epi64(over, _mm512_slli_epi64::<2>(over));
        let a0 = _mm512_add_epi64(_mm512_and_si512(a0, ones(44)), five);
        let a1 = _mm512_add_epi64(_mm512_and_si512(a1, ones(44)), _mm512_srli_epi64::<44>(a0));
        let a2 = _mm512_add_epi64(_mm512_and_si512(a2, ones(42)), _mm512_srli_epi64::<44>(a1));
        Self([
            _mm512_and_si512(a0, ones(44)),
            _mm512_and_si512(a1, ones(44)),
            a2,
        ])
    }

    /// Less 2^130 - 5 if it is as much, in the same time if it is not.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn reduced(self) -> Self {
        let Self([a0, a1, a2]) = self;
        let b0 = _mm512_add_epi64(a0, _mm512_set1_epi64(5));
        let b1 = _mm512_add_epi64(a1, _mm512_srli_epi64::<44>(b0));
        let b2 = _mm512_add_epi64(a2, _mm512_srli_epi64::<44>(b1));
        let is_less = _mm512_cmplt_epu64_mask(b2, _mm512_set1_epi64(1 << 42));
        let less = Self([
            _mm512_and_si512(b0, ones(44)),
            _mm512_and_si512(b1, ones(44)),
            _mm512_and_si512(b2, ones(42)),
        ]);
        less.with(is_less, self)
    }

    /// The lower 128 bits.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn to_words(self) -> (__m512i, __m512i) {
        let Self([a0, a1, a2]) = self;
        (
            _mm512_or_si512(a0, _mm512_slli_epi64::<44>(a1)),
            _mm512_or_si512(_mm512_srli_epi64::<20>(a1), _mm512_slli_epi64::<24>(a2)),
        )
    }
}

/// A sum of products of limbs: `low + high * 2^52`.
#[derive(Clone, Copy)]
struct Product {
    low: __m512i,
    high: __m512i,
}

impl Product {
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn of(a: __m512i, b: __m512i) -> Self {
        let zero = _mm512_setzero_si512();
        Self {
            low: zero,
            high: zero,
        }
        .plus(a, b)
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn plus(self, a: __m512i, b: __m512i) -> Self {
        Self {
            low: _mm512_madd52lo_epu64(self.low, a, b),
            high: _mm512_madd52hi_epu64(self.high, a, b),
        }
    }

    /// What does not fit into a limb of `BITS`; `UP` is 52 less of them.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn carry<const BITS: u32, const UP: u32>(self) -> __m512i {
        _mm512_add_epi64(
            _mm512_srli_epi64::<BITS>(self.low),
            _mm512_slli_epi64::<UP>(self.high),
        )
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn times_20(limb: __m512i) -> __m512i {
    _mm512_add_epi64(_mm512_slli_epi64::<4>(limb), _mm512_slli_epi64::<2>(limb))
}

/// So many ones in every lane.
#[target_feature(enable = "avx512f")]
#[inline]
fn ones(bits: u32) -> __m512i {
    _mm512_set1_epi64((1 << bits) - 1)
}

#[cfg(test)]
mod tests;
