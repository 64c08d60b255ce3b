//! Values and messages, there and back; what each capability changes (§4, §6.4).

use std::collections::BTreeMap;

use bytes::Bytes;
use fleetline_worker::convert::{
    function_from, function_json, invocation_request, invocation_result, log_line, metadata_to, typed_data,
    value_from,
};
use fleetline_worker::rpc::{self, typed_data::Data};
use fleetline_worker::{
    Capabilities, Cookie, FunctionError, HttpMessage, Invocation, LogLevel, Outcome, RetryContext,
    RetryPolicy, RetryStrategy, SameSite, Value,
};
use proptest::prelude::*;
use prost::Message;

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn modern() -> Capabilities {
    Capabilities {
        collections: true,
        body_only: true,
        body_bytes: true,
        no_http_metadata: true,
        ..Capabilities::default()
    }
}

fn plain_value() -> impl Strategy<Value = Value> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    prop_oneof![
        Just(Value::Null),
        any::<String>().prop_map(Value::Text),
        any::<String>().prop_map(|text| Value::Json(Bytes::from(text))),
        bytes().prop_map(Value::Bytes),
        any::<i64>().prop_map(Value::Int),
        (-1e300..1e300).prop_map(Value::Double),
        proptest::collection::vec(any::<String>(), 0..8).prop_map(Value::TextList),
        proptest::collection::vec(bytes(), 0..8).prop_map(Value::BytesList),
        proptest::collection::vec(any::<i64>(), 0..8).prop_map(Value::IntList),
        proptest::collection::vec(-1e300..1e300, 0..8).prop_map(Value::DoubleList),
    ]
}

proptest! {
    /// What a worker with all capabilities is sent reads back as it was, over the wire's bytes.
    #[test]
    fn values_come_back(value in plain_value()) {
        let sent = typed_data(value.clone(), modern()).encode_to_vec();
        let read = value_from(rpc::TypedData::decode(&*sent).unwrap()).unwrap();
        prop_assert_eq!(read, value);
    }

    /// Without `TypedDataCollection` a list is one JSON array of as many items (§4).
    #[test]
    fn lists_are_arrays_for_old_workers(list in proptest::collection::vec(any::<String>(), 0..8)) {
        let data = typed_data(Value::TextList(list.clone()), Capabilities::default());
        let Some(Data::Json(text)) = data.data else { panic!("{data:?}") };
        prop_assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), list);
    }

    /// Any bytes are either refused by the decoder or have a meaning or a reason; none panics.
    #[test]
    fn hostile_bytes_end_in_a_result(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(data) = rpc::TypedData::decode(&*bytes) {
            let _ = value_from(data);
        }
        if let Ok(response) = rpc::InvocationResponse::decode(&*bytes) {
            let _ = invocation_result(response);
        }
        if let Ok(metadata) = rpc::RpcFunctionMetadata::decode(&*bytes) {
            let _ = function_from(&metadata);
        }
        let _ = function_json("f", "/app/f", &bytes);
    }

    /// A line is cut to its limit at the edge of a character.
    #[test]
    fn lines_are_cut(message in any::<String>(), limit in 0usize..20) {
        let log = rpc::RpcLog { message: message.clone(), ..Default::default() };
        let line = log_line(log, limit).unwrap();
        prop_assert!(line.message.len() <= limit && message.starts_with(&line.message));
        prop_assert!(limit - line.message.len() < 4 || line.message == message);
    }
}

