//! A number of places, of which each is held by somebody until they leave.

use std::cell::Cell;

/// How many are taken.
#[derive(Debug, Default)]
pub(crate) struct Places(Cell<usize>);

/// One of them.
#[derive(Debug)]
pub(crate) struct Place<'a>(&'a Places);

impl Places {
    /// Takes one, unless `max` are taken.
    pub(crate) fn take(&self, max: usize) -> Option<Place<'_>> {
        let taken = self.0.get();
        (taken < max).then(|| {
            self.0.set(taken + 1);
            Place(self)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_left_can_be_taken_again() {
        let places = Places::default();
        let first = places.take(1);
        assert!(first.is_some() && places.take(1).is_none());
        drop(first);
        assert!(places.take(1).is_some());
    }
}
