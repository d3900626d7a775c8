//! Numbers as people read them: three digits that matter, thousands and millions by letter.

pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 999_500.0 => format!("{}M", three_digits(value / 1e6)),
        magnitude if magnitude >= 9_995.0 => format!("{}k", three_digits(value / 1e3)),
        magnitude if magnitude >= 999.5 => grouped(value),
        _ => three_digits(value),
    }
}

fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        magnitude if magnitude.fract() == 0.0 && magnitude < 100.0 => 0,
        magnitude if magnitude >= 99.95 => 0,
        magnitude if magnitude >= 9.995 => 1,
        magnitude if magnitude >= 0.999_5 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// Four digits with a comma.
fn grouped(value: f64) -> String {
    let rounded = value.round() as i64;
    format!("{},{:03}", rounded / 1_000, rounded.abs() % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_matter() {
        let values = [
            0.0, 0.0123, 1.2345, 12.345, 7.0, 123.45, 999.7, 1234.5, 9_996.0,
        ];
        let shown = values.map(short);
        assert_eq!(
            shown,
            [
                "0", "0.012", "1.23", "12.3", "7", "123", "1,000", "1,235", "10.0k"
            ]
        );
        assert_eq!(
            [211_984.0, 999_600.0, 4_226_618.0].map(short),
            ["212k", "1.00M", "4.23M"]
        );
    }
}
