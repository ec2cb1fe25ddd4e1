//! How long, as people give it.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// The time that a text names: `30d`, `12h`, `1h30m`, `90s`, `2 weeks`. A day has 24 hours; months and
/// years, which differ, are refused. Not negative; `0s` is no time at all.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let unknown = || format!("{text:?} is no length of time; such as 30d, 12h, 1h30m, 90s");
    let span: Span = text.parse().map_err(|_| unknown())?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return Err(format!("{text:?} has months or years, which differ in length; give days"));
    }
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| unknown())?;
    Duration::try_from(duration).map_err(|_| unknown())
}

/// [`parse`] for a time of which none at all makes no sense.
pub(super) fn parse_some(text: &str) -> Result<Duration, String> {
    let duration = parse(text)?;
    if duration.is_zero() { Err("must be more than nothing".to_owned()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_as_people_give_them() {
        for (text, seconds) in [
            ("30d", 2_592_000),
            ("12h", 43_200),
            ("1h30m", 5_400),
            ("90s", 90),
            ("2 weeks", 1_209_600),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("10ms"), Ok(Duration::from_millis(10)));
        for text in ["", "30", "soon", "-1h", "1h ago", "1mo", "1y", "99999999999d"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse_some("0s").is_err());
        assert_eq!(parse_some("1s"), Ok(Duration::from_secs(1)));
    }
}
