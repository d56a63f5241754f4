//! Durations and sizes as people write them: `15m`, `1h30m`, `2GiB`.
//!
//! These are pure conversions between text and numbers, so that proposals and commands can use the same notation as
//! the configuration.

pub use crate::cell::{parse_size, show_size};
use std::time::Duration;

/// Longest duration that is accepted: ten years. More is certainly a mistake, and sums of deadlines must not
/// overflow.
pub const LONGEST: Duration = Duration::from_secs(10 * 365 * DAY);

/// The form that [`parse_duration`] accepts, for error messages.
pub const DURATION_FORM: &str = "a duration such as \"90s\", \"15m\", \"4h\", \"30d\" or \"1h30m\"";
/// The form that [`parse_size`] accepts, for error messages.
pub const SIZE_FORM: &str = "a size such as \"512KiB\", \"16MiB\" or \"2GiB\", or a number of bytes";

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

/// Parses a duration: whole numbers, each with one of the units `w d h m s`, largest first, with nothing between
/// them. `None` for anything else, and for more than [`LONGEST`].
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut smallest = u64::MAX;
    if rest.is_empty() || rest.len() > 40 {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let unit = match rest.as_bytes().get(digits)? {
            b's' => 1,
            b'm' => MINUTE,
            b'h' => HOUR,
            b'd' => DAY,
            b'w' => WEEK,
            _ => return None,
        };
        if unit >= smallest {
            return None;
        }
        smallest = unit;
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    let duration = Duration::from_secs(total);
    (duration <= LONGEST).then_some(duration)
}

/// Formats a duration so that [`parse_duration`] can read it back, such as `4h`, `1h30m`, `30d` or `0s`. Fractions
/// of a second are dropped.
pub fn show_duration(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    let mut text = String::new();
    for (unit, letter) in [(DAY, 'd'), (HOUR, 'h'), (MINUTE, 'm'), (1, 's')] {
        // "24h" is the more usual way to write "1d".
        if unit == DAY && rest < 2 * DAY {
            continue;
        }
        if rest >= unit {
            text.push_str(&(rest / unit).to_string());
            text.push(letter);
            rest %= unit;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90s", 90),
            ("15m", 900),
            ("4h", 14_400),
            ("24h", 86_400),
            ("30d", 2_592_000),
            ("2w", 1_209_600),
            ("1h30m", 5_400),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn a_duration_that_is_not_one_is_refused() {
        let long = "9".repeat(60) + "s";
        for text in
            ["", "5", "h", "4 h", "-4h", "4H", "1.5h", "30m1h", "1h1h", "99999999999999999999s", "11000d", "४h", &long]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_in_both_families_of_units() {
        for (text, bytes) in [("2GiB", 2 << 30), ("512 KiB", 512 << 10), ("5MB", 5_000_000), ("100", 100), ("7B", 7)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "GiB", "2gib", "-1", "1.5GiB", "2GiBs", "99999999999TiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in 0..=LONGEST.as_secs(), bytes in 0..=i64::MAX as u64) {
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
            prop_assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_makes_them_panic(text in ".*") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
