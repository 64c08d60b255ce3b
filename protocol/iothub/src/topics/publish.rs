//! What a device published to.

use super::TopicError;
use crate::limits;
use crate::names::Identity;

/// The topic of a PUBLISH, taken apart. Borrows from the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceTopic<'a> {
    /// `devices/{d}[/modules/{m}]/messages/events[/{bag}]`: a message.
    Telemetry {
        /// For [`bag::parse_into`](crate::bag::parse_into), as it stands there.
        bag: &'a str,
    },
    /// `$iothub/twin/GET/?$rid={rid}`: the device wants its twin.
    TwinGet {
        /// To be echoed.
        rid: &'a str,
    },
    /// `$iothub/twin/PATCH/properties/reported/?$rid={rid}[&$version={v}]`: a patch of reported
    /// properties.
    TwinReported {
        /// To be echoed.
        rid: &'a str,
        /// The version that the patch is meant for, if it is conditional.
        if_version: Option<u64>,
    },
    /// `$iothub/methods/res/{status}/?$rid={rid}`: the answer to a method.
    MethodResponse {
        /// The device's own status.
        status: i32,
        /// The request that it answers.
        rid: &'a str,
    },
}

/// Takes the topic of a PUBLISH apart. Answers only for topics of `identity` itself.
pub fn parse_publish<'a>(topic: &'a str, identity: Identity<'_>) -> Result<DeviceTopic<'a>, TopicError> {
    if topic.len() > limits::TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong { bytes: topic.len(), limit: limits::TOPIC_BYTES_MAX });
    }
    match topic.strip_prefix("devices/") {
        Some(rest) => telemetry(rest, identity),
        None => match topic.strip_prefix("$iothub/") {
            Some(rest) => request(rest),
            None => Err(TopicError::Unknown),
        },
    }
}

/// The hot path: four comparisons of prefixes and no copy.
fn telemetry<'a>(rest: &'a str, identity: Identity<'_>) -> Result<DeviceTopic<'a>, TopicError> {
    let rest = after_identity(rest, identity).ok_or(TopicError::OtherIdentity)?;
    match rest.strip_prefix("messages/events").ok_or_else(|| other_or_unknown(rest))? {
        "" => Ok(DeviceTopic::Telemetry { bag: "" }),
        tail => match tail.strip_prefix('/') {
            Some(bag) => Ok(DeviceTopic::Telemetry { bag }),
            None => Err(TopicError::Unknown),
        },
    }
}

/// What follows the identity's own segments, and the `/` behind them, in a topic after `devices/`.
pub(super) fn after_identity<'a>(rest: &'a str, identity: Identity<'_>) -> Option<&'a str> {
    let rest = rest.strip_prefix(identity.device)?.strip_prefix('/')?;
    match identity.module {
        None => Some(rest),
        Some(module) => rest.strip_prefix("modules/")?.strip_prefix(module)?.strip_prefix('/'),
    }
}

/// `rest` follows the identity. A module of this device is another identity.
pub(super) fn other_or_unknown(rest: &str) -> TopicError {
    if rest.starts_with("modules/") { TopicError::OtherIdentity } else { TopicError::Unknown }
}

fn request(rest: &str) -> Result<DeviceTopic<'_>, TopicError> {
    if let Some(query) = rest.strip_prefix("twin/GET/?") {
        return Ok(DeviceTopic::TwinGet { rid: Query::read(query)?.rid });
    }
    if let Some(query) = rest.strip_prefix("twin/PATCH/properties/reported/?") {
        let query = Query::read(query)?;
        return Ok(DeviceTopic::TwinReported { rid: query.rid, if_version: query.version });
    }
    let answer = rest.strip_prefix("methods/res/").ok_or(TopicError::Unknown)?;
    let (status, query) = answer.split_once("/?").ok_or(TopicError::Unknown)?;
    let status = parse_status(status).ok_or(TopicError::BadStatus)?;
    Ok(DeviceTopic::MethodResponse { status, rid: Query::read(query)?.rid })
}

