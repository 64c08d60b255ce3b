//! Where a consumer begins: the selector in its source's filter.

use fleetline_amqp::value::{Map, Value};
use fleetline_gateway::hub::ReadFrom;
use fleetline_types::{Offset, TimestampMs};

/// The filter's name.
const SELECTOR: &str = "apache.org:selector-filter:string";

/// Reads a filter set. No filter: from the beginning. `None`: it isn't one that is known here.
pub(crate) fn start_of(filter: Option<Map<'_>>) -> Option<ReadFrom> {
    let Some(value) = filter.and_then(|filter| filter.get(SELECTOR)) else {
        return Some(ReadFrom::Earliest);
    };
    match value {
        Value::Described(described) => parse(described.value().as_text()?),
        value => parse(value.as_text()?),
    }
}

/// Reads "exactly one comparison".
fn parse(text: &str) -> Option<ReadFrom> {
    let rest = text.trim().strip_prefix("amqp.annotation.")?;
    let (name, rest) = rest.split_once('>')?;
    let (includes, rest) = match rest.strip_prefix('=') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let value = rest.trim();
    let value = match value.strip_prefix('\'') {
        Some(quoted) => quoted.strip_suffix('\'')?,
        None => value,
    };
    let after = |number: u64| if includes { Some(number) } else { number.checked_add(1) };
    match name.trim().to_ascii_lowercase().as_str() {
        "x-opt-offset" if value == "@latest" => Some(ReadFrom::Latest),
        "x-opt-offset" | "x-opt-sequence-number" if value == "-1" => Some(ReadFrom::Earliest),
        "x-opt-offset" | "x-opt-sequence-number" => Some(ReadFrom::Offset(Offset(after(digits(value)?)?))),
        "x-opt-enqueued-time" | "x-opt-enqueuedtimeutc" => {
            // Some clients write a fraction of a millisecond, or a time before 1970.
            let whole = value.split('.').next().unwrap_or(value);
            if let Some(before) = whole.strip_prefix('-') {
                digits(before)?;
                return Some(ReadFrom::Earliest);
            }
            Some(ReadFrom::Time(TimestampMs(after(digits(whole)?)?)))
        }
        _ => None,
    }
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The forms of the SDKs, and what isn't one.
    #[test]
    fn selectors() {
        let offset = |n| Some(ReadFrom::Offset(Offset(n)));
        let time = |n| Some(ReadFrom::Time(TimestampMs(n)));
        let rows = [
            ("amqp.annotation.x-opt-offset > '-1'", Some(ReadFrom::Earliest)),
            ("amqp.annotation.x-opt-offset > '@latest'", Some(ReadFrom::Latest)),
            ("amqp.annotation.x-opt-offset > '12'", offset(13)),
            ("amqp.annotation.x-opt-offset >= '12'", offset(12)),
            ("amqp.annotation.x-opt-sequence-number >'0'", offset(1)),
            ("amqp.annotation.x-opt-sequence-number >= '0'", offset(0)),
            ("amqp.annotation.x-opt-enqueued-time > '1000'", time(1001)),
            ("amqp.annotation.x-opt-enqueuedtimeutc > 1000", time(1001)),
            ("amqp.annotation.x-opt-enqueued-time >= '1000.5'", time(1000)),
            ("amqp.annotation.x-opt-enqueued-time > '-62135596800000'", Some(ReadFrom::Earliest)),
            ("amqp.annotation.x-opt-offset > '18446744073709551615'", None),
            ("amqp.annotation.x-opt-offset > '99999999999999999999'", None),
            ("amqp.annotation.x-opt-offset > ''", None),
            ("amqp.annotation.x-opt-offset > 'x", None),
            ("amqp.annotation.x-opt-offset < '5'", None),
            ("amqp.annotation.x-opt-offset > '5' or 1=1", None),
            ("1=1", None),
            ("", None),
        ];
        for (text, from) in rows {
            assert_eq!(parse(text), from, "{text}");
        }
        assert_eq!(start_of(None), Some(ReadFrom::Earliest));
    }
}
