//! The state of the memory network: nodes, connections, what is under way, what is cut.
//!
//! `endpoint` and `MemNetwork` change it under one lock; [`deliver`] takes what is due and calls
//! the handlers without the lock. Nothing here reads anything but tokio's clock and the seed.
//!
//! A *pipe* is a connection: one per (requester, answerer, lane), with an epoch that grows when it
//! is made again. Its floors are the times of the latest scheduled deliveries; they outlive breaks,
//! which is what keeps the order across connections.
//!
//! Simplification: a node that dies behind a cut is noticed as if there were no cut.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fleetline_types::NodeId;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};
use tracing::error;

use super::{CutMode, LinkFaults, MemOptions, NetworkCounters, Shared};
use crate::metric_definitions::lane_index;
use crate::open_requests::{NotAdded, OpenRequests};
use crate::rng::Rng;
use crate::{Lane, PeerHandler, PeerMessage, Replier, ReplyFuture, TransportError};

pub(crate) struct World {
    pub options: MemOptions,
    pub counters: NetworkCounters,
    rng: Rng,
    nodes: BTreeMap<NodeId, Node>,
    incarnations: u64,
    faults: BTreeMap<Link, LinkFaults>,
    cuts: BTreeMap<Link, Cut>,
    pipes: BTreeMap<PipeKey, Pipe>,
    due: BTreeMap<(Instant, u64), Event>,
    /// Pipes whose paused requests may go on.
    ready: VecDeque<PipeKey>,
    held: BTreeMap<Link, VecDeque<Event>>,
    sequence: u64,
    /// Not before this time the first node may hear again that the second is up.
    presence_floor: BTreeMap<Link, Instant>,
    /// Sends that wait for a cut to heal listen to this. It wakes them in the order they came, which
    /// tokio's `watch` would not: that picks by a generator of its own.
    changes: Arc<Notify>,
}

/// From, to.
type Link = (NodeId, NodeId);

struct Node {
    handler: Arc<dyn PeerHandler>,
    incarnation: u64,
}

struct Cut {
    id: u64,
    mode: CutMode,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct PipeKey {
    from: NodeId,
    to: NodeId,
    lane: Lane,
}

struct Pipe {
    epoch: u64,
    live: bool,
    room: Arc<Semaphore>,
    open: OpenRequests,
    answers_queued: usize,
    /// Requests that have arrived and are not read, because too many answers are under way.
    paused: VecDeque<Event>,
    request_floor: Instant,
    answer_floor: Instant,
}

enum Event {
    Request { pipe: PipeKey, epoch: u64, to_incarnation: u64, id: u64, permits: usize, message: PeerMessage },
    Answer { pipe: PipeKey, epoch: u64, id: u64, message: PeerMessage },
    Presence { observer: NodeId, incarnation: u64, about: NodeId, up: bool },
    CutTimedOut { link: Link, id: u64 },
}

/// Why a send has no connection.
pub(crate) enum NotOpen {
    /// The send fails.
    Never(TransportError),
    /// The link is cut and may heal: wait for a change, for so long at the most.
    Cut { changed: OwnedNotified, connect_timeout: Duration },
}

/// A call that the delivery task makes without the lock.
enum Call {
    Request {
        handler: Arc<dyn PeerHandler>,
        from: NodeId,
        lane: Lane,
        message: PeerMessage,
        replier: Replier,
    },
    Presence {
        handler: Arc<dyn PeerHandler>,
        about: NodeId,
        up: bool,
    },
    Nothing,
}

enum Next {
    Call(Call),
    At(Instant),
    Never,
}

/// Delivers what is due, for as long as the network lives.
pub(crate) async fn deliver(shared: Arc<Shared>) {
    loop {
        let next = shared.world.lock().next(&shared);
        match next {
            Next::Call(Call::Request { handler, from, lane, message, replier }) => {
                handler.on_request(from, lane, message, replier);
            }
            Next::Call(Call::Presence { handler, about, up: true }) => handler.on_peer_up(about),
            Next::Call(Call::Presence { handler, about, up: false }) => handler.on_peer_down(about),
            Next::Call(Call::Nothing) => {}
            Next::At(at) => {
                tokio::select! {
                    biased;
                    () = shared.sooner.notified() => {}
                    () = sleep_until(at) => {}
                }
            }
            Next::Never => shared.sooner.notified().await,
        }
        tokio::task::consume_budget().await;
    }
}

/// Nodes that come and go.
impl World {
    pub(crate) fn new(options: MemOptions) -> World {
        World {
            rng: Rng::new(options.seed),
            options,
            counters: NetworkCounters::default(),
            nodes: BTreeMap::new(),
            incarnations: 0,
            faults: BTreeMap::new(),
            cuts: BTreeMap::new(),
            pipes: BTreeMap::new(),
            due: BTreeMap::new(),
            ready: VecDeque::new(),
            held: BTreeMap::new(),
            sequence: 0,
            presence_floor: BTreeMap::new(),
            changes: Arc::new(Notify::new()),
        }
    }

