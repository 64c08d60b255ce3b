//! Links of services and of the stream: what comes over them, and their ends.

use fleetline_amqp::{Error, LinkId, Outcome, PeerOutcome, Receipt, SentId, condition};
use fleetline_types::TimestampMs;
use futures::future::abortable;

use super::{Done, Front, Node};
use crate::errors;
use crate::events;
use crate::files::{self, Scanned};
use crate::owners::{self, Held};
use crate::service::{self, Lot};
use crate::stream::{self, ReadDone};

impl Front {
    /// Ends a link from our side.
    pub(super) fn end_link(&mut self, link: LinkId, error: &Error) {
        let error = errors::tracked(self.context.gateway.hub.as_ref(), error.clone());
        self.engine.detach(link, Some(&error));
        self.on_detached(link);
    }

    /// A link is gone.
    pub(super) fn on_detached(&mut self, link: LinkId) {
        self.grants.remove(&link);
        match self.nodes.remove(&link) {
            Some(Node::Device(id)) => {
                if let Some(device) = self.devices.get_mut(&id) {
                    device.detached(link);
                }
                self.close_device_if_idle(id);
            }
            Some(Node::Feedback(_) | Node::Files(_)) => self.services -= 1,
            Some(Node::Opening(held)) => {
                self.readers -= 1;
                self.release(&held);
            }
            Some(Node::Reader(reader)) => {
                self.readers -= 1;
                self.release(&reader.held);
            }
            _ => {}
        }
    }

    /// Gives a receiver's place back, so that a lower epoch may have it.
    pub(super) fn release(&mut self, held: &Held) {
        if held.is_stolen() {
            return;
        }
        let (hub, claim) = (self.context.gateway.hub.clone(), held.claim());
        self.duties.push(Box::pin(async move {
            let patience = std::time::Duration::from_secs(5);
            // What isn't told ends with the lease.
            drop(tokio::time::timeout(patience, owners::release(&hub, &claim)).await);
            Done::Nothing
        }));
    }

    pub(super) fn on_outcome(&mut self, link: LinkId, sent: SentId, outcome: &PeerOutcome, settled: bool) {
        match self.nodes.get_mut(&link) {
            Some(Node::Device(id)) => {
                let id = *id;
                if let Some(device) = self.devices.get_mut(&id) {
                    device.on_outcome(sent, outcome, settled);
                }
                self.start_work(id);
            }
            Some(Node::Feedback(feedback)) => {
                let Some((partition, token)) = feedback.open.remove(&sent) else { return };
                let hub = self.context.gateway.hub.clone();
                let word = service::settle_of(outcome);
                self.duties.push(Box::pin(async move {
                    let outcome = service::settle(hub, partition, token, word).await;
                    if settled { Done::Nothing } else { Done::FeedbackSettled { sent, outcome } }
                }));
            }
            Some(Node::Files(files)) => {
                if let Some((partition, next)) = files.on_outcome(sent, outcome) {
                    let devices = self.context.gateway.hub.clone();
                    self.duties.push(Box::pin(async move {
                        files::complete(devices, partition, next).await;
                        Done::Nothing
                    }));
                }
                if !settled {
                    self.engine.settle_sent(sent, &Outcome::Accepted);
                }
                self.want_send(link);
            }
            _ if !settled => self.engine.settle_sent(sent, &Outcome::Accepted),
            _ => {}
        }
    }

    // ---- commands of services

    pub(super) fn on_service_command(&mut self, receipt: Receipt, payload: &[u8]) {
        let (settings, id) = (self.context.gateway.hub.settings(), self.guid());
        let Some(Node::Commands(commands)) = self.nodes.get_mut(&receipt.link) else { return };
        match commands.take(&settings, receipt, payload, id) {
            Ok(()) => self.send_commands(receipt.link),
            Err(error) => {
                let error = errors::tracked(self.context.gateway.hub.as_ref(), error);
                self.engine.settle(receipt, &Outcome::Rejected(error));
            }
        }
    }

    pub(super) fn send_commands(&mut self, link: LinkId) {
        let Some(Node::Commands(commands)) = self.nodes.get_mut(&link) else { return };
        let Some((receipt, key, command)) = commands.next() else { return };
        let hub = self.context.gateway.hub.clone();
        self.jobs.push(Box::pin(async move {
            let outcome = service::send(hub, key, *command).await;
            Done::Sent { link, receipt, outcome }
        }));
    }

    // ---- feedback

    /// Looks for feedback when there is credit for it and none is at hand. A client that drains wants what
    /// there is, and doesn't wait for more.
    pub(super) fn fetch_feedback(&mut self, link: LinkId) {
        let (has_credit, drains) = (self.engine.credit(link) > 0, self.engine.drains(link));
        let Some(Node::Feedback(feedback)) = self.nodes.get_mut(&link) else { return };
        if !has_credit || feedback.fetched.is_some() {
            return;
        }
        match &feedback.fetching {
            Some((fetching, true)) if drains => fetching.abort(),
            Some(_) => return,
            None => {}
        }
        let hub = self.context.gateway.hub.clone();
        let host = hub.settings().host_name.clone();
        let interval = (!drains).then_some(self.context.limits.poll_interval);
        let (lot, abort) = abortable(service::fetch(hub, host, interval));
        feedback.fetching = Some((abort, !drains));
        self.jobs
            .push(Box::pin(async move { lot.await.map_or(Done::Nothing, |lot| Done::Lot { link, lot }) }));
    }

