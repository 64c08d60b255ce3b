//! The rules for topic names and topic filters.
//!
//! Decoding calls these for every topic; the broker calls them for topics from elsewhere. Matching a
//! name against a filter is the broker's.

use thiserror::Error;

use crate::error::FILTER;
use crate::packet::Context;
use crate::reader::Reader;
use crate::{DecodeError, Limits};

/// The bytes that the standards allow in a topic (a length of two bytes).
const TOPIC_BYTES_MAX: usize = 65_535;

/// The beginning of a shared subscription's filter, MQTT 5 section 4.8.2.
const SHARE: &str = "$share/";

/// A rule that a topic name or filter breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TopicError {
    /// No characters.
    #[error("it is empty")]
    Empty,
    /// More than 65,535 bytes.
    #[error("it has {bytes} bytes, at most 65535 are allowed")]
    TooLong {
        /// Its bytes.
        bytes: usize,
    },
    /// The character U+0000.
    #[error("it holds the character u+0000")]
    Nul,
    /// `+` or `#` in a topic name.
    #[error("a topic name holds a wildcard")]
    Wildcard,
    /// `#` that isn't the whole last level, or `+` that isn't a whole level.
    #[error("a wildcard of a filter does not fill its level or # is not last")]
    WildcardPlace,
    /// `$share/` without a group name and a filter behind it, or with wildcards in the name.
    #[error("a shared subscription needs a group name without wildcards and a filter")]
    ShareName,
}

impl TopicError {
    /// Whether only filters can break this rule.
    pub(crate) fn is_filter_fault(self) -> bool {
        matches!(self, TopicError::WildcardPlace | TopicError::ShareName)
    }
}

/// Checks a topic name, to which messages are published.
///
/// [MQTT-3.3.2-2], [MQTT-4.7.1-1], [MQTT5-3.3.2-2], [MQTT5-4.7.0-1]: no wildcards.
pub fn validate_topic_name(topic: &str) -> Result<(), TopicError> {
    check_length(topic)?;
    let mut nul = false;
    let mut wildcard = false;
    // No early exit, so that the compiler may look at many bytes at once.
    for byte in topic.bytes() {
        nul |= byte == 0;
        wildcard |= byte == b'+' || byte == b'#';
    }
    match (nul, wildcard) {
        (true, _) => Err(TopicError::Nul),
        (false, true) => Err(TopicError::Wildcard),
        (false, false) => Ok(()),
    }
}

/// Checks a topic filter, to which clients subscribe. `$share/` has no meaning here, see
/// [`split_shared`].
pub fn validate_topic_filter(filter: &str) -> Result<(), TopicError> {
    check_length(filter)?;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('\0') {
            return Err(TopicError::Nul); // [MQTT-4.7.3-2], [MQTT5-4.7.3-2]
        }
        // [MQTT-4.7.1-2], [MQTT5-4.7.1-1]: # is the whole last level.
        let hash_misplaced = level.contains('#') && (level != "#" || levels.peek().is_some());
        // [MQTT-4.7.1-3], [MQTT5-4.7.1-2]: + is a whole level.
        let plus_misplaced = level.contains('+') && level != "+";
        if hash_misplaced || plus_misplaced {
            return Err(TopicError::WildcardPlace);
        }
    }
    Ok(())
}

/// Takes a shared subscription's filter `$share/group/filter` apart into group and filter (MQTT 5).
/// `Ok(None)` for a filter that doesn't begin with `$share/`. The inner filter is checked too.
pub fn split_shared(filter: &str) -> Result<Option<(&str, &str)>, TopicError> {
    let Some(shared) = filter.strip_prefix(SHARE) else { return Ok(None) };
    // [MQTT5-4.8.2-2]: the group name is followed by / and a filter.
    let (group, inner) = shared.split_once('/').ok_or(TopicError::ShareName)?;
    // [MQTT5-4.8.2-1], [MQTT5-4.8.2-2]: the group name is not empty and holds no wildcards.
    if group.is_empty() || group.contains(['+', '#']) || inner.is_empty() {
        return Err(TopicError::ShareName);
    }
    validate_topic_filter(inner)?;
    Ok(Some((group, inner)))
}

/// [MQTT-4.7.3-1], [MQTT5-4.7.3-1]: at least one character.
/// [MQTT-4.7.3-3], [MQTT5-4.7.3-3]: at most 65,535 bytes.
fn check_length(topic: &str) -> Result<(), TopicError> {
    match topic.len() {
        0 => Err(TopicError::Empty),
        bytes if bytes > TOPIC_BYTES_MAX => Err(TopicError::TooLong { bytes }),
        _ => Ok(()),
    }
}