    pub(crate) fn add(&mut self, node: NodeId, handler: Arc<dyn PeerHandler>) -> u64 {
        self.incarnations += 1;
        self.nodes.insert(node, Node { handler, incarnation: self.incarnations });
        self.changed();
        self.incarnations
    }

    /// The handler is returned because its end may run code that needs the lock.
    #[must_use]
    pub(crate) fn kill(&mut self, node: NodeId) -> Option<Arc<dyn PeerHandler>> {
        let dead = self.nodes.remove(&node)?;
        self.break_where(|pipe| pipe.from == node || pipe.to == node);
        self.changed();
        Some(dead.handler)
    }

    #[must_use]
    pub(crate) fn kill_incarnation(
        &mut self,
        node: NodeId,
        incarnation: u64,
    ) -> Option<Arc<dyn PeerHandler>> {
        if self.is_alive(node, incarnation) { self.kill(node) } else { None }
    }

    pub(crate) fn is_alive(&self, node: NodeId, incarnation: u64) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.incarnation == incarnation)
    }

    pub(crate) fn is_up(&self, a: NodeId, b: NodeId) -> bool {
        Lane::ALL.into_iter().any(|lane| {
            [(a, b), (b, a)]
                .into_iter()
                .any(|(from, to)| self.pipes.get(&PipeKey { from, to, lane }).is_some_and(|pipe| pipe.live))
        })
    }

    /// `node` forgets `peer`.
    pub(crate) fn leave(&mut self, node: NodeId, incarnation: u64, peer: NodeId) {
        if self.is_alive(node, incarnation) {
            self.break_pair(node, peer);
        }
    }

    fn changed(&self) {
        self.changes.notify_waiters();
    }
}

/// Faults.
impl World {
    pub(crate) fn set_faults(&mut self, from: NodeId, to: NodeId, faults: LinkFaults) {
        self.faults.insert((from, to), faults);
    }

