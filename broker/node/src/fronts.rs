//! The fronts for devices and services on this node: listeners, and what they share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleetline_amqp_front::{self as amqp, AmqpContext, AmqpIdentity, AmqpLimits};
use fleetline_config::{FrontListen, NodeConfig};
use fleetline_gateway::devices::DeviceGateway;
use fleetline_gateway::devices::connections::{Connections, Link};
use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_gateway::devices::ingest::{Ingest, IngestOptions};
use fleetline_gateway::http::{self, HttpContext, HttpLimits, HttpMount, ObjectFront};
use fleetline_gateway::hub::Hub;
use fleetline_gateway::listen::{self, HANDSHAKES_MAX, Listening};
use fleetline_gateway::mqtt::{self, MqttContext, MqttLimits};
use fleetline_gateway::tls;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::certificates::Certificates;
use crate::data_dir::FrontPorts;
use crate::devices::NodeDevices;
use crate::error::NodeError;

/// Protocols' own ports.
const MQTT_PORT: u16 = 8883;
const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;
const AMQP_PORT: u16 = 5671;
const AMQP_PLAIN_PORT: u16 = 5672;
/// The Event Hubs-compatible name of the hub's stream, beside the first label of its host name.
const EVENT_HUB: &str = "messages/events";
/// How often abandoned parts of uploads are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(1800);
/// How long connections get to end at shutdown.
const GRACE: Duration = Duration::from_secs(3);

/// Makes the tiers that answer on the HTTP fronts, once the ports are known.
pub(crate) type Mounts<'a> = &'a dyn Fn(FrontPorts, &Arc<Connections>) -> Vec<Arc<dyn HttpMount>>;

/// What fronts stand on.
pub(crate) struct FrontParts<'a> {
    pub(crate) config: &'a NodeConfig,
    pub(crate) certs: &'a Certificates,
    pub(crate) devices: &'a Arc<NodeDevices>,
    /// Answers for every partition.
    pub(crate) stream: Arc<dyn Hub>,
    pub(crate) objects: Option<Arc<ObjectFront>>,
    /// When the hub was made, in milliseconds since 1970.
    pub(crate) made_ms: u64,
}

/// Running fronts.
pub(crate) struct Fronts {
    connections: Arc<Connections>,
    ports: FrontPorts,
    mqtt: Arc<MqttContext>,
    amqp: Arc<AmqpContext>,
    listeners: JoinSet<()>,
    /// Sends records; ends last.
    ingest: JoinSet<()>,
    quic: Option<quinn::Endpoint>,
}

fn failed(what: &str, error: impl std::fmt::Display) -> NodeError {
    NodeError::Listen { address: what.to_owned(), reason: error.to_string() }
}

impl Fronts {
    /// Starts the ingest and every listener that is configured.
    pub(crate) fn start(parts: FrontParts<'_>, mounts: Mounts<'_>) -> Result<Fronts, NodeError> {
        let FrontParts { config, certs, devices, stream, objects, made_ms } = parts;
        let hub: Arc<dyn DeviceHub> = devices.clone();
        let connections = Connections::new(hub.place().incarnation);
        devices.set_connections(connections.clone());
        let (ingest, tasks) = Ingest::start(&hub, &connections, IngestOptions::default());
        let gateway = Arc::new(DeviceGateway { hub: hub.clone(), connections: connections.clone(), ingest });
        let mqtt = MqttContext::new(gateway.clone(), MqttLimits::default());
        let over_amqp = bind(config.amqp_listen, config, AMQP_PORT, "amqp_listen")?;
        let amqp_plain = bind(config.amqp_plain_listen, config, AMQP_PLAIN_PORT, "amqp_plain_listen")?;
        let identity = AmqpIdentity {
            hub_name: EVENT_HUB.to_owned(),
            created_ms: made_ms,
            port: over_amqp.as_ref().and_then(port_of).unwrap_or(AMQP_PORT),
            shows_hub_events: false,
        };
        let amqp = AmqpContext::new(gateway.clone(), stream, identity, AmqpLimits::default());
        let mut fronts = Fronts {
            connections,
            ports: FrontPorts::default(),
            mqtt: mqtt.clone(),
            amqp,
            listeners: JoinSet::new(),
            ingest: tasks,
            quic: None,
        };
        fronts.listeners.spawn(sweep(objects.clone(), hub.clone()));
        fronts.start_mqtt(config, certs, &hub)?;
        fronts.start_amqp(over_amqp, amqp_plain, certs, &hub)?;
        fronts.start_https(config, certs, &hub, gateway, objects, mounts)?;
        Ok(fronts)
    }

