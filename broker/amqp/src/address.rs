//! Addresses of nodes: absolute (`amqps://host:5671/…`) or a path, literal words in any case, ids
//! percent-encoded or not.

use std::borrow::Cow;

use fleetline_devices::DeviceKey;
use fleetline_iothub::names::{check_device_id, check_module_id};

/// What belongs to a device or module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum DeviceNode {
    /// Telemetry; on a link towards a module, messages to its inputs.
    Events,
    /// Commands.
    Commands,
    /// Methods, both ways.
    Methods,
    /// The twin, both ways.
    Twin,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Where tokens are put.
    Cbs,
    /// Event Hubs management; the hub's name if the address has it.
    Management(Option<String>),
    /// Of a device or module.
    Device(DeviceKey, DeviceNode),
    /// Commands of services.
    ServiceCommands,
    /// Feedback on commands.
    Feedback,
    /// Files that devices have uploaded.
    FileNotifications,
    /// The built-in endpoint by its old name: clients are told its place.
    Redirect,
    /// A partition, read by a consumer group. No hub's name: `messages/events`.
    Partition {
        /// The hub's name, if the address has it.
        hub: Option<String>,
        /// The group, in lower case.
        group: String,
        /// The partition.
        partition: u32,
    },
    /// A hub to send to, or one partition of it.
    Send {
        /// The hub's name.
        hub: String,
        /// The partition.
        partition: Option<u32>,
    },
}

/// Bytes of a consumer group's name.
const GROUP_BYTES_MAX: usize = 128;

/// The path of an address, without scheme and host.
pub(crate) fn path_of(address: &str) -> &str {
    match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => address.trim_start_matches('/'),
    }
}

/// Decodes percent escapes once. Ids may have a `%` of their own, and some SDKs send them as they are:
/// what isn't an escape stands for itself.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| (*byte as char).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (*byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Reads an address; `None` when there is no such node.
pub(crate) fn parse(address: &str) -> Option<Address> {
    let path = path_of(address).trim_end_matches('/');
    let mut segments = Vec::with_capacity(8);
    for segment in path.split('/') {
        if segments.len() == 8 {
            return None;
        }
        segments.push(decode(segment));
    }
    let is = |at: usize, word: &str| segments.get(at).is_some_and(|found| found.eq_ignore_ascii_case(word));
    let text = |at: usize| segments[at].clone().into_owned();
    if is(0, "devices") && segments.len() >= 3 {
        return device(&segments);
    }
    if is(0, "messages") {
        return messages(&segments);
    }
    match segments.len() {
        1 if is(0, "$cbs") => Some(Address::Cbs),
        1 if is(0, "$management") => Some(Address::Management(None)),
        1 if !segments[0].is_empty() => Some(Address::Send { hub: text(0), partition: None }),
        2 if is(1, "$management") => Some(Address::Management(Some(text(0)))),
        3 if is(1, "partitions") => {
            Some(Address::Send { hub: text(0), partition: Some(number(&segments[2])?) })
        }
        5 if is(1, "consumergroups") && is(3, "partitions") => Some(Address::Partition {
            hub: Some(text(0)),
            group: group(&segments[2])?,
            partition: number(&segments[4])?,
        }),
        _ => None,
    }
}

