//! Starting places and durations as arguments.

use std::time::Duration;

use fleetline_client::model::ReadFrom;
use fleetline_client::{Offset, TimestampMs};

/// Parses `earliest`, `latest`, `offset:N`, `time:RFC3339` or `time:-10m`.
pub(crate) fn read_from(text: &str) -> Result<ReadFrom, String> {
    let wrong = || format!("{text}: use earliest, latest, offset:N, time:2026-01-31T12:00:00Z or time:-10m");
    match text.split_once(':') {
        None if text == "earliest" => Ok(ReadFrom::Earliest),
        None if text == "latest" => Ok(ReadFrom::Latest),
        Some(("offset", number)) => number.parse().map(|n| ReadFrom::Offset(Offset(n))).map_err(|_| wrong()),
        Some(("time", time)) => match time.strip_prefix('-') {
            Some(ago) => {
                let ago = duration(ago).map_err(|_| wrong())?;
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                let now = now.map_err(|_| "this machine's clock is before 1970".to_owned())?;
                Ok(ReadFrom::Time(TimestampMs(now.saturating_sub(ago).as_millis() as u64)))
            }
            None => rfc3339(time).map(|ms| ReadFrom::Time(TimestampMs(ms))).ok_or_else(wrong),
        },
        _ => Err(wrong()),
    }
}

/// Parses `500ms`, `10s`, `5m`, `2h` or `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("{text}: write it like 500ms, 10s, 5m, 2h or 7d")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text}: {number} is no number"))?;
    Ok(Duration::from_millis(number.saturating_mul(millis)))
}

/// Parses a number of bytes, or `10MiB`, `20GiB`, `1TiB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(format!("{text}: write it like 500MiB, 20GiB or 1TiB")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text}: {number} is no number"))?;
    Ok(number.saturating_mul(1 << shift))
}

/// Milliseconds since the epoch of `YYYY-MM-DDTHH:MM:SS[.fff]Z`.
fn rfc3339(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut time = time.split(':').map(str::parse::<i64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let sound = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    // Days from civil: years begin in March, so that the leap day is the last of a year.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    sound.then(|| ((days * 86_400 + hour * 3600 + minute * 60 + second) * 1000 + millis) as u64)
}

/// `YYYY-MM-DD HH:MM:SS.fff` in UTC.
pub(crate) fn show(time: TimestampMs) -> String {
    let (seconds, millis) = (time.0 / 1000, time.0 % 1000);
    let (days, second) = ((seconds / 86_400) as i64 + 719_468, seconds % 86_400);
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * m + 2) / 5 + 1, if m < 10 { m + 3 } else { m - 9 });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (h, min, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{min:02}:{s:02}.{millis:03}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times and durations read as people write them, and print back.
    #[test]
    fn times() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:30:45.250Z", 951_827_445_250),
            ("2026-11-24T08:00:00Z", 1_795_507_200_000),
        ] {
            assert_eq!(rfc3339(text), Some(ms));
            let shown = show(TimestampMs(ms)).replace(' ', "T") + "Z";
            assert_eq!(rfc3339(&shown), Some(ms));
        }
        assert!(matches!(read_from("offset:7"), Ok(ReadFrom::Offset(Offset(7)))));
        assert!(matches!(read_from("time:-5m"), Ok(ReadFrom::Time(_))));
        for bad in ["", "later", "offset:x", "time:yesterday", "time:2026-13-01T00:00:00Z"] {
            assert!(read_from(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert!(duration("90").is_err());
    }
}
