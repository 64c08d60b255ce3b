//! Replicas whose disk has demonstrably forgotten, or was made to.
//!
//! When a log comes back shorter than what it once acknowledged, its replicas may neither campaign
//! nor vote: a vote could elect a leader without an entry that this disk had helped to commit. They
//! take entries as before. All that this disk ever acknowledged to count is in the log of a leader that a
//! majority confirms after the loss; so once that leader's last entry of that moment is applied here,
//! everything that was forgotten is back, and the replica votes again.
//!
//! (An applied entry of the leader's own term isn't enough: the leader may have been elected with this
//! vote, before the loss, and have more entries of that term that were acknowledged here.)
//!
//! A group whose every majority needs such a replica stays without a leader: it stops honestly
//! (promise P18) instead of going on with a shorter history.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use fleetline_raft_group::{Confirmed, Group};
use fleetline_types::{GroupId, LogId, NodeId};

use crate::driver::Driver;

/// How long a leader may take to answer, and its entries to arrive before it is asked anew.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before a leader is asked again.
const PAUSE: Duration = Duration::from_millis(250);

/// Keeps `group` from campaigning until it is refilled. Call right after it was started.
pub(crate) fn watch(driver: &Arc<Driver>, group: Group) {
    if !driver.log().state(group.id()).amnesia {
        return;
    }
    tracing::error!(
        group = %group.id(),
        "this disk no longer has entries that it may have acknowledged; the replica doesn't vote until a leader has refilled it"
    );
    group.raft().runtime_config().elect(false);
    let driver = Arc::downgrade(driver);
    tokio::spawn(async move {
        if refill(&driver, &group).await.is_none() {
            return;
        }
        let Some(driver) = driver.upgrade() else {
            return;
        };
        if clear(&driver, group.id()).await {
            tracing::info!(group = %group.id(), "replica is refilled and votes again");
            group.raft().runtime_config().elect(true);
        }
    });
}

/// Returns once the replica is refilled; `None` when it or the driver has ended before.
async fn refill(driver: &Weak<Driver>, group: &Group) -> Option<()> {
    loop {
        let said = ask_leader(&driver.upgrade()?, group).await;
        if let Ok(said) = said {
            let mut applied = group.applied();
            let covers = |applied: &Option<LogId>| {
                applied.is_some_and(|id| id.index >= said.last.index || id.term > said.last.term)
            };
            match tokio::time::timeout(PATIENCE, applied.wait_for(covers)).await {
                Ok(refilled) => return refilled.ok().map(drop),
                Err(_) => continue,
            }
        }
        let mut applied = group.applied();
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            // Only to notice the end.
            ended = applied.wait_for(|_| false) => return ended.ok().map(drop),
        }
    }
}

async fn ask_leader(driver: &Arc<Driver>, group: &Group) -> Result<Confirmed, String> {
    let leader = group.status().leader;
    let nodes: BTreeSet<NodeId> = driver.peers_of(group.id()).into_iter().chain(leader).collect();
    driver.confirm(group.id(), &nodes, PATIENCE).await
}

async fn clear(driver: &Driver, group: GroupId) -> bool {
    let (done, cleared) = tokio::sync::oneshot::channel();
    let done = Box::new(move |result| drop(done.send(result)));
    match driver.log().clear_amnesia(group, done) {
        Ok(()) => cleared.await.is_ok_and(|result| result.is_ok()),
        Err(_) => false,
    }
}
