//! CONNECT: who opens a session, and how it is to be.
//!
//! Debug output of these types leaves secrets out: they end up in logs.

use std::fmt;

use crate::properties::{Property, PropertyReader};
use crate::reader::Reader;
use crate::{DecodeError, Limits, PacketType, PublishProperties, QoS, UserProperties, Version, topic};

const USERNAME: u8 = 0b1000_0000;
const PASSWORD: u8 = 0b0100_0000;
const WILL_RETAIN: u8 = 0b0010_0000;
const WILL: u8 = 0b0000_0100;
const CLEAN_START: u8 = 0b0000_0010;
const RESERVED: u8 = 0b0000_0001;

/// A session that lasts until it is discarded.
const NEVER_EXPIRES: u32 = u32::MAX;

/// The first packet of a client. Also what [`crate::encode::connect`] takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version that the connection speaks from here on.
    pub version: Version,
    /// The client's name; may be empty, then the server gives it one (not for a 3.1.1 session that
    /// is to be kept).
    pub client_id: &'a str,
    /// A session from before is to be thrown away. On 3.1.1: clean session.
    pub clean_start: bool,
    /// Seconds; the client sends something at least this often. 0: no promise.
    pub keep_alive: u16,
    /// User name.
    pub username: Option<&'a str>,
    /// Password: bytes, often text. On 3.1.1 only with a user name.
    pub password: Option<&'a [u8]>,
    /// Published if the client leaves without DISCONNECT.
    pub will: Option<Will<'a>>,
    /// What holds on 3.1.1 is what MQTT 5 would say for it.
    pub properties: ConnectProperties<'a>,
}

/// The message that a client leaves behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Will<'a> {
    /// A valid topic name.
    pub topic: &'a str,
    /// The message's bytes; may be empty.
    pub payload: &'a [u8],
    /// QoS to publish with.
    pub qos: QoS,
    /// To be kept for later subscribers.
    pub retain: bool,
    /// Seconds between the end of the connection and the publication. 0 on 3.1.1.
    pub delay: u32,
    /// Without topic alias and subscription identifiers.
    pub properties: PublishProperties<'a>,
}

/// What CONNECT of MQTT 5 says beside its fixed fields, with the standard's defaults filled in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// Seconds that the session outlives the connection; `u32::MAX`: for ever. For 3.1.1 that is
    /// `u32::MAX` if the session is to be kept and 0 if it is clean.
    pub session_expiry: u32,
    /// Messages with QoS 1 and 2 that may be on their way to the client, at least 1.
    pub receive_maximum: u16,
    /// Bytes of a packet that the client takes, at least 1.
    pub maximum_packet_size: Option<u32>,
    /// The highest topic alias that the client takes; 0: none.
    pub topic_alias_maximum: u16,
    /// Reason strings and user properties may come with any packet.
    pub request_problem_information: bool,
    /// The client asks for response information in CONNACK.
    pub request_response_information: bool,
    /// The client wants to authenticate with AUTH.
    pub authentication_method: Option<&'a str>,
    /// What that method says first; only with a method.
    pub authentication_data: Option<&'a [u8]>,
    /// The application's own.
    pub user_properties: UserProperties<'a>,
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean_start", &self.clean_start)
            .field("keep_alive", &self.keep_alive)
            .field("username", &self.username)
            .field("password", &self.password.map(|_| "secret"))
            .field("will", &self.will)
            .field("properties", &self.properties)
            .finish()
    }
}

impl fmt::Debug for ConnectProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectProperties")
            .field("session_expiry", &self.session_expiry)
            .field("receive_maximum", &self.receive_maximum)
            .field("maximum_packet_size", &self.maximum_packet_size)
            .field("topic_alias_maximum", &self.topic_alias_maximum)
            .field("request_problem_information", &self.request_problem_information)
            .field("request_response_information", &self.request_response_information)
            .field("authentication_method", &self.authentication_method)
            .field("authentication_data", &self.authentication_data.map(|_| "secret"))
            .field("user_properties", &self.user_properties)
            .finish()
    }
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        ConnectProperties {
            session_expiry: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_problem_information: true,
            request_response_information: false,
            authentication_method: None,
            authentication_data: None,
            user_properties: UserProperties::default(),
        }
    }
}