    pub(crate) fn set_all_faults(&mut self, faults: LinkFaults) {
        self.options.faults = faults;
        self.faults.clear();
    }

    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        let link = (from, to);
        if self.cuts.contains_key(&link) {
            return;
        }
        self.sequence += 1;
        let cut = Cut { id: self.sequence, mode: self.options.cut_mode };
        let (id, mode) = (cut.id, cut.mode);
        self.cuts.insert(link, cut);
        let caught: Vec<_> =
            self.due.iter().filter(|(_, event)| event.link() == Some(link)).map(|(at, _)| *at).collect();
        for at in caught {
            if let Some(event) = self.due.remove(&at) {
                self.hold(link, event);
            }
        }
        match mode {
            CutMode::Hang => {}
            CutMode::HangThenBreak(after) => {
                self.schedule(Instant::now() + after, Event::CutTimedOut { link, id });
            }
            CutMode::Fail => self.break_pair(from, to),
        }
    }

    pub(crate) fn isolate(&mut self, node: NodeId) {
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    pub(crate) fn heal(&mut self, from: NodeId, to: NodeId) {
        if self.cuts.remove(&(from, to)).is_none() {
            return;
        }
        for event in self.held.remove(&(from, to)).unwrap_or_default() {
            self.send_off(event);
        }
        self.changed();
    }

    pub(crate) fn heal_all(&mut self) {
        let cut: Vec<Link> = self.cuts.keys().copied().collect();
        for (from, to) in cut {
            self.heal(from, to);
        }
    }

    pub(crate) fn break_pair(&mut self, a: NodeId, b: NodeId) {
        self.break_where(|pipe| (pipe.from, pipe.to) == (a, b) || (pipe.from, pipe.to) == (b, a));
    }

    fn break_where(&mut self, chosen: impl Fn(PipeKey) -> bool) {
        let keys: Vec<PipeKey> =
            self.pipes.iter().filter(|(key, pipe)| pipe.live && chosen(**key)).map(|(key, _)| *key).collect();
        for key in &keys {
            self.break_pipe(*key);
        }
        let mut pairs: Vec<Link> =
            keys.iter().map(|key| (key.from.min(key.to), key.from.max(key.to))).collect();
        pairs.sort_unstable();
        pairs.dedup();
        for (a, b) in pairs {
            if !self.is_up(a, b) {
                self.tell_presence(a, b, false);
                self.tell_presence(b, a, false);
            }
        }
    }

    /// Fails the open requests of a connection and loses what was under way, but for a random part
    /// from the front.
    fn break_pipe(&mut self, key: PipeKey) {
        let requester_lives = self.nodes.contains_key(&key.from);
        let Some(pipe) = self.pipes.get_mut(&key) else { return };
        pipe.live = false;
        pipe.room.close();
        self.counters.discarded += pipe.paused.len() as u64;
        pipe.paused.clear();
        let error = if requester_lives { TransportError::Broken(key.to) } else { TransportError::Closed };
        for sender in pipe.open.break_off() {
            // A requester that gave up has dropped its end.
            let _ = sender.send(Err(error.clone()));
        }
        self.counters.broken += 1;
        for events in self.held.values_mut() {
            let before = events.len();
            events.retain(|event| event.pipe() != Some(key));
            self.counters.discarded += (before - events.len()) as u64;
        }
        let under_way: Vec<_> =
            self.due.iter().filter(|(_, event)| event.pipe() == Some(key)).map(|(at, _)| *at).collect();
        let (requests, answers): (Vec<_>, Vec<_>) =
            under_way.into_iter().partition(|at| matches!(self.due.get(at), Some(Event::Request { .. })));
        let arrive = self.rng.below(requests.len() as u64 + 1) as usize;
        for at in requests[arrive..].iter().chain(&answers) {
            self.due.remove(at);
            self.counters.discarded += 1;
        }
    }

    fn faults(&self, link: Link) -> LinkFaults {
        self.faults.get(&link).copied().unwrap_or(self.options.faults)
    }
}

