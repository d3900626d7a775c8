//! A bounded number of permits, each held until it is dropped.

use std::cell::Cell;

/// The count of permits that are taken.
#[derive(Debug, Default)]
pub(crate) struct Permits(Cell<usize>);

/// A permit that is taken.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    /// Takes a permit, unless `max` are taken.
    pub(crate) fn take(&self, max: usize) -> Option<Permit<'_>> {
        let taken = self.0.get();
        (taken < max).then(|| {
            self.0.set(taken + 1);
            Permit(self)
        })
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_that_is_dropped_can_be_taken_again() {
        let permits = Permits::default();
        let first = permits.take(1);
        assert!(first.is_some() && permits.take(1).is_none());
        drop(first);
        assert!(permits.take(1).is_some());
    }
}
