//! Numbers as people read them: three digits that matter, thousands in groups.

pub(crate) fn short(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 1_000.0 {
        return grouped(value);
    }
    let decimals = match magnitude {
        m if m >= 100.0 || m == 0.0 || (m.fract() == 0.0 && m < 100.0) => 0,
        m if m >= 10.0 => 1,
        m if m >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_matter() {
        let shown = [
            0.0,
            0.0123,
            1.2345,
            12.345,
            7.0,
            123.45,
            1234.5,
            1_234_567.0,
        ]
        .map(short);
        assert_eq!(
            shown,
            [
                "0",
                "0.012",
                "1.23",
                "12.3",
                "7",
                "123",
                "1,234",
                "1,234,567"
            ]
        );
    }
}
