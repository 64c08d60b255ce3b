//! Small values that several packets share.

use std::num::NonZeroU16;

use crate::DecodeError;

/// The version of the protocol that a connection speaks, fixed by its CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5, protocol version 5.
    V5,
}

impl Version {
    /// The protocol level byte of CONNECT.
    pub fn level(self) -> u8 {
        match self {
            Version::V311 => 4,
            Version::V5 => 5,
        }
    }

    /// The version with this protocol level, if it is spoken here.
    pub fn from_level(level: u8) -> Option<Version> {
        match level {
            4 => Some(Version::V311),
            5 => Some(Version::V5),
            _ => None,
        }
    }
}

/// Ties a packet to its acknowledgements; never zero (`[MQTT-2.3.1-1]`, `[MQTT5-2.2.1-3]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// An id, unless `value` is zero.
    pub fn new(value: u16) -> Option<PacketId> {
        NonZeroU16::new(value).map(PacketId)
    }

    /// The number on the wire.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

/// Quality of service: how often a message may arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// Not acknowledged; may be lost.
    #[default]
    AtMostOnce = 0,
    /// Acknowledged with PUBACK; may arrive twice.
    AtLeastOnce = 1,
    /// Acknowledged in four steps; arrives once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS of two bits; `what` names the field for the error.
    ///
    /// [MQTT-3.3.1-4], [MQTT-3.1.2-14], [MQTT5-3.3.1-4], [MQTT5-3.1.2-12]: 3 is not a QoS.
    pub(crate) fn from_bits(what: &'static str, bits: u8) -> Result<QoS, DecodeError> {
        match bits & 0b11 {
            0 => Ok(QoS::AtMostOnce),
            1 => Ok(QoS::AtLeastOnce),
            2 => Ok(QoS::ExactlyOnce),
            value => Err(DecodeError::BadQoS { what, value }),
        }
    }

    /// The number on the wire.
    pub fn bits(self) -> u8 {
        self as u8
    }
}
