//! Damaged entries, fetched from peers.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use fleetline_log::LogEntry;
use fleetline_peer::MessageKind;
use fleetline_peer::pb;
use fleetline_raft_group::EntryFetcher;
use fleetline_raft_transport::Lane;
use fleetline_types::{GroupId, LogIndex, NodeId};

use crate::driver::Driver;
use crate::messages;

/// How long one peer may take to answer.
const PEER_PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait before all peers are asked again.
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// How often all peers are asked before the replica stops.
const ROUNDS: usize = 30;

/// Asks the other replicas of a group, again and again for a while: a damaged entry may be needed
/// while peers are restarting.
pub(crate) struct PeerFetcher {
    pub(crate) driver: Weak<Driver>,
}

impl fmt::Debug for PeerFetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerFetcher")
    }
}

#[async_trait]
impl EntryFetcher for PeerFetcher {
    async fn fetch(&self, group: GroupId, index: LogIndex) -> Result<LogEntry, String> {
        let mut reason = "it has no peers".to_owned();
        for _ in 0..ROUNDS {
            let driver = self.driver.upgrade().ok_or("node is stopping")?;
            for peer in driver.peers_of(group) {
                match fetch_from(&driver, peer, group, index).await {
                    Ok(entry) => return Ok(entry),
                    Err(error) => reason = format!("{peer}: {error}"),
                }
            }
            drop(driver);
            tokio::time::sleep(ROUND_PAUSE).await;
        }
        Err(format!("entry {index} of group {group} is damaged here and no peer could give it ({reason})"))
    }
}

async fn fetch_from(
    driver: &Driver,
    peer: NodeId,
    group: GroupId,
    index: LogIndex,
) -> Result<LogEntry, String> {
    let request = pb::FetchEntries { first: index.0, last: index.0 };
    let message = messages::head_message(group, MessageKind::FetchEntries, &request);
    let answer = async {
        let reply = driver.transport().send(peer, Lane::Bulk, message).await?;
        reply.await
    };
    let answer = tokio::time::timeout(PEER_PATIENCE, answer)
        .await
        .map_err(|_| "did not answer in time".to_owned())?
        .map_err(|error| error.to_string())?;
    let head: pb::FetchEntriesResponse = messages::decode(&answer).map_err(|error| error.to_string())?;
    if !head.refused.is_empty() {
        return Err(head.refused);
    }
    let entries = messages::entries_from_parts(&head.entries, messages::whole_body(answer.body))
        .map_err(|error| error.to_string())?;
    entries.into_iter().find(|entry| entry.id.index == index).ok_or_else(|| "does not have it".to_owned())
}

/// All nodes of a group but this one.
pub(crate) fn others(voters: BTreeSet<NodeId>, learners: BTreeSet<NodeId>, node: NodeId) -> Vec<NodeId> {
    voters.into_iter().chain(learners).filter(|other| *other != node).collect()
}
