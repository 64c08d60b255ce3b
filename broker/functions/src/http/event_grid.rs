//! Webhooks of Event Grid: `POST …/runtime/webhooks/eventgrid?functionName=f&code=key`.
//!
//! Events come in Event Grid's schema (a list) or as CloudEvents 1.0 (one, or a list). Each event is an
//! invocation. A subscription is validated as the public host does: by echoing its code, or, for CloudEvents,
//! by answering `OPTIONS` (CloudEvents webhook specification §4).

use std::sync::Arc;

use fleetline_gateway::http::Body;
use fleetline_worker::Value;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Map, Value as Json, json};

use super::WebRequest;
use super::reply::{Refusal, empty, json_reply};
use crate::app::App;
use crate::direct::{Call, CallError, call};
use crate::functions::Functions;
use crate::ids::guid_of;
use crate::spec::{AuthLevel, FunctionSpec};

/// Events in one request; Event Grid sends at most 5,000.
const EVENTS_MAX: usize = 5_000;
const VALIDATION: &str = "Microsoft.EventGrid.SubscriptionValidationEvent";
const DELETION: &str = "Microsoft.EventGrid.SubscriptionDeletedEvent";

impl Functions {
    /// Answers beneath `runtime/`.
    pub(crate) async fn webhook(
        self: &Arc<Self>,
        app: &Arc<App>,
        request: WebRequest,
        path: &[String],
    ) -> Result<Response<Body>, Refusal> {
        let is_event_grid = matches!(path, [webhooks, kind]
            if webhooks.eq_ignore_ascii_case("webhooks") && kind.eq_ignore_ascii_case("eventgrid"));
        if !is_event_grid {
            return Err(Refusal::not_found("there is no such webhook"));
        }
        let name =
            request.parameter("functionName").ok_or_else(|| Refusal::bad("functionName is missing"))?;
        let spec = app.function(name).filter(|spec| spec.is_webhook && spec.active().is_some()).cloned();
        // Whoever has no key hears the same for functions that are there and that aren't.
        let known = spec.as_ref().map_or("", |spec| spec.name.as_str());
        if !self.may_call(app, AuthLevel::Function, known, &request) {
            return Err(Refusal::unauthorized());
        }
        let spec =
            spec.ok_or_else(|| Refusal::not_found("no function of this name has an Event Grid trigger"))?;
        match request.method {
            Method::OPTIONS => Ok(allow(&request)),
            Method::POST => self.events(app, &spec, &request).await,
            _ => Err(Refusal::method("webhooks take POST and OPTIONS")),
        }
    }

    async fn events(
        self: &Arc<Self>,
        app: &Arc<App>,
        spec: &Arc<FunctionSpec>,
        request: &WebRequest,
    ) -> Result<Response<Body>, Refusal> {
        let bad = |error: serde_json::Error| Refusal::bad(format!("the body is not JSON: {error}"));
        let mut events = match serde_json::from_slice(&request.body).map_err(bad)? {
            Json::Array(list) => list,
            event @ Json::Object(_) => vec![event],
            _ => return Err(Refusal::bad("the body is neither an event nor a list of events")),
        };
        if events.len() > EVENTS_MAX {
            return Err(Refusal::too_large(format!("more than {EVENTS_MAX} events")));
        }
        if let Some(event) = binary_event(request, &events) {
            events = vec![event];
        }
        let is_kind = |event: &Json, kind: &str| event["eventType"].as_str() == Some(kind);
        if let Some(event) = events.iter().find(|event| is_kind(event, VALIDATION)) {
            let code = event["data"]["validationCode"].as_str().unwrap_or_default();
            return Ok(json_reply(StatusCode::OK, &json!({ "validationResponse": code })));
        }
        if events.iter().any(|event| !event.is_object()) {
            return Err(Refusal::bad("an event is not an object"));
        }
        for event in events.into_iter().filter(|event| !is_kind(event, DELETION)) {
            match call(app, spec, event_call(app, spec, event)).await {
                Ok(_) => {}
                // The sender repeats the request (functions.md §7).
                Err(CallError::NotRun(reason)) => return Err(Refusal::unavailable(reason)),
                Err(_) => return Err(Refusal::failed("the function failed")),
            }
        }
        Ok(empty(StatusCode::ACCEPTED))
    }
}

/// A CloudEvent whose attributes are headers (HTTP binding, binary mode).
fn binary_event(request: &WebRequest, body: &[Json]) -> Option<Json> {
    request.header("ce-specversion")?;
    let mut event = Map::new();
    for (name, value) in &request.headers {
        if let (Some(name), Ok(value)) = (name.as_str().strip_prefix("ce-"), value.to_str()) {
            event.insert(name.to_owned(), value.into());
        }
    }
    event.insert("data".to_owned(), body.first().cloned().unwrap_or(Json::Null));
    Some(Json::Object(event))
}

fn event_call(app: &App, spec: &FunctionSpec, event: Json) -> Call {
    // The event's own id, so that one that is sent again has the same.
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let id = match text("id") {
        id if id.is_empty() => app.core.guid(),
        id => guid_of(&["webhook", &app.name, &spec.name, &text("source"), &text("topic"), &id]),
    };
    let data = event.get("data").cloned().unwrap_or(Json::Null);
    let body = event.as_object().cloned().unwrap_or_default();
    let mut fields = Map::new();
    fields.insert("data".to_owned(), data.clone());
    let metadata = vec![("data".to_owned(), Value::json(&data))];
    Call { id, value: Value::json(&event), metadata, fields, body, retry: None }
}

/// The handshake of CloudEvents webhooks.
fn allow(request: &WebRequest) -> Response<Body> {
    let mut response = empty(StatusCode::OK);
    if let Some(origin) = request.headers.get("webhook-request-origin") {
        response.headers_mut().insert("webhook-allowed-origin", origin.clone());
        response.headers_mut().insert("webhook-allowed-rate", HeaderValue::from_static("*"));
    }
    response
}
