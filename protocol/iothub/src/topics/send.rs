//! Topics that we publish to, appended to a string that the caller reuses.

use std::fmt::Write as _;

use serde::Serialize;

use crate::bag::{self, SystemProperty};
use crate::names::Identity;
use crate::percent;

/// Appends `devices/{d}[/modules/{m}]/messages/devicebound/{bag}`.
///
/// The bag begins with `$.to`, made here from the identity: the .NET client closes the connection at an
/// empty bag. A `To` among `system` is left out for it.
pub fn command_topic(
    out: &mut String,
    identity: &Identity<'_>,
    system: &[(SystemProperty, &str)],
    application: &[(&str, &str)],
) {
    identity_prefix(out, identity);
    out.push_str("messages/devicebound/%24.to=");
    let mut to = String::from("/");
    identity_prefix(&mut to, identity);
    to.push_str("messages/deviceBound");
    percent::encode_into(out, &to);
    for &property in system.iter().filter(|(property, _)| *property != SystemProperty::To) {
        bag::write_after(out, "&", &[property], &[]);
    }
    bag::write_after(out, "&", &[], application);
}

/// Appends `devices/{d}/modules/{m}/inputs/{input}/{bag}`. The `/` behind the input is there even when
/// the bag is empty: Node and C need it. The input's name is escaped.
pub fn input_topic(
    out: &mut String,
    device: &str,
    module: &str,
    input: &str,
    system: &[(SystemProperty, &str)],
    application: &[(&str, &str)],
) {
    identity_prefix(out, &Identity::of_module(device, module));
    out.push_str("inputs/");
    percent::encode_into(out, input);
    out.push('/');
    bag::write(out, system, application);
}

/// Appends `$iothub/methods/POST/{name}/?$rid={rid}`. Nothing may follow the request id.
///
/// `name` is escaped, which changes nothing for names that
/// [`check_method_name`](crate::names::check_method_name) took. `rid` is the caller's: letters, digits
/// and `-`, as the Python SDK escapes and splits it on its way back.
pub fn method_request_topic(out: &mut String, name: &str, rid: &str) {
    out.push_str("$iothub/methods/POST/");
    percent::encode_into(out, name);
    out.push_str("/?$rid=");
    out.push_str(rid);
}

/// Appends `$iothub/twin/res/{status}/?$rid={rid}[&$version={version}]`. The status has three digits
/// (Java wants exactly so many), the request id stands first and as it came.
pub fn twin_response_topic(out: &mut String, status: u16, rid: &str, version: Option<u64>) {
    append(out, format_args!("$iothub/twin/res/{status:03}/?$rid={rid}"));
    if let Some(version) = version {
        append(out, format_args!("&$version={version}"));
    }
}

/// Appends `$iothub/twin/PATCH/properties/desired/?$version={version}`.
pub fn desired_topic(out: &mut String, version: u64) {
    append(out, format_args!("$iothub/twin/PATCH/properties/desired/?$version={version}"));
}

/// The payload of a twin answer that isn't a success. Node looks at nothing but `errorCode` and
/// `message`, not even at the status.
pub fn error_body(code: u32, tracking_id: &str, message: &str, timestamp_utc: &str) -> String {
    let body = ErrorBody { error_code: code, tracking_id, message, timestamp_utc };
    serde_json::to_string(&body).expect("numbers and strings always have a JSON form")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody<'a> {
    error_code: u32,
    tracking_id: &'a str,
    message: &'a str,
    timestamp_utc: &'a str,
}

/// Appends `devices/{d}/` or `devices/{d}/modules/{m}/`, ids as they are.
pub(super) fn identity_prefix(out: &mut String, identity: &Identity<'_>) {
    out.push_str("devices/");
    out.push_str(identity.device);
    if let Some(module) = identity.module {
        out.push_str("/modules/");
        out.push_str(module);
    }
    out.push('/');
}

fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::{Subscription, write_filter};

    fn made(make: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        make(&mut out);
        out
    }

    #[test]
    fn commands_always_say_where_they_go() {
        let device = Identity::of_device("d%1");
        let bare = made(|out| command_topic(out, &device, &[], &[]));
        assert_eq!(
            bare,
            "devices/d%1/messages/devicebound/%24.to=%2Fdevices%2Fd%251%2Fmessages%2FdeviceBound"
        );
        let system = &[
            (SystemProperty::MessageId, "m/1"),
            (SystemProperty::To, "forged"),
            (SystemProperty::SequenceNumber, "1"),
            (SystemProperty::Ack, "full"),
        ];
        let full = made(|out| command_topic(out, &device, system, &[("a b", "c=d"), ("$.to", "forged")]));
        assert_eq!(full, bare + "&%24.mid=m%2F1&iothub-ack=full&a%20b=c%3Dd");
        let module = made(|out| command_topic(out, &Identity::of_module("d", "m"), &[], &[]));
        let bag = "%24.to=%2Fdevices%2Fd%2Fmodules%2Fm%2Fmessages%2FdeviceBound";
        assert_eq!(module, format!("devices/d/modules/m/messages/devicebound/{bag}"));
    }

    #[test]
    fn inputs_end_in_a_slash_and_a_bag() {
        let sender = &[(SystemProperty::ConnectionDeviceId, "s"), (SystemProperty::ConnectionModuleId, "t")];
        let topic = made(|out| input_topic(out, "d", "m", "in/1", sender, &[("k", "")]));
        assert_eq!(topic, "devices/d/modules/m/inputs/in%2F1/%24.cdid=s&%24.cmid=t&k=");
        let empty = made(|out| input_topic(out, "d", "m", "in", &[], &[]));
        assert_eq!(empty, "devices/d/modules/m/inputs/in/");
    }

    #[test]
    fn requests_and_answers() {
        let method = made(|out| method_request_topic(out, "re-boot_1", "ab-1"));
        assert_eq!(method, "$iothub/methods/POST/re-boot_1/?$rid=ab-1");
        let hostile = made(|out| method_request_topic(out, "a/?$rid=9&#", "1"));
        assert_eq!(hostile, "$iothub/methods/POST/a%2F%3F%24rid%3D9%26%23/?$rid=1");
        let get = made(|out| twin_response_topic(out, 200, "a%20b", None));
        assert_eq!(get, "$iothub/twin/res/200/?$rid=a%20b");
        let patch = made(|out| twin_response_topic(out, 4, "7", Some(u64::MAX)));
        assert_eq!(patch, "$iothub/twin/res/004/?$rid=7&$version=18446744073709551615");
        let desired = made(|out| desired_topic(out, 5));
        assert_eq!(desired, "$iothub/twin/PATCH/properties/desired/?$version=5");
    }

    /// Each topic lies below the filter that asks for it.
    #[test]
    fn topics_are_below_their_filters() {
        let (device, module) = (Identity::of_device("d"), Identity::of_module("d", "m"));
        for (subscription, identity, topic) in [
            (Subscription::Commands, device, made(|out| command_topic(out, &device, &[], &[]))),
            (Subscription::ModuleCommands, module, made(|out| command_topic(out, &module, &[], &[]))),
            (Subscription::Inputs, module, made(|out| input_topic(out, "d", "m", "i", &[], &[]))),
            (Subscription::ModuleAll, module, made(|out| input_topic(out, "d", "m", "i", &[], &[]))),
            (Subscription::Methods, device, made(|out| method_request_topic(out, "n", "1"))),
            (Subscription::TwinResponses, device, made(|out| twin_response_topic(out, 200, "1", None))),
            (Subscription::DesiredChanges, module, made(|out| desired_topic(out, 1))),
        ] {
            let filter = made(|out| write_filter(out, subscription, identity));
            assert!(topic.starts_with(filter.strip_suffix('#').unwrap()), "{topic} {filter}");
        }
    }

    #[test]
    fn errors_are_json_in_a_fixed_order() {
        let body = error_body(400_004, "t\"1", "too\ndeep", "2026-11-24T06:15:38.0000000Z");
        assert_eq!(
            body,
            "{\"errorCode\":400004,\"trackingId\":\"t\\\"1\",\"message\":\"too\\ndeep\",\
             \"timestampUtc\":\"2026-11-24T06:15:38.0000000Z\"}"
        );
    }
}
