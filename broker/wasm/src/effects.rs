//! From effects to outputs: what the engine gets.
//!
//! A function declares its outputs in `function.json`; an effect goes to the first output binding of its
//! kind, or to the one that it names. What a function didn't declare it can't do: the whole batch fails.
//! Effects of one binding become one JSON array, in order:
//!
//! | effect | binding | element of the array |
//! |---|---|---|
//! | `realtime` | `signalR` | `{"target","arguments":[…],"userId"?,"groupName"?,"connectionId"?}` |
//! | `group` | `signalR` | `{"action":"add"\|"remove","groupName","userId"?,"connectionId"?}` |
//! | `twin` | `twin` | `{"deviceId","moduleId"?,"properties":{"desired":{…}}}` or `{…,"tags":{…}}` |
//! | `command` | `command` | `{"deviceId","bodyBase64","properties":{…},"ttlSeconds"?}` |
//! | `append` | `eventHub` | `{"deviceId"?,"bodyBase64","contentType"?,"properties":{…}}` |
//! | `respond` | `http` | no array: the response itself |
//!
//! The first three are what the public SDKs write (`functions.md` §4, the service API's twin). An event
//! or a command needs its properties too, so it stands in an envelope, known by its `bodyBase64`.
//!
//! Not here: whether a device exists, and everything else that only the hub can say.

mod form;

use std::collections::BTreeMap;

use bytes::Bytes;
use fleetline_worker::{Binding, HttpMessage, Value};
use serde::Serialize;

use crate::limits::EFFECTS_MAX;
use crate::wit::types::{AppendedEvent, Effect, GroupAction, HttpResponse, RealtimeMessage};

/// Name of the output that is the function's return value.
const RETURN: &str = "$return";

/// What an output binding takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutputKind {
    SignalR,
    Twin,
    Command,
    EventHub,
    Http,
}

impl OutputKind {
    const ALL: [Self; 5] = [Self::SignalR, Self::Twin, Self::Command, Self::EventHub, Self::Http];

    fn name(self) -> &'static str {
        match self {
            Self::SignalR => "signalR",
            Self::Twin => "twin",
            Self::Command => "command",
            Self::EventHub => "eventHub",
            Self::Http => "http",
        }
    }
}

/// One output binding of a function.
#[derive(Debug, Clone)]
struct Output {
    name: String,
    kind: OutputKind,
    /// For `signalR`: the hub.
    hub: Option<String>,
}

/// The outputs that a function has declared.
#[derive(Debug, Clone)]
pub(crate) struct Outputs(Vec<Output>);

impl Outputs {
    /// Reads them from the function's bindings. `Err` names one that can't be used.
    pub(crate) fn of(bindings: &[Binding], settings: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut outputs = Vec::new();
        for binding in bindings.iter().filter(|binding| binding.is_output()) {
            let Some(kind) = OutputKind::ALL.into_iter().find(|kind| binding.is(kind.name())) else {
                return Err(format!("a wasm function has no outputs of type {}", binding.kind));
            };
            let hub = binding.text("hubName").map(|name| resolved(name, settings));
            outputs.push(Output { name: binding.name.clone(), kind, hub });
        }
        Ok(Self(outputs))
    }
}

/// Replaces `%NAME%` by the setting (`functions.md` §2). One that isn't set stays as it is.
fn resolved(text: &str, settings: &BTreeMap<String, String>) -> String {
    let name = text.strip_prefix('%').and_then(|rest| rest.strip_suffix('%'));
    name.and_then(|name| settings.get(name)).map_or_else(|| text.to_owned(), String::clone)
}

/// Why a function's effects can't be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EffectError {
    #[error("the function has no output binding of type {kind}{which}, which effect {index} needs")]
    NotDeclared { index: usize, kind: &'static str, which: String },
    #[error("effect {index}: {reason}")]
    Bad { index: usize, reason: String },
    #[error("the function gave {found} effects, more than {EFFECTS_MAX}")]
    TooMany { found: usize },
}

/// Values of output bindings, and of `$return`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Produced {
    pub(crate) outputs: Vec<(String, Value)>,
    pub(crate) returned: Option<Value>,
}

/// Turns effects into values of the declared outputs.
pub(crate) fn produce(outputs: &Outputs, effects: Vec<Effect>) -> Result<Produced, EffectError> {
    if effects.len() > EFFECTS_MAX {
        return Err(EffectError::TooMany { found: effects.len() });
    }
    let mut lists: Vec<Made> = outputs.0.iter().map(|_| Made::Nothing).collect();
    for (index, effect) in effects.into_iter().enumerate() {
        let place = place(outputs, &effect).ok_or_else(|| EffectError::NotDeclared {
            index,
            kind: kind(&effect).name(),
            which: which(&effect),
        })?;
        lists[place].add(effect).map_err(|reason| EffectError::Bad { index, reason })?;
    }
    let mut produced = Produced::default();
    for (output, made) in outputs.0.iter().zip(lists) {
        match made.into_value() {
            None => {}
            value if output.name == RETURN => produced.returned = value,
            Some(value) => produced.outputs.push((output.name.clone(), value)),
        }
    }
    Ok(produced)
}

