//! A link: credit and the delivery that comes in parts (2.6).

use super::LinkId;
use crate::performative::{Attach, Flow, ReceiverSettle, Role, SenderSettle};

/// What an attach asked for, until it is answered.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) peer: Role,
    pub(super) source: Vec<u8>,
    pub(super) target: Vec<u8>,
    pub(super) sender: SenderSettle,
    pub(super) receiver: ReceiverSettle,
}

#[derive(Debug)]
pub(super) enum LinkState {
    /// The caller's word is due.
    Asked(Box<Wanted>),
    Attached,
    /// Our detach is sent; the peer's is due.
    Detaching,
}

/// A delivery that isn't whole.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) id: u32,
    pub(super) format: u32,
    pub(super) settled: bool,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) serial: u64,
    /// Which end the peer is.
    pub(super) peer: Role,
    pub(super) state: LinkState,
    /// Deliveries so far, by the sender's count.
    pub(super) delivery_count: u32,
    /// Deliveries that may come, or be sent.
    pub(super) credit: u32,
    /// When the peer receives: it wants the credit used up.
    pub(super) drain: bool,
    /// When the peer sends: deliveries that may be open at once.
    pub(super) window: u32,
    /// When the peer sends: deliveries that aren't settled here.
    pub(super) open: u32,
    /// When the peer receives: deliveries without an outcome.
    pub(super) unsettled: u32,
    pub(super) message_bytes_max: u64,
    pub(super) partial: Option<Partial>,
}

impl Link {
    pub(super) fn new(serial: u64, attach: &Attach<'_>) -> Link {
        let wanted = Wanted {
            name: attach.name.to_owned(),
            peer: attach.role,
            source: attach.source_raw.to_vec(),
            target: attach.target_raw.to_vec(),
            sender: attach.snd_settle_mode,
            receiver: attach.rcv_settle_mode,
        };
        Link {
            serial,
            peer: attach.role,
            state: LinkState::Asked(Box::new(wanted)),
            delivery_count: match attach.role {
                Role::Sender => attach.initial_delivery_count.unwrap_or(0),
                Role::Receiver => 0,
            },
            credit: 0,
            drain: false,
            window: 0,
            open: 0,
            unsettled: 0,
            message_bytes_max: attach.max_message_size.unwrap_or(0),
            partial: None,
        }
    }

    pub(super) fn id(&self, channel: u16, handle: u32) -> LinkId {
        LinkId { channel, handle, serial: self.serial }
    }

    /// 2.6.7: link-credit(sender) = delivery-count(receiver) + link-credit(receiver) −
    /// delivery-count(sender). What is on its way is taken off, never below zero.
    pub(super) fn on_receiver_flow(&mut self, flow: &Flow) {
        let Some(credit) = flow.link_credit else { return };
        // "not set" before the receiver has seen our attach: then it has seen no delivery.
        let seen = flow.delivery_count.unwrap_or(0);
        let on_the_way = self.delivery_count.wrapping_sub(seen);
        let on_the_way = if (on_the_way as i32) < 0 { 0 } else { on_the_way };
        self.credit = credit.saturating_sub(on_the_way);
        self.drain = flow.drain;
    }

    /// The sender may have given up credit (2.6.7 on drain): its count goes ahead by so much. Anything
    /// else it says of its count is its own business.
    pub(super) fn on_sender_flow(&mut self, flow: &Flow) {
        let Some(count) = flow.delivery_count else { return };
        let given_up = count.wrapping_sub(self.delivery_count);
        if given_up <= self.credit {
            self.delivery_count = count;
            self.credit -= given_up;
        }
    }

    /// Credit that the sender should hear of now; none while it has more than half.
    pub(super) fn due_credit(&self) -> Option<u32> {
        let used = self.credit.saturating_add(self.open);
        let free = self.window.saturating_sub(used);
        (free > 0 && free >= self.window.div_ceil(2)).then_some(self.credit + free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(peer: Role) -> Link {
        Link::new(1, &Attach::new("l", 0, peer))
    }

    /// Credit of 2³²−1, credit that is older than what was sent, and a count from the future.
    #[test]
    fn receiver_credit() {
        let mut sender = link(Role::Receiver);
        sender.delivery_count = 10;
        let mut credit = |count: Option<u32>, credit: Option<u32>| {
            let flow = Flow { delivery_count: count, link_credit: credit, ..Flow::default() };
            sender.on_receiver_flow(&flow);
            sender.credit
        };
        assert_eq!(credit(Some(10), Some(u32::MAX)), u32::MAX);
        assert_eq!(credit(Some(8), Some(5)), 3);
        assert_eq!(credit(Some(2), Some(5)), 0);
        assert_eq!(credit(Some(50), Some(5)), 5);
        assert_eq!(credit(None, Some(30)), 20);
        assert_eq!(credit(Some(10), None), 20);
    }

    /// A sender may give credit up, and can't make some.
    #[test]
    fn sender_counts() {
        let mut receiver = link(Role::Sender);
        (receiver.delivery_count, receiver.credit) = (u32::MAX, 5);
        let mut flow = |count| {
            receiver.on_sender_flow(&Flow { delivery_count: Some(count), ..Flow::default() });
            (receiver.delivery_count, receiver.credit)
        };
        assert_eq!(flow(1), (1, 3));
        assert_eq!(flow(0), (1, 3));
        assert_eq!(flow(5), (1, 3));
        assert_eq!(flow(4), (4, 0));
    }

    /// Credit comes back in halves of the window, counted with what isn't settled.
    #[test]
    fn due_credit() {
        let mut receiver = link(Role::Sender);
        receiver.window = 10;
        assert_eq!(receiver.due_credit(), Some(10));
        (receiver.credit, receiver.open) = (3, 3);
        assert_eq!(receiver.due_credit(), None);
        (receiver.credit, receiver.open) = (3, 2);
        assert_eq!(receiver.due_credit(), Some(8));
        (receiver.window, receiver.credit, receiver.open) = (1, 0, 1);
        assert_eq!(receiver.due_credit(), None);
        (receiver.window, receiver.credit, receiver.open) = (1, 0, 0);
        assert_eq!(receiver.due_credit(), Some(1));
    }
}
