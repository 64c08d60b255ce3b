//! Devices and modules of the registry: made, shown, changed, removed, and how they connect.
//!
//! A change sends back what the hub gave, with its etag, so that nothing that this tool doesn't know is
//! lost, and a change of somebody else in between is noticed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetline_iothub::connection_string::ConnectionString;
use http::Method;
use serde_json::{Value, json};

use super::{ConnectionStringArgs, CreateArgs, ModulesCommand, UpdateArgs, place};
use crate::rest::{Call, Rest};
use crate::{CliError, ContextArgs};

/// Bytes of a key, as IoT Hub makes them.
const KEY_BYTES: usize = 32;

/// Makes a device; gives its connection string.
pub(super) async fn create(rest: &mut Rest, args: &CreateArgs) -> Result<String, CliError> {
    let authentication = match (&args.thumbprint, args.ca) {
        (Some(thumbprint), _) => json!({
            "type": "selfSigned",
            "x509Thumbprint": {"primaryThumbprint": thumbprint, "secondaryThumbprint": null},
        }),
        (None, true) => json!({"type": "certificateAuthority"}),
        (None, false) => {
            json!({"type": "sas", "symmetricKey": {"primaryKey": args.key, "secondaryKey": null}})
        }
    };
    let body = json!({
        "deviceId": args.id,
        "status": if args.disabled { "disabled" } else { "enabled" },
        "authentication": authentication,
        "capabilities": {"iotEdge": args.edge},
    });
    let made = put_new(rest, &place("devices", &args.id, None), &body).await?;
    connect_by(rest, &made)
}

/// A PUT without a condition makes what isn't there, and nothing else.
async fn put_new(rest: &mut Rest, segments: &[&str], body: &Value) -> Result<Value, CliError> {
    rest.call(Call::new(Method::PUT, segments).json(body)).await?.json()
}

pub(super) async fn get(rest: &mut Rest, device: &str, module: Option<&str>) -> Result<Value, CliError> {
    rest.call(Call::new(Method::GET, &place("devices", device, module))).await?.json()
}

/// The primary key of an identity that has one.
pub(super) fn primary_key(identity: &Value) -> Option<&str> {
    identity["authentication"]["symmetricKey"]["primaryKey"].as_str().filter(|key| !key.is_empty())
}

/// The connection string of an identity as the hub gave it.
fn connect_by(rest: &Rest, identity: &Value) -> Result<String, CliError> {
    let text = |name: &str| identity[name].as_str().map(str::to_owned);
    let mut string = ConnectionString {
        host_name: rest.hub().name.clone(),
        device_id: text("deviceId"),
        module_id: text("moduleId"),
        ..ConnectionString::default()
    };
    match identity["authentication"]["type"].as_str().unwrap_or("sas") {
        "selfSigned" | "certificateAuthority" => string.x509 = true,
        "none" => {
            return Err(CliError::Failed(
                "it has nothing to prove itself with: nobody can connect as it".to_owned(),
            ));
        }
        _ => {
            let key = primary_key(identity).ok_or_else(|| {
                CliError::Failed(
                    "the hub did not give the key\nhint: a policy with RegistryRead or more is needed, see --policy"
                        .to_owned(),
                )
            })?;
            string.shared_access_key = Some(key.to_owned());
        }
    }
    Ok(string.to_string())
}

/// `fleetline connection-string`.
pub(crate) async fn connection_string(
    context: &ContextArgs,
    args: &ConnectionStringArgs,
) -> Result<String, CliError> {
    let Some(device) = &args.device else { return args.hub.text(&context.context) };
    of_identity(&mut Rest::new(args.hub.find(context)?), device, args.module.as_deref()).await
}

async fn of_identity(rest: &mut Rest, device: &str, module: Option<&str>) -> Result<String, CliError> {
    let identity = get(rest, device, module).await?;
    connect_by(rest, &identity)
}

