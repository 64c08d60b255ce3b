//! Unmodified apps of the v4 model in Node.

use bytes::Bytes;
use fleetline_worker::{
    Direction, FunctionError, LogLevel, Outcome, RetryContext, RetryPolicy, RetryStrategy, SameSite, Value,
};

use crate::kit::{
    LONG, Node, act, acted, batch_metadata, body, hello_answer, http, invocation, one_event_metadata, output,
    read_json, request, succeeded, timer,
};

/// The name of a function's trigger: Node makes one up when the app gives none.
fn trigger(worker: &dyn fleetline_workers::Worker, function: &str) -> String {
    let found = worker.functions().iter().find(|one| one.metadata.name == function).unwrap();
    found.metadata.trigger().unwrap().name.clone()
}

/// Functions are found over the glob of `main`; the file that can't be loaded is an entry with an error.
#[tokio::test]
async fn functions_are_indexed() {
    let node = Node::start().await;
    let worker = node.app("node_v4").await;
    let functions = worker.functions();
    let names: Vec<_> = functions.iter().map(|one| one.metadata.name.as_str()).collect();
    let expected = ["act", "hooked", "hello", "oneEvent", "manyEvents", "tick", "src/functions/broken.js"];
    assert_eq!(names, expected);
    let (broken, good) = functions.split_last().unwrap();
    assert!(broken.load_error.as_ref().unwrap().contains("a-module-that-is-not-there"));
    assert!(good.iter().all(|one| one.load_error.is_none()), "{good:?}");
    assert_eq!(node.sink.line_with("a-module-that-is-not-there").await.level, LogLevel::Error);

    let one = &functions[3].metadata;
    let trigger = one.trigger().unwrap();
    assert!(trigger.is("eventHubTrigger") && trigger.direction == Direction::In);
    assert!(trigger.text_is("cardinality", "one"));
    let returned = one.bindings.iter().find(|binding| binding.name == "$return").unwrap();
    assert!(returned.is("eventHub") && returned.is_output());
    let seconds = std::time::Duration::from_secs;
    let strategy = RetryStrategy::Exponential { min: seconds(2), max: seconds(60) };
    assert_eq!(one.retry, Some(RetryPolicy { max: Some(4), strategy }));
}

#[tokio::test]
async fn an_http_function_sees_the_request_and_answers() {
    let node = Node::start().await;
    let worker = node.app("node_v4").await;
    let name = trigger(&*worker, "hello");
    let call = invocation("h1", "hello", vec![(&name, Value::Http(Box::new(request())))]);
    let result = worker.invoke(call, LONG).await.unwrap();
    succeeded(&result);
    let message = http(&result);
    assert_eq!((message.status, body(message)), (Some(201), hello_answer()));
    assert!(message.headers.contains(&("x-answer".to_owned(), "yes".to_owned())));
    let cookie = &message.cookies[0];
    assert_eq!((cookie.name.as_str(), cookie.path.as_deref()), ("session", Some("/")));
    assert_eq!((cookie.same_site, cookie.max_age), (SameSite::Lax, Some(60.0)));
    assert_eq!((cookie.http_only, cookie.domain.as_deref()), (Some(true), None));
    let line = node.sink.lines().into_iter().find(|line| line.message == "hello from hello").unwrap();
    assert_eq!((line.invocation.as_deref(), line.level), (Some("h1"), LogLevel::Information));
}

#[tokio::test]
async fn one_event_carries_its_metadata() {
    let node = Node::start().await;
    let worker = node.app("node_v4").await;
    let name = trigger(&*worker, "oneEvent");
    let event = Value::json(&serde_json::json!({"temperature": 21.5}));
    let mut call = invocation("e1", "oneEvent", vec![(&name, event)]);
    call.metadata = one_event_metadata();
    call.trace_parent = Some("00-1-2-01".to_owned());
    let error = FunctionError { message: "last time".to_owned(), ..FunctionError::default() };
    call.retry = Some(RetryContext { count: 0, max: -1, error: Some(error) });
    let result = worker.invoke(call, LONG).await.unwrap();
    succeeded(&result);
    let answer = read_json(result.returned.as_ref().unwrap());
    assert_eq!(answer["event"], serde_json::json!({"temperature": 21.5}));
    assert_eq!(answer["device"], "pump-7");
    assert_eq!(answer["retry"]["retryCount"], 0);
    assert_eq!(answer["retry"]["maxRetryCount"], -1);
    assert_eq!(answer["retry"]["exception"]["message"], "last time");
    assert_eq!((answer["invocation"].as_str(), answer["trace"].as_str()), (Some("e1"), Some("00-1-2-01")));
}

