//! Live connections of devices on this node.
//!
//! A connection's task owns its socket and protocol state. Others reach it through its [`Link`]: the
//! ingest says how far its records are acknowledged, leaders say what to look at, services call
//! methods. Each only sets something and wakes the task; nobody waits for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use fleetline_devices::{DeviceKey, FenceRow, Wake};
use futures::task::AtomicWaker;
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use super::hub::{MethodAnswer, MethodCall, WakeCall};

/// Shards of the map of connections.
const SHARDS: usize = 64;
/// Method calls that wait for one connection at the most.
const METHODS_MAX: usize = 64;

/// A method call for a connection, and where its answer goes.
#[derive(Debug)]
pub struct MethodJob {
    /// The call.
    pub call: MethodCall,
    /// Where its answer goes.
    pub answer: oneshot::Sender<MethodAnswer>,
}

/// A connection, as others see it.
#[derive(Debug)]
pub struct Link {
    /// Its number on this node.
    pub id: u64,
    /// Whose it is.
    pub key: DeviceKey,
    /// Its session's epoch; 0 until the session is open.
    epoch: AtomicU64,
    /// Sessions up to this epoch are over.
    over_up_to: AtomicU64,
    /// Its records up to this number are stored.
    acked: AtomicU64,
    /// Bits of [`Link::DESIRED`] and its like.
    bits: AtomicU32,
    methods: Mutex<Vec<MethodJob>>,
    waker: AtomicWaker,
}

impl Link {
    /// Desired properties have changed.
    pub const DESIRED: u32 = 1;
    /// There are commands.
    pub const COMMANDS: u32 = 2;
    /// There are method calls.
    pub const METHODS: u32 = 4;
    /// The node stops.
    pub const SHUTDOWN: u32 = 8;

    fn new(id: u64, key: DeviceKey) -> Link {
        Link {
            id,
            key,
            epoch: AtomicU64::new(0),
            over_up_to: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            bits: AtomicU32::new(0),
            methods: Mutex::default(),
            waker: AtomicWaker::new(),
        }
    }

