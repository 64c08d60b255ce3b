//! Attaches: which node, whether the caller may, and how the link is accepted.

use fleetline_amqp::performative::{Attach, Role};
use fleetline_amqp::terminus::{Target, Terminus};
use fleetline_amqp::value::Value;
use fleetline_amqp::{Accept, Error, Info, LinkId, condition};
use fleetline_devices::{ConnectionPlace, DeviceKey, OpenSession};
use fleetline_gateway::devices::login::{LoginError, Presented, device_login};
use fleetline_gateway::devices::record::Stamps;
use fleetline_types::PartitionId;
use futures::future::abortable;

use super::{Done, Front, Grant, Node, Replies};
use crate::address::{Address, DeviceNode, parse, path_of};
use crate::device::{Device, DeviceLink};
use crate::events::{EVENT_BYTES_MAX, EventSender};
use crate::ready::Who;
use crate::service::{self, Commands};
use crate::tokens::Auth;
use crate::{errors, files, filter, owners, stream, work};

/// Reading events, as policies name it. The public hub has no such action; ours is named alike.
pub(super) const READ_EVENTS: &str = "events/read";
/// Sending events, likewise.
const SEND_EVENTS: &str = "events/send/action";
/// Bytes of a message on links of devices: what SDKs expect, as four times the logical limit.
const DEVICE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a request.
const REQUEST_BYTES_MAX: u64 = 256 << 10;
/// The capability of receivers that want to know how far the partition goes.
const RUNTIME_METRIC: &str = "com.microsoft:enable-receiver-runtime-metric";

fn not_found(address: &str) -> Error {
    Error::new(condition::NOT_FOUND, format!("there is no node {address:?}"))
}

fn wrong_direction() -> Error {
    Error::new(condition::NOT_ALLOWED, "the node isn't used in this direction")
}

impl Front {
    /// A window for what the peer sends; the rest has no meaning there.
    fn accept_incoming(&mut self, link: LinkId, window: u32, message_bytes_max: u64) {
        let accept = Accept { window, message_bytes_max, settled: false, second: false, capabilities: &[] };
        self.engine.accept(link, &accept);
    }

    /// For what is sent to the peer.
    fn accept_outgoing(&mut self, link: LinkId, settled: bool, capabilities: &[&str]) {
        let accept = Accept { window: 0, message_bytes_max: 0, settled, second: !settled, capabilities };
        self.engine.accept(link, &accept);
    }

    pub(super) fn on_attach(&mut self, link: LinkId, attach: &Attach<'_>) {
        if let Err(error) = self.try_attach(link, attach) {
            let error = errors::tracked(self.context.gateway.hub.as_ref(), error);
            self.nodes.remove(&link);
            self.grants.remove(&link);
            self.engine.refuse(link, &error);
        }
    }

    fn try_attach(&mut self, link: LinkId, attach: &Attach<'_>) -> Result<(), Error> {
        let is_dynamic = match attach.role {
            Role::Receiver => attach.source.as_ref().is_some_and(|source| source.dynamic),
            Role::Sender => {
                matches!(&attach.target, Some(Terminus::Target(Target { dynamic: true, .. })))
            }
        };
        if is_dynamic || attach.target == Some(Terminus::Coordinator) {
            let text = "neither transactions nor nodes on request exist here";
            return Err(Error::new(condition::NOT_IMPLEMENTED, text));
        }
        let text = attach
            .address()
            .ok_or_else(|| Error::new(condition::INVALID_FIELD, "the link has no address of a node"))?;
        let address = parse(text).ok_or_else(|| not_found(text))?;
        let path = path_of(text).trim_matches('/').to_owned();
        let sends = attach.role == Role::Sender;
        match address {
            Address::Cbs => self.attach_replies(link, attach, true),
            Address::Management(hub) => {
                self.check_hub(hub.as_deref())?;
                self.grant_management(link, hub)?;
                self.attach_replies(link, attach, false);
            }
            Address::Device(key, node) => self.attach_device(link, attach, key, node)?,
            Address::ServiceCommands if sends => {
                let policy = self.grant(link, path, service::SEND)?;
                self.nodes.insert(link, Node::Commands(Box::new(Commands::new(policy))));
                self.accept_incoming(link, self.context.limits.commands_window, REQUEST_BYTES_MAX);
            }
            Address::Feedback | Address::FileNotifications if !sends => {
                if self.services >= self.context.limits.services_max {
                    return Err(Error::new(condition::RESOURCE_LIMIT_EXCEEDED, "too many links of services"));
                }
                let (action, node) = match address {
                    Address::Feedback => (service::FEEDBACK, Node::Feedback(Box::default())),
                    _ => (files::FILES, Node::Files(Box::default())),
                };
                self.grant(link, path, action)?;
                self.services += 1;
                self.nodes.insert(link, node);
                self.accept_outgoing(link, false, &[]);
            }
            Address::Redirect if !sends => {
                self.grant(link, path, READ_EVENTS)?;
                return Err(self.redirect());
            }
            Address::Partition { hub, group, partition } if !sends => {
                self.attach_reader(link, attach, (hub.as_deref(), &group, partition), path)?;
            }
            Address::Send { hub, partition } if sends => {
                self.attach_sender(link, &hub, partition, path)?;
            }
            Address::Send { .. } => return Err(not_found(text)),
            _ => return Err(wrong_direction()),
        }
        Ok(())
    }

