//! One device's connection under load: PUBLISHes at QoS 1 out, PUBACKs in.
//!
//! `mqtt` runs one task for each. A link knows when it may send ([`Pace`]), keeps the intended time of each
//! PUBLISH by its packet identifier, and writes as many at a time as are due.
//!
//! Invariants:
//! 1. `in_flight` is the number of slots in use; a PUBACK for a slot that isn't is an error.
//! 2. Latency counts from the intended time. In the open loop that is given by the rate alone, so neither a
//!    server that stalls nor a full window can hide (no coordinated omission).
//! 3. A phase ends with nothing in flight, or after [`DRAIN`] with the rest counted as errors.
//!
//! Not here: CONNECT (`dial`), and phases over all links (`mqtt`).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::packet::{Publish, read_pubacks};
use crate::Outcome;
use crate::load::{DRAIN, Tally};

/// Packet identifiers that a link uses, from 1: what may be in flight in the open loop.
const SLOTS: usize = 1024;
/// Bytes that are put together for one write.
const WRITE_BYTES: usize = 64 * 1024;
/// Bytes of one read: 1,024 PUBACKs.
const READ_BYTES: usize = 4096;
const CLOSED: &str = "the server closed the connection";

/// When a link may send.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Whenever less than that many are in flight, until `end`.
    Closed {
        /// PUBLISHes in flight.
        window: usize,
        /// When the last may be sent.
        end: Instant,
    },
    /// One at `begun`, then one each `gap`, before `end`.
    Open {
        /// When the first is due.
        begun: Instant,
        /// Time between two.
        gap: Duration,
        /// When no more are due.
        end: Instant,
    },
}

impl Pace {
    fn end(&self) -> Instant {
        match self {
            Pace::Closed { end, .. } | Pace::Open { end, .. } => *end,
        }
    }

    /// When the PUBLISH of that number should be sent; `None` when it isn't to be sent (now).
    fn intended(&self, number: u64, in_flight: usize, now: Instant) -> Option<Instant> {
        match self {
            Pace::Closed { window, end } => (in_flight < *window && now < *end).then_some(now),
            Pace::Open { begun, gap, end } => {
                Some(*begun + gap.mul_f64(number as f64)).filter(|intended| intended < end)
            }
        }
    }

    /// How many of those from `number` on should still have been sent.
    fn missed(&self, number: u64) -> u64 {
        match self {
            Pace::Closed { .. } => 0,
            Pace::Open { begun, gap, end } => {
                let all = (*end - *begun).as_secs_f64() / gap.as_secs_f64();
                (all.ceil() as u64).saturating_sub(number)
            }
        }
    }
}

/// What became of a packet identifier.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    /// In flight, and when it should have been sent.
    Intended(Instant),
    /// Given up by an earlier phase; its PUBACK may still come and says nothing.
    GivenUp,
}

/// Packet identifiers in use.
struct Window {
    slots: Box<[Slot; SLOTS]>,
    /// Slot of the next PUBLISH.
    next: usize,
    /// invariant: how many slots are `Intended`.
    in_flight: usize,
}

impl Window {
    fn new() -> Window {
        Window { slots: Box::new([Slot::Free; SLOTS]), next: 0, in_flight: 0 }
    }

    fn is_blocked(&self) -> bool {
        self.slots[self.next] != Slot::Free
    }

    /// Takes the next identifier; the caller has seen that it isn't blocked.
    fn take(&mut self, intended: Instant) -> u16 {
        self.slots[self.next] = Slot::Intended(intended);
        let id = self.next as u16 + 1;
        self.next = (self.next + 1) % SLOTS;
        self.in_flight += 1;
        id
    }

    /// Gives one back [MQTT-2.3.1-4]: its intended time, or `None` when it was given up.
    fn give_back(&mut self, id: u16) -> Outcome<Option<Instant>> {
        let slot = usize::from(id).checked_sub(1).and_then(|at| self.slots.get_mut(at));
        match slot.map(|slot| std::mem::replace(slot, Slot::Free)) {
            Some(Slot::Intended(intended)) => {
                self.in_flight -= 1;
                Ok(Some(intended))
            }
            Some(Slot::GivenUp) => Ok(None),
            Some(Slot::Free) | None => Err(format!("PUBACK for {id}, which is not in flight").into()),
        }
    }

    /// Gives up all and says how many.
    fn give_up(&mut self) -> u64 {
        for slot in self.slots.iter_mut().filter(|slot| **slot != Slot::Free) {
            *slot = Slot::GivenUp;
        }
        std::mem::take(&mut self.in_flight) as u64
    }
}

