//! The JSON of each effect, as it stands in an output's array. See the table of the parent module.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::wit::types::{
    AppendedEvent, Audience, Command, GroupAction, GroupChange, GroupMember, RealtimeMessage, TwinPatch,
    TwinSection,
};

/// JSON that a function wrote, as it stands: numbers keep their digits. `first` is `[` or `{`.
fn json<'a>(what: &str, text: &'a str, first: char) -> Result<&'a RawValue, String> {
    let raw: &RawValue =
        serde_json::from_str(text).map_err(|error| format!("{what} is not JSON: {error}"))?;
    match raw.get().starts_with(first) {
        true => Ok(raw),
        false => Err(format!("{what} has to start with {first}")),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RealtimeOut<'a> {
    target: &'a str,
    arguments: &'a RawValue,
    #[serde(flatten)]
    to: To<'a>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct To<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_id: Option<&'a str>,
}

pub(super) fn realtime(message: &RealtimeMessage) -> Result<RealtimeOut<'_>, String> {
    let to = match &message.to {
        Audience::All => To::default(),
        Audience::User(user) => To { user_id: Some(user), ..To::default() },
        Audience::Group(group) => To { group_name: Some(group), ..To::default() },
        Audience::Connection(connection) => To { connection_id: Some(connection), ..To::default() },
    };
    Ok(RealtimeOut { target: &message.target, arguments: json("arguments", &message.arguments, '[')?, to })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GroupOut<'a> {
    action: &'a str,
    #[serde(flatten)]
    to: To<'a>,
}

pub(super) fn group(action: &GroupAction) -> GroupOut<'_> {
    let group_name = Some(action.group.as_str());
    let to = match &action.member {
        GroupMember::User(user) => To { user_id: Some(user), group_name, connection_id: None },
        GroupMember::Connection(id) => To { user_id: None, group_name, connection_id: Some(id) },
    };
    let action = match action.change {
        GroupChange::Add => "add",
        GroupChange::Remove => "remove",
    };
    GroupOut { action, to }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TwinOut<'a> {
    device_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<DesiredOut<'a>>,
}

#[derive(Serialize)]
struct DesiredOut<'a> {
    desired: &'a RawValue,
}

pub(super) fn twin(patch: &TwinPatch) -> Result<TwinOut<'_>, String> {
    let document = json("patch", &patch.patch, '{')?;
    let (tags, properties) = match patch.section {
        TwinSection::Tags => (Some(document), None),
        TwinSection::Desired => (None, Some(DesiredOut { desired: document })),
    };
    let device_id = &patch.device_id;
    Ok(TwinOut { device_id, module_id: patch.module_id.as_deref(), tags, properties })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CommandOut<'a> {
    device_id: &'a str,
    body_base64: String,
    properties: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<u32>,
}

impl<'a> From<&'a Command> for CommandOut<'a> {
    fn from(command: &'a Command) -> Self {
        Self {
            device_id: &command.device_id,
            body_base64: BASE64.encode(&command.body),
            properties: properties(&command.properties),
            ttl_seconds: command.ttl_seconds,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<&'a str>,
    body_base64: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    properties: BTreeMap<&'a str, &'a str>,
}

impl<'a> From<&'a AppendedEvent> for EventOut<'a> {
    fn from(event: &'a AppendedEvent) -> Self {
        Self {
            device_id: event.device_id.as_deref(),
            body_base64: BASE64.encode(&event.body),
            content_type: event.content_type.as_deref(),
            properties: properties(&event.properties),
        }
    }
}

fn properties(pairs: &[(String, String)]) -> BTreeMap<&str, &str> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
