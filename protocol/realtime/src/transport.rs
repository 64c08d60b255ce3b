//! Which HTTP request may do what on a connection, and what it is answered if it may not.
//!
//! The statuses are those of ASP.NET Core's dispatcher. WebSockets and server-sent events are one long
//! request; sending over the latter and over long polling is a POST.

use crate::negotiate::Transport;

/// What a request to the hub's URL wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Take messages over this transport.
    Connect(Transport),
    /// Bring messages.
    Send,
    /// End the connection.
    Delete,
}

impl Wish {
    /// Reads the wish of a request; `None` for a verb that has none (405). A GET that is neither an upgrade
    /// nor asks for an event stream is a poll.
    pub fn of(method: &str, is_upgrade: bool, accept: &str) -> Option<Wish> {
        let wants_events = accept.to_ascii_lowercase().contains(crate::sse::CONTENT_TYPE);
        match method {
            "GET" if is_upgrade => Some(Wish::Connect(Transport::WebSockets)),
            "GET" if wants_events => Some(Wish::Connect(Transport::ServerSentEvents)),
            "GET" => Some(Wish::Connect(Transport::LongPolling)),
            "POST" => Some(Wish::Send),
            "DELETE" => Some(Wish::Delete),
            _ => None,
        }
    }
}

/// What is known of the connection that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// There is no such connection (any more).
    Unknown,
    /// It was negotiated, and no transport has come.
    Negotiated,
    /// It has a transport.
    On {
        /// Which.
        transport: Transport,
        /// Whether a request of that transport is there now.
        is_active: bool,
        /// Whether it may come again over a new WebSocket.
        is_resumable: bool,
    },
}

/// A request that may not do what it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the answer.
    pub status: u16,
    /// The text of the answer.
    pub text: &'static str,
}

/// The answer to a request without `id`. A WebSocket may come without one: it makes a connection.
pub const NO_ID: Refusal = Refusal { status: 400, text: "Connection ID required" };
/// The answer to an id that isn't known.
pub const UNKNOWN_ID: Refusal = Refusal { status: 404, text: "No Connection with that ID" };
/// The answer to a verb that has no meaning.
pub const BAD_VERB: Refusal = Refusal { status: 405, text: "" };
/// The status of the answer to a good DELETE; the poll that hangs then ends with 204.
pub const DELETED: u16 = 202;

/// Whether the wish may be done. `allowed` are the transports that the service or the token allows.
pub fn check(wish: Wish, connection: Connection, allowed: &[Transport]) -> Result<(), Refusal> {
    if let Wish::Connect(transport) = wish
        && !allowed.contains(&transport)
    {
        return Err(Refusal { status: 404, text: "" });
    }
    match (wish, connection) {
        (_, Connection::Unknown) => Err(UNKNOWN_ID),
        (Wish::Connect(_), Connection::Negotiated) => Ok(()),
        (Wish::Connect(asked), Connection::On { transport, is_active, is_resumable }) => {
            check_connect(asked, transport, is_active, is_resumable)
        }
        (Wish::Send, Connection::On { transport: Transport::WebSockets, .. }) => {
            Err(Refusal { status: 405, text: "POST requests are not allowed for WebSocket connections." })
        }
        (Wish::Send, Connection::On { .. }) => Ok(()),
        // Nothing reads what would come: the transport isn't known.
        (Wish::Send, Connection::Negotiated) => Err(UNKNOWN_ID),
        (Wish::Delete, Connection::On { transport: Transport::LongPolling, .. }) => Ok(()),
        (Wish::Delete, _) => {
            Err(Refusal { status: 400, text: "Cannot terminate this connection using the DELETE endpoint." })
        }
    }
}

fn check_connect(
    asked: Transport,
    transport: Transport,
    is_active: bool,
    is_resumable: bool,
) -> Result<(), Refusal> {
    let takes_over = match transport {
        Transport::LongPolling => true,
        Transport::WebSockets => is_resumable,
        Transport::ServerSentEvents => false,
    };
    if asked != transport {
        Err(Refusal { status: 400, text: "Cannot change transports mid-connection" })
    } else if takes_over {
        Ok(())
    } else if is_active {
        Err(Refusal { status: 409, text: "Connection is already active." })
    } else {
        // Such a connection lives as long as its request.
        Err(UNKNOWN_ID)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use Transport::{LongPolling, ServerSentEvents, WebSockets};

    fn on(transport: Transport) -> Connection {
        Connection::On { transport, is_active: true, is_resumable: false }
    }

    /// 0 for a request that may be done.
    fn status(wish: Wish, connection: Connection) -> u16 {
        check(wish, connection, &Transport::ALL).map_or_else(|refusal| refusal.status, |()| 0)
    }

    #[test]
    fn every_row_of_the_dispatcher() {
        use Wish::{Connect, Delete, Send};
        for (wish, connection, expected) in [
            (Connect(WebSockets), Connection::Unknown, 404),
            (Send, Connection::Unknown, 404),
            (Delete, Connection::Unknown, 404),
            (Connect(WebSockets), Connection::Negotiated, 0),
            (Connect(ServerSentEvents), Connection::Negotiated, 0),
            (Connect(LongPolling), Connection::Negotiated, 0),
            (Send, Connection::Negotiated, 404),
            (Delete, Connection::Negotiated, 400),
            (Connect(LongPolling), on(WebSockets), 400),
            (Connect(WebSockets), on(LongPolling), 400),
            (Connect(ServerSentEvents), on(ServerSentEvents), 409),
            (Connect(WebSockets), on(WebSockets), 409),
            (Connect(LongPolling), on(LongPolling), 0),
            (Send, on(WebSockets), 405),
            (Send, on(ServerSentEvents), 0),
            (Send, on(LongPolling), 0),
            (Delete, on(LongPolling), 0),
            (Delete, on(WebSockets), 400),
            (Delete, on(ServerSentEvents), 400),
        ] {
            assert_eq!(status(wish, connection), expected, "{wish:?} {connection:?}");
        }
        for is_active in [false, true] {
            let resumable = Connection::On { transport: WebSockets, is_active, is_resumable: true };
            assert_eq!(status(Connect(WebSockets), resumable), 0);
        }
        let gone = Connection::On { transport: ServerSentEvents, is_active: false, is_resumable: false };
        assert_eq!(status(Connect(ServerSentEvents), gone), 404);
    }

    #[test]
    fn disabled_transport() {
        let refusal = check(Wish::Connect(LongPolling), Connection::Negotiated, &[WebSockets]).unwrap_err();
        assert_eq!(refusal.status, 404);
    }

    #[test]
    fn wishes() {
        for (method, is_upgrade, accept, expected) in [
            ("GET", true, "*/*", Some(Wish::Connect(WebSockets))),
            ("GET", false, "text/event-stream", Some(Wish::Connect(ServerSentEvents))),
            ("GET", false, "*/*", Some(Wish::Connect(LongPolling))),
            ("POST", false, "", Some(Wish::Send)),
            ("DELETE", false, "", Some(Wish::Delete)),
            ("PUT", false, "", None),
        ] {
            assert_eq!(Wish::of(method, is_upgrade, accept), expected, "{method}");
        }
    }
}
