//! What happens when a peer's process dies: the groups that it led campaign at once.
//!
//! A killed process closes its sockets, so its death is known within milliseconds, far below the
//! election time-out that a starved machine needs. The other voters take turns by rank, so that
//! they don't split the vote; each asks the peer once more before it campaigns, because a broken
//! connection to a living leader must not disturb it.

use std::sync::Arc;
use std::time::Duration;

use fleetline_raft_group::Group;
use fleetline_types::NodeId;

use crate::driver::Driver;

/// How long the first in line waits, and each further one more.
const TURN: Duration = Duration::from_millis(40);
/// How long the peer has to prove that it lives.
const PROBE: Duration = Duration::from_millis(500);

/// Lets the groups that `dead` led elect another leader.
pub(crate) fn peer_died(driver: &Arc<Driver>, dead: NodeId) {
    let orphaned: Vec<Group> =
        driver.groups().into_iter().filter(|group| group.status().leader == Some(dead)).collect();
    if orphaned.is_empty() {
        return;
    }
    let driver = driver.clone();
    tokio::spawn(async move {
        if driver.heartbeats().probe(dead, PROBE).await {
            return;
        }
        tracing::info!(%dead, groups = orphaned.len(), "leader process died, campaigning");
        for group in orphaned {
            tokio::spawn(take_turn(driver.clone(), group, dead));
        }
    });
}

/// Waits for this node's turn, then campaigns unless somebody leads by then.
async fn take_turn(driver: Arc<Driver>, group: Group, dead: NodeId) {
    let status = group.status();
    let heirs: Vec<NodeId> = status.voters.iter().copied().filter(|node| *node != dead).collect();
    let Some(rank) = heirs.iter().position(|node| *node == driver.node()) else {
        return;
    };
    // Different groups begin with different heirs, so that one node doesn't inherit everything.
    let turn = (rank + group.id().0 as usize) % heirs.len();
    tokio::time::sleep(TURN * turn as u32).await;
    if let Err(error) = group.succeed_dead_leader(dead).await {
        tracing::debug!(group = %group.id(), %error, "could not campaign");
    }
}
