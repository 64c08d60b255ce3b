//! Connection strings: `Endpoint=https://host;Port=8888;AccessKey=…;Version=1.0;`.
//!
//! Operators paste them into backends and function apps; we write them, and read those of the settings.
//! Names have no case, unknown ones are ignored. A value reaches to the next `;` and may contain `=`.

use std::fmt;

use thiserror::Error;

use crate::limits::CONNECTION_STRING_BYTES_MAX;

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
    /// An endpoint isn't `http://host` or `https://host`.
    #[error("{name} of the connection string is not an http or https url of a host")]
    BadEndpoint {
        /// Which.
        name: &'static str,
    },
    /// Not a number from 1 to 65535.
    #[error("port of the connection string is not a port")]
    BadPort,
    /// Not `1.x`.
    #[error("version of the connection string is not 1.x")]
    BadVersion,
}

/// A connection string. Its [`Display`](fmt::Display) is the string, secrets included; its `Debug` hides them.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    /// `Endpoint`: scheme and host, without a slash at the end.
    pub endpoint: String,
    /// `Port`, if it isn't in the endpoint or the scheme's own.
    pub port: Option<u16>,
    /// `AccessKey`. Only absent when `auth_type` says another way.
    pub access_key: Option<String>,
    /// `Version`: `1.0` unless it says so.
    pub version: String,
    /// `ClientEndpoint`: where clients go, if elsewhere.
    pub client_endpoint: Option<String>,
    /// `ServerEndpoint`: where app servers go, if elsewhere.
    pub server_endpoint: Option<String>,
    /// `AuthType`: an identity instead of the key.
    pub auth_type: Option<String>,
    /// `ClientId` of that identity.
    pub client_id: Option<String>,
    /// `ClientSecret` of that identity.
    pub client_secret: Option<String>,
    /// `ClientCert`: the path of that identity's certificate.
    pub client_cert: Option<String>,
    /// `TenantId` of that identity.
    pub tenant_id: Option<String>,
}

impl ConnectionString {
    /// A string with a key, as we hand it out.
    pub fn new(endpoint: &str, port: Option<u16>, access_key: &str) -> ConnectionString {
        ConnectionString {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            port,
            access_key: Some(access_key.to_owned()),
            version: "1.0".to_owned(),
            client_endpoint: None,
            server_endpoint: None,
            auth_type: None,
            client_id: None,
            client_secret: None,
            client_cert: None,
            tenant_id: None,
        }
    }

    /// Reads a connection string.
    pub fn parse(text: &str) -> Result<ConnectionString, ConnectionStringError> {
        let (bytes, limit) = (text.len(), CONNECTION_STRING_BYTES_MAX);
        if bytes > limit {
            return Err(ConnectionStringError::TooLong { bytes, limit });
        }
        let mut parts = Parts::default();
        for (index, part) in text.trim().split(';').enumerate().filter(|(_, part)| !part.trim().is_empty()) {
            let (name, value) = part.split_once('=').ok_or(ConnectionStringError::BadPart { index })?;
            parts.put(name.trim(), value.trim())?;
        }
        parts.finish()
    }

    /// The URL of the service, with its port: what audiences begin with.
    pub fn origin(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.endpoint),
            None => self.endpoint.clone(),
        }
    }

    /// The URL that clients go to.
    pub fn client_origin(&self) -> String {
        self.client_endpoint.clone().unwrap_or_else(|| self.origin())
    }

    /// Names and values in the order in which Azure prints them; only those that are there.
    fn parts(&self) -> impl Iterator<Item = (&'static str, String)> {
        let values = [
            Some(self.endpoint.clone()),
            self.port.map(|port| port.to_string()),
            self.access_key.clone(),
            self.client_endpoint.clone(),
            self.server_endpoint.clone(),
            self.auth_type.clone(),
            self.client_id.clone(),
            self.client_secret.clone(),
            self.client_cert.clone(),
            self.tenant_id.clone(),
            Some(self.version.clone()),
        ];
        NAMES.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?)))
    }
}

impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().try_for_each(|(name, value)| write!(f, "{name}={value};"))
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_map();
        for (name, value) in self.parts() {
            let is_secret = matches!(name, "AccessKey" | "ClientSecret");
            shown.entry(&name, if is_secret { &".." } else { &value });
        }
        shown.finish()
    }
}

const NAMES: [&str; 11] = [
    "Endpoint",
    "Port",
    "AccessKey",
    "ClientEndpoint",
    "ServerEndpoint",
    "AuthType",
    "ClientId",
    "ClientSecret",
    "ClientCert",
    "TenantId",
    "Version",
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
        let values = self.0.map(|value| value.filter(|value| !value.is_empty()));
        let [endpoint, port, access_key, client, server, auth_type, rest @ ..] = values;
        let [client_id, client_secret, client_cert, tenant_id, version] = rest.map(owned);
        let endpoint = endpoint.ok_or(ConnectionStringError::Missing { name: "Endpoint" })?;
        if access_key.is_none() && auth_type.is_none() {
            return Err(ConnectionStringError::Missing { name: "AccessKey" });
        }
        Ok(ConnectionString {
            endpoint: check_endpoint("Endpoint", endpoint)?,
            port: port.map(check_port).transpose()?,
            access_key: owned(access_key),
            version: check_version(version)?,
            client_endpoint: client.map(|url| check_endpoint("ClientEndpoint", url)).transpose()?,
            server_endpoint: server.map(|url| check_endpoint("ServerEndpoint", url)).transpose()?,
            auth_type: owned(auth_type),
            client_id,
            client_secret,
            client_cert,
            tenant_id,
        })
    }
}

