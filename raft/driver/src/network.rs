//! openraft's network on the peer transport: what a leader or candidate sends.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fleetline_peer::MessageKind;
use fleetline_peer::pb;
use fleetline_raft_group::{AppendRequest, AppendResponse, SnapshotHandle, SnapshotStore, TypeConfig, Vote};
use fleetline_raft_transport::{Lane, PeerMessage, PeerTransport, ReplyFuture, TransportError};
use fleetline_types::{GroupId, NodeId};
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{SnapshotResponse, StreamAppendResult, TransferLeaderRequest};
use prost::Message;

use crate::heartbeats::Heartbeats;
use crate::messages::{self, MessageError};
use crate::snapshot_transfer;

type RpcResult<T> = Result<T, RPCError<TypeConfig>>;

/// Makes the clients of one group.
#[derive(Clone)]
pub(crate) struct NetworkFactory {
    pub(crate) group: GroupId,
    pub(crate) node: NodeId,
    pub(crate) transport: Arc<dyn PeerTransport>,
    pub(crate) heartbeats: Arc<Heartbeats>,
    pub(crate) append_window: usize,
    pub(crate) snapshots: Arc<SnapshotStore>,
}

/// A client of one group to one peer.
pub(crate) struct PeerClient {
    factory: NetworkFactory,
    target: NodeId,
    /// Empty appends go out together with those of other groups.
    coalesce: bool,
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = PeerClient;

    async fn new_client(&mut self, target: u64, _node: &openraft::impls::EmptyNode) -> PeerClient {
        PeerClient { factory: self.clone(), target: NodeId(target), coalesce: false }
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &openraft::impls::EmptyNode) -> PeerClient {
        PeerClient { factory: self.clone(), target: NodeId(target), coalesce: true }
    }
}