/// Describes a device.
pub(super) async fn show(rest: &mut Rest, id: &str, json: bool) -> Result<String, CliError> {
    let device = get(rest, id, None).await?;
    if json {
        return Ok(format!("{device:#}"));
    }
    let text = |name: &str| super::list::cell(&device[name]);
    let edge = if device["capabilities"]["iotEdge"] == true { "  (IoT Edge)" } else { "" };
    let reason = device["statusReason"].as_str().map(|reason| format!("  ({reason})")).unwrap_or_default();
    let lines = [
        ("device", format!("{}{edge}", text("deviceId"))),
        ("status", format!("{}{reason}", text("status"))),
        ("state", format!("{} since {}", text("connectionState"), text("connectionStateUpdatedTime"))),
        ("last activity", text("lastActivityTime")),
        ("authentication", super::list::cell(&device["authentication"]["type"])),
        ("messages waiting", text("cloudToDeviceMessageCount")),
        ("generation", text("generationId")),
        ("etag", text("etag")),
        ("connects with", format!("`fleetline connection-string --device {}`", text("deviceId"))),
    ];
    let lines: Vec<String> = lines.iter().map(|(name, value)| format!("{name:<17} {value}")).collect();
    Ok(lines.join("\n"))
}

/// Changes a device; gives what is to be printed.
pub(super) async fn update(rest: &mut Rest, args: &UpdateArgs) -> Result<String, CliError> {
    let mut device = get(rest, &args.id, None).await?;
    let etag = device["etag"].as_str().unwrap_or("*").to_owned();
    let status = match (args.enable, args.disable) {
        (true, _) => Some("enabled"),
        (_, true) => Some("disabled"),
        _ => None,
    };
    if let Some(status) = status {
        device["status"] = status.into();
        // The reason of an earlier status is none of this one.
        device["statusReason"] = args.reason.clone().into();
    } else if let Some(reason) = &args.reason {
        device["statusReason"] = reason.clone().into();
    }
    if args.roll_key {
        roll_key(&mut device, new_key()?)?;
    }
    let call = Call::new(Method::PUT, &place("devices", &args.id, None)).json(&device).if_match(&etag)?;
    let changed = rest.call(call).await?.json()?;
    match args.roll_key {
        true => connect_by(rest, &changed),
        false => Ok(format!("{} is {}", args.id, super::list::cell(&changed["status"]))),
    }
}

/// Who is connected by the present primary key stays: it becomes the secondary one.
fn roll_key(device: &mut Value, new: String) -> Result<(), CliError> {
    let Some(present) = primary_key(device).map(str::to_owned) else {
        return Err(CliError::Usage(
            "the device has no key: it proves itself in another way (`fleetline device show ID`)".to_owned(),
        ));
    };
    device["authentication"]["symmetricKey"] = json!({"primaryKey": new, "secondaryKey": present});
    Ok(())
}

fn new_key() -> Result<String, CliError> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| CliError::Failed(format!("no random bytes: {error}")))?;
    Ok(STANDARD.encode(bytes))
}

/// Removes a device or module, whatever its etag.
pub(super) async fn delete(rest: &mut Rest, device: &str, module: Option<&str>) -> Result<String, CliError> {
    let call = Call::new(Method::DELETE, &place("devices", device, module)).if_match("*")?;
    rest.call(call).await?;
    Ok(match module {
        Some(module) => format!("module {module} of {device} is removed"),
        None => format!("{device} is removed"),
    })
}

/// `fleetline device modules ID …`.
pub(super) async fn modules(
    rest: &mut Rest,
    device: &str,
    command: ModulesCommand,
) -> Result<String, CliError> {
    match command {
        ModulesCommand::List { json } => {
            let modules = rest.call(Call::new(Method::GET, &["devices", device, "modules"])).await?.json()?;
            Ok(if json { format!("{modules:#}") } else { table(&modules) })
        }
        ModulesCommand::Create { module } => {
            let body = json!({
                "deviceId": device, "moduleId": module,
                "authentication": {"type": "sas", "symmetricKey": {"primaryKey": null, "secondaryKey": null}},
            });
            let made = put_new(rest, &place("devices", device, Some(&module)), &body).await?;
            connect_by(rest, &made)
        }
        ModulesCommand::Delete { module } => delete(rest, device, Some(&module)).await,
    }
}

