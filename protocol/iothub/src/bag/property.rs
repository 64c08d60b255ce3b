//! System properties: a stable number each, and what they are called on every wire.
//!
//! Numbers are stored in records. A number is never reused; a retired one stays in the table with the
//! release that retired it. New ones go to the end.
//!
//! `mqtt` is the decoded key of a property bag, `http` the header (any case), `routed` the name that
//! readers of the built-in endpoint see. `None` where that wire doesn't have it.

macro_rules! system_properties {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $mqtt:expr, $http:expr, $routed:expr;)*) => {
        /// A property whose meaning the protocol fixes. The discriminant is its stable number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum SystemProperty {
            $($(#[$doc])* $name = $number,)*
        }

        impl SystemProperty {
            /// All of them, by number.
            pub const ALL: &'static [SystemProperty] = &[$(SystemProperty::$name,)*];

            /// The property of a stored number; `None` when a newer release wrote it.
            pub fn from_number(number: u8) -> Option<SystemProperty> {
                match number {
                    $($number => Some(SystemProperty::$name),)*
                    _ => None,
                }
            }

            /// The decoded key in an MQTT property bag.
            pub fn mqtt_key(self) -> Option<&'static str> {
                match self {
                    $(SystemProperty::$name => $mqtt,)*
                }
            }

            /// The HTTP header, in lower case.
            pub fn http_header(self) -> Option<&'static str> {
                match self {
                    $(SystemProperty::$name => $http,)*
                }
            }

            /// The name that readers of routed messages see.
            pub fn routed_name(self) -> Option<&'static str> {
                match self {
                    $(SystemProperty::$name => $routed,)*
                }
            }
        }
    };
}

system_properties! {
    /// The sender's id of the message.
    MessageId = 1, Some("$.mid"), Some("iothub-messageid"), Some("message-id");
    /// The message that this one answers.
    CorrelationId = 2, Some("$.cid"), Some("iothub-correlationid"), Some("correlation-id");
    /// The user who sent it.
    UserId = 3, Some("$.uid"), Some("iothub-userid"), Some("user-id");
    /// Where it is addressed to.
    To = 4, Some("$.to"), Some("iothub-to"), Some("to");
    /// When it expires.
    Expiry = 5, Some("$.exp"), Some("iothub-expiry"), Some("absolute-expiry-time");
    /// Media type of the body.
    ContentType = 6, Some("$.ct"), Some("iothub-contenttype"), Some("content-type");
    /// Character set of the body.
    ContentEncoding = 7, Some("$.ce"), Some("iothub-contentencoding"), Some("content-encoding");
    /// When the sender made it.
    CreationTime = 8, Some("$.ctime"), Some("iothub-creationtimeutc"), Some("iothub-creation-time-utc");
    /// Schema of the body.
    Schema = 9, Some("$.schema"), Some("iothub-messageschema"), None;
    /// The module's output that it comes from.
    OutputName = 10, Some("$.on"), None, None;
    /// The module's input that it goes to; MQTT has it in the topic.
    InputName = 11, None, None, None;
    /// Component of the device's model.
    Component = 12, Some("$.sub"), Some("dt-subject"), Some("dt-subject");
    /// Interface that the message belongs to, such as security messages.
    InterfaceId = 13, Some("$.ifid"), Some("iothub-interface-id"), Some("iothub-interface-id");
    /// Model of the device; MQTT has it in the user name.
    ModelId = 14, None, None, Some("dt-dataschema");
    /// Which outcomes of a cloud-to-device message its sender wants to hear of.
    Ack = 15, Some("iothub-ack"), Some("iothub-ack"), None;
    /// What kind of operation the message is.
    Operation = 16, Some("iothub-operation"), Some("iothub-operation"), None;
    /// The device that sent it; the server's word.
    ConnectionDeviceId = 17, Some("$.cdid"), None, Some("iothub-connection-device-id");
    /// The module that sent it; the server's word.
    ConnectionModuleId = 18, Some("$.cmid"), None, Some("iothub-connection-module-id");
    /// Id of a distributed trace.
    DiagnosticId = 19, Some("$.diagid"), None, None;
    /// Context of a distributed trace.
    DiagnosticContext = 20, Some("$.diagctx"), None, None;
    /// How the sender proved itself, as JSON; the server's word.
    ConnectionAuthMethod = 21, None, None, Some("iothub-connection-auth-method");
    /// Generation of the sender's identity; the server's word.
    ConnectionGenerationId = 22, None, None, Some("iothub-connection-auth-generation-id");
    /// What part of the hub it comes from; the server's word.
    MessageSource = 23, None, None, Some("iothub-message-source");
    /// When the server took it; the server's word.
    EnqueuedTime = 24, None, Some("iothub-enqueuedtime"), Some("iothub-enqueuedtime");
    /// How often a cloud-to-device message was given back; the server's word.
    DeliveryCount = 25, None, Some("iothub-deliverycount"), None;
    /// Place of a cloud-to-device message in its queue; the server's word.
    SequenceNumber = 26, None, Some("iothub-sequencenumber"), None;
}

