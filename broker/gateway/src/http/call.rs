//! A request on its way through the front: its head, its body, who sent it, and what it may ask.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_iothub::errors::ErrorCode;
use http::{HeaderMap, Method, Request, header};
use hyper::body::Incoming;

use super::errors::HttpError;
use super::path::Query;
use super::{HttpContext, PeerInfo, body};
use crate::devices::DeviceGateway;
use crate::devices::hub::DeviceHub;
use crate::devices::settings::HubSettings;

/// A request.
pub(super) struct Call {
    pub(super) context: Arc<HttpContext>,
    pub(super) peer: PeerInfo,
    /// The settings as of the request's start.
    pub(super) settings: Arc<HubSettings>,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    /// For WebSockets, which take the connection over.
    pub(super) upgrade: Option<hyper::upgrade::OnUpgrade>,
    body: Option<Incoming>,
}

impl Call {
    pub(super) fn new(context: Arc<HttpContext>, peer: PeerInfo, request: Request<Incoming>) -> Call {
        let (mut parts, body) = request.into_parts();
        Call {
            settings: context.gateway.hub.settings(),
            context,
            peer,
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: Query::parse(parts.uri.query().unwrap_or_default()),
            upgrade: parts.extensions.remove(),
            headers: parts.headers,
            body: Some(body),
        }
    }

    pub(super) fn gateway(&self) -> &Arc<DeviceGateway> {
        &self.context.gateway
    }

    pub(super) fn hub(&self) -> &Arc<dyn DeviceHub> {
        &self.context.gateway.hub
    }

    pub(super) fn now_secs(&self) -> u64 {
        self.hub().now_ms() / 1000
    }

    /// A header's text; `None` when there is none, or it is not text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The media type of the body, without parameters, in lower case.
    pub(super) fn media_type(&self) -> String {
        let value = self.header(header::CONTENT_TYPE.as_str()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// The body as it comes, once.
    pub(super) fn take_body(&mut self) -> Result<Incoming, HttpError> {
        let coding = self.header(header::CONTENT_ENCODING.as_str()).unwrap_or("identity");
        if !coding.eq_ignore_ascii_case("identity") {
            let text = format!("content-encoding {coding} is not taken, send the body as it is");
            return Err(HttpError::new(ErrorCode::GenericUnsupportedMediaType, text));
        }
        self.body.take().ok_or_else(|| HttpError::internal("the body was read already"))
    }

    /// The whole body, bounded.
    pub(super) async fn read_body(&mut self, limit: usize) -> Result<Bytes, HttpError> {
        let time: Duration = self.context.limits.body_timeout;
        body::read(self.take_body()?, limit, time).await
    }

    /// The whole body of a service's request.
    pub(super) async fn service_body(&mut self) -> Result<Bytes, HttpError> {
        self.read_body(self.context.limits.service_body_max).await
    }

    /// Random bytes as a GUID's text (RFC 9562 §5.4).
    pub(super) fn guid(&self) -> String {
        let mut bytes = [0; 16];
        self.hub().random(&mut bytes);
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let hex = hex(&bytes);
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        parts.join("-")
    }

    /// `host[:port]` by which the peer has reached the hub; the hub's own name when it says none of ours.
    pub(super) fn host(&self) -> String {
        let given = self.header(header::HOST.as_str()).unwrap_or_default();
        let name = match given.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => given,
        };
        match !name.is_empty() && self.settings.is_host(name) {
            true => given.to_owned(),
            false => self.settings.host_name.clone(),
        }
    }
}

/// An id that answers and logs share.
pub(super) fn tracking_id(gateway: &DeviceGateway) -> String {
    let mut bytes = [0; 16];
    gateway.hub.random(&mut bytes);
    hex(&bytes)
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = b"0123456789abcdef";
    let pair = |byte: &u8| [digits[usize::from(byte >> 4)] as char, digits[usize::from(byte & 15)] as char];
    bytes.iter().flat_map(pair).collect()
}
