//! Calls of one node's broker to another's: bytes in, bytes out, over the same links.
//!
//! `broker/node` sets the service that answers, and calls others through [`Driver::call`]. Which node
//! to call, and what bytes mean, is its business; here is only the way, and the difference between
//! *not sent* and *unknown*.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_peer::MessageKind;
use fleetline_peer::pb;
use fleetline_raft_transport::{Lane, PeerMessage, Replier};
use fleetline_types::{GroupId, NodeId};
use prost::Message;
use thiserror::Error;

use crate::driver::Driver;
use crate::messages::{self, MessageError};

/// Calls of peers that are answered at the same time; more are refused.
const CALLS_MAX: usize = 16_384;

/// Answers the calls of other nodes.
#[async_trait]
pub trait PeerService: Send + Sync + 'static {
    /// Answers one call. `operation` tells calls apart.
    async fn on_call(
        &self,
        from: NodeId,
        group: GroupId,
        operation: u32,
        body: Bytes,
    ) -> Result<Bytes, String>;
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// It was not sent, or the other node refused it: nothing has happened.
    #[error("node {node} can't be asked: {reason}")]
    NotSent {
        /// Whom.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// It was sent and may have been done.
    #[error("node {node} was asked, its answer is unknown: {reason}")]
    Unknown {
        /// Whom.
        node: NodeId,
        /// Why.
        reason: String,
    },
}

impl Driver {
    /// Sets who answers the calls of other nodes; the first one stays.
    pub fn set_service(&self, service: Arc<dyn PeerService>) {
        if self.service.set(service).is_err() {
            tracing::error!("peer service was set twice");
        }
    }

    /// Calls another node and waits up to `limit`.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(
        &self,
        node: NodeId,
        lane: Lane,
        group: GroupId,
        operation: u32,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let not_sent = |reason: String| CallError::NotSent { node, reason };
        let unknown = |reason: String| CallError::Unknown { node, reason };
        let deadline = tokio::time::Instant::now() + limit;
        let head = pb::Call { operation }.encode_to_vec().into();
        let body = if body.is_empty() { Vec::new() } else { vec![body] };
        let message = PeerMessage { group, kind: MessageKind::Call as u8, head, body };
        let sent = tokio::time::timeout_at(deadline, self.transport().send(node, lane, message)).await;
        let answer = match sent {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(not_sent(error.to_string())),
            Err(_) => return Err(not_sent("its queue stayed full".to_owned())),
        };
        let answer = tokio::time::timeout_at(deadline, answer)
            .await
            .map_err(|_| unknown("no answer in time".to_owned()))?
            .map_err(|error| unknown(error.to_string()))?;
        let head: pb::CallResponse = messages::decode(&answer).map_err(|error| unknown(error.to_string()))?;
        match head.refused.is_empty() {
            true => Ok(messages::whole_body(answer.body)),
            false => Err(not_sent(head.refused)),
        }
    }
}

pub(crate) fn on_call(
    driver: &Arc<Driver>,
    from: NodeId,
    message: PeerMessage,
    replier: Replier,
) -> Result<(), MessageError> {
    let group = message.group;
    let head: pb::Call = messages::decode(&message)?;
    let body = messages::whole_body(message.body);
    let answer = move |answer: Result<Bytes, String>| {
        let (refused, body) = match answer {
            Ok(body) => (String::new(), body),
            Err(reason) => (reason, Bytes::new()),
        };
        let mut message = messages::head_message(group, MessageKind::Call, &pb::CallResponse { refused });
        message.body.extend((!body.is_empty()).then_some(body));
        replier.reply(message);
    };
    let Some(service) = driver.service.get().cloned() else {
        answer(Err("node is still starting".to_owned()));
        return Ok(());
    };
    let Ok(permit) = driver.calls.clone().try_acquire_owned() else {
        metrics::counter!("fleetline_peer_calls_refused_total").increment(1);
        answer(Err("too many calls at once".to_owned()));
        return Ok(());
    };
    tokio::spawn(async move {
        answer(service.on_call(from, group, head.operation, body).await);
        drop(permit);
    });
    Ok(())
}

pub(crate) fn permits() -> Arc<tokio::sync::Semaphore> {
    Arc::new(tokio::sync::Semaphore::new(CALLS_MAX))
}
