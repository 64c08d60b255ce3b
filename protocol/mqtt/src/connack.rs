//! CONNACK: how a server answers CONNECT.

use crate::packet::Context;
use crate::properties::{Property, PropertyReader};
use crate::reader::Reader;
use crate::{DecodeError, PacketType, QoS, UserProperties, Version, reason};

const SESSION_PRESENT: u8 = 0b0000_0001;

/// The server's answer. Also what [`crate::encode::connack`] takes. All that is optional is absent on
/// 3.1.1; on MQTT 5, absent means what its comment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// The version of the CONNECT.
    pub version: Version,
    /// The server has kept the session; only with a success ([MQTT-3.2.2-4], [MQTT5-3.2.2-6]).
    pub session_present: bool,
    /// Reason code on MQTT 5, return code on 3.1.1 ([`reason::connack_v311`] translates).
    pub code: u8,
    /// Seconds that the session will last; absent: as asked for.
    pub session_expiry: Option<u32>,
    /// Messages with QoS 1 and 2 that may be on their way to the server; absent: 65,535.
    pub receive_maximum: Option<u16>,
    /// The highest QoS to publish with, 0 or 1; absent: 2.
    pub maximum_qos: Option<QoS>,
    /// Whether messages can be retained; absent: yes.
    pub retain_available: Option<bool>,
    /// Bytes of a packet that the server takes; absent: no bound.
    pub maximum_packet_size: Option<u32>,
    /// The client's name, if it came without one.
    pub assigned_client_id: Option<&'a str>,
    /// The highest topic alias that the server takes; absent: none.
    pub topic_alias_maximum: Option<u16>,
    /// Words for a person.
    pub reason_string: Option<&'a str>,
    /// Whether filters may have wildcards; absent: yes.
    pub wildcard_available: Option<bool>,
    /// Whether subscriptions may have identifiers; absent: yes.
    pub subscription_ids_available: Option<bool>,
    /// Whether subscriptions may be shared; absent: yes.
    pub shared_available: Option<bool>,
    /// Seconds, in place of the client's keep alive; absent: as asked for.
    pub server_keep_alive: Option<u16>,
    /// From which the client builds response topics.
    pub response_information: Option<&'a str>,
    /// Another server to go to.
    pub server_reference: Option<&'a str>,
    /// The method of an authentication with AUTH.
    pub authentication_method: Option<&'a str>,
    /// What that method says last.
    pub authentication_data: Option<&'a [u8]>,
    /// The server's own.
    pub user_properties: UserProperties<'a>,
}

impl<'a> ConnAck<'a> {
    /// An answer without properties and without a session from before.
    pub fn new(version: Version, code: u8) -> ConnAck<'a> {
        ConnAck {
            version,
            session_present: false,
            code,
            session_expiry: None,
            receive_maximum: None,
            maximum_qos: None,
            retain_available: None,
            maximum_packet_size: None,
            assigned_client_id: None,
            topic_alias_maximum: None,
            reason_string: None,
            wildcard_available: None,
            subscription_ids_available: None,
            shared_available: None,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
            user_properties: UserProperties::default(),
        }
    }

    pub(crate) fn decode(context: Context<'_>, body: &mut Reader<'a>) -> Result<ConnAck<'a>, DecodeError> {
        let flags = body.u8("connack flags")?;
        let code = body.u8("connack code")?;
        check_code(context, code)?;
        let mut connack = ConnAck::new(context.version, code);
        connack.session_present = flags & SESSION_PRESENT != 0;
        // [MQTT-3.2.2-4], [MQTT5-3.2.2-1], [MQTT5-3.2.2-6]
        if flags & !SESSION_PRESENT != 0 || (connack.session_present && code != reason::SUCCESS) {
            return Err(DecodeError::ConnAckFlags { flags });
        }
        if context.is_v5() {
            connack.decode_properties(context, body)?;
        }
        Ok(connack)
    }

    fn decode_properties(&mut self, context: Context<'_>, body: &mut Reader<'a>) -> Result<(), DecodeError> {
        let mut reader = PropertyReader::new(body, context.limits.user_properties_max)?;
        let block = reader.rest();
        while let Some(property) = reader.next()? {
            match property {
                Property::SessionExpiry(seconds) => self.session_expiry = Some(seconds),
                Property::ReceiveMaximum(count) => self.receive_maximum = Some(count),
                Property::MaximumQoS(qos) => self.maximum_qos = Some(qos),
                Property::RetainAvailable(is) => self.retain_available = Some(is),
                Property::MaximumPacketSize(bytes) => self.maximum_packet_size = Some(bytes),
                Property::AssignedClientId(name) => self.assigned_client_id = Some(name),
                Property::TopicAliasMaximum(alias) => self.topic_alias_maximum = Some(alias),
                Property::ReasonString(text) => self.reason_string = Some(text),
                Property::WildcardAvailable(is) => self.wildcard_available = Some(is),
                Property::SubscriptionIdsAvailable(is) => self.subscription_ids_available = Some(is),
                Property::SharedAvailable(is) => self.shared_available = Some(is),
                Property::ServerKeepAlive(seconds) => self.server_keep_alive = Some(seconds),
                Property::ResponseInformation(text) => self.response_information = Some(text),
                Property::ServerReference(name) => self.server_reference = Some(name),
                Property::AuthenticationMethod(method) => self.authentication_method = Some(method),
                Property::AuthenticationData(data) => self.authentication_data = Some(data),
                Property::User(..) => {}
                other => return Err(other.refused(context.packet.name())),
            }
        }
        self.user_properties = UserProperties::of_block(block, reader.user_count());
        Ok(())
    }

    /// The acknowledge flags byte.
    pub(crate) fn flags(&self) -> u8 {
        // [MQTT-3.2.2-4], [MQTT5-3.2.2-6]: with a failure there is no session.
        if self.session_present && self.code == reason::SUCCESS { SESSION_PRESENT } else { 0 }
    }
}

fn check_code(context: Context<'_>, code: u8) -> Result<(), DecodeError> {
    if context.is_v5() {
        return reason::check(context.packet, context.limits.sender, code);
    }
    if code > reason::V311_NOT_AUTHORIZED {
        // Table 3.1 of 3.1.1: the others are reserved.
        return Err(DecodeError::BadReason { packet: PacketType::ConnAck, value: code });
    }
    Ok(())
}
