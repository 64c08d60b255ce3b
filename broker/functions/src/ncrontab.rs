//! Schedules of timers: NCRONTAB with six or five fields, or a time span.
//!
//! ```text
//! {second} minute hour day month day-of-week      0 */5 * * * *      30 9 * * MON-FRI
//! hh:mm:ss                                        01:00:00           every hour
//! ```
//!
//! A field is `*`, a number, a name (months, days of the week), a range `a-b`, with `/step` behind it, or
//! a list of these. Day and day of week both have to fit, as in NCRONTAB (and unlike cron). Sunday is 0 or 7.
//! A moment that a change of clocks skips fires at the end of the gap; one that it repeats fires once.
//!
//! Pure: no clock is read here.

use std::time::Duration;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::civil::parse_span;

/// Years ahead that are looked at for a day that fits: 29 February on a given day of the week comes
/// within 40 years at the most.
const YEARS_AHEAD: i16 = 41;
/// The shortest time between firings of a time span: a timer isn't a loop.
const SPAN_MIN: Duration = Duration::from_secs(1);

/// Why text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schedule {text:?} can't be used: {reason}")]
pub struct ScheduleError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// When a timer fires.
#[derive(Clone, Debug)]
pub struct Schedule {
    kind: Kind,
    zone: TimeZone,
}

#[derive(Clone, Debug)]
enum Kind {
    Fields(Box<Fields>),
    Every(Duration),
}

/// One bit per value.
#[derive(Clone, Copy, Debug)]
struct Fields {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
}

impl Schedule {
    /// Reads a schedule; `zone` is a name like `Europe/Berlin`, or empty for UTC.
    ///
    /// # Errors
    /// [`ScheduleError`].
    pub fn parse(text: &str, zone: &str) -> Result<Schedule, ScheduleError> {
        let failed = |reason: String| ScheduleError { text: text.to_owned(), reason };
        let zone = match zone.trim() {
            "" | "UTC" | "Etc/UTC" => TimeZone::UTC,
            name => TimeZone::get(name).map_err(|_| failed(format!("time zone {name} is not known")))?,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let kind = match fields.as_slice() {
            [span] if span.contains(':') => {
                let span = parse_span(span).ok_or_else(|| failed("not hh:mm:ss".into()))?;
                if span < SPAN_MIN {
                    return Err(failed("shorter than a second".into()));
                }
                Kind::Every(span)
            }
            [minutes, hours, days, months, weekdays] => Kind::Fields(Box::new(
                Fields::parse(["0", minutes, hours, days, months, weekdays]).map_err(failed)?,
            )),
            [seconds, minutes, hours, days, months, weekdays] => Kind::Fields(Box::new(
                Fields::parse([seconds, minutes, hours, days, months, weekdays]).map_err(failed)?,
            )),
            found => return Err(failed(format!("{} fields instead of 5 or 6", found.len()))),
        };
        Ok(Schedule { kind, zone })
    }

    /// The first firing behind `after`, in milliseconds since 1970; `None` when there is none any more.
    pub fn next(&self, after_ms: u64) -> Option<u64> {
        match &self.kind {
            Kind::Every(span) => Some(after_ms + span.as_millis() as u64),
            Kind::Fields(fields) => fields.next(after_ms, &self.zone),
        }
    }

    /// The last firing behind `after` that isn't behind `now`, and how many there were.
    pub fn latest(&self, after_ms: u64, now_ms: u64) -> Option<(u64, u64)> {
        if let Kind::Every(span) = &self.kind {
            let span = span.as_millis() as u64;
            let count = now_ms.checked_sub(after_ms)? / span;
            return (count > 0).then(|| (after_ms + count * span, count));
        }
        let mut found: Option<(u64, u64)> = None;
        // Only the last one counts. After a long time away, most of the firings are leapt over.
        let mut at = after_ms.max(now_ms.saturating_sub(LOOK_BACK_MS));
        loop {
            match self.next(at) {
                Some(next) if next <= now_ms => {
                    found = Some((next, found.map_or(1, |(_, count)| count + 1)));
                    at = next;
                }
                _ => break,
            }
        }
        if found.is_none() && at > after_ms {
            // Seldom firings: the last one lies farther back.
            let mut at = after_ms;
            while let Some(next) = self.next(at).filter(|next| *next <= now_ms) {
                found = Some((next, found.map_or(1, |(_, count)| count + 1)));
                at = next;
            }
        }
        found
    }

    /// Whether a missed firing is made up for: unless there are several in a minute.
    pub fn is_monitored_by_default(&self) -> bool {
        match &self.kind {
            Kind::Every(span) => *span >= Duration::from_secs(60),
            Kind::Fields(fields) => fields.seconds.count_ones() == 1,
        }
    }
}

/// How far back each firing is looked at; farther back, only when there is none since.
const LOOK_BACK_MS: u64 = 60 * 60 * 1000;

impl Fields {
    fn parse([seconds, minutes, hours, days, months, weekdays]: [&str; 6]) -> Result<Fields, String> {
        let mut weekdays = field(weekdays, "day of week", 0, 7, WEEKDAYS)?;
        if weekdays & (1 << 7) != 0 {
            weekdays = (weekdays | 1) & !(1 << 7);
        }
        Ok(Fields {
            seconds: field(seconds, "second", 0, 59, &[])?,
            minutes: field(minutes, "minute", 0, 59, &[])?,
            hours: field(hours, "hour", 0, 23, &[])?,
            days: field(days, "day", 1, 31, &[])?,
            months: field(months, "month", 1, 12, MONTHS)?,
            weekdays,
        })
    }

