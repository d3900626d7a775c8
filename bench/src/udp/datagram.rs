//! The content of a test datagram: its trial, and its number.

const MAGIC: u32 = 0x706c_6f79;
pub(crate) const HEADER_BYTES: usize = 16;

/// The header of one datagram; the rest of the payload is filling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Tells the datagrams of this trial from late ones of the last.
    pub(crate) trial: u32,
    pub(crate) sequence: u64,
}

impl Header {
    /// Writes the header to the start of `payload`, which is at least [`HEADER_BYTES`] long.
    pub(crate) fn write(self, payload: &mut [u8]) {
        let Some(header) = payload.first_chunk_mut::<HEADER_BYTES>() else {
            return;
        };
        header[..4].copy_from_slice(&MAGIC.to_be_bytes());
        header[4..8].copy_from_slice(&self.trial.to_be_bytes());
        header[8..].copy_from_slice(&self.sequence.to_be_bytes());
    }

    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (magic, rest) = payload.split_first_chunk::<4>()?;
        let (trial, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, _) = rest.split_first_chunk::<8>()?;
        (u32::from_be_bytes(*magic) == MAGIC).then(|| Self {
            trial: u32::from_be_bytes(*trial),
            sequence: u64::from_be_bytes(*sequence),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        let header = Header {
            trial: 7,
            sequence: 1 << 40,
        };
        let mut payload = [0; 64];
        header.write(&mut payload);
        assert_eq!(Header::read(&payload), Some(header));
    }

    #[test]
    fn a_foreign_or_short_datagram_is_none() {
        assert_eq!(Header::read(&[0; 64]), None);
        assert_eq!(Header::read(&[0; 3]), None);
    }
}
