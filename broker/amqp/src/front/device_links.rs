//! What comes over the links of devices, and what their leaders answer.

use std::sync::Arc;
use std::task::{Context, Poll};

use fleetline_amqp::message::{FORMAT_BATCH, Message, batch_messages};
use fleetline_amqp::{Error, LinkId, Outcome, Receipt, condition};
use fleetline_batch::RecordRef;
use fleetline_devices::{SessionOpened, endpoints};
use fleetline_gateway::devices::connections::Link;
use fleetline_gateway::devices::ingest::Pushed;
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::limits::D2C_MESSAGE_BYTES_MAX;
use fleetline_types::TimestampMs;
use tokio::sync::oneshot;

use super::{Done, Front, Parked};
use crate::address::DeviceNode;
use crate::device::{Device, TwinAsk};
use crate::errors;
use crate::incoming::{Incoming, MessageError};
use crate::service::invalid;
use crate::work::{self, Work, WorkDone, twin_error};

/// What became of a delivery of telemetry.
enum Given {
    All,
    /// There is no room for the message of this number.
    Full(usize),
    Over,
}

/// The device's session was taken, or ended by the hub.
fn session_over() -> Error {
    let text = "the device's session is over: it has connected elsewhere, or may not connect any more";
    Error::new(condition::LINK_CREATION_CONFLICT, text)
}

