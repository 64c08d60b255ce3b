//! CONNECT: reading it, judging it, opening the session at the leader.
//!
//! Refusals are of two kinds that must never be confused, because SDKs give up for good on one of them:
//! 4 and 5 only on the leader's own word, 3 for everything that may be different later.

use std::time::Duration;

use fleetline_devices::{
    Connect as ConnectRequest, ConnectionPlace, DeviceKey, OpenSession, Proof, Request, SessionOpened,
    WillRow,
};
use fleetline_iothub::bag::{Bag, parse_into};
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::mqtt_login;
use fleetline_iothub::names::Identity;
use fleetline_iothub::topics::{DeviceTopic, parse_publish};
use fleetline_mqtt::{ConnAck, Connect, Limits, Packet, QoS, Version, decode, encode, frame_len, reason};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{MqttContext, refused};
use crate::devices::connections::Registered;
use crate::devices::hub::{AskError, answered};
use crate::devices::login::device_login;
use crate::devices::record::Stamps;
use crate::http::PeerInfo;

/// How often the leader is asked again when an identity changes under the login.
const ATTEMPTS: usize = 4;

/// CONNECT as far as it outlives its bytes, and what came behind it.
pub(super) struct Received {
    version: Version,
    client_id: String,
    username: Option<String>,
    password: Option<String>,
    fresh: bool,
    clean: bool,
    will: Option<(String, Vec<u8>)>,
    keep_alive: u16,
    receive_maximum: u16,
    packet_bytes_max: Option<u32>,
    /// It asks for what isn't here.
    unsupported: Option<Refusal>,
    /// Bytes behind CONNECT; a client may send on before CONNACK.
    pub(super) rest: Vec<u8>,
}

/// An open session.
pub(super) struct Opened {
    pub(super) version: Version,
    pub(super) registered: Registered,
    pub(super) session: SessionOpened,
    pub(super) stamps: Stamps,
    pub(super) keep_alive: u16,
    pub(super) expires: Option<u64>,
    pub(super) receive_maximum: u16,
    pub(super) packet_bytes_max: Option<u32>,
    pub(super) rest: Vec<u8>,
}