    /// Both directions of `$cbs` and `$management`.
    fn attach_replies(&mut self, link: LinkId, attach: &Attach<'_>, is_cbs: bool) {
        if attach.role == Role::Sender {
            let node = if is_cbs { Node::CbsRequests } else { Node::ManagementRequests };
            self.nodes.insert(link, node);
            return self.accept_incoming(link, self.context.limits.requests_window, REQUEST_BYTES_MAX);
        }
        let target = match &attach.target {
            Some(Terminus::Target(target)) => target.address.map(str::to_owned),
            _ => None,
        };
        self.nodes.insert(link, Node::Replies(Replies { is_cbs, target, ..Replies::default() }));
        self.accept_outgoing(link, true, &[]);
    }

    /// Whether a token lets a service do this; the policy that does.
    fn grant(&mut self, link: LinkId, path: String, action: &'static str) -> Result<String, Error> {
        let settings = self.context.gateway.hub.settings();
        let granted = self.tokens.service(&settings, self.now_secs(), &path, action);
        let (policy, auth) = granted.map_err(|error| errors::of_login(&error))?;
        self.grants.insert(link, Grant { auth, path, action });
        Ok(policy)
    }

    /// SDKs write "the hub" into their tokens by the name that they were given, and leave it out of the address:
    /// a token for any name of the hub will do.
    fn grant_management(&mut self, link: LinkId, named: Option<String>) -> Result<(), Error> {
        let names = named.map_or_else(|| self.context.names(), |name| vec![name]);
        let mut refusal = not_found("$management");
        for name in names {
            match self.grant(link, format!("{name}/$management"), READ_EVENTS) {
                Ok(_) => return Ok(()),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    fn check_hub(&self, hub: Option<&str>) -> Result<(), Error> {
        match hub {
            Some(hub) if !self.context.is_hub(hub) => {
                Err(Error::new(condition::NOT_FOUND, format!("no event hub is named {hub:?}")))
            }
            _ => Ok(()),
        }
    }

    /// Where the built-in endpoint is: here, under its other name.
    fn redirect(&self) -> Error {
        let identity = &self.context.identity;
        let host = match self.host.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host.to_owned(),
            _ if self.host.is_empty() => self.context.gateway.hub.settings().host_name.clone(),
            _ => self.host.clone(),
        };
        let address = format!("amqps://{host}:{}/{}/$management", identity.port, identity.hub_name);
        Error::new(condition::LINK_REDIRECT, "the endpoint is at the given address")
            .with("hostname", Info::Text(host.clone()))
            .with("network-host", Info::Text(host))
            .with("port", Info::Number(identity.port.into()))
            .with("address", Info::Text(address))
    }

    // ---- devices

    fn attach_device(
        &mut self,
        link: LinkId,
        attach: &Attach<'_>,
        key: DeviceKey,
        node: DeviceNode,
    ) -> Result<(), Error> {
        let to_device = attach.role == Role::Receiver;
        match (node, to_device) {
            (DeviceNode::Events, true) => {
                let text = "messages to a module's inputs don't exist here";
                return Err(Error::new(condition::NOT_IMPLEMENTED, text));
            }
            (DeviceNode::Commands, false) => return Err(wrong_direction()),
            _ => {}
        }
        let waiting = DeviceLink { id: link, node, to_device };
        let known = self.by_key.get(&key).copied().and_then(|id| self.devices.get_mut(&id));
        if let Some(device) = known {
            let id = device.id;
            self.nodes.insert(link, Node::Device(id));
            match device.is_open {
                true => self.accept_device_link(id, waiting),
                false => device.waiting.push(waiting),
            }
            return Ok(());
        }
        if self.devices.len() >= self.context.limits.devices_max {
            return Err(Error::new(
                condition::RESOURCE_LIMIT_EXCEEDED,
                "too many devices on this connection",
            ));
        }
        let (presented, auth) = self.device_login(&key).map_err(|error| errors::of_login(&error))?;
        let model = attach.properties.and_then(|properties| properties.get("com.microsoft:model-id"));
        let model = model.and_then(|model| model.as_text()).unwrap_or_default().to_owned();
        let id = self.open_device(key, presented, auth, model);
        self.nodes.insert(link, Node::Device(id));
        if let Some(device) = self.devices.get_mut(&id) {
            device.waiting.push(waiting);
        }
        Ok(())
    }

    /// By a token of this connection, or by the certificate of its handshake.
    fn device_login(&self, key: &DeviceKey) -> Result<(Presented, Auth), LoginError> {
        let (gateway, now_secs) = (&self.context.gateway, self.now_secs());
        let settings = gateway.hub.settings();
        let by_token = self.tokens.device(&settings, now_secs, key);
        let Some(shown) = self.peer.certificate.as_deref().filter(|_| by_token.is_err()) else {
            return by_token;
        };
        let chained = |shown: &_| (self.peer.chained)(shown);
        let presented = device_login(&settings, now_secs, key, None, Some(shown), chained)?;
        Ok((presented, Auth::Certificate))
    }

    fn open_device(&mut self, key: DeviceKey, presented: Presented, auth: Auth, model: String) -> u64 {
        let gateway = &self.context.gateway;
        self.last_device += 1;
        let id = self.last_device;
        let registered = gateway.connections.register(key.clone());
        let partition = gateway.partition_of(&key.device);
        let open = OpenSession {
            key: key.clone(),
            auth_version: 0,
            place: ConnectionPlace { connection: registered.link.id, ..gateway.hub.place() },
            clean: true,
            fresh: true,
            will: None,
            model_id: model.clone(),
        };
        let stamps = Stamps {
            generation: String::new(),
            method: presented.proof.method(),
            module: key.module.clone(),
            model,
        };
        let flag = self.ready.flag(Who::Device(id));
        self.devices.insert(id, Device::new(id, partition, auth, registered, flag, stamps));
        self.by_key.insert(key, id);
        let hub = gateway.hub.clone();
        self.duties.push(Box::pin(async move {
            let result = work::open(&hub, partition, open, presented.proof).await;
            Done::Opened { device: id, result }
        }));
        id
    }

    pub(super) fn accept_device_link(&mut self, id: u64, link: DeviceLink) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        if let Some(former) = device.attached(link) {
            let error = Error::new(condition::LINK_STOLEN, "a newer link of the device has taken its place");
            self.nodes.remove(&former);
            self.engine.detach(former, Some(&error));
        }
        let limits = &self.context.limits;
        let (telemetry, requests) = (limits.telemetry_window, limits.requests_window);
        match (link.node, link.to_device) {
            (DeviceNode::Events, _) => self.accept_incoming(link.id, telemetry, DEVICE_BYTES_MAX),
            (_, false) => self.accept_incoming(link.id, requests, REQUEST_BYTES_MAX),
            (DeviceNode::Commands, true) => self.accept_outgoing(link.id, false, &[]),
            // "Send replies settled", "send settled where the client asked".
            (_, true) => self.accept_outgoing(link.id, true, &[]),
        }
        self.look_at_device(id);
    }

    // ---- the stream

    fn partition(&self, partition: u32) -> Result<PartitionId, Error> {
        match partition < self.context.gateway.hub.partitions() {
            true => Ok(PartitionId(partition)),
            false => Err(Error::new(condition::NOT_FOUND, format!("there is no partition {partition}"))),
        }
    }

    fn attach_reader(
        &mut self,
        link: LinkId,
        attach: &Attach<'_>,
        (hub, group, partition): (Option<&str>, &str, u32),
        address: String,
    ) -> Result<(), Error> {
        self.check_hub(hub)?;
        let partition = self.partition(partition)?;
        let name = hub.unwrap_or(&self.context.identity.hub_name);
        let path = format!("{name}/consumergroups/{group}/partitions/{}", partition.0);
        // A token may be for the endpoint's old name, which the address then has.
        self.grant(link, path, READ_EVENTS).or_else(|_| self.grant(link, address, READ_EVENTS))?;
        if self.readers >= self.context.limits.readers_max {
            return Err(Error::new(
                condition::RESOURCE_LIMIT_EXCEEDED,
                "too many receivers on this connection",
            ));
        }
        let filter = attach.source.as_ref().and_then(|source| source.filter);
        let from = filter::start_of(filter)
            .ok_or_else(|| Error::new(condition::ARGUMENT_ERROR, "the filter isn't one that is known"))?;
        let epoch = attach.properties.and_then(|properties| properties.get("com.microsoft:epoch"));
        let epoch = match epoch {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.as_i64().filter(|epoch| *epoch >= 0).ok_or_else(|| {
                Error::new(condition::ARGUMENT_OUT_OF_RANGE, "com.microsoft:epoch isn't a number from 0 on")
            })?),
        };
        let metrics = attach.desired_capabilities.contains(RUNTIME_METRIC);
        let waker = self.ready.flag(Who::Reader(link)).waker();
        let held = self.context.owners.claim(partition, group, epoch, self.guid(), waker)?;
        let (stream, devices, claim) =
            (self.context.hub.clone(), self.context.gateway.hub.clone(), held.claim());
        self.readers += 1;
        self.nodes.insert(link, Node::Opening(held));
        let opening = stream::open(stream, devices, partition, from, claim);
        self.jobs.push(Box::pin(async move {
            let result = opening.await;
            Done::Start { link, metrics, result }
        }));
        Ok(())
    }

