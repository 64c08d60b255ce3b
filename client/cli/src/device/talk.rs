//! What a service says to a device: methods, and messages that wait for it.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fleetline_iothub::bag::SystemProperty;
use fleetline_iothub::limits::C2D_MESSAGE_BYTES_MAX;
use fleetline_iothub::time::format_time;
use http::{HeaderName, Method};
use serde_json::{Value, json};

use super::{Ack, InvokeArgs, SendArgs, json_argument, place};
use crate::CliError;
use crate::rest::{Call, Rest};

/// What the names of application properties begin with in HTTP.
const APPLICATION_PREFIX: &str = "iothub-app-";

/// Calls a method; gives the device's status and payload.
pub(super) async fn invoke(rest: &mut Rest, args: &InvokeArgs) -> Result<Value, CliError> {
    let payload = args.payload.as_deref().map(|text| json_argument("payload", text)).transpose()?;
    let body = json!({
        "methodName": args.method,
        "payload": payload.unwrap_or(Value::Null),
        "responseTimeoutInSeconds": args.timeout,
        "connectTimeoutInSeconds": args.connect_timeout,
    });
    let mut place = place("twins", &args.id, args.module.as_deref());
    place.push("methods");
    let waits = Duration::from_secs((args.timeout + args.connect_timeout).into());
    rest.call(Call::new(Method::POST, &place).json(&body).hub_waits(waits)).await?.json()
}

/// Leaves a message; gives what is to be printed.
pub(super) async fn send(rest: &mut Rest, args: &SendArgs) -> Result<String, CliError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let reply = rest.call(message(args, now.as_millis() as u64)?).await?;
    let id = reply.header("iothub-messageid").or(args.message_id.as_deref()).unwrap_or("-");
    Ok(format!("message {id} waits for {}", args.id))
}

fn message(args: &SendArgs, now_ms: u64) -> Result<Call, CliError> {
    let mut place = place("devices", &args.id, args.module.as_deref());
    place.extend(["messages", "devicebound"]);
    let mut call = Call::new(Method::POST, &place).bytes(body(args)?);
    let expiry = args.expires.map(|seconds| format_time(now_ms.saturating_add(seconds.saturating_mul(1000))));
    let ack = match args.ack {
        Ack::None => None,
        Ack::Positive => Some("positive".to_owned()),
        Ack::Negative => Some("negative".to_owned()),
        Ack::Full => Some("full".to_owned()),
    };
    for (property, value) in [
        (SystemProperty::MessageId, args.message_id.clone()),
        (SystemProperty::ContentType, args.content_type.clone()),
        (SystemProperty::Ack, ack),
        (SystemProperty::Expiry, expiry),
    ] {
        if let (Some(name), Some(value)) = (property.http_header(), value) {
            call = call.header(HeaderName::from_static(name), &value)?;
        }
    }
    for (name, value) in &args.property {
        call = call.header(property_header(name).map_err(CliError::Usage)?, value)?;
    }
    Ok(call)
}

/// The header of an application property.
pub(super) fn property_header(name: &str) -> Result<HeaderName, String> {
    let header = HeaderName::try_from(format!("{APPLICATION_PREFIX}{name}"));
    header.ok().filter(|_| !name.is_empty()).ok_or_else(|| {
        format!("{name:?} is no name that HTTP can carry: letters, digits and -_.~!#$%&'*+^`| can")
    })
}

