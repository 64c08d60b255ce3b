//! Direct methods.

use std::time::Duration;

use bytes::Bytes;
use fleetline_gateway::devices::hub::MethodAnswer;
use fleetline_gateway::hub::HubError;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::world::World;

const CALL: &str = "{\"methodName\":\"reboot\",\"payload\":{\"in\": 1.0}}";

fn done(status: i32, payload: &'static str) -> Result<MethodAnswer, HubError> {
    Ok(MethodAnswer { outcome: MethodAnswer::DONE, status, payload: Bytes::from_static(payload.as_bytes()) })
}

/// 200 with the device's own status; the payload passes through, digit by digit.
#[tokio::test]
async fn a_device_answers() {
    let world = World::new();
    world.add_device("d").await;
    world.connect_device("d").await;
    for (answer, body) in [
        (done(501, "{\"out\": 1.50}"), "{\"status\":501,\"payload\":{\"out\": 1.50}}"),
        (done(200, ""), "{\"status\":200,\"payload\":null}"),
        (done(-1, "null"), "{\"status\":-1,\"payload\":null}"),
    ] {
        world.hub.method_answers.lock().push_back(answer);
        let reply = world.owner("POST", "/twins/d/methods", &[], CALL).await;
        assert_eq!((reply.status, String::from_utf8(reply.body).unwrap().as_str()), (200, body));
    }
    let call = world.hub.method_calls.lock()[0].clone();
    assert_eq!(
        (call.name.as_str(), call.payload.as_ref(), call.place.connection),
        ("reboot", &b"{\"in\": 1.0}"[..], 7)
    );
    assert_eq!(call.timeout_ms, 29_700);
    // "Send null when there is no payload."
    world.hub.method_answers.lock().push_back(done(200, ""));
    world
        .owner("POST", "/twins/d/methods", &[], "{\"methodName\":\"m\",\"responseTimeoutInSeconds\":5}")
        .await;
    let call = world.hub.method_calls.lock().last().unwrap().clone();
    assert_eq!((call.payload.as_ref(), call.timeout_ms), (&b"null"[..], 4_700));
}

#[tokio::test]
async fn outcomes() {
    let world = World::new();
    world.add_device("d").await;
    world.connect_device("d").await;
    let large: &'static str = Box::leak(format!("\"{}\"", "x".repeat(131_072)).into_boxed_str());
    let without = |outcome| Ok(MethodAnswer::without(outcome));
    let rows = [
        (without(MethodAnswer::NOT_ONLINE), 404, "DeviceNotOnline"),
        (without(MethodAnswer::TIMED_OUT), 504, "GatewayTimeout"),
        (without(MethodAnswer::BROKEN), 502, "GenericBadGateway"),
        (without(MethodAnswer::BUSY), 403, "DeviceMaximumInflightMethodExceeded"),
        (done(200, "{no json"), 502, "GenericBadGateway"),
        (done(200, large), 502, "GenericBadGateway"),
        (Err(HubError::Unavailable("n1".into())), 404, "DeviceNotOnline"),
        (Err(HubError::Unknown("n1".into())), 504, "GatewayTimeout"),
    ];
    for (answer, status, code) in rows {
        world.hub.method_answers.lock().push_back(answer);
        let reply = world.owner("POST", "/twins/d/methods", &[], CALL).await;
        assert_eq!((reply.status, reply.error().as_str()), (status, code));
    }
}

#[tokio::test]
async fn requests_that_can_not_be() {
    let world = World::new();
    world.add_device("d").await;
    let large = format!("{{\"methodName\":\"m\",\"payload\":\"{}\"}}", "x".repeat(131_072));
    let rows = [
        ("{}", 400),
        ("{\"methodName\":\"a/b\"}", 400),
        ("{\"methodName\":\"\"}", 400),
        ("{\"methodName\":\"m\",\"responseTimeoutInSeconds\":4}", 400),
        ("{\"methodName\":\"m\",\"responseTimeoutInSeconds\":301}", 400),
        ("{\"methodName\":\"m\",\"connectTimeoutInSeconds\":301}", 400),
        (&large, 413),
        // Not connected.
        (CALL, 404),
    ];
    for (body, status) in rows {
        let reply = world.owner("POST", "/twins/d/methods", &[], body).await;
        assert_eq!(reply.status, status, "{}", body.get(..60).unwrap_or(body));
    }
    assert_eq!(world.owner("POST", "/twins/d/methods", &[], CALL).await.error(), "DeviceNotOnline");
    assert_eq!(world.owner("POST", "/twins/none/methods", &[], CALL).await.error(), "DeviceNotFound");
}

/// A device that comes within the connect timeout is called; otherwise the answer is there before the
/// caller's own time-out.
#[tokio::test(start_paused = true)]
async fn a_device_is_waited_for() {
    let world = World::new();
    world.add_device("d").await;
    let body = json!({"methodName": "m", "connectTimeoutInSeconds": 20}).to_string();
    let begun = Instant::now();
    let late = world.owner("POST", "/twins/d/methods", &[], &body).await;
    assert_eq!(late.error(), "DeviceNotOnline");
    assert!(begun.elapsed() < Duration::from_secs(20) && begun.elapsed() > Duration::from_secs(19));
    world.hub.method_answers.lock().push_back(done(200, "7"));
    let comes = async {
        sleep(Duration::from_secs(10)).await;
        world.connect_device("d").await;
    };
    let (reply, ()) = tokio::join!(world.owner("POST", "/twins/d/methods", &[], &body), comes);
    assert_eq!((reply.status, reply.json()), (200, json!({"status": 200, "payload": 7})));
}
