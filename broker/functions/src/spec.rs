//! A function as the engine runs it: its trigger, inputs and outputs, read from the bindings that a worker
//! has reported.
//!
//! Workers write enums in different cases (functions.md §2), so everything is compared in any case.
//! `%SETTING%` is resolved here, once; binding expressions are kept for each invocation.

use std::collections::BTreeMap;

use fleetline_worker::{Binding, FunctionMetadata};
use serde_json::Value as Json;

use crate::expression::json_with_settings;
use crate::ncrontab::Schedule;
use crate::route::Route;

/// How a record's body is given to a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataType {
    /// JSON when it is some, else text, else bytes.
    Any,
    Text,
    Binary,
}

/// What of the stream starts a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// Records (`eventHubTrigger`).
    Events,
    /// Changes of twins (`twinTrigger`).
    Twins,
    /// Events of the hub in Event Grid's form (`eventGridTrigger`).
    HubEvents,
}

/// A trigger on the stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamTrigger {
    pub(crate) kind: StreamKind,
    pub(crate) many: bool,
    pub(crate) data_type: DataType,
    /// The consumer group that the binding names.
    pub(crate) group: Option<String>,
    /// Message sources of hub events that it gets beside (or, for hub events, instead of) what it gets
    /// anyway; lower case.
    pub(crate) sources: Vec<String>,
    /// Event types of Event Grid that it gets; lower case. Empty: all.
    pub(crate) types: Vec<String>,
    /// Gets what it has put into the stream itself, too.
    pub(crate) own: bool,
    /// The name that the binding gives the hub.
    pub(crate) hub_name: String,
}

/// Who may call a function over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthLevel {
    Anonymous,
    Function,
    Admin,
}

/// An HTTP trigger.
#[derive(Clone, Debug)]
pub(crate) struct HttpTrigger {
    /// Upper case. Empty: all.
    pub(crate) methods: Vec<String>,
    pub(crate) route: Route,
    pub(crate) level: AuthLevel,
}

/// A timer.
#[derive(Clone, Debug)]
pub(crate) struct TimerTrigger {
    pub(crate) schedule: Schedule,
    pub(crate) monitored: bool,
    pub(crate) on_startup: bool,
}

/// Events of realtime clients.
#[derive(Clone, Debug)]
pub(crate) struct SignalRTrigger {
    pub(crate) hub: String,
    pub(crate) category: String,
    pub(crate) event: String,
    pub(crate) parameters: Vec<String>,
}

/// What starts a function.
#[derive(Clone, Debug)]
pub(crate) enum Trigger {
    Stream(StreamTrigger),
    Http(HttpTrigger),
    Timer(Box<TimerTrigger>),
    SignalR(SignalRTrigger),
}

/// A function.
#[derive(Clone, Debug)]
pub(crate) struct FunctionSpec {
    pub(crate) name: String,
    /// With settings resolved.
    pub(crate) metadata: FunctionMetadata,
    /// The trigger's parameter.
    pub(crate) parameter: String,
    /// `Err` says why it can't run.
    pub(crate) trigger: Result<Trigger, String>,
    /// An Event Grid trigger also answers webhooks.
    pub(crate) is_webhook: bool,
    pub(crate) disabled: bool,
}

impl FunctionSpec {
    /// Reads it.
    pub(crate) fn read(
        mut metadata: FunctionMetadata,
        load_error: Option<String>,
        settings: &BTreeMap<String, String>,
        disabled: bool,
    ) -> FunctionSpec {
        for binding in &mut metadata.bindings {
            binding.raw.values_mut().for_each(|value| json_with_settings(value, settings));
        }
        let found = metadata.trigger().cloned();
        let parameter = found.as_ref().map(|binding| binding.name.clone()).unwrap_or_default();
        let trigger = match (&load_error, &found) {
            (Some(error), _) => Err(error.clone()),
            (None, None) => Err("the function has no trigger".to_owned()),
            (None, Some(binding)) => trigger(&metadata.name, binding, settings),
        };
        let is_webhook = found.as_ref().is_some_and(|binding| binding.is("eventGridTrigger"));
        // As the public host: a setting turns a function off too.
        let off = settings.get(&format!("AzureWebJobs.{}.Disabled", metadata.name));
        let off = off.is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1");
        FunctionSpec {
            name: metadata.name.clone(),
            metadata,
            parameter,
            trigger,
            is_webhook,
            disabled: disabled || off,
        }
    }

