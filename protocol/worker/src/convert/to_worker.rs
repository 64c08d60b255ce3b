//! Invocations and values as a worker wants them (§4).

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::capabilities::Capabilities;
use crate::model::{FunctionError, HttpMessage, Invocation, RetryContext, Value};
use crate::rpc::{self, parameter_binding::RpcData, typed_data::Data};

/// `invocation` as the message that starts it. `function_id` is the worker's own id of the function.
#[must_use]
pub fn invocation_request(
    invocation: Invocation,
    function_id: &str,
    capabilities: Capabilities,
) -> rpc::InvocationRequest {
    let mut metadata: BTreeMap<String, rpc::TypedData> = BTreeMap::new();
    let http = invocation.inputs.iter().find_map(|(_, value)| match value {
        Value::Http(message) => Some(message.as_ref()),
        _ => None,
    });
    match http {
        // §4: "dropped when worker has `RpcHttpTriggerMetadataRemoved`; else headers, query, params".
        Some(_) if capabilities.no_http_metadata => {}
        other => {
            if let Some(message) = other {
                http_metadata(message, &mut metadata);
            }
            let given = invocation.metadata.into_iter();
            metadata.extend(given.map(|(name, value)| (name, typed_data(value, capabilities))));
        }
    }
    let inputs = invocation.inputs.into_iter();
    rpc::InvocationRequest {
        invocation_id: invocation.id,
        function_id: function_id.to_owned(),
        input_data: inputs.map(|(name, value)| parameter(name, value, capabilities)).collect(),
        trigger_metadata: metadata,
        trace_context: invocation
            .trace_parent
            .map(|trace_parent| rpc::RpcTraceContext { trace_parent, ..Default::default() }),
        // §7: "field absent unless the host has a retry context".
        retry_context: invocation.retry.map(retry_context),
    }
}

fn parameter(name: String, value: Value, capabilities: Capabilities) -> rpc::ParameterBinding {
    rpc::ParameterBinding { name, rpc_data: Some(RpcData::Data(typed_data(value, capabilities))) }
}

fn retry_context(retry: RetryContext) -> rpc::RetryContext {
    rpc::RetryContext {
        retry_count: i32::try_from(retry.count).unwrap_or(i32::MAX),
        max_retry_count: retry.max,
        exception: retry.error.map(exception),
    }
}

fn exception(error: FunctionError) -> rpc::RpcException {
    rpc::RpcException {
        message: error.message,
        stack_trace: error.stack,
        r#type: error.kind,
        ..Default::default()
    }
}

/// `value` in the form that a worker with these capabilities reads.
#[must_use]
pub fn typed_data(value: Value, capabilities: Capabilities) -> rpc::TypedData {
    let data = match value {
        Value::Null => None,
        Value::Text(text) => Some(Data::String(text)),
        Value::Json(bytes) => Some(json(&bytes)),
        Value::Bytes(bytes) => Some(Data::Bytes(bytes)),
        Value::Int(number) => Some(Data::Int(number)),
        Value::Double(number) => Some(Data::Double(number)),
        Value::Http(message) => Some(Data::Http(Box::new(http(*message, capabilities)))),
        list if !capabilities.collections => Some(Data::Json(array(&list))),
        Value::TextList(string) => Some(Data::CollectionString(rpc::CollectionString { string })),
        Value::BytesList(bytes) => Some(Data::CollectionBytes(rpc::CollectionBytes { bytes })),
        Value::IntList(sint64) => Some(Data::CollectionSint64(rpc::CollectionSInt64 { sint64 })),
        Value::DoubleList(double) => Some(Data::CollectionDouble(rpc::CollectionDouble { double })),
    };
    rpc::TypedData { data }
}

/// Bytes that were said to be JSON but aren't text go as bytes: a string field can't hold them.
fn json(bytes: &bytes::Bytes) -> Data {
    match std::str::from_utf8(bytes) {
        Ok(text) => Data::Json(text.to_owned()),
        Err(_) => Data::Bytes(bytes.clone()),
    }
}

/// §4: "`json` array otherwise". Bytes are text where they are UTF-8, else base64, as JSON has none.
fn array(list: &Value) -> String {
    let items: Vec<Json> = match list {
        Value::TextList(list) => list.iter().map(|text| Json::from(text.as_str())).collect(),
        Value::BytesList(list) => list.iter().map(|bytes| text_or_base64(bytes)).collect(),
        Value::IntList(list) => list.iter().copied().map(Json::from).collect(),
        Value::DoubleList(list) => list.iter().copied().map(Json::from).collect(),
        _ => Vec::new(),
    };
    Json::from(items).to_string()
}