    fn start_mqtt(
        &mut self,
        config: &NodeConfig,
        certs: &Certificates,
        hub: &Arc<dyn DeviceHub>,
    ) -> Result<(), NodeError> {
        let serve =
            |context: Arc<MqttContext>| move |socket, peer| mqtt::serve(context.clone(), socket, peer);
        let serve_tls =
            |context: Arc<MqttContext>| move |socket, peer| mqtt::serve(context.clone(), socket, peer);
        if let Some(listener) = bind(config.mqtt_plain_listen, config, 1883, "mqtt_plain_listen")? {
            self.ports.mqtt_plain = port_of(&listener);
            let listening =
                Listening { hub: hub.clone(), tls: None, name: "mqtt-plain", handshakes_max: HANDSHAKES_MAX };
            let context = self.mqtt.clone();
            self.listeners.spawn(listen::accept(
                listening,
                listener,
                serve(context.clone()),
                serve_tls(context),
            ));
        }
        let Some(listener) = bind(config.mqtt_listen, config, MQTT_PORT, "mqtt_listen")? else {
            return Ok(());
        };
        let address = listener.local_addr().map_err(|error| failed("mqtt_listen", error))?;
        self.ports.mqtt = Some(address.port());
        let config_of = |alpn: &[&[u8]]| tls_of(certs, alpn, "mqtt_listen");
        let listening = Listening {
            hub: hub.clone(),
            tls: Some(config_of(&[])?),
            name: "mqtt",
            handshakes_max: HANDSHAKES_MAX,
        };
        let context = self.mqtt.clone();
        self.listeners.spawn(listen::accept(listening, listener, serve(context.clone()), serve_tls(context)));
        self.start_quic(address, config_of(&[b"mqtt"])?, hub);
        Ok(())
    }

    /// MQTT over QUIC beside the TCP port. That the UDP port is taken is no reason not to start.
    fn start_quic(&mut self, address: SocketAddr, tls: Arc<rustls::ServerConfig>, hub: &Arc<dyn DeviceHub>) {
        let crypto = match quinn::crypto::rustls::QuicServerConfig::try_from((*tls).clone()) {
            Ok(crypto) => crypto,
            Err(error) => return tracing::warn!(%error, "mqtt over quic is off"),
        };
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let mut transport = quinn::TransportConfig::default();
        // One stream is one connection; nothing else is taken.
        transport.max_concurrent_bidi_streams(1u32.into()).max_concurrent_uni_streams(0u32.into());
        transport.stream_receive_window((512u32 << 10).into()).receive_window((512u32 << 10).into());
        transport.max_idle_timeout(Some(quinn::IdleTimeout::from(quinn::VarInt::from_u32(1_800_000))));
        server.transport_config(Arc::new(transport));
        match quinn::Endpoint::server(server, address) {
            Ok(endpoint) => {
                self.quic = Some(endpoint.clone());
                let context = self.mqtt.clone();
                let serve = move |stream, peer| mqtt::serve(context.clone(), stream, peer);
                self.listeners.spawn(listen::accept_quic(hub.clone(), endpoint, serve));
            }
            Err(error) => tracing::warn!(%address, %error, "mqtt over quic is off"),
        }
    }

    fn start_amqp(
        &mut self,
        over_tls: Option<TcpListener>,
        plain: Option<TcpListener>,
        certs: &Certificates,
        hub: &Arc<dyn DeviceHub>,
    ) -> Result<(), NodeError> {
        self.ports.amqp = over_tls.as_ref().and_then(port_of);
        self.ports.amqp_plain = plain.as_ref().and_then(port_of);
        let serve =
            |context: Arc<AmqpContext>| move |socket, peer| amqp::serve(context.clone(), socket, peer);
        let serve_tls =
            |context: Arc<AmqpContext>| move |socket, peer| amqp::serve(context.clone(), socket, peer);
        let mut start = |listener, tls, name| {
            let listening = Listening { hub: hub.clone(), tls, name, handshakes_max: HANDSHAKES_MAX };
            let (plain, tls) = (serve(self.amqp.clone()), serve_tls(self.amqp.clone()));
            self.listeners.spawn(listen::accept(listening, listener, plain, tls));
        };
        if let Some(listener) = over_tls {
            start(listener, Some(tls_of(certs, &[], "amqp_listen")?), "amqp");
        }
        if let Some(listener) = plain {
            start(listener, None, "amqp-plain");
        }
        Ok(())
    }