fn kind(effect: &Effect) -> OutputKind {
    match effect {
        Effect::Realtime(_) | Effect::Group(_) => OutputKind::SignalR,
        Effect::Twin(_) => OutputKind::Twin,
        Effect::Command(_) => OutputKind::Command,
        Effect::Append(_) => OutputKind::EventHub,
        Effect::Respond(_) => OutputKind::Http,
    }
}

/// The hub that an effect names.
fn hub(effect: &Effect) -> Option<&str> {
    match effect {
        Effect::Realtime(RealtimeMessage { hub, .. }) | Effect::Group(GroupAction { hub, .. }) => {
            hub.as_deref()
        }
        _ => None,
    }
}

fn which(effect: &Effect) -> String {
    match (hub(effect), effect) {
        (Some(hub), _) => format!(" for hub {hub}"),
        (None, Effect::Append(AppendedEvent { output: Some(output), .. })) => format!(" named {output}"),
        (None, _) => String::new(),
    }
}

fn place(outputs: &Outputs, effect: &Effect) -> Option<usize> {
    let kind = kind(effect);
    let fits_hub = |output: &Output| match (hub(effect), &output.hub) {
        (None, _) => true,
        (Some(wanted), Some(found)) => wanted.eq_ignore_ascii_case(found),
        (Some(_), None) => false,
    };
    let fits_name = |output: &Output| match effect {
        Effect::Append(AppendedEvent { output: Some(wanted), .. }) => *wanted == output.name,
        _ => true,
    };
    outputs.0.iter().position(|output| output.kind == kind && fits_hub(output) && fits_name(output))
}

/// What one output has so far.
enum Made {
    Nothing,
    /// Elements of an array as JSON, with commas between them.
    Elements(Vec<u8>),
    Response(Box<HttpMessage>),
}

impl Made {
    fn add(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Realtime(message) => self.push(&form::realtime(&message)?),
            Effect::Group(action) => self.push(&form::group(&action)),
            Effect::Twin(patch) => self.push(&form::twin(&patch)?),
            Effect::Command(command) => self.push(&form::CommandOut::from(&command)),
            Effect::Append(event) => self.push(&form::EventOut::from(&event)),
            Effect::Respond(response) => {
                if matches!(self, Self::Response(_)) {
                    return Err("a request has one response only".into());
                }
                *self = Self::Response(Box::new(http(response)?));
                Ok(())
            }
        }
    }

    fn push(&mut self, element: &impl Serialize) -> Result<(), String> {
        if matches!(self, Self::Nothing) {
            *self = Self::Elements(vec![b'[']);
        }
        let Self::Elements(text) = self else { return Err("a response among other effects".into()) };
        if text.len() > 1 {
            text.push(b',');
        }
        serde_json::to_writer(text, element).map_err(|error| error.to_string())
    }

    fn into_value(self) -> Option<Value> {
        match self {
            Self::Nothing => None,
            Self::Elements(mut text) => {
                text.push(b']');
                Some(Value::Json(text.into()))
            }
            Self::Response(message) => Some(Value::Http(message)),
        }
    }
}

