//! Against arithmetic that anyone can follow, with the numbers that carry furthest.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// 2^130 - 5, in words of 64 bits from the lowest.
const P: [u64; 3] = [u64::MAX - 4, u64::MAX, 3];

/// a + b modulo P, for both below P.
fn add(a: [u64; 3], b: [u64; 3]) -> [u64; 3] {
    let mut sum = [0; 3];
    let mut carry = 0;
    for at in 0..3 {
        let word = u128::from(a[at]) + u128::from(b[at]) + carry;
        sum[at] = word as u64;
        carry = word >> 64;
    }
    if sum.iter().rev().lt(P.iter().rev()) {
        return sum;
    }
    let mut borrow = false;
    for at in 0..3 {
        let (less, under) = sum[at].overflowing_sub(P[at]);
        let (less, under_too) = less.overflowing_sub(u64::from(borrow));
        sum[at] = less;
        borrow = under || under_too;
    }
    sum
}

/// a b modulo P, by doubling.
fn multiply(a: [u64; 3], b: [u64; 3]) -> [u64; 3] {
    (0..130).rev().fold([0; 3], |product, bit| {
        let twice = add(product, product);
        match b[bit / 64] >> (bit % 64) & 1 {
            1 => add(twice, a),
            _ => twice,
        }
    })
}

fn number(bytes: &[u8]) -> u128 {
    let mut all = [0; 16];
    all[..bytes.len()].copy_from_slice(bytes);
    u128::from_le_bytes(all)
}

fn words(number: u128, third: u64) -> [u64; 3] {
    [number as u64, (number >> 64) as u64, third]
}

/// RFC 8439, sections 2.5.1 and 2.8.
fn tag(key: &[u8; BLOCK_LEN], text: &[u8]) -> Tag {
    let r = number(&key[..16]) & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
    let lengths = (text.len() as u128) << 64;
    let blocks = text.chunks(16).map(number).chain([lengths]);
    let sum = blocks.fold([0; 3], |sum, block| {
        multiply(add(sum, words(block, 1)), words(r, 0))
    });
    let low = u128::from(sum[0]) | u128::from(sum[1]) << 64;
    low.wrapping_add(number(&key[16..32])).to_le_bytes()
}

fn bytes(len: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    let extreme = prop_oneof![Just(0), Just(1), Just(0xfb), Just(0xfc), Just(0xff)];
    vec(prop_oneof![3 => extreme, 1 => any::<u8>()], len)
}

fn key() -> impl Strategy<Value = [u8; BLOCK_LEN]> {
    bytes(BLOCK_LEN).prop_map(|bytes| bytes.try_into().expect("the length is right"))
}

proptest! {
    #[test]
    fn every_lane_has_its_tag(
        lanes in proptest::array::uniform8((key(), bytes(0..200usize)))
    ) {
        if !(is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512ifma")) {
            return Ok(());
        }
        let keys = lanes.each_ref().map(|(key, _)| key);
        let texts = lanes.each_ref().map(|(_, text)| text.as_slice());
        // SAFETY: the processor was asked.
        let tags = unsafe { tags(&keys, &texts) };
        let expected = lanes.each_ref().map(|(key, text)| tag(key, text));
        prop_assert_eq!(tags, expected);
    }
}

/// The sum is exactly P, one more, and the most below 2^130, before the key is added: RFC 8439, appendix A.3, has these
/// numbers for an r of 1 and of 2 in a text of one block.
#[test]
fn the_last_reduction_is_complete() {
    if !(is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512ifma")) {
        return;
    }
    let sums = [
        P,
        [P[0] - 1, P[1], P[2]],
        [P[0] + 1, P[1], P[2]],
        [u64::MAX, u64::MAX, 3],
        [0; 3],
        [4, 0, 0],
    ];
    for [w0, w1, w2] in sums {
        // SAFETY: the processor was asked.
        let (low, high) = unsafe { reduce(w0, w1, w2) };
        let expected = add([0; 3], reference([w0, w1, w2]));
        assert_eq!([low, high], expected[..2]);
    }
}

fn reference(sum: [u64; 3]) -> [u64; 3] {
    if sum.iter().rev().lt(P.iter().rev()) {
        return sum;
    }
    // Both are below 2^130, and so is the difference.
    [sum[0].wrapping_sub(P[0]), 0, 0]
}

#[target_feature(enable = "avx512f")]
fn reduce(w0: u64, w1: u64, w2: u64) -> (u64, u64) {
    let all = |word: u64| _mm512_set1_epi64(word.cast_signed());
    let mut limbs = Limbs::new(all(w0), all(w1));
    limbs.0[2] = _mm512_or_si512(limbs.0[2], all(w2 << 40));
    let (low, high) = limbs.carried().reduced().to_words();
    (memory::to_u64s(low)[0], memory::to_u64s(high)[0])
}
