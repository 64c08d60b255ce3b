//! Connection strings: `HostName=...;DeviceId=...;SharedAccessKey=...`.
//!
//! The command line and the registry's front end write them for operators, who paste them into an SDK;
//! our own client reads them. Names are matched without regard to case, unknown names are ignored, as
//! the SDKs do. A value reaches to the next `;` and may contain `=` (Base64 does).
//!
//! Not here: whether the key is good, or belongs to that device.

use std::fmt;

use thiserror::Error;

use crate::limits;

/// A text that isn't a connection string. Says nothing of the values: one of them is a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConnectionStringError {
    /// Longer than any real one.
    #[error("connection string has {bytes} bytes, at most {limit} are allowed")]
    TooLong {
        /// What came.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// A part between two `;` isn't `name=value`.
    #[error("part {index} of the connection string is not name=value")]
    BadPart {
        /// Its place, from 0.
        index: usize,
    },
    /// A name stands there twice.
    #[error("connection string has {name} twice")]
    Duplicate {
        /// Which.
        name: &'static str,
    },
    /// A name that must be there isn't, or its value is empty.
    #[error("connection string has no {name}")]
    Missing {
        /// Which.
        name: &'static str,
    },
    /// `x509` is neither true nor false.
    #[error("x509 of the connection string is neither true nor false")]
    BadX509,
}

/// A connection string of a device, a module or a service. Its [`Display`](fmt::Display) is the string,
/// secrets included; its `Debug` hides them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConnectionString {
    /// `HostName`: the hub, perhaps with a port. Never empty.
    pub host_name: String,
    /// `DeviceId`; `None` for a service.
    pub device_id: Option<String>,
    /// `ModuleId`.
    pub module_id: Option<String>,
    /// `SharedAccessKeyName`: the policy of a service.
    pub shared_access_key_name: Option<String>,
    /// `SharedAccessKey`: Base64.
    pub shared_access_key: Option<String>,
    /// `SharedAccessSignature`: a token instead of the key.
    pub shared_access_signature: Option<String>,
    /// `x509`: a client certificate instead of both.
    pub x509: bool,
    /// `GatewayHostName`: whom to connect to instead of the hub.
    pub gateway_host_name: Option<String>,
}

impl ConnectionString {
    /// Reads a connection string. `HostName` has to be there; empty values count as missing.
    pub fn parse(text: &str) -> Result<ConnectionString, ConnectionStringError> {
        let limit = limits::CONNECTION_STRING_BYTES_MAX;
        if text.len() > limit {
            return Err(ConnectionStringError::TooLong { bytes: text.len(), limit });
        }
        let mut parts = Parts::default();
        for (index, part) in text.trim().split(';').enumerate().filter(|(_, part)| !part.trim().is_empty()) {
            let (name, value) = part.split_once('=').ok_or(ConnectionStringError::BadPart { index })?;
            parts.put(name.trim(), value.trim())?;
        }
        parts.finish()
    }

    /// Names and values in the order in which Azure prints them; only those that are there.
    fn parts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let values = [
            Some(self.host_name.as_str()),
            self.device_id.as_deref(),
            self.module_id.as_deref(),
            self.shared_access_key_name.as_deref(),
            self.shared_access_key.as_deref(),
            self.shared_access_signature.as_deref(),
            self.x509.then_some("true"),
            self.gateway_host_name.as_deref(),
        ];
        NAMES.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?)))
    }
}

impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.parts().enumerate() {
            let separator = if index == 0 { "" } else { ";" };
            write!(f, "{separator}{name}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_map();
        for (name, value) in self.parts() {
            let is_secret = matches!(name, "SharedAccessKey" | "SharedAccessSignature");
            shown.entry(&name, if is_secret { &".." } else { &value });
        }
        shown.finish()
    }
}

const NAMES: [&str; 8] = [
    "HostName",
    "DeviceId",
    "ModuleId",
    "SharedAccessKeyName",
    "SharedAccessKey",
    "SharedAccessSignature",
    "x509",
    "GatewayHostName",
];

/// Values as they stand in the text, in the order of [`NAMES`].
#[derive(Default)]
struct Parts<'a>([Option<&'a str>; NAMES.len()]);

impl<'a> Parts<'a> {
    fn put(&mut self, name: &str, value: &'a str) -> Result<(), ConnectionStringError> {
        let Some(index) = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)) else {
            return Ok(());
        };
        match self.0[index].replace(value) {
            Some(_) => Err(ConnectionStringError::Duplicate { name: NAMES[index] }),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<ConnectionString, ConnectionStringError> {
        let owned = self.0.map(|value| value.filter(|value| !value.is_empty()).map(str::to_owned));
        let [host, device_id, module_id, key_name, key, signature, x509, gateway_host_name] = owned;
        Ok(ConnectionString {
            host_name: host.ok_or(ConnectionStringError::Missing { name: "HostName" })?,
            device_id,
            module_id,
            shared_access_key_name: key_name,
            shared_access_key: key,
            shared_access_signature: signature,
            x509: parse_bool(x509.as_deref().unwrap_or("false"))?,
            gateway_host_name,
        })
    }
}

fn parse_bool(text: &str) -> Result<bool, ConnectionStringError> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Ok(true),
        _ if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(ConnectionStringError::BadX509),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_kinds_survive() {
        for text in [
            "HostName=h.example;DeviceId=d;SharedAccessKey=AAE=",
            "HostName=h.example:8883;DeviceId=d;ModuleId=m;SharedAccessKey=AA==;GatewayHostName=g",
            "HostName=h;SharedAccessKeyName=iothubowner;SharedAccessKey=AA==",
            "HostName=h;DeviceId=d;x509=true",
            "HostName=h;DeviceId=d;SharedAccessSignature=SharedAccessSignature sr=h&sig=AA%3D&se=1",
        ] {
            assert_eq!(ConnectionString::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn tolerates_case_spaces_and_unknown_names() {
        let text = " hostname = h ; DEVICEID=d;X509=True;ProtocolVersion=1;ModuleId=;; ";
        let parsed = ConnectionString::parse(text).unwrap();
        assert_eq!(parsed.to_string(), "HostName=h;DeviceId=d;x509=true");
        assert_eq!(parsed.module_id, None);
    }

    #[test]
    fn refuses_what_is_none() {
        for (text, error) in [
            ("", ConnectionStringError::Missing { name: "HostName" }),
            ("HostName=;DeviceId=d", ConnectionStringError::Missing { name: "HostName" }),
            ("HostName=h;DeviceId", ConnectionStringError::BadPart { index: 1 }),
            ("HostName=h;hostname=i", ConnectionStringError::Duplicate { name: "HostName" }),
            ("HostName=h;x509=maybe", ConnectionStringError::BadX509),
        ] {
            assert_eq!(ConnectionString::parse(text), Err(error), "{text}");
        }
        let long = format!("HostName={}", "h".repeat(5_000));
        assert!(matches!(ConnectionString::parse(&long), Err(ConnectionStringError::TooLong { .. })));
    }

    #[test]
    fn debug_hides_secrets() {
        let text = "HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0;SharedAccessSignature=token";
        let shown = format!("{:?}", ConnectionString::parse(text).unwrap());
        assert!(shown.contains("\"DeviceId\": \"d\""), "{shown}");
        assert!(!shown.contains("c2VjcmV0") && !shown.contains("token"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            if let Ok(parsed) = ConnectionString::parse(&text) {
                prop_assert_eq!(ConnectionString::parse(&parsed.to_string()), Ok(parsed));
            }
        }
    }
}
