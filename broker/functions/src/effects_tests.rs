//! Outputs in all their forms.

use fleetline_worker::{FunctionMetadata, Outcome};
use serde_json::json;

use super::*;

fn spec() -> FunctionSpec {
    let bindings = json!([
        { "type": "eventHubTrigger", "direction": "in", "name": "e" },
        { "type": "signalR", "direction": "OUT", "name": "screen", "hubName": "live" },
        { "type": "twin", "direction": "out", "name": "twins" },
        { "type": "command", "direction": "out", "name": "commands" },
        { "type": "command", "direction": "out", "name": "reply", "deviceId": "{deviceId}" },
        { "type": "eventHub", "direction": "out", "name": "stream" },
        { "type": "eventHub", "direction": "out", "name": "keyed", "partitionKey": "k" },
        { "type": "queue", "direction": "out", "name": "queue" },
        { "type": "http", "direction": "out", "name": "$return" },
    ]);
    let parse = |raw: &serde_json::Value| Binding::parse(raw.as_object().unwrap().clone()).unwrap();
    let bindings = bindings.as_array().unwrap().iter().map(parse).collect();
    let metadata = FunctionMetadata { name: "f".into(), bindings, ..FunctionMetadata::default() };
    FunctionSpec::read(metadata, None, &BTreeMap::new(), false)
}

fn read(name: &str, value: Value) -> Result<Vec<Effect>, String> {
    let system = json!({ "SystemProperties": { "iothub-connection-device-id": "pump-7" } });
    let scope = Scope { metadata: system.as_object().unwrap().clone(), ..Scope::default() };
    let outputs = vec![(name.to_owned(), value)];
    let result = InvocationResult { outcome: Outcome::Success, outputs, returned: None };
    produced(&spec(), &scope, result).map(|produced| produced.effects)
}

fn json_value(text: &str) -> Value {
    Value::Json(text.to_owned().into())
}

/// Node's JSON and Python's text give the same.
#[track_caller]
fn both(name: &str, text: &str, expected: Vec<Effect>) {
    assert_eq!(read(name, json_value(text)), Ok(expected.clone()), "json {text}");
    assert_eq!(read(name, Value::Text(text.to_owned())), Ok(expected), "text {text}");
}

fn message(destination: Destination, arguments: &'static str) -> Effect {
    Effect::Message { hub: "live".into(), destination, target: "show".into(), arguments: arguments.into() }
}