fn device(segments: &[Cow<'_, str>]) -> Option<Address> {
    let is = |at: usize, word: &str| segments.get(at).is_some_and(|found| found.eq_ignore_ascii_case(word));
    let id = segments[1].as_ref();
    check_device_id(id).ok()?;
    let (key, rest) = if is(2, "modules") && segments.len() >= 5 {
        let module = segments[3].as_ref();
        check_module_id(module).ok()?;
        (DeviceKey::module(id, module), 4)
    } else {
        (DeviceKey::device(id), 2)
    };
    let node = match segments.len() - rest {
        1 if is(rest, "twin") => DeviceNode::Twin,
        2 if is(rest, "messages") && is(rest + 1, "events") => DeviceNode::Events,
        2 if is(rest, "messages") && is(rest + 1, "devicebound") => DeviceNode::Commands,
        2 if is(rest, "methods") && is(rest + 1, "devicebound") => DeviceNode::Methods,
        _ => return None,
    };
    Some(Address::Device(key, node))
}

fn messages(segments: &[Cow<'_, str>]) -> Option<Address> {
    let is = |at: usize, word: &str| segments.get(at).is_some_and(|found| found.eq_ignore_ascii_case(word));
    match segments.len() {
        2 if is(1, "devicebound") => Some(Address::ServiceCommands),
        3 if is(1, "servicebound") && is(2, "feedback") => Some(Address::Feedback),
        3 if is(1, "servicebound") && is(2, "filenotifications") => Some(Address::FileNotifications),
        2 | 3 if is(1, "events") && (segments.len() == 2 || is(2, "$management")) => Some(Address::Redirect),
        6 if is(1, "events") && is(2, "consumergroups") && is(4, "partitions") => Some(Address::Partition {
            hub: None,
            group: group(&segments[3])?,
            partition: number(&segments[5])?,
        }),
        _ => None,
    }
}

fn group(name: &str) -> Option<String> {
    let fits = !name.is_empty() && name.len() <= GROUP_BYTES_MAX && !name.contains(char::is_control);
    fits.then(|| name.to_ascii_lowercase())
}

/// A partition's id: decimal digits and nothing else.
pub(crate) fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The device or module of a command's `to`.
pub(crate) fn command_target(to: &str) -> Option<DeviceKey> {
    match parse(to)? {
        Address::Device(key, DeviceNode::Commands) => Some(key),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The forms of all SDKs.
    #[test]
    fn forms() {
        let device = |id: &str, node| Some(Address::Device(DeviceKey::device(id), node));
        let rows = [
            ("/devices/d/messages/events", device("d", DeviceNode::Events)),
            ("amqps://h:5671/devices/a%23b/messages/deviceBound", device("a#b", DeviceNode::Commands)),
            ("/DEVICES/D/Methods/devicebound", device("D", DeviceNode::Methods)),
            ("/devices/d/twin", device("d", DeviceNode::Twin)),
            ("/devices/5%/twin", device("5%", DeviceNode::Twin)),
            ("/devices/%ff/twin", device("%ff", DeviceNode::Twin)),
            (
                "/devices/d/modules/m/twin",
                Some(Address::Device(DeviceKey::module("d", "m"), DeviceNode::Twin)),
            ),
            ("$cbs", Some(Address::Cbs)),
            ("$management", Some(Address::Management(None))),
            ("hub/$management", Some(Address::Management(Some("hub".into())))),
            ("amqps://h/messages/deviceBound", Some(Address::ServiceCommands)),
            ("/messages/serviceBound/feedback", Some(Address::Feedback)),
            ("/messages/serviceBound/filenotifications", Some(Address::FileNotifications)),
            ("amqps://h/messages/events/$management", Some(Address::Redirect)),
            ("/messages/events/", Some(Address::Redirect)),
            ("hub", Some(Address::Send { hub: "hub".into(), partition: None })),
            ("amqps://h/hub/Partitions/3", Some(Address::Send { hub: "hub".into(), partition: Some(3) })),
            (
                "amqps://h/hub/ConsumerGroups/$Default/Partitions/12",
                Some(Address::Partition { hub: Some("hub".into()), group: "$default".into(), partition: 12 }),
            ),
            (
                "messages/events/ConsumerGroups/g/Partitions/0",
                Some(Address::Partition { hub: None, group: "g".into(), partition: 0 }),
            ),
        ];
        for (text, address) in rows {
            assert_eq!(parse(text), address, "{text}");
        }
    }

    /// What looks like a node and is none.
    #[test]
    fn wrong_forms() {
        for text in [
            "",
            "amqps://h",
            "/devices/d",
            "/devices//twin",
            "/devices/a%2Fb/twin",
            "/devices/d/modules//twin",
            "/devices/d/messages/other",
            "/devices/d/messages/events/more",
            "hub/ConsumerGroups/g/Partitions/x",
            "hub/ConsumerGroups/g/Partitions/-1",
            "hub/ConsumerGroups//Partitions/1",
            "hub/Partitions/+1",
            "hub/Partitions/99999999999",
            "a/b/c/d/e/f/g/h/i",
            "messages/other",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(command_target("/devices/d/messages/deviceBound"), Some(DeviceKey::device("d")));
        assert_eq!(command_target("/devices/d/messages/events"), None);
    }
}
