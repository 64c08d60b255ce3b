//! Snapshots from a leader to a replica that the log alone can't fill.
//!
//! ```text
//!   leader                      follower
//!   BEGIN (meta)     ───────►   opens or resumes its staging file
//!                    ◄───────   resume at
//!   CHUNK at offset  ───────►   appended             (one at a time, bounded)
//!                    ◄───────   received up to
//!   FINISH (vote)    ───────►   verified, renamed, installed through openraft
//!                    ◄───────   vote
//! ```
//!
//! A broken transfer resumes where the follower's file ends, as long as the leader still has the
//! same snapshot.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_peer::MessageKind;
use fleetline_peer::pb;
use fleetline_raft_group::{NetworkSnapshot, SnapshotHandle, SnapshotStore, TypeConfig, Vote, raft_meta};
use fleetline_raft_transport::{Lane, PeerMessage, PeerTransport, Replier};
use fleetline_snapshot::{SnapshotMeta, Staging};
use fleetline_types::{GroupId, NodeId};
use openraft::errors::{StreamingError, Unreachable};
use prost::Message;
use tokio::sync::Mutex;

use crate::driver::{Driver, GroupEntry};
use crate::messages::{self, MessageError};

/// Bytes of one chunk at the most.
const CHUNK_BYTES: usize = 1 << 20;
/// How long the follower may take for one step; installing reads and writes everything once.
const STEP_PATIENCE: Duration = Duration::from_secs(300);

/// What a group is receiving.
#[derive(Default)]
pub(crate) struct Receiving {
    staging: Arc<Mutex<Option<Staging>>>,
}

fn broken(reason: impl std::fmt::Display) -> StreamingError<TypeConfig> {
    StreamingError::Unreachable(Unreachable::new(&std::io::Error::other(reason.to_string())))
}

/// One end of a transfer: where its messages go.
struct Sender<'a> {
    transport: &'a dyn PeerTransport,
    target: NodeId,
    group: GroupId,
}

impl Sender<'_> {
    async fn call<A: Message + Default>(
        &self,
        kind: MessageKind,
        head: &impl Message,
        body: Bytes,
    ) -> Result<A, StreamingError<TypeConfig>> {
        let body = if body.is_empty() { Vec::new() } else { vec![body] };
        let head = head.encode_to_vec().into();
        let message = PeerMessage { group: self.group, kind: kind as u8, head, body };
        let answer = async { self.transport.send(self.target, Lane::Bulk, message).await?.await };
        let answer = tokio::time::timeout(STEP_PATIENCE, answer)
            .await
            .map_err(|_| broken("follower did not answer in time"))?
            .map_err(broken)?;
        messages::decode(&answer).map_err(broken)
    }
}

fn accepted(refused: &str) -> Result<(), StreamingError<TypeConfig>> {
    match refused.is_empty() {
        true => Ok(()),
        false => Err(broken(refused)),
    }
}

/// Sends the kept snapshot to `target`, and gives the follower's vote.
pub(crate) async fn send(
    transport: &dyn PeerTransport,
    snapshots: &SnapshotStore,
    target: NodeId,
    group: GroupId,
    vote: Vote,
    snapshot: NetworkSnapshot,
) -> Result<Vote, StreamingError<TypeConfig>> {
    let sender = Sender { transport, target, group };
    let mut source = snapshots.source().await.map_err(broken)?;
    let meta = source.meta().clone();
    if snapshot.meta.last_log_id != raft_meta(&meta).map_err(broken)?.last_log_id {
        return Err(broken("a newer snapshot has replaced the one that was to be sent"));
    }
    tracing::info!(%target, %group, last = %meta.last, entries = meta.entry_count(), "sending a snapshot");
    let begin = pb::SnapshotBegin {
        vote: Some(messages::vote_to_pb(&vote)),
        last: snapshot.meta.last_log_id.as_ref().map(messages::id_to_pb),
        snapshot_id: meta.id.clone(),
        total_bytes: 0,
    };
    let answer: pb::SnapshotBeginResponse =
        sender.call(MessageKind::SnapshotBegin, &begin, meta.encode().into()).await?;
    accepted(&answer.refused)?;
    let mut offset = answer.resume_at;
    loop {
        let (back, piece) = snapshots
            .blocking()
            .run(move || {
                let piece = source.stream_chunk(offset, CHUNK_BYTES);
                (source, piece)
            })
            .await;
        source = back;
        let piece = piece.map_err(broken)?;
        if !piece.bytes.is_empty() {
            let head = pb::SnapshotChunk { snapshot_id: meta.id.clone(), offset };
            let answer: pb::SnapshotChunkResponse =
                sender.call(MessageKind::SnapshotChunk, &head, piece.bytes).await?;
            accepted(&answer.refused)?;
            offset = answer.received;
        }
        if piece.last {
            break;
        }
    }
    let finish = pb::SnapshotFinish { vote: Some(messages::vote_to_pb(&vote)), snapshot_id: meta.id };
    let answer: pb::SnapshotFinishResponse =
        sender.call(MessageKind::SnapshotFinish, &finish, Bytes::new()).await?;
    accepted(&answer.refused)?;
    messages::vote_from_pb(answer.vote).map_err(broken)
}

