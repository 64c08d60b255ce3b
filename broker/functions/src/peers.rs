//! What nodes ask each other about function apps: how many shall work, what they count, what they logged.
//!
//! JSON: between nodes of neighbouring releases, small, and seldom.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_gateway::tiers::{Tier, TierService};
use fleetline_types::NodeId;
use serde::{Deserialize, Serialize};

use crate::functions::Functions;
use crate::logs::KeptLine;
use crate::stats::FunctionNumbers;

/// So many nodes shall work on a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Order {
    /// `app/function`.
    pub(crate) function: String,
    pub(crate) wanted: usize,
    pub(crate) hold_ms: u64,
}

/// Which lines somebody wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogQuery {
    pub(crate) app: String,
    pub(crate) function: Option<String>,
    /// The last line that was seen of each node, as it counts.
    pub(crate) seen: BTreeMap<u64, u64>,
    pub(crate) most: usize,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum PeerCall {
    Order(Order),
    /// What this node counts of an app.
    Numbers(String),
    Logs(LogQuery),
}

/// What a node says of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AppNumbers {
    pub(crate) worker: String,
    pub(crate) running: usize,
    pub(crate) cold_starts: u64,
    pub(crate) revision: String,
    pub(crate) functions: BTreeMap<String, FunctionNumbers>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum PeerAnswer {
    Done,
    Numbers(AppNumbers),
    Logs(Vec<KeptLine>),
}

#[async_trait]
impl TierService for Functions {
    async fn on_call(&self, _from: NodeId, body: Bytes) -> Result<Bytes, String> {
        let call: PeerCall = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let answer = self.answer_peer(call);
        serde_json::to_vec(&answer).map(Bytes::from).map_err(|error| error.to_string())
    }
}

impl Functions {
    fn answer_peer(&self, call: PeerCall) -> PeerAnswer {
        match call {
            PeerCall::Order(order) => {
                // As long as an order may hold, whatever is asked.
                let hold = Duration::from_millis(order.hold_ms).min(self.core.options.scale_interval * 10);
                self.orders.take(&order.function, order.wanted, hold);
                PeerAnswer::Done
            }
            PeerCall::Numbers(app) => PeerAnswer::Numbers(self.numbers(&app)),
            PeerCall::Logs(query) => {
                let after = query.seen.get(&self.core.cluster.node().0).copied().unwrap_or(0);
                let most = query.most.min(self.core.options.log_lines);
                let lines = self.core.logs(&query.app).behind(after, query.function.as_deref(), most);
                PeerAnswer::Logs(lines)
            }
        }
    }

    /// What this node counts of an app.
    pub(crate) fn numbers(&self, app: &str) -> AppNumbers {
        let Some(app) = self.app(app) else { return AppNumbers::default() };
        let (worker, cold_starts, running) = app.worker_state();
        let of = |spec: &Arc<crate::spec::FunctionSpec>| {
            (spec.name.clone(), self.core.stats(&app.name, &spec.name).snapshot())
        };
        let functions = app.functions.iter().map(of).collect();
        AppNumbers { worker, running, cold_starts, revision: app.revision.clone(), functions }
    }

    /// Asks every living node; `None` for one that doesn't answer.
    pub(crate) async fn ask_all(&self, call: &PeerCall) -> Vec<(NodeId, Option<PeerAnswer>)> {
        let Ok(body) = serde_json::to_vec(call) else { return Vec::new() };
        let this = self.core.cluster.node();
        let ask = |node: NodeId| {
            let body = Bytes::from(body.clone());
            async move {
                if node == this {
                    return (node, Some(self.answer_peer(call.clone())));
                }
                let limit = self.core.options.peer_timeout;
                let answer = self.core.cluster.call_tier(node, Tier::Functions, body, limit).await;
                (node, answer.ok().and_then(|answer| serde_json::from_slice(&answer).ok()))
            }
        };
        futures::future::join_all(self.core.cluster.alive().into_iter().map(ask)).await
    }
}
