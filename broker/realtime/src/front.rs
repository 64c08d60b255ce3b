//! The tier's HTTP: clients at `/client`, backends at `/api`.
//!
//! ```text
//!   /client/negotiate                 POST           negotiate.rs
//!   /client/                          GET POST DELETE  transports.rs (sockets), requests.rs (polls, posts)
//!   /api/health /api/hubs/… /api/v1/… rest.rs
//! ```
//!
//! Browsers call from pages of other origins with credentials, so each answer to an allowed origin repeats it
//! (`cors.rs`). Nobody's body is read before its token is good (`access.rs`).

use std::sync::Arc;

use fleetline_gateway::http::{Body, HttpMount, PeerInfo};
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::tier::Realtime;

mod access;
mod cors;
mod negotiate;
mod reply;
pub(crate) mod requests;
mod rest;
mod transports;

/// What a path is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Negotiate,
    Client,
    Rest,
}

fn place(path: &str) -> Option<Place> {
    match path.strip_prefix("/client") {
        Some("/negotiate" | "/negotiate/") => return Some(Place::Negotiate),
        Some("" | "/") => return Some(Place::Client),
        Some(_) | None => {}
    }
    let rest = path.strip_prefix("/api/")?;
    (rest == "health" || rest.starts_with("hubs/") || rest.starts_with("v1/")).then_some(Place::Rest)
}

impl HttpMount for Realtime {
    fn kind(&self) -> &'static str {
        "realtime"
    }

    fn claims(&self, _method: &Method, path: &str) -> bool {
        place(path).is_some()
    }

    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        _peer: PeerInfo,
    ) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move {
            let settings = self.settings();
            let origin = cors::origin(request.headers(), &settings);
            let mut response = match (place(request.uri().path()), request.method()) {
                (Some(_), &Method::OPTIONS) => cors::preflight(request.headers()),
                (Some(Place::Negotiate), _) => negotiate::answer(&self, &settings, &request),
                (Some(Place::Client), _) => transports::answer(&self, &settings, request).await,
                (Some(Place::Rest), _) => rest::answer(&self, &settings, request).await,
                (None, _) => reply::empty(StatusCode::NOT_FOUND),
            };
            if let Some(origin) = origin {
                cors::allow(&mut response, origin);
            }
            response
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_this_tier() {
        for path in
            ["/client", "/client/", "/client/negotiate", "/api/health", "/api/hubs/chat", "/api/v1/health"]
        {
            assert!(place(path).is_some(), "{path}");
        }
        for path in
            ["/", "/clients", "/client/x", "/api", "/api/", "/api/healthy", "/api/negotiate", "/devices"]
        {
            assert_eq!(place(path), None, "{path}");
        }
    }
}