/// Takes a step of a transfer from a leader.
pub(crate) fn receive(
    driver: &Arc<Driver>,
    from: NodeId,
    kind: MessageKind,
    message: PeerMessage,
    replier: Replier,
) -> Result<(), MessageError> {
    let group = message.group;
    let entry = driver.entry(group);
    let missing = move || format!("group {group} has no replica on this node");
    match kind {
        MessageKind::SnapshotBegin => {
            let head: pb::SnapshotBegin = messages::decode(&message)?;
            let meta = SnapshotMeta::decode(messages::whole_body(message.body))?;
            tokio::spawn(async move {
                let answer = match entry {
                    Some(entry) => begin(&entry, &head, &meta).await,
                    None => Err(missing()),
                };
                tracing::info!(%from, %group, last = %meta.last, ?answer, "a snapshot is offered");
                let answer = match answer {
                    Ok(resume_at) => pb::SnapshotBeginResponse { resume_at, ..Default::default() },
                    Err(refused) => pb::SnapshotBeginResponse { refused, ..Default::default() },
                };
                replier.reply(messages::head_message(group, kind, &answer));
            });
        }
        MessageKind::SnapshotChunk => {
            let head: pb::SnapshotChunk = messages::decode(&message)?;
            let bytes = messages::whole_body(message.body);
            tokio::spawn(async move {
                let answer = match entry {
                    Some(entry) => chunk(&entry, head, bytes).await,
                    None => Err(missing()),
                };
                let answer = match answer {
                    Ok(received) => pb::SnapshotChunkResponse { received, ..Default::default() },
                    Err(refused) => pb::SnapshotChunkResponse { refused, ..Default::default() },
                };
                replier.reply(messages::head_message(group, kind, &answer));
            });
        }
        _ => {
            let head: pb::SnapshotFinish = messages::decode(&message)?;
            let vote = messages::vote_from_pb(head.vote)?;
            tokio::spawn(async move {
                let answer = match entry {
                    Some(entry) => finish(&entry, &head.snapshot_id, vote).await,
                    None => Err(missing()),
                };
                let answer = match answer {
                    Ok(vote) => pb::SnapshotFinishResponse { vote: Some(vote), ..Default::default() },
                    Err(refused) => pb::SnapshotFinishResponse { refused, ..Default::default() },
                };
                replier.reply(messages::head_message(group, kind, &answer));
            });
        }
    }
    Ok(())
}

async fn begin(entry: &GroupEntry, head: &pb::SnapshotBegin, meta: &SnapshotMeta) -> Result<u64, String> {
    if head.snapshot_id != meta.id {
        return Err(format!("snapshot {} is announced as {}", meta.id, head.snapshot_id));
    }
    let mut staging = entry.receiving.staging.lock().await;
    // Close a file that an earlier transfer left open before the next one opens it.
    *staging = None;
    let begun = entry.group.snapshots().begin(meta).map_err(|error| error.to_string())?;
    let resume_at = begun.offset();
    *staging = Some(begun);
    Ok(resume_at)
}

async fn chunk(entry: &GroupEntry, head: pb::SnapshotChunk, bytes: Bytes) -> Result<u64, String> {
    let mut guard = entry.receiving.staging.clone().lock_owned().await;
    let blocking = entry.group.snapshots().blocking();
    blocking
        .run(move || {
            let staging = guard.as_mut().filter(|staging| staging.meta().id == head.snapshot_id);
            let staging = staging.ok_or_else(|| format!("snapshot {} is not begun", head.snapshot_id))?;
            // A chunk that was written but not answered comes again: it is there already.
            if head.offset + bytes.len() as u64 > staging.offset() {
                staging.write(head.offset, &bytes).map_err(|error| error.to_string())?;
            }
            Ok(staging.offset())
        })
        .await
}

async fn finish(entry: &GroupEntry, snapshot_id: &str, vote: Vote) -> Result<pb::Vote, String> {
    // Held to the end: another leader's transfer must not replace the file that is being installed.
    let mut receiving = entry.receiving.staging.lock().await;
    let staging = receiving.take_if(|staging| staging.meta().id == snapshot_id);
    let staging = staging.ok_or_else(|| format!("snapshot {snapshot_id} is not begun"))?;
    let blocking = entry.group.snapshots().blocking();
    let meta = blocking.run(move || staging.finish()).await.map_err(|error| error.to_string())?;
    let meta = raft_meta(&meta).map_err(|error| error.to_string())?;
    let snapshot = NetworkSnapshot { meta, snapshot: SnapshotHandle::Received };
    let answer = entry.group.raft().install_full_snapshot(vote, snapshot).await;
    let answer = answer.map_err(|error| error.to_string())?;
    // Consensus doesn't install what it has anyway, nor what comes from a leader of the past. Left where
    // it is, the file would be installed at the next start, over a state that is further by then.
    entry.group.snapshots().discard_pending().map_err(|error| error.to_string())?;
    Ok(messages::vote_to_pb(&answer.vote))
}