fn body(args: &SendArgs) -> Result<Bytes, CliError> {
    let Some(file) = &args.file else {
        return Ok(args.body.clone().unwrap_or_default().into());
    };
    let wrong = |error| CliError::Failed(format!("{} can't be read: {error}", file.display()));
    let mut bytes = Vec::new();
    // One more than a message may have: the hub would refuse it anyway, and a file may be huge.
    let limit = C2D_MESSAGE_BYTES_MAX as u64 + 1;
    let read = match file.as_path() == Path::new("-") {
        true => std::io::stdin().lock().take(limit).read_to_end(&mut bytes),
        false => std::fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes)),
    };
    match read.map_err(wrong)? {
        count if count > C2D_MESSAGE_BYTES_MAX => Err(CliError::Failed(format!(
            "{} is longer than a message may be, {C2D_MESSAGE_BYTES_MAX} bytes\nhint: let the message name a place \
             from where the device fetches it",
            file.display()
        ))),
        _ => Ok(bytes.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parsed;
    use super::*;
    use crate::fake::{FakeHub, said};

    /// A call goes out with both times; what the device says comes back whole.
    #[tokio::test]
    async fn methods() {
        let answer = r#"{"status":404,"payload":{"why":"no such thing"}}"#;
        let mut hub =
            FakeHub::start(vec![said(200, answer), said(200, "{\"status\":200,\"payload\":null}")]).await;
        let mut rest = hub.rest();
        let line =
            ["d", "setPoint", "{\"c\": 21}", "--timeout", "10", "--connect-timeout", "60", "--module", "m"];
        let result = invoke(&mut rest, &parsed(&line)).await.unwrap();
        assert_eq!(result, serde_json::from_str::<Value>(answer).unwrap());
        let asked = hub.asked().await;
        assert_eq!(asked.line, "POST /twins/d/modules/m/methods?api-version=2021-04-12");
        let body = json!({"methodName": "setPoint", "payload": {"c": 21}, "responseTimeoutInSeconds": 10,
            "connectTimeoutInSeconds": 60});
        assert_eq!(asked.json(), body);
        invoke(&mut rest, &parsed(&["d", "reboot"])).await.unwrap();
        let asked = hub.asked().await;
        assert_eq!(asked.line, "POST /twins/d/methods?api-version=2021-04-12");
        assert_eq!(asked.json()["payload"], Value::Null);
    }

    /// A device that isn't there has done nothing; one that didn't answer may have.
    #[tokio::test]
    async fn silent_devices() {
        let hub = FakeHub::start(vec![
            said(404, r#"{"Message":"ErrorCode:DeviceNotOnline;device d is not online"}"#),
            said(504, r#"{"Message":"ErrorCode:GatewayTimeout;no answer in 30 s"}"#),
        ])
        .await;
        let mut rest = hub.rest();
        let away = invoke(&mut rest, &parsed(&["d", "m"])).await.unwrap_err();
        assert_eq!(away.exit_code(), 1);
        assert!(away.to_string().contains("--connect-timeout"), "{away}");
        let silent = invoke(&mut rest, &parsed(&["d", "m"])).await.unwrap_err();
        assert_eq!(silent.exit_code(), 3);
        let error = invoke(&mut rest, &parsed(&["d", "m", "{a}"])).await.unwrap_err();
        assert!(error.to_string().starts_with("payload is not JSON"), "{error}");
    }

    /// Properties travel as headers, the body as it is; the hub says which id the message has.
    #[tokio::test]
    async fn messages() {
        let made = said(201, "").with("iothub-messageid", "made-by-hub");
        let mut hub = FakeHub::start(vec![made, said(201, "")]).await;
        let mut rest = hub.rest();
        let line = send(&mut rest, &parsed(&["d", "hello"])).await.unwrap();
        assert_eq!(line, "message made-by-hub waits for d");
        let asked = hub.asked().await;
        assert_eq!(asked.line, "POST /devices/d/messages/devicebound?api-version=2021-04-12");
        assert_eq!(asked.body, b"hello");
        assert!(
            asked.headers.keys().all(|name| !name.as_str().starts_with("iothub-")),
            "{:?}",
            asked.headers
        );

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\x00\xff").unwrap();
        let path = file.path().to_str().unwrap();
        let args = parsed(&[
            "d",
            "--file",
            path,
            "--module",
            "m",
            "--message-id",
            "7",
            "--ack",
            "full",
            "--property",
            "a=b=c",
            "--property",
            "town=Zürich",
            "--content-type",
            "text/x",
        ]);
        assert_eq!(send(&mut rest, &args).await.unwrap(), "message 7 waits for d");
        let asked = hub.asked().await;
        assert_eq!(asked.line, "POST /devices/d/modules/m/messages/devicebound?api-version=2021-04-12");
        assert_eq!(asked.body, b"\x00\xff");
        for (name, value) in [
            ("iothub-messageid", "7"),
            ("iothub-ack", "full"),
            ("iothub-contenttype", "text/x"),
            ("iothub-app-a", "b=c"),
            ("iothub-app-town", "Zürich"),
        ] {
            assert_eq!(asked.header(name), value, "{name}");
        }
    }

    /// Seconds from now become a moment; what is too long for a message is refused here.
    #[tokio::test]
    async fn limits() {
        let mut hub = FakeHub::start(vec![said(201, "")]).await;
        let call = message(&parsed(&["d", "x", "--expires", "60"]), 951_827_445_250).unwrap();
        hub.rest().call(call).await.unwrap();
        assert_eq!(hub.asked().await.header("iothub-expiry"), "2000-02-29T12:31:45.2500000Z");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![0; C2D_MESSAGE_BYTES_MAX + 1]).unwrap();
        let args = parsed(&["d", "--file", file.path().to_str().unwrap()]);
        assert!(message(&args, 0).unwrap_err().to_string().contains("65536 bytes"));
    }
}
