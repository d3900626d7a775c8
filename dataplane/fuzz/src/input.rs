//! Bytes read as a program: every byte string is one, and it ends where the bytes do.

pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte; zero behind the end.
    pub(crate) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.word()) % bound
    }

    /// The next `len` bytes, or as many as there are.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// A length and as many bytes.
    pub(crate) fn string(&mut self) -> &'a [u8] {
        let len = usize::from(self.word());
        self.bytes(len)
    }

    /// Changes up to three bytes of `bytes`, in place.
    pub(crate) fn alter(&mut self, bytes: &mut [u8]) {
        for _ in 0..self.byte() % 4 {
            let (at, change) = (usize::from(self.word()), self.byte());
            if !bytes.is_empty() {
                bytes[at % bytes.len()] ^= change;
            }
        }
    }
}
