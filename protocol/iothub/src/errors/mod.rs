//! Errors as IoT Hub tells them: a number, a name, an HTTP status, and a body that the SDKs can take apart.
//!
//! Every front end maps its own errors to an [`ErrorCode`]. HTTP sends [`http_body`] with the header
//! `iothub-errorcode: {name}` ([`ErrorCode::name`]): the .NET SDK compares the two.
//!
//! Not here: AMQP conditions and MQTT return codes, which belong to those protocols.

mod code;

use serde::Serialize;

pub use self::code::ErrorCode;

/// The header that repeats the name of the code.
pub const ERROR_CODE_HEADER: &str = "iothub-errorcode";

/// The body of an HTTP error: `{"Message":"ErrorCode:X;text","ExceptionMessage":"Tracking ID:..."}`.
///
/// Node splits the message at each `;` and .NET reads the first part, so semicolons in `text` become
/// commas.
pub fn http_body(code: ErrorCode, text: &str, tracking_id: &str) -> String {
    let body = HttpBody {
        message: format!("ErrorCode:{};{}", code.name(), text.replace(';', ",")),
        exception_message: format!("Tracking ID:{tracking_id}"),
    };
    serde_json::to_string(&body).expect("strings always have a JSON form")
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct HttpBody {
    message: String,
    exception_message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_split_as_the_sdks_do() {
        let body = http_body(ErrorCode::DeviceNotFound, "device 'a;b\"' unknown; sorry", "f00-G:0");
        assert_eq!(
            body,
            "{\"Message\":\"ErrorCode:DeviceNotFound;device 'a,b\\\"' unknown, sorry\",\
             \"ExceptionMessage\":\"Tracking ID:f00-G:0\"}"
        );
        let parsed: serde_json::Value = serde_json::from_str(&body).unwrap();
        let parts: Vec<&str> = parsed["Message"].as_str().unwrap().split(';').collect();
        assert_eq!(parts, ["ErrorCode:DeviceNotFound", "device 'a,b\"' unknown, sorry"]);
    }
}