impl Front {
    /// The leader has opened a session, or refused it.
    pub(super) fn on_opened(&mut self, id: u64, result: Result<(SessionOpened, String), Error>) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        match result {
            Ok((opened, generation)) => {
                device.opened(opened.session.epoch, opened.desired_version, generation);
                let waiting = std::mem::take(&mut device.waiting);
                self.become_known();
                waiting.into_iter().for_each(|waiting| self.accept_device_link(id, waiting));
                // All of them may have gone meanwhile.
                self.close_device_if_idle(id);
            }
            Err(error) => {
                let error = errors::tracked(self.context.gateway.hub.as_ref(), error);
                let waiting = std::mem::take(&mut device.waiting);
                self.forget_device(id);
                for waiting in waiting {
                    self.nodes.remove(&waiting.id);
                    self.engine.refuse(waiting.id, &error);
                }
            }
        }
    }

    fn forget_device(&mut self, id: u64) -> Option<Device> {
        let device = self.devices.remove(&id)?;
        if self.by_key.get(&device.key) == Some(&id) {
            self.by_key.remove(&device.key);
        }
        Some(device)
    }

    /// Ends a device's links, and with them its session here.
    pub(super) fn end_device(&mut self, id: u64, error: &Error) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        let attached = device.links.iter().map(|link| link.id);
        let waiting = device.waiting.iter().map(|waiting| waiting.id);
        let links: Vec<LinkId> = attached.chain(waiting).collect();
        for link in links {
            device.detached(link);
            self.nodes.remove(&link);
            self.engine.detach(link, Some(error));
        }
        self.close_device_if_idle(id);
    }

    /// A device without links leaves: outcomes of commands first, then its session behind its last record.
    pub(super) fn close_device_if_idle(&mut self, id: u64) {
        if self.devices.get(&id).is_none_or(|device| device.has_links() || !device.is_open) {
            return;
        }
        let Some(mut device) = self.forget_device(id) else { return };
        device.drop_methods();
        let hub = self.context.gateway.hub.clone();
        let (settles, running) = (device.take_settles(), device.running.take());
        self.duties.push(Box::pin(async move {
            if let Some(running) = running {
                // An error says that it has ended, too.
                drop(running.await);
            }
            let (key, epoch) = (device.key.clone(), device.link().epoch());
            for settle in settles {
                drop(work::perform(hub.clone(), device.partition, key.clone(), epoch, settle).await);
            }
            work::close(hub, device.partition, device.registered, device.sent).await;
            Done::Nothing
        }));
    }

    /// Looks at what others have set: the end, wakes, acknowledgements; and begins what is due.
    pub(super) fn look_at_device(&mut self, id: u64) {
        loop {
            let Some(device) = self.devices.get_mut(&id) else { return };
            let link = device.link().clone();
            if link.is_over() {
                return self.end_device(id, &session_over());
            }
            let bits = link.take();
            if bits & Link::SHUTDOWN != 0 {
                return self.engine.close(Some(Error::new(condition::CONNECTION_FORCED, "the node stops")));
            }
            if bits & Link::COMMANDS != 0 {
                device.want_commands();
            }
            if bits & Link::DESIRED != 0 {
                device.want_desired();
            }
            if bits & Link::METHODS != 0 {
                device.on_calls(link.take_methods());
                let receiver = device.receiver(DeviceNode::Methods);
                receiver.into_iter().for_each(|receiver| self.want_send(receiver));
            }
            let acked = link.acked();
            while let Some(receipt) = self.devices.get_mut(&id).and_then(|device| device.next_stored(acked)) {
                self.engine.settle(receipt, &Outcome::Accepted);
            }
            self.start_work(id);
            let Some(device) = self.devices.get(&id) else { return };
            // What has come since is looked at again; what comes later wakes the device's own flag.
            let waker = device.flag.waker();
            if link.poll_changed(&mut Context::from_waker(&waker), acked).is_pending() {
                return;
            }
        }
    }

    /// Begins the next piece of a device's work.
    pub(super) fn start_work(&mut self, id: u64) {
        let deliveries_max = self.context.limits.deliveries_max;
        let Some(device) = self.devices.get_mut(&id) else { return };
        let credit = device.receiver(DeviceNode::Commands).map_or(0, |link| self.engine.credit(link));
        let Some(work) = device.next_work(credit, deliveries_max) else { return };
        let must_finish = matches!(work, Work::Settle { .. });
        let (running, ended) = oneshot::channel();
        device.running = Some(ended);
        let (partition, key, epoch) = (device.partition, device.key.clone(), device.link().epoch());
        let hub = self.context.gateway.hub.clone();
        let request: super::Request = Box::pin(async move {
            let done = work::perform(hub, partition, key, epoch, work).await;
            drop(running);
            Done::Worked { device: id, done }
        });
        match must_finish {
            true => self.duties.push(request),
            false => self.jobs.push(request),
        }
    }

    pub(super) fn on_worked(&mut self, id: u64, done: WorkDone) {
        let Some(device) = self.devices.get_mut(&id) else {
            if let WorkDone::Settled { sent: Some(sent), outcome, .. } = done {
                self.engine.settle_sent(sent, &outcome);
            }
            return;
        };
        device.running = None;
        match done {
            WorkDone::Twin { request, status, version, body } => {
                device.twin_reply(&request.id, status, version, &body);
                self.engine.settle(request.receipt, &Outcome::Accepted);
            }
            WorkDone::Settled { sequence, settle, sent, outcome } => {
                device.on_settled(sequence, settle);
                if let Some(sent) = sent {
                    self.engine.settle_sent(sent, &outcome);
                }
            }
            WorkDone::Commands(rows) => device.on_commands(rows),
            WorkDone::Desired(changes) => device.on_desired(&changes),
            WorkDone::Listening => {}
            WorkDone::Stale => {
                let text = "desired changes are forgotten, read the twin again";
                return self.end_device(id, &Error::new(condition::DETACH_FORCED, text));
            }
            WorkDone::Over => return self.end_device(id, &session_over()),
        }
        let Some(device) = self.devices.get(&id) else { return };
        let receivers: Vec<LinkId> =
            device.links.iter().filter(|link| link.to_device).map(|link| link.id).collect();
        receivers.into_iter().for_each(|link| self.want_send(link));
        self.start_work(id);
    }

    /// A message of a device.
    pub(super) fn on_device_message(&mut self, id: u64, receipt: Receipt, format: u32, payload: &[u8]) {
        let node = self.devices.get(&id).and_then(|device| {
            device.links.iter().find(|link| link.id == receipt.link).map(|link| link.node)
        });
        match node {
            Some(DeviceNode::Events) => self.on_telemetry(id, receipt, format, payload, 0),
            Some(DeviceNode::Twin) => self.on_twin(id, receipt, payload),
            Some(DeviceNode::Methods) => {
                let answered = Message::parse(payload).is_ok_and(|message| {
                    self.devices.get_mut(&id).is_some_and(|device| device.on_method_answer(&message))
                });
                let text = "it needs a uuid as correlation id and a number as IoThub-status";
                let bad = || Outcome::Rejected(Error::new(condition::ARGUMENT_ERROR, text));
                self.engine.settle(receipt, &if answered { Outcome::Accepted } else { bad() });
            }
            _ => self.engine.settle(receipt, &Outcome::Released),
        }
    }

    fn on_twin(&mut self, id: u64, receipt: Receipt, payload: &[u8]) {
        let message = match Message::parse(payload) {
            Ok(message) => message,
            Err(error) => return self.engine.settle(receipt, &Outcome::Rejected(error.into())),
        };
        let hub = self.context.gateway.hub.clone();
        let Some(device) = self.devices.get_mut(&id) else { return };
        let reply = |device: &mut Device, done: WorkDone| {
            if let WorkDone::Twin { request, status, version, body } = done {
                device.twin_reply(&request.id, status, version, &body);
            }
        };
        match device.twin_ask(&message, receipt) {
            TwinAsk::Work(work) => {
                // Windows keep it below; a peer that has found a way round loses its request.
                if !device.push_work(work) {
                    self.engine.settle(receipt, &Outcome::Released);
                }
                return self.start_work(id);
            }
            TwinAsk::Notify(request, notifies) => {
                device.set_notifies(notifies);
                device.twin_reply(&request.id, 204, None, "");
            }
            TwinAsk::Bad(request, text) => {
                let done = twin_error(&hub, request, ErrorCode::ArgumentInvalid, text);
                reply(device, done);
            }
        }
        let receiver = device.receiver(DeviceNode::Twin);
        self.engine.settle(receipt, &Outcome::Accepted);
        receiver.into_iter().for_each(|link| self.want_send(link));
        self.start_work(id);
    }

    // ---- telemetry

    /// Gives a delivery to the ingest, from the message of number `given` on.
    fn on_telemetry(&mut self, id: u64, receipt: Receipt, format: u32, payload: &[u8], given: usize) {
        let gateway = self.context.gateway.clone();
        let now = TimestampMs(gateway.hub.now_ms());
        let Some(device) = self.devices.get_mut(&id) else { return };
        let outcome = with_messages(format, payload, |messages| {
            let size: usize = messages.iter().map(Incoming::size).sum();
            if size > D2C_MESSAGE_BYTES_MAX {
                return Err(MessageError::TooLarge { bytes: size, limit: D2C_MESSAGE_BYTES_MAX });
            }
            for (at, message) in messages.iter().enumerate().skip(given) {
                let pushed = push(device, &gateway.ingest, now, message);
                match pushed {
                    Pushed::Taken => device.sent += 1,
                    Pushed::Full => return Ok(Given::Full(at)),
                    Pushed::Over => return Ok(Given::Over),
                    Pushed::Refused(error) => return Err(MessageError::Invalid(error.to_string())),
                }
            }
            Ok(Given::All)
        });
        match outcome {
            Ok(Given::All) => device.given(receipt),
            Ok(Given::Over) => self.look_at_device(id),
            Ok(Given::Full(at)) => {
                let partition = device.partition;
                let room = Box::pin(async move { gateway.ingest.room(partition).await });
                let payload = payload.to_vec();
                self.parked = Some(Parked { device: id, receipt, format, payload, given: at, room });
            }
            Err(error) => {
                let error = errors::tracked(gateway.hub.as_ref(), invalid(&error));
                self.engine.settle(receipt, &Outcome::Rejected(error));
            }
        }
    }

    /// Goes on with the delivery that waits for room. Whether it did.
    pub(crate) fn poll_parked(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(parked) = self.parked.as_mut() else { return false };
        let partition = self.devices.get(&parked.device).map(|device| device.partition);
        let is_full = partition.is_some_and(|partition| self.context.gateway.ingest.has_waiting(partition));
        if parked.room.as_mut().poll(cx).is_pending() && is_full {
            return false;
        }
        let Some(Parked { device, receipt, format, payload, given, .. }) = self.parked.take() else {
            return false;
        };
        self.on_telemetry(device, receipt, format, &payload, given);
        match self.parked.as_mut() {
            None => true,
            // It is full again already; the new wait must know whom to wake.
            Some(parked) => match parked.room.as_mut().poll(cx) {
                Poll::Pending => false,
                Poll::Ready(()) => {
                    cx.waker().wake_by_ref();
                    false
                }
            },
        }
    }
}

