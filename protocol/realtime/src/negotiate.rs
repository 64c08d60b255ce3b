//! Negotiation: what `POST …/negotiate` answers.
//!
//! Version 1 has a secret token beside the public id of a connection; in version 0 the id is the token
//! (`connection_id.rs`). A redirect sends a client elsewhere with a token for there. Errors are answers
//! with status 200 as well: clients treat any other status as a broken server.

use serde::Serialize;

use crate::connection_id::{ConnectionId, ConnectionToken};
use crate::limits::NEGOTIATE_VERSION_MAX;
use crate::query;

/// How bytes travel between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A WebSocket: both ways.
    WebSockets,
    /// Server-sent events, and POSTs; text only.
    ServerSentEvents,
    /// Hanging GETs, and POSTs.
    LongPolling,
}

impl Transport {
    /// All, the best first.
    pub const ALL: [Transport; 3] =
        [Transport::WebSockets, Transport::ServerSentEvents, Transport::LongPolling];

    /// Its name in an answer.
    pub fn name(self) -> &'static str {
        match self {
            Transport::WebSockets => "WebSockets",
            Transport::ServerSentEvents => "ServerSentEvents",
            Transport::LongPolling => "LongPolling",
        }
    }

    fn formats(self) -> &'static [&'static str] {
        match self {
            Transport::ServerSentEvents => &["Text"],
            Transport::WebSockets | Transport::LongPolling => &["Text", "Binary"],
        }
    }

    /// Its bit in the claim `asrs.s.htt`, as ASP.NET Core numbers transports.
    fn bit(self) -> u64 {
        match self {
            Transport::WebSockets => 1,
            Transport::ServerSentEvents => 2,
            Transport::LongPolling => 4,
        }
    }

    /// The transports whose bits are set, the best first.
    pub fn of_mask(mask: u64) -> Vec<Transport> {
        Transport::ALL.into_iter().filter(|transport| mask & transport.bit() != 0).collect()
    }
}

/// What a client asks for in its query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NegotiateRequest {
    /// The version to answer with: the client's, or ours if that is lower.
    pub version: u32,
    /// It can resume a connection.
    pub use_stateful_reconnect: bool,
}

impl NegotiateRequest {
    /// Reads a query, without its `?`. A missing or broken version is 0, as ASP.NET Core has it.
    pub fn parse(raw_query: &str) -> NegotiateRequest {
        let mut request = NegotiateRequest::default();
        for (name, value) in query::pairs(raw_query) {
            if name.eq_ignore_ascii_case("negotiateVersion") {
                request.version = value.parse::<u32>().unwrap_or(0).min(NEGOTIATE_VERSION_MAX);
            } else if name.eq_ignore_ascii_case("useStatefulReconnect") {
                request.use_stateful_reconnect = value.eq_ignore_ascii_case("true");
            }
        }
        request
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    negotiate_version: u32,
    connection_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_token: Option<&'a str>,
    available_transports: Vec<Available>,
    #[serde(skip_serializing_if = "is_false")]
    use_stateful_reconnect: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Available {
    transport: &'static str,
    transfer_formats: &'static [&'static str],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Redirect<'a> {
    url: &'a str,
    access_token: &'a str,
}

#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a str,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The answer for a new connection. `transports` are those that it may use, the best first. Resuming is
/// offered to who asked, since clients refuse an offer that they didn't ask for.
pub fn answer(
    request: NegotiateRequest,
    id: &ConnectionId,
    token: &ConnectionToken,
    transports: &[Transport],
) -> Vec<u8> {
    let available = |transport: &Transport| Available {
        transport: transport.name(),
        transfer_formats: transport.formats(),
    };
    let is_v0 = request.version == 0;
    to_json(&Answer {
        negotiate_version: request.version,
        connection_id: if is_v0 { token.as_str() } else { id.as_str() },
        connection_token: (!is_v0).then_some(token.as_str()),
        available_transports: transports.iter().map(available).collect(),
        use_stateful_reconnect: request.use_stateful_reconnect && transports.contains(&Transport::WebSockets),
    })
}

/// The answer that sends a client to `url`, to negotiate there with `access_token`.
pub fn redirect(url: &str, access_token: &str) -> Vec<u8> {
    to_json(&Redirect { url, access_token })
}

/// The answer to a client that may not connect.
pub fn refuse(error: &str) -> Vec<u8> {
    to_json(&Refusal { error })
}

/// Structs of strings and numbers always have a form.
fn to_json(answer: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    crate::convert::write_json(&mut out, answer);
    out
}