fn text_or_base64(bytes: &[u8]) -> Json {
    std::str::from_utf8(bytes).map_or_else(|_| Json::from(base64(bytes)), Json::from)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn http(message: HttpMessage, capabilities: Capabilities) -> rpc::RpcHttp {
    let headers = message.headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
    let headers = headers.filter(|(_, value)| !(capabilities.no_empty_headers && value.is_empty()));
    let headers = joined(headers, |name| if name == "cookie" { "; " } else { ", " });
    let query = joined(message.query.into_iter(), |_| ",");
    let params = joined(message.params.into_iter(), |_| ",");
    let (body, raw_body) = bodies(message.body, &headers, capabilities);
    let mut result = rpc::RpcHttp {
        method: message.method,
        url: message.url,
        body,
        raw_body,
        status_code: message.status.map(|status| status.to_string()).unwrap_or_default(),
        ..Default::default()
    };
    if capabilities.nullable_maps {
        result.nullable_headers = nullable(headers);
        result.nullable_query = nullable(query);
        result.nullable_params = nullable(params);
    } else {
        result.headers = headers;
        result.query = query;
        result.params = params;
    }
    result
}

/// The wire has one value a name, so several are joined, as RFC 9110 §5.3 allows for headers and the
/// original host does for the query.
fn joined(
    pairs: impl Iterator<Item = (String, String)>,
    between: impl Fn(&str) -> &'static str,
) -> BTreeMap<String, String> {
    let mut map: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in pairs {
        match map.get_mut(&name) {
            Some(known) => {
                known.push_str(between(&name));
                known.push_str(&value);
            }
            None => {
                map.insert(name, value);
            }
        }
    }
    map
}

fn nullable(map: BTreeMap<String, String>) -> BTreeMap<String, rpc::NullableString> {
    let wrap = |value| rpc::NullableString { string: Some(rpc::nullable_string::String::Value(value)) };
    map.into_iter().map(|(name, value)| (name, wrap(value))).collect()
}

/// §4: "with `RpcHttpBodyOnly` only `body`; bytes when `RawHttpBodyBytes` or octet/multipart, else
/// string; without it both `body` (JSON parsed) and `rawBody`".
fn bodies(
    body: Option<Value>,
    headers: &BTreeMap<String, String>,
    capabilities: Capabilities,
) -> (Option<Box<rpc::TypedData>>, Option<Box<rpc::TypedData>>) {
    let Some(body) = body else { return (None, None) };
    let content_type = headers.get("content-type").map_or("", String::as_str).to_ascii_lowercase();
    let binary =
        content_type.starts_with("application/octet-stream") || content_type.starts_with("multipart/");
    let raw = typed_data(plain(body, capabilities.body_bytes || binary), capabilities);
    if capabilities.body_only {
        return (Some(Box::new(raw)), None);
    }
    let parsed = match &raw.data {
        Some(Data::String(text)) if content_type.contains("json") && is_json(text) => {
            rpc::TypedData { data: Some(Data::Json(text.clone())) }
        }
        _ => raw.clone(),
    };
    (Some(Box::new(parsed)), Some(Box::new(raw)))
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// A body as bytes, or as text where it is text.
fn plain(body: Value, as_bytes: bool) -> Value {
    match body {
        Value::Text(text) if as_bytes => Value::Bytes(text.into()),
        Value::Json(bytes) if as_bytes => Value::Bytes(bytes),
        Value::Bytes(bytes) | Value::Json(bytes) if !as_bytes => match String::from_utf8(bytes.into()) {
            Ok(text) => Value::Text(text),
            Err(error) => Value::Bytes(error.into_bytes().into()),
        },
        other => other,
    }
}

/// What an HTTP trigger says beside its value to workers that want it: headers, query, and each
/// parameter of the route by its name.
fn http_metadata(message: &HttpMessage, metadata: &mut BTreeMap<String, rpc::TypedData>) {
    let object = |pairs: &[(String, String)]| {
        let map: serde_json::Map<String, Json> =
            pairs.iter().map(|(name, value)| (name.clone(), Json::from(value.as_str()))).collect();
        rpc::TypedData { data: Some(Data::Json(Json::Object(map).to_string())) }
    };
    metadata.insert("Headers".to_owned(), object(&message.headers));
    metadata.insert("Query".to_owned(), object(&message.query));
    for (name, value) in &message.params {
        metadata.insert(name.clone(), rpc::TypedData { data: Some(Data::String(value.clone())) });
    }
}
