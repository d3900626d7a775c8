//! The four WireGuard messages (paper, section 5.4), told apart.

/// A datagram that has the type and the length of a WireGuard message. Nothing of it is authenticated yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    HandshakeInitiation,
    HandshakeResponse { receiver_index: u32 },
    CookieReply { receiver_index: u32 },
    Data { receiver_index: u32, counter: u64 },
}

pub(crate) const HANDSHAKE_INITIATION_LEN: usize = 148;
pub(crate) const HANDSHAKE_RESPONSE_LEN: usize = 92;
pub(crate) const COOKIE_REPLY_LEN: usize = 64;
/// The first four bytes of a cookie reply.
pub(crate) const COOKIE_REPLY_TYPE: [u8; 4] = [3, 0, 0, 0];
/// Type, receiver index, counter.
pub(crate) const DATA_HEADER_LEN: usize = 16;
/// Header of 16 bytes, authentication tag of 16.
pub const DATA_OVERHEAD_LEN: usize = 32;

impl Message {
    /// The type is the first byte, the next three are zero.
    pub(crate) fn parse(datagram: &[u8]) -> Option<Self> {
        let kind = datagram.first_chunk::<4>()?;
        let index_at = |at: usize| {
            let bytes = datagram.get(at..)?.first_chunk::<4>()?;
            Some(u32::from_le_bytes(*bytes))
        };
        match (kind, datagram.len()) {
            ([4, 0, 0, 0], DATA_OVERHEAD_LEN..) => Some(Self::Data {
                receiver_index: index_at(4)?,
                counter: data_counter(datagram)?,
            }),
            ([1, 0, 0, 0], HANDSHAKE_INITIATION_LEN) => Some(Self::HandshakeInitiation),
            ([2, 0, 0, 0], HANDSHAKE_RESPONSE_LEN) => Some(Self::HandshakeResponse {
                receiver_index: index_at(8)?,
            }),
            (&COOKIE_REPLY_TYPE, COOKIE_REPLY_LEN) => Some(Self::CookieReply {
                receiver_index: index_at(4)?,
            }),
            _ => None,
        }
    }
}

/// The index under which the sender of a handshake message wants to be answered.
pub(crate) fn sender_index(handshake: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*handshake.get(4..)?.first_chunk::<4>()?))
}

/// The counter in the header of a data message.
pub(crate) fn data_counter(message: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*message.get(8..)?.first_chunk::<8>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_and_type_must_agree() {
        let lengths = [(1, 148), (2, 92), (3, 64)];
        for (kind, len) in lengths {
            let mut datagram = vec![0; len];
            datagram[0] = kind;
            assert!(Message::parse(&datagram).is_some());
            assert_eq!(Message::parse(&datagram[..len - 1]), None);
            datagram.push(0);
            assert_eq!(Message::parse(&datagram), None);
        }
        let mut data = vec![4, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 6];
        data.resize(32, 0);
        assert_eq!(
            Message::parse(&data),
            Some(Message::Data {
                receiver_index: 0x0403_0201,
                counter: 0x0600_0000_0000_0005
            })
        );
        assert_eq!(Message::parse(&data[..31]), None);
        data[3] = 1;
        assert_eq!(Message::parse(&data), None, "reserved bytes are zero");
        assert_eq!(Message::parse(&[]), None);
        assert_eq!(Message::parse(&[5, 0, 0, 0]), None);
    }
}
