//! Moments as the SDKs write and read them: ISO 8601 in UTC, seven fractional digits, `Z`.
//!
//! The .NET client takes no other form in a property bag. Reading is lenient about the number of digits
//! and a missing `Z`. Moments are milliseconds since 1970; no clock is read here.

/// How the public hub writes "never". Readers map it to their own least date.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

const DAY_MS: u64 = 86_400_000;
/// 9999-12-31T23:59:59.999: later moments have no form with four digits of a year.
const LAST_MS: u64 = 253_402_300_799_999;

/// Writes `2026-11-24T06:15:38.1230000Z`. Moments beyond the year 9999 are written as its end.
pub fn format_time(ms_since_epoch: u64) -> String {
    let ms = ms_since_epoch.min(LAST_MS);
    let (year, month, day) = date_of_day(ms / DAY_MS);
    let of_day = ms % DAY_MS;
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}0000Z", of_day % 1_000)
}

/// Reads `YYYY-MM-DDThh:mm:ss[.fraction][Z|+00:00]`. `None` for anything else and for moments before
/// 1970, thus also for [`NEVER`]. Digits below a millisecond are cut.
pub fn parse_time(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00")).unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let bytes = whole.as_bytes();
    if bytes.len() != 19 || separators.iter().any(|&(at, separator)| bytes[at] != separator) {
        return None;
    }
    let [year, month, day] = [number(bytes, 0, 4)?, number(bytes, 5, 2)?, number(bytes, 8, 2)?];
    let [hour, minute, second] = [number(bytes, 11, 2)?, number(bytes, 14, 2)?, number(bytes, 17, 2)?];
    let is_moment = hour < 24 && minute < 60 && second < 60;
    let days = day_of_date(year, month, day).filter(|_| is_moment)?;
    Some(days * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1_000 + fraction_ms(fraction)?)
}

fn number(bytes: &[u8], at: usize, count: usize) -> Option<u64> {
    bytes[at..at + count]
        .iter()
        .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

fn fraction_ms(fraction: &str) -> Option<u64> {
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().map(|byte| u64::from(byte - b'0')).chain([0, 0]).take(3);
    Some(digits.fold(0, |sum, digit| sum * 10 + digit))
}

/// Year, month, day of the Gregorian calendar for a number of days since 1970-01-01.
///
/// Counts eras of 400 years (146,097 days) from 0000-03-01, so that the leap day is a year's last.
fn date_of_day(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`date_of_day`]; `None` for days that the calendar doesn't have, or before 1970.
fn day_of_date(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let from_march = year - u64::from(month <= 2);
    let (era, year_of_era) = (from_march / 400, from_march % 400);
    let month_from_march = (month + 9) % 12;
    let of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    let days = (era * 146_097 + of_era).checked_sub(719_468)?;
    (date_of_day(days) == (year, month, day)).then_some(days)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.0000000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.0000000Z"),
            (1_795_500_938_123, "2026-11-24T06:15:38.1230000Z"),
            (LAST_MS, "9999-12-31T23:59:59.9990000Z"),
        ] {
            assert_eq!(format_time(ms), text);
            assert_eq!(parse_time(text), Some(ms), "{text}");
        }
        assert_eq!(format_time(u64::MAX), "9999-12-31T23:59:59.9990000Z");
    }

    #[test]
    fn reading_is_lenient_about_digits_only() {
        let ms = parse_time("2026-11-24T06:15:38.1230000Z");
        for same in
            ["2026-11-24T06:15:38.123", "2026-11-24T06:15:38.1234567Z", "2026-11-24T06:15:38.123+00:00"]
        {
            assert_eq!(parse_time(same), ms, "{same}");
        }
        assert_eq!(parse_time("2026-11-24T06:15:38Z"), ms.map(|ms| ms - 123));
        for bad in [
            "",
            "0001-01-01T00:00:00",
            NEVER,
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-10T00:00:00Z",
            "2026-11-24 06:15:38Z",
            "2026-11-24T24:00:00Z",
            "2026-11-24T06:15:38.Z",
            "2026-11-24T06:15:38.12x",
            "2026-11-24T06:15:38+02:00",
            "2026-11-2éT06:15:38",
            "+026-11-24T06:15:38Z",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn moments_survive(ms in 0..=LAST_MS) {
            prop_assert_eq!(parse_time(&format_time(ms)), Some(ms));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = parse_time(&text);
        }
    }
}
