//! Who may read a partition for a consumer group: receivers with an epoch take it from all others.
//!
//! "accept an epoch that is at least the current one and detach every other receiver; refuse a lower one,
//! and one without an epoch while there is an owner; without epochs up to five".
//!
//! Receivers of one node meet in [`Local`], at once. Those of different nodes meet in a document of the
//! partition, `amqp/owner/{group}`: who attaches with an epoch writes its name into it, on the condition
//! that it has the version that was judged; all others look at it every few seconds and give up when it
//! names another one. An owner says every [`REFRESH_MS`] that it is there; one that hasn't for
//! [`LEASE_MS`] (its node is gone) holds nobody off.
//!
//! Between nodes two receivers may read at the same time for [`crate::AmqpLimits::owner_interval`]: no
//! event is lost by that, and the client's own checkpoint store decides whose progress counts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use fleetline_amqp::{Error, condition};
use fleetline_devices::{AskDocuments, Condition, Op, PutDocument, Request};
use fleetline_gateway::devices::hub::{AskError, DeviceHub, answered};
use fleetline_iothub::errors::ErrorCode;
use fleetline_types::PartitionId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Receivers without an epoch of one group and partition.
const READERS_MAX: usize = 5;
/// After so long without a word an owner counts no more.
const LEASE_MS: u64 = 60_000;
/// How often an owner says that it is there.
const REFRESH_MS: u64 = 20_000;
/// How often an attach judges anew when others attach at the same time.
const ATTEMPTS: usize = 8;

type Place = (PartitionId, String);

/// Receivers of this node.
#[derive(Debug, Default)]
pub(crate) struct Local {
    readers: Mutex<HashMap<Place, Vec<Arc<Claim>>>>,
}

/// One receiver's claim.
#[derive(Debug)]
pub(crate) struct Claim {
    place: Place,
    epoch: Option<i64>,
    /// Its name in the document; drawn.
    id: String,
    stolen: AtomicBool,
    waker: Waker,
}

/// A claim that holds as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    local: Arc<Local>,
    claim: Arc<Claim>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut readers = self.local.readers.lock();
        if let Some(claims) = readers.get_mut(&self.claim.place) {
            claims.retain(|known| !Arc::ptr_eq(known, &self.claim));
            if claims.is_empty() {
                readers.remove(&self.claim.place);
            }
        }
    }
}

impl Held {
    /// Another one has taken its place.
    pub(crate) fn is_stolen(&self) -> bool {
        self.claim.stolen.load(Ordering::Acquire)
    }

    /// Another node's receiver has taken its place.
    pub(crate) fn lose(&self) {
        self.claim.stolen.store(true, Ordering::Release);
    }

    /// Its claim.
    pub(crate) fn claim(&self) -> Arc<Claim> {
        self.claim.clone()
    }
}

fn stolen(text: String) -> Error {
    Error::new(condition::LINK_STOLEN, text)
}

impl Local {
    /// Takes a place among this node's receivers. Those that lose theirs are woken.
    pub(crate) fn claim(
        self: &Arc<Self>,
        partition: PartitionId,
        group: &str,
        epoch: Option<i64>,
        id: String,
        waker: Waker,
    ) -> Result<Held, Error> {
        let place = (partition, group.to_owned());
        let claim =
            Arc::new(Claim { place: place.clone(), epoch, id, stolen: AtomicBool::new(false), waker });
        let mut readers = self.readers.lock();
        let others = readers.entry(place).or_default();
        let current = others.iter().filter(|other| !other.is_over()).filter_map(|other| other.epoch).max();
        let refusal = judge(epoch, current).or_else(|| {
            let living = others.iter().filter(|other| !other.is_over()).count();
            let text = format!("{READERS_MAX} receivers without an epoch are attached already");
            (epoch.is_none() && living >= READERS_MAX)
                .then(|| Error::new(condition::RESOURCE_LIMIT_EXCEEDED, text))
        });
        if let Some(error) = refusal {
            return Err(error);
        }
        if epoch.is_some() {
            for other in others.iter() {
                other.stolen.store(true, Ordering::Release);
                other.waker.wake_by_ref();
            }
        }
        others.push(claim.clone());
        drop(readers);
        Ok(Held { local: self.clone(), claim })
    }
}

impl Claim {
    /// Of which partition.
    pub(crate) fn partition(&self) -> PartitionId {
        self.place.0
    }

    fn is_over(&self) -> bool {
        self.stolen.load(Ordering::Acquire)
    }
}

/// Why a receiver may not attach besides an owner of epoch `current`.
fn judge(epoch: Option<i64>, current: Option<i64>) -> Option<Error> {
    match (epoch, current) {
        (_, None) => None,
        (None, Some(current)) => {
            Some(stolen(format!("a receiver with epoch {current} owns the partition for this group")))
        }
        (Some(epoch), Some(current)) => (epoch < current)
            .then(|| stolen(format!("a receiver with the higher epoch {current} owns the partition"))),
    }
}

/// What the document holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    id: String,
    epoch: i64,
    seen_ms: u64,
}

fn name(group: &str) -> String {
    format!("amqp/owner/{group}")
}