#[test]
fn messages_and_group_actions() {
    both("screen", r#"{"target":"show","arguments":[1.10]}"#, vec![message(Destination::All, "[1.10]")]);
    let all = r#"[{"target":"show","arguments":[],"userId":"u","groupName":"g","connectionId":"c"},
        {"target":"show","arguments":[],"userId":"u","groupName":"g"},
        {"target":"show","arguments":[],"groupName":"g","userId":null}]"#;
    let to =
        [Destination::Connection("c".into()), Destination::User("u".into()), Destination::Group("g".into())];
    both("screen", all, to.map(|to| message(to, "[]")).into());
    let group = |action| Effect::Group { hub: "live".into(), action };
    let user = || Member::User("u".into());
    both(
        "screen",
        r#"[{"action":"add","userId":"u","groupName":"g"},{"action":"removeAll","userId":"u"}]"#,
        vec![group(GroupAction::Add(user(), "g".into())), group(GroupAction::RemoveAll(user()))],
    );
    let list = Value::TextList(vec![r#"{"target":"show","arguments":[]}"#.into()]);
    assert_eq!(read("screen", list), Ok(vec![message(Destination::All, "[]")]));
    for bad in [
        r#"{"target":"show"}"#,
        r#"{"target":"show","arguments":{}}"#,
        r#"{"action":"add","userId":"u"}"#,
        r#"{"action":"add","groupName":"g"}"#,
        r#"{"action":"dance","userId":"u","groupName":"g"}"#,
        "not json",
        "7",
    ] {
        assert!(read("screen", Value::Text(bad.into())).is_err(), "{bad}");
    }
}

#[test]
fn twins() {
    let twin = |tags: &'static str, desired: &'static str| {
        let (tags, desired) = (tags.into(), desired.into());
        Effect::Twin(TwinEffect { device: "d".into(), tags, desired, ..TwinEffect::default() })
    };
    both("twins", r#"{"deviceId":"d","properties":{"desired":{"a":1.0}}}"#, vec![twin("", r#"{"a":1.0}"#)]);
    both(
        "twins",
        r#"[{"deviceId":"d","tags":{"b":null}},{"deviceId":"d","desired":{}}]"#,
        vec![twin(r#"{"b":null}"#, ""), twin("", "{}")],
    );
    for bad in [r#"{"tags":{}}"#, r#"{"deviceId":"d"}"#, r#"{"deviceId":"d","tags":[]}"#, "[1]"] {
        assert!(read("twins", json_value(bad)).is_err(), "{bad}");
    }
}

#[test]
fn commands() {
    let command = |device: &str, body: &'static str| {
        Effect::Command(Box::new(CommandEffect {
            device: device.into(),
            body: body.into(),
            ..CommandEffect::default()
        }))
    };
    both("commands", r#"{"deviceId":"d","body":"go"}"#, vec![command("d", "go")]);
    both("commands", r#"[{"deviceId":"d","body":{"x":1}}]"#, vec![command("d", r#"{"x":1}"#)]);
    both("commands", r#"{"deviceId":"d","bodyBase64":"Z28="}"#, vec![command("d", "go")]);
    both("reply", r#"{"x":1}"#, vec![command("pump-7", r#"{"x":1}"#)]);
    both("reply", r#"{"deviceId":"other","body":"go"}"#, vec![command("other", "go")]);
    let full = r#"{"deviceId":"d","moduleId":"m","body":"","properties":{"a":1,"b":true},"messageId":"i",
        "correlationId":"c","ttlSeconds":60,"ack":"full"}"#;
    let read_all = read("commands", json_value(full)).unwrap();
    let [Effect::Command(found)] = read_all.as_slice() else { panic!("{read_all:?}") };
    assert_eq!(found.properties, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "true".to_owned())]);
    assert_eq!(
        (found.ttl_seconds, found.ack.as_deref(), found.module.as_str()),
        (Some(60), Some("full"), "m")
    );
    assert!(read("commands", json_value(r#"{"body":"go"}"#)).is_err());
    assert!(read("commands", json_value(r#"{"deviceId":"d","bodyBase64":"?"}"#)).is_err());
}

#[test]
fn events() {
    let event = |body: &str, content_type: Option<&str>| {
        Effect::Event(EventEffect {
            body: body.to_owned().into(),
            content_type: content_type.map(str::to_owned),
            ..EventEffect::default()
        })
    };
    let json_type = Some("application/json");
    both("stream", r#"{"t":1.0}"#, vec![event(r#"{"t":1.0}"#, json_type)]);
    both(
        "stream",
        r#"[{"t":1},{"t":2}]"#,
        vec![event(r#"{"t":1}"#, json_type), event(r#"{"t":2}"#, json_type)],
    );
    assert_eq!(read("stream", Value::Text("hello".into())), Ok(vec![event("hello", None)]));
    assert_eq!(read("stream", Value::Text("7".into())), Ok(vec![event("7", None)]));
    assert_eq!(read("stream", json_value(r#"["a","b"]"#)), Ok(vec![event("a", None), event("b", None)]));
    assert_eq!(read("stream", Value::Bytes("b".into())), Ok(vec![event("b", None)]));
    let lists = [Value::TextList(vec!["a".into()]), Value::BytesList(vec!["a".into()])];
    lists.into_iter().for_each(|list| assert_eq!(read("stream", list), Ok(vec![event("a", None)])));
    assert_eq!(read("stream", json_value("[]")), Ok(vec![]));
    assert_eq!(read("stream", Value::Text("[]".into())), Ok(vec![]));
    assert_eq!(read("stream", json_value("null")), Ok(vec![]));
    assert_eq!(read("stream", Value::Null), Ok(vec![]));
    let envelope = r#"{"deviceId":"d","bodyBase64":"/w==","contentType":"x/y","properties":{"a":"b"}}"#;
    let expected = EventEffect {
        device: Some("d".into()),
        properties: vec![("a".into(), "b".into())],
        content_type: Some("x/y".into()),
        body: Bytes::from_static(&[0xff]),
    };
    both("stream", envelope, vec![Effect::Event(expected)]);
    // An app's own object with a device id is a body, not an envelope.
    both("stream", r#"{"deviceId":"d","t":1}"#, vec![event(r#"{"deviceId":"d","t":1}"#, json_type)]);
    let Ok(keyed) = read("keyed", Value::Text("x".into())) else { panic!() };
    assert!(matches!(&keyed[0], Effect::Event(event) if event.device.as_deref() == Some("k")));
}

#[test]
fn responses_state_and_the_rest() {
    let result = |outputs: Vec<(String, Value)>, returned| {
        produced(
            &spec(),
            &Scope::default(),
            InvocationResult { outcome: Outcome::Success, outputs, returned },
        )
    };
    let message = HttpMessage { status: Some(201), ..HttpMessage::default() };
    let found = result(vec![], Some(Value::Http(Box::new(message.clone())))).unwrap();
    assert_eq!(found.response, Some(message));
    let found = result(vec![], Some(Value::Text("hi".into()))).unwrap().response.unwrap();
    assert_eq!((found.status, found.body), (None, Some(Value::Text("hi".into()))));
    assert_eq!(result(vec![], Some(Value::Null)).unwrap().response.unwrap().status, Some(204));
    let state = json_value(r#"{"a":"Z28=","b":null}"#);
    let found = result(vec![(STATE.into(), state)], None).unwrap().state;
    assert_eq!(found, BTreeMap::from([("a".into(), Some("go".into())), ("b".into(), None)]));
    // What no binding names is dropped; a binding that isn't known is refused.
    assert_eq!(result(vec![("nobody".into(), Value::Int(1))], None), Ok(Produced::default()));
    let error = read("queue", Value::Text("{}".into())).unwrap_err();
    assert!(error.contains("queue") && error.contains("not supported"), "{error}");
    let many = Value::IntList(vec![1; EFFECTS_MAX + 1]);
    assert!(read("stream", many).unwrap_err().contains("more than"));
}
