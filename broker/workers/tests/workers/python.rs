//! Unmodified apps of the v1 and v2 models in Python.

use bytes::Bytes;
use fleetline_worker::{
    Direction, FunctionError, LogLevel, Outcome, RetryContext, RetryPolicy, RetryStrategy, SameSite, Value,
};

use crate::kit::{
    LONG, Node, act, acted, acted_json, batch_metadata, body, has_official_runtime, hello_answer, http,
    invocation, one_event_metadata, output, read_json, request, succeeded, timer,
};

/// All functions are found with their bindings and policies; the wrong one has an error of its own.
#[tokio::test]
async fn functions_are_indexed() {
    let node = Node::start().await;
    let worker = node.app("python_v2").await;
    let functions = worker.functions();
    let names: Vec<_> = functions.iter().map(|one| one.metadata.name.as_str()).collect();
    let mut expected = vec!["hello", "text", "one_event", "many_events", "tick", "act"];
    let failed: Vec<_> = functions.iter().filter(|one| one.load_error.is_some()).collect();
    if has_official_runtime() {
        assert!(failed.is_empty(), "{failed:?}");
    } else {
        expected.push("wrong");
        assert_eq!((failed.len(), failed[0].metadata.name.as_str()), (1, "wrong"));
        assert!(failed[0].load_error.as_ref().unwrap().contains("does not match its Python annotation"));
    }
    expected.sort_unstable();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);

    let one = &functions[2].metadata;
    assert_eq!(one.id, "one_event");
    let trigger = one.trigger().unwrap();
    assert!(trigger.is("eventHubTrigger") && trigger.direction == Direction::In && trigger.name == "event");
    assert_eq!(trigger.text("eventHubName"), Some("messages/events"));
    let delay = std::time::Duration::from_secs(10);
    let expected = RetryPolicy { max: Some(3), strategy: RetryStrategy::Fixed { delay } };
    assert_eq!(one.retry, Some(expected));
    assert!(functions[3].metadata.trigger().unwrap().text_is("cardinality", "many"));
    assert_eq!(functions[0].metadata.trigger().unwrap().text("route"), Some("hello/{name}"));
}

#[tokio::test]
async fn an_http_function_sees_the_request_and_answers() {
    let node = Node::start().await;
    let worker = node.app("python_v2").await;
    let call = invocation("h1", "hello", vec![("req", Value::Http(Box::new(request())))]);
    let result = worker.invoke(call, LONG).await.unwrap();
    succeeded(&result);
    let message = http(&result);
    assert_eq!((message.status, body(message)), (Some(201), hello_answer()));
    let header = message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    assert_eq!(header.unwrap().1, "application/json");
    let cookie = &message.cookies[0];
    assert_eq!((cookie.name.as_str(), cookie.value.as_str()), ("session", "abc"));
    assert_eq!((cookie.path.as_deref(), cookie.http_only), (Some("/"), Some(true)));
    assert_eq!((cookie.same_site, cookie.max_age), (SameSite::Lax, Some(60.0)));

    let call = invocation("h2", "text", vec![("req", Value::Http(Box::new(request())))]);
    let result = worker.invoke(call, LONG).await.unwrap();
    assert_eq!(result.returned, Some(Value::Text("just text".to_owned())));
}

/// One event with its system properties, `$return`, the contexts of retry and trace, and a log line
/// that knows its invocation.
#[tokio::test]
async fn one_event_carries_its_metadata() {
    let node = Node::start().await;
    let worker = node.app("python_v2").await;
    let mut call = invocation("e1", "one_event", vec![("event", Value::Text("21.5".to_owned()))]);
    call.metadata = one_event_metadata();
    call.trace_parent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    let error = FunctionError { message: "last time".to_owned(), ..FunctionError::default() };
    call.retry = Some(RetryContext { count: 2, max: 3, error: Some(error) });
    let result = worker.invoke(call, LONG).await.unwrap();
    succeeded(&result);
    let expected = serde_json::json!({
        "body": "21.5",
        "sequence": 41,
        "offset": "1024",
        "device": "pump-7",
        "retry": [2, 3, "last time"],
        "invocation": "e1",
        "trace": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "function": "one_event",
    });
    assert_eq!(read_json(result.returned.as_ref().unwrap()), expected);
    let line = node.sink.line_with("one event from pump-7").await;
    assert_eq!(
        (line.invocation.as_deref(), line.level, line.is_system),
        (Some("e1"), LogLevel::Information, false)
    );
}

/// §4: texts, bytes and JSON all decode; `Out[List[str]]` gives many events.
#[tokio::test]
async fn a_batch_comes_in_any_form() {
    let node = Node::start().await;
    let worker = node.app("python_v2").await;
    let texts = Value::TextList(vec!["a".to_owned(), "b".to_owned()]);
    let bytes = Value::BytesList(vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]);
    for (id, events) in [("b1", texts), ("b2", bytes)] {
        let mut call = invocation(id, "many_events", vec![("events", events)]);
        call.metadata = batch_metadata(&[7, 8]);
        let result = worker.invoke(call, LONG).await.unwrap();
        succeeded(&result);
        assert_eq!(output(&result, "out"), serde_json::json!(["7:a", "8:b"]));
    }
    let events = Value::json(&serde_json::json!([{"t": 1}, {"t": 2}]));
    let mut call = invocation("b3", "many_events", vec![("events", events)]);
    call.metadata = batch_metadata(&[1, 2]);
    let result = worker.invoke(call, LONG).await.unwrap();
    assert_eq!(output(&result, "out"), serde_json::json!(["1:{\"t\": 1}", "2:{\"t\": 2}"]));
}