    /// Its trigger, when it runs.
    pub(crate) fn active(&self) -> Option<&Trigger> {
        self.trigger.as_ref().ok().filter(|_| !self.disabled)
    }

    pub(crate) fn outputs(&self) -> impl Iterator<Item = &Binding> {
        self.metadata.bindings.iter().filter(|binding| binding.is_output() && !binding.is_trigger())
    }

    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Binding> {
        self.metadata.bindings.iter().filter(|binding| !binding.is_output() && !binding.is_trigger())
    }

    /// The trigger's type, for people.
    pub(crate) fn trigger_name(&self) -> &str {
        self.metadata.trigger().map_or("none", |binding| binding.kind.as_str())
    }
}

fn trigger(
    function: &str,
    binding: &Binding,
    settings: &BTreeMap<String, String>,
) -> Result<Trigger, String> {
    if binding.is("eventHubTrigger") {
        return Ok(Trigger::Stream(stream(binding, StreamKind::Events)));
    }
    if binding.is("twinTrigger") {
        return Ok(Trigger::Stream(stream(binding, StreamKind::Twins)));
    }
    if binding.is("eventGridTrigger") {
        return Ok(Trigger::Stream(StreamTrigger { many: false, ..stream(binding, StreamKind::HubEvents) }));
    }
    if binding.is("httpTrigger") {
        return http(function, binding).map(Trigger::Http);
    }
    if binding.is("timerTrigger") {
        return timer(binding, settings).map(|timer| Trigger::Timer(Box::new(timer)));
    }
    if binding.is("signalRTrigger") {
        return signalr(binding).map(Trigger::SignalR);
    }
    Err(format!("triggers of type {} are not supported", binding.kind))
}

fn stream(binding: &Binding, kind: StreamKind) -> StreamTrigger {
    let named = |key: &str| binding.text(key).filter(|text| !text.is_empty()).map(str::to_owned);
    // The public host means one record unless it is said otherwise.
    let many = binding.text_is("cardinality", "many");
    let data_type = match binding.text("dataType").unwrap_or_default().to_ascii_lowercase().as_str() {
        "string" => DataType::Text,
        "binary" | "stream" => DataType::Binary,
        _ => DataType::Any,
    };
    let list = |key: &str| match binding.property(key) {
        Some(Json::Array(list)) => {
            list.iter().filter_map(Json::as_str).map(str::to_ascii_lowercase).collect::<Vec<_>>()
        }
        Some(Json::String(text)) => text
            .split(',')
            .map(|part| part.trim().to_ascii_lowercase())
            .filter(|part| !part.is_empty())
            .collect(),
        _ => Vec::new(),
    };
    StreamTrigger {
        kind,
        many,
        data_type,
        group: named("consumerGroup"),
        sources: list("sources"),
        types: list("eventTypes"),
        own: flag(binding, "own").unwrap_or(false),
        hub_name: named("eventHubName").unwrap_or_default(),
    }
}

fn http(function: &str, binding: &Binding) -> Result<HttpTrigger, String> {
    let level = match binding.text("authLevel").unwrap_or("function").to_ascii_lowercase().as_str() {
        "anonymous" => AuthLevel::Anonymous,
        "function" => AuthLevel::Function,
        "admin" | "system" => AuthLevel::Admin,
        // Whoever misspells it doesn't open the door.
        other => return Err(format!("authLevel {other} is not known")),
    };
    let methods = match binding.property("methods") {
        Some(Json::Array(list)) => {
            list.iter().filter_map(Json::as_str).map(str::to_ascii_uppercase).collect::<Vec<_>>()
        }
        Some(Json::String(text)) => text.split(',').map(|part| part.trim().to_ascii_uppercase()).collect(),
        _ => Vec::new(),
    };
    let route = binding.text("route").filter(|route| !route.is_empty()).unwrap_or(function);
    Ok(HttpTrigger { methods, route: Route::parse(route)?, level })
}

fn timer(binding: &Binding, settings: &BTreeMap<String, String>) -> Result<TimerTrigger, String> {
    let text = binding.text("schedule").ok_or("the timer has no schedule")?;
    let zone = settings.get("WEBSITE_TIME_ZONE").map(String::as_str).unwrap_or_default();
    let schedule = Schedule::parse(text, zone).map_err(|error| error.to_string())?;
    let monitored = flag(binding, "useMonitor").unwrap_or_else(|| schedule.is_monitored_by_default());
    Ok(TimerTrigger { schedule, monitored, on_startup: flag(binding, "runOnStartup").unwrap_or(false) })
}