/// A connection that was accepted.
pub struct Link<S> {
    stream: S,
    publish: Publish,
    window: Window,
    out: Vec<u8>,
    /// invariant: `written <= out.len()`.
    written: usize,
    input: Box<[u8; READ_BYTES]>,
    /// Bytes of an unfinished PUBACK at the beginning of `input`.
    filled: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// Over a stream behind CONNACK.
    pub fn new(stream: S, publish: Publish) -> Link<S> {
        let input = Box::new([0; READ_BYTES]);
        Link { stream, publish, window: Window::new(), out: Vec::new(), written: 0, input, filled: 0 }
    }

    /// One phase.
    ///
    /// # Errors
    /// When the connection ends or something else than a fitting PUBACK comes.
    pub async fn run(&mut self, pace: Pace) -> Outcome<Tally> {
        let mut tally = Tally::new()?;
        let mut number = 0;
        let give_up = pace.end() + DRAIN;
        let mut alarm = std::pin::pin!(sleep_until(give_up));
        loop {
            let now = Instant::now();
            let next = self.put_due(&pace, &mut number, now);
            if now >= give_up {
                tally.unanswered(self.window.give_up() + pace.missed(number));
                return Ok(tally);
            }
            if self.window.in_flight == 0 && next.is_none() && now >= pace.end() {
                return Ok(tally);
            }
            // A PUBLISH that is due and waits for a slot is woken by a PUBACK.
            let wake = next.filter(|next| *next > now).unwrap_or(give_up);
            if alarm.deadline() != wake {
                alarm.as_mut().reset(wake);
            }
            let read = poll_fn(|cx| self.poll(cx, alarm.as_mut())).await?;
            if read > 0 {
                self.acknowledge(read, &mut tally)?;
            }
        }
    }

    /// Puts what is due into `out` and returns when the next will be.
    fn put_due(&mut self, pace: &Pace, number: &mut u64, now: Instant) -> Option<Instant> {
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        loop {
            let intended = pace.intended(*number, self.window.in_flight, now)?;
            let full = !self.out.is_empty() && self.out.len() + self.publish.len() > WRITE_BYTES;
            if intended > now || full || self.window.is_blocked() {
                return Some(intended);
            }
            let id = self.window.take(intended);
            self.publish.append(&mut self.out, id);
            *number += 1;
        }
    }

    /// Writes what can be written; ready with the bytes that were read, or with 0 when something was written
    /// to the end or the alarm rang.
    fn poll(&mut self, cx: &mut Context<'_>, alarm: Pin<&mut Sleep>) -> Poll<Outcome<usize>> {
        let stream = &mut self.stream;
        let had_some = self.written < self.out.len();
        while self.written < self.out.len() {
            match Pin::new(&mut *stream).poll_write(cx, &self.out[self.written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(CLOSED.into())),
                Poll::Ready(written) => self.written += written?,
                Poll::Pending => break,
            }
        }
        let mut into = ReadBuf::new(&mut self.input[self.filled..]);
        match Pin::new(stream).poll_read(cx, &mut into) {
            Poll::Ready(Ok(())) if into.filled().is_empty() => Poll::Ready(Err(CLOSED.into())),
            Poll::Ready(read) => Poll::Ready(Ok(read.map(|()| into.filled().len())?)),
            // More may be due that had no room.
            Poll::Pending if had_some && self.written == self.out.len() => Poll::Ready(Ok(0)),
            Poll::Pending => alarm.poll(cx).map(|()| Ok(0)),
        }
    }

