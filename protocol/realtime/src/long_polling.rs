//! Long polling: a GET hangs until there is something to say.
//!
//! ```text
//!   fresh ──first GET: 200, empty, at once──► idle ◄──answer── hanging       DELETE, grace over ──► ended
//!                                              └────GET─────────►┘
//! ```
//!
//! [`Polls`] says what each GET is answered and when; [`PollQueue`] keeps whole messages between two GETs,
//! so that no answer parts a message from its separator or length. A new GET ends the one that hangs
//! (204) and takes its place: the client gave that one up.
//!
//! Not here: what is sent (`session.rs`); HTTP.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::limits::{POLL_BYTES_DEFAULT, POLL_GRACE_MS_DEFAULT, POLL_TIMEOUT_MS_DEFAULT};

/// Headers of every answer: no cache may keep it.
pub const NO_CACHE_HEADERS: [(&str, &str); 3] = [
    ("Cache-Control", "no-cache, no-store"),
    ("Pragma", "no-cache"),
    ("Expires", "Thu, 01 Jan 1970 00:00:00 GMT"),
];

/// How long polls last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollOptions {
    /// An idle GET is answered after this time. Clients give up after 100 s.
    pub timeout_ms: u64,
    /// A connection without a GET is gone after this time.
    pub grace_ms: u64,
}

impl Default for PollOptions {
    fn default() -> PollOptions {
        PollOptions { timeout_ms: POLL_TIMEOUT_MS_DEFAULT, grace_ms: POLL_GRACE_MS_DEFAULT }
    }
}

/// The number of a GET on its connection; says which one an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Poll(u64);

/// What becomes of a GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGet {
    /// Answer 200 without a body now: the client waits for it before it sends its handshake.
    AnswerEmpty,
    /// It hangs until there is data. If another one hangs, end that one with 204.
    Hang {
        /// Its number.
        poll: Poll,
        /// The one that it takes the place of.
        replaces: Option<Poll>,
    },
    /// The connection has ended: answer 204.
    Ended,
}

/// What a deadline brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeadline {
    /// Nothing is due.
    Nothing,
    /// Answer this GET with 200 and no body; the client polls again.
    AnswerEmpty(Poll),
    /// The client is gone: end the connection.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh { until_ms: u64 },
    Idle { until_ms: u64 },
    Hanging { poll: Poll, until_ms: u64 },
    Ended,
}

/// The GETs of one connection.
#[derive(Debug)]
pub struct Polls {
    options: PollOptions,
    state: State,
    last: u64,
}

impl Polls {
    /// A connection that nobody has polled.
    pub fn new(options: PollOptions, now_ms: u64) -> Polls {
        let until_ms = now_ms.saturating_add(options.grace_ms);
        Polls { options, state: State::Fresh { until_ms }, last: 0 }
    }

    /// A GET came.
    pub fn on_get(&mut self, now_ms: u64) -> OnGet {
        let replaces = match self.state {
            State::Fresh { .. } => {
                self.become_idle(now_ms);
                return OnGet::AnswerEmpty;
            }
            State::Ended => return OnGet::Ended,
            State::Idle { .. } => None,
            State::Hanging { poll, .. } => Some(poll),
        };
        self.last += 1;
        let poll = Poll(self.last);
        self.state = State::Hanging { poll, until_ms: now_ms.saturating_add(self.options.timeout_ms) };
        OnGet::Hang { poll, replaces }
    }

    /// The GET that hangs, if one does.
    pub fn hanging(&self) -> Option<Poll> {
        match self.state {
            State::Hanging { poll, .. } => Some(poll),
            State::Fresh { .. } | State::Idle { .. } | State::Ended => None,
        }
    }

    /// A GET was answered, or its socket is gone. An older one than that which hangs changes nothing.
    pub fn on_answered(&mut self, now_ms: u64, answered: Poll) {
        if self.hanging() == Some(answered) {
            self.become_idle(now_ms);
        }
    }

    /// The connection has ended. The GET that hangs, if one does, is answered with 204.
    pub fn end(&mut self) -> Option<Poll> {
        let hanging = self.hanging();
        self.state = State::Ended;
        hanging
    }

    /// When [`Polls::on_deadline`] has to be called, unless something happens before.
    pub fn deadline_ms(&self) -> Option<u64> {
        match self.state {
            State::Fresh { until_ms } | State::Idle { until_ms } | State::Hanging { until_ms, .. } => {
                Some(until_ms)
            }
            State::Ended => None,
        }
    }

    /// Does what is due. Harmless when nothing is.
    pub fn on_deadline(&mut self, now_ms: u64) -> OnDeadline {
        if self.deadline_ms().is_none_or(|at_ms| at_ms > now_ms) {
            return OnDeadline::Nothing;
        }
        match self.hanging() {
            Some(poll) => {
                self.become_idle(now_ms);
                OnDeadline::AnswerEmpty(poll)
            }
            None => {
                self.state = State::Ended;
                OnDeadline::Gone
            }
        }
    }

    fn become_idle(&mut self, now_ms: u64) {
        self.state = State::Idle { until_ms: now_ms.saturating_add(self.options.grace_ms) };
    }
}

/// Messages that wait for the next GET.
#[derive(Debug)]
pub struct PollQueue {
    messages: VecDeque<Bytes>,
    bytes: usize,
    bytes_max: usize,
}

