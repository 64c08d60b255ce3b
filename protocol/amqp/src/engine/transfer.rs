//! Transfers of the peer, and ours (2.6.11 to 2.6.14).

use std::borrow::Cow;

use super::input::{Step, unattached};
use super::link::{Link, LinkState, Partial};
use super::session::Pending;
use super::{Engine, Event, Fault, LinkId, Receipt, Received};
use crate::condition;
use crate::error::{DecodeError, Error};
use crate::frame::finish_frame;
use crate::performative::{Performative, Role, Transfer};

impl Engine {
    pub(super) fn on_transfer<'a>(
        &mut self,
        channel: u16,
        transfer: &Transfer<'_>,
        payload: &'a [u8],
    ) -> Result<Step<'a>, Fault> {
        let window = self.options.limits.incoming_window;
        let Some(session) = self.session(channel)? else { return Ok(Step::Again) };
        if session.incoming_left == 0 {
            let error = Error::new(condition::WINDOW_VIOLATION, "more transfers than the window allows");
            return Err(Fault::Session(channel, error));
        }
        session.incoming_left -= 1;
        session.next_incoming_id = session.next_incoming_id.wrapping_add(1);
        if session.incoming_left < window / 2 {
            session.incoming_left = window;
            self.write_flow(channel, None);
        }
        let taken = self.take_transfer(channel, transfer, payload)?;
        Ok(taken.map_or(Step::Again, |received| Step::Event(Event::Received(received))))
    }

    fn take_transfer<'a>(
        &mut self,
        channel: u16,
        transfer: &Transfer<'_>,
        payload: &'a [u8],
    ) -> Result<Option<Received<'a>>, Fault> {
        let room = self.options.limits.partial_bytes_max.saturating_sub(self.partial_bytes);
        let Some(session) = self.session(channel)? else { return Ok(None) };
        let last = session.last_delivery;
        let Some(link) = session.links.get_mut(&transfer.handle) else {
            return Err(Fault::Session(channel, unattached(transfer.handle)));
        };
        let id = link.id(channel, transfer.handle);
        match link.state {
            // It was on its way when the link was ended here.
            LinkState::Detaching => return Ok(None),
            _ if link.peer == Role::Receiver => {
                return Err(Fault::Link(id, Error::new(condition::NOT_ALLOWED, "transfer to a sender")));
            }
            _ => {}
        }
        let mut started = None;
        if link.partial.is_none() {
            let delivery = begin_delivery(link, id, transfer, last)?;
            started = Some(delivery.id);
            if !transfer.more {
                // The usual case: one frame, no copy.
                session.last_delivery = started;
                return finish_delivery(link, id, &delivery, transfer, Cow::Borrowed(payload));
            }
            link.partial = Some(delivery);
        }
        let received = continue_delivery(link, id, transfer, payload, room);
        if started.is_some() {
            session.last_delivery = started;
        }
        let (change, received) = received?;
        self.partial_bytes = self.partial_bytes.saturating_add_signed(change);
        Ok(received)
    }

    /// Writes transfers of a payload as far as the session takes them; gives how much it took.
    pub(super) fn write_transfers(&mut self, link: LinkId, first: &Transfer<'_>, parts: &[&[u8]]) -> usize {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut cursor = Cursor { parts, at: 0 };
        let mut done = 0;
        let mut transfer = first.clone();
        loop {
            match self.sessions.get_mut(&link.channel) {
                Some(session) if session.remote_window > 0 => {
                    session.remote_window -= 1;
                    session.next_outgoing_id = session.next_outgoing_id.wrapping_add(1);
                }
                _ => return done,
            }
            done += self.write_transfer(link.channel, &mut transfer, &mut cursor, total - done);
            if done == total {
                return done;
            }
            transfer = Transfer { handle: first.handle, ..Transfer::default() };
        }
    }

    /// Writes one transfer with as much of what is left as fits the peer's frame.
    fn write_transfer(
        &mut self,
        channel: u16,
        transfer: &mut Transfer<'_>,
        cursor: &mut Cursor<'_>,
        left: usize,
    ) -> usize {
        let max = self.peer_frame_max as usize;
        let start = self.begin(channel);
        let head = self.out.len();
        for more in [false, true] {
            transfer.more = more;
            self.out.truncate(head);
            transfer.write(&mut crate::write::Writer::new(&mut self.out));
            // The head has fewer than a hundred bytes, a frame 512 at least.
            let room = max.saturating_sub(self.out.len() - start);
            if more || left <= room {
                let count = left.min(room);
                cursor.copy(count, &mut self.out);
                finish_frame(&mut self.out, start);
                return count;
            }
        }
        0
    }

    /// Goes on with a delivery that the session's window has cut.
    pub(super) fn go_on(&mut self, channel: u16) {
        let Some(session) = self.sessions.get_mut(&channel) else { return };
        let Some(mut pending) = session.pending.take() else { return };
        let Some(link) = session.links.get(&pending.handle) else { return };
        let id = link.id(channel, pending.handle);
        let first = Transfer { handle: pending.handle, ..Transfer::default() };
        pending.at += self.write_transfers(id, &first, &[&pending.rest[pending.at..]]);
        if pending.at < pending.rest.len()
            && let Some(session) = self.sessions.get_mut(&channel)
        {
            session.pending = Some(pending);
        }
    }

    /// Keeps what the session didn't take.
    pub(super) fn keep(&mut self, link: LinkId, parts: &[&[u8]], done: usize) {
        let whole: usize = parts.iter().map(|part| part.len()).sum();
        let mut cursor = Cursor { parts, at: 0 };
        let mut skipped = Vec::new();
        let mut rest = Vec::with_capacity(whole - done);
        cursor.copy(done, &mut skipped);
        cursor.copy(whole - done, &mut rest);
        if let Some(session) = self.sessions.get_mut(&link.channel) {
            session.pending = Some(Pending { handle: link.handle, rest, at: 0 });
        }
    }

    pub(super) fn write_flow(&mut self, channel: u16, handle: Option<u32>) {
        let Some(session) = self.sessions.get(&channel) else { return };
        let link = handle.and_then(|handle| Some((handle, session.links.get(&handle)?)));
        let flow = crate::performative::Flow {
            next_incoming_id: Some(session.next_incoming_id),
            incoming_window: session.incoming_left,
            next_outgoing_id: session.next_outgoing_id,
            outgoing_window: super::session::OUTGOING_WINDOW,
            handle: link.map(|(handle, _)| handle),
            delivery_count: link.map(|(_, link)| link.delivery_count),
            link_credit: link.map(|(_, link)| link.credit),
            available: None,
            drain: link.is_some_and(|(_, link)| link.drain),
            echo: false,
        };
        self.write(channel, &Performative::Flow(flow));
    }
}

