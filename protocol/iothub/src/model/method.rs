//! Direct methods: what a service asks of a device, and what comes back.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::limits;

/// A request to call a method.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudToDeviceMethod {
    /// The method's name; see [`check_method_name`](crate::names::check_method_name).
    pub method_name: String,
    /// Any JSON, as the text that came; `None` for null and for nothing.
    #[serde(default)]
    pub payload: Option<Box<RawValue>>,
    /// Seconds that the device has for its answer.
    #[serde(default = "response_secs_default", deserialize_with = "response_secs")]
    pub response_timeout_in_seconds: u32,
    /// Seconds to wait for a device that isn't connected; 0 doesn't wait.
    #[serde(default, deserialize_with = "super::values::null_default")]
    pub connect_timeout_in_seconds: u32,
}

impl CloudToDeviceMethod {
    /// What the device gets: the payload, or `null`, as Node can't take an empty one.
    pub fn payload_text(&self) -> &str {
        self.payload.as_ref().map_or("null", |payload| payload.get())
    }
}

fn response_secs_default() -> u32 {
    limits::METHOD_RESPONSE_SECS_DEFAULT
}

fn response_secs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(response_secs_default))
}

/// What a device answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudToDeviceMethodResult {
    /// The device's own status.
    pub status: i32,
    /// Its JSON, as the text that came; `None` is written as null.
    #[serde(default)]
    pub payload: Option<Box<RawValue>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_with_tolerance() {
        let full: CloudToDeviceMethod = serde_json::from_str(
            "{\"methodName\":\"m\",\"payload\":{\"z\": 1.0,\"a\":[]},\"responseTimeoutInSeconds\":5,\
             \"connectTimeoutInSeconds\":7,\"more\":0}",
        )
        .unwrap();
        assert_eq!(full.payload_text(), "{\"z\": 1.0,\"a\":[]}");
        assert_eq!((full.response_timeout_in_seconds, full.connect_timeout_in_seconds), (5, 7));
        for text in [
            "{\"methodName\":\"m\"}",
            "{\"methodName\":\"m\",\"payload\":null,\"responseTimeoutInSeconds\":null,\
             \"connectTimeoutInSeconds\":null}",
        ] {
            let bare: CloudToDeviceMethod = serde_json::from_str(text).unwrap();
            assert_eq!(bare.payload_text(), "null");
            assert_eq!((bare.response_timeout_in_seconds, bare.connect_timeout_in_seconds), (30, 0));
        }
        for text in ["{}", "{\"methodName\":null}", "{\"methodName\":\"m\",\"responseTimeoutInSeconds\":-1}"]
        {
            assert!(serde_json::from_str::<CloudToDeviceMethod>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn results_have_both_fields() {
        let payload = Some(RawValue::from_string("[1.0, 2]".to_owned()).unwrap());
        let result = CloudToDeviceMethodResult { status: -1, payload };
        assert_eq!(serde_json::to_string(&result).unwrap(), "{\"status\":-1,\"payload\":[1.0, 2]}");
        let empty = CloudToDeviceMethodResult { status: 200, payload: None };
        assert_eq!(serde_json::to_string(&empty).unwrap(), "{\"status\":200,\"payload\":null}");
    }
}