impl<'a> Connect<'a> {
    /// A CONNECT with a clean session, no keep alive, no credentials and no will.
    pub fn new(version: Version, client_id: &'a str) -> Connect<'a> {
        Connect {
            version,
            client_id,
            clean_start: true,
            keep_alive: 0,
            username: None,
            password: None,
            will: None,
            properties: ConnectProperties::default(),
        }
    }

    pub(crate) fn decode(mut body: Reader<'a>, limits: &Limits) -> Result<Connect<'a>, DecodeError> {
        let body = &mut body;
        let version = read_version(body)?;
        let flags = body.u8("connect flags")?;
        let will_qos = check_flags(version, flags)?;
        let clean_start = flags & CLEAN_START != 0;
        let keep_alive = body.u16("keep alive")?;
        let properties = match version {
            Version::V5 => ConnectProperties::decode(body, limits)?,
            Version::V311 => ConnectProperties::of_v311(clean_start),
        };
        // [MQTT-3.1.3-1], [MQTT5-3.1.3-1]: the order of the payload. [MQTT-3.1.3-3],
        // [MQTT-3.1.3-4], [MQTT5-3.1.3-3], [MQTT5-3.1.3-4]: the client id is there, in UTF-8.
        let client_id = body.string("client id")?;
        // [MQTT-3.1.2-9], [MQTT5-3.1.2-9]: flag and fields of the will go together, as do those of
        // the user name ([MQTT-3.1.2-18], [MQTT-3.1.2-19], [MQTT-3.1.3-11], [MQTT5-3.1.2-16],
        // [MQTT5-3.1.2-17], [MQTT5-3.1.3-12]) and of the password ([MQTT-3.1.2-20],
        // [MQTT-3.1.2-21], [MQTT5-3.1.2-18], [MQTT5-3.1.2-19]).
        let will = match flags & WILL {
            0 => None,
            _ => Some(Will::decode(body, version, limits)?),
        };
        let will = will.map(|will| Will { qos: will_qos, retain: flags & WILL_RETAIN != 0, ..will });
        let username = if flags & USERNAME == 0 { None } else { Some(body.string("user name")?) };
        let password = if flags & PASSWORD == 0 { None } else { Some(body.binary("password")?) };
        if !body.is_empty() {
            return Err(DecodeError::Trailing { packet: PacketType::Connect, count: body.rest().len() });
        }
        if version == Version::V311 && client_id.is_empty() && !clean_start {
            return Err(DecodeError::ClientIdMissing); // [MQTT-3.1.3-7], [MQTT-3.1.3-8]
        }
        Ok(Connect { version, client_id, clean_start, keep_alive, username, password, will, properties })
    }

    /// The flags byte.
    pub(crate) fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.username.is_some() {
            flags |= USERNAME;
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        if let Some(will) = &self.will {
            flags |= WILL | will.qos.bits() << 3;
            if will.retain {
                flags |= WILL_RETAIN;
            }
        }
        if self.clean_start {
            flags |= CLEAN_START;
        }
        flags
    }
}

/// [MQTT-3.1.2-1], [MQTT-3.1.2-2], [MQTT5-3.1.2-1], [MQTT5-3.1.2-2]: protocol name and level.
fn read_version(body: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let name = body.binary("protocol name")?;
    let level = body.u8("protocol level")?;
    match name {
        b"MQTT" => Version::from_level(level).ok_or(DecodeError::UnsupportedVersion { level }),
        // MQTT 3.1, whose level is 3.
        b"MQIsdp" => Err(DecodeError::UnsupportedVersion { level }),
        _ => Err(DecodeError::ProtocolName),
    }
}

/// Checks that the flags agree with each other; the result is the QoS of the will.
fn check_flags(version: Version, flags: u8) -> Result<QoS, DecodeError> {
    let refused = |fault| Err(DecodeError::ConnectFlags { fault });
    if flags & RESERVED != 0 {
        return refused("the reserved one is set"); // [MQTT-3.1.2-3], [MQTT5-3.1.2-3]
    }
    // [MQTT-3.1.2-14], [MQTT5-3.1.2-12]
    let qos = QoS::from_bits("the qos of the will", flags >> 3)?;
    if flags & WILL == 0 {
        if qos != QoS::AtMostOnce {
            // [MQTT-3.1.2-11], [MQTT-3.1.2-13], [MQTT5-3.1.2-11]
            return refused("a will qos without a will");
        }
        if flags & WILL_RETAIN != 0 {
            // [MQTT-3.1.2-11], [MQTT-3.1.2-15], [MQTT5-3.1.2-13]
            return refused("a will retain without a will");
        }
    }
    if version == Version::V311 && flags & PASSWORD != 0 && flags & USERNAME == 0 {
        return refused("a password without a user name"); // [MQTT-3.1.2-22]
    }
    Ok(qos)
}

impl<'a> Will<'a> {
    /// The fields in the payload; QoS and retain are in the flags.
    fn decode(body: &mut Reader<'a>, version: Version, limits: &Limits) -> Result<Will<'a>, DecodeError> {
        let mut will = Will::default();
        if version == Version::V5 {
            will.decode_properties(body, limits)?;
        }
        // [MQTT-3.1.3-10], [MQTT5-3.1.3-11]
        will.topic = topic::read_name(body, "will topic", limits)?;
        will.payload = body.binary("will payload")?;
        Ok(will)
    }

    fn decode_properties(&mut self, body: &mut Reader<'a>, limits: &Limits) -> Result<(), DecodeError> {
        let mut reader = PropertyReader::new(body, limits.user_properties_max)?;
        let block = reader.rest();
        while let Some(property) = reader.next()? {
            match property {
                Property::WillDelay(seconds) => self.delay = seconds,
                other => self.properties.take(other, "a will", limits)?,
            }
        }
        self.properties.user_properties = UserProperties::of_block(block, reader.user_count());
        Ok(())
    }
}

impl<'a> ConnectProperties<'a> {
    /// What a 3.1.1 CONNECT amounts to (MQTT 5 section 3.1.2.11.2).
    fn of_v311(clean_session: bool) -> ConnectProperties<'a> {
        let session_expiry = if clean_session { 0 } else { NEVER_EXPIRES };
        ConnectProperties { session_expiry, ..ConnectProperties::default() }
    }

    fn decode(body: &mut Reader<'a>, limits: &Limits) -> Result<ConnectProperties<'a>, DecodeError> {
        let mut found = ConnectProperties::default();
        let mut reader = PropertyReader::new(body, limits.user_properties_max)?;
        let block = reader.rest();
        while let Some(property) = reader.next()? {
            match property {
                Property::SessionExpiry(seconds) => found.session_expiry = seconds,
                Property::ReceiveMaximum(count) => found.receive_maximum = count,
                Property::MaximumPacketSize(bytes) => found.maximum_packet_size = Some(bytes),
                Property::TopicAliasMaximum(alias) => found.topic_alias_maximum = alias,
                Property::RequestProblemInformation(wanted) => found.request_problem_information = wanted,
                Property::RequestResponseInformation(wanted) => found.request_response_information = wanted,
                Property::AuthenticationMethod(method) => found.authentication_method = Some(method),
                Property::AuthenticationData(data) => found.authentication_data = Some(data),
                Property::User(..) => {}
                other => return Err(other.refused("CONNECT")),
            }
        }
        // Section 3.1.2.11.10: data without a method is a protocol error.
        if found.authentication_data.is_some() && found.authentication_method.is_none() {
            return Err(DecodeError::AuthMethodMissing { packet: PacketType::Connect });
        }
        found.user_properties = UserProperties::of_block(block, reader.user_count());
        Ok(found)
    }
}
