//! What the caller does to links and deliveries.

use super::link::{LinkState, Wanted};
use super::session::Sent;
use super::{Accept, AcceptedRange, Blocked, Engine, Event, LinkId, Receipt, Send, SentId};
use crate::error::Error;
use crate::performative::{ReceiverSettle, Role, SenderSettle, Transfer, write_error};
use crate::state::Outcome;
use crate::write::Writer;

impl Engine {
    fn link(&mut self, id: LinkId) -> Option<&mut super::link::Link> {
        let session = self.sessions.get_mut(&id.channel).filter(|session| !session.ending)?;
        session.links.get_mut(&id.handle).filter(|link| link.serial == id.serial)
    }

    /// Accepts a link; source and target are answered as they were asked for. `false` when the peer has
    /// given it up meanwhile.
    pub fn accept(&mut self, id: LinkId, accept: &Accept<'_>) -> bool {
        let Some(link) = self.link(id) else { return false };
        let state = std::mem::replace(&mut link.state, LinkState::Attached);
        let LinkState::Asked(wanted) = state else {
            link.state = state;
            return false;
        };
        let has_credit = match wanted.peer {
            Role::Sender => {
                (link.window, link.message_bytes_max) = (accept.window, accept.message_bytes_max);
                false
            }
            Role::Receiver => link.credit > 0 || link.drain,
        };
        let (sender, receiver) = match wanted.peer {
            Role::Sender => (wanted.sender, ReceiverSettle::First),
            Role::Receiver => {
                let sender = if accept.settled { SenderSettle::Settled } else { SenderSettle::Unsettled };
                (sender, if accept.second { wanted.receiver } else { ReceiverSettle::First })
            }
        };
        self.write_attach(id, &wanted, (sender, receiver), Some(accept));
        self.top_up(id);
        if has_credit {
            self.events.push_back(Event::Credit(id));
        }
        true
    }

    /// Refuses a link: it is attached to nothing and detached with the error (2.6.3).
    pub fn refuse(&mut self, id: LinkId, error: &Error) {
        let Some(link) = self.link(id) else { return };
        let state = std::mem::replace(&mut link.state, LinkState::Detaching);
        if let LinkState::Asked(wanted) = state {
            self.write_refusal(id, &wanted);
            self.write_detach(id, true, Some(error));
        } else if let Some(link) = self.link(id) {
            link.state = state;
        }
    }

    /// Ends a link. What is open on it is forgotten.
    pub fn detach(&mut self, id: LinkId, error: Option<&Error>) {
        let Some(link) = self.link(id) else { return };
        match link.state {
            LinkState::Attached => {}
            LinkState::Detaching => return,
            LinkState::Asked(_) => {
                let error = error.cloned();
                let fallback = || Error::new(crate::condition::DETACH_FORCED, "");
                return self.refuse(id, &error.unwrap_or_else(fallback));
            }
        }
        link.state = LinkState::Detaching;
        self.forget_open(id);
        self.write_detach(id, true, error);
    }

    /// Ends a session, because of one of its peer's errors.
    pub(super) fn end_session(&mut self, channel: u16, error: Error) {
        self.forget_links(channel, Some(&error));
        if let Some(session) = self.sessions.get_mut(&channel) {
            session.ending = true;
        }
        self.write_end(channel, 0x17, Some(&error));
        self.events.push_back(Event::Ended(channel));
    }

    /// Ends a link, because of one of its peer's errors.
    pub(super) fn end_link(&mut self, id: LinkId, error: Error) {
        let Some(link) = self.link(id) else { return };
        let is_asked = matches!(link.state, LinkState::Asked(_));
        if is_asked {
            self.refuse(id, &error);
        } else {
            self.detach(id, Some(&error));
        }
        self.events.push_back(Event::Detached { link: id, error: Some(error) });
    }

    /// Settles a delivery of the peer. What comes of it is told in order; accepted ones in a row take one
    /// frame.
    pub fn settle(&mut self, receipt: Receipt, outcome: &Outcome) {
        let Some(link) = self.link(receipt.link).filter(|link| matches!(link.state, LinkState::Attached))
        else {
            return;
        };
        link.open = link.open.saturating_sub(1);
        if !receipt.settled {
            self.tell_outcome(receipt.link.channel, receipt.id, outcome);
        }
        self.top_up(receipt.link);
    }

