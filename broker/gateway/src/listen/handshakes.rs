//! Connections in their TLS handshake, and which of them gives way.
//!
//! `listen` begins one for each socket that it accepts. At the bound the oldest is dropped: a real
//! client needs some round trips, so whoever is oldest among so many mostly doesn't want to finish. So the
//! loop that accepts never waits for a peer.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::Gauge;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Handshakes of one listener.
#[derive(Debug)]
pub(super) struct Handshakes {
    max: usize,
    open: Mutex<Open>,
    count: Gauge,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// By age; dropping one tells it to give way.
    stay: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A handshake that counts as long as this lives.
#[derive(Debug)]
pub(super) struct Handshake {
    of: Arc<Handshakes>,
    number: u64,
    stay: oneshot::Receiver<()>,
}

impl Handshakes {
    /// At most `max` at a time.
    pub(super) fn new(front: &'static str, max: usize) -> Arc<Handshakes> {
        metrics::gauge!("fleetline_front_handshakes_max", "front" => front).set(max as f64);
        let count = metrics::gauge!("fleetline_front_handshakes", "front" => front);
        Arc::new(Handshakes { max, open: Mutex::default(), count })
    }

    /// Begins one; at the bound the oldest gives way.
    pub(super) fn begin(self: &Arc<Self>) -> Handshake {
        let (sender, stay) = oneshot::channel();
        let mut open = self.open.lock();
        while open.stay.len() >= self.max.max(1) {
            open.stay.pop_first();
        }
        let number = open.next;
        open.next += 1;
        open.stay.insert(number, sender);
        self.count.set(open.stay.len() as f64);
        drop(open);
        Handshake { of: self.clone(), number, stay }
    }
}

impl Handshake {
    /// Resolves when this one must give way.
    pub(super) async fn dropped(&mut self) {
        // Nothing is ever sent: its end of the channel is gone.
        drop((&mut self.stay).await);
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut open = self.of.open.lock();
        open.stay.remove(&self.number);
        self.of.count.set(open.stay.len() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_dropped(handshake: &mut Handshake) -> bool {
        matches!(handshake.stay.try_recv(), Err(oneshot::error::TryRecvError::Closed))
    }

    /// The oldest that isn't done gives way, and only beyond the bound.
    #[test]
    fn the_oldest_gives_way() {
        let handshakes = Handshakes::new("test", 2);
        let [mut first, second] = [handshakes.begin(), handshakes.begin()];
        assert!(!is_dropped(&mut first));
        drop(second);
        let mut third = handshakes.begin();
        assert!(!is_dropped(&mut first) && !is_dropped(&mut third));
        let mut fourth = handshakes.begin();
        assert!(is_dropped(&mut first) && !is_dropped(&mut third) && !is_dropped(&mut fourth));
        // One that gave way counts no more, whether it has noticed or not.
        drop(first);
        let mut fifth = handshakes.begin();
        assert!(is_dropped(&mut third) && !is_dropped(&mut fourth) && !is_dropped(&mut fifth));
        drop((third, fourth, fifth));
        assert!(handshakes.open.lock().stay.is_empty());
    }
}