    pub(super) fn on_lot(&mut self, link: LinkId, lot: Option<Lot>) {
        let Some(Node::Feedback(feedback)) = self.nodes.get_mut(&link) else { return };
        feedback.fetching = None;
        if lot.is_none() {
            self.engine.drained(link);
        } else {
            feedback.fetched = lot;
        }
        self.want_send(link);
    }

    // ---- file notifications

    pub(super) fn scan_files(&mut self, link: LinkId) {
        let (has_credit, drains) = (self.engine.credit(link) > 0, self.engine.drains(link));
        let Some(Node::Files(files)) = self.nodes.get_mut(&link) else { return };
        if !has_credit || files.ready().is_some() {
            return;
        }
        match &files.fetching {
            Some((fetching, true)) if drains => fetching.abort(),
            Some(_) => return,
            None => {}
        }
        let scan = files::Scan {
            hub: self.context.hub.clone(),
            devices: self.context.gateway.hub.clone(),
            next: files.next.clone(),
            read_bytes: self.context.limits.read_bytes,
            interval: (!drains).then_some(self.context.limits.poll_interval),
        };
        let (scanned, abort) = abortable(files::scan(scan));
        files.fetching = Some((abort, !drains));
        self.jobs.push(Box::pin(async move {
            scanned.await.map_or(Done::Nothing, |scanned| Done::Scanned { link, scanned })
        }));
    }

    pub(super) fn on_scanned(&mut self, link: LinkId, scanned: Scanned) {
        let Some(Node::Files(files)) = self.nodes.get_mut(&link) else { return };
        if scanned.note.is_none() {
            self.engine.drained(link);
        }
        files.on_scanned(scanned);
        self.want_send(link);
    }

    // ---- the stream

    pub(super) fn on_sent_event(&mut self, receipt: Receipt, format: u32, payload: &[u8]) {
        let Some(Node::Events(sender)) = self.nodes.get_mut(&receipt.link) else { return };
        match sender.take(receipt, format, payload) {
            Ok(()) => self.append_events(receipt.link),
            Err(error) => {
                let error = errors::tracked(self.context.gateway.hub.as_ref(), error);
                self.engine.settle(receipt, &Outcome::Rejected(error));
            }
        }
    }

    pub(super) fn append_events(&mut self, link: LinkId) {
        let now = TimestampMs(self.context.gateway.hub.now_ms());
        loop {
            let Some(Node::Events(sender)) = self.nodes.get_mut(&link) else { return };
            match sender.next(now) {
                None => return,
                Some(Err((receipt, error))) => self.engine.settle(receipt, &Outcome::Rejected(error)),
                Some(Ok(append)) => {
                    let hub = self.context.gateway.hub.clone();
                    let receipts = append.receipts;
                    self.jobs.push(Box::pin(async move {
                        let outcome = events::append(hub, append.partition, append.batch).await;
                        Done::Appended { link, receipts, outcome }
                    }));
                }
            }
        }
    }

    /// Reads on when what was read is used up and there is credit.
    pub(super) fn read_events(&mut self, link: LinkId) {
        let (has_credit, drains) = (self.engine.credit(link) > 0, self.engine.drains(link));
        let Some(Node::Reader(reader)) = self.nodes.get_mut(&link) else { return };
        if !has_credit || !reader.is_empty() {
            return;
        }
        match &reader.read {
            // A client that drains wants what there is, and doesn't wait for more.
            Some((read, true)) if drains => read.abort(),
            Some(_) => return,
            None => {}
        }
        let (hub, devices) = (self.context.hub.clone(), self.context.gateway.hub.clone());
        let bytes = self.context.limits.read_bytes;
        let read = stream::read(hub, devices, reader.partition, reader.next, bytes, reader.metrics, !drains);
        let (read, abort) = abortable(read);
        reader.read = Some((abort, !drains));
        self.jobs.push(Box::pin(async move {
            read.await.map_or(Done::Nothing, |result| Done::Read { link, result })
        }));
    }

    pub(super) fn on_read(&mut self, link: LinkId, result: Result<ReadDone, Error>) {
        let Some(Node::Reader(reader)) = self.nodes.get_mut(&link) else { return };
        let waited = reader.read.take().is_none_or(|(_, waits)| waits);
        match result {
            Ok(done) if !waited && done.reply.batches.is_empty() => {
                reader.on_read(done.reply);
                self.engine.drained(link);
                self.want_send(link);
            }
            Ok(done) => {
                reader.on_read(done.reply);
                reader.metric = done.metric.unwrap_or(reader.metric);
                self.want_send(link);
            }
            Err(error) => self.end_link(link, &error),
        }
    }

    pub(super) fn on_watched(&mut self, link: LinkId, stolen: Option<Error>) {
        match stolen {
            Some(error) => {
                if let Some(Node::Reader(reader)) = self.nodes.get(&link) {
                    reader.held.lose();
                }
                self.end_link(link, &error);
            }
            None => self.watch(link),
        }
    }

    pub(super) fn look_at_reader(&mut self, link: LinkId) {
        let held = match self.nodes.get(&link) {
            Some(Node::Reader(reader)) => &reader.held,
            // It is looked at when its start is known.
            _ => return,
        };
        if held.is_stolen() {
            let text = "a receiver with an epoch that is not lower has taken the partition";
            self.end_link(link, &Error::new(condition::LINK_STOLEN, text));
        }
    }
}
