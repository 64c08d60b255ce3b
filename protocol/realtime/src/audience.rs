//! Whom a token is for: the URL that it may be used at.
//!
//! Scheme, host and port are compared as RFC 3986 §6.2 has it (case, default port), and so is the path. A hub's
//! name has no case. For REST a token names the URL of its request without the query; the .NET SDK
//! leaves `?api-version=…` on, and both are accepted.

use crate::query;

/// What a token's `aud` has to say.
#[derive(Clone, Copy, Debug)]
pub enum Audience<'a> {
    /// Anything: a development server, as the public emulator has it.
    Any,
    /// `{endpoint}/client/?hub={hub}`.
    Client {
        /// The URLs by which this service is known, such as `https://host:8443`.
        endpoints: &'a [String],
        /// The hub of the request; with an application name, `{application}_{hub}`.
        hub: &'a str,
    },
    /// The URL of a REST request.
    Rest {
        /// The URLs by which this service is known.
        endpoints: &'a [String],
        /// The path of the request, as it came.
        path: &'a str,
        /// The query of the request, as it came, without its `?`.
        query: &'a str,
    },
}

impl Audience<'_> {
    /// Whether a token with this `aud` is for us.
    pub fn accepts(&self, aud: &str) -> bool {
        match *self {
            Audience::Any => true,
            Audience::Client { endpoints, hub } => {
                let is_ours = |url: &Url<'_>| url.is_at(endpoints) && is_client_path(url.path);
                Url::split(aud).filter(is_ours).is_some_and(|url| names_hub(url.query, hub))
            }
            Audience::Rest { endpoints, path, query } => Url::split(aud)
                .filter(|url| url.is_at(endpoints))
                .is_some_and(|url| is_same_path(url.path, path) && is_query_of(url.query, query)),
        }
    }
}

/// The URL of a client's `aud` for a hub at an endpoint.
pub fn client_audience(endpoint: &str, hub: &str) -> String {
    format!("{}/client/?hub={}", endpoint.trim_end_matches('/'), hub.to_lowercase())
}

/// An absolute URL in parts.
struct Url<'a> {
    /// Scheme and authority.
    origin: &'a str,
    /// With its first `/`; may be empty.
    path: &'a str,
    /// Without its `?`; may be empty.
    query: &'a str,
}

impl Url<'_> {
    fn split(text: &str) -> Option<Url<'_>> {
        let authority = text.find("://")? + "://".len();
        let end = text[authority..].find(['/', '?', '#']).map_or(text.len(), |at| authority + at);
        let (origin, rest) = text.split_at(end);
        let rest = rest.split('#').next().unwrap_or_default();
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        Some(Url { origin, path, query })
    }

    fn is_at(&self, endpoints: &[String]) -> bool {
        let origin = normal_origin(self.origin);
        endpoints.iter().any(|endpoint| normal_origin(endpoint) == origin)
    }
}

/// In small letters, without a default port and slashes at the end.
fn normal_origin(origin: &str) -> String {
    let origin = origin.trim_end_matches('/').to_ascii_lowercase();
    let default_port = if origin.starts_with("https://") { ":443" } else { ":80" };
    origin.strip_suffix(default_port).map(str::to_owned).unwrap_or(origin)
}

fn is_client_path(path: &str) -> bool {
    path.trim_end_matches('/').eq_ignore_ascii_case("/client")
}

fn names_hub(raw_query: &str, hub: &str) -> bool {
    let mut hubs = query::pairs(raw_query).filter(|(name, _)| name.eq_ignore_ascii_case("hub"));
    hubs.next().is_some_and(|(_, value)| value.to_lowercase() == hub.to_lowercase())
}

fn is_same_path(one: &str, other: &str) -> bool {
    query::normal_path(one.trim_end_matches('/')) == query::normal_path(other.trim_end_matches('/'))
}

/// Whether what an `aud` has of a query is in the request's query too.
fn is_query_of(aud: &str, request: &str) -> bool {
    query::pairs(aud).all(|pair| query::pairs(request).any(|other| other == pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Vec<String> {
        vec!["https://Hub.example".to_owned(), "http://localhost:8888/".to_owned()]
    }

    #[test]
    fn clients() {
        let endpoints = ours();
        let audience = Audience::Client { endpoints: &endpoints, hub: "Chat" };
        for aud in [
            "https://hub.example/client/?hub=chat",
            "https://HUB.example:443/client/?hub=CHAT",
            "https://hub.example/client?hub=chat",
            "http://localhost:8888/client/?hub=chat&x=1",
        ] {
            assert!(audience.accepts(aud), "{aud}");
        }
        for aud in [
            "",
            "chat",
            "https://hub.example/client/?hub=chat2",
            "https://hub.example/client/?hub=other&hub=chat",
            "https://hub.example/client/",
            "http://hub.example/client/?hub=chat",
            "https://hub.example:8888/client/?hub=chat",
            "https://hub.example.evil/client/?hub=chat",
            "https://evil/https://hub.example/client/?hub=chat",
            "https://hub.example/api/client/?hub=chat",
            "https://hub.example/server/?hub=chat",
        ] {
            assert!(!audience.accepts(aud), "{aud}");
        }
        assert!(audience.accepts(&client_audience("https://hub.example/", "Chat")));
    }

    #[test]
    fn rest() {
        let endpoints = ours();
        let path = "/api/hubs/chat/users/a%20b/:send";
        let query = "api-version=2022-06-01&excluded=x";
        let audience = Audience::Rest { endpoints: &endpoints, path, query };
        for aud in [
            "https://hub.example/api/hubs/chat/users/a%20b/:send",
            "https://hub.example/api/hubs/chat/users/a%20b/:send/",
            "https://hub.example/api/hubs/chat/users/a%20b/:send?api-version=2022-06-01",
            "https://hub.example/api/hubs/chat/users/%61%20b/:send",
            "http://LOCALHOST:8888/api/hubs/chat/users/a%20b/:send",
        ] {
            assert!(audience.accepts(aud), "{aud}");
        }
        for aud in [
            "https://hub.example",
            "https://hub.example/api/hubs/chat/:send",
            "https://hub.example/api/hubs/chat/users/A%20b/:send",
            "https://hub.example/api/hubs/chat/users/a%2520b/:send",
            "https://hub.example/api/hubs/chat/users/a%20b/:send?api-version=2021",
            "https://other.example/api/hubs/chat/users/a%20b/:send",
        ] {
            assert!(!audience.accepts(aud), "{aud}");
        }
        assert!(Audience::Any.accepts("anything"));
    }
}
