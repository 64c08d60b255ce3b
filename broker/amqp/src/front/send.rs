//! What goes out: links with something to send take turns, some messages a turn, as long as the output
//! has room.

use fleetline_amqp::{Blocked, LinkId, Send};

use super::{Front, Node};
use crate::address::DeviceNode;
use crate::device::call_head;
use crate::outgoing::{Stored, command_head, event_head};

/// Messages of a link in one turn.
const TURN: usize = 16;

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// There may be more.
    More,
    /// Nothing more to send now.
    Done,
    /// The session, or the deliveries without an outcome, keep it.
    Blocked,
}

impl Front {
    /// A link may have something to send.
    pub(super) fn want_send(&mut self, link: LinkId) {
        if self.queued.insert(link) {
            self.sending.push_back(link);
        }
    }

    /// What kept links may be over.
    pub(super) fn unblock(&mut self) {
        for link in std::mem::take(&mut self.blocked) {
            self.want_send(link);
        }
    }

    pub(super) fn on_credit(&mut self, link: LinkId) {
        if let Some(Node::Device(id)) = self.nodes.get(&link) {
            self.start_work(*id);
        }
        self.want_send(link);
    }

    /// Sends as long as there is something and room for it. Whether anything was done.
    pub(crate) fn pump(&mut self) -> bool {
        let before = self.engine.output_len();
        while self.engine.output_len() < self.context.limits.output_bytes_max {
            let Some(link) = self.sending.pop_front() else { break };
            self.queued.remove(&link);
            match self.turn(link) {
                Turn::More => self.want_send(link),
                Turn::Done => {}
                Turn::Blocked => self.blocked.push(link),
            }
        }
        self.engine.output_len() > before
    }

    fn turn(&mut self, link: LinkId) -> Turn {
        for _ in 0..TURN {
            let can = match self.engine.can_send(link) {
                Ok(()) => true,
                Err(Blocked::Credit | Blocked::Gone) => false,
                Err(Blocked::Window | Blocked::Unsettled) => return Turn::Blocked,
            };
            let sent = match self.nodes.get(&link) {
                Some(Node::Replies(_)) => can && self.send_reply(link),
                Some(Node::Device(id)) => {
                    let id = *id;
                    can && self.send_to_device(id, link)
                }
                Some(Node::Feedback(_)) => can && self.send_feedback(link),
                Some(Node::Files(_)) => can && self.send_note(link),
                Some(Node::Reader(_)) => can && self.send_event(link),
                _ => return Turn::Done,
            };
            if !sent {
                self.fetch(link);
                return Turn::Done;
            }
        }
        Turn::More
    }

    /// There is nothing at hand: what could come is asked for; a client that drains hears that there is
    /// nothing when nothing can be on its way.
    fn fetch(&mut self, link: LinkId) {
        let drains = self.engine.drains(link);
        let may_come = match self.nodes.get(&link) {
            Some(Node::Feedback(_)) => {
                self.fetch_feedback(link);
                true
            }
            Some(Node::Files(_)) => {
                self.scan_files(link);
                true
            }
            Some(Node::Reader(_)) => {
                self.read_events(link);
                true
            }
            Some(Node::Device(id)) => {
                let id = *id;
                self.start_work(id);
                self.devices.get(&id).is_some_and(|device| {
                    device.receiver(DeviceNode::Commands) == Some(link) && device.is_fetching_commands()
                })
            }
            _ => false,
        };
        if drains && !may_come {
            self.engine.drained(link);
        }
    }

    fn send_reply(&mut self, link: LinkId) -> bool {
        let Some(Node::Replies(replies)) = self.nodes.get_mut(&link) else { return false };
        let Some(message) = replies.queue.front() else { return false };
        let mut tag = [0; 16];
        self.context.gateway.hub.random(&mut tag);
        let send = Send { tag: &tag, format: 0, settled: true, parts: &[message] };
        let sent = self.engine.send(link, &send).is_ok();
        if sent {
            replies.queue.pop_front();
        }
        sent
    }