    fn acknowledge(&mut self, read: usize, tally: &mut Tally) -> Outcome<()> {
        let now = Instant::now();
        let filled = self.filled + read;
        let window = &mut self.window;
        let taken = read_pubacks(&self.input[..filled], |id| {
            if let Some(intended) = window.give_back(id)? {
                tally.acknowledged(now - intended);
            }
            Ok(())
        })?;
        self.input.copy_within(taken..filled, 0);
        self.filled = filled - taken;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;

    const TOPIC: &str = "t";
    const PAYLOAD_BYTES: usize = 10;

    fn pair(pipe_bytes: usize) -> (Link<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(pipe_bytes);
        (Link::new(ours, Publish::new(TOPIC, PAYLOAD_BYTES).unwrap()), theirs)
    }

    /// A server that reads PUBLISHes one by one and answers each after a delay from the last answer, or
    /// never; returns the identifiers it saw when the client is gone.
    async fn server(mut stream: DuplexStream, delay: Duration, answers: bool) -> Vec<u16> {
        let template = Publish::new(TOPIC, PAYLOAD_BYTES).unwrap();
        let (mut packet, mut ids) = (vec![0; template.len()], Vec::new());
        while stream.read_exact(&mut packet).await.is_ok() {
            let at = packet.len() - PAYLOAD_BYTES - 2;
            let id = u16::from_be_bytes([packet[at], packet[at + 1]]);
            let mut expected = Vec::new();
            template.append(&mut expected, id);
            assert_eq!(packet, expected);
            ids.push(id);
            if answers {
                sleep(delay).await;
                // In two halves: a PUBACK may be cut anywhere.
                let ack = [0x40, 2, packet[at], packet[at + 1]];
                for half in ack.chunks(3) {
                    if stream.write_all(half).await.is_err() {
                        return ids;
                    }
                }
            }
        }
        ids
    }

    fn closed(window: usize, seconds: u64) -> Pace {
        Pace::Closed { window, end: Instant::now() + Duration::from_secs(seconds) }
    }

    /// Each is acknowledged once, identifiers begin again behind the last slot, and latency is that of a
    /// full window: 4 in flight at 1 ms each.
    #[tokio::test(start_paused = true)]
    async fn closed_loop_keeps_its_window() {
        let (mut link, theirs) = pair(1 << 20);
        let serving = tokio::spawn(server(theirs, Duration::from_millis(1), true));
        let tally = link.run(closed(4, 5)).await.unwrap();
        drop(link);
        let ids = serving.await.unwrap();
        assert_eq!((tally.done(), tally.errors()), (ids.len() as u64, (0, None)));
        assert!(ids.len() > 2 * SLOTS, "{}", ids.len());
        assert!(ids.iter().enumerate().all(|(n, id)| usize::from(*id) == n % SLOTS + 1));
        assert!((3.9..=5.1).contains(&tally.millis(0.5)), "{}", tally.millis(0.5));
    }

    /// A server that takes 20 ms each gets 100 a second: latency grows as the queue does, by 10 ms with
    /// each, though the pipe holds only a few of them. Counted from the time of writing it would stay small.
    #[tokio::test(start_paused = true)]
    async fn open_loop_counts_from_the_intended_time() {
        let (mut link, theirs) = pair(40);
        let serving = tokio::spawn(server(theirs, Duration::from_millis(20), true));
        let begun = Instant::now();
        let (gap, end) = (Duration::from_millis(10), begun + Duration::from_secs(2));
        let tally = link.run(Pace::Open { begun, gap, end }).await.unwrap();
        drop(link);
        assert_eq!((tally.done(), serving.await.unwrap().len()), (200, 200));
        // The n-th is sent at 10 n and answered at 20 (n + 1); timers are late by up to a millisecond each.
        assert!((1000.0..=1250.0).contains(&tally.millis(0.5)), "{}", tally.millis(0.5));
        assert!((1980.0..=2400.0).contains(&tally.millis(0.995)), "{}", tally.millis(0.995));
    }

    /// Silence ends a phase with all errors, also those that found no slot; a late PUBACK counts for nothing
    /// in the next phase.
    #[tokio::test(start_paused = true)]
    async fn silence_ends() {
        let (mut link, mut theirs) = pair(1 << 20);
        let begun = Instant::now();
        let end = begun + Duration::from_secs(2);
        let gap = Duration::from_millis(1);
        let tally = link.run(Pace::Open { begun, gap, end }).await.unwrap();
        assert_eq!((tally.done(), tally.errors().0), (0, 2000));
        assert_eq!(tally.errors().1, Some("no answer within 30 s"));
        theirs.write_all(b"\x40\x02\0\x01").await.unwrap();
        let tally = link.run(closed(1, 1)).await.unwrap();
        assert_eq!((tally.done(), tally.errors().0), (0, 1));
    }

    /// A PUBACK for nothing and the end of the connection are errors.
    #[tokio::test(start_paused = true)]
    async fn nonsense_is_an_error() {
        let (mut link, mut theirs) = pair(1 << 20);
        theirs.write_all(b"\x40\x02\0\x09").await.unwrap();
        let error = link.run(closed(2, 1)).await.err().unwrap().to_string();
        assert!(error.contains("PUBACK for 9"), "{error}");
        let (mut link, theirs) = pair(1 << 20);
        drop(theirs);
        assert!(link.run(closed(2, 1)).await.is_err());
        assert!(Window::new().give_back(0).is_err());
    }
}