/// Connections and messages.
impl World {
    /// The room and the epoch of the connection, which is made when there is none.
    pub(crate) fn open(
        &mut self,
        from: NodeId,
        incarnation: u64,
        to: NodeId,
        lane: Lane,
    ) -> Result<(Arc<Semaphore>, u64), NotOpen> {
        if !self.is_alive(from, incarnation) {
            return Err(NotOpen::Never(TransportError::Closed));
        }
        let key = PipeKey { from, to, lane: canonical(lane) };
        if let Some(pipe) = self.pipes.get(&key)
            && pipe.live
        {
            return Ok((pipe.room.clone(), pipe.epoch));
        }
        let unreachable = |reason: &str| {
            NotOpen::Never(TransportError::Unreachable { node: to, reason: reason.to_owned() })
        };
        let cuts = [self.cuts.get(&(from, to)), self.cuts.get(&(to, from))];
        if cuts.iter().flatten().any(|cut| cut.mode == CutMode::Fail) {
            return Err(unreachable("link is cut"));
        }
        if cuts.iter().any(Option::is_some) {
            let connect_timeout = self.options.connect_timeout;
            return Err(NotOpen::Cut { changed: self.changes.clone().notified_owned(), connect_timeout });
        }
        if from == to || !self.nodes.contains_key(&to) {
            return Err(unreachable("connection refused"));
        }
        if !self.is_up(from, to) {
            self.tell_presence(from, to, true);
            self.tell_presence(to, from, true);
        }
        self.counters.connected += 1;
        let not_before = self.presence_floor.get(&(to, from)).copied().unwrap_or_else(Instant::now);
        let queue_bytes = self.options.lane_queue_bytes_max;
        let pipe = self.pipes.entry(key).or_insert_with(|| Pipe::new(not_before));
        pipe.open_again(queue_bytes, not_before);
        Ok((pipe.room.clone(), pipe.epoch))
    }

    pub(crate) fn request(
        &mut self,
        from: NodeId,
        to: NodeId,
        lane: Lane,
        epoch: u64,
        permits: usize,
        message: PeerMessage,
    ) -> Result<ReplyFuture, TransportError> {
        let key = PipeKey { from, to, lane: canonical(lane) };
        let broken = TransportError::Broken(to);
        let to_incarnation = self.nodes.get(&to).map(|node| node.incarnation).ok_or(broken.clone())?;
        let Some(pipe) = self.pipes.get_mut(&key).filter(|pipe| pipe.live && pipe.epoch == epoch) else {
            return Err(broken);
        };
        let (sender, future) = ReplyFuture::channel();
        let id = match pipe.open.add(sender) {
            Ok(id) => id,
            Err(NotAdded::Broken) => return Err(broken),
            Err(NotAdded::TooMany) => {
                pipe.room.add_permits(permits);
                let reason = "too many requests wait for its answers".to_owned();
                return Err(TransportError::Unreachable { node: to, reason });
            }
        };
        self.counters.requests += 1;
        let faults = self.faults((from, to));
        let (dropped, doubled) = (self.rng.chance(faults.drop), self.rng.chance(faults.duplicate));
        if dropped {
            self.counters.dropped += 1;
            self.give_room(key, epoch, permits);
            return Ok(future);
        }
        let second = doubled.then(|| message.clone());
        self.send_off(Event::Request { pipe: key, epoch, to_incarnation, id, permits, message });
        if let Some(message) = second {
            self.counters.duplicated += 1;
            self.send_off(Event::Request { pipe: key, epoch, to_incarnation, id, permits: 0, message });
        }
        Ok(future)
    }

    fn answer(&mut self, key: PipeKey, epoch: u64, id: u64, message: PeerMessage) {
        let (limit, queue_bytes) = (self.options.frame_bytes_max, self.options.lane_queue_bytes_max);
        let Some(pipe) = self.pipes.get_mut(&key).filter(|pipe| pipe.live && pipe.epoch == epoch) else {
            return;
        };
        if message.len() > limit {
            error!(peer = %key.from, len = message.len(), "answer is over the frame limit and was dropped");
            return;
        }
        if pipe.answers_queued > queue_bytes {
            self.break_where(|pipe| pipe == key);
            return;
        }
        let faults = self.faults((key.to, key.from));
        if self.rng.chance(faults.drop) {
            self.counters.dropped += 1;
            return;
        }
        if let Some(pipe) = self.pipes.get_mut(&key) {
            pipe.answers_queued += message.len();
        }
        self.send_off(Event::Answer { pipe: key, epoch, id, message });
    }

