//! Durations as settings and flags give them.

use std::time::Duration;

/// A whole number and its unit: `10s`, `15m`, `12h`, `30d`. A bare number is refused, `0` included: nobody
/// should have to guess what it counts.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let unknown = || format!("{text:?} is no duration; such as 10s, 15m, 12h, 30d");
    let (number, seconds) = [("s", 1), ("m", 60), ("h", 60 * 60), ("d", 24 * 60 * 60)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))
        .ok_or_else(unknown)?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(unknown());
    }
    let count: Option<u64> = number.parse().ok();
    count.and_then(|count| count.checked_mul(seconds)).map(Duration::from_secs).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_its_unit() {
        for (text, seconds) in
            [("10s", 10), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000), ("0s", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "0", "10", "s", "-1s", "1.5h", "1 h", "1w", "1h30m", "99999999999999999d"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
