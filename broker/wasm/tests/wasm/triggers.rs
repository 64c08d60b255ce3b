//! Each trigger's value reaches the component, and each effect comes back.

use fleetline_worker::{HttpMessage, RetryContext, Value};
use serde_json::json;

use crate::app::{App, LIMIT, all_outputs, event, failure, invocation, output};
use crate::guest::{self, NOTHING, answering, case, component, echo, returning};

#[tokio::test]
async fn events_come_in_with_their_metadata() {
    let app = App::start("eventHubTrigger", &echo()).await;
    let mut call = invocation(vec![(
        "input".into(),
        Value::BytesList(vec!["one".into(), "two".into(), "three".into()]),
    )]);
    let system =
        |device: &str| json!({ "iothub-connection-device-id": device, "content-type": "text/plain" });
    call.metadata = vec![
        ("SystemPropertiesArray".into(), Value::json(&json!([system("a"), system("b"), {}]))),
        ("PropertiesArray".into(), Value::json(&json!([{ "k": "v" }, {}, {}]))),
    ];
    let result = app.worker.invoke(call, LIMIT).await.unwrap();
    assert_eq!(
        output(&result, "stream"),
        json!([
            { "deviceId": "a", "bodyBase64": "b25l", "contentType": "text/plain", "properties": { "k": "v" } },
            { "deviceId": "b", "bodyBase64": "dHdv", "contentType": "text/plain", "properties": {} },
            { "bodyBase64": "dGhyZWU=", "properties": {} },
        ])
    );
    assert_eq!(result.outputs.len(), 1);
}

#[tokio::test]
async fn one_event_comes_in() {
    let app = App::start("eventHubTrigger", &echo()).await;
    let result = app.invoke(Value::Text("hello".into())).await.unwrap();
    assert_eq!(output(&result, "stream"), json!([{ "bodyBase64": "aGVsbG8=", "properties": {} }]));
}

#[tokio::test]
async fn a_large_batch_comes_in() {
    let app = App::start("eventHubTrigger", &echo()).await;
    let body = "x".repeat(4000);
    let result = app.invoke(Value::TextList(vec![body; 1000])).await.unwrap();
    assert_eq!(output(&result, "stream").as_array().unwrap().len(), 1000);
}

#[tokio::test]
async fn a_twin_change_comes_in() {
    // The first change's operation as the body: at 48 of 64 bytes.
    let fill = r#"
      (local.set $from (i32.load (local.get $from)))
      (memory.copy (i32.add (local.get $to) (i32.const 48)) (i32.add (local.get $from) (i32.const 48)) (i32.const 8))"#;
    let app = App::start("twinTrigger", &answering(1, case::APPEND, fill)).await;
    let mut call = invocation(vec![("input".into(), Value::json(&json!([{ "version": 2 }])))]);
    call.metadata = vec![
        ("PropertiesArray".into(), Value::json(&json!([{ "opType": "replaceTwin" }]))),
        ("SystemPropertiesArray".into(), Value::json(&json!([{ "iothub-connection-device-id": "d" }]))),
    ];
    let result = app.worker.invoke(call, LIMIT).await.unwrap();
    assert_eq!(output(&result, "stream")[0]["bodyBase64"], "cmVwbGFjZVR3aW4=");
}

#[tokio::test]
async fn a_timer_comes_in() {
    // The first tick's `next` at 16 of 28 bytes, and `past-due` at 0, which decides whether it traps.
    let fill = r#"
      (local.set $from (i32.load (local.get $from)))
      (if (i32.eqz (i32.load8_u (local.get $from))) (then (unreachable)))
      (memory.copy (i32.add (local.get $to) (i32.const 48)) (i32.add (local.get $from) (i32.const 20)) (i32.const 8))"#;
    let app = App::start("timerTrigger", &answering(2, case::APPEND, fill)).await;
    let status = json!({ "IsPastDue": true, "ScheduleStatus": { "Next": "soon" } });
    let result = app.invoke(Value::json(&status)).await.unwrap();
    assert_eq!(output(&result, "stream")[0]["bodyBase64"], "c29vbg==");
    assert_eq!(failure(app.invoke(Value::Null).await).kind, "Trap");
}