    fn next(&self, after_ms: u64, zone: &TimeZone) -> Option<u64> {
        let after = Timestamp::from_millisecond(i64::try_from(after_ms).ok()?).ok()?;
        let local = zone.to_datetime(after);
        // The first whole second behind it, as the clock on the wall shows it.
        let mut from = DateTime::from_parts(
            local.date(),
            Time::new(local.hour(), local.minute(), local.second(), 0).ok()?,
        );
        loop {
            from = from.checked_add(1.second()).ok()?;
            let found = self.next_local(from)?;
            // Of a repeated hour the first one; a skipped moment moves behind the gap.
            let at = zone.to_ambiguous_zoned(found).compatible().ok()?.timestamp();
            match u64::try_from(at.as_millisecond()) {
                Ok(ms) if ms > after_ms => return Some(ms),
                // The clock was set back: this moment has been.
                _ => from = found,
            }
        }
    }

    /// The first moment at or behind `from` that fits, on the wall's clock.
    fn next_local(&self, from: DateTime) -> Option<DateTime> {
        let last_year = from.year().checked_add(YEARS_AHEAD)?;
        let mut date = from.date();
        let mut time = Some(from.time());
        while date.year() <= last_year {
            if !has(self.months, date.month()) {
                date = next_month(date)?;
                time = None;
                continue;
            }
            let weekday = date.weekday().to_sunday_zero_offset();
            if has(self.days, date.day()) && has(self.weekdays, weekday) {
                let first = time.unwrap_or(Time::midnight());
                if let Some(found) = self.next_time(first) {
                    return Some(DateTime::from_parts(date, found));
                }
            }
            date = date.tomorrow().ok()?;
            time = None;
        }
        None
    }