    fn tell_outcome(&mut self, channel: u16, id: u32, outcome: &Outcome) {
        if *outcome != Outcome::Accepted {
            return self.write_disposition(channel, Role::Receiver, id, None, outcome);
        }
        match &mut self.accepted {
            Some(range) if range.channel == channel && range.last.wrapping_add(1) == id => range.last = id,
            _ => {
                self.flush_accepted();
                self.accepted = Some(AcceptedRange { channel, first: id, last: id });
            }
        }
    }

    /// Gives a sender credit again when half of its window is free.
    pub(super) fn top_up(&mut self, id: LinkId) {
        let Some(link) = self.link(id) else { return };
        if link.peer != Role::Sender || !matches!(link.state, LinkState::Attached) {
            return;
        }
        let Some(credit) = link.due_credit() else { return };
        link.credit = credit;
        self.write_flow(id.channel, Some(id.handle));
    }

    /// Whether a delivery could be sent now.
    ///
    /// # Errors
    /// What it waits for.
    pub fn can_send(&self, id: LinkId) -> Result<(), Blocked> {
        let session =
            self.sessions.get(&id.channel).filter(|session| !session.ending).ok_or(Blocked::Gone)?;
        let link =
            session.links.get(&id.handle).filter(|link| link.serial == id.serial).ok_or(Blocked::Gone)?;
        if link.peer != Role::Receiver || !matches!(link.state, LinkState::Attached) {
            return Err(Blocked::Gone);
        }
        if link.credit == 0 {
            return Err(Blocked::Credit);
        }
        if session.pending.is_some() || session.remote_window == 0 {
            return Err(Blocked::Window);
        }
        if self.unsettled >= self.options.limits.unsettled_max {
            return Err(Blocked::Unsettled);
        }
        Ok(())
    }

    /// Credit that a receiver has given and that isn't used.
    pub fn credit(&self, id: LinkId) -> u32 {
        let session = self.sessions.get(&id.channel);
        let link = session.and_then(|session| session.links.get(&id.handle));
        link.filter(|link| link.serial == id.serial).map_or(0, |link| link.credit)
    }

    /// Deliveries of a link that wait for their outcome.
    pub fn unsettled_of(&self, id: LinkId) -> u32 {
        let session = self.sessions.get(&id.channel);
        let link = session.and_then(|session| session.links.get(&id.handle));
        link.filter(|link| link.serial == id.serial).map_or(0, |link| link.unsettled)
    }

    /// Sends a delivery. What the session's window doesn't take now is kept, and goes before anything
    /// else of the session.
    ///
    /// # Errors
    /// What it waits for; nothing was sent then.
    pub fn send(&mut self, id: LinkId, send: &Send<'_>) -> Result<SentId, Blocked> {
        self.can_send(id)?;
        let Some(session) = self.sessions.get_mut(&id.channel) else { return Err(Blocked::Gone) };
        let Some(link) = session.links.get_mut(&id.handle) else { return Err(Blocked::Gone) };
        let delivery = session.next_delivery;
        session.next_delivery += 1;
        link.credit -= 1;
        link.delivery_count = link.delivery_count.wrapping_add(1);
        if !send.settled {
            link.unsettled += 1;
            session.sent.insert(delivery, Sent { handle: id.handle, serial: id.serial, told: false });
            self.unsettled += 1;
        }
        let first = Transfer {
            handle: id.handle,
            delivery_id: Some(delivery as u32),
            delivery_tag: Some(&send.tag[..send.tag.len().min(32)]),
            message_format: Some(send.format),
            settled: Some(send.settled),
            ..Transfer::default()
        };
        let done = self.write_transfers(id, &first, send.parts);
        let whole: usize = send.parts.iter().map(|part| part.len()).sum();
        if done < whole {
            self.keep(id, send.parts, done);
        }
        Ok(SentId { channel: id.channel, id: delivery })
    }

    /// Settles a delivery of ours whose receiver has given its word and waits for ours.
    pub fn settle_sent(&mut self, id: SentId, outcome: &Outcome) {
        let Some(session) = self.sessions.get_mut(&id.channel) else { return };
        let Some(sent) = session.sent.remove(&id.id) else { return };
        if let Some(link) = session.links.get_mut(&sent.handle) {
            link.unsettled = link.unsettled.saturating_sub(1);
        }
        self.unsettled -= 1;
        self.write_disposition(id.channel, Role::Sender, id.id as u32, None, outcome);
    }

