//! Results and log lines of a worker.

use bytes::Bytes;

use super::ConvertError;
use crate::model::{
    Cookie, FunctionError, HttpMessage, InvocationResult, LogLevel, LogLine, Outcome, SameSite, Value,
};
use crate::rpc::{self, parameter_binding::RpcData, typed_data::Data};

/// How an invocation ended and what it gave.
///
/// A value that can't be read makes it a failure: the function ran, but its result is lost.
#[must_use]
pub fn invocation_result(response: rpc::InvocationResponse) -> InvocationResult {
    let outcome = outcome(response.result.unwrap_or_default());
    if outcome != Outcome::Success {
        return InvocationResult { outcome, outputs: Vec::new(), returned: None };
    }
    match values(response.output_data, response.return_value) {
        Ok((outputs, returned)) => InvocationResult { outcome, outputs, returned },
        Err(error) => {
            let kind = "ResultError".to_owned();
            let error = FunctionError { message: error.to_string(), stack: String::new(), kind };
            InvocationResult { outcome: Outcome::Failure(error), outputs: Vec::new(), returned: None }
        }
    }
}

fn outcome(result: rpc::StatusResult) -> Outcome {
    match result.status() {
        rpc::status_result::Status::Success => Outcome::Success,
        rpc::status_result::Status::Cancelled => Outcome::Cancelled,
        rpc::status_result::Status::Failure => Outcome::Failure(error_of(result)),
    }
}

/// What a failed result says went wrong.
#[must_use]
pub fn error_of(result: rpc::StatusResult) -> FunctionError {
    let Some(exception) = result.exception else {
        let message = if result.result.is_empty() { "no reason given".to_owned() } else { result.result };
        return FunctionError { message, ..FunctionError::default() };
    };
    FunctionError { message: exception.message, stack: exception.stack_trace, kind: exception.r#type }
}

type Values = (Vec<(String, Value)>, Option<Value>);

fn values(
    outputs: Vec<rpc::ParameterBinding>,
    returned: Option<rpc::TypedData>,
) -> Result<Values, ConvertError> {
    let mut list = Vec::with_capacity(outputs.len());
    for output in outputs {
        let value = match output.rpc_data {
            Some(RpcData::Data(data)) => value_from(data)?,
            Some(RpcData::RpcSharedMemory(_)) => return Err(ConvertError::Form { form: "shared memory" }),
            None => Value::Null,
        };
        list.push((output.name, value));
    }
    let returned = returned.map(value_from).transpose()?;
    Ok((list, returned.filter(|value| !value.is_null())))
}

/// The value in a `TypedData`.
pub fn value_from(data: rpc::TypedData) -> Result<Value, ConvertError> {
    Ok(match data.data {
        None => Value::Null,
        Some(Data::String(text)) => Value::Text(text),
        Some(Data::Json(text)) => Value::Json(Bytes::from(text)),
        Some(Data::Bytes(bytes) | Data::Stream(bytes)) => Value::Bytes(bytes),
        Some(Data::Http(message)) => Value::Http(Box::new(http(*message)?)),
        Some(Data::Int(number)) => Value::Int(number),
        Some(Data::Double(number)) => Value::Double(number),
        Some(Data::CollectionBytes(list)) => Value::BytesList(list.bytes),
        Some(Data::CollectionString(list)) => Value::TextList(list.string),
        Some(Data::CollectionDouble(list)) => Value::DoubleList(list.double),
        Some(Data::CollectionSint64(list)) => Value::IntList(list.sint64),
        Some(Data::ModelBindingData(_) | Data::CollectionModelBindingData(_)) => {
            return Err(ConvertError::Form { form: "an SDK type" });
        }
    })
}

fn http(message: rpc::RpcHttp) -> Result<HttpMessage, ConvertError> {
    let pairs = |plain: std::collections::BTreeMap<String, String>,
                 nullable: std::collections::BTreeMap<String, rpc::NullableString>| {
        let nullable =
            nullable.into_iter().map(|(name, value)| (name, text(Some(value)).unwrap_or_default()));
        plain.into_iter().chain(nullable).collect::<Vec<_>>()
    };
    let body = message.body.or(message.raw_body).map(|body| value_from(*body)).transpose()?;
    Ok(HttpMessage {
        method: message.method,
        url: message.url,
        headers: pairs(message.headers, message.nullable_headers),
        query: pairs(message.query, message.nullable_query),
        params: pairs(message.params, message.nullable_params),
        body: body.filter(|body| !body.is_null()),
        status: status(&message.status_code)?,
        cookies: message.cookies.into_iter().map(cookie).collect(),
    })
}

/// §4: "`status_code` is a **string**".
fn status(text: &str) -> Result<Option<u16>, ConvertError> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.trim().parse::<u16>() {
        Ok(status) if (100..=999).contains(&status) => Ok(Some(status)),
        _ => Err(ConvertError::Status { found: text.chars().take(40).collect() }),
    }
}

