//! Between slices and registers.

use std::arch::x86_64::{
    __m512i, __mmask64, _mm512_loadu_si512, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8,
    _mm512_storeu_si512,
};
use std::sync::atomic::{Ordering, compiler_fence};

/// The first 64 bytes of `bytes`, with zeros behind its end.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(super) fn load(bytes: &[u8]) -> __m512i {
    if bytes.len() >= 64 {
        // SAFETY: 64 bytes are there, and the load wants no alignment.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    } else {
        // SAFETY: a masked load touches no byte that its mask does not name.
        unsafe { _mm512_maskz_loadu_epi8(first(bytes.len()), bytes.as_ptr().cast()) }
    }
}

/// Overwrites the first 64 bytes of `bytes`, or all of them if there are fewer.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(super) fn store(bytes: &mut [u8], value: __m512i) {
    if bytes.len() >= 64 {
        // SAFETY: 64 bytes are there, and the store wants no alignment.
        unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), value) }
    } else {
        // SAFETY: a masked store touches no byte that its mask does not name.
        unsafe {
            _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), first(bytes.len()), value);
        }
    }
}

/// Sixteen words.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn words(words: &[u32; 16]) -> __m512i {
    // SAFETY: 64 bytes are there, and the load wants no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// Eight double words.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn to_u64s(value: __m512i) -> [u64; 8] {
    let mut words = [0; 8];
    // SAFETY: 64 bytes are there, and the store wants no alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), value) }
    words
}

/// The first `len` of 64 bytes; fewer than all.
const fn first(len: usize) -> __mmask64 {
    (1 << len) - 1
}

/// Zeros that the compiler does not leave out, 64 bytes at a time: byte by byte they cost a tenth of the whole work.
pub(super) fn wipe(blocks: &mut [[u8; 64]]) {
    for block in blocks {
        let words: *mut [u64; 8] = block.as_mut_ptr().cast();
        // SAFETY: 64 bytes are there; the type has no alignment, and every value of it is one.
        unsafe { words.cast::<Unaligned>().write_volatile(Unaligned([0; 8])) };
    }
    compiler_fence(Ordering::SeqCst);
}

#[repr(C, packed)]
struct Unaligned([u64; 8]);