fn http(response: HttpResponse) -> Result<HttpMessage, String> {
    let HttpResponse { status, headers, body } = response;
    // RFC 9110 §15: a status has three digits; 1xx isn't a final one.
    if !(200..=599).contains(&status) {
        return Err(format!("{status} is no status of a response"));
    }
    let body = (!body.is_empty()).then(|| Value::Bytes(Bytes::from(body)));
    Ok(HttpMessage { headers, body, status: Some(status), ..HttpMessage::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::wit::types::{Audience, Command, GroupChange, GroupMember, TwinPatch, TwinSection};

    fn outputs(bindings: Json) -> Outputs {
        let parse = |raw: &Json| Binding::parse(raw.as_object().unwrap().clone()).unwrap();
        let bindings: Vec<_> = bindings.as_array().unwrap().iter().map(parse).collect();
        let settings = BTreeMap::from([("HUB".to_owned(), "live".to_owned())]);
        Outputs::of(&bindings, &settings).unwrap()
    }

    fn all() -> Outputs {
        outputs(json!([
            { "type": "eventHubTrigger", "name": "events", "direction": "in" },
            { "type": "signalR", "name": "screen", "direction": "out", "hubName": "%HUB%" },
            { "type": "SIGNALR", "name": "other", "direction": "OUT", "hubName": "other" },
            { "type": "twin", "name": "twins", "direction": "out" },
            { "type": "command", "name": "commands", "direction": "out" },
            { "type": "eventHub", "name": "stream", "direction": "out" },
            { "type": "eventHub", "name": "second", "direction": "out" },
            { "type": "http", "name": "$return", "direction": "out" },
        ]))
    }

    fn message(hub: Option<&str>, arguments: &str, to: Audience) -> Effect {
        let (hub, target, arguments) = (hub.map(str::to_owned), "show".into(), arguments.into());
        Effect::Realtime(RealtimeMessage { hub, target, arguments, to })
    }

    fn event(output: Option<&str>) -> Effect {
        Effect::Append(AppendedEvent {
            output: output.map(str::to_owned),
            device_id: Some("d".into()),
            properties: vec![("a".into(), "b".into())],
            content_type: None,
            body: vec![0xff],
        })
    }

    fn patch(section: TwinSection, patch: &str) -> Effect {
        Effect::Twin(TwinPatch { device_id: "d".into(), module_id: None, section, patch: patch.into() })
    }

    fn respond(status: u16) -> Effect {
        Effect::Respond(HttpResponse { status, headers: vec![], body: b"x".to_vec() })
    }

    #[track_caller]
    fn check(effects: Vec<Effect>, expected: &[(&str, &str)]) {
        let produced = produce(&all(), effects).unwrap();
        let text = |value: &'_ Value| match value {
            Value::Json(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        let found: Vec<_> =
            produced.outputs.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
        let expected: Vec<_> = expected.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn effects_of_a_binding_become_one_array() {
        let action = GroupAction {
            hub: None,
            group: "g".into(),
            member: GroupMember::User("u".into()),
            change: GroupChange::Add,
        };
        // Numbers keep their digits: they aren't read as numbers.
        check(
            vec![
                message(None, "[1.10]", Audience::All),
                message(Some("LIVE"), "[12345678901234567890]", Audience::Group("g".into())),
                Effect::Group(action),
            ],
            &[(
                "screen",
                concat!(
                    r#"[{"target":"show","arguments":[1.10]},"#,
                    r#"{"target":"show","arguments":[12345678901234567890],"groupName":"g"},"#,
                    r#"{"action":"add","userId":"u","groupName":"g"}]"#
                ),
            )],
        );
    }

    #[test]
    fn an_effect_goes_to_the_binding_that_it_names() {
        check(
            vec![
                message(Some("other"), "[]", Audience::User("u".into())),
                event(Some("second")),
                event(None),
            ],
            &[
                ("other", r#"[{"target":"show","arguments":[],"userId":"u"}]"#),
                ("stream", r#"[{"deviceId":"d","bodyBase64":"/w==","properties":{"a":"b"}}]"#),
                ("second", r#"[{"deviceId":"d","bodyBase64":"/w==","properties":{"a":"b"}}]"#),
            ],
        );
    }

    #[test]
    fn twins_and_commands_have_the_service_apis_form() {
        let command = Command {
            device_id: "d".into(),
            body: b"go".to_vec(),
            properties: vec![],
            ttl_seconds: Some(60),
        };
        check(
            vec![
                patch(TwinSection::Desired, r#"{"a":null}"#),
                patch(TwinSection::Tags, r#"{"b":1}"#),
                Effect::Command(command),
            ],
            &[
                (
                    "twins",
                    r#"[{"deviceId":"d","properties":{"desired":{"a":null}}},{"deviceId":"d","tags":{"b":1}}]"#,
                ),
                ("commands", r#"[{"deviceId":"d","bodyBase64":"Z28=","properties":{},"ttlSeconds":60}]"#),
            ],
        );
    }

    #[test]
    fn a_response_is_the_return_value() {
        let produced = produce(&all(), vec![respond(201)]).unwrap();
        let Some(Value::Http(message)) = produced.returned else { panic!("{produced:?}") };
        assert_eq!((message.status, message.body), (Some(201), Some(Value::Bytes("x".into()))));
        assert_eq!(produced.outputs, []);
    }

    #[test]
    fn what_was_not_declared_is_refused() {
        let none = outputs(json!([{ "type": "twin", "name": "twins", "direction": "out" }]));
        let refused = |effect: Effect| produce(&none, vec![effect]).unwrap_err().to_string();
        let text = "the function has no output binding of type eventHub, which effect 0 needs";
        assert_eq!(refused(event(None)), text);
        assert!(refused(respond(200)).contains("type http"));
        assert!(refused(message(None, "[]", Audience::All)).contains("type signalR"));
        let error = produce(&all(), vec![respond(200), message(Some("x"), "[]", Audience::All)]).unwrap_err();
        assert!(error.to_string().contains("signalR for hub x, which effect 1"), "{error}");
        let error = produce(&all(), vec![event(Some("third"))]).unwrap_err();
        assert!(error.to_string().contains("named third"), "{error}");
    }

    #[test]
    fn bad_effects_are_refused() {
        let bad = [
            message(None, "{}", Audience::All),
            message(None, "[1", Audience::All),
            message(None, "[] []", Audience::All),
            patch(TwinSection::Tags, "[]"),
            patch(TwinSection::Tags, ""),
            respond(99),
            respond(101),
            respond(600),
        ];
        for effect in bad {
            let text = format!("{effect:?}");
            assert!(
                matches!(produce(&all(), vec![effect]), Err(EffectError::Bad { index: 0, .. })),
                "{text}"
            );
        }
        let twice = produce(&all(), vec![respond(200), respond(200)]);
        assert!(matches!(twice, Err(EffectError::Bad { index: 1, .. })), "{twice:?}");
        let many = (0..=EFFECTS_MAX).map(|_| event(None)).collect();
        assert_eq!(produce(&all(), many), Err(EffectError::TooMany { found: EFFECTS_MAX + 1 }));
    }
}
