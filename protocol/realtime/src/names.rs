//! Names of hubs, groups, users and connections, and which are good ones.

use std::fmt;

use thiserror::Error;

use crate::limits::{CONNECTION_CHARS_MAX, GROUP_CHARS_MAX, HUB_CHARS_MAX, USER_CHARS_MAX};

/// A name that can't be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Not a letter followed by letters, digits and underscores, or too long.
    #[error("the hub's name is not a letter followed by letters, digits and underscores")]
    Hub,
    /// As for a hub.
    #[error("the application's name is not a letter followed by letters, digits and underscores")]
    Application,
    /// Empty, too long, or with white space.
    #[error("the group's name is empty, too long or has white space")]
    Group,
    /// Empty or too long.
    #[error("the user's id is empty or too long")]
    User,
    /// Empty or too long.
    #[error("the connection's id is empty or too long")]
    Connection,
}

/// A hub, perhaps of an application: `{application}_{hub}`. In small letters, since hubs have no case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HubName(String);

impl HubName {
    /// Reads a name, as it stands in a client's query or in a path.
    pub fn parse(text: &str) -> Result<HubName, NameError> {
        if is_hub(text) { Ok(HubName(text.to_ascii_lowercase())) } else { Err(NameError::Hub) }
    }

    /// The hub of an application.
    pub fn of_application(application: &str, hub: &str) -> Result<HubName, NameError> {
        if !is_hub(application) {
            return Err(NameError::Application);
        }
        let HubName(hub) = HubName::parse(hub)?;
        HubName::parse(&format!("{application}_{hub}"))
    }

    /// The name in small letters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The rule of the documents, and the few more characters that the public emulator lets through.
fn is_hub(text: &str) -> bool {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '`' | ',' | '.' | '[' | ']');
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic());
    starts && text.len() <= HUB_CHARS_MAX && text.chars().all(is_good)
}

/// Checks a group's name.
pub fn check_group(text: &str) -> Result<(), NameError> {
    let is_good = !text.is_empty() && text.chars().count() <= GROUP_CHARS_MAX;
    if is_good && !text.contains(char::is_whitespace) { Ok(()) } else { Err(NameError::Group) }
}

/// Checks a user's id.
pub fn check_user(text: &str) -> Result<(), NameError> {
    let is_good = !text.is_empty() && text.chars().count() <= USER_CHARS_MAX;
    if is_good { Ok(()) } else { Err(NameError::User) }
}

/// Checks a connection's id. It need not be one of ours: an unknown one is answered as such.
pub fn check_connection(text: &str) -> Result<(), NameError> {
    let is_good = !text.is_empty() && text.chars().count() <= CONNECTION_CHARS_MAX;
    if is_good { Ok(()) } else { Err(NameError::Connection) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hubs() {
        for good in ["a", "Chat", "chat_2", "x`,.[]", &"h".repeat(128)] {
            assert_eq!(HubName::parse(good).unwrap().as_str(), good.to_lowercase());
        }
        for bad in ["", "1chat", "_a", "a-b", "a b", "chät", "a/b", &"h".repeat(129)] {
            assert_eq!(HubName::parse(bad), Err(NameError::Hub), "{bad}");
        }
        assert_eq!(HubName::of_application("App", "Chat").unwrap().as_str(), "app_chat");
        assert_eq!(HubName::of_application("1", "chat"), Err(NameError::Application));
        assert_eq!(HubName::of_application("app", "1"), Err(NameError::Hub));
    }

    #[test]
    fn others() {
        assert_eq!(check_group(&"é".repeat(1_024)), Ok(()));
        for bad in ["", " ", "a b", "a\tb", &"g".repeat(1_025)] {
            assert_eq!(check_group(bad), Err(NameError::Group), "{bad}");
        }
        assert_eq!(check_user("a b"), Ok(()));
        assert_eq!(check_user(""), Err(NameError::User));
        assert_eq!(check_user(&"u".repeat(1_025)), Err(NameError::User));
        assert_eq!(check_connection("x"), Ok(()));
        assert_eq!(check_connection(&"c".repeat(129)), Err(NameError::Connection));
    }
}
