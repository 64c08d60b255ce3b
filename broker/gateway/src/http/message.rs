//! A message as HTTP carries it: properties in headers (or in a batch's JSON), the payload as the body.

use bytes::Bytes;
use fleetline_iothub::bag::{SystemProperty, is_stamped_name};
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::limits::PROPERTIES_MAX;
use fleetline_iothub::names::check_message_id;
use http::HeaderMap;

use super::errors::HttpError;

/// What the names of application properties begin with.
pub(super) const APPLICATION_PREFIX: &str = "iothub-app-";

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// System properties, each once, none that only the hub may say.
    pub(super) system: Vec<(SystemProperty, String)>,
    /// Application properties, each name once.
    pub(super) properties: Vec<(String, String)>,
    /// The payload.
    pub(super) body: Bytes,
}

impl Message {
    /// The message of a request. Headers that have nothing to do with it are passed over.
    pub(super) fn from_headers(headers: &HeaderMap, body: Bytes) -> Result<Message, HttpError> {
        let mut message = Message { body, ..Message::default() };
        for (name, value) in headers {
            let name = name.as_str();
            if name.starts_with(APPLICATION_PREFIX) || SystemProperty::from_http_header(name).is_some() {
                let value = std::str::from_utf8(value.as_bytes())
                    .map_err(|_| HttpError::invalid(format!("header {name} is not UTF-8")))?;
                message.put(name, value)?;
            }
        }
        message.checked()
    }

    /// Adds a property by its name in HTTP; the first of a name counts. A name without meaning is
    /// an application property as it stands.
    pub(super) fn put(&mut self, name: &str, value: &str) -> Result<(), HttpError> {
        if let Some(property) = SystemProperty::from_http_header(name) {
            if !property.is_server_stamped() && self.value(property).is_none() {
                self.system.push((property, value.to_owned()));
            }
            return Ok(());
        }
        let is_application = name
            .get(..APPLICATION_PREFIX.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(APPLICATION_PREFIX));
        let name = if is_application { &name[APPLICATION_PREFIX.len()..] } else { name };
        if name.is_empty() {
            return Err(HttpError::invalid("an application property has no name"));
        }
        if !is_stamped_name(name) && !self.properties.iter().any(|(found, _)| found == name) {
            self.properties.push((name.to_owned(), value.to_owned()));
        }
        Ok(())
    }

    /// Checks what doesn't depend on the direction.
    pub(super) fn checked(self) -> Result<Message, HttpError> {
        if self.system.len() + self.properties.len() > PROPERTIES_MAX {
            return Err(HttpError::invalid(format!("a message has at most {PROPERTIES_MAX} properties")));
        }
        if let Some(id) = self.value(SystemProperty::MessageId).filter(|id| !id.is_empty()) {
            check_message_id(id).map_err(|error| HttpError::invalid(error.to_string()))?;
        }
        Ok(self)
    }

    /// A system property's value.
    pub(super) fn value(&self, property: SystemProperty) -> Option<&str> {
        self.system.iter().find(|(found, _)| *found == property).map(|(_, value)| value.as_str())
    }

    /// Bytes as the limit counts them: "body + values of system properties + names and values of user
    /// properties".
    pub(super) fn size(&self) -> usize {
        let system: usize = self.system.iter().map(|(_, value)| value.len()).sum();
        let properties: usize = self.properties.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.body.len() + system + properties
    }
}

/// Refuses messages that are together larger than `limit`.
pub(super) fn check_size(messages: &[Message], limit: usize) -> Result<(), HttpError> {
    let size: usize = messages.iter().map(Message::size).sum();
    match size > limit {
        true => {
            let text = format!("{size} bytes, at most {limit} are allowed");
            Err(HttpError::new(ErrorCode::MessageTooLarge, text))
        }
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn message(headers: &[(&str, &str)]) -> Result<Message, HttpError> {
        let header = |(name, value): &(&str, &str)| {
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            )
        };
        Message::from_headers(&headers.iter().map(header).collect(), Bytes::from_static(b"body"))
    }

    /// What only the hub may say is dropped, whichever way it is said.
    #[test]
    fn headers_become_properties() {
        let read = message(&[
            ("IoTHub-MessageId", "m1"),
            ("iothub-contenttype", "application/json"),
            ("iothub-app-Room", "4"),
            ("iothub-enqueuedtime", "2020-01-01T00:00:00Z"),
            ("iothub-app-iothub-connection-device-id", "other"),
            ("user-agent", "x"),
            ("authorization", "secret"),
        ])
        .unwrap();
        assert_eq!(read.system.len(), 2);
        assert_eq!(read.value(SystemProperty::MessageId), Some("m1"));
        assert_eq!(read.properties, [("room".to_owned(), "4".to_owned())]);
        assert_eq!(read.size(), 4 + 2 + 16 + 4 + 1);
    }

    #[test]
    fn wrong_headers_are_refused() {
        for (name, value) in [("iothub-app-", "x"), ("iothub-messageid", "a b"), ("iothub-app-a", "\u{fc}")] {
            let latin: Vec<u8> = value.chars().map(|c| c as u8).collect();
            let mut headers = HeaderMap::new();
            headers.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(&latin).unwrap(),
            );
            assert!(Message::from_headers(&headers, Bytes::new()).is_err(), "{name}");
        }
    }
}
