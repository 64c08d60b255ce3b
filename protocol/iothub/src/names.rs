//! Names of devices, modules, messages and methods, and the identity that a connection speaks for.
//!
//! Every front end checks a name here before it goes anywhere else. Ids are case-sensitive and never
//! percent-decoded. An [`Identity`] borrows (hot path), an [`IdentityBuf`] owns (keys of maps).
//!
//! Not here: whether such a device exists (`broker/devices`).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::limits;
use crate::percent::is_unreserved;

/// A name doesn't have the form of its kind. `what` is the kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing there.
    #[error("{what} is empty")]
    Empty {
        /// The kind of name.
        what: &'static str,
    },
    /// Too long.
    #[error("{what} has {count} characters, at most {limit} are allowed")]
    TooLong {
        /// The kind of name.
        what: &'static str,
        /// What came.
        count: usize,
        /// The bound.
        limit: usize,
    },
    /// A character that the kind of name doesn't have.
    #[error("{what} contains {found:?}, which is not allowed there")]
    BadCharacter {
        /// The kind of name.
        what: &'static str,
        /// The first such character.
        found: char,
    },
}

/// Checks a device id: 1 to 128 ASCII letters, digits and `- : . + % _ # * ? ! ( ) , = @ ; $ '`.
pub fn check_device_id(id: &str) -> Result<(), NameError> {
    check(id, "device id", limits::ID_CHARS_MAX, is_id_character)
}

/// Checks a module id; the rules are those of device ids.
pub fn check_module_id(id: &str) -> Result<(), NameError> {
    check(id, "module id", limits::ID_CHARS_MAX, is_id_character)
}

/// Checks a message id or correlation id; the rules are those of device ids.
pub fn check_message_id(id: &str) -> Result<(), NameError> {
    check(id, "message id", limits::MESSAGE_ID_CHARS_MAX, is_id_character)
}

/// Checks a method's name: unreserved characters only, because of the SDKs only one decodes percent
/// escapes in the topic and the others compare the raw text.
pub fn check_method_name(name: &str) -> Result<(), NameError> {
    check(name, "method name", limits::METHOD_NAME_CHARS_MAX, is_unreserved)
}

fn check(name: &str, what: &'static str, limit: usize, allowed: fn(u8) -> bool) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    // Bytes first: counting characters of a hostile text would cost its whole length.
    if name.len() > limit {
        return Err(NameError::TooLong { what, count: name.chars().count(), limit });
    }
    match name.chars().find(|&c| !u8::try_from(c).is_ok_and(|byte| byte.is_ascii() && allowed(byte))) {
        Some(found) => Err(NameError::BadCharacter { what, found }),
        None => Ok(()),
    }
}

fn is_id_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-:.+%_#*?!(),=@;$'".contains(&byte)
}

/// Who a connection speaks for: a device, or one of its modules. Borrowed.
///
/// [`Identity::parse`] checks both ids; an `Identity` made from its fields is as good as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity<'a> {
    /// The device's id.
    pub device: &'a str,
    /// The module's id, when it is a module that speaks.
    pub module: Option<&'a str>,
}

impl<'a> Identity<'a> {
    /// A device itself.
    pub fn of_device(device: &'a str) -> Identity<'a> {
        Identity { device, module: None }
    }

    /// A module of a device.
    pub fn of_module(device: &'a str, module: &'a str) -> Identity<'a> {
        Identity { device, module: Some(module) }
    }

    /// Reads `{device}` or `{device}/{module}`, the form of an MQTT client id. No id contains a `/`.
    pub fn parse(client_id: &'a str) -> Result<Identity<'a>, NameError> {
        let (device, module) = match client_id.split_once('/') {
            Some((device, module)) => (device, Some(module)),
            None => (client_id, None),
        };
        check_device_id(device)?;
        if let Some(module) = module {
            check_module_id(module)?;
        }
        Ok(Identity { device, module })
    }

    /// The same, owned.
    pub fn to_buf(self) -> IdentityBuf {
        IdentityBuf { device: self.device.to_owned(), module: self.module.map(str::to_owned) }
    }
}

impl fmt::Display for Identity<'_> {
    /// The client id: `d` or `d/m`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.device)?;
        match self.module {
            Some(module) => write!(f, "/{module}"),
            None => Ok(()),
        }
    }
}

/// An [`Identity`] that owns its ids. Ordered like them: a device comes before its modules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityBuf {
    /// The device's id.
    pub device: String,
    /// The module's id, when it is a module.
    pub module: Option<String>,
}

impl IdentityBuf {
    /// Borrows.
    pub fn as_identity(&self) -> Identity<'_> {
        Identity { device: &self.device, module: self.module.as_deref() }
    }
}

impl fmt::Display for IdentityBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_identity().fmt(f)
    }
}

impl FromStr for IdentityBuf {
    type Err = NameError;

    /// As [`Identity::parse`].
    fn from_str(client_id: &str) -> Result<IdentityBuf, NameError> {
        Identity::parse(client_id).map(Identity::to_buf)
    }
}

impl From<Identity<'_>> for IdentityBuf {
    fn from(identity: Identity<'_>) -> IdentityBuf {
        identity.to_buf()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_a_fixed_alphabet_and_length() {
        for id in ["a", "A-:.+%_#*?!(),=@;$'9", "$edgeAgent", "a%2Fb", &"x".repeat(128)] {
            assert_eq!(check_device_id(id), Ok(()), "{id}");
            assert_eq!(check_module_id(id), Ok(()), "{id}");
            assert_eq!(check_message_id(id), Ok(()), "{id}");
        }
        assert_eq!(check_device_id(""), Err(NameError::Empty { what: "device id" }));
        for (id, found) in [("a/b", '/'), ("a b", ' '), ("é", 'é'), ("a&b", '&'), ("a\0", '\0'), ("~", '~')]
        {
            assert_eq!(check_device_id(id), Err(NameError::BadCharacter { what: "device id", found }));
        }
        let long = NameError::TooLong { what: "module id", count: 129, limit: 128 };
        assert_eq!(check_module_id(&"x".repeat(129)), Err(long));
    }

    #[test]
    fn method_names_are_unreserved() {
        assert_eq!(check_method_name("reboot-Now_1.0~a"), Ok(()));
        for name in ["", "a b", "a/b", "a%20", "a#", "ü", &"m".repeat(129)] {
            assert!(check_method_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn identities_are_client_ids() {
        let device: IdentityBuf = "d1".parse().unwrap();
        let module: IdentityBuf = "d1/m1".parse().unwrap();
        assert_eq!(device.as_identity(), Identity::of_device("d1"));
        assert_eq!(module.as_identity(), Identity::of_module("d1", "m1"));
        assert_eq!((device.to_string(), module.to_string()), ("d1".into(), "d1/m1".into()));
        assert!(device < module);
        for bad in ["", "/", "d/", "/m", "d/m/x", "d /m"] {
            assert!(bad.parse::<IdentityBuf>().is_err(), "{bad}");
        }
        // An escaped slash is part of the id, it doesn't make a module.
        assert_eq!(Identity::parse("d%2Fm").unwrap(), Identity::of_device("d%2Fm"));
    }
}