    /// The start of a receiver is known.
    pub(super) fn on_start(
        &mut self,
        link: LinkId,
        metrics: bool,
        result: Result<fleetline_types::Offset, Error>,
    ) {
        let Some(Node::Opening(held)) = self.nodes.remove(&link) else { return };
        let stolen = || Error::new(condition::LINK_STOLEN, "another receiver was faster");
        let result = if held.is_stolen() { Err(stolen()) } else { result };
        let next = match result {
            Ok(next) => next,
            Err(error) => {
                self.readers -= 1;
                self.grants.remove(&link);
                self.release(&held);
                let error = errors::tracked(self.context.gateway.hub.as_ref(), error);
                return self.engine.refuse(link, &error);
            }
        };
        let partition = held.claim().partition();
        let shown = self.context.identity.shows_hub_events;
        let reader = stream::Reader::new(partition, next, held, metrics, shown);
        self.nodes.insert(link, Node::Reader(Box::new(reader)));
        self.accept_outgoing(link, true, if metrics { &[RUNTIME_METRIC] } else { &[] });
        self.watch(link);
        self.want_send(link);
    }

    /// Looks at other nodes' receivers after a while.
    pub(super) fn watch(&mut self, link: LinkId) {
        let Some(Node::Reader(reader)) = self.nodes.get_mut(&link) else { return };
        let (hub, claim) = (self.context.gateway.hub.clone(), reader.held.claim());
        let interval = self.context.limits.owner_interval;
        let (looked, abort) = abortable(async move {
            tokio::time::sleep(interval).await;
            owners::look(&hub, &claim).await
        });
        reader.watch = Some(abort);
        self.jobs.push(Box::pin(async move {
            looked.await.map_or(Done::Nothing, |stolen| Done::Watched { link, stolen })
        }));
    }

    fn attach_sender(
        &mut self,
        link: LinkId,
        hub: &str,
        partition: Option<u32>,
        path: String,
    ) -> Result<(), Error> {
        self.check_hub(Some(hub))?;
        let partition = partition.map(|partition| self.partition(partition)).transpose()?;
        self.grant(link, path, SEND_EVENTS)?;
        let mut turn = [0; 4];
        self.context.gateway.hub.random(&mut turn);
        let partitions = self.context.gateway.hub.partitions();
        let sender = EventSender::new(partition, partitions, u32::from_le_bytes(turn));
        self.nodes.insert(link, Node::Events(Box::new(sender)));
        self.accept_incoming(link, self.context.limits.events_window, EVENT_BYTES_MAX);
        Ok(())
    }
}