fn owned(value: Option<&str>) -> Option<String> {
    value.map(str::to_owned)
}

fn check_endpoint(name: &'static str, url: &str) -> Result<String, ConnectionStringError> {
    let url = url.trim_end_matches('/');
    let host = ["https://", "http://"].into_iter().find_map(|scheme| {
        let start = url.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &url[scheme.len()..])
    });
    let is_host = |host: &&str| !host.is_empty() && !host.contains(['?', '#', '@', ' ']);
    match host.filter(is_host) {
        Some(_) => Ok(url.to_owned()),
        None => Err(ConnectionStringError::BadEndpoint { name }),
    }
}

fn check_port(text: &str) -> Result<u16, ConnectionStringError> {
    text.parse().ok().filter(|port| *port > 0).ok_or(ConnectionStringError::BadPort)
}

fn check_version(version: Option<String>) -> Result<String, ConnectionStringError> {
    let version = version.unwrap_or_else(|| "1.0".to_owned());
    let minor = version.strip_prefix("1.").unwrap_or_default();
    let is_minor = !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_minor { Ok(version) } else { Err(ConnectionStringError::BadVersion) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_kinds_survive() {
        for text in [
            "Endpoint=http://localhost;Port=8888;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH;Version=1.0;",
            "Endpoint=https://h.example;AccessKey=a=b==;ClientEndpoint=https://c;ServerEndpoint=https://s;Version=1.5;",
            "Endpoint=https://h;AuthType=azure.app;ClientId=i;ClientSecret=s;TenantId=t;Version=1.0;",
        ] {
            assert_eq!(ConnectionString::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn tolerates_case_spaces_and_unknown_names() {
        let text = " accesskey = k ; ENDPOINT=HTTPS://Host/;Foo=1;;Version=1.0-preview";
        assert_eq!(ConnectionString::parse(text), Err(ConnectionStringError::BadVersion));
        let parsed = ConnectionString::parse(&text.replace("-preview", "")).unwrap();
        assert_eq!(parsed, ConnectionString::new("HTTPS://Host/", None, "k"));
        assert_eq!(parsed.origin(), "HTTPS://Host");
    }

    #[test]
    fn origins() {
        let mut string = ConnectionString::new("http://localhost/", Some(8888), "k");
        assert_eq!(string.origin(), "http://localhost:8888");
        assert_eq!(string.client_origin(), "http://localhost:8888");
        string.client_endpoint = Some("https://front".to_owned());
        assert_eq!(string.client_origin(), "https://front");
    }

    #[test]
    fn refuses_what_is_none() {
        let endpoint = ConnectionStringError::BadEndpoint { name: "Endpoint" };
        for (text, error) in [
            ("", ConnectionStringError::Missing { name: "Endpoint" }),
            ("Endpoint=https://h", ConnectionStringError::Missing { name: "AccessKey" }),
            ("Endpoint=https://h;AccessKey=;", ConnectionStringError::Missing { name: "AccessKey" }),
            ("Endpoint=https://h;AccessKey", ConnectionStringError::BadPart { index: 1 }),
            ("Endpoint=https://h;endpoint=i", ConnectionStringError::Duplicate { name: "Endpoint" }),
            ("Endpoint=h;AccessKey=k", endpoint),
            ("Endpoint=https://;AccessKey=k", endpoint),
            ("Endpoint=ftp://h;AccessKey=k", endpoint),
            ("Endpoint=https://h;AccessKey=k;Port=0", ConnectionStringError::BadPort),
            ("Endpoint=https://h;AccessKey=k;Port=65536", ConnectionStringError::BadPort),
            ("Endpoint=https://h;AccessKey=k;Version=2.0", ConnectionStringError::BadVersion),
            ("Endpoint=https://h;AccessKey=k;Version=1", ConnectionStringError::BadVersion),
        ] {
            assert_eq!(ConnectionString::parse(text), Err(error), "{text}");
        }
        let long = format!("Endpoint=https://{}", "h".repeat(5_000));
        assert!(matches!(ConnectionString::parse(&long), Err(ConnectionStringError::TooLong { .. })));
    }

    #[test]
    fn debug_hides_secrets() {
        let text = "Endpoint=https://h;AccessKey=geheim;ClientSecret=verborgen";
        let shown = format!("{:?}", ConnectionString::parse(text).unwrap());
        assert!(shown.contains("\"Endpoint\": \"https://h\""), "{shown}");
        assert!(!shown.contains("geheim") && !shown.contains("verborgen"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = ConnectionString::parse(&text);
            let _ = ConnectionString::parse(&format!("Endpoint=https://h;AccessKey={text}"));
        }

        #[test]
        fn what_is_read_survives(endpoint in "https?://[a-z.]{1,9}(:[0-9]{1,4})?", key in "[!-:<-~]{1,44}") {
            let string = ConnectionString::new(&endpoint, Some(8888), &key);
            prop_assert_eq!(ConnectionString::parse(&string.to_string()), Ok(string));
        }
    }
}
