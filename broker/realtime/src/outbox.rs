//! What waits for one client: messages, bounded, and an order to end.
//!
//! Fan-out pushes, the connection's task takes. Who pushes never waits: a client that doesn't read fast
//! enough loses its connection, not the others their time. The task is woken when the outbox stops being
//! empty, once for all that comes until it looks.
//!
//! Invariants: `bytes` is the sum of the weights of `messages`; once `end` is set nothing is added.

use std::collections::VecDeque;
use std::task::Waker;

use parking_lot::Mutex;

use crate::outgoing::Outgoing;

/// Room that an empty queue may keep: enough for small bursts, little beside the rest of a connection.
const KEPT_CAPACITY: usize = 8;

/// Why the connection has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client doesn't read as fast as messages come for it.
    Slow,
    /// A backend said so, perhaps with a reason.
    Ordered(Option<String>),
    /// The node is going down.
    Shutdown,
    /// The client said so (long polling's DELETE).
    Deleted,
    /// Its access token has expired and forbids to go on.
    Expired,
}

/// How a push went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits for the client.
    Taken,
    /// The client was too slow: the connection ends now.
    Overflowed,
    /// The connection is ending already.
    Ended,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Outgoing>,
    bytes: usize,
    end: Option<End>,
    waker: Option<Waker>,
}

/// The messages of one client.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    bytes_max: usize,
    messages_max: u32,
}

impl Outbox {
    pub(crate) fn new(bytes_max: usize, messages_max: usize) -> Outbox {
        let messages_max = u32::try_from(messages_max).unwrap_or(u32::MAX);
        Outbox { state: Mutex::default(), bytes_max, messages_max }
    }

    /// Adds messages, in order. One message may go over the bound, so that any can be sent.
    pub(crate) fn push(&self, run: &[Outgoing]) -> Pushed {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.end.is_some() {
            return Pushed::Ended;
        }
        for message in run {
            if state.messages.len() >= self.messages_max as usize
                || (state.bytes + message.weight() > self.bytes_max && !state.messages.is_empty())
            {
                state.end = Some(End::Slow);
                state.messages = VecDeque::new();
                state.bytes = 0;
                let waker = state.waker.take();
                drop(guard);
                wake(waker);
                return Pushed::Overflowed;
            }
            state.bytes += message.weight();
            state.messages.push_back(message.clone());
        }
        let waker = state.waker.take();
        drop(guard);
        wake(waker);
        Pushed::Taken
    }

    /// Orders the connection to end. What waits is sent before.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.end = Some(end);
        }
        let waker = state.waker.take();
        drop(state);
        wake(waker);
    }

    /// Has the connection's task look again.
    pub(crate) fn nudge(&self) {
        let waker = self.state.lock().waker.take();
        wake(waker);
    }

    /// Takes up to `count` messages. Without one, `waker` is woken when one comes, or an end.
    pub(crate) fn take(&self, count: usize, waker: &Waker, mut into: impl FnMut(Outgoing)) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let taken = count.min(state.messages.len());
        for message in state.messages.drain(..taken) {
            state.bytes -= message.weight();
            into(message);
        }
        if state.messages.is_empty() && state.messages.capacity() > KEPT_CAPACITY {
            state.messages = VecDeque::new();
        }
        remember(&mut state.waker, waker);
    }

    /// Takes the first message only if `pass` has taken it.
    pub(crate) fn take_if(&self, mut pass: impl FnMut(&Outgoing) -> bool) -> bool {
        let mut state = self.state.lock();
        match state.messages.front() {
            Some(message) if pass(message) => {
                state.bytes -= message.weight();
                state.messages.pop_front();
                true
            }
            _ => false,
        }
    }

    /// The order to end, if there is one, and whether messages before it wait. `waker` is woken when either
    /// changes.
    pub(crate) fn ended(&self, waker: &Waker) -> (Option<End>, bool) {
        let mut state = self.state.lock();
        remember(&mut state.waker, waker);
        (state.end.clone(), !state.messages.is_empty())
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// The connection is over: nothing is taken any more, and nothing is kept.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.end.get_or_insert(End::Deleted);
        state.messages = VecDeque::new();
        state.bytes = 0;
        state.waker = None;
    }
}

fn remember(kept: &mut Option<Waker>, waker: &Waker) {
    match kept {
        Some(kept) => kept.clone_from(waker),
        None => *kept = Some(waker.clone()),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fleetline_signalr::Encoded;

    use super::*;

    fn message(bytes: usize) -> Outgoing {
        let text = format!("[\"{}\"]", "x".repeat(bytes));
        Outgoing::new(Encoded::invocation("t", Bytes::from(text)).expect("json"))
    }

    fn take(outbox: &Outbox, count: usize) -> usize {
        let mut taken = 0;
        outbox.take(count, Waker::noop(), |_| taken += 1);
        taken
    }

    #[test]
    fn a_slow_client_is_ended_and_keeps_nothing() {
        let outbox = Outbox::new(1_000, 100);
        assert_eq!(outbox.push(&[message(400), message(400)]), Pushed::Taken);
        assert_eq!(outbox.ended(Waker::noop()), (None, true));
        assert_eq!(outbox.push(&[message(400)]), Pushed::Overflowed);
        assert_eq!(outbox.bytes(), 0);
        assert_eq!(outbox.ended(Waker::noop()), (Some(End::Slow), false));
        assert_eq!(outbox.push(&[message(1)]), Pushed::Ended);
    }

    #[test]
    fn many_small_messages_are_bounded_too() {
        let outbox = Outbox::new(1 << 20, 3);
        assert_eq!(outbox.push(&[message(1), message(1), message(1)]), Pushed::Taken);
        assert_eq!(outbox.push(&[message(1)]), Pushed::Overflowed);
    }

    #[test]
    fn one_message_over_the_bound_passes() {
        let outbox = Outbox::new(100, 3);
        assert_eq!(outbox.push(&[message(10_000)]), Pushed::Taken);
        assert_eq!(take(&outbox, 9), 1);
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn what_waits_goes_before_the_end() {
        let outbox = Outbox::new(1_000, 10);
        assert_eq!(outbox.push(&[message(1), message(1)]), Pushed::Taken);
        outbox.end(End::Ordered(None));
        assert_eq!(outbox.ended(Waker::noop()), (Some(End::Ordered(None)), true));
        assert_eq!(take(&outbox, 1), 1);
        assert_eq!(outbox.bytes(), message(1).weight());
        assert!(!outbox.take_if(|_| false));
        assert!(outbox.take_if(|_| true));
        assert_eq!(outbox.bytes(), 0);
        assert_eq!(outbox.ended(Waker::noop()), (Some(End::Ordered(None)), false));
    }
}