/// A decimal number, perhaps negative; `i32::from_str` would also take a `+`.
fn parse_status(text: &str) -> Option<i32> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// The parameters behind the `?`. Others than these two are ignored.
struct Query<'a> {
    rid: &'a str,
    version: Option<u64>,
}

impl<'a> Query<'a> {
    fn read(text: &'a str) -> Result<Query<'a>, TopicError> {
        let mut rid = None;
        let mut version = None;
        for pair in text.split('&') {
            if let Some(value) = pair.strip_prefix("$rid=") {
                rid = rid.or(Some(value));
            } else if let Some(value) = pair.strip_prefix("$version=") {
                version = version.or(Some(parse_version(value)?));
            }
        }
        let is_usable = |rid: &&str| !rid.is_empty() && rid.len() <= limits::RID_BYTES_MAX;
        Ok(Query { rid: rid.filter(is_usable).ok_or(TopicError::BadRequestId)?, version })
    }
}

fn parse_version(text: &str) -> Result<u64, TopicError> {
    if text.starts_with('+') {
        return Err(TopicError::BadVersion);
    }
    text.parse().map_err(|_| TopicError::BadVersion)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEVICE: Identity<'_> = Identity { device: "A", module: None };
    const MODULE: Identity<'_> = Identity { device: "A", module: Some("m") };

    #[test]
    fn telemetry_of_oneself() {
        for (topic, bag) in [
            ("devices/A/messages/events", ""),
            ("devices/A/messages/events/", ""),
            ("devices/A/messages/events/k=v", "k=v"),
            ("devices/A/messages/events/k=v/", "k=v/"),
            ("devices/A/messages/events/$.ct=application/json", "$.ct=application/json"),
            ("devices/A/messages/events/?k=v", "?k=v"),
            ("devices/A/messages/events/messages/events/", "messages/events/"),
        ] {
            assert_eq!(parse_publish(topic, DEVICE), Ok(DeviceTopic::Telemetry { bag }), "{topic}");
            let topic = topic.replacen("devices/A/", "devices/A/modules/m/", 1);
            assert_eq!(parse_publish(&topic, MODULE), Ok(DeviceTopic::Telemetry { bag }), "{topic}");
        }
    }

    #[test]
    fn telemetry_of_others_is_refused() {
        let other = Err(TopicError::OtherIdentity);
        for topic in [
            "devices/B/messages/events/",
            "devices/AA/messages/events/",
            "devices/a/messages/events/",
            "devices/A",
            "devices/A%2F/messages/events/",
            "devices/%41/messages/events/",
            "devices//messages/events/",
            "devices/A/modules/m/messages/events/",
        ] {
            assert_eq!(parse_publish(topic, DEVICE), other, "{topic}");
        }
        for topic in [
            "devices/A/messages/events/",
            "devices/A/modules/m2/messages/events/",
            "devices/A/modules/M/messages/events/",
            "devices/A/Modules/m/messages/events/",
            "devices/B/modules/m/messages/events/",
        ] {
            assert_eq!(parse_publish(topic, MODULE), other, "{topic}");
        }
        // Two ids that some decoder could take for one another.
        let twin = Identity::of_device("A%2Fmodules%2Fm");
        assert_eq!(parse_publish("devices/A/modules/m/messages/events/", twin), other);
        assert_eq!(parse_publish("devices/A%2Fmodules%2Fm/messages/events/", MODULE), other);
    }

    #[test]
    fn requests() {
        let topics = [
            ("$iothub/twin/GET/?$rid=1", DeviceTopic::TwinGet { rid: "1" }),
            ("$iothub/twin/GET/?$rid=ab%20-c", DeviceTopic::TwinGet { rid: "ab%20-c" }),
            ("$iothub/twin/GET/?x=1&$rid=2&$rid=3", DeviceTopic::TwinGet { rid: "2" }),
            (
                "$iothub/twin/PATCH/properties/reported/?$rid=7",
                DeviceTopic::TwinReported { rid: "7", if_version: None },
            ),
            (
                "$iothub/twin/PATCH/properties/reported/?$rid=7&$version=18446744073709551615",
                DeviceTopic::TwinReported { rid: "7", if_version: Some(u64::MAX) },
            ),
            ("$iothub/methods/res/200/?$rid=g-1", DeviceTopic::MethodResponse { status: 200, rid: "g-1" }),
            ("$iothub/methods/res/-5/?$rid=1", DeviceTopic::MethodResponse { status: -5, rid: "1" }),
        ];
        for (topic, expected) in topics {
            assert_eq!(parse_publish(topic, DEVICE), Ok(expected), "{topic}");
            assert_eq!(parse_publish(topic, MODULE), Ok(expected), "{topic}");
        }
    }

    #[test]
    fn malformed_topics_are_refused() {
        let long_rid = format!("$iothub/twin/GET/?$rid={}", "1".repeat(257));
        for (topic, error) in [
            ("", TopicError::Unknown),
            ("telemetry", TopicError::Unknown),
            ("/devices/A/messages/events/", TopicError::Unknown),
            ("Devices/A/messages/events/", TopicError::Unknown),
            ("devices/A/", TopicError::Unknown),
            ("devices/A/messages/eventsx", TopicError::Unknown),
            ("devices/A/messages/Events/", TopicError::Unknown),
            ("devices/A/messages/devicebound/", TopicError::Unknown),
            ("$iothub/twin/GET", TopicError::Unknown),
            ("$iothub/twin/GET?$rid=1", TopicError::Unknown),
            ("$iothub/twin/get/?$rid=1", TopicError::Unknown),
            ("$iothub/twin/res/200/?$rid=1", TopicError::Unknown),
            ("$iothub/twin/PATCH/properties/desired/?$rid=1", TopicError::Unknown),
            ("$iothub/methods/POST/x/?$rid=1", TopicError::Unknown),
            ("$iothub/methods/res/200", TopicError::Unknown),
            ("$iothub/twin/GET/?", TopicError::BadRequestId),
            ("$iothub/twin/GET/?$rid=", TopicError::BadRequestId),
            ("$iothub/twin/GET/?rid=1", TopicError::BadRequestId),
            (&long_rid, TopicError::BadRequestId),
            ("$iothub/methods/res//?$rid=1", TopicError::BadStatus),
            ("$iothub/methods/res/ok/?$rid=1", TopicError::BadStatus),
            ("$iothub/methods/res/+200/?$rid=1", TopicError::BadStatus),
            ("$iothub/methods/res/2147483648/?$rid=1", TopicError::BadStatus),
            ("$iothub/twin/PATCH/properties/reported/?$rid=1&$version=", TopicError::BadVersion),
            ("$iothub/twin/PATCH/properties/reported/?$rid=1&$version=-1", TopicError::BadVersion),
            ("$iothub/twin/PATCH/properties/reported/?$rid=1&$version=+1", TopicError::BadVersion),
            (
                "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=18446744073709551616",
                TopicError::BadVersion,
            ),
        ] {
            assert_eq!(parse_publish(topic, DEVICE), Err(error), "{topic}");
        }
    }

    #[test]
    fn the_longest_topic_is_read_and_no_longer_one() {
        let topic = format!("devices/A/messages/events/{}", "x".repeat(65_535 - 26));
        assert_eq!(parse_publish(&topic, DEVICE), Ok(DeviceTopic::Telemetry { bag: &topic[26..] }));
        let error = TopicError::TooLong { bytes: 65_536, limit: 65_535 };
        assert_eq!(parse_publish(&(topic + "x"), DEVICE), Err(error));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), tail in "[$ridvers=&?/0-9é]{0,40}") {
            let _ = parse_publish(&text, MODULE);
            for prefix in ["devices/A", "devices/A/modules/m", "$iothub/twin/GET/?", "$iothub/methods/res/"] {
                let _ = parse_publish(&format!("{prefix}{tail}"), MODULE);
                let _ = parse_publish(&format!("{prefix}{tail}"), DEVICE);
            }
        }
    }
}
