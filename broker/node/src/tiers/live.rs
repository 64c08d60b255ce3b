//! What the console has of the other tiers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fleetline_console::{Counters, FunctionsView, Live, Meters};
use fleetline_functions::Functions;
use fleetline_gateway::devices::connections::Connections;
use fleetline_realtime::{Destination, Encoded, Realtime};
use serde_json::{Value, json};

/// The realtime hub that the page listens to.
const HUB: &str = "console";
/// How long a page may take to connect with its token.
const TOKEN_LIFETIME: Duration = Duration::from_secs(600);

/// How often it is asked whether anybody on any node watches.
const LOOK: Duration = Duration::from_secs(1);

/// The console's feed, by its realtime hub.
pub(super) struct Feed {
    realtime: Arc<Realtime>,
    is_watched: AtomicBool,
}

impl Feed {
    pub(super) fn new(realtime: Arc<Realtime>) -> Arc<Feed> {
        Arc::new(Feed { realtime, is_watched: AtomicBool::new(false) })
    }

    /// Keeps track of whether anybody watches, until it is dropped.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            ticks.tick().await;
            // When it can't be known the feed goes on as it was.
            if let Ok(watched) = self.realtime.is_watched(HUB).await {
                self.is_watched.store(watched, Ordering::Relaxed);
            }
        }
    }
}

impl Live for Feed {
    fn publish(&self, target: &str, arguments: Value) {
        let everybody = Destination::All { excluded: Vec::new() };
        let sent = Encoded::invocation(target, arguments.to_string().into())
            .map_err(|error| error.to_string())
            .and_then(|message| {
                self.realtime.publish(HUB, &everybody, message).map_err(|error| error.to_string())
            });
        if let Err(error) = sent {
            tracing::debug!(target, error, "the console's feed was not sent");
        }
    }

    fn watchers(&self) -> usize {
        usize::from(self.is_watched.load(Ordering::Relaxed))
    }

    fn negotiate(&self, user: &str) -> (String, String) {
        // The page is on the same front: the path is enough, whatever name it was reached by.
        let made = self.realtime.negotiate(HUB, Some(user), &[], TOKEN_LIFETIME);
        let (_, token) = made.unwrap_or_default();
        (format!("/client/?hub={HUB}"), token)
    }
}

/// Functions, as the page shows them.
pub(super) struct Status(pub(super) Arc<Functions>);

#[async_trait]
impl FunctionsView for Status {
    async fn status(&self) -> Value {
        let all = self.0.status_all().await;
        let mut functions = Vec::new();
        for app in all["apps"].as_array().into_iter().flatten() {
            let name = app["name"].as_str().unwrap_or_default();
            let lines = self.0.logs(name, None, 40).await.unwrap_or_default();
            for function in app["functions"].as_array().into_iter().flatten() {
                functions.push(shown(name, app, function, &lines));
            }
        }
        json!({ "functions": functions })
    }
}

/// One function in the page's words.
fn shown(name: &str, app: &Value, function: &Value, lines: &[fleetline_functions::KeptLine]) -> Value {
    let each = |field: &str| app[field].as_array().into_iter().flatten();
    let active = each("versions").find(|version| version["version"] == app["activeVersion"]);
    let states: Vec<&str> = each("nodes").filter_map(|node| node["worker"].as_str()).collect();
    let state = match function["state"].as_str() {
        Some("broken") => "failed",
        Some("disabled") => "stopped",
        _ => states.iter().find(|state| **state != "stopped").copied().unwrap_or("stopped"),
    };
    let function_name = function["name"].as_str().unwrap_or_default();
    let logs: Vec<Value> = lines
        .iter()
        .filter(|line| line.function == function_name || line.function.is_empty())
        .map(|line| json!({ "at": line.at_ms, "level": line.level, "text": line.message }))
        .collect();
    json!({
        "name": function_name,
        "app": name,
        "kind": active.map(|version| version["worker"].clone()),
        "trigger": function["trigger"],
        "state": state,
        "invocations": function["invocations"],
        "failures": function["failures"],
        "durationMs": { "mean": function["p50Ms"], "p99": function["p99Ms"] },
        "lag": function["lag"],
        "error": function["lastError"],
        "logs": logs,
    })
}

/// This node's counters.
pub(super) struct NodeMeters {
    pub(super) connections: Arc<Connections>,
    pub(super) realtime: Arc<Realtime>,
}

impl Meters for NodeMeters {
    fn read(&self) -> Counters {
        let stats = self.realtime.stats();
        Counters {
            connections: (self.connections.len() + stats.connections) as u64,
            records_out: stats.sent,
            bytes_out: 0,
        }
    }
}
