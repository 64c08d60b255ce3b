//! Heartbeats of all groups to one peer, in one frame.
//!
//! Every group's leader beats on its own timer. A beat waits a few milliseconds for others to the
//! same peer and travels with them; the answer frame carries all their answers. So a node that
//! leads hundreds of idle groups sends a few small frames a second to each peer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleetline_peer::MessageKind;
use fleetline_peer::pb;
use fleetline_raft_transport::{Lane, PeerTransport, TransportError};
use fleetline_types::{GroupId, NodeId};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::messages;

type Answer = Result<pb::AppendResponse, TransportError>;

/// A beat that waits to travel.
struct Beat {
    group: GroupId,
    append: pb::AppendRequest,
    answer: oneshot::Sender<Answer>,
}

/// Collects and sends the heartbeats of a node.
pub(crate) struct Heartbeats {
    transport: Arc<dyn PeerTransport>,
    linger: Duration,
    /// Per peer: the beats of the frame that is being collected. Present = a frame is on its way.
    waiting: Mutex<BTreeMap<NodeId, Vec<Beat>>>,
}

impl Heartbeats {
    /// `linger` is how long a beat waits for company; well below the heartbeat interval.
    pub(crate) fn new(transport: Arc<dyn PeerTransport>, linger: Duration) -> Arc<Heartbeats> {
        Arc::new(Heartbeats { transport, linger, waiting: Mutex::new(BTreeMap::new()) })
    }

    /// Sends one group's beat to `peer` with those of other groups, and waits for its answer.
    pub(crate) async fn beat(
        self: &Arc<Self>,
        peer: NodeId,
        group: GroupId,
        append: pb::AppendRequest,
    ) -> Answer {
        let (answer, receiver) = oneshot::channel();
        let first = {
            let mut waiting = self.waiting.lock();
            let beats = waiting.entry(peer).or_default();
            // A group has at most one open beat a peer; an older one is superseded by this.
            beats.retain(|beat| beat.group != group);
            beats.push(Beat { group, append, answer });
            beats.len() == 1
        };
        if first {
            tokio::spawn(self.clone().send_frame(peer));
        }
        receiver.await.unwrap_or(Err(TransportError::Broken(peer)))
    }

    /// Waits for company, then sends what has come together and hands out the answers.
    async fn send_frame(self: Arc<Self>, peer: NodeId) {
        tokio::time::sleep(self.linger).await;
        let beats = self.waiting.lock().remove(&peer).unwrap_or_default();
        let mut waiters = BTreeMap::new();
        let mut frame = pb::Heartbeats::default();
        for Beat { group, append, answer } in beats {
            frame.groups.push(pb::GroupAppend { group: group.0, append: Some(append) });
            waiters.insert(group, answer);
        }
        match self.exchange(peer, &frame).await {
            Ok(response) => {
                for pb::GroupAppendResponse { group, append } in response.groups {
                    if let (Some(answer), Some(append)) = (waiters.remove(&GroupId(group)), append) {
                        // The waiter may have timed out.
                        drop(answer.send(Ok(append)));
                    }
                }
            }
            Err(error) => {
                for answer in waiters.into_values() {
                    drop(answer.send(Err(error.clone())));
                }
            }
        }
    }

    async fn exchange(
        &self,
        peer: NodeId,
        frame: &pb::Heartbeats,
    ) -> Result<pb::HeartbeatsResponse, TransportError> {
        let message = messages::head_message(GroupId::CONTROL, MessageKind::Heartbeats, frame);
        let answer = self.transport.send(peer, Lane::Control, message).await?.await?;
        messages::decode(&answer).map_err(|error| {
            tracing::warn!(%peer, %error, "heartbeat answer is malformed");
            TransportError::Broken(peer)
        })
    }

    /// Whether `peer` answers an empty frame within `limit`: a probe of its process.
    pub(crate) async fn probe(&self, peer: NodeId, limit: Duration) -> bool {
        let frame = pb::Heartbeats::default();
        matches!(tokio::time::timeout(limit, self.exchange(peer, &frame)).await, Ok(Ok(_)))
    }
}