impl SystemProperty {
    /// The stable number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The property of a decoded key in an MQTT property bag, compared exactly.
    pub fn from_mqtt_key(key: &str) -> Option<SystemProperty> {
        match key {
            "iothub-ack" => Some(SystemProperty::Ack),
            "iothub-operation" => Some(SystemProperty::Operation),
            _ => SystemProperty::from_mqtt_suffix(key.strip_prefix("$.")?),
        }
    }

    /// The property of what follows the `$.` of a key. A `match`, as every message passes here.
    pub(super) fn from_mqtt_suffix(suffix: &str) -> Option<SystemProperty> {
        Some(match suffix {
            "mid" => SystemProperty::MessageId,
            "cid" => SystemProperty::CorrelationId,
            "uid" => SystemProperty::UserId,
            "to" => SystemProperty::To,
            "exp" => SystemProperty::Expiry,
            "ct" => SystemProperty::ContentType,
            "ce" => SystemProperty::ContentEncoding,
            "ctime" => SystemProperty::CreationTime,
            "schema" => SystemProperty::Schema,
            "on" => SystemProperty::OutputName,
            "sub" => SystemProperty::Component,
            "ifid" => SystemProperty::InterfaceId,
            "cdid" => SystemProperty::ConnectionDeviceId,
            "cmid" => SystemProperty::ConnectionModuleId,
            "diagid" => SystemProperty::DiagnosticId,
            "diagctx" => SystemProperty::DiagnosticContext,
            _ => return None,
        })
    }

    /// The property of an HTTP header, in any case.
    pub fn from_http_header(name: &str) -> Option<SystemProperty> {
        let is_named = |property: &SystemProperty| {
            property.http_header().is_some_and(|header| header.eq_ignore_ascii_case(name))
        };
        SystemProperty::ALL.iter().copied().find(is_named)
    }

    /// Whether only the server may say this. What a device says there is dropped.
    pub fn is_server_stamped(self) -> bool {
        matches!(
            self,
            SystemProperty::ConnectionDeviceId
                | SystemProperty::ConnectionModuleId
                | SystemProperty::ConnectionAuthMethod
                | SystemProperty::ConnectionGenerationId
                | SystemProperty::MessageSource
                | SystemProperty::EnqueuedTime
                | SystemProperty::DeliveryCount
                | SystemProperty::SequenceNumber
        )
    }
}

/// Whether an application property bears the routed name of something that only the server may say.
/// Any case: some readers look properties up without regard to it.
pub fn is_stamped_name(name: &str) -> bool {
    // All of them begin alike; most names of applications end here.
    let begins_alike = name.get(..7).is_some_and(|head| head.eq_ignore_ascii_case("iothub-"));
    let is_named = |property: &SystemProperty| {
        property.is_server_stamped()
            && property.routed_name().is_some_and(|routed| routed.eq_ignore_ascii_case(name))
    };
    begins_alike && SystemProperty::ALL.iter().any(is_named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_never_move() {
        let numbers: Vec<u8> = SystemProperty::ALL.iter().map(|property| property.number()).collect();
        assert_eq!(numbers, (1..=26).collect::<Vec<u8>>());
        for &property in SystemProperty::ALL {
            assert_eq!(SystemProperty::from_number(property.number()), Some(property));
        }
        assert_eq!(SystemProperty::from_number(0), None);
        assert_eq!(SystemProperty::from_number(27), None);
        // Samples of what is stored already.
        assert_eq!(SystemProperty::from_number(6), Some(SystemProperty::ContentType));
        assert_eq!(SystemProperty::from_number(17), Some(SystemProperty::ConnectionDeviceId));
        assert_eq!(SystemProperty::from_number(24), Some(SystemProperty::EnqueuedTime));
    }

    #[test]
    fn every_name_leads_back() {
        for &property in SystemProperty::ALL {
            if let Some(key) = property.mqtt_key() {
                assert_eq!(SystemProperty::from_mqtt_key(key), Some(property), "{key}");
            }
            if let Some(header) = property.http_header() {
                assert_eq!(SystemProperty::from_http_header(header), Some(property), "{header}");
                assert_eq!(header, header.to_ascii_lowercase());
            }
        }
        assert_eq!(SystemProperty::from_http_header("IoTHub-MessageId"), Some(SystemProperty::MessageId));
        for key in ["", "$", "$.", "$.x", "$.MID", "mid", "%24.mid", "iothub-app-x"] {
            assert_eq!(SystemProperty::from_mqtt_key(key), None, "{key}");
        }
    }

    #[test]
    fn stamped_names_are_known_in_any_case() {
        assert!(is_stamped_name("iothub-connection-device-id"));
        assert!(is_stamped_name("IoTHub-EnqueuedTime"));
        for name in ["", "iothub-", "iothub-interface-id", "iothub-MessageType", "éééé", "temperature"] {
            assert!(!is_stamped_name(name), "{name}");
        }
    }
}