fn signalr(binding: &Binding) -> Result<SignalRTrigger, String> {
    let needed = |key: &str| {
        binding.text(key).map(str::to_ascii_lowercase).ok_or_else(|| format!("the trigger has no {key}"))
    };
    let parameters = match binding.property("parameterNames") {
        Some(Json::Array(list)) => list.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    Ok(SignalRTrigger {
        hub: needed("hubName")?,
        category: needed("category")?,
        event: needed("event")?,
        parameters,
    })
}

/// A flag, written as one or as text.
pub(crate) fn flag(binding: &Binding, key: &str) -> Option<bool> {
    match binding.property(key)? {
        Json::Bool(flag) => Some(*flag),
        Json::String(text) => text.to_ascii_lowercase().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(bindings: Json) -> FunctionSpec {
        let parse = |raw: &Json| Binding::parse(raw.as_object().unwrap().clone()).unwrap();
        let bindings = bindings.as_array().unwrap().iter().map(parse).collect();
        let metadata = FunctionMetadata { name: "Fn".into(), bindings, ..FunctionMetadata::default() };
        let settings = [("GROUP", "mine"), ("CRON", "0 * * * * *"), ("WEBSITE_TIME_ZONE", "Europe/Berlin")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        FunctionSpec::read(metadata, None, &settings, false)
    }

    /// Python's spelling and Node's mean the same.
    #[test]
    fn any_case() {
        for (many, kind) in [("MANY", "eventHubTrigger"), ("many", "EventHubTrigger")] {
            let spec = spec(json!([{ "type": kind, "direction": "IN", "name": "e", "cardinality": many,
                "dataType": "BINARY", "consumerGroup": "%GROUP%", "eventHubName": "hub" }]));
            let Some(Trigger::Stream(stream)) = spec.active() else { panic!("{spec:?}") };
            assert!(stream.many && stream.data_type == DataType::Binary && stream.kind == StreamKind::Events);
            assert_eq!(stream.group.as_deref(), Some("mine"));
        }
    }

    #[test]
    fn kinds() {
        let http = spec(
            json!([{ "type": "httpTrigger", "authLevel": "ANONYMOUS", "name": "req", "methods": ["get"] },
            { "type": "http", "direction": "OUT", "name": "$return" }]),
        );
        let Some(Trigger::Http(trigger)) = http.active() else { panic!("{http:?}") };
        assert_eq!(
            (trigger.level, trigger.methods.as_slice()),
            (AuthLevel::Anonymous, &["GET".to_owned()][..])
        );
        assert_eq!(http.outputs().count(), 1);
        let timer = spec(json!([{ "type": "timerTrigger", "name": "t", "schedule": "%CRON%" }]));
        assert!(matches!(timer.active(), Some(Trigger::Timer(timer)) if timer.monitored));
        let grid = spec(json!([{ "type": "eventGridTrigger", "name": "e" }]));
        assert!(grid.is_webhook && matches!(grid.active(), Some(Trigger::Stream(stream)) if !stream.many));
        let signalr = spec(json!([{ "type": "signalRTrigger", "name": "i", "hubName": "Live",
            "category": "messages", "event": "Send", "parameterNames": ["a"] }]));
        assert!(matches!(signalr.active(), Some(Trigger::SignalR(trigger)) if trigger.event == "send"));
    }

    #[test]
    fn what_can_not_run_says_why() {
        let reason = |bindings: Json| spec(bindings).trigger.unwrap_err();
        assert_eq!(reason(json!([])), "the function has no trigger");
        assert!(reason(json!([{ "type": "blobTrigger", "name": "b" }])).contains("blobTrigger"));
        assert!(
            reason(json!([{ "type": "timerTrigger", "name": "b", "schedule": "often" }])).contains("fields")
        );
        let misspelt = json!([{ "type": "httpTrigger", "name": "r", "authLevel": "anonymus" }]);
        assert!(reason(misspelt).contains("anonymus"));
    }

    #[test]
    fn a_setting_turns_a_function_off() {
        let metadata = FunctionMetadata { name: "Fn".into(), ..FunctionMetadata::default() };
        let settings = BTreeMap::from([("AzureWebJobs.Fn.Disabled".to_owned(), "True".to_owned())]);
        assert!(FunctionSpec::read(metadata, None, &settings, false).disabled);
    }
}
