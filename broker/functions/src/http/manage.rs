//! The management API.
//!
//! | request | what |
//! |---|---|
//! | `GET /functions/apps` | all apps |
//! | `POST /functions/apps/{app}` | deploys the body, a `tar.gz` |
//! | `GET /functions/apps/{app}` | versions, functions, what they count |
//! | `DELETE /functions/apps/{app}` | removes it |
//! | `POST /functions/apps/{app}/rollback` | `{"version":n}`; without one, the version before the active one |
//! | `GET, PUT /functions/apps/{app}/settings` | `{"NAME":"value"}` |
//! | `GET, POST /functions/apps/{app}/keys` | all keys; `{"function"?,"name"}` draws one |
//! | `POST /functions/apps/{app}/functions/{fn}/enable`, `/disable` | turns a function on or off |
//! | `GET /functions/apps/{app}/logs?function=&tail=&follow=true` | lines of all nodes |

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetline_gateway::devices::login::service_login;
use fleetline_gateway::devices::settings::Right;
use fleetline_gateway::http::Body;
use http::{Method, Response, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use super::WebRequest;
use super::reply::{Refusal, empty, json_reply};
use crate::functions::Functions;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Rollback {
    version: Option<u64>,
}

#[derive(Deserialize)]
struct DrawKey {
    function: Option<String>,
    name: Option<String>,
}

/// Whether a request only looks, and at no secret.
fn only_looks(method: &Method, path: &[String]) -> bool {
    let is_secret = matches!(path.get(1).map(String::as_str), Some("settings" | "keys"));
    *method == Method::GET && !is_secret
}

impl Functions {
    /// Lets in who may read the registry and connect as a service; for changes and secrets, write it.
    pub(crate) fn check_manager(&self, request: &WebRequest, path: &[String]) -> Result<(), Refusal> {
        let settings = self.core.devices.settings();
        let now = self.core.now_ms() / 1000;
        let token = request.header(header::AUTHORIZATION.as_str());
        let (right, action) = match only_looks(&request.method, path) {
            true => (Right::RegistryRead, "functions/read"),
            false => (Right::RegistryWrite, "functions/write"),
        };
        for right in [right, Right::ServiceConnect] {
            service_login(&settings, now, token, &[right], action, None).map_err(|error| {
                metrics::counter!("fleetline_http_login_refused_total", "reason" => error.reason())
                    .increment(1);
                tracing::debug!(%error, "management of functions refused");
                Refusal::unauthorized()
            })?;
        }
        Ok(())
    }

    pub(crate) async fn manage(
        self: &Arc<Self>,
        request: WebRequest,
        path: &[String],
    ) -> Result<Response<Body>, Refusal> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let method = request.method.clone();
        match (method, path.as_slice()) {
            (Method::GET, []) => Ok(json_reply(StatusCode::OK, &self.list())),
            (Method::GET, [app]) => Ok(json_reply(StatusCode::OK, &self.status(app).await?)),
            (Method::POST, [app]) => {
                let settings = added_settings(&request)?;
                let version = self.deploy_with(app, request.body, settings).await?;
                Ok(json_reply(StatusCode::CREATED, &json!({ "name": app, "version": version })))
            }
            (Method::DELETE, [app]) => {
                self.delete(app).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            (Method::POST, [app, "rollback"]) => self.roll_back(app, &request).await,
            (Method::GET, [app, "settings"]) => {
                let settings = self.manifest(app)?.settings;
                Ok(json_reply(StatusCode::OK, &json!(settings)))
            }
            (Method::PUT, [app, "settings"]) => {
                let settings: BTreeMap<String, String> = body(&request)?;
                self.set_settings(app, settings).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            (Method::GET, [app, "keys"]) => {
                let keys = self.manifest(app)?.keys;
                Ok(json_reply(StatusCode::OK, &serde_json::to_value(keys).unwrap_or(Json::Null)))
            }
            (Method::POST, [app, "keys"]) => {
                let wanted: DrawKey = body(&request)?;
                let name = wanted.name.as_deref().unwrap_or("default");
                let key = self.draw_key(app, wanted.function.as_deref(), name).await?;
                Ok(json_reply(StatusCode::CREATED, &json!({ "name": name, "value": key })))
            }
            (Method::POST, [app, "functions", function, "enable"]) => {
                self.set_enabled(app, function, true).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            (Method::POST, [app, "functions", function, "disable"]) => {
                self.set_enabled(app, function, false).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            (Method::GET, [app, "logs"]) => self.show_logs(app, &request).await,
            (_, [] | [_] | [_, "rollback" | "settings" | "keys" | "logs"]) => {
                Err(Refusal::method(format!("{} can't be done here", request.method)))
            }
            _ => Err(Refusal::not_found("there is nothing of this name")),
        }
    }

    async fn roll_back(self: &Arc<Self>, app: &str, request: &WebRequest) -> Result<Response<Body>, Refusal> {
        let wanted: Rollback = match request.body.is_empty() {
            true => Rollback::default(),
            false => body(request)?,
        };
        let manifest = self.manifest(app)?;
        let before =
            || manifest.versions.iter().map(|version| version.version).filter(|n| *n < manifest.active).max();
        let number = wanted.version.or_else(before).ok_or_else(|| {
            Refusal::not_found(format!("there is no version of app {app} before the active one"))
        })?;
        self.rollback(app, number).await?;
        Ok(json_reply(StatusCode::OK, &json!({ "name": app, "version": number })))
    }
}

/// Settings that come with a deployment, in a header, because the body is the archive: JSON in Base64.
fn added_settings(request: &WebRequest) -> Result<BTreeMap<String, String>, Refusal> {
    let Some(text) = request.header("x-fleetline-settings") else { return Ok(BTreeMap::new()) };
    let decoded = STANDARD.decode(text).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    decoded.ok_or_else(|| Refusal::bad("x-fleetline-settings is not JSON of texts in Base64"))
}

fn body<T: DeserializeOwned>(request: &WebRequest) -> Result<T, Refusal> {
    serde_json::from_slice(&request.body)
        .map_err(|error| Refusal::bad(format!("the body can't be read: {error}")))
}
