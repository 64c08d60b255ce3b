//! A device that sends made-up telemetry over HTTPS, signed with its own key.

use std::time::Duration;

use bytes::Bytes;
use fleetline_iothub::bag::SystemProperty;
use http::{HeaderName, Method};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::{SimulateArgs, identity};
use crate::CliError;
use crate::rest::{Call, Rest};

/// Sends until there are enough, or for as long as nobody stops it; tells `out` of each.
pub(super) async fn run(
    rest: &mut Rest,
    args: &SimulateArgs,
    out: &mut impl FnMut(String),
) -> Result<(), CliError> {
    let device = identity::get(rest, &args.id, None).await?;
    let key = identity::primary_key(&device).ok_or_else(|| {
        CliError::Failed(format!("{} has no key, or the policy may not see it: it can't be played", args.id))
    })?;
    let mut rest = Rest::new(rest.hub().as_device(&args.id, key)?);
    let mut ticks = interval(Duration::from_millis(args.every));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let count = args.count.unwrap_or(u64::MAX);
    for number in 0..count {
        ticks.tick().await;
        let body = telemetry(number);
        let shown = String::from_utf8_lossy(&body).into_owned();
        rest.call(event(&args.id, body)?).await?;
        out(format!("{}  {shown}", args.id));
    }
    Ok(())
}

fn event(id: &str, body: Bytes) -> Result<Call, CliError> {
    let mut call = Call::new(Method::POST, &["devices", id, "messages", "events"]).bytes(body);
    for (property, value) in
        [(SystemProperty::ContentType, "application/json"), (SystemProperty::ContentEncoding, "utf-8")]
    {
        if let Some(name) = property.http_header() {
            call = call.header(HeaderName::from_static(name), value)?;
        }
    }
    Ok(call)
}

/// A temperature that goes up and down by 4 degrees around 21, once in 60 messages.
fn telemetry(number: u64) -> Bytes {
    let turn = (number % 60) as f64 / 60.0 * std::f64::consts::TAU;
    let celsius = (21.0 + 4.0 * turn.sin()) * 10.0;
    json!({"number": number, "temperature": celsius.round() / 10.0}).to_string().into()
}

#[cfg(test)]
mod tests {
    use fleetline_iothub::sas::{SasKey, SasToken};

    use super::*;
    use crate::fake::{FakeHub, said};

    /// The registry is asked as the policy, telemetry is sent as the device.
    #[tokio::test]
    async fn speaks_as_the_device() {
        let device = r#"{"deviceId":"d","authentication":{"symmetricKey":{"primaryKey":"b25l"}}}"#;
        let mut hub = FakeHub::start(vec![said(200, device).closing(), said(204, ""), said(204, "")]).await;
        let args = SimulateArgs { id: "d".to_owned(), every: 1, count: Some(2) };
        let mut lines = Vec::new();
        run(&mut hub.rest(), &args, &mut |line| lines.push(line)).await.unwrap();
        assert_eq!(lines[0], "d  {\"number\":0,\"temperature\":21.0}");
        let token = |text: &str| SasToken::parse(text).unwrap();
        let get = hub.asked().await;
        assert_eq!(token(get.header("authorization")).policy.as_deref(), Some("iothubowner"));
        for number in 0..2 {
            let event = hub.asked().await;
            assert_eq!(event.line, "POST /devices/d/messages/events?api-version=2021-04-12");
            assert_eq!(event.json()["number"], number);
            assert_eq!(event.header("iothub-contenttype"), "application/json");
            let token = token(event.header("authorization"));
            assert!(token.verify(&SasKey::from_base64("b25l").unwrap()));
            assert_eq!((token.resource.as_str(), token.policy), ("localhost/devices/d", None));
        }
    }

    /// A device with a certificate can't be played.
    #[tokio::test]
    async fn needs_a_key() {
        let hub = FakeHub::start(vec![said(200, r#"{"authentication":{"type":"selfSigned"}}"#)]).await;
        let args = SimulateArgs { id: "d".to_owned(), every: 1, count: Some(1) };
        assert!(run(&mut hub.rest(), &args, &mut drop).await.unwrap_err().to_string().contains("has no key"));
    }
}
