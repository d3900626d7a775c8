//! Rows of lanes into columns.

use std::arch::x86_64::{
    __m512i, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

/// Sixteen rows of sixteen 32-bit lanes.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn u32x16(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut columns = [_mm512_setzero_si512(); 16];
    // Of rows 4g..4g+4, in each quarter j: column 4j + c.
    let mut fours = [[_mm512_setzero_si512(); 4]; 4];
    for g in 0..4 {
        let low_01 = _mm512_unpacklo_epi32(rows[4 * g], rows[4 * g + 1]);
        let high_01 = _mm512_unpackhi_epi32(rows[4 * g], rows[4 * g + 1]);
        let low_23 = _mm512_unpacklo_epi32(rows[4 * g + 2], rows[4 * g + 3]);
        let high_23 = _mm512_unpackhi_epi32(rows[4 * g + 2], rows[4 * g + 3]);
        fours[0][g] = _mm512_unpacklo_epi64(low_01, low_23);
        fours[1][g] = _mm512_unpackhi_epi64(low_01, low_23);
        fours[2][g] = _mm512_unpacklo_epi64(high_01, high_23);
        fours[3][g] = _mm512_unpackhi_epi64(high_01, high_23);
    }
    for c in 0..4 {
        let quarters = quarters(fours[c]);
        for j in 0..4 {
            columns[4 * j + c] = quarters[j];
        }
    }
    columns
}

/// Eight rows of eight 64-bit lanes.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn u64x8(rows: [__m512i; 8]) -> [__m512i; 8] {
    let mut low = [_mm512_setzero_si512(); 4];
    let mut high = [_mm512_setzero_si512(); 4];
    for g in 0..4 {
        low[g] = _mm512_unpacklo_epi64(rows[2 * g], rows[2 * g + 1]);
        high[g] = _mm512_unpackhi_epi64(rows[2 * g], rows[2 * g + 1]);
    }
    let [a, c, e, g] = quarters(low);
    let [b, d, f, h] = quarters(high);
    [a, b, c, d, e, f, g, h]
}

/// Four rows of four 128-bit lanes.
#[target_feature(enable = "avx512f")]
#[inline]
fn quarters(rows: [__m512i; 4]) -> [__m512i; 4] {
    /// Lanes 0 and 2 of each, and lanes 1 and 3.
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    let even_01 = _mm512_shuffle_i32x4::<EVEN>(rows[0], rows[1]);
    let odd_01 = _mm512_shuffle_i32x4::<ODD>(rows[0], rows[1]);
    let even_23 = _mm512_shuffle_i32x4::<EVEN>(rows[2], rows[3]);
    let odd_23 = _mm512_shuffle_i32x4::<ODD>(rows[2], rows[3]);
    [
        _mm512_shuffle_i32x4::<EVEN>(even_01, even_23),
        _mm512_shuffle_i32x4::<EVEN>(odd_01, odd_23),
        _mm512_shuffle_i32x4::<ODD>(even_01, even_23),
        _mm512_shuffle_i32x4::<ODD>(odd_01, odd_23),
    ]
}
