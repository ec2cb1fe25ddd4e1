//! Times as people give them.

use jiff::civil::{DateTime, Time};
use jiff::{Span, Timestamp, ToSpan as _, Zoned};

/// The time that a text names: `2026-11-20T14:00:00Z`, `2026-11-20 14:00`, `2026-11-20`, `14:00`,
/// `today`, `yesterday`, or how long ago: `90s`, `2h`, `1h30m`, `3d`, `2 weeks`. Without an offset in
/// this machine's time zone.
pub(super) fn parse(text: &str) -> Result<Timestamp, String> {
    parse_at(text, &Zoned::now())
}

fn parse_at(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let unknown = || {
        format!(
            "{text:?} is no time; such as 2h, 3d, yesterday, 14:00, 2026-11-20, \
             2026-11-20T14:00:00Z"
        )
    };
    let found = match text {
        "today" => now.start_of_day().ok(),
        "yesterday" => now.yesterday().and_then(|it| it.start_of_day()).ok(),
        _ => {
            let local = |time: DateTime| time.to_zoned(now.time_zone().clone()).ok();
            text.parse::<Timestamp>()
                .map(|time| time.to_zoned(now.time_zone().clone()))
                .ok()
                .or_else(|| text.parse::<DateTime>().ok().and_then(local))
                .or_else(|| {
                    text.parse::<Time>().ok().and_then(|it| local(now.date().to_datetime(it)))
                })
                .or_else(|| text.parse::<Span>().ok().and_then(|ago| before(now, ago)))
        }
    };
    found.map(|time| time.timestamp()).ok_or_else(unknown)
}

/// So long ago. `2h` and `-2h` mean the same here: nothing is read since a time to come.
fn before(now: &Zoned, ago: Span) -> Option<Zoned> {
    if ago.is_zero() || ago.fieldwise() == 0.seconds().fieldwise() {
        return None;
    }
    now.checked_sub(ago.abs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_give_them() {
        let now: Zoned = "2026-11-22T15:30:00[Europe/Berlin]".parse().expect("a time");
        for (text, expected) in [
            ("2026-11-20T14:00:00Z", "2026-11-20T14:00:00Z"),
            ("2026-11-20T14:00:00+02:00", "2026-11-20T12:00:00Z"),
            ("2026-11-20 14:00", "2026-11-20T13:00:00Z"),
            ("2026-11-20T14:00:30", "2026-11-20T13:00:30Z"),
            ("2026-11-20", "2026-11-19T23:00:00Z"),
            ("14:00", "2026-11-22T13:00:00Z"),
            ("today", "2026-11-21T23:00:00Z"),
            ("yesterday", "2026-11-20T23:00:00Z"),
            ("2h", "2026-11-22T12:30:00Z"),
            ("90s", "2026-11-22T14:28:30Z"),
            ("1h30m", "2026-11-22T13:00:00Z"),
            ("3d", "2026-11-19T14:30:00Z"),
            ("2 weeks", "2026-11-08T14:30:00Z"),
        ] {
            let time = parse_at(text, &now).expect(text);
            assert_eq!(time.to_string(), expected, "{text}");
        }
        for text in ["", "soon", "2", "25:00", "2026-13-01", "0h", "99999999999y"] {
            assert!(parse_at(text, &now).is_err(), "{text}");
        }
    }
}
