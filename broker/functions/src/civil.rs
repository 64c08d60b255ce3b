//! Time spans as .NET writes them, and moments as function apps see them.

use std::time::Duration;

pub(crate) use fleetline_iothub::time::{format_time as iso, parse_time as parse_iso};

/// Reads `[d.]hh:mm:ss[.fraction]`, and a bare number as days, as .NET's `TimeSpan` does. `None` for
/// anything else and for negative spans.
pub(crate) fn parse_span(text: &str) -> Option<Duration> {
    let text = text.trim();
    let number = |part: &str| -> Option<u64> {
        let is_number = !part.is_empty() && part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { part.parse().ok() } else { None }
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (first, minutes, seconds) = match parts.as_slice() {
        [days] => return number(days).map(|days| Duration::from_secs(days * 86_400)),
        [first, minutes] => (*first, *minutes, "0"),
        [first, minutes, seconds] => (*first, *minutes, *seconds),
        _ => return None,
    };
    let (days, hours) = match first.split_once('.') {
        Some((days, hours)) => (number(days)?, number(hours)?),
        None => (0, number(first)?),
    };
    let (seconds, fraction) = match seconds.split_once('.') {
        Some((seconds, fraction)) => (number(seconds)?, fraction),
        None => (number(seconds)?, ""),
    };
    let minutes = number(minutes)?;
    if minutes > 59 || seconds > 59 || fraction.len() > 7 {
        return None;
    }
    let nanos = match fraction {
        "" => 0,
        digits => number(digits)? * 10u64.pow(9 - digits.len() as u32),
    };
    let seconds = days * 86_400 + hours * 3_600 + minutes * 60 + seconds;
    Some(Duration::from_secs(seconds) + Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let rows = [
            ("00:00:10", Some(10_000)),
            ("00:05:00", Some(300_000)),
            ("1.02:03:04.5", Some(93_784_500)),
            ("24:00:00", Some(86_400_000)),
            ("01:30", Some(5_400_000)),
            ("7", Some(7 * 86_400_000)),
            ("-1", None),
            ("", None),
            ("00:60:00", None),
            ("00:00:60", None),
            ("a:b:c", None),
            ("00:00:00.12345678", None),
            ("1:2:3:4", None),
        ];
        for (text, expected) in rows {
            let found = parse_span(text).map(|span| span.as_millis() as u64);
            assert_eq!(found, expected, "{text}");
        }
    }
}