    /// Puts a message under way, or to those that wait for their cut to heal.
    fn send_off(&mut self, event: Event) {
        let (Some(link), Some(key)) = (event.link(), event.pipe()) else { return };
        if self.cuts.contains_key(&link) {
            self.hold(link, event);
            return;
        }
        let faults = self.faults(link);
        let mut at = Instant::now() + self.rng.between(faults.delay_min, faults.delay_max);
        let Some(pipe) = self.pipes.get_mut(&key) else { return };
        let floor = if matches!(event, Event::Request { .. }) {
            &mut pipe.request_floor
        } else {
            &mut pipe.answer_floor
        };
        let may_overtake = faults.reorder && !matches!(key.lane, Lane::Append(_));
        if !may_overtake {
            at = at.max(*floor);
        }
        *floor = at.max(*floor);
        self.schedule(at, event);
    }

    fn hold(&mut self, link: Link, event: Event) {
        let live = event
            .pipe()
            .and_then(|key| self.pipes.get(&key))
            .is_some_and(|pipe| pipe.live && event.epoch() == Some(pipe.epoch));
        if live {
            self.counters.held += 1;
            self.held.entry(link).or_default().push_back(event);
        } else {
            // Its connection broke; only the network still had it.
            self.counters.discarded += 1;
        }
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.due.insert((at, self.sequence), event);
    }

    /// Has `observer` hear that `about` came or went, behind everything that `about` had sent it.
    fn tell_presence(&mut self, observer: NodeId, about: NodeId, up: bool) {
        let Some(incarnation) = self.nodes.get(&observer).map(|node| node.incarnation) else { return };
        let mut at = Instant::now();
        if !up {
            at += self.options.down_delay;
            for lane in Lane::ALL {
                if let Some(pipe) = self.pipes.get(&PipeKey { from: about, to: observer, lane }) {
                    at = at.max(pipe.request_floor);
                }
            }
        }
        let floor = self.presence_floor.entry((observer, about)).or_insert(at);
        at = at.max(*floor);
        *floor = at;
        self.schedule(at, Event::Presence { observer, incarnation, about, up });
    }

    fn give_room(&mut self, key: PipeKey, epoch: u64, permits: usize) {
        if let Some(pipe) = self.pipes.get(&key).filter(|pipe| pipe.live && pipe.epoch == epoch) {
            pipe.room.add_permits(permits);
        }
    }
}

/// Delivery.
impl World {
    fn next(&mut self, shared: &Arc<Shared>) -> Next {
        if let Some(event) = self.next_ready() {
            return Next::Call(self.arrive(event, shared));
        }
        let Some(first) = self.due.first_entry() else { return Next::Never };
        let (at, _) = *first.key();
        if at > Instant::now() {
            return Next::At(at);
        }
        let event = first.remove();
        let call = match self.pause(event) {
            Some(event) => self.arrive(event, shared),
            None => Call::Nothing,
        };
        Next::Call(call)
    }

    /// A request that was paused and may be read now.
    fn next_ready(&mut self) -> Option<Event> {
        let half = self.options.lane_queue_bytes_max / 2;
        while let Some(key) = self.ready.pop_front() {
            let pipe = self.pipes.get_mut(&key).filter(|pipe| pipe.answers_queued <= half);
            if let Some(event) = pipe.and_then(|pipe| pipe.paused.pop_front()) {
                self.ready.push_front(key);
                return Some(event);
            }
        }
        None
    }

    /// Gives the event back, unless it is a request that can't be read now.
    fn pause(&mut self, event: Event) -> Option<Event> {
        let half = self.options.lane_queue_bytes_max / 2;
        if let Event::Request { pipe: key, epoch, .. } = &event
            && let Some(pipe) = self.pipes.get_mut(key)
            && pipe.live
            && pipe.epoch == *epoch
            && (pipe.answers_queued > half || !pipe.paused.is_empty())
        {
            pipe.paused.push_back(event);
            return None;
        }
        Some(event)
    }