#[tokio::test]
async fn a_request_is_answered() {
    // status, then the headers and the body of the request
    let fill = r#"
      (i32.store16 offset=4 (local.get $to) (i32.const 202))
      (memory.copy (i32.add (local.get $to) (i32.const 8)) (i32.add (local.get $from) (i32.const 16)) (i32.const 8))
      (memory.copy (i32.add (local.get $to) (i32.const 16)) (i32.add (local.get $from) (i32.const 40)) (i32.const 8))"#;
    let app = App::start("httpTrigger", &answering(3, case::RESPOND, fill)).await;
    let headers = vec![("accept".to_owned(), "a".to_owned()), ("accept".to_owned(), "b".to_owned())];
    let request = HttpMessage {
        method: "POST".into(),
        url: "http://h/api/f".into(),
        headers: headers.clone(),
        body: Some(Value::Text("in and out".into())),
        ..HttpMessage::default()
    };
    let result = app.invoke(Value::Http(Box::new(request))).await.unwrap();
    let Some(Value::Http(response)) = result.returned else { panic!("{result:?}") };
    assert_eq!((response.status, response.headers), (Some(202), headers));
    assert_eq!(response.body, Some(Value::Bytes("in and out".into())));
    assert_eq!(result.outputs, []);
}

#[tokio::test]
async fn every_effect_goes_to_its_binding() {
    let guest = returning(|constants| {
        vec![
            guest::realtime(constants, "show", "[1]"),
            guest::desired(constants, "d", "{\"a\":1}"),
            guest::command(constants, "d", "go"),
            guest::realtime(constants, "show", "[2]"),
        ]
    });
    let app = App::start("eventHubTrigger", &guest).await;
    let result = app.invoke(event("")).await.unwrap();
    let shown = json!([{ "target": "show", "arguments": [1] }, { "target": "show", "arguments": [2] }]);
    assert_eq!(output(&result, "screen"), shown);
    assert_eq!(
        output(&result, "twins"),
        json!([{ "deviceId": "d", "properties": { "desired": { "a": 1 } } }])
    );
    let command = json!([{ "deviceId": "d", "bodyBase64": "Z28=", "properties": {}, "ttlSeconds": 60 }]);
    assert_eq!(output(&result, "commands"), command);
    assert_eq!((result.outputs.len(), result.returned), (3, None));
}

#[tokio::test]
async fn an_effect_without_its_binding_fails_the_batch() {
    let guest = returning(|constants| {
        vec![guest::realtime(constants, "show", "[]"), guest::command(constants, "d", "go")]
    });
    let host = fleetline_wasm::WasmHost::new(fleetline_wasm::WasmOptions::default()).unwrap();
    let outputs = json!([all_outputs()[0]]);
    let app = App::with(&host, "eventHubTrigger", &outputs, &guest).await;
    let error = failure(app.invoke(event("")).await);
    assert_eq!(error.kind, "EffectRefused");
    assert_eq!(error.message, "the function has no output binding of type command, which effect 1 needs");
}

#[tokio::test]
async fn a_function_says_that_it_failed() {
    let mut constants = guest::Constants::default();
    let [at, size] = constants.text("the sensor is upside down");
    let body = format!("(call $failed (i32.const {at}) (i32.const {size}))");
    let app = App::start("eventHubTrigger", &component(&constants.0, &body)).await;
    let error = failure(app.invoke(event("")).await);
    assert_eq!(
        (error.kind.as_str(), error.message.as_str()),
        ("FunctionFailed", "the sensor is upside down")
    );
}

#[tokio::test]
async fn the_try_is_told() {
    // Traps unless `attempt` at 28 is 3.
    let body = format!(
        "(if (i32.ne (i32.load offset=28 (local.get $batch)) (i32.const 3)) (then (unreachable))) {NOTHING}"
    );
    let app = App::start("eventHubTrigger", &component(&[], &body)).await;
    assert_eq!(failure(app.invoke(event("")).await).kind, "Trap");
    let mut call = invocation(vec![("input".into(), event(""))]);
    call.retry = Some(RetryContext { count: 3, max: -1, error: None });
    let result = app.worker.invoke(call, LIMIT).await.unwrap();
    assert_eq!(result.outcome, fleetline_worker::Outcome::Success);
}

#[tokio::test]
async fn metadata_of_another_length_is_refused() {
    let app = App::start("eventHubTrigger", &echo()).await;
    let mut call = invocation(vec![("input".into(), Value::TextList(vec!["a".into(), "b".into()]))]);
    call.metadata = vec![("OffsetArray".into(), Value::json(&json!(["1"])))];
    let error = app.worker.invoke(call, LIMIT).await.unwrap_err();
    assert!(!error.may_have_run() && !error.is_retryable(), "{error}");
    assert!(error.to_string().contains("OffsetArray has 1 elements for 2 events"), "{error}");
}
