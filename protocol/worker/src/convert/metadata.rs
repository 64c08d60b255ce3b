//! Definitions of functions: what a worker reports, and `function.json` (§2, §6.3).

use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::ConvertError;
use crate::model::{Binding, Direction, FunctionMetadata, RetryPolicy, RetryStrategy};
use crate::rpc;

/// A function as a worker reports it. Its id becomes its name: a worker's own id may differ in the
/// next process.
pub fn function_from(metadata: &rpc::RpcFunctionMetadata) -> Result<FunctionMetadata, ConvertError> {
    let bindings = if metadata.raw_bindings.is_empty() {
        metadata.bindings.iter().map(|(name, info)| binding_from(name, info)).collect()
    } else {
        metadata.raw_bindings.iter().map(|raw| raw_binding(raw)).collect::<Result<_, _>>()?
    };
    Ok(FunctionMetadata {
        id: metadata.name.clone(),
        name: metadata.name.clone(),
        entry_point: metadata.entry_point.clone(),
        script_file: metadata.script_file.clone(),
        directory: metadata.directory.clone(),
        bindings,
        retry: metadata.retry_options.as_ref().map(retry_from),
    })
}

fn raw_binding(raw: &str) -> Result<Binding, ConvertError> {
    let map: Map<String, Json> = serde_json::from_str(raw)
        .map_err(|error| ConvertError::Json { what: "a binding", reason: error.to_string() })?;
    Ok(Binding::parse(map)?)
}

fn binding_from(name: &str, info: &rpc::BindingInfo) -> Binding {
    let (direction, text) = match info.direction() {
        rpc::binding_info::Direction::In => (Direction::In, "in"),
        rpc::binding_info::Direction::Out => (Direction::Out, "out"),
        rpc::binding_info::Direction::Inout => (Direction::InOut, "inout"),
    };
    let mut raw: Map<String, Json> =
        info.properties.iter().map(|(key, value)| (key.clone(), Json::from(value.as_str()))).collect();
    for (key, value) in [("name", name), ("type", &info.r#type), ("direction", text)] {
        raw.insert(key.to_owned(), Json::from(value));
    }
    Binding { name: name.to_owned(), kind: info.r#type.clone(), direction, raw }
}

fn retry_from(options: &rpc::RpcRetryOptions) -> RetryPolicy {
    let time = |value: Option<prost_types::Duration>| {
        value.and_then(|value| Duration::try_from(value).ok()).unwrap_or_default()
    };
    let strategy = match options.retry_strategy() {
        rpc::rpc_retry_options::RetryStrategy::FixedDelay => {
            RetryStrategy::Fixed { delay: time(options.delay_interval) }
        }
        rpc::rpc_retry_options::RetryStrategy::ExponentialBackoff => {
            exponential(time(options.minimum_interval), time(options.maximum_interval))
        }
    };
    RetryPolicy { max: u32::try_from(options.max_retry_count).ok(), strategy }
}

/// A longest time below the shortest (not set, mostly) is raised to it.
fn exponential(min: Duration, max: Duration) -> RetryStrategy {
    RetryStrategy::Exponential { min, max: max.max(min) }
}

/// A function whose folder `name` holds this `function.json` (§2); `None` when it is disabled.
pub fn function_json(
    name: &str,
    directory: &str,
    content: &[u8],
) -> Result<Option<FunctionMetadata>, ConvertError> {
    let json: Json = serde_json::from_slice(content)
        .map_err(|error| ConvertError::Json { what: "function.json", reason: error.to_string() })?;
    if json.get("disabled").and_then(Json::as_bool).unwrap_or(false) {
        return Ok(None);
    }
    let text = |key: &str| json.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
    let Some(Json::Array(list)) = json.get("bindings") else {
        return Err(ConvertError::Field { what: "bindings of function.json", found: "no list".to_owned() });
    };
    let mut bindings = Vec::with_capacity(list.len());
    for item in list {
        let Json::Object(map) = item else {
            let found = item.to_string().chars().take(40).collect();
            return Err(ConvertError::Field { what: "a binding of function.json", found });
        };
        bindings.push(Binding::parse(map.clone())?);
    }
    Ok(Some(FunctionMetadata {
        id: name.to_owned(),
        name: name.to_owned(),
        entry_point: text("entryPoint"),
        script_file: text("scriptFile"),
        directory: directory.to_owned(),
        bindings,
        retry: json.get("retry").map(retry_json).transpose()?,
    }))
}

/// §7: `"retry":{"strategy":"fixedDelay","maxRetryCount":5,"delayInterval":"00:00:10"}` or
/// `"exponentialBackoff"` with `minimumInterval`, `maximumInterval`; `-1` = forever.
fn retry_json(retry: &Json) -> Result<RetryPolicy, ConvertError> {
    let interval = |key: &'static str| match retry.get(key).and_then(Json::as_str) {
        None => Ok(Duration::ZERO),
        Some(text) => time_span(text).ok_or(ConvertError::Field { what: key, found: text.to_owned() }),
    };
    let count = retry.get("maxRetryCount").and_then(Json::as_i64).unwrap_or(-1);
    let name = retry.get("strategy").and_then(Json::as_str).unwrap_or_default();
    let strategy = match name.to_ascii_lowercase().as_str() {
        "fixeddelay" => RetryStrategy::Fixed { delay: interval("delayInterval")? },
        "exponentialbackoff" => exponential(interval("minimumInterval")?, interval("maximumInterval")?),
        _ => return Err(ConvertError::Field { what: "retry strategy", found: name.to_owned() }),
    };
    Ok(RetryPolicy { max: u32::try_from(count).ok(), strategy })
}

/// `hh:mm:ss`.
fn time_span(text: &str) -> Option<Duration> {
    let mut parts = text.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let minutes = hours.checked_mul(60)?.checked_add(minutes)?;
    Some(Duration::from_secs(minutes.checked_mul(60)?.checked_add(seconds)?))
}

/// `function` as a worker that doesn't index apps itself is told to load it. `script` is the whole
/// path of its script.
#[must_use]
pub fn metadata_to(function: &FunctionMetadata, script: &str, language: &str) -> rpc::RpcFunctionMetadata {
    let bindings = function.bindings.iter().map(|binding| (binding.name.clone(), binding_to(binding)));
    let raw = function.bindings.iter().map(|binding| Json::Object(binding.raw.clone()).to_string());
    rpc::RpcFunctionMetadata {
        name: function.name.clone(),
        directory: function.directory.clone(),
        script_file: script.to_owned(),
        entry_point: function.entry_point.clone(),
        bindings: bindings.collect(),
        raw_bindings: raw.collect(),
        function_id: function.id.clone(),
        language: language.to_owned(),
        ..Default::default()
    }
}

fn binding_to(binding: &Binding) -> rpc::BindingInfo {
    use rpc::binding_info::{DataType, Direction as RpcDirection};
    let data_type = match binding.text("dataType").map(str::to_ascii_lowercase).as_deref() {
        Some("string") => DataType::String,
        Some("binary") => DataType::Binary,
        Some("stream") => DataType::Stream,
        _ => DataType::Undefined,
    };
    let direction = match binding.direction {
        Direction::In => RpcDirection::In,
        Direction::Out => RpcDirection::Out,
        Direction::InOut => RpcDirection::Inout,
    };
    rpc::BindingInfo {
        r#type: binding.kind.clone(),
        direction: direction.into(),
        data_type: data_type.into(),
        ..Default::default()
    }
}
