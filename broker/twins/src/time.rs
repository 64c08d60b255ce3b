//! Times as the twin API writes them.

/// The last moment that the form has room for: the end of the year 9999, in milliseconds.
const LAST_MS: u64 = 253_402_300_799_999;

/// Milliseconds since 1970 as `2026-11-24T06:15:38.1230000Z`: UTC, always seven digits behind the
/// point. Times after the year 9999 are shown as its end.
pub fn format_time(ms: u64) -> String {
    let ms = ms.min(LAST_MS);
    let (seconds, millis) = (ms / 1000, ms % 1000);
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}0000Z")
}

/// The date of a day since 1970-01-01 in the Gregorian calendar. Years begin in March here, so
/// that the leap day is the last one.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        let table = [
            (0, "1970-01-01T00:00:00.0000000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.9990000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.0000000Z"),
            (1_709_164_800_001, "2024-02-29T00:00:00.0010000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.0000000Z"),
            (1_795_500_938_123, "2026-11-24T06:15:38.1230000Z"),
            (LAST_MS, "9999-12-31T23:59:59.9990000Z"),
            (u64::MAX, "9999-12-31T23:59:59.9990000Z"),
        ];
        for (ms, expected) in table {
            assert_eq!(format_time(ms), expected, "{ms}");
        }
    }

    /// Days follow each other without a gap, for 800 years.
    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = civil_from_days(0);
        for days in 1..292_194 {
            let (year, month, day) = civil_from_days(days);
            let next_day = (year, month) == (before.0, before.1) && day == before.2 + 1;
            let next_month =
                day == 1 && before.2 >= 28 && (year * 12 + month) == (before.0 * 12 + before.1) + 1;
            assert!(next_day || next_month, "{before:?} then {:?}", (year, month, day));
            before = (year, month, day);
        }
        assert_eq!(before, (2769, 12, 31));
    }
}