    /// The first time of day at or behind `from`.
    fn next_time(&self, from: Time) -> Option<Time> {
        let (hour, minute, second) = (from.hour(), from.minute(), from.second());
        let make = |hour: i8, minute: i8, second: i8| Time::new(hour, minute, second, 0).ok();
        if has(self.hours, hour) {
            if has(self.minutes, minute)
                && let Some(second) = at_or_behind(self.seconds, second)
            {
                return make(hour, minute, second);
            }
            if let Some(minute) = at_or_behind(self.minutes, minute + 1) {
                return make(hour, minute, first(self.seconds));
            }
        }
        let hour = at_or_behind(self.hours, hour + 1)?;
        make(hour, first(self.minutes), first(self.seconds))
    }
}

fn has(bits: u64, value: i8) -> bool {
    bits & (1 << value) != 0
}

fn first(bits: u64) -> i8 {
    bits.trailing_zeros() as i8
}

fn at_or_behind(bits: u64, value: i8) -> Option<i8> {
    let rest = bits & (u64::MAX << value);
    (rest != 0).then(|| first(rest))
}

fn next_month(date: Date) -> Option<Date> {
    let (year, month) = match date.month() {
        12 => (date.year().checked_add(1)?, 1),
        month => (date.year(), month + 1),
    };
    Date::new(year, month, 1).ok()
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The bits of a field; names count from `least` on.
fn field(text: &str, what: &str, least: u64, most: u64, names: &[&str]) -> Result<u64, String> {
    let value = |text: &str| -> Result<u64, String> {
        let lower = text.to_ascii_lowercase();
        // Names may be written out: "Monday".
        let named = names.iter().position(|name| lower.starts_with(name) && lower.len() >= 3);
        let value = named.map(|index| index as u64 + least).or_else(|| text.parse().ok());
        value
            .filter(|value| (least..=most).contains(value))
            .ok_or_else(|| format!("{what} {text:?} is not between {least} and {most}"))
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step: u64 = step
                    .parse()
                    .ok()
                    .filter(|step| (1..=most).contains(step))
                    .ok_or_else(|| format!("step {step:?} of the {what} is not between 1 and {most}"))?;
                (range, Some(step))
            }
            None => (part, None),
        };
        let (from, to) = match range {
            "*" | "?" => (least, if names == WEEKDAYS { 6 } else { most }),
            _ => match range.split_once('-') {
                Some((from, to)) => (value(from)?, value(to)?),
                // `5/10`: from 5 on.
                None => {
                    let from = value(range)?;
                    (from, if step.is_some() { most } else { from })
                }
            },
        };
        if from > to {
            return Err(format!("{what} {range:?} runs backwards"));
        }
        let step = step.unwrap_or(1) as usize;
        (from..=to).step_by(step).for_each(|value| bits |= 1 << value);
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::civil::{iso, parse_iso};

    #[track_caller]
    fn check(text: &str, zone: &str, after: &str, expected: &[&str]) {
        let schedule = Schedule::parse(text, zone).unwrap();
        let mut at = parse_iso(after).unwrap();
        for expected in expected {
            at = schedule.next(at).unwrap();
            let found = iso(at);
            assert_eq!(found.trim_end_matches(".0000000Z"), *expected, "{text} after {after}");
        }
    }

    /// The public documentation's examples, and the corners.
    #[test]
    fn firings() {
        let rows: &[(&str, &str, &[&str])] = &[
            ("0 */5 * * * *", "2026-11-24T06:02:00.001", &["2026-11-24T06:05:00", "2026-11-24T06:10:00"]),
            ("0 0 * * * *", "2026-11-24T23:00:00", &["2026-11-25T00:00:00"]),
            ("0 0 */2 * * *", "2026-11-24T01:00:00", &["2026-11-24T02:00:00", "2026-11-24T04:00:00"]),
            ("0 0 9-17 * * *", "2026-11-24T17:00:00", &["2026-11-25T09:00:00"]),
            ("0 30 9 * * *", "2026-11-24T09:30:00", &["2026-11-25T09:30:00"]),
            ("0 30 9 * * 1-5", "2026-11-27T10:00:00", &["2026-11-30T09:30:00"]),
            ("0 30 9 * Jan Mon", "2026-11-24T00:00:00", &["2027-01-04T09:30:00"]),
            ("30 9 * * MON-FRI", "2026-11-24T09:29:59", &["2026-11-24T09:30:00"]),
            ("*/15 * * * * *", "2026-11-24T00:00:44", &["2026-11-24T00:00:45", "2026-11-24T00:01:00"]),
            ("5,10 0 0 1 1 *", "2026-11-24T00:00:00", &["2027-01-01T00:00:05", "2027-01-01T00:00:10"]),
            ("0 0 0 29 2 *", "2026-11-24T00:00:00", &["2028-02-29T00:00:00", "2032-02-29T00:00:00"]),
            ("0 0 0 31 * *", "2026-11-24T00:00:00", &["2026-12-31T00:00:00", "2027-01-31T00:00:00"]),
            ("0 0 0 * * 7", "2026-11-24T00:00:00", &["2026-11-29T00:00:00"]),
            ("0 0 0 * * Sunday", "2026-11-24T00:00:00", &["2026-11-29T00:00:00"]),
            ("0 20/20 * * * *", "2026-11-24T00:00:00", &["2026-11-24T00:20:00", "2026-11-24T00:40:00"]),
            ("01:00:00", "2026-11-24T00:10:00", &["2026-11-24T01:10:00", "2026-11-24T02:10:00"]),
        ];
        for (text, after, expected) in rows {
            check(text, "", after, expected);
        }
    }

    /// Central Europe skips 02:00–03:00 on 2027-03-28 and repeats it on 2027-10-31.
    #[test]
    fn changes_of_clocks() {
        check(
            "0 30 2 * * *",
            "Europe/Berlin",
            "2027-03-27T12:00:00",
            &["2027-03-28T01:30:00", "2027-03-29T00:30:00"],
        );
        check(
            "0 30 2 * * *",
            "Europe/Berlin",
            "2027-10-30T12:00:00",
            &["2027-10-31T00:30:00", "2027-11-01T01:30:00"],
        );
    }

    #[test]
    fn a_date_that_never_comes_ends() {
        assert_eq!(Schedule::parse("0 0 0 30 2 *", "").unwrap().next(1_795_500_938_000), None);
    }

    #[test]
    fn refusals() {
        let rows = [
            "",
            "* * *",
            "60 * * * * *",
            "* 60 * * * *",
            "* * 24 * * *",
            "* * * 0 * *",
            "* * * 32 * *",
            "* * * * 13 *",
            "* * * * * 8",
            "*/0 * * * * *",
            "5-1 * * * * *",
            "a * * * * *",
            "00:00:00",
            "1,,2 * * * * *",
            "-1 * * * * *",
        ];
        for text in rows {
            assert!(Schedule::parse(text, "").is_err(), "{text}");
        }
        assert!(Schedule::parse("0 * * * * *", "Mars/Olympus").is_err());
    }

    /// Missed firings count; the last of them is the one that is made up for.
    #[test]
    fn missed() {
        let at = |text: &str| parse_iso(text).unwrap();
        let every_minute = Schedule::parse("0 * * * * *", "").unwrap();
        let (from, now) = (at("2026-11-24T00:00:00"), at("2026-11-24T00:05:30"));
        assert_eq!(every_minute.latest(from, now), Some((at("2026-11-24T00:05:00"), 5)));
        assert_eq!(every_minute.latest(now, now), None);
        let yearly = Schedule::parse("0 0 0 1 1 *", "").unwrap();
        let found = yearly.latest(at("2020-06-01T00:00:00"), at("2026-11-24T00:00:00"));
        assert_eq!(found.unwrap().0, at("2026-01-01T00:00:00"));
        let span = Schedule::parse("00:00:10", "").unwrap();
        assert_eq!(span.latest(1_000, 35_000), Some((31_000, 3)));
        assert!(!span.is_monitored_by_default() && every_minute.is_monitored_by_default());
    }
}