/// Without a retry policy there is no retry context (§7).
#[tokio::test]
async fn no_retry_context_without_a_policy() {
    let node = Node::start().await;
    let worker = node.app("node_v4").await;
    let name = trigger(&*worker, "oneEvent");
    let mut call = invocation("e2", "oneEvent", vec![(&name, Value::Text("x".to_owned()))]);
    call.metadata = one_event_metadata();
    call.trace_parent = Some("00-1-2-01".to_owned());
    let result = worker.invoke(call, LONG).await.unwrap();
    assert_eq!(read_json(result.returned.as_ref().unwrap()).get("retry"), None);
}

#[tokio::test]
async fn a_batch_comes_in_any_form() {
    let node = Node::start().await;
    let worker = node.app("node_v4").await;
    let (name, out) = (trigger(&*worker, "manyEvents"), "eventHubOutput");
    let texts = Value::TextList(vec!["a".to_owned(), "b".to_owned()]);
    let array = Value::json(&serde_json::json!(["a", "b"]));
    for (id, events) in [("b1", texts), ("b2", array)] {
        let mut call = invocation(id, "manyEvents", vec![(&name, events)]);
        call.metadata = batch_metadata(&[7, 8]);
        let result = worker.invoke(call, LONG).await.unwrap();
        succeeded(&result);
        let (found, value) = &result.outputs[0];
        assert!(found.starts_with(out), "{found}");
        let expected = serde_json::json!([{"message": "a", "sequence": 7}, {"message": "b", "sequence": 8}]);
        assert_eq!(read_json(value), expected);
    }
}

#[tokio::test]
async fn a_timer_sends_to_signalr() {
    let node = Node::start().await;
    let worker = node.app("node_v4").await;
    let name = trigger(&*worker, "tick");
    let result = worker.invoke(invocation("t1", "tick", vec![(&name, timer())]), LONG).await.unwrap();
    succeeded(&result);
    let expected = serde_json::json!([{"target": "tick", "arguments": [true, "2026-01-02T03:05:00Z"]}]);
    assert_eq!(output(&result, "messages"), expected);
}

#[tokio::test]
async fn every_form_of_result_comes_back() {
    let node = Node::start().await;
    let worker = node.app("node_v4").await;
    assert_eq!(acted(&*worker, "nothing").await, Value::Null);
    assert_eq!(acted(&*worker, "number").await, Value::Int(7));
    assert_eq!(acted(&*worker, "bytes").await, Value::Bytes(Bytes::from_static(b"\x00\xff")));
}

#[tokio::test]
async fn exceptions_are_failures() {
    let node = Node::start().await;
    let worker = node.app("node_v4").await;
    let result = worker.invoke(act("boom"), LONG).await.unwrap();
    let Outcome::Failure(error) = result.outcome else { panic!("{result:?}") };
    assert_eq!((error.kind.as_str(), error.message.as_str()), ("RangeError", "the boiler is too hot"));
    assert!(error.stack.contains("act.js"), "{error:?}");
    assert_eq!(acted(&*worker, "number").await, Value::Int(7));
}

#[tokio::test]
async fn logs_and_prints_arrive() {
    let node = Node::start().await;
    let worker = node.app("node_v4").await;
    let call = act("log");
    let id = call.id.clone();
    worker.invoke(call, LONG).await.unwrap();
    let lines = node.sink.lines();
    let warning = lines.iter().find(|line| line.message == "watch 7").expect("the warning");
    assert_eq!((warning.invocation.as_deref(), warning.level), (Some(id.as_str()), LogLevel::Warning));
    assert_eq!(node.sink.line_with("printed").await.category, "stdout");
    assert_eq!(node.sink.line_with("to stderr").await.category, "stderr");
}

#[tokio::test]
async fn hooks_run_around_an_invocation() {
    let node = Node::start().await;
    let worker = node.app("node_v4").await;
    let call = invocation("k1", "hooked", vec![("command", Value::Text("x".to_owned()))]);
    let result = worker.invoke(call, LONG).await.unwrap();
    assert_eq!(result.returned, Some(Value::Text("hooked and 1 seen".to_owned())));
}

/// An app that is an ES module and brings no packages finds those of the node.
#[tokio::test]
async fn modules_find_the_packages() {
    let node = Node::start().await;
    let worker = node.app("node_esm").await;
    let name = trigger(&*worker, "hello");
    let call = invocation("m1", "hello", vec![(&name, Value::Http(Box::new(request())))]);
    let result = worker.invoke(call, LONG).await.unwrap();
    let expected = Value::Bytes(Bytes::from_static(b"hello from a module"));
    assert_eq!(http(&result).body, Some(expected));
}