    /// Its session is open under this epoch.
    pub fn opened(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Its session's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether its session is over: whatever it sends counts no more.
    pub fn is_over(&self) -> bool {
        let epoch = self.epoch();
        epoch != 0 && epoch <= self.over_up_to.load(Ordering::Acquire)
    }

    /// Sessions up to this epoch are over.
    pub fn end_up_to(&self, epoch: u64) {
        self.over_up_to.fetch_max(epoch, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Its records up to this number are stored.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Acquire)
    }

    pub(crate) fn ack(&self, up_to: u64) {
        self.acked.fetch_max(up_to, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Asks its task to look.
    pub fn set(&self, bits: u32) {
        self.bits.fetch_or(bits, Ordering::AcqRel);
        self.waker.wake();
    }

    /// What it was asked to look at since the last call.
    pub fn take(&self) -> u32 {
        self.bits.swap(0, Ordering::AcqRel)
    }

    /// The method calls that wait.
    pub fn take_methods(&self) -> Vec<MethodJob> {
        std::mem::take(&mut *self.methods.lock())
    }

    /// Ready when there is something to look at: bits, acknowledgements beyond `acked`, the end.
    pub fn poll_changed(&self, cx: &mut Context<'_>, acked: u64) -> Poll<()> {
        self.waker.register(cx.waker());
        let changed = self.bits.load(Ordering::Acquire) != 0 || self.acked() > acked || self.is_over();
        if changed { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Hands a call over; `false` when too many wait.
    fn call(&self, job: MethodJob) -> bool {
        let mut methods = self.methods.lock();
        if methods.len() >= METHODS_MAX {
            return false;
        }
        methods.push(job);
        drop(methods);
        self.set(Link::METHODS);
        true
    }
}

/// All live connections of this node.
#[derive(Debug)]
pub struct Connections {
    incarnation: u64,
    next: AtomicU64,
    count: AtomicUsize,
    by_id: Vec<Mutex<HashMap<u64, Arc<Link>>>>,
    /// By device, for fences.
    by_device: RwLock<BTreeMap<String, Vec<Arc<Link>>>>,
}

/// A connection is known as long as this lives.
#[derive(Debug)]
pub struct Registered {
    connections: Arc<Connections>,
    /// The connection.
    pub link: Arc<Link>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connections.forget(&self.link);
    }
}

impl Connections {
    /// None yet; `incarnation` is this process's.
    pub fn new(incarnation: u64) -> Arc<Connections> {
        Arc::new(Connections {
            incarnation,
            next: AtomicU64::new(1),
            count: AtomicUsize::new(0),
            by_id: (0..SHARDS).map(|_| Mutex::default()).collect(),
            by_device: RwLock::default(),
        })
    }

    /// Makes a connection of this identity known.
    pub fn register(self: &Arc<Self>, key: DeviceKey) -> Registered {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let link = Arc::new(Link::new(id, key));
        self.shard(id).lock().insert(id, link.clone());
        self.by_device
            .write()
            .entry(link.key.device.clone())
            .or_insert_with(|| Vec::with_capacity(1))
            .push(link.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        Registered { connections: self.clone(), link }
    }

    fn forget(&self, link: &Arc<Link>) {
        self.shard(link.id).lock().remove(&link.id);
        let mut by_device = self.by_device.write();
        if let Some(links) = by_device.get_mut(&link.key.device) {
            links.retain(|known| known.id != link.id);
            if links.is_empty() {
                by_device.remove(&link.key.device);
            }
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Arc<Link>>> {
        &self.by_id[(id % SHARDS as u64) as usize]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those that `wanted` picks.
    pub fn matching(&self, wanted: impl Fn(&DeviceKey) -> bool) -> Vec<Arc<Link>> {
        let by_device = self.by_device.read();
        by_device.values().flatten().filter(|link| wanted(&link.key)).cloned().collect()
    }

    /// Asks every connection to look.
    pub fn set_all(&self, bits: u32) {
        self.matching(|_| true).iter().for_each(|link| link.set(bits));
    }

    /// Hands a leader's word on.
    pub fn wake(&self, call: &WakeCall) {
        if call.place.incarnation != self.incarnation {
            return;
        }
        let link = self.shard(call.place.connection).lock().get(&call.place.connection).cloned();
        let Some(link) = link else { return };
        match call.reason() {
            Some(Wake::Fenced) => link.end_up_to(call.epoch),
            Some(Wake::Desired) => link.set(Link::DESIRED),
            Some(Wake::Commands) => link.set(Link::COMMANDS),
            None => {}
        }
    }

    /// Ends the sessions that a fence hits.
    pub fn fence(&self, fence: &FenceRow) {
        let by_device = self.by_device.read();
        let links = by_device.get(&fence.key.device).map(Vec::as_slice).unwrap_or_default();
        let hit = |link: &&Arc<Link>| fence.with_modules && !fence.key.is_module() || link.key == fence.key;
        for link in links.iter().filter(hit) {
            link.end_up_to(fence.index.saturating_sub(1));
        }
    }

    /// Calls a method of a connection, and waits for its answer.
    pub async fn call(&self, call: MethodCall) -> MethodAnswer {
        let limit = std::time::Duration::from_millis(call.timeout_ms.min(400_000));
        let link = self.shard(call.place.connection).lock().get(&call.place.connection).cloned();
        let here = link.filter(|link| {
            call.place.incarnation == self.incarnation && link.epoch() == call.epoch && !link.is_over()
        });
        let Some(link) = here else {
            return MethodAnswer::without(MethodAnswer::NOT_ONLINE);
        };
        let (answer, answered) = oneshot::channel();
        if !link.call(MethodJob { call, answer }) {
            return MethodAnswer::without(MethodAnswer::BUSY);
        }
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => MethodAnswer::without(MethodAnswer::BROKEN),
            Err(_) => MethodAnswer::without(MethodAnswer::TIMED_OUT),
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetline_devices::ConnectionPlace;

    use super::*;

    fn wake(connection: u64, incarnation: u64, epoch: u64) -> WakeCall {
        let place = ConnectionPlace { node: 1, incarnation, connection };
        WakeCall { place, epoch, wake: WakeCall::number(Wake::Fenced) }
    }

    /// A fence ends what is older, also when it overtakes the news that the session is open; it never
    /// ends the session that raised it, nor one of another process.
    #[test]
    fn fences_end_older_sessions() {
        let connections = Connections::new(7);
        let old = connections.register(DeviceKey::device("d"));
        let new = connections.register(DeviceKey::device("d"));
        connections.wake(&wake(old.link.id, 6, 100));
        old.link.opened(100);
        assert!(!old.link.is_over());
        connections.wake(&wake(old.link.id, 7, 100));
        assert!(old.link.is_over());
        new.link.opened(200);
        let fence = FenceRow { key: DeviceKey::device("d"), with_modules: false, index: 200, number: 1 };
        connections.fence(&fence);
        assert!(!new.link.is_over());
        connections.fence(&FenceRow { index: 201, ..fence });
        assert!(new.link.is_over());
    }

    /// A device's fence reaches its modules only if it says so.
    #[test]
    fn modules() {
        let connections = Connections::new(7);
        let module = connections.register(DeviceKey::module("d", "m"));
        module.link.opened(5);
        let fence = FenceRow { key: DeviceKey::device("d"), with_modules: false, index: 9, number: 1 };
        connections.fence(&fence);
        assert!(!module.link.is_over());
        connections.fence(&FenceRow { with_modules: true, ..fence });
        assert!(module.link.is_over());
        drop(module);
        assert!(connections.is_empty() && connections.matching(|_| true).is_empty());
    }
}