    fn send_to_device(&mut self, id: u64, link: LinkId) -> bool {
        let Some(device) = self.devices.get_mut(&id) else { return false };
        let Some(node) = device.links.iter().find(|known| known.id == link).map(|known| known.node) else {
            return false;
        };
        let mut tag = [0; 16];
        self.context.gateway.hub.random(&mut tag);
        let mut head = Vec::new();
        match node {
            DeviceNode::Commands => {
                let to = match device.key.is_module() {
                    true => format!(
                        "/devices/{}/modules/{}/messages/devicebound",
                        device.key.device, device.key.module
                    ),
                    false => format!("/devices/{}/messages/devicebound", device.key.device),
                };
                let Some(command) = device.next_command() else { return false };
                // ".NET builds Guid(tag)": its first three groups are little-endian there; here it is a name
                // and nothing more.
                let token = fleetline_amqp::message::uuid_text(&tag);
                command_head(&mut head, &to, command, &token);
                let send = Send { tag: &tag, format: 0, settled: false, parts: &[&head, &command.body] };
                match self.engine.send(link, &send) {
                    Ok(sent) => device.command_sent(sent),
                    Err(_) => return false,
                }
            }
            DeviceNode::Methods => {
                let Some(job) = device.next_call() else { return false };
                // A uuid of version 4, which some SDKs check.
                tag[6] = tag[6] & 0x0f | 0x40;
                tag[8] = tag[8] & 0x3f | 0x80;
                call_head(&mut head, &tag, &job.call.name, job.call.payload.len());
                let send = Send { tag: &tag, format: 0, settled: true, parts: &[&head, &job.call.payload] };
                if self.engine.send(link, &send).is_err() {
                    return false;
                }
                device.call_sent(tag);
            }
            DeviceNode::Twin => {
                let Some(reply) = device.next_reply() else { return false };
                let send = Send { tag: &tag, format: 0, settled: true, parts: &[reply] };
                if self.engine.send(link, &send).is_err() {
                    return false;
                }
                device.reply_sent();
            }
            DeviceNode::Events => return false,
        }
        true
    }

    fn send_feedback(&mut self, link: LinkId) -> bool {
        let Some(Node::Feedback(feedback)) = self.nodes.get_mut(&link) else { return false };
        let Some(lot) = feedback.fetched.take() else { return false };
        let send = Send { tag: &lot.tag, format: 0, settled: false, parts: &[&lot.message] };
        match self.engine.send(link, &send) {
            Ok(sent) => {
                feedback.open.insert(sent, (lot.partition, lot.token));
                true
            }
            Err(_) => {
                feedback.fetched = Some(lot);
                false
            }
        }
    }

    fn send_note(&mut self, link: LinkId) -> bool {
        let Some(Node::Files(files)) = self.nodes.get_mut(&link) else { return false };
        let Some(note) = files.ready() else { return false };
        let send = Send { tag: &note.tag, format: 0, settled: false, parts: &[&note.message] };
        match self.engine.send(link, &send) {
            Ok(sent) => {
                files.sent(sent);
                true
            }
            Err(_) => false,
        }
    }

    fn send_event(&mut self, link: LinkId) -> bool {
        let Some(Node::Reader(reader)) = self.nodes.get_mut(&link) else { return false };
        let next = match reader.next_record() {
            Ok(Some(next)) => next,
            Ok(None) => return false,
            Err(error) => {
                self.end_link(link, &error);
                return false;
            }
        };
        let metric = reader.metrics.then_some(reader.metric);
        let mut head = Vec::with_capacity(512);
        let stored = Stored { record: &next.record, offset: next.offset, enqueued_ms: next.enqueued_ms };
        event_head(&mut head, stored, metric);
        let tag = next.offset.to_be_bytes();
        let send = Send { tag: &tag, format: 0, settled: true, parts: &[&head, &next.record.body] };
        // It was asked before whether that goes.
        self.engine.send(link, &send).is_ok()
    }
}