fn cookie(cookie: rpc::RpcHttpCookie) -> Cookie {
    let same_site = match cookie.same_site() {
        rpc::rpc_http_cookie::SameSite::None => SameSite::Unset,
        rpc::rpc_http_cookie::SameSite::Lax => SameSite::Lax,
        rpc::rpc_http_cookie::SameSite::Strict => SameSite::Strict,
        rpc::rpc_http_cookie::SameSite::ExplicitNone => SameSite::None,
    };
    let flag = |value: Option<rpc::NullableBool>| {
        value.and_then(|value| value.bool).map(|rpc::nullable_bool::Bool::Value(flag)| flag)
    };
    let expires = cookie.expires.and_then(|value| value.timestamp);
    let max_age = cookie.max_age.and_then(|value| value.double);
    Cookie {
        name: cookie.name,
        value: cookie.value,
        // Workers send an attribute that wasn't set as an empty text.
        domain: text(cookie.domain).filter(|text| !text.is_empty()),
        path: text(cookie.path).filter(|text| !text.is_empty()),
        expires_ms: expires.map(|rpc::nullable_timestamp::Timestamp::Value(time)| {
            time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos) / 1_000_000)
        }),
        secure: flag(cookie.secure),
        http_only: flag(cookie.http_only),
        same_site,
        max_age: max_age.map(|rpc::nullable_double::Double::Value(seconds)| seconds),
    }
}

fn text(value: Option<rpc::NullableString>) -> Option<String> {
    value.and_then(|value| value.string).map(|rpc::nullable_string::String::Value(text)| text)
}

/// A line that a worker logs, cut to `limit` bytes; `None` for what isn't a line (level none, metrics).
#[must_use]
pub fn log_line(log: rpc::RpcLog, limit: usize) -> Option<LogLine> {
    use rpc::rpc_log::{Level, RpcLogCategory};
    let category = log.log_category();
    if category == RpcLogCategory::CustomMetric {
        return None;
    }
    let level = match log.level() {
        Level::Trace => LogLevel::Trace,
        Level::Debug => LogLevel::Debug,
        Level::Information => LogLevel::Information,
        Level::Warning => LogLevel::Warning,
        Level::Error => LogLevel::Error,
        Level::Critical => LogLevel::Critical,
        Level::None => return None,
    };
    let mut message = log.message;
    if let Some(exception) = log.exception {
        for part in [exception.message, exception.stack_trace] {
            if !part.is_empty() && !message.contains(&part) {
                message.push('\n');
                message.push_str(&part);
            }
        }
    }
    cut(&mut message, limit);
    Some(LogLine {
        invocation: Some(log.invocation_id).filter(|id| !id.is_empty()),
        level,
        category: log.category,
        message,
        is_system: category == RpcLogCategory::System,
    })
}

/// Shortens `text` to at most `limit` bytes, at a character's edge.
fn cut(text: &mut String, limit: usize) {
    if text.len() <= limit {
        return;
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}