    /// Whether the receiver wants its credit used up.
    pub fn drains(&self, id: LinkId) -> bool {
        let session = self.sessions.get(&id.channel);
        let link = session.and_then(|session| session.links.get(&id.handle));
        link.is_some_and(|link| link.serial == id.serial && link.drain && link.credit > 0)
    }

    /// There is nothing more to send on a link that drains: its credit is used up (2.6.7).
    pub fn drained(&mut self, id: LinkId) {
        if !self.drains(id) {
            return;
        }
        let Some(link) = self.link(id) else { return };
        link.delivery_count = link.delivery_count.wrapping_add(link.credit);
        link.credit = 0;
        self.write_flow(id.channel, Some(id.handle));
    }

    fn write_attach(
        &mut self,
        id: LinkId,
        wanted: &Wanted,
        (sender, receiver): (SenderSettle, ReceiverSettle),
        accept: Option<&Accept<'_>>,
    ) {
        let start = self.begin(id.channel);
        let we_send = wanted.peer == Role::Receiver;
        Writer::new(&mut self.out).whole_list(0x12, 14, |w| {
            w.string(&wanted.name);
            w.uint(id.handle);
            w.bool(!we_send);
            w.ubyte(sender as u8);
            w.ubyte(receiver as u8);
            match (accept, we_send) {
                (Some(_), _) => {
                    w.raw_or_skip(&wanted.source);
                    w.raw_or_skip(&wanted.target);
                }
                // 2.6.3: refused by having no source, or no target, of our own.
                (None, true) => {
                    w.skip();
                    w.raw_or_skip(&wanted.target);
                }
                (None, false) => {
                    w.raw_or_skip(&wanted.source);
                    w.skip();
                }
            }
            w.skip();
            w.skip();
            w.opt_uint(we_send.then_some(0));
            w.opt_ulong(accept.filter(|_| !we_send).map(|accept| accept.message_bytes_max));
            if let Some(accept) = accept.filter(|accept| !accept.capabilities.is_empty()) {
                w.symbols(accept.capabilities);
            }
        });
        self.finish(start);
    }

    pub(super) fn write_refusal(&mut self, id: LinkId, wanted: &Wanted) {
        self.write_attach(id, wanted, (wanted.sender, wanted.receiver), None);
    }

    pub(super) fn write_detach(&mut self, id: LinkId, closed: bool, error: Option<&Error>) {
        let start = self.begin(id.channel);
        Writer::new(&mut self.out).whole_list(0x16, 3, |w| {
            w.uint(id.handle);
            w.opt_bool(closed.then_some(true));
            write_error(error, w);
        });
        self.finish(start);
    }

    /// What is open on a link counts no more.
    fn forget_open(&mut self, id: LinkId) {
        let Some(session) = self.sessions.get_mut(&id.channel) else { return };
        let Some(link) = session.links.get_mut(&id.handle) else { return };
        let partial = link.partial.take().map_or(0, |partial| partial.bytes.len());
        self.partial_bytes = self.partial_bytes.saturating_sub(partial);
        if link.unsettled > 0 {
            link.unsettled = 0;
            let before = session.sent.len();
            session.sent.retain(|_, sent| sent.serial != id.serial);
            self.unsettled -= before - session.sent.len();
        }
        if session.pending.as_ref().is_some_and(|pending| pending.handle == id.handle) {
            session.pending = None;
            if session.remote_window > 0 {
                self.events.push_back(Event::Window(id.channel));
            }
        }
    }

    pub(super) fn forget_link(&mut self, id: LinkId) {
        self.forget_open(id);
        let Some(session) = self.sessions.get_mut(&id.channel) else { return };
        if session.links.remove(&id.handle).is_some() {
            self.links -= 1;
        }
    }

    /// A session's links are gone with it.
    pub(super) fn forget_links(&mut self, channel: u16, error: Option<&Error>) {
        self.flush_accepted();
        let Some(session) = self.sessions.get_mut(&channel) else { return };
        let links = std::mem::take(&mut session.links);
        self.unsettled -= session.sent.len();
        session.sent.clear();
        session.pending = None;
        self.links -= links.len();
        for (handle, link) in links {
            let partial = link.partial.as_ref().map_or(0, |partial| partial.bytes.len());
            self.partial_bytes = self.partial_bytes.saturating_sub(partial);
            if !matches!(link.state, LinkState::Detaching) {
                let link = LinkId { channel, handle, serial: link.serial };
                self.events.push_back(Event::Detached { link, error: error.cloned() });
            }
        }
    }
}
