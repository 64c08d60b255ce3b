//! What unit tests of several files need.

use std::sync::Arc;

use fleetline_signalr::connection_id::ConnectionId;
use fleetline_signalr::names::HubName;
use fleetline_signalr::negotiate::Transport;
use fleetline_types::NodeId;

use crate::limits::RealtimeLimits;
use crate::member::{ClientInfo, Member};

/// A member of a hub that nobody serves.
pub(crate) fn member(hub: &str, number: usize) -> Arc<Member> {
    let mut random = [0; fleetline_signalr::connection_id::RANDOM_BYTES];
    random[..8].copy_from_slice(&number.to_be_bytes());
    let id = ConnectionId::mint(NodeId(1), random);
    let hub = HubName::parse(hub).expect("name");
    let (client, limits) = (ClientInfo::default(), RealtimeLimits::default());
    Arc::new(Member::new(id, hub, client, Transport::WebSockets, &limits))
}