/// The messages of a delivery, taken apart.
fn with_messages<T>(
    format: u32,
    payload: &[u8],
    with: impl FnOnce(&[Incoming<'_>]) -> Result<T, MessageError>,
) -> Result<T, MessageError> {
    let message = Message::parse(payload)?;
    if format != FORMAT_BATCH {
        return with(&[Incoming::of(&message)?]);
    }
    let inner: Vec<Message<'_>> = batch_messages(&message)?.map(Message::parse).collect::<Result<_, _>>()?;
    if inner.is_empty() {
        return Err(MessageError::Invalid("a batch without messages".to_owned()));
    }
    let incoming: Vec<Incoming<'_>> = inner.iter().map(Incoming::of).collect::<Result<_, _>>()?;
    with(&incoming)
}

fn push(
    device: &Device,
    ingest: &Arc<fleetline_gateway::devices::ingest::Ingest>,
    now: TimestampMs,
    message: &Incoming<'_>,
) -> Pushed {
    let (stamps, count) = device.stamps.properties();
    let own = message.system.iter().map(|(property, value)| (property.number(), value.as_bytes()));
    let system: Vec<(u8, &[u8])> = stamps[..count].iter().copied().chain(own).collect();
    let pairs = message.properties.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let properties: Vec<(&[u8], &[u8])> = pairs.collect();
    let record = RecordRef {
        device: device.key.device.as_bytes(),
        time: now,
        endpoints: endpoints::TELEMETRY,
        system: &system,
        properties: &properties,
        body: &message.body,
    };
    ingest.push(device.partition, device.link(), device.sent + 1, &record)
}