    fn arrive(&mut self, event: Event, shared: &Arc<Shared>) -> Call {
        match event {
            Event::Request { pipe, epoch, to_incarnation, id, permits, message } => {
                self.give_room(pipe, epoch, permits);
                let node = self.nodes.get(&pipe.to).filter(|node| node.incarnation == to_incarnation);
                let Some(node) = node else { return Call::Nothing };
                self.counters.delivered += 1;
                let weak = Arc::downgrade(shared);
                let replier = Replier::new(move |answer| {
                    if let Some(shared) = weak.upgrade() {
                        shared.with(|world| world.answer(pipe, epoch, id, answer));
                    }
                });
                let handler = node.handler.clone();
                Call::Request { handler, from: pipe.from, lane: pipe.lane, message, replier }
            }
            Event::Answer { pipe: key, epoch, id, message } => {
                self.on_answer(key, epoch, id, message);
                Call::Nothing
            }
            Event::Presence { observer, incarnation, about, up } => {
                match self.nodes.get(&observer).filter(|node| node.incarnation == incarnation) {
                    Some(node) => Call::Presence { handler: node.handler.clone(), about, up },
                    None => Call::Nothing,
                }
            }
            Event::CutTimedOut { link, id } => {
                if self.cuts.get(&link).is_some_and(|cut| cut.id == id) {
                    self.break_pair(link.0, link.1);
                }
                Call::Nothing
            }
        }
    }

    fn on_answer(&mut self, key: PipeKey, epoch: u64, id: u64, message: PeerMessage) {
        let Some(pipe) = self.pipes.get_mut(&key).filter(|pipe| pipe.live && pipe.epoch == epoch) else {
            return;
        };
        pipe.answers_queued -= message.len();
        if !pipe.paused.is_empty() {
            self.ready.push_back(key);
        }
        if let Some(sender) = pipe.open.take(id)
            && sender.send(Ok(message)).is_ok()
        {
            self.counters.answered += 1;
        }
    }
}

impl Pipe {
    fn new(at: Instant) -> Pipe {
        Pipe {
            epoch: 0,
            live: false,
            room: Arc::new(Semaphore::new(0)),
            open: OpenRequests::new(),
            answers_queued: 0,
            paused: VecDeque::new(),
            request_floor: at,
            answer_floor: at,
        }
    }

    fn open_again(&mut self, queue_bytes: usize, not_before: Instant) {
        self.epoch += 1;
        self.live = true;
        self.room = Arc::new(Semaphore::new(queue_bytes));
        self.open = OpenRequests::new();
        self.answers_queued = 0;
        self.request_floor = self.request_floor.max(not_before);
    }
}

impl Event {
    fn pipe(&self) -> Option<PipeKey> {
        match self {
            Event::Request { pipe, .. } | Event::Answer { pipe, .. } => Some(*pipe),
            Event::Presence { .. } | Event::CutTimedOut { .. } => None,
        }
    }

    fn epoch(&self) -> Option<u64> {
        match self {
            Event::Request { epoch, .. } | Event::Answer { epoch, .. } => Some(*epoch),
            Event::Presence { .. } | Event::CutTimedOut { .. } => None,
        }
    }

    /// The direction in which a message goes.
    fn link(&self) -> Option<Link> {
        match self {
            Event::Request { pipe, .. } => Some((pipe.from, pipe.to)),
            Event::Answer { pipe, .. } => Some((pipe.to, pipe.from)),
            Event::Presence { .. } | Event::CutTimedOut { .. } => None,
        }
    }
}

impl Drop for World {
    /// Senders that wait for room must not wait for ever.
    fn drop(&mut self) {
        self.pipes.values().for_each(|pipe| pipe.room.close());
    }
}

/// The lane whose connection carries `lane`.
fn canonical(lane: Lane) -> Lane {
    Lane::ALL[lane_index(lane)]
}
