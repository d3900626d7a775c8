//! Against ring, one message at a time.

use proptest::collection::vec;
use proptest::prelude::*;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::{Authentic, GROUP_LEN_MAX, KEY_LEN, Key, Message, TAG_LEN};

/// What [`Key::seal`] should make of one text.
fn sealed_by_ring(key: &[u8; KEY_LEN], counter: u64, text: &[u8]) -> Vec<u8> {
    let key =
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("its length is right"));
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    let mut bytes = text.to_vec();
    key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::empty(),
        &mut bytes,
    )
    .expect("the text is short");
    bytes
}

fn with_room(texts: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let room = |text: &Vec<u8>| [text.as_slice(), &[0xee; TAG_LEN]].concat();
    texts.iter().map(room).collect()
}

/// Seals as a group, compares each with ring, damages some, opens as a group.
fn check_group(key: [u8; KEY_LEN], group: &[(u64, Vec<u8>)], damage: &[Option<(usize, u8)>]) {
    let (counters, texts): (Vec<_>, Vec<_>) = group.iter().cloned().unzip();
    let expected: Vec<_> = group
        .iter()
        .map(|(counter, text)| sealed_by_ring(&key, *counter, text))
        .collect();
    let key = Key::new(&key);
    let mut buffers = with_room(&texts);
    key.seal(&mut borrowed(&counters, &mut buffers));
    assert_eq!(buffers, expected);

    for (buffer, damage) in buffers.iter_mut().zip(damage) {
        if let Some((at, bits)) = damage {
            let at = at % buffer.len();
            buffer[at] ^= bits;
        }
    }
    let authentic = key.open(&mut borrowed(&counters, &mut buffers));
    for (index, text) in texts.iter().enumerate() {
        let intact = damage.get(index).copied().flatten().is_none();
        assert_eq!(authentic.contains(index), intact, "{index}");
        if intact {
            assert_eq!(&buffers[index][..text.len()], text);
        }
    }
    assert!(!authentic.contains(group.len()));
}

fn borrowed<'a>(counters: &[u64], buffers: &'a mut [Vec<u8>]) -> Vec<Message<'a>> {
    let message = |(&counter, bytes): (&u64, &'a mut Vec<u8>)| Message {
        counter,
        bytes: bytes.as_mut_slice(),
    };
    counters.iter().zip(buffers).map(message).collect()
}

fn text(len_max: usize) -> impl Strategy<Value = Vec<u8>> {
    // All ones carry furthest.
    prop_oneof![vec(any::<u8>(), 0..=len_max), vec(Just(0xff), 0..=len_max)]
}

proptest! {
    #[test]
    fn a_group_is_what_ring_makes_of_each(
        key: [u8; KEY_LEN],
        group in vec((any::<u64>(), text(300)), 0..=GROUP_LEN_MAX),
        damage in vec(proptest::option::weighted(0.2, (any::<usize>(), 1..=u8::MAX)), GROUP_LEN_MAX),
    ) {
        check_group(key, &group, &damage);
    }

    #[test]
    fn groups_of_one_length_are_the_rule(
        key: [u8; KEY_LEN],
        first: u64,
        messages in 1..=GROUP_LEN_MAX,
        len in 0..1600usize,
        byte: u8,
    ) {
        let group: Vec<_> = (0..messages)
            .map(|at| (first.wrapping_add(at as u64), vec![byte.wrapping_add(at as u8); len]))
            .collect();
        check_group(key, &group, &[]);
    }
}

#[test]
fn lengths_around_every_border() {
    for len in (0..=68).chain(124..=132).chain([1_420, 1_424, 8_960]) {
        for messages in [1, 3, 4, 8, 9, 16] {
            let group: Vec<_> = (0..messages).map(|at| (at, vec![at as u8; len])).collect();
            check_group([7; KEY_LEN], &group, &[]);
        }
    }
}

#[test]
fn no_group_at_all_is_no_harm() {
    let key = Key::new(&[0; KEY_LEN]);
    key.seal(&mut []);
    assert_eq!(key.open(&mut []), Authentic::default());
}
