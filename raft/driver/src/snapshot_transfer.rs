//! stub while storage/snapshot lands
use crate::driver::Driver;
use crate::messages::MessageError;
use fleetline_peer::MessageKind;
use fleetline_raft_group::{NetworkSnapshot, TypeConfig, Vote};
use fleetline_raft_transport::{PeerMessage, PeerTransport, Replier};
use fleetline_types::{GroupId, NodeId};
use openraft::errors::StreamingError;
use std::sync::Arc;
#[derive(Default)]
pub(crate) struct Receiving {}
pub(crate) async fn send(
    _t: &dyn PeerTransport,
    _n: NodeId,
    _g: GroupId,
    v: Vote,
    _s: NetworkSnapshot,
) -> Result<Vote, StreamingError<TypeConfig>> {
    Ok(v)
}
pub(crate) fn receive(
    _d: &Arc<Driver>,
    _f: NodeId,
    _k: MessageKind,
    _m: PeerMessage,
    _r: Replier,
) -> Result<(), MessageError> {
    Ok(())
}