/// Reads CONNECT. `None` when the peer sent something else or went away; it has its answer then.
pub(super) async fn read_connect<IO>(context: &MqttContext, io: &mut IO) -> Option<Received>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let limits =
        Limits { packet_bytes_max: context.limits.connect_bytes_max, ..context.limits.packets.clone() };
    let mut bytes = Vec::with_capacity(1024);
    loop {
        match frame_len(&bytes, &limits) {
            Ok(Some(len)) if bytes.len() >= len => {
                return match decode(&bytes[..len], None, &limits) {
                    Ok(Packet::Connect(connect)) => Some(received(&connect, &bytes[len..])),
                    Ok(_) => None,
                    Err(error) => {
                        refuse_version(io, &error).await;
                        None
                    }
                };
            }
            Ok(_) => {}
            Err(_) => {
                refused("malformed_connect");
                return None;
            }
        }
        match io.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// [MQTT-3.1.2-2]: an unknown protocol level is told so; anything else is just closed.
async fn refuse_version<IO: AsyncWrite + Unpin>(io: &mut IO, error: &fleetline_mqtt::DecodeError) {
    refused("malformed_connect");
    if error.reason() == reason::UNSUPPORTED_PROTOCOL_VERSION {
        let mut out = Vec::new();
        let connack = ConnAck::new(Version::V311, reason::V311_UNACCEPTABLE_PROTOCOL_VERSION);
        if encode::connack(&mut out, &connack).is_ok() {
            finish(io, &out).await;
        }
    }
}

fn received(connect: &Connect<'_>, rest: &[u8]) -> Received {
    let clean = match connect.version {
        Version::V311 => connect.clean_start,
        Version::V5 => connect.properties.session_expiry == 0,
    };
    Received {
        version: connect.version,
        client_id: connect.client_id.to_owned(),
        username: connect.username.map(str::to_owned),
        password: connect.password.map(|password| String::from_utf8_lossy(password).into_owned()),
        fresh: connect.clean_start,
        clean,
        will: connect.will.as_ref().map(|will| (will.topic.to_owned(), will.payload.to_vec())),
        keep_alive: connect.keep_alive,
        receive_maximum: connect.properties.receive_maximum,
        packet_bytes_max: connect.properties.maximum_packet_size,
        unsupported: unsupported(connect),
        rest: rest.to_vec(),
    }
}

/// What an MQTT 5 client must be refused for at once, because CONNACK can't say no to a part.
fn unsupported(connect: &Connect<'_>) -> Option<Refusal> {
    if connect.version != Version::V5 {
        return None;
    }
    // [MQTT5-4.12.0-1]: nobody would answer its AUTH.
    if connect.properties.authentication_method.is_some() {
        return Some(BAD_METHOD);
    }
    match &connect.will {
        // [MQTT5-3.2.2-12], [MQTT5-3.2.2-13]
        Some(will) if will.qos == QoS::ExactlyOnce => Some(WILL_QOS),
        Some(will) if will.retain => Some(WILL_RETAIN),
        _ => None,
    }
}

/// A refusal in both versions' numbers.
#[derive(Clone, Copy)]
struct Refusal {
    v311: u8,
    v5: u8,
    why: &'static str,
}

const UNAVAILABLE: Refusal =
    Refusal { v311: reason::V311_SERVER_UNAVAILABLE, v5: reason::SERVER_UNAVAILABLE, why: "unavailable" };
const NOT_AUTHORIZED: Refusal =
    Refusal { v311: reason::V311_NOT_AUTHORIZED, v5: reason::NOT_AUTHORIZED, why: "not_authorized" };
const BAD_LOGIN: Refusal = Refusal {
    v311: reason::V311_BAD_USER_NAME_OR_PASSWORD,
    v5: reason::BAD_USER_NAME_OR_PASSWORD,
    why: "bad_login",
};
const BAD_CLIENT_ID: Refusal = Refusal {
    v311: reason::V311_IDENTIFIER_REJECTED,
    v5: reason::CLIENT_IDENTIFIER_NOT_VALID,
    why: "client_id",
};
const BAD_WILL: Refusal =
    Refusal { v311: reason::V311_NOT_AUTHORIZED, v5: reason::TOPIC_NAME_INVALID, why: "will" };
const WILL_QOS: Refusal = Refusal { v5: reason::QOS_NOT_SUPPORTED, ..BAD_WILL };
const WILL_RETAIN: Refusal = Refusal { v5: reason::RETAIN_NOT_SUPPORTED, ..BAD_WILL };
const BAD_METHOD: Refusal =
    Refusal { v5: reason::BAD_AUTHENTICATION_METHOD, why: "authentication_method", ..NOT_AUTHORIZED };

/// Opens the session and answers with CONNACK. `None` when it is refused; the peer knows then.
pub(super) async fn open<IO>(
    context: &MqttContext,
    io: &mut IO,
    peer: &PeerInfo,
    connect: Received,
) -> Option<Opened>
where
    IO: AsyncWrite + Unpin,
{
    let version = connect.version;
    match try_open(context, peer, connect).await {
        Ok(opened) => {
            let mut out = Vec::with_capacity(64);
            let encoded = encode::connack(&mut out, &accepted(context, &opened)).is_ok();
            let sent = encoded && io.write_all(&out).await.is_ok() && io.flush().await.is_ok();
            if !sent {
                super::work::close(context, &opened.registered.link, false).await;
                return None;
            }
            Some(opened)
        }
        Err(refusal) => {
            refused(refusal.why);
            let code = if version == Version::V5 { refusal.v5 } else { refusal.v311 };
            let mut out = Vec::new();
            if encode::connack(&mut out, &ConnAck::new(version, code)).is_ok() {
                finish(io, &out).await;
            }
            None
        }
    }
}

/// Sends the last bytes and lets the peer read them.
async fn finish<IO: AsyncWrite + Unpin>(io: &mut IO, out: &[u8]) {
    let last = async {
        io.write_all(out).await?;
        io.shutdown().await
    };
    // The peer may be gone already; there is nobody to tell.
    drop(tokio::time::timeout(Duration::from_secs(2), last).await);
}

fn accepted<'a>(context: &MqttContext, opened: &Opened) -> ConnAck<'a> {
    // [MQTT-3.2.2-1..3]: session present only when the client did not ask for a fresh one.
    let mut connack = ConnAck::new(opened.version, reason::SUCCESS);
    connack.session_present = opened.session.present;
    if opened.version == Version::V5 {
        connack.maximum_qos = Some(QoS::AtLeastOnce);
        connack.retain_available = Some(false);
        connack.shared_available = Some(false);
        connack.subscription_ids_available = Some(false);
        connack.receive_maximum = u16::try_from(context.limits.in_flight_max).ok();
        connack.maximum_packet_size = u32::try_from(context.limits.packets.packet_bytes_max).ok();
        let longest = context.limits.silence_max.as_secs() * 2 / 3;
        let longest = u16::try_from(longest).unwrap_or(u16::MAX);
        // [MQTT5-3.2.2-21]: the client must use the server's value when there is one.
        if opened.keep_alive == 0 || opened.keep_alive > longest {
            connack.server_keep_alive = Some(longest);
        }
    }
    connack
}

async fn try_open(context: &MqttContext, peer: &PeerInfo, connect: Received) -> Result<Opened, Refusal> {
    if let Some(refusal) = connect.unsupported {
        return Err(refusal);
    }
    let gateway = &context.gateway;
    let settings = gateway.hub.settings();
    let username = connect.username.as_deref().unwrap_or_default();
    let login = mqtt_login::parse(&connect.client_id, username).map_err(|error| match error {
        mqtt_login::LoginError::OtherIdentity | mqtt_login::LoginError::BadClientId(_) => BAD_CLIENT_ID,
        _ => BAD_LOGIN,
    })?;
    // Required by the protocol; which one it is makes no difference.
    if login.api_version.is_none() {
        return Err(BAD_LOGIN);
    }
    if !settings.is_host(login.host) {
        return Err(NOT_AUTHORIZED);
    }
    let key = key_of(login.identity);
    let will = connect.will.as_ref().map(|will| will_row(login.identity, will)).transpose()?;
    let now_secs = gateway.hub.now_ms() / 1000;
    let certificate = peer.certificate.as_deref();
    let presented =
        device_login(&settings, now_secs, &key, connect.password.as_deref(), certificate, |shown| {
            (peer.chained)(shown)
        })
        .map_err(|error| {
            tracing::debug!(device = key.text(), reason = error.reason(), "login refused");
            NOT_AUTHORIZED
        })?;
    let registered = gateway.connections.register(key.clone());
    let open = OpenSession {
        key,
        auth_version: 0,
        place: ConnectionPlace { connection: registered.link.id, ..gateway.hub.place() },
        clean: connect.clean,
        fresh: connect.fresh,
        will,
        model_id: login.model_id.map(|model| model.into_owned()).unwrap_or_default(),
    };
    let method = presented.proof.method();
    let model = open.model_id.clone();
    let (session, generation) = ask_leader(context, open, presented.proof).await?;
    registered.link.opened(session.session.epoch);
    let module = registered.link.key.module.clone();
    Ok(Opened {
        version: connect.version,
        stamps: Stamps { generation, method, module, model },
        registered,
        session,
        keep_alive: connect.keep_alive,
        expires: presented.expires,
        receive_maximum: connect.receive_maximum,
        packet_bytes_max: connect.packet_bytes_max,
        rest: connect.rest,
    })
}

/// Has the leader check the proof and open the session.
async fn ask_leader(
    context: &MqttContext,
    open: OpenSession,
    proof: Proof,
) -> Result<(SessionOpened, String), Refusal> {
    let partition = context.gateway.partition_of(&open.key.device);
    let device = open.key.text();
    for _ in 0..ATTEMPTS {
        let request = Request::Connect(ConnectRequest { open: open.clone(), proof: proof.clone() });
        let answer =
            context.gateway.hub.ask(partition, request).await.map_err(AskError::Hub).and_then(answered);
        let error = match answer {
            Ok(answer) => {
                let generation = answer.verified.map(|verified| verified.generation).unwrap_or_default();
                match answer.reply.and_then(|reply| reply.opened) {
                    Some(opened) => return Ok((opened, generation)),
                    None => return Err(UNAVAILABLE),
                }
            }
            Err(AskError::Refused(error)) => error,
            Err(AskError::Hub(error)) => {
                tracing::debug!(device, %error, "session can't be opened now");
                return Err(UNAVAILABLE);
            }
        };
        tracing::debug!(device, reason = error.text, "session refused");
        match ErrorCode::from_number(error.code) {
            Some(
                ErrorCode::DeviceNotFound
                | ErrorCode::ModuleNotFound
                | ErrorCode::DeviceDisabled
                | ErrorCode::IotHubUnauthorizedAccess
                | ErrorCode::IotHubUnauthorized,
            ) => return Err(NOT_AUTHORIZED),
            // What it says of itself is never taken, however often it comes.
            Some(ErrorCode::ArgumentInvalid | ErrorCode::MessageTooLarge) => return Err(BAD_LOGIN),
            // The identity changed under the check: check again.
            Some(ErrorCode::ServerBusy) => {}
            _ => return Err(UNAVAILABLE),
        }
    }
    Err(UNAVAILABLE)
}

fn key_of(identity: Identity<'_>) -> DeviceKey {
    match identity.module {
        Some(module) => DeviceKey::module(identity.device, module),
        None => DeviceKey::device(identity.device),
    }
}

/// A will is telemetry of the device itself, or it is refused now: later there is nobody to tell.
fn will_row(identity: Identity<'_>, (topic, payload): &(String, Vec<u8>)) -> Result<WillRow, Refusal> {
    match parse_publish(topic, identity) {
        Ok(DeviceTopic::Telemetry { bag }) => {
            parse_into(bag, &mut Bag::new()).map_err(|_| BAD_WILL)?;
            Ok(WillRow { bag: bag.to_owned(), body: payload.clone().into() })
        }
        _ => Err(BAD_WILL),
    }
}
