//! Values inside the models: words in any case, moments, and nulls that mean the default.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::{NEVER, format_time, parse_time};

macro_rules! words {
    ($(#[$meta:meta])* $type:ident, $what:literal { $($(#[$word_meta:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type {
            $($(#[$word_meta])* $name,)*
        }

        impl $type {
            /// The word, spelled as Azure does.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($type::$name => $text,)*
                }
            }
        }

        impl FromStr for $type {
            type Err = String;

            /// Reads the word in any case.
            fn from_str(text: &str) -> Result<$type, String> {
                $(
                    if text.eq_ignore_ascii_case($text) {
                        return Ok($type::$name);
                    }
                )*
                Err(concat!("unknown ", $what).to_owned())
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

words! {
    /// Whether a device may connect. A request that doesn't say means that it may.
    #[derive(Default)]
    DeviceStatus, "device status" {
        /// It may.
        #[default]
        Enabled = "enabled",
        /// It may not.
        Disabled = "disabled",
    }
}

words! {
    /// Whether a device is connected.
    #[derive(Default)]
    ConnectionState, "connection state" {
        /// It isn't.
        #[default]
        Disconnected = "Disconnected",
        /// It is.
        Connected = "Connected",
    }
}

words! {
    /// How an identity proves itself.
    AuthenticationType, "authentication type" {
        /// By a symmetric key.
        Sas = "sas",
        /// By a certificate whose thumbprint is registered.
        SelfSigned = "selfSigned",
        /// By a certificate of a registered authority.
        CertificateAuthority = "certificateAuthority",
        /// Not at all: it can't connect by itself.
        None = "none",
    }
}

words! {
    /// What a bulk operation does with an identity.
    ImportMode, "import mode" {
        /// Creates or overwrites it.
        CreateOrUpdate = "createOrUpdate",
        /// Creates it; it must not exist.
        Create = "create",
        /// Overwrites it; it must exist.
        Update = "update",
        /// Overwrites it if the etag matches.
        UpdateIfMatchETag = "updateIfMatchETag",
        /// Creates it, or overwrites it if the etag matches.
        CreateOrUpdateIfMatchETag = "createOrUpdateIfMatchETag",
        /// Deletes it.
        Delete = "delete",
        /// Deletes it if the etag matches.
        DeleteIfMatchETag = "deleteIfMatchETag",
        /// Changes its twin.
        UpdateTwin = "updateTwin",
        /// Changes its twin if the twin's etag matches.
        UpdateTwinIfMatchETag = "updateTwinIfMatchETag",
    }
}

/// A moment in milliseconds since 1970, or never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub Option<u64>);

impl Timestamp {
    /// Not yet; written as `0001-01-01T00:00:00Z`.
    pub const NEVER: Timestamp = Timestamp(None);

    /// A moment.
    pub fn from_ms(ms_since_epoch: u64) -> Timestamp {
        Timestamp(Some(ms_since_epoch))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(ms) => serializer.serialize_str(&format_time(ms)),
            None => serializer.serialize_str(NEVER),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    /// Never fails for a JSON value: all timestamps of the models are the server's to set, so a request
    /// that has a strange one is not wrong.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Ok(Timestamp(serde_json::Value::deserialize(deserializer)?.as_str().and_then(parse_time)))
    }
}

/// Reads null as the default.
pub(super) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads null and the empty string as nothing.
pub(super) fn non_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    Ok(text.filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_any_case_and_written_in_one() {
        // Node capitalises import modes.
        for (text, mode) in [
            ("\"Update\"", ImportMode::Update),
            ("\"UpdateIfMatchETag\"", ImportMode::UpdateIfMatchETag),
            ("\"DELETEIFMATCHETAG\"", ImportMode::DeleteIfMatchETag),
            ("\"createOrUpdate\"", ImportMode::CreateOrUpdate),
        ] {
            assert_eq!(serde_json::from_str::<ImportMode>(text).unwrap(), mode);
            assert!(text.eq_ignore_ascii_case(&serde_json::to_string(&mode).unwrap()));
        }
        assert_eq!("Enabled".parse(), Ok(DeviceStatus::Enabled));
        assert_eq!(DeviceStatus::Disabled.to_string(), "disabled");
        assert_eq!(serde_json::to_string(&ConnectionState::Connected).unwrap(), "\"Connected\"");
        assert_eq!(serde_json::to_string(&AuthenticationType::SelfSigned).unwrap(), "\"selfSigned\"");
        assert_eq!("on".parse::<DeviceStatus>(), Err("unknown device status".to_owned()));
        assert!(serde_json::from_str::<ImportMode>("7").is_err());
    }

    #[test]
    fn timestamps_never_spoil_a_request() {
        for text in ["null", "7", "\"\"", "\"0001-01-01T00:00:00\"", "\"0001-01-01T00:00:00Z\"", "{}"] {
            assert_eq!(serde_json::from_str::<Timestamp>(text).unwrap(), Timestamp::NEVER, "{text}");
        }
        let text = "\"2026-11-24T06:15:38.1230000Z\"";
        let moment: Timestamp = serde_json::from_str(text).unwrap();
        assert_eq!(moment, Timestamp::from_ms(1_795_500_938_123));
        assert_eq!(serde_json::to_string(&moment).unwrap(), text);
        assert_eq!(serde_json::to_string(&Timestamp::NEVER).unwrap(), "\"0001-01-01T00:00:00Z\"");
    }
}