#[tokio::test]
async fn a_timer_sends_to_signalr() {
    let node = Node::start().await;
    let worker = node.app("python_v2").await;
    let result = worker.invoke(invocation("t1", "tick", vec![("timer", timer())]), LONG).await.unwrap();
    succeeded(&result);
    let expected = serde_json::json!({"target": "tick", "arguments": [true, "2026-01-02T03:05:00Z"]});
    assert_eq!(output(&result, "messages"), expected);
}

#[tokio::test]
async fn every_form_of_result_comes_back() {
    let node = Node::start().await;
    let worker = node.app("python_v2").await;
    assert_eq!(acted(&*worker, "nothing").await, Value::Null);
    assert_eq!(acted(&*worker, "number").await, Value::Int(7));
    assert_eq!(acted_json(&*worker, "object").await, serde_json::json!({"a": [1, 2]}));
    assert_eq!(acted(&*worker, "bytes").await, Value::Bytes(Bytes::from_static(b"\x00\xff")));
    assert_eq!(acted(&*worker, "slow").await, Value::Text("slow but done".to_owned()));
}

/// What a function raises is the invocation's failure; the worker goes on, after `sys.exit` too.
#[tokio::test]
async fn exceptions_are_failures() {
    let node = Node::start().await;
    let worker = node.app("python_v2").await;
    let cases = [
        ("boom", "ValueError", "the boiler is too hot"),
        ("odd", "TypeError", "unable to encode"),
        ("exit", "SystemExit", "5"),
    ];
    for (command, kind, text) in cases {
        let result = worker.invoke(act(command), LONG).await.unwrap();
        let Outcome::Failure(error) = result.outcome else { panic!("{command}") };
        assert_eq!(error.kind, kind);
        assert!(error.message.contains(text), "{error:?}");
        assert!(command == "odd" || error.stack.contains("function_app.py"), "{error:?}");
    }
    assert_eq!(acted(&*worker, "number").await, Value::Int(7));
}

#[tokio::test]
async fn logs_and_prints_arrive() {
    let node = Node::start().await;
    let worker = node.app("python_v2").await;
    let call = act("log");
    let id = call.id.clone();
    worker.invoke(call, LONG).await.unwrap();
    // A line of an invocation is ahead of its response.
    let lines = node.sink.lines();
    let warning = lines.iter().find(|line| line.message == "watch 7").expect("the warning");
    assert_eq!((warning.invocation.as_deref(), warning.level), (Some(id.as_str()), LogLevel::Warning));
    assert_eq!(node.sink.line_with("printed").await.category, "stdout");
    assert_eq!(node.sink.line_with("to stderr").await.category, "stderr");
    assert!(!node.sink.lines().iter().any(|line| line.message == "not shown"));
}

/// The v1 model: the host reads function.json, the worker loads; one broken function is left out.
#[tokio::test]
async fn the_v1_model_runs() {
    let node = Node::start().await;
    let worker = node.app("python_v1").await;
    let functions = worker.functions();
    let names: Vec<_> = functions.iter().map(|one| one.metadata.name.as_str()).collect();
    assert_eq!(names, ["broken", "hello"]);
    assert!(functions[0].load_error.as_ref().unwrap().contains("a_module_that_is_not_there"));
    assert_eq!(functions[1].load_error, None);

    let mut message = request();
    message.query = crate::kit::pairs(&[("name", "ada")]);
    let url = message.url.clone();
    let call = invocation("v1", "hello", vec![("req", Value::Http(Box::new(message)))]);
    let result = worker.invoke(call, LONG).await.unwrap();
    succeeded(&result);
    let expected = Value::Bytes(Bytes::from_static(b"hello from v1, ada"));
    assert_eq!(http(&result).body, Some(expected));
    assert_eq!(result.outputs, [("out".to_owned(), Value::Text(format!("POST {url}")))]);
}

/// `AsgiFunctionApp`: a web application behind one function.
#[tokio::test]
async fn a_web_application_is_a_function() {
    let node = Node::start().await;
    let worker = node.app("python_asgi").await;
    let function = worker.functions()[0].metadata.clone();
    assert_eq!(worker.functions()[0].load_error, None);
    let trigger = function.trigger().unwrap();
    let call =
        invocation("w1", &function.id, vec![(trigger.name.as_str(), Value::Http(Box::new(request())))]);
    let result = worker.invoke(call, LONG).await.unwrap();
    succeeded(&result);
    assert_eq!(http(&result).status, Some(202));
    let expected = Value::Bytes("POST /api/hello/ada grüße".as_bytes().to_vec().into());
    assert_eq!(http(&result).body, Some(expected));
}
