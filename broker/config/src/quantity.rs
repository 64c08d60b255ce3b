//! Durations and sizes as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Text that isn't a quantity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{text}\" is no {what}; write it like {example}")]
pub struct QuantityError {
    text: String,
    what: &'static str,
    example: &'static str,
}

/// Splits `"1.5 s"` into its number, in thousandths, and its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let thousandths = format!("{fraction:0<3}");
    let thousandths: u64 = thousandths.get(..3)?.parse().ok()?;
    let whole: u64 = whole.parse().ok()?;
    Some((whole.checked_mul(1000)?.checked_add(thousandths)?, unit.trim()))
}

macro_rules! quantity {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A length of time, to the millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(Duration);

impl Period {
    /// So many milliseconds.
    pub fn from_millis(millis: u64) -> Period {
        Period(Duration::from_millis(millis))
    }

    /// In milliseconds.
    pub fn millis(self) -> u64 {
        self.0.as_millis() as u64
    }

    /// As a duration.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Period {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Period, QuantityError> {
        let error = QuantityError {
            text: text.to_owned(),
            what: "duration",
            example: "500ms, 1.5s, 10min, 24h or 7d",
        };
        let (thousandths, unit) = split(text).ok_or(error.clone())?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "min" | "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(error),
        };
        thousandths.checked_mul(millis).map(|value| Period::from_millis(value / 1000)).ok_or(error)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.millis();
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
        match units.iter().find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", millis / unit),
            None => write!(f, "{millis}ms"),
        }
    }
}

quantity!(Period);

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<ByteSize, QuantityError> {
        let error =
            QuantityError { text: text.to_owned(), what: "size", example: "512 KiB, 64 MiB or 10 GiB" };
        let (thousandths, unit) = split(text).ok_or(error.clone())?;
        let shift = match unit {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return Err(error),
        };
        thousandths.checked_mul(1 << shift).map(|value| ByteSize(value / 1000)).ok_or(error)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.iter().find(|(shift, _)| self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift)) {
            Some((shift, name)) => write!(f, "{} {name}", self.0 >> shift),
            None => write!(f, "{} B", self.0),
        }
    }
}

quantity!(ByteSize);

#[cfg(test)]
mod tests {
    use super::*;

    /// What people write is understood and printed the short way; the rest is refused with an example.
    #[test]
    fn quantities() {
        for (text, millis, printed) in [
            ("500ms", 500, "500ms"),
            ("1.5 s", 1500, "1500ms"),
            ("120s", 120_000, "2min"),
            ("7d", 604_800_000, "7d"),
        ] {
            let period: Period = text.parse().unwrap();
            assert_eq!((period.millis(), period.to_string().as_str()), (millis, printed));
            assert_eq!(printed.parse(), Ok(period));
        }
        for (text, bytes, printed) in
            [("64 MiB", 64 << 20, "64 MiB"), ("1.5KiB", 1536, "1536 B"), ("7", 7, "7 B")]
        {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, printed));
        }
        for bad in ["", "5", "ms", "1 week", "1..5s", "-1s", "99999999999999999999d"] {
            assert!(bad.parse::<Period>().is_err(), "{bad}");
        }
        for bad in ["", "64 MB", "MiB", "99999999999 TiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }
}
