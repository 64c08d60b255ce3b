//! What an MQTT CONNECT says about its sender: client id and user name, taken apart.
//!
//! ```text
//! client id   {device} | {device}/{module}
//! user name   {host}[:port]/{client id}/[?]{key}={value}&...
//! ```
//!
//! The MQTT front end calls [`parse`] before it looks at the password. Tolerant where SDKs differ: the
//! `?` may be missing (the form of 2016), the query too; of a repeated key the first counts; values may
//! be unescaped (Node's `model-id`); other keys are ignored.
//!
//! Not here: whether the host is ours, whether the version is supported, the password ([`crate::sas`]).

use std::borrow::Cow;

use thiserror::Error;

use crate::limits;
use crate::names::{Identity, NameError};
use crate::percent;
use crate::sas::strip_port;

/// A client id and user name that don't make a login.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoginError {
    /// The client id is no identity.
    #[error("client id: {0}")]
    BadClientId(#[from] NameError),
    /// The user name is longer than anything an SDK sends.
    #[error("user name has {bytes} bytes, at most {limit} are allowed")]
    TooLong {
        /// What came.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The user name doesn't begin with a host name and a `/`.
    #[error("user name does not begin with a host name")]
    MissingHost,
    /// The user name speaks of another identity than the client id.
    #[error("user name and client id name different identities")]
    OtherIdentity,
}

/// A login. Borrows from the packet unless a value is escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login<'a> {
    /// The host name that the client believes to talk to, without port, in the client's spelling.
    pub host: &'a str,
    /// Who the client says it is.
    pub identity: Identity<'a>,
    /// `api-version`.
    pub api_version: Option<Cow<'a, str>>,
    /// `DeviceClientType`: the SDK and its version.
    pub client_type: Option<Cow<'a, str>>,
    /// `model-id`: the DTDL model that the device implements.
    pub model_id: Option<Cow<'a, str>>,
}

/// Takes client id and user name of a CONNECT apart.
pub fn parse<'a>(client_id: &'a str, username: &'a str) -> Result<Login<'a>, LoginError> {
    if username.len() > limits::USER_NAME_BYTES_MAX {
        return Err(LoginError::TooLong { bytes: username.len(), limit: limits::USER_NAME_BYTES_MAX });
    }
    let identity = Identity::parse(client_id)?;
    let (authority, rest) = username.split_once('/').ok_or(LoginError::MissingHost)?;
    let host = strip_port(authority);
    if host.is_empty() {
        return Err(LoginError::MissingHost);
    }
    let query = query_of(rest, client_id).ok_or(LoginError::OtherIdentity)?;
    let mut login = Login { host, identity, api_version: None, client_type: None, model_id: None };
    read_query(query, &mut login);
    Ok(login)
}

/// What follows the client id; `None` when it isn't this client id that stands there.
fn query_of<'a>(rest: &'a str, client_id: &str) -> Option<&'a str> {
    let after = rest.strip_prefix(client_id)?;
    let Some(tail) = after.strip_prefix('/') else { return after.is_empty().then_some("") };
    if let Some(query) = tail.strip_prefix('?') {
        return Some(query);
    }
    // Without a `?`, a further segment might be a module's id: the user name of `d/m` must not do for `d`.
    let first_key = tail.split(['=', '&']).next().unwrap_or(tail);
    let is_query = tail.is_empty() || (first_key.len() < tail.len() && !first_key.contains('/'));
    is_query.then_some(tail)
}

fn read_query<'a>(query: &'a str, login: &mut Login<'a>) {
    for pair in query.split('&') {
        let Some((key, value)) = pair.split_once('=') else { continue };
        let slot = match key {
            "api-version" => &mut login.api_version,
            "DeviceClientType" => &mut login.client_type,
            "model-id" => &mut login.model_id,
            _ => continue,
        };
        if slot.is_none() {
            *slot = Some(decode_or_keep(value));
        }
    }
}