fn table(modules: &Value) -> String {
    let mut lines = vec![format!("{:<32} {:<13} {}", "module", "state", "last activity")];
    for module in modules.as_array().into_iter().flatten() {
        let text = |name: &str| super::list::cell(&module[name]);
        let state = text("connectionState");
        lines.push(format!("{:<32} {state:<13} {}", text("moduleId"), text("lastActivityTime")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::parsed;
    use super::*;
    use crate::fake::{FakeHub, said};

    const DEVICE: &str = r#"{"deviceId":"d","etag":"AAAAAAAAAAE=","status":"enabled","statusReason":null,
        "connectionState":"Disconnected","connectionStateUpdatedTime":"0001-01-01T00:00:00Z",
        "lastActivityTime":"2026-01-31T12:00:00Z","cloudToDeviceMessageCount":2,"generationId":"7",
        "capabilities":{"iotEdge":false},"future":{"a":1},
        "authentication":{"type":"sas","symmetricKey":{"primaryKey":"b25l","secondaryKey":"dHdv"},
        "x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null}}}"#;

    /// A device with a key: the hub makes it, and its string names hub and device.
    #[tokio::test]
    async fn create_with_keys() {
        let mut hub = FakeHub::start(vec![said(200, DEVICE), said(200, DEVICE)]).await;
        let mut rest = hub.rest();
        let line = create(&mut rest, &parsed(&["d"])).await.unwrap();
        assert_eq!(line, "HostName=localhost;DeviceId=d;SharedAccessKey=b25l");
        let asked = hub.asked().await;
        assert_eq!(asked.line, "PUT /devices/d?api-version=2021-04-12");
        assert_eq!(asked.header("if-match"), "");
        let body = asked.json();
        assert_eq!(body["status"], "enabled");
        assert_eq!(body["authentication"]["symmetricKey"]["primaryKey"], Value::Null);

        create(&mut rest, &parsed(&["d", "--key", "a2V5", "--edge", "--disabled"])).await.unwrap();
        let body = hub.asked().await.json();
        assert_eq!((&body["status"], &body["capabilities"]["iotEdge"]), (&"disabled".into(), &true.into()));
        assert_eq!(body["authentication"]["symmetricKey"]["primaryKey"], "a2V5");
    }

    /// Devices with certificates have no key in their string.
    #[tokio::test]
    async fn create_with_certificates() {
        let own = r#"{"deviceId":"d","authentication":{"type":"selfSigned"}}"#;
        let of_authority = r#"{"deviceId":"d","authentication":{"type":"certificateAuthority"}}"#;
        let mut hub = FakeHub::start(vec![said(200, own), said(200, of_authority)]).await;
        let mut rest = hub.rest();
        let print = "AA".repeat(32);
        let line = create(&mut rest, &parsed(&["d", "--thumbprint", &print])).await.unwrap();
        assert_eq!(line, "HostName=localhost;DeviceId=d;x509=true");
        let body = hub.asked().await.json();
        assert_eq!(body["authentication"]["type"], "selfSigned");
        assert_eq!(body["authentication"]["x509Thumbprint"]["primaryThumbprint"], print);
        let line = create(&mut rest, &parsed(&["d", "--ca"])).await.unwrap();
        assert_eq!(line, "HostName=localhost;DeviceId=d;x509=true");
        assert_eq!(hub.asked().await.json()["authentication"], json!({"type": "certificateAuthority"}));
    }

    /// A change goes back under the etag that it was read with, with all that was there.
    #[tokio::test]
    async fn updates_keep_the_rest() {
        let off = DEVICE.replace("\"enabled\"", "\"disabled\"");
        let mut hub = FakeHub::start(vec![said(200, DEVICE), said(200, &off)]).await;
        let args = parsed(&["d", "--disable", "--reason", "stolen"]);
        assert_eq!(update(&mut hub.rest(), &args).await.unwrap(), "d is disabled");
        assert_eq!(hub.asked().await.line, "GET /devices/d?api-version=2021-04-12");
        let put = hub.asked().await;
        assert_eq!(put.header("if-match"), "\"AAAAAAAAAAE=\"");
        let body = put.json();
        assert_eq!((&body["status"], &body["statusReason"]), (&"disabled".into(), &"stolen".into()));
        assert_eq!(body["future"], json!({"a": 1}));
        assert_eq!(body["authentication"]["symmetricKey"]["primaryKey"], "b25l");
    }

    /// The key that the device uses now goes on to work; one without a key has none to roll.
    #[tokio::test]
    async fn keys_roll() {
        let mut hub = FakeHub::start(vec![
            said(200, DEVICE),
            said(200, DEVICE),
            said(200, r#"{"authentication":{"type":"selfSigned","symmetricKey":{"primaryKey":null}}}"#),
        ])
        .await;
        let mut rest = hub.rest();
        let args = parsed(&["d", "--roll-key"]);
        let line = update(&mut rest, &args).await.unwrap();
        assert!(line.starts_with("HostName=localhost;DeviceId=d;"), "{line}");
        hub.asked().await;
        let keys = hub.asked().await.json()["authentication"]["symmetricKey"].clone();
        assert_eq!(keys["secondaryKey"], "b25l");
        let new = STANDARD.decode(keys["primaryKey"].as_str().unwrap()).unwrap();
        assert_eq!(new.len(), KEY_BYTES);
        assert_ne!(new, [0; KEY_BYTES]);
        assert_eq!(update(&mut rest, &args).await.unwrap_err().exit_code(), 2);
    }

    /// What people see has no key; JSON has what the hub gives.
    #[tokio::test]
    async fn shown_without_secrets() {
        let hub = FakeHub::start(vec![said(200, DEVICE), said(200, DEVICE)]).await;
        let mut rest = hub.rest();
        let shown = show(&mut rest, "d", false).await.unwrap();
        assert!(!shown.contains("b25l"), "{shown}");
        assert!(shown.contains("state             Disconnected since never"), "{shown}");
        assert!(show(&mut rest, "d", true).await.unwrap().contains("b25l"));
    }

    /// Deleting doesn't ask for an etag; a device that isn't there is told with what to do.
    #[tokio::test]
    async fn deletions() {
        let gone = r#"{"Message":"ErrorCode:DeviceNotFound;device x is not registered"}"#;
        let mut hub = FakeHub::start(vec![said(204, ""), said(404, gone)]).await;
        let mut rest = hub.rest();
        assert_eq!(delete(&mut rest, "d", None).await.unwrap(), "d is removed");
        let asked = hub.asked().await;
        assert_eq!(
            (asked.line.as_str(), asked.header("if-match")),
            ("DELETE /devices/d?api-version=2021-04-12", "*")
        );
        let error = delete(&mut rest, "x", None).await.unwrap_err().to_string();
        assert!(error.starts_with("device x is not registered (DeviceNotFound)\nhint: "), "{error}");
    }

    /// Modules have strings of their own.
    #[tokio::test]
    async fn modules_of_a_device() {
        let module = r#"{"deviceId":"d","moduleId":"m","connectionState":"Connected",
            "authentication":{"type":"sas","symmetricKey":{"primaryKey":"b25l"}}}"#;
        let mut hub = FakeHub::start(vec![
            said(200, module),
            said(200, &format!("[{module}]")),
            said(200, module),
            said(204, ""),
        ])
        .await;
        let mut rest = hub.rest();
        let create = ModulesCommand::Create { module: "m".to_owned() };
        let string = "HostName=localhost;DeviceId=d;ModuleId=m;SharedAccessKey=b25l";
        assert_eq!(modules(&mut rest, "d", create).await.unwrap(), string);
        assert_eq!(hub.asked().await.line, "PUT /devices/d/modules/m?api-version=2021-04-12");
        let list = modules(&mut rest, "d", ModulesCommand::List { json: false }).await.unwrap();
        assert!(list.contains("\nm  ") && list.contains("Connected") && !list.contains("b25l"), "{list}");
        assert_eq!(hub.asked().await.line, "GET /devices/d/modules?api-version=2021-04-12");
        assert_eq!(of_identity(&mut rest, "d", Some("m")).await.unwrap(), string);
        hub.asked().await;
        let delete = ModulesCommand::Delete { module: "m".to_owned() };
        modules(&mut rest, "d", delete).await.unwrap();
        assert_eq!(hub.asked().await.line, "DELETE /devices/d/modules/m?api-version=2021-04-12");
    }

    /// The policy's string is printed as it is; no hub is asked.
    #[tokio::test]
    async fn strings_of_policies() {
        let folder = tempfile::tempdir().unwrap();
        let file = r#"{"connectionStrings":{"service":"HostName=h;SharedAccessKeyName=service;SharedAccessKey=b25l"}}"#;
        std::fs::write(folder.path().join("hub.json"), file).unwrap();
        let context = ContextArgs { context: folder.path().to_owned() };
        let hub = crate::HubArgs { policy: Some("service".to_owned()), ..Default::default() };
        let args = ConnectionStringArgs { hub, device: None, module: None };
        let string = connection_string(&context, &args).await.unwrap();
        assert_eq!(string, "HostName=h;SharedAccessKeyName=service;SharedAccessKey=b25l");
    }
}
