//! What realtime clients do, told to functions.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_functions::{ClientEvent as Event, ClientReply, Functions};
use fleetline_realtime::{ClientEvent, ClientEventKind, ClientEvents, EventAnswer};

/// Functions with a trigger of realtime hubs.
pub(super) struct ToFunctions(pub(super) Arc<Functions>);

#[async_trait]
impl ClientEvents for ToFunctions {
    fn wants(&self, hub: &str, category: &str, event: &str) -> bool {
        self.0.wants_client_event(hub, category, event)
    }

    async fn on_event(&self, event: ClientEvent) -> EventAnswer {
        match self.0.on_client_event(told(event)).await {
            None => EventAnswer::default(),
            Some(ClientReply::Error(error)) => EventAnswer { error: Some(error), ..EventAnswer::default() },
            Some(ClientReply::Result(result)) => {
                let result = (!result.is_empty()).then_some(result);
                EventAnswer { result, ..EventAnswer::default() }
            }
        }
    }
}

/// The event as functions take it.
fn told(event: ClientEvent) -> Event {
    let (category, name) = (event.kind.category().to_owned(), event.kind.name().to_owned());
    let (arguments, error) = match event.kind {
        ClientEventKind::Message { arguments, .. } => (arguments, None),
        ClientEventKind::Disconnected { error } => (Bytes::new(), error),
        ClientEventKind::Connected => (Bytes::new(), None),
    };
    Event {
        hub: event.hub,
        connection: event.connection_id,
        user: event.user_id,
        category,
        event: name,
        arguments,
        error,
        claims: event.claims,
        query: query(&event.query),
        headers: Vec::new(),
    }
}

/// Names and values of a query, decoded.
fn query(text: &str) -> Vec<(String, String)> {
    let decoded = |part: &str| {
        percent_encoding::percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned()
    };
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decoded(name), decoded(value))
    };
    text.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let pairs = query("a=1&b=x%20y+z&c&&d=%3D");
        let expected = [("a", "1"), ("b", "x y z"), ("c", ""), ("d", "=")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