/// A value with a broken escape wasn't escaped at all: Node sends its model id like that.
fn decode_or_keep(value: &str) -> Cow<'_, str> {
    percent::decode(value).unwrap_or(Cow::Borrowed(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(client_id: &str, username: &str, host: &str, query: [Option<&str>; 3]) {
        let login = parse(client_id, username).unwrap();
        assert_eq!((login.host, login.identity.to_string()), (host, client_id.to_owned()), "{username}");
        let found = [login.api_version, login.client_type, login.model_id];
        assert_eq!(found.each_ref().map(|value| value.as_deref()), query, "{username}");
    }

    #[test]
    fn logins_of_the_sdks() {
        let version = Some("2019-10-01");
        // Python, device and module.
        let python = "py-iot%2F2.14.0%20%28Linux%29";
        let name = format!("h.example/d/?api-version=2019-10-01&DeviceClientType={python}");
        check("d", &name, "h.example", [version, Some("py-iot/2.14.0 (Linux)"), None]);
        check("d/m", "h/d/m/?api-version=2019-10-01", "h", [version, None, None]);
        // Node: port kept, model id raw and first.
        let node =
            "localhost:18883/d/?api-version=2021-04-12&model-id=dtmi:com:example:T;1&DeviceClientType=n";
        let model = Some("dtmi:com:example:T;1");
        check("d", node, "localhost", [Some("2021-04-12"), Some("n"), model]);
        // The others encode the model id.
        let encoded = "h/d/?api-version=2020-09-30&model-id=dtmi%3Acom%3Aexample%3AT%3b1";
        check("d", encoded, "h", [Some("2020-09-30"), None, model]);
        // Without `?`, without query, with keys that nobody knows, with a key twice.
        check("d", "h/d/api-version=2016-11-14", "h", [Some("2016-11-14"), None, None]);
        check("d/m", "h/d/m/api-version=2016-11-14", "h", [Some("2016-11-14"), None, None]);
        for none in ["h/d", "h/d/", "h/d/?", "h/d/?auth-chain=a;b&x&=y&API-VERSION=1"] {
            check("d", none, "h", [None, None, None]);
        }
        check("d", "h/d/?api-version=1&api-version=2", "h", [Some("1"), None, None]);
    }

    #[test]
    fn values_are_decoded_once_and_broken_escapes_kept() {
        check("d", "h/d/?api-version=a%252Fb", "h", [Some("a%2Fb"), None, None]);
        check("d", "h/d/?DeviceClientType=100%&api-version=+", "h", [Some("+"), Some("100%"), None]);
    }

    #[test]
    fn ids_are_never_decoded() {
        check("d%2Fm", "h/d%2Fm/?api-version=1", "h", [Some("1"), None, None]);
        assert_eq!(parse("d/m", "h/d%2Fm/?api-version=1"), Err(LoginError::OtherIdentity));
        assert_eq!(parse("d%2Fm", "h/d/m/?api-version=1"), Err(LoginError::OtherIdentity));
        // `?` is a legal character of an id.
        check("d?a=b", "h/d?a=b/?api-version=1", "h", [Some("1"), None, None]);
    }

    #[test]
    fn refuses_other_identities() {
        for (client_id, username) in [
            ("d", "h/e/?api-version=1"),
            ("d", "h/d2/?api-version=1"),
            ("d", "h/D/?api-version=1"),
            ("d", "h/d/m/?api-version=1"),
            ("d", "h/d/m"),
            ("d", "h/d/m/api-version=1"),
            ("d", "h/d?api-version=1"),
            ("d/m", "h/d/?api-version=1"),
            ("d/m", "h/d/m2/?api-version=1"),
            ("d", "h//d/?api-version=1"),
            ("d", "h/"),
        ] {
            assert_eq!(parse(client_id, username), Err(LoginError::OtherIdentity), "{client_id} {username}");
        }
    }

    #[test]
    fn refuses_what_is_no_login() {
        for username in ["", "h", "/d/?api-version=1", ":8883/d/"] {
            assert_eq!(parse("d", username), Err(LoginError::MissingHost), "{username}");
        }
        assert!(matches!(parse("d/m/x", "h/d/m/x/"), Err(LoginError::BadClientId(_))));
        assert!(matches!(parse("", "h//"), Err(LoginError::BadClientId(_))));
        assert!(matches!(
            parse("d", &format!("h/d/?x={}", "a".repeat(9_000))),
            Err(LoginError::TooLong { .. })
        ));
    }

    proptest! {
        #[test]
        fn no_text_panics(client_id in any::<String>(), username in any::<String>(), tail in any::<String>()) {
            let _ = parse(&client_id, &username);
            let _ = parse("d", &format!("h/d/?{tail}"));
        }
    }
}