/// Judges the first transfer of a delivery.
fn begin_delivery(
    link: &mut Link,
    id: LinkId,
    transfer: &Transfer<'_>,
    last: Option<u32>,
) -> Result<Partial, Fault> {
    let missing = |field| Fault::Session(id.channel, DecodeError::MissingField { field }.into());
    let delivery = transfer.delivery_id.ok_or_else(|| missing("delivery-id"))?;
    transfer.delivery_tag.ok_or_else(|| missing("delivery-tag"))?;
    if last.is_some_and(|last| (delivery.wrapping_sub(last) as i32) <= 0) {
        // 2.8.9: delivery numbers are sequence numbers of the session.
        let error = Error::new(condition::INVALID_FIELD, format!("delivery-id {delivery} was used"));
        return Err(Fault::Session(id.channel, error));
    }
    if link.credit == 0 {
        return Err(Fault::Link(id, Error::new(condition::TRANSFER_LIMIT_EXCEEDED, "no credit is left")));
    }
    link.credit -= 1;
    link.delivery_count = link.delivery_count.wrapping_add(1);
    Ok(Partial {
        id: delivery,
        format: transfer.message_format.unwrap_or(0),
        settled: transfer.settled.unwrap_or(false),
        bytes: Vec::new(),
    })
}

type Continued<'a> = Result<(isize, Option<Received<'a>>), Fault>;

/// Takes one more part; says by how much the bytes of parts change.
fn continue_delivery<'a>(
    link: &mut Link,
    id: LinkId,
    transfer: &Transfer<'_>,
    payload: &[u8],
    room: usize,
) -> Continued<'a> {
    let Some(partial) = link.partial.as_mut() else { return Ok((0, None)) };
    if transfer.delivery_id.is_some_and(|delivery| delivery != partial.id) {
        let error = Error::new(condition::INVALID_FIELD, "a delivery begins before the last one is whole");
        return Err(Fault::Link(id, error));
    }
    let before = partial.bytes.len() as isize;
    if transfer.aborted {
        link.partial = None;
        return Ok((-before, None));
    }
    check_size(link.message_bytes_max, partial.bytes.len() + payload.len(), id)?;
    if payload.len() > room {
        let error = Error::new(condition::RESOURCE_LIMIT_EXCEEDED, "too many bytes of messages in parts");
        return Err(Fault::Link(id, error));
    }
    partial.bytes.extend_from_slice(payload);
    partial.settled |= transfer.settled.unwrap_or(false);
    if transfer.more {
        return Ok((payload.len() as isize, None));
    }
    let Some(mut partial) = link.partial.take() else { return Ok((0, None)) };
    let bytes = std::mem::take(&mut partial.bytes);
    let received = finish_delivery(link, id, &partial, transfer, Cow::Owned(bytes))?;
    Ok((-before, received))
}

fn finish_delivery<'a>(
    link: &mut Link,
    id: LinkId,
    delivery: &Partial,
    transfer: &Transfer<'_>,
    payload: Cow<'a, [u8]>,
) -> Result<Option<Received<'a>>, Fault> {
    if transfer.aborted {
        return Ok(None);
    }
    check_size(link.message_bytes_max, payload.len(), id)?;
    link.open += 1;
    let receipt = Receipt { link: id, id: delivery.id, settled: delivery.settled };
    Ok(Some(Received { receipt, format: delivery.format, payload }))
}

fn check_size(max: u64, size: usize, id: LinkId) -> Result<(), Fault> {
    if size as u64 <= max {
        return Ok(());
    }
    let text = format!("message of more than {max} bytes");
    Err(Fault::Link(id, Error::new(condition::MESSAGE_SIZE_EXCEEDED, text)))
}

/// A place in a payload of several pieces.
struct Cursor<'a> {
    parts: &'a [&'a [u8]],
    at: usize,
}

impl Cursor<'_> {
    fn copy(&mut self, mut count: usize, out: &mut Vec<u8>) {
        while let Some(part) = self.parts.first() {
            let taken = count.min(part.len() - self.at);
            out.extend_from_slice(&part[self.at..self.at + taken]);
            count -= taken;
            self.at += taken;
            if self.at < part.len() {
                return;
            }
            self.parts = &self.parts[1..];
            self.at = 0;
        }
    }
}
