//! What makes a connection outlive its socket: numbered messages, kept until they are acknowledged.
//!
//! Messages that count (types 1–5) have numbers from 1 on, each way, that are written nowhere: both sides
//! count. On a new socket each side first says with which number it goes on (Sequence), sends again
//! what wasn't acknowledged, and drops what it has had. As the public clients do it: the prose of the
//! specification differs in what Sequence says when nothing is kept.
//!
//! One thing goes beyond them. A client goes back to the number that we say, then acknowledges what it had
//! before; if its socket breaks again now, it takes no higher number from us than the one it went
//! back to, and gives up otherwise. So what is acknowledged behind a new socket is still kept until a message
//! that was never sent before is acknowledged too: that proves that the client has passed all that was sent again.
//!
//! Invariants: `kept` holds the messages `first ..= sent`, in order; `first - 1 <= acked <= sent`;
//! `next <= latest + 1`.

use std::collections::VecDeque;

use bytes::Bytes;
use thiserror::Error;

use crate::limits::{ACK_INTERVAL_MS, REPLAY_MESSAGES_MAX};
use crate::message::Message;

/// The peer counts in a way that can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SequenceError {
    /// It acknowledges what was never sent.
    #[error("ack of message {acked}, {sent} were sent")]
    AckAhead {
        /// What it acknowledges.
        acked: u64,
        /// The last number that was sent.
        sent: u64,
    },
    /// It goes on behind what has come: messages are lost for good.
    #[error("sequence goes on at {sequence}, {expected} is the next")]
    SequenceAhead {
        /// With which number it goes on.
        sequence: u64,
        /// The highest that is possible.
        expected: u64,
    },
    /// Numbers start at 1.
    #[error("sequence goes on at 0")]
    SequenceZero,
}

/// What to do with a message that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new.
    Process,
    /// It has been processed, or came before the peer said where it goes on.
    Drop,
}

/// How often the bounds are kept in all: once not acknowledged, once acknowledged behind a new socket.
const KEPT_TIMES: usize = 2;

#[derive(Debug)]
pub(crate) struct Replay {
    kept: VecDeque<Bytes>,
    /// Bytes of all in `kept`.
    kept_bytes: usize,
    /// Bytes of those behind `acked`.
    unacked_bytes: usize,
    unacked_bytes_max: usize,
    /// The number of the front of `kept`, or of the next message if nothing is kept.
    first: u64,
    /// The highest number that the peer has acknowledged.
    acked: u64,
    /// The lowest number that only this socket has seen: acknowledged, it proves that the peer has passed
    /// all before it.
    fresh: u64,
    /// The number of the next message that comes.
    next: u64,
    /// The highest number that has come.
    latest: u64,
    /// On a new socket, until the peer has said where it goes on.
    awaits_sequence: bool,
    /// When to acknowledge `latest`; one acknowledgement stands for all that came meanwhile.
    ack_at_ms: Option<u64>,
}

impl Replay {
    pub(crate) fn new(unacked_bytes_max: usize) -> Replay {
        Replay {
            kept: VecDeque::new(),
            kept_bytes: 0,
            unacked_bytes: 0,
            unacked_bytes_max,
            first: 1,
            acked: 0,
            fresh: 1,
            next: 1,
            latest: 0,
            awaits_sequence: false,
            ack_at_ms: None,
        }
    }

    /// Whether nothing more should be sent. One message may go over the bound, so that any can be sent.
    pub(crate) fn is_full(&self) -> bool {
        self.unacked_bytes >= self.unacked_bytes_max || self.unacked() >= REPLAY_MESSAGES_MAX as u64
    }

    /// Keeps a message that is sent.
    pub(crate) fn keep(&mut self, bytes: Bytes) {
        self.kept_bytes += bytes.len();
        self.unacked_bytes += bytes.len();
        self.kept.push_back(bytes);
    }

    fn sent(&self) -> u64 {
        self.first - 1 + self.kept.len() as u64
    }

    fn unacked(&self) -> u64 {
        self.sent() - self.acked
    }

    /// Takes back what the peer has processed. An older acknowledgement changes nothing.
    pub(crate) fn on_ack(&mut self, acked: u64) -> Result<(), SequenceError> {
        let sent = self.sent();
        if acked > sent {
            return Err(SequenceError::AckAhead { acked, sent });
        }
        let newly = self.kept.iter().skip((self.acked + 1 - self.first) as usize);
        let newly = newly.take(acked.saturating_sub(self.acked) as usize);
        self.unacked_bytes -= newly.map(Bytes::len).sum::<usize>();
        self.acked = self.acked.max(acked);
        if self.acked >= self.fresh || self.is_overfull() {
            self.drop_acked();
        }
        Ok(())
    }

    /// A peer that loses socket after socket and acknowledges only what it has had would fill the memory.
    fn is_overfull(&self) -> bool {
        self.kept_bytes / KEPT_TIMES >= self.unacked_bytes_max
            || self.kept.len() / KEPT_TIMES >= REPLAY_MESSAGES_MAX
    }

    fn drop_acked(&mut self) {
        while self.first <= self.acked {
            let Some(bytes) = self.kept.pop_front() else { break };
            self.kept_bytes -= bytes.len();
            self.first += 1;
        }
    }

    /// Starts anew on another socket: what to send, in order, behind a Sequence of the number.
    pub(crate) fn resume(&mut self) -> (u64, impl Iterator<Item = &Bytes>) {
        self.awaits_sequence = true;
        self.fresh = self.sent() + 1;
        (self.first, self.kept.iter())
    }

    pub(crate) fn on_sequence(&mut self, sequence: u64) -> Result<(), SequenceError> {
        if sequence == 0 {
            return Err(SequenceError::SequenceZero);
        }
        // Not against `next`: the peer may have gone back before, and have had its acknowledgement since.
        let expected = self.latest + 1;
        if sequence > expected {
            return Err(SequenceError::SequenceAhead { sequence, expected });
        }
        self.awaits_sequence = false;
        self.next = sequence;
        Ok(())
    }

    /// Counts a message that came, and says whether it is new.
    pub(crate) fn on_message(&mut self, now_ms: u64, message: &Message) -> Verdict {
        if self.awaits_sequence && !matches!(message, Message::Sequence { .. }) {
            return Verdict::Drop;
        }
        if !message.is_sequenced() {
            return Verdict::Process;
        }
        let number = self.next;
        self.next += 1;
        self.ack_at_ms.get_or_insert(now_ms.saturating_add(ACK_INTERVAL_MS));
        if number <= self.latest {
            return Verdict::Drop;
        }
        self.latest = number;
        Verdict::Process
    }

    pub(crate) fn ack_at_ms(&self) -> Option<u64> {
        self.ack_at_ms
    }

    /// The number to acknowledge, if that is due.
    pub(crate) fn take_ack(&mut self, now_ms: u64) -> Option<u64> {
        self.ack_at_ms.take_if(|at_ms| *at_ms <= now_ms).map(|_| self.latest)
    }
}
