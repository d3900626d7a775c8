//! Which data messages of a session were seen (RFC 6479): a window behind the greatest counter, as long as the
//! kernel's.

use std::fmt;

const BITS_PER_WORD: u64 = u64::BITS as u64;
const WORDS: usize = 128;
/// 8,192 bits, of which the word that is being entered covers what is still to come.
const BITS: u64 = WORDS as u64 * BITS_PER_WORD;
/// A counter may lie so far behind the greatest.
pub(super) const WINDOW_LEN: u64 = BITS - BITS_PER_WORD;

/// The window; empty to begin with.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Window {
    /// One more than the greatest counter that was seen.
    end: u64,
    /// A ring: the bit of a counter is at its value modulo [`BITS`].
    words: [u64; WORDS],
}

impl Window {
    pub(super) const fn new() -> Self {
        Self {
            end: 0,
            words: [0; WORDS],
        }
    }

    /// True if the counter was not seen, and is not too old to tell.
    pub(super) fn is_new(&self, counter: u64) -> bool {
        if counter >= self.end {
            return true;
        }
        self.end - counter <= WINDOW_LEN && self.words[word(counter)] & bit(counter) == 0
    }

    /// Notes the counter; false if it was not new.
    pub(super) fn mark(&mut self, counter: u64) -> bool {
        if !self.is_new(counter) {
            return false;
        }
        if counter >= self.end {
            self.advance(counter);
        }
        self.words[word(counter)] |= bit(counter);
        true
    }

    /// Forgets what is in the words that are entered.
    fn advance(&mut self, counter: u64) {
        let first = self.end.div_ceil(BITS_PER_WORD);
        let last = counter / BITS_PER_WORD;
        let entered = (last + 1).saturating_sub(first).min(WORDS as u64);
        for number in 0..entered {
            self.words[(first + number) as usize % WORDS] = 0;
        }
        self.end = counter + 1;
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Window(up to {})", self.end)
    }
}

fn word(counter: u64) -> usize {
    (counter / BITS_PER_WORD) as usize % WORDS
}

const fn bit(counter: u64) -> u64 {
    1 << (counter % BITS_PER_WORD)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_window_ends_where_it_says() {
        let mut window = Window::new();
        let greatest = 3 * BITS + 17;
        assert!(window.mark(greatest));
        assert!(window.mark(greatest + 1 - WINDOW_LEN));
        assert!(!window.is_new(greatest - WINDOW_LEN), "too old to tell");
    }

    #[test]
    fn the_greatest_counters_are_counters() {
        let mut window = Window::new();
        assert!(window.mark(u64::MAX - 1));
        assert!(!window.mark(u64::MAX - 1));
        assert!(window.mark(u64::MAX - 2));
        assert!(!window.is_new(0));
    }

    /// Steps forward and back: by a few, by about a word, and by about the window.
    fn steps() -> impl Strategy<Value = Vec<i64>> {
        let step = prop_oneof![
            8 => -3..6i64,
            3 => -70..70i64,
            1 => -8_300..8_300i64,
            1 => 8_000..20_000i64,
        ];
        prop::collection::vec(step, 1..400)
    }

    proptest! {
        /// The stupid twin remembers every counter.
        #[test]
        fn a_counter_is_taken_once_and_only_in_the_window(steps in steps(), start in 0..20_000i64) {
            let mut window = Window::new();
            let (mut seen, mut greatest, mut counter) = (HashSet::new(), None, start);
            for step in steps {
                counter = (counter + step).max(0);
                let number = counter as u64;
                let is_late = greatest.is_some_and(|it: u64| it + 1 > number + WINDOW_LEN);
                let expected = !is_late && !seen.contains(&number);
                prop_assert_eq!(window.is_new(number), expected);
                prop_assert_eq!(window.mark(number), expected);
                if expected {
                    seen.insert(number);
                    greatest = greatest.max(Some(number));
                }
            }
        }
    }
}