/// The document's version and the owner that it names.
async fn owner_of(
    hub: &Arc<dyn DeviceHub>,
    (partition, group): &Place,
) -> Result<(u64, Option<Owner>), AskError> {
    let ask = AskDocuments { name: name(group), all: false, from: String::new(), limit: 1 };
    let answer = answered(hub.ask(*partition, Request::Documents(ask)).await?)?;
    let Some(document) = answer.documents.into_iter().next() else { return Ok((0, None)) };
    let owner = serde_json::from_slice(&document.row.value).ok();
    Ok((document.row.version, owner))
}

fn alive(owner: Owner, now_ms: u64) -> Option<Owner> {
    (owner.seen_ms.saturating_add(LEASE_MS) > now_ms).then_some(owner)
}

async fn put(
    hub: &Arc<dyn DeviceHub>,
    claim: &Claim,
    version: u64,
    owner: Option<Owner>,
) -> Result<(), AskError> {
    let (partition, group) = &claim.place;
    let condition = if version == 0 { Condition::absent() } else { Condition::tag(version) };
    let value = owner.as_ref().and_then(|owner| serde_json::to_vec(owner).ok()).unwrap_or_default();
    let put = PutDocument { name: name(group), value: value.into(), condition, delete: owner.is_none() };
    hub.change(*partition, Op::PutDocument(put)).await.map(drop)
}

fn is_precondition(error: &AskError) -> bool {
    matches!(error, AskError::Refused(refused) if refused.code == ErrorCode::PreconditionFailed.number())
}

/// Takes the place among receivers of all nodes.
pub(crate) async fn claim(hub: &Arc<dyn DeviceHub>, claim: &Claim) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        let (version, owner) =
            owner_of(hub, &claim.place).await.map_err(|error| crate::errors::of_ask(&error))?;
        let current = owner.and_then(|owner| alive(owner, hub.now_ms()));
        if let Some(error) = judge(claim.epoch, current.map(|owner| owner.epoch)) {
            return Err(error);
        }
        let Some(epoch) = claim.epoch else { return Ok(()) };
        let owner = Owner { id: claim.id.clone(), epoch, seen_ms: hub.now_ms() };
        match put(hub, claim, version, Some(owner)).await {
            Ok(()) => return Ok(()),
            // Another one attaches at the same time: judge anew.
            Err(error) if is_precondition(&error) => {}
            Err(error) => return Err(crate::errors::of_ask(&error)),
        }
    }
    Err(Error::new(condition::SERVER_BUSY, "many receivers attach at the same time"))
}

/// Looks whether the place is still its own; `Some`: why not. That nobody can be asked now is no reason.
pub(crate) async fn look(hub: &Arc<dyn DeviceHub>, claim: &Claim) -> Option<Error> {
    let (version, owner) = owner_of(hub, &claim.place).await.ok()?;
    let now_ms = hub.now_ms();
    let is_own = owner.as_ref().is_some_and(|owner| owner.id == claim.id);
    match (claim.epoch, owner) {
        (Some(epoch), Some(owner)) if is_own => {
            if owner.seen_ms.saturating_add(REFRESH_MS) <= now_ms {
                // Who takes it at this moment is seen at the next look.
                drop(put(hub, claim, version, Some(Owner { seen_ms: now_ms, epoch, ..owner })).await);
            }
            None
        }
        (None, owner) => {
            let owner = owner.and_then(|owner| alive(owner, now_ms))?;
            Some(stolen(format!("a receiver with epoch {} has taken the partition", owner.epoch)))
        }
        (Some(_), Some(owner)) if alive(owner.clone(), now_ms).is_some() => {
            Some(stolen(format!("a receiver with epoch {} has taken the partition", owner.epoch)))
        }
        // The document is gone, or of somebody who is: it is taken back, unless another one is faster.
        (Some(epoch), _) => {
            let owner = Owner { id: claim.id.clone(), epoch, seen_ms: now_ms };
            drop(put(hub, claim, version, Some(owner)).await);
            None
        }
    }
}

/// Gives the place back.
pub(crate) async fn release(hub: &Arc<dyn DeviceHub>, claim: &Claim) {
    if claim.epoch.is_none() {
        return;
    }
    // What fails here ends with the lease.
    if let Ok((version, Some(owner))) = owner_of(hub, &claim.place).await
        && owner.id == claim.id
    {
        drop(put(hub, claim, version, None).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(local: &Arc<Local>, epoch: Option<i64>) -> Result<Held, Error> {
        local.claim(PartitionId(1), "g", epoch, "id".into(), Waker::noop().clone())
    }

    /// The table of the public hub.
    #[test]
    fn epochs() {
        let local = Arc::new(Local::default());
        let plain: Vec<Held> = (0..READERS_MAX).map(|_| claim(&local, None).unwrap()).collect();
        assert_eq!(claim(&local, None).unwrap_err().condition, condition::RESOURCE_LIMIT_EXCEEDED);
        let first = claim(&local, Some(0)).unwrap();
        assert!(plain.iter().all(Held::is_stolen) && !first.is_stolen());
        assert_eq!(claim(&local, None).unwrap_err().condition, condition::LINK_STOLEN);
        let equal = claim(&local, Some(0)).unwrap();
        assert!(first.is_stolen());
        let higher = claim(&local, Some(7)).unwrap();
        assert!(equal.is_stolen() && !higher.is_stolen());
        assert_eq!(claim(&local, Some(6)).unwrap_err().condition, condition::LINK_STOLEN);
        // An owner that has left holds nobody off.
        drop(higher);
        assert!(claim(&local, None).is_ok());
        drop((plain, first, equal));
        assert!(local.readers.lock().is_empty());
    }
}
