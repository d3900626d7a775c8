//! Explicit Congestion Notification across the tunnel (RFC 6040).
//!
//! On the way in (encapsulation, normal mode, section 4.1) the outer header takes the inner one's bits. On the way out
//! (decapsulation, section 4.2, figure 4) both are combined, so that a congested path is felt by the inner flow.

/// The two ECN bits of an IP header (RFC 3168, section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// The transport does not understand ECN.
    #[default]
    NotEct = 0,
    /// ECN-capable, codepoint 1.
    Ect1 = 1,
    /// ECN-capable, codepoint 0.
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

impl Ecn {
    /// Reads the two low bits of a TOS or traffic class octet.
    pub const fn from_bits(tos: u8) -> Self {
        match tos & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// The two bits.
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// What the inner header must say after a path that left `outer` on the datagram; `None` if the packet must be
    /// dropped because its transport could not understand the mark.
    pub const fn decapsulate(inner: Self, outer: Self) -> Option<Self> {
        match (inner, outer) {
            (Self::NotEct, Self::Ce) => None,
            (Self::NotEct, Self::NotEct | Self::Ect0 | Self::Ect1) => Some(Self::NotEct),
            (Self::Ce, _) | (Self::Ect0 | Self::Ect1, Self::Ce) => Some(Self::Ce),
            (Self::Ect0 | Self::Ect1, Self::Ect1) | (Self::Ect1, _) => Some(Self::Ect1),
            (Self::Ect0, Self::NotEct | Self::Ect0) => Some(Self::Ect0),
        }
    }

    /// Writes these bits into a parsed IP packet and mends the IPv4 header checksum (RFC 1624).
    pub fn write(self, packet: &mut [u8]) {
        if packet[0] >> 4 == 4 {
            let old = u16::from_be_bytes([packet[0], packet[1]]);
            packet[1] = packet[1] & !3 | self.bits();
            let new = u16::from_be_bytes([packet[0], packet[1]]);
            let checksum = u16::from_be_bytes([packet[10], packet[11]]);
            let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
            let folded = (sum & 0xffff) + (sum >> 16);
            let folded = (folded & 0xffff) + (folded >> 16);
            packet[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
        } else {
            packet[1] = packet[1] & !(3 << 4) | self.bits() << 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decapsulation_follows_figure_4_of_rfc_6040() {
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        let outers = [NotEct, Ect0, Ect1, Ce];
        let table = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce), Some(Ce), Some(Ce), Some(Ce)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in outers.into_iter().zip(row) {
                assert_eq!(
                    Ecn::decapsulate(inner, outer),
                    expected,
                    "{inner:?} in {outer:?}"
                );
            }
        }
    }

    fn header_sum(header: &[u8]) -> u16 {
        let sum: u32 = header
            .chunks(2)
            .map(|c| u32::from(u16::from_be_bytes([c[0], c[1]])))
            .sum();
        !(((sum & 0xffff) + (sum >> 16)) as u16)
    }

    #[test]
    fn writing_keeps_the_ipv4_checksum_right() {
        for from in 0..=255u8 {
            for to in 0..4 {
                let mut header = [
                    0x45, from, 0, 84, 1, 2, 64, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
                ];
                let sum = header_sum(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                Ecn::from_bits(to).write(&mut header);
                assert_eq!(header[1], from & !3 | to);
                assert_eq!(header_sum(&header), 0);
            }
        }
    }

    #[test]
    fn writing_touches_only_the_bits_of_an_ipv6_traffic_class() {
        let mut header = [0x6f, 0xff, 0xff, 0xff];
        Ecn::NotEct.write(&mut header);
        assert_eq!(header, [0x6f, 0xcf, 0xff, 0xff]);
        Ecn::Ce.write(&mut header);
        assert_eq!(header, [0x6f, 0xff, 0xff, 0xff]);
    }
}