    fn start_https(
        &mut self,
        config: &NodeConfig,
        certs: &Certificates,
        hub: &Arc<dyn DeviceHub>,
        gateway: Arc<DeviceGateway>,
        objects: Option<Arc<ObjectFront>>,
        mounts: Mounts<'_>,
    ) -> Result<(), NodeError> {
        let over_tls = bind(config.https_listen, config, HTTPS_PORT, "https_listen")?;
        let plain = bind(config.http_plain_listen, config, HTTP_PORT, "http_plain_listen")?;
        self.ports.https = over_tls.as_ref().and_then(port_of);
        self.ports.http_plain = plain.as_ref().and_then(port_of);
        let mounts = mounts(self.ports, &self.connections);
        let (mqtt, amqp) = (self.mqtt.clone(), self.amqp.clone());
        let context = Arc::new(HttpContext {
            gateway,
            objects,
            websocket: Arc::new(move |stream| {
                let peer = stream.peer().clone();
                Box::pin(mqtt::serve(mqtt.clone(), stream, peer))
            }),
            amqp_websocket: Some(Arc::new(move |stream| {
                let peer = stream.peer().clone();
                Box::pin(amqp::serve(amqp.clone(), stream, peer))
            })),
            mounts,
            limits: HttpLimits::default(),
        });
        let serve =
            |context: Arc<HttpContext>| move |socket, peer| http::serve(context.clone(), socket, peer);
        let serve_tls =
            |context: Arc<HttpContext>| move |socket, peer| http::serve(context.clone(), socket, peer);
        let mut start = |listener, tls, name| {
            let listening = Listening { hub: hub.clone(), tls, name, handshakes_max: HANDSHAKES_MAX };
            let (plain, over_tls) = (serve(context.clone()), serve_tls(context.clone()));
            self.listeners.spawn(listen::accept(listening, listener, plain, over_tls));
        };
        if let Some(listener) = over_tls {
            start(listener, Some(tls_of(certs, &[b"http/1.1"], "https_listen")?), "https");
        }
        if let Some(listener) = plain {
            start(listener, None, "http-plain");
        }
        Ok(())
    }

    /// Where clients reach the fronts of this node.
    pub(crate) fn ports(&self) -> FrontPorts {
        self.ports
    }

    /// Live connections.
    pub(crate) fn connections_of(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Device connections now.
    pub(crate) fn connections(&self) -> usize {
        self.mqtt.connections() + self.amqp.connections()
    }

    /// Waits until a task ends that sends records, and says why: none of them may.
    pub(crate) async fn ingest_ended(&mut self) -> String {
        first_end(&mut self.ingest).await
    }

    /// Asks every connection to end, and waits a moment for it.
    pub(crate) async fn shutdown(mut self) {
        self.connections.set_all(Link::SHUTDOWN);
        self.amqp.stop();
        let ended = async {
            while self.connections() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(GRACE, ended).await.is_err() {
            tracing::info!(left = self.connections(), "connections did not end in time");
        }
        self.listeners.shutdown().await;
        if let Some(endpoint) = self.quic.take() {
            endpoint.close(0u32.into(), b"");
        }
        self.ingest.shutdown().await;
    }
}

/// Why the first of these tasks has ended; waits for ever when there are none.
async fn first_end(tasks: &mut JoinSet<()>) -> String {
    match tasks.join_next().await {
        Some(Ok(())) => "it returned".to_owned(),
        Some(Err(error)) => error.to_string(),
        None => std::future::pending().await,
    }
}

/// TLS of a front, with whichever certificate is current at a handshake.
fn tls_of(
    certs: &Certificates,
    alpn: &[&[u8]],
    key: &'static str,
) -> Result<Arc<rustls::ServerConfig>, NodeError> {
    let (chain, private) = certs.front_pem();
    let config = tls::server_config(&chain, &private, alpn).map_err(|error| failed(key, error))?;
    Ok(certs.of_front(&config))
}

/// Removes blocks of uploads that were never put together. Each node does it: with a shared store the
/// second finds nothing left.
async fn sweep(objects: Option<Arc<ObjectFront>>, hub: Arc<dyn DeviceHub>) {
    let Some(objects) = objects else { return };
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        objects.sweep(hub.now_ms()).await;
    }
}

fn port_of(listener: &TcpListener) -> Option<u16> {
    listener.local_addr().ok().map(|address| address.port())
}

/// Opens a front's port; `None` when it is off.
fn bind(
    listen: FrontListen,
    config: &NodeConfig,
    port: u16,
    key: &'static str,
) -> Result<Option<TcpListener>, NodeError> {
    match listen {
        FrontListen::Off => Ok(None),
        FrontListen::At(address) => match listen::bind(address) {
            Ok(listener) => Ok(Some(listener)),
            Err(error) => Err(failed(&format!("{address} ({key})"), error)),
        },
        FrontListen::Auto => {
            let address = SocketAddr::new(config.listen.ip(), port);
            match listen::bind(address) {
                Ok(listener) => Ok(Some(listener)),
                Err(error) => {
                    tracing::warn!(%address, %error, "{key} is off: its usual port can't be opened; name another one");
                    Ok(None)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task that panics is seen, and says what happened; as long as all run, nothing is.
    #[tokio::test]
    async fn a_task_that_ends_is_seen() {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::pending());
        tasks.spawn(async move {
            drop(stopped.await);
            panic!("no batch any more");
        });
        assert!(futures::poll!(std::pin::pin!(first_end(&mut tasks))).is_pending());
        stop.send(()).unwrap();
        assert!(first_end(&mut tasks).await.contains("no batch any more"));
        let mut none = JoinSet::new();
        assert!(futures::poll!(std::pin::pin!(first_end(&mut none))).is_pending());
    }
}
