//! Replicas whose disk has demonstrably forgotten.
//!
//! When a log comes back shorter than what it once acknowledged, its replicas may neither campaign
//! nor vote: a vote could elect a leader without an entry that this disk had helped to commit. They
//! take entries as before. A leader that was elected without this vote has every committed entry,
//! so once an entry of such a leader's own term is applied here, everything that was forgotten is
//! back, and the replica votes again.
//!
//! A group whose every majority needs such a replica stays without a leader: it stops honestly
//! (promise P18) instead of going on with a shorter history.

use std::sync::Arc;

use fleetline_raft_group::Group;

use crate::driver::Driver;

/// Keeps `group` from campaigning until it is refilled. Call right after it was started.
pub(crate) fn watch(driver: &Arc<Driver>, group: Group) {
    if !driver.log().state(group.id()).amnesia {
        return;
    }
    tracing::error!(
        group = %group.id(),
        "this disk lost entries that it had acknowledged; the replica doesn't vote until a leader has refilled it"
    );
    group.raft().runtime_config().elect(false);
    let driver = Arc::downgrade(driver);
    tokio::spawn(async move {
        let mut applied = group.applied();
        loop {
            let refilled = {
                let status = group.status();
                let last = *applied.borrow_and_update();
                let leader_elsewhere = status.leader.is_some_and(|leader| !status.is_leader && leader.0 != 0);
                leader_elsewhere && last.is_some_and(|id| id.term == status.term)
            };
            if refilled {
                break;
            }
            if applied.changed().await.is_err() {
                return;
            }
        }
        let Some(driver) = driver.upgrade() else {
            return;
        };
        let (done, cleared) = tokio::sync::oneshot::channel();
        let done = Box::new(move |result| drop(done.send(result)));
        let cleared = match driver.log().clear_amnesia(group.id(), done) {
            Ok(()) => cleared.await.is_ok_and(|result| result.is_ok()),
            Err(_) => false,
        };
        if cleared {
            tracing::info!(group = %group.id(), "replica is refilled and votes again");
            group.raft().runtime_config().elect(true);
        }
    });
}