/// The queue has no room: the client polls too slowly. The message comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollQueueFull(pub Bytes);

impl PollQueue {
    /// An empty queue that takes up to `bytes_max` bytes, or one message of any length.
    pub fn new(bytes_max: usize) -> PollQueue {
        PollQueue { messages: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Keeps whole messages.
    pub fn push(&mut self, message: Bytes) -> Result<(), PollQueueFull> {
        if !self.messages.is_empty() && self.bytes.saturating_add(message.len()) > self.bytes_max {
            return Err(PollQueueFull(message));
        }
        self.bytes += message.len();
        self.messages.push_back(message);
        Ok(())
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The body of the next answer: whole messages up to [`POLL_BYTES_DEFAULT`], or one longer message. `None`
    /// if there is nothing.
    pub fn take(&mut self) -> Option<Bytes> {
        let first = self.messages.pop_front()?;
        self.bytes -= first.len();
        let mut body = first;
        let mut joined = Vec::new();
        while let Some(next) =
            self.messages.pop_front_if(|next| body.len().max(joined.len()) + next.len() <= POLL_BYTES_DEFAULT)
        {
            if joined.is_empty() {
                joined.extend_from_slice(&body);
            }
            joined.extend_from_slice(&next);
            self.bytes -= next.len();
        }
        if !joined.is_empty() {
            body = joined.into();
        }
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPTIONS: PollOptions = PollOptions { timeout_ms: 90, grace_ms: 15 };

    fn hang(polls: &mut Polls, now_ms: u64) -> (Poll, Option<Poll>) {
        match polls.on_get(now_ms) {
            OnGet::Hang { poll, replaces } => (poll, replaces),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn first_get_is_answered_at_once() {
        let mut polls = Polls::new(OPTIONS, 0);
        assert_eq!(polls.on_get(1), OnGet::AnswerEmpty);
        assert_eq!(hang(&mut polls, 2).1, None);
        assert_eq!(polls.deadline_ms(), Some(92));
    }

    #[test]
    fn idle_get_is_answered_and_may_come_again() {
        let mut polls = Polls::new(OPTIONS, 0);
        polls.on_get(0);
        let (poll, _) = hang(&mut polls, 10);
        assert_eq!(polls.on_deadline(99), OnDeadline::Nothing);
        assert_eq!(polls.on_deadline(100), OnDeadline::AnswerEmpty(poll));
        assert_eq!(polls.deadline_ms(), Some(115));
        assert_eq!(hang(&mut polls, 114).1, None);
    }

    #[test]
    fn new_get_replaces_the_old_one() {
        let mut polls = Polls::new(OPTIONS, 0);
        polls.on_get(0);
        let (first, _) = hang(&mut polls, 1);
        let (second, replaces) = hang(&mut polls, 2);
        assert_eq!(replaces, Some(first));
        polls.on_answered(3, first);
        assert_eq!(polls.hanging(), Some(second));
        polls.on_answered(3, second);
        assert_eq!(polls.hanging(), None);
    }

    #[test]
    fn nobody_polls() {
        for first in [false, true] {
            let mut polls = Polls::new(OPTIONS, 0);
            if first {
                polls.on_get(0);
            }
            assert_eq!(polls.on_deadline(14), OnDeadline::Nothing);
            assert_eq!(polls.on_deadline(15), OnDeadline::Gone);
            assert_eq!(polls.on_get(16), OnGet::Ended);
            assert_eq!(polls.deadline_ms(), None);
        }
    }

    #[test]
    fn end_ends_the_hanging_one() {
        let mut polls = Polls::new(OPTIONS, 0);
        polls.on_get(0);
        let (poll, _) = hang(&mut polls, 1);
        assert_eq!(polls.end(), Some(poll));
        assert_eq!(polls.end(), None);
        assert_eq!(polls.on_deadline(1_000), OnDeadline::Nothing);
    }

    #[test]
    fn queue_is_bounded_but_takes_one() {
        let mut queue = PollQueue::new(4);
        let long = Bytes::from_static(b"0123456789");
        queue.push(long.clone()).unwrap();
        let full = queue.push(Bytes::from_static(b"x"));
        assert_eq!(full, Err(PollQueueFull(Bytes::from_static(b"x"))));
        assert_eq!(queue.take(), Some(long));
        assert_eq!(queue.take(), None);
    }

    proptest! {
        #[test]
        fn bodies_are_whole_messages(lengths in proptest::collection::vec(1_usize..40_000, 0..20)) {
            let mut queue = PollQueue::new(usize::MAX);
            let messages: Vec<Vec<u8>> =
                lengths.iter().zip(0..).map(|(length, index)| vec![index; *length]).collect();
            for message in &messages {
                queue.push(message.clone().into()).unwrap();
            }
            let (mut came, mut at) = (Vec::new(), 0);
            while let Some(body) = queue.take() {
                let start = at;
                while came.len() + body.len() > messages[..at].concat().len() {
                    at += 1;
                }
                prop_assert!(at == start + 1 || body.len() <= POLL_BYTES_DEFAULT);
                came.extend_from_slice(&body);
                prop_assert_eq!(came.len(), messages[..at].concat().len());
            }
            prop_assert!(queue.is_empty());
            prop_assert_eq!(came, messages.concat());
        }
    }
}