pub(crate) fn unreachable(error: &(impl std::error::Error + 'static)) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

fn refused(reason: String) -> RPCError<TypeConfig> {
    unreachable(&std::io::Error::other(reason))
}

fn transport_error(error: TransportError) -> RPCError<TypeConfig> {
    // Also for a connection that broke: openraft would repeat a `Network` error at once, for ever.
    unreachable(&error)
}

fn message_error(error: MessageError) -> RPCError<TypeConfig> {
    unreachable(&error)
}

impl PeerClient {
    fn timed_out(&self, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
        RPCError::Timeout(Timeout { action, id: self.factory.node.0, target: self.target.0, timeout })
    }

    async fn send(&self, lane: Lane, message: PeerMessage) -> RpcResult<ReplyFuture> {
        self.factory.transport.send(self.target, lane, message).await.map_err(transport_error)
    }

    /// One request, one answer, within `limit`.
    async fn call(
        &self,
        action: RPCTypes,
        lane: Lane,
        message: PeerMessage,
        limit: Duration,
    ) -> RpcResult<PeerMessage> {
        let answer = async { self.send(lane, message).await?.await.map_err(transport_error) };
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(self.timed_out(action, limit)))
    }

    async fn ask_vote(
        &self,
        kind: MessageKind,
        request: messages::VoteRequest,
        option: RPCOption,
    ) -> RpcResult<messages::VoteResponse> {
        let head = messages::vote_request_to_pb(&request);
        let message = messages::head_message(self.factory.group, kind, &head);
        let answer = self.call(RPCTypes::Vote, Lane::Control, message, option.hard_ttl()).await?;
        let answer = messages::decode(&answer).map_err(message_error)?;
        messages::vote_response_from_pb(answer).map_err(message_error)?.map_err(refused)
    }
}

/// Turns the answer to an append into openraft's response.
async fn append_answer(reply: ReplyFuture) -> RpcResult<AppendResponse> {
    let answer = reply.await.map_err(transport_error)?;
    let answer = messages::decode(&answer).map_err(message_error)?;
    messages::append_response_from_pb(answer).map_err(message_error)?.map_err(refused)
}

/// The ids that an append begins behind and ends with: what its response is about.
fn append_range(request: &AppendRequest) -> AppendRange {
    let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
    AppendRange { prev: request.prev_log_id, last }
}

struct AppendRange {
    prev: Option<fleetline_raft_group::LogIdOf>,
    last: Option<fleetline_raft_group::LogIdOf>,
}

impl AppendRange {
    /// openraft's stream item for a response, and whether the pipeline may go on behind it.
    fn stream_item(self, response: AppendResponse) -> RpcResult<(StreamAppendResult<TypeConfig>, bool)> {
        if response.is_conflict() && self.prev.is_none() {
            return Err(refused("peer reports a conflict before the first entry".to_owned()));
        }
        let whole = match &response {
            AppendResponse::Success => true,
            AppendResponse::PartialSuccess(matched) => *matched == self.last,
            AppendResponse::Conflict | AppendResponse::HigherVote(_) => false,
        };
        Ok((response.into_stream_result(self.prev, self.last), whole))
    }
}

impl RaftNetworkV2<TypeConfig> for PeerClient {
    type SnapshotData = SnapshotHandle;

    async fn append_entries(
        &mut self,
        request: AppendRequest,
        option: RPCOption,
    ) -> RpcResult<AppendResponse> {
        let limit = option.hard_ttl();
        let answer = async {
            if self.coalesce && request.entries.is_empty() {
                let head = messages::append_head(&request);
                let answer = self.factory.heartbeats.beat(self.target, self.factory.group, head).await;
                let answer = answer.map_err(transport_error)?;
                return messages::append_response_from_pb(answer).map_err(message_error)?.map_err(refused);
            }
            let message = messages::append_to_message(self.factory.group, request);
            append_answer(self.send(Lane::append_of(self.factory.group), message).await?).await
        };
        tokio::time::timeout(limit, answer)
            .await
            .unwrap_or_else(|_| Err(self.timed_out(RPCTypes::AppendEntries, limit)))
    }

    /// Pipelined: up to `append_window` requests are on their way; the lane keeps their order, and
    /// answers are yielded in that order. Ends with the first answer that isn't a whole success.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<BoxStream<'s, RpcResult<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        let this: &'s PeerClient = self;
        let limit = option.hard_ttl();
        let lane = Lane::append_of(this.factory.group);
        let answers = input
            .then(move |request| async move {
                let range = append_range(&request);
                let message = messages::append_to_message(this.factory.group, request);
                (range, this.send(lane, message).await)
            })
            .map(move |(range, sent)| async move {
                let answer = async { append_answer(sent?).await };
                let response = tokio::time::timeout(limit, answer)
                    .await
                    .unwrap_or_else(|_| Err(this.timed_out(RPCTypes::AppendEntries, limit)))?;
                range.stream_item(response)
            })
            .buffered(this.factory.append_window);
        let until_broken = answers.scan(true, |open, answer| {
            let item = open.then(|| {
                *open = matches!(answer, Ok((_, true)));
                answer.map(|(item, _)| item)
            });
            futures::future::ready(item)
        });
        let stream: BoxStream<'s, _> = Box::pin(until_broken);
        Box::pin(futures::future::ready(Ok(stream)))
    }

    async fn vote(
        &mut self,
        request: messages::VoteRequest,
        option: RPCOption,
    ) -> RpcResult<messages::VoteResponse> {
        self.ask_vote(MessageKind::Vote, request, option).await
    }

    async fn pre_vote(
        &mut self,
        request: messages::VoteRequest,
        option: RPCOption,
    ) -> RpcResult<messages::VoteResponse> {
        self.ask_vote(MessageKind::PreVote, request, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: fleetline_raft_group::NetworkSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let transfer = snapshot_transfer::send(
            self.factory.transport.as_ref(),
            self.factory.snapshots.as_ref(),
            self.target,
            self.factory.group,
            vote,
            snapshot,
        );
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = transfer => answer.map(SnapshotResponse::new),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<openraft::raft::TransferLeaderResponse<TypeConfig>> {
        let head = pb::TransferRequest {
            from: Some(messages::vote_to_pb(request.from_leader())),
            to: *request.to_node_id(),
            last: request.last_log_id().map(messages::id_to_pb),
        };
        let message = PeerMessage {
            group: self.factory.group,
            kind: MessageKind::Transfer as u8,
            head: head.encode_to_vec().into(),
            body: Vec::new(),
        };
        let answer = self.call(RPCTypes::TransferLeader, Lane::Control, message, option.hard_ttl()).await?;
        let answer: pb::TransferResponse = messages::decode(&answer).map_err(message_error)?;
        match answer.refused.is_empty() {
            true => Ok(Ok(())),
            false => Err(refused(answer.refused)),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(
            [50, 100, 200, 400].into_iter().chain(std::iter::repeat(500)).map(Duration::from_millis),
        ))
    }
}