/// Reads a topic name from a packet; `what` names the field.
pub(crate) fn read_name<'a>(
    body: &mut Reader<'a>,
    what: &'static str,
    limits: &Limits,
) -> Result<&'a str, DecodeError> {
    let topic = body.text(what)?;
    check_limit(what, topic, limits)?;
    validate_topic_name(topic).map_err(|fault| refused(what, fault))?;
    Ok(topic)
}

/// Checks a topic name that was already read as a string.
pub(crate) fn check_name(what: &'static str, topic: &str, limits: &Limits) -> Result<(), DecodeError> {
    check_limit(what, topic, limits)?;
    validate_topic_name(topic).map_err(|fault| refused(what, fault))
}

/// Reads a topic filter from a packet, and whether it is that of a shared subscription.
///
/// [MQTT-3.8.3-1], [MQTT-3.10.3-1], [MQTT5-3.8.3-1], [MQTT5-3.10.3-1]: it is UTF-8.
pub(crate) fn read_filter<'a>(
    body: &mut Reader<'a>,
    context: Context<'_>,
) -> Result<(&'a str, bool), DecodeError> {
    let filter = body.text(FILTER)?;
    check_limit(FILTER, filter, context.limits)?;
    validate_topic_filter(filter).map_err(|fault| refused(FILTER, fault))?;
    // 3.1.1 has no shared subscriptions, there `$share` is a level like others.
    let shared = context.is_v5() && split_shared(filter).map_err(|fault| refused(FILTER, fault))?.is_some();
    Ok((filter, shared))
}

fn check_limit(what: &'static str, topic: &str, limits: &Limits) -> Result<(), DecodeError> {
    if topic.len() > limits.topic_bytes_max {
        return Err(DecodeError::OverLimit { what, limit: limits.topic_bytes_max });
    }
    Ok(())
}

/// U+0000 makes any string malformed ([MQTT-1.5.3-2], [MQTT5-1.5.4-2]); the rest is about topics.
#[cold]
fn refused(what: &'static str, fault: TopicError) -> DecodeError {
    match fault {
        TopicError::Nul => DecodeError::NulCharacter { what },
        fault => DecodeError::BadTopic { what, fault },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names() {
        let long = "t".repeat(65_536);
        let cases = [
            ("devices/d1/messages/events/", Ok(())),
            ("/", Ok(())),
            ("$iothub/twin/GET/?$rid=1", Ok(())),
            ("ä/\u{feff}/\u{1f600}", Ok(())),
            (&long[..65_535], Ok(())),
            (&long[..], Err(TopicError::TooLong { bytes: 65_536 })),
            ("", Err(TopicError::Empty)),
            ("a/\0/b", Err(TopicError::Nul)),
            ("a/+/b", Err(TopicError::Wildcard)),
            ("a/b#", Err(TopicError::Wildcard)),
        ];
        for (topic, expected) in cases {
            assert_eq!(validate_topic_name(topic), expected, "{}", &topic[..topic.len().min(40)]);
        }
    }

    #[test]
    fn topic_filters() {
        let cases = [
            ("a/b", Ok(())),
            ("#", Ok(())),
            ("+", Ok(())),
            ("+/+", Ok(())),
            ("/+", Ok(())),
            ("a/#", Ok(())),
            ("a/+/#", Ok(())),
            ("$SYS/#", Ok(())),
            ("$share/g/a/+", Ok(())),
            ("", Err(TopicError::Empty)),
            ("a\0", Err(TopicError::Nul)),
            ("a#", Err(TopicError::WildcardPlace)),
            ("a/#/b", Err(TopicError::WildcardPlace)),
            ("#/", Err(TopicError::WildcardPlace)),
            ("##", Err(TopicError::WildcardPlace)),
            ("a+", Err(TopicError::WildcardPlace)),
            ("a/+b/c", Err(TopicError::WildcardPlace)),
            ("++", Err(TopicError::WildcardPlace)),
        ];
        for (filter, expected) in cases {
            assert_eq!(validate_topic_filter(filter), expected, "{filter:?}");
        }
    }

    #[test]
    fn shared_subscriptions() {
        let cases = [
            ("a/b", Ok(None)),
            ("$share", Ok(None)),
            ("$share/g/a/+", Ok(Some(("g", "a/+")))),
            ("$share/g//", Ok(Some(("g", "/")))),
            ("$share/", Err(TopicError::ShareName)),
            ("$share/g", Err(TopicError::ShareName)),
            ("$share/g/", Err(TopicError::ShareName)),
            ("$share//a", Err(TopicError::ShareName)),
            ("$share/+/a", Err(TopicError::ShareName)),
            ("$share/g#/a", Err(TopicError::ShareName)),
            ("$share/g/a#", Err(TopicError::WildcardPlace)),
        ];
        for (filter, expected) in cases {
            assert_eq!(split_shared(filter), expected, "{filter:?}");
        }
    }
}