#[test]
fn bytes_that_are_no_text_are_base64_in_an_array() {
    let list = Value::BytesList(vec![Bytes::from_static(b"abc"), Bytes::from_static(&[0xff, 0xfe])]);
    let data = typed_data(list, Capabilities::default());
    assert_eq!(data.data, Some(Data::Json(r#"["abc","//4="]"#.to_owned())));
}

fn request(body: Option<Value>, content_type: &str) -> Invocation {
    let message = HttpMessage {
        method: "POST".to_owned(),
        url: "http://hub/api/items/7?a=1&a=2".to_owned(),
        headers: pairs(&[("Content-Type", content_type), ("X-Empty", ""), ("X-Two", "a"), ("x-two", "b")]),
        query: pairs(&[("a", "1"), ("a", "2")]),
        params: pairs(&[("id", "7")]),
        body,
        ..HttpMessage::default()
    };
    Invocation {
        id: "i1".to_owned(),
        function: "items".to_owned(),
        inputs: vec![("req".to_owned(), Value::Http(Box::new(message)))],
        ..Invocation::default()
    }
}

fn http_of(request: &rpc::InvocationRequest) -> &rpc::RpcHttp {
    match &request.input_data[0].rpc_data {
        Some(rpc::parameter_binding::RpcData::Data(rpc::TypedData { data: Some(Data::Http(http)) })) => http,
        other => panic!("{other:?}"),
    }
}

fn text_map(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs(list).into_iter().collect()
}

/// §4: "lower-cased header names"; a name has one value on the wire, so several are joined.
#[test]
fn http_maps_have_one_value_a_name() {
    let sent = invocation_request(request(None, "text/plain"), "items", modern());
    let http = http_of(&sent);
    assert_eq!(http.headers, text_map(&[("content-type", "text/plain"), ("x-empty", ""), ("x-two", "a, b")]));
    assert_eq!(http.query, text_map(&[("a", "1,2")]));
    assert_eq!(http.params, text_map(&[("id", "7")]));
    assert!(http.body.is_none() && http.raw_body.is_none());
    assert!(sent.trigger_metadata.is_empty(), "RpcHttpTriggerMetadataRemoved");
}

/// §4: "`nullable_headers/params/query` instead … if worker has `UseNullableValueDictionaryForHttp`",
/// and empty headers "skipped with `IgnoreEmptyValuedRpcHttpHeaders`".
#[test]
fn node_gets_nullable_maps_without_empty_headers() {
    let node = Capabilities { nullable_maps: true, no_empty_headers: true, ..modern() };
    let sent = invocation_request(request(None, "text/plain"), "items", node);
    let http = http_of(&sent);
    assert!(http.headers.is_empty() && http.query.is_empty() && http.params.is_empty());
    let names: Vec<_> = http.nullable_headers.keys().map(String::as_str).collect();
    assert_eq!(names, ["content-type", "x-two"]);
    assert_eq!(http.nullable_query.len(), 1);
    assert_eq!(http.nullable_params.len(), 1);
}

/// §4, HTTP in, "body": each combination of the two capabilities and the kind of content.
#[test]
fn bodies_follow_the_capabilities() {
    let json = || Some(Value::Bytes(Bytes::from_static(b"{\"a\":1}")));
    let check = |body_only, body_bytes, content_type: &str, expected: (Data, Option<Data>)| {
        let capabilities = Capabilities { body_only, body_bytes, ..Capabilities::default() };
        let sent = invocation_request(request(json(), content_type), "items", capabilities);
        let http = http_of(&sent);
        let body = http.body.as_ref().and_then(|body| body.data.clone());
        let raw = http.raw_body.as_ref().and_then(|body| body.data.clone());
        assert_eq!((body, raw), (Some(expected.0), expected.1), "{body_only} {body_bytes} {content_type}");
    };
    let bytes = || Data::Bytes(Bytes::from_static(b"{\"a\":1}"));
    let text = || Data::String("{\"a\":1}".to_owned());
    let parsed = || Data::Json("{\"a\":1}".to_owned());
    check(true, true, "application/json", (bytes(), None));
    check(true, false, "application/json", (text(), None));
    check(true, false, "application/octet-stream", (bytes(), None));
    check(true, false, "multipart/form-data; boundary=x", (bytes(), None));
    check(false, false, "application/json", (parsed(), Some(text())));
    check(false, false, "text/plain", (text(), Some(text())));
}

/// Workers without `RpcHttpTriggerMetadataRemoved` get headers, query and the route's parameters.
#[test]
fn old_workers_get_http_metadata() {
    let old = Capabilities { no_http_metadata: false, ..modern() };
    let sent = invocation_request(request(None, "text/plain"), "items", old);
    let names: Vec<_> = sent.trigger_metadata.keys().map(String::as_str).collect();
    assert_eq!(names, ["Headers", "Query", "id"]);
}

/// §7: "retry_context: field absent unless the host has a retry context; carries count, max and last
/// exception".
#[test]
fn a_retry_context_is_carried() {
    let first = Invocation { id: "a".to_owned(), ..Invocation::default() };
    assert!(invocation_request(first.clone(), "f", modern()).retry_context.is_none());
    let error =
        FunctionError { message: "boom".to_owned(), stack: "line 1".to_owned(), kind: "E".to_owned() };
    let retry = Some(RetryContext { count: 2, max: -1, error: Some(error) });
    let trace_parent = Some("00-1-2-01".to_owned());
    let sent = invocation_request(Invocation { retry, trace_parent, ..first }, "f", modern());
    let context = sent.retry_context.unwrap();
    assert_eq!((context.retry_count, context.max_retry_count), (2, -1));
    assert_eq!(context.exception.unwrap().message, "boom");
    assert_eq!(sent.trace_context.unwrap().trace_parent, "00-1-2-01");
}

fn status(status: rpc::status_result::Status) -> rpc::StatusResult {
    rpc::StatusResult { status: status.into(), ..Default::default() }
}

fn response(data: Data) -> rpc::InvocationResponse {
    rpc::InvocationResponse {
        result: Some(status(rpc::status_result::Status::Success)),
        return_value: Some(rpc::TypedData { data: Some(data) }),
        ..Default::default()
    }
}

/// §6.3: "note default is Failure": a response without a result is one, and so is a missing reason.
#[test]
fn a_missing_result_is_a_failure() {
    let result = invocation_result(rpc::InvocationResponse::default());
    assert!(matches!(result.outcome, Outcome::Failure(_)));
    let cancelled = status(rpc::status_result::Status::Cancelled);
    let answer = rpc::InvocationResponse { result: Some(cancelled), ..Default::default() };
    assert_eq!(invocation_result(answer).outcome, Outcome::Cancelled);
}

/// A response that can't be read is a failure of the invocation, not of the connection.
#[test]
fn unreadable_results_are_failures() {
    let http = rpc::RpcHttp { status_code: "two hundred".to_owned(), ..Default::default() };
    for data in [Data::Http(Box::new(http)), Data::ModelBindingData(rpc::ModelBindingData::default())] {
        let result = invocation_result(response(data));
        assert!(matches!(result.outcome, Outcome::Failure(_)), "{result:?}");
    }
}

#[test]
fn http_responses_carry_status_body_and_cookies() {
    let nullable = |text: &str| {
        Some(rpc::NullableString { string: Some(rpc::nullable_string::String::Value(text.to_owned())) })
    };
    let cookie = rpc::RpcHttpCookie {
        name: "s".to_owned(),
        value: "1".to_owned(),
        domain: nullable(""),
        path: nullable("/"),
        secure: Some(rpc::NullableBool { bool: Some(rpc::nullable_bool::Bool::Value(true)) }),
        same_site: rpc::rpc_http_cookie::SameSite::ExplicitNone.into(),
        ..Default::default()
    };
    let http = rpc::RpcHttp {
        status_code: "201".to_owned(),
        headers: text_map(&[("x-a", "b")]),
        body: Some(Box::new(rpc::TypedData { data: Some(Data::Stream(Bytes::from_static(b"hi"))) })),
        cookies: vec![cookie],
        ..Default::default()
    };
    let result = invocation_result(response(Data::Http(Box::new(http))));
    let Some(Value::Http(message)) = result.returned else { panic!("{:?}", result.returned) };
    assert_eq!(message.status, Some(201));
    assert_eq!(message.headers, pairs(&[("x-a", "b")]));
    assert_eq!(message.body, Some(Value::Bytes(Bytes::from_static(b"hi"))));
    let expected = Cookie {
        name: "s".to_owned(),
        value: "1".to_owned(),
        path: Some("/".to_owned()),
        secure: Some(true),
        same_site: SameSite::None,
        ..Cookie::default()
    };
    assert_eq!(message.cookies, [expected]);
}

#[test]
fn log_lines_keep_level_and_exception() {
    let log = rpc::RpcLog {
        invocation_id: "i".to_owned(),
        level: rpc::rpc_log::Level::Error.into(),
        message: "failed".to_owned(),
        exception: Some(rpc::RpcException { message: "boom".to_owned(), ..Default::default() }),
        log_category: rpc::rpc_log::RpcLogCategory::System.into(),
        ..Default::default()
    };
    let line = log_line(log.clone(), 1000).unwrap();
    assert_eq!((line.level, line.message.as_str(), line.is_system), (LogLevel::Error, "failed\nboom", true));
    assert_eq!(line.invocation.as_deref(), Some("i"));
    let none = rpc::RpcLog { level: rpc::rpc_log::Level::None.into(), ..log };
    assert_eq!(log_line(none, 1000), None);
}

/// §2: raw bindings "use upper case for enums …; Node uses lower case: parse case-insensitively".
#[test]
fn definitions_are_read_in_any_case() {
    let metadata = rpc::RpcFunctionMetadata {
        name: "telemetry".to_owned(),
        function_id: "of this process".to_owned(),
        raw_bindings: vec![
            r#"{"direction":"IN","type":"eventHubTrigger","name":"events","cardinality":"MANY"}"#.to_owned(),
            r#"{"direction":"out","type":"signalR","name":"out","hubName":"fleet"}"#.to_owned(),
        ],
        retry_options: Some(rpc::RpcRetryOptions {
            max_retry_count: -1,
            delay_interval: Some(prost_types::Duration { seconds: 3, nanos: 0 }),
            retry_strategy: rpc::rpc_retry_options::RetryStrategy::FixedDelay.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let function = function_from(&metadata).unwrap();
    assert_eq!((function.id.as_str(), function.name.as_str()), ("telemetry", "telemetry"));
    let trigger = function.trigger().unwrap();
    assert!(trigger.is("EVENTHUBTRIGGER") && trigger.text_is("cardinality", "many") && !trigger.is_output());
    assert!(function.bindings[1].is_output() && !function.bindings[1].is_trigger());
    let delay = std::time::Duration::from_secs(3);
    let expected = RetryPolicy { max: None, strategy: RetryStrategy::Fixed { delay } };
    assert_eq!(function.retry, Some(expected));
}

#[test]
fn function_json_is_read_and_sent_on() {
    let content = br#"{"scriptFile":"main.py","entryPoint":"run","bindings":[
        {"type":"httpTrigger","direction":"in","authLevel":"anonymous","methods":["get"]},
        {"type":"http","direction":"out","name":"$return"}],
        "retry":{"strategy":"exponentialBackoff","maxRetryCount":5,
                 "minimumInterval":"00:00:10","maximumInterval":"00:15:00"}}"#;
    let function = function_json("hello", "/app/hello", content).unwrap().unwrap();
    assert_eq!(function.bindings[0].name, "req", "an HTTP trigger without a name");
    let seconds = std::time::Duration::from_secs;
    let strategy = RetryStrategy::Exponential { min: seconds(10), max: seconds(900) };
    assert_eq!(function.retry, Some(RetryPolicy { max: Some(5), strategy }));
    let sent = metadata_to(&function, "/app/hello/main.py", "python");
    assert_eq!((sent.function_id.as_str(), sent.entry_point.as_str()), ("hello", "run"));
    let returned = &sent.bindings["$return"];
    assert_eq!((returned.r#type.as_str(), returned.direction()), ("http", rpc::binding_info::Direction::Out));
    assert_eq!(function_json("x", "/app/x", br#"{"disabled":true,"bindings":[]}"#).unwrap(), None);
}

/// Definitions that can't be read name what is wrong.
#[test]
fn wrong_definitions_are_refused() {
    let check = |content: &str, expected: &str| {
        let error = function_json("f", "/app/f", content.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("{", "function.json is not JSON");
    check("{}", "bindings of function.json");
    check(r#"{"bindings":[1]}"#, "a binding of function.json is 1");
    check(r#"{"bindings":[{"name":"a"}]}"#, "a binding has no type");
    check(r#"{"bindings":[{"name":"a","type":"x","direction":"up"}]}"#, "direction up");
    check(r#"{"bindings":[],"retry":{"strategy":"often"}}"#, "retry strategy is often");
    check(r#"{"bindings":[],"retry":{"strategy":"fixedDelay","delayInterval":"10"}}"#, "delayInterval is 10");
}
