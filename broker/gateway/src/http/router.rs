//! From method and path to what is asked.
//!
//! Words of paths are matched in any case, a trailing slash is nothing, ids are decoded and compared
//! exactly. Ids are checked here: what isn't one of the registry's alphabet never becomes a key.

use fleetline_devices::{DeviceKey, Settle};
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::names::{check_device_id, check_module_id};
use http::Method;

use super::call::Call;
use super::errors::HttpError;
use super::path::{Query, decode_segment, segments};
use super::reply::Answer;
use super::{caller, device, objects, service, websocket};

/// The container of uploaded files.
pub(super) const CONTAINER: &str = "uploads";

/// The oldest version of the API that is spoken.
const API_VERSION_MIN: &str = "2016-11-14";

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/$iothub/websocket`, `/$servicebus/websocket`.
    WebSocket,
    /// A device or module, about itself.
    Device(DeviceKey, DeviceCall),
    /// A service.
    Service(ServiceCall),
    /// An operator, about the hub's settings.
    Hub(HubCall),
    /// A file, by its name in the container.
    Object(String),
}

/// What a device asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DeviceCall {
    /// Send one message, or a batch.
    SendEvents,
    /// Take a command.
    ReceiveCommand,
    /// Settle a command by its lock.
    SettleCommand(String, Settle),
    /// Begin a file upload.
    BeginUpload,
    /// End a file upload; its id may be in the path.
    FinishUpload(Option<String>),
}

/// What a service asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServiceCall {
    ListDevices,
    Bulk,
    RegenerateKeys,
    Query,
    GetIdentity(DeviceKey),
    PutIdentity(DeviceKey),
    DeleteIdentity(DeviceKey),
    ListModules(DeviceKey),
    PurgeCommands(DeviceKey),
    SendCommand(DeviceKey),
    RegistryStatistics,
    ServiceStatistics,
    GetTwin(DeviceKey),
    /// Merge, or replace.
    ChangeTwin(DeviceKey, bool),
    Method(DeviceKey),
    ReceiveFeedback,
    SettleFeedback(String, Settle),
    /// The public hub has it.
    Unsupported(&'static str),
}

/// What an operator asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HubCall {
    GetSetting(String),
    PutSetting(String),
    AuthorityCode(String),
    AuthorityVerify(String),
}

impl Route {
    /// A name for metrics.
    fn kind(&self) -> &'static str {
        match self {
            Route::WebSocket => "websocket",
            Route::Device(..) => "device",
            Route::Service(_) => "service",
            Route::Hub(_) => "hub",
            Route::Object(_) => "object",
        }
    }

    fn is_versioned(&self) -> bool {
        matches!(self, Route::Device(..) | Route::Service(_))
    }
}

/// Answers a request; with a name of its kind for metrics.
pub(super) async fn answer(mut call: Call) -> (&'static str, Answer) {
    let route = match route(&call.method, &call.path, &call.query) {
        Ok(route) => route,
        Err(error) => return ("none", Err(error)),
    };
    let kind = route.kind();
    if let Err(error) = caller::check_address(&call) {
        return (kind, Err(error));
    }
    if route.is_versioned()
        && let Err(error) = check_version(&call.query)
    {
        return (kind, Err(error));
    }
    let answer = match route {
        Route::WebSocket => websocket::upgrade(call),
        Route::Device(key, asked) => device::answer(&mut call, &key, asked).await,
        Route::Service(asked) => service::answer(&mut call, asked).await,
        Route::Hub(asked) => service::hub::answer(&mut call, asked).await,
        Route::Object(blob) => objects::front::answer(&mut call, &blob).await,
    };
    (kind, answer)
}

/// "Accept any `api-version` from 2016-11-14 on; treat unknown newer ones as the latest."
fn check_version(query: &Query) -> Result<(), HttpError> {
    let version = query.get("api-version").unwrap_or_default();
    let date = version.get(..API_VERSION_MIN.len()).unwrap_or_default();
    let has_form = date.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    match has_form && date >= API_VERSION_MIN {
        true => Ok(()),
        false => {
            let text = format!("api-version '{version}' is not one from {API_VERSION_MIN} on");
            Err(HttpError::new(ErrorCode::InvalidProtocolVersion, text))
        }
    }
}

type Choice = (Method, Route);

/// The route of a request.
pub(super) fn route(method: &Method, path: &str, query: &Query) -> Result<Route, HttpError> {
    let raw = segments(path);
    if raw.len() > 1 && raw[0] == CONTAINER {
        return Ok(Route::Object(decode_segment(&raw[1..].join("/"))?));
    }
    let words: Vec<String> = raw.iter().map(|segment| segment.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let choices = match words.first().copied() {
        Some("devices") => devices(&raw, &words, query)?,
        Some("twins") => twins(&raw, &words)?,
        Some("messages") => messages(&raw, &words)?,
        Some("statistics") => statistics(&words),
        Some("hub") => hub(&raw, &words)?,
        Some("jobs") => unsupported("jobs"),
        Some("configurations") => unsupported("configurations"),
        Some("digitaltwins") => unsupported("digital twins"),
        Some("$iothub" | "%24iothub" | "$servicebus" | "%24servicebus")
            if words.get(1..) == Some(&["websocket"]) =>
        {
            vec![(Method::GET, Route::WebSocket)]
        }
        _ => Vec::new(),
    };
    if choices.is_empty() {
        return Err(HttpError::new(ErrorCode::GenericNotFound, "there is nothing at this path"));
    }
    let chosen = choices.into_iter().find(|(allowed, _)| allowed == method);
    chosen.map(|(_, route)| route).ok_or_else(|| {
        HttpError::new(ErrorCode::GenericMethodNotAllowed, format!("{method} is not for this path"))
    })
}

fn devices(raw: &[&str], words: &[&str], query: &Query) -> Result<Vec<Choice>, HttpError> {
    use ServiceCall::*;
    Ok(match words[1..] {
        [] => vec![get(ListDevices), post(Bulk)],
        ["query"] => {
            let mut choices = identity(device_key(raw[1])?);
            choices.push(post(Query));
            choices
        }
        ["keys", "regenerate"] => vec![post(RegenerateKeys)],
        [_] => identity(device_key(raw[1])?),
        [_, "modules"] => vec![get(ListModules(device_key(raw[1])?))],
        [_, "modules", _] => identity(module_key(raw[1], raw[3])?),
        [_, "modules", _, ..] => {
            let key = module_key(raw[1], raw[3])?;
            of_identity(&key, &raw[4..], &words[4..], query)?
        }
        [_, "applyconfigurationcontent"] => vec![post(Unsupported("configurations"))],
        [_, ..] => of_identity(&device_key(raw[1])?, &raw[2..], &words[2..], query)?,
    })
}

fn identity(key: DeviceKey) -> Vec<Choice> {
    use ServiceCall::{DeleteIdentity, GetIdentity, PutIdentity};
    vec![get(GetIdentity(key.clone())), put(PutIdentity(key.clone())), delete(DeleteIdentity(key))]
}

/// What stands below an identity: commands, events, uploads.
fn of_identity(
    key: &DeviceKey,
    raw: &[&str],
    words: &[&str],
    query: &Query,
) -> Result<Vec<Choice>, HttpError> {
    use DeviceCall::{BeginUpload, FinishUpload, ReceiveCommand, SendEvents, SettleCommand};
    let device = |method: Method, asked: DeviceCall| (method, Route::Device(key.clone(), asked));
    Ok(match *words {
        ["commands"] => vec![delete(ServiceCall::PurgeCommands(key.clone()))],
        ["messages", "events"] => vec![device(Method::POST, SendEvents)],
        ["messages", "devicebound"] => {
            vec![device(Method::GET, ReceiveCommand), post(ServiceCall::SendCommand(key.clone()))]
        }
        ["messages", "devicebound", _] => {
            // Node and .NET send the word without a value, Java says `true`.
            let reject = query.get("reject").is_some_and(|value| !value.eq_ignore_ascii_case("false"));
            let settle = if reject { Settle::Reject } else { Settle::Complete };
            vec![device(Method::DELETE, SettleCommand(decode_segment(raw[2])?, settle))]
        }
        ["messages", "devicebound", _, "abandon"] => {
            vec![device(Method::POST, SettleCommand(decode_segment(raw[2])?, Settle::Abandon))]
        }
        ["files"] if !key.is_module() => vec![device(Method::POST, BeginUpload)],
        ["files", "notifications"] if !key.is_module() => vec![device(Method::POST, FinishUpload(None))],
        ["files", "notifications", _] if !key.is_module() => {
            vec![device(Method::POST, FinishUpload(Some(decode_segment(raw[2])?)))]
        }
        _ => Vec::new(),
    })
}

fn twins(raw: &[&str], words: &[&str]) -> Result<Vec<Choice>, HttpError> {
    let twin = |key: DeviceKey| {
        let change = |replace| ServiceCall::ChangeTwin(key.clone(), replace);
        vec![
            get(ServiceCall::GetTwin(key.clone())),
            (Method::PATCH, Route::Service(change(false))),
            put(change(true)),
        ]
    };
    Ok(match words[1..] {
        [_] => twin(device_key(raw[1])?),
        [_, "methods"] => vec![post(ServiceCall::Method(device_key(raw[1])?))],
        [_, "modules", _] => twin(module_key(raw[1], raw[3])?),
        [_, "modules", _, "methods"] => vec![post(ServiceCall::Method(module_key(raw[1], raw[3])?))],
        _ => Vec::new(),
    })
}

fn messages(raw: &[&str], words: &[&str]) -> Result<Vec<Choice>, HttpError> {
    use ServiceCall::{ReceiveFeedback, SettleFeedback};
    Ok(match words[1..] {
        ["servicebound", "feedback"] => vec![get(ReceiveFeedback)],
        ["servicebound", "feedback", _] => {
            vec![delete(SettleFeedback(decode_segment(raw[3])?, Settle::Complete))]
        }
        ["servicebound", "feedback", _, "abandon"] => {
            vec![post(SettleFeedback(decode_segment(raw[3])?, Settle::Abandon))]
        }
        _ => Vec::new(),
    })
}

fn statistics(words: &[&str]) -> Vec<Choice> {
    match words[1..] {
        ["devices"] => vec![get(ServiceCall::RegistryStatistics)],
        ["service"] => vec![get(ServiceCall::ServiceStatistics)],
        _ => Vec::new(),
    }
}

fn hub(raw: &[&str], words: &[&str]) -> Result<Vec<Choice>, HttpError> {
    let of_hub = |method: Method, asked: HubCall| (method, Route::Hub(asked));
    Ok(match words[1..] {
        ["settings", name] => vec![
            of_hub(Method::GET, HubCall::GetSetting(name.to_owned())),
            of_hub(Method::PUT, HubCall::PutSetting(name.to_owned())),
        ],
        ["authorities", _, "code"] => {
            vec![of_hub(Method::POST, HubCall::AuthorityCode(decode_segment(raw[2])?))]
        }
        ["authorities", _, "verify"] => {
            vec![of_hub(Method::POST, HubCall::AuthorityVerify(decode_segment(raw[2])?))]
        }
        _ => Vec::new(),
    })
}

/// All methods of what the public hub has and this one doesn't.
fn unsupported(what: &'static str) -> Vec<Choice> {
    let methods = [Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE];
    methods.into_iter().map(|method| (method, Route::Service(ServiceCall::Unsupported(what)))).collect()
}

fn get(call: ServiceCall) -> Choice {
    (Method::GET, Route::Service(call))
}

fn put(call: ServiceCall) -> Choice {
    (Method::PUT, Route::Service(call))
}

fn post(call: ServiceCall) -> Choice {
    (Method::POST, Route::Service(call))
}

fn delete(call: ServiceCall) -> Choice {
    (Method::DELETE, Route::Service(call))
}

fn device_key(raw: &str) -> Result<DeviceKey, HttpError> {
    let id = decode_segment(raw)?;
    check_device_id(&id).map_err(|error| HttpError::invalid(error.to_string()))?;
    Ok(DeviceKey::device(id))
}

fn module_key(device: &str, module: &str) -> Result<DeviceKey, HttpError> {
    let DeviceKey { device, .. } = device_key(device)?;
    let module = decode_segment(module)?;
    check_module_id(&module).map_err(|error| HttpError::invalid(error.to_string()))?;
    Ok(DeviceKey::module(device, module))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(method: &str, target: &str) -> Result<Route, ErrorCode> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        route(&method, path, &Query::parse(query)).map_err(|error| error.code)
    }

    fn d() -> DeviceKey {
        DeviceKey::device("D1")
    }

    /// Every row of the service's table, in some spelling that an SDK uses.
    #[test]
    fn services() {
        use ServiceCall::*;
        let m = DeviceKey::module("D1", "$edgeAgent");
        let rows = [
            ("GET", "/devices/?top=10", ListDevices),
            ("POST", "/Devices", Bulk),
            ("POST", "/devices/query", Query),
            ("GET", "/devices/query", GetIdentity(DeviceKey::device("query"))),
            ("POST", "/devices/keys/regenerate", RegenerateKeys),
            ("GET", "/devices/D1", GetIdentity(d())),
            ("PUT", "/devices/D1/", PutIdentity(d())),
            ("DELETE", "/DEVICES/D1", DeleteIdentity(d())),
            ("GET", "/devices/D1/modules", ListModules(d())),
            ("PUT", "/devices/D1/Modules/%24edgeAgent", PutIdentity(m.clone())),
            ("DELETE", "/devices/D1/commands", PurgeCommands(d())),
            ("POST", "/devices/D1/messages/deviceBound", SendCommand(d())),
            ("POST", "/devices/D1/applyConfigurationContent", Unsupported("configurations")),
            ("GET", "/statistics/devices", RegistryStatistics),
            ("GET", "/statistics/service/", ServiceStatistics),
            ("GET", "/twins/D1", GetTwin(d())),
            ("PATCH", "/twins/D1/modules/$edgeAgent", ChangeTwin(m.clone(), false)),
            ("PUT", "/twins/D1", ChangeTwin(d(), true)),
            ("POST", "/twins/D1/methods", Method(d())),
            ("POST", "/twins/D1/modules/$edgeAgent/methods", Method(m)),
            ("GET", "/messages/serviceBound/feedback", ReceiveFeedback),
            (
                "DELETE",
                "/messages/serviceBound/feedback/t%2F1",
                SettleFeedback("t/1".into(), Settle::Complete),
            ),
            (
                "POST",
                "/messages/serviceBound/feedback/t/abandon",
                SettleFeedback("t".into(), Settle::Abandon),
            ),
            ("PUT", "/jobs/v2/j", Unsupported("jobs")),
            ("GET", "/configurations/?top=1", Unsupported("configurations")),
            ("POST", "/digitaltwins/D1/commands/c", Unsupported("digital twins")),
        ];
        for (method, target, call) in rows {
            assert_eq!(routed(method, target), Ok(Route::Service(call)), "{method} {target}");
        }
    }

    /// Every row of the device's table, with the oddities of the SDKs.
    #[test]
    fn devices() {
        use DeviceCall::*;
        let lock = |settle| SettleCommand("L".into(), settle);
        let rows = [
            ("POST", "/devices/D1/messages/events?api-version=x", SendEvents),
            ("GET", "/devices/D1/messages/deviceBound", ReceiveCommand),
            ("DELETE", "/devices/D1/messages/devicebound/L", lock(Settle::Complete)),
            ("DELETE", "/devices/D1/messages/devicebound/L?api-version=x&reject", lock(Settle::Reject)),
            ("DELETE", "/devices/D1/messages/devicebound/L?reject=true", lock(Settle::Reject)),
            ("DELETE", "/devices/D1/messages/devicebound/L?reject=false", lock(Settle::Complete)),
            ("POST", "/devices/D1/messages/devicebound/L/abandon", lock(Settle::Abandon)),
            ("POST", "/devices/D1/files/?api-version=x", BeginUpload),
            ("POST", "/devices/D1/files/notifications/", FinishUpload(None)),
            ("POST", "/devices/D1/files/notifications/c%3D", FinishUpload(Some("c=".into()))),
        ];
        for (method, target, call) in rows {
            assert_eq!(routed(method, target), Ok(Route::Device(d(), call)), "{method} {target}");
        }
        let module = DeviceKey::module("D1", "m");
        let events = Route::Device(module, SendEvents);
        assert_eq!(routed("POST", "/devices/D1/modules/m/messages/events"), Ok(events));
        assert_eq!(routed("GET", "/$iothub/websocket?iothub-no-client-cert=true"), Ok(Route::WebSocket));
        assert_eq!(routed("GET", "/$servicebus/websocket"), Ok(Route::WebSocket));
        assert_eq!(routed("PUT", "/uploads/D1/a%20b/c?sig=x"), Ok(Route::Object("D1/a b/c".into())));
    }

    /// An id that the registry can't have never becomes a key: a zero byte would name a module's row.
    #[test]
    fn refusals() {
        let rows = [
            ("GET", "/devices/d%00m", ErrorCode::ArgumentInvalid),
            ("GET", "/devices/a%2Fb", ErrorCode::ArgumentInvalid),
            ("GET", "/devices/%zz", ErrorCode::ArgumentInvalid),
            ("GET", "/devices/d/modules/a%20b", ErrorCode::ArgumentInvalid),
            ("POST", "/devices/D1/modules/m/files", ErrorCode::GenericNotFound),
            ("GET", "/", ErrorCode::GenericNotFound),
            ("GET", "/uploads", ErrorCode::GenericNotFound),
            ("GET", "/devices/D1/nothing", ErrorCode::GenericNotFound),
            ("PATCH", "/devices/D1", ErrorCode::GenericMethodNotAllowed),
            ("GET", "/devices/D1/messages/events", ErrorCode::GenericMethodNotAllowed),
        ];
        for (method, target, code) in rows {
            assert_eq!(routed(method, target), Err(code), "{method} {target}");
        }
    }

    #[test]
    fn versions() {
        let check = |text: &str| check_version(&Query::parse(text)).is_ok();
        for good in ["2016-11-14", "2021-04-12", "2024-03-31-preview", "2999-01-01"] {
            assert!(check(&format!("api-version={good}")), "{good}");
        }
        for bad in ["", "2016-02-03", "latest", "20210412", "9"] {
            assert!(!check(&format!("api-version={bad}")), "{bad}");
        }
        assert!(!check("top=1"));
    }
}
