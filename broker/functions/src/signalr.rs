//! Functions that realtime clients start (`signalRTrigger`).

use std::sync::Arc;

use fleetline_worker::Value;
use serde_json::{Map, Value as Json, json};

use crate::app::App;
use crate::direct::{Call, CallError, call};
use crate::functions::Functions;
use crate::realtime::{ClientEvent, ClientReply};
use crate::spec::{FunctionSpec, SignalRTrigger, Trigger};

impl Functions {
    /// A realtime client has connected, disconnected, or calls a method. `None` when no function is for that;
    /// the reply is for the client when it waits for one.
    pub async fn on_client_event(&self, event: ClientEvent) -> Option<ClientReply> {
        let (app, spec, trigger) = self.for_client(&event)?;
        let outcome = call(&app, &spec, client_call(app.core.guid(), &trigger, event)).await;
        Some(match outcome {
            Ok(produced) => {
                let value =
                    produced.returned.or_else(|| produced.response.and_then(|response| response.body));
                ClientReply::Result(result(value))
            }
            // The text of an exception is for the client, as with the public extension (signalr.md §4).
            Err(CallError::Failed(error)) => ClientReply::Error(error.message),
            Err(error) => ClientReply::Error(error.to_string()),
        })
    }

    /// Whether a function is for such events: the real-time tier asks before it gathers them.
    pub fn wants_client_event(&self, hub: &str, category: &str, event: &str) -> bool {
        let event = ClientEvent {
            hub: hub.to_owned(),
            category: category.to_owned(),
            event: event.to_owned(),
            ..ClientEvent::default()
        };
        self.for_client(&event).is_some()
    }

    fn for_client(&self, event: &ClientEvent) -> Option<(Arc<App>, Arc<FunctionSpec>, SignalRTrigger)> {
        for app in self.apps() {
            for spec in &app.functions {
                if let Some(Trigger::SignalR(trigger)) = spec.active()
                    && trigger.hub.eq_ignore_ascii_case(&event.hub)
                    && trigger.category.eq_ignore_ascii_case(&event.category)
                    && trigger.event.eq_ignore_ascii_case(&event.event)
                {
                    return Some((app.clone(), spec.clone(), trigger.clone()));
                }
            }
        }
        None
    }
}

fn client_call(id: String, trigger: &SignalRTrigger, event: ClientEvent) -> Call {
    let arguments: Vec<Json> = match event.arguments.is_empty() {
        true => Vec::new(),
        false => serde_json::from_slice(&event.arguments).unwrap_or_default(),
    };
    let texts = |pairs: &[(String, String)]| -> Map<String, Json> {
        pairs.iter().map(|(name, value)| (name.clone(), Json::from(value.as_str()))).collect()
    };
    let mut fields = Map::new();
    for (name, value) in trigger.parameters.iter().zip(&arguments) {
        fields.insert(name.clone(), value.clone());
    }
    let value = json!({
        "Arguments": arguments,
        "Error": event.error,
        "Category": event.category,
        "Event": event.event,
        "Hub": event.hub,
        "ConnectionId": event.connection,
        "UserId": event.user,
        "Headers": texts(&event.headers),
        "Query": texts(&event.query),
        "Claims": texts(&event.claims),
    });
    let metadata = fields.iter().map(|(name, value)| (name.clone(), Value::json(value))).collect();
    let body = value.as_object().cloned().unwrap_or_default();
    Call { id, value: Value::json(&value), metadata, fields, body, retry: None }
}

/// A return value as JSON text; text that is JSON already stays as it is.
fn result(value: Option<Value>) -> bytes::Bytes {
    match value {
        None | Some(Value::Null) => bytes::Bytes::new(),
        Some(Value::Json(json)) => json,
        Some(Value::Text(text)) => Json::from(text).to_string().into(),
        Some(Value::Int(number)) => number.to_string().into(),
        Some(Value::Double(number)) => json!(number).to_string().into(),
        Some(Value::Bytes(bytes)) => {
            Json::from(String::from_utf8_lossy(&bytes).into_owned()).to_string().into()
        }
        Some(Value::TextList(list)) => json!(list).to_string().into(),
        Some(Value::IntList(list)) => json!(list).to_string().into(),
        Some(Value::DoubleList(list)) => json!(list).to_string().into(),
        Some(Value::BytesList(_) | Value::Http(_)) => bytes::Bytes::new(),
    }
}
