//! POSTs to the user's HTTP endpoints: HTTP/1.1, with TLS where the URL says so, without redirects.
//!
//! A connection that answered is kept for the next call to the same place, a few of each; one that turns out to
//! be closed is replaced. Who calls bounds the time and how many run.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Places whose connections are kept; with more, all are let go.
const PLACES_MAX: usize = 256;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum UpstreamError {
    /// The URL can't be called.
    #[error("the url can't be called")]
    BadUrl,
    /// A header can't be sent.
    #[error("a header can't be sent")]
    BadHeader,
    /// No connection.
    #[error("no connection: {0}")]
    Connect(#[from] std::io::Error),
    /// It broke.
    #[error("the connection broke: {0}")]
    Http(#[from] hyper::Error),
    /// The answer can't be read, or is longer than allowed.
    #[error("the answer can't be read: {0}")]
    Reply(Box<dyn std::error::Error + Send + Sync>),
}

type Sender = SendRequest<Full<Bytes>>;

/// Where a URL leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    is_tls: bool,
    host: String,
    port: u16,
}

/// The client.
pub(crate) struct Upstream {
    idle: Mutex<HashMap<Place, Vec<Sender>>>,
    idle_max: usize,
    reply_max: usize,
    tls: OnceLock<Arc<ClientConfig>>,
}

impl Upstream {
    pub(crate) fn new(idle_max: usize, reply_max: usize) -> Upstream {
        Upstream { idle: Mutex::default(), idle_max, reply_max, tls: OnceLock::new() }
    }

    /// Posts a body (content type and bytes) and answers status and body of the reply.
    pub(crate) async fn post(
        &self,
        url: &str,
        headers: Vec<(&'static str, String)>,
        body: (&'static str, Vec<u8>),
    ) -> Result<(u16, Bytes), UpstreamError> {
        let uri: Uri = url.parse().map_err(|_| UpstreamError::BadUrl)?;
        let place = place(&uri).ok_or(UpstreamError::BadUrl)?;
        let (content_type, body) = (body.0, Bytes::from(body.1));
        let build = || request(&uri, &headers, content_type, body.clone());
        let (mut sender, is_kept) = match self.kept(&place).await {
            Some(sender) => (sender, true),
            None => (self.connect(&place).await?, false),
        };
        let response = match sender.try_send_request(build()?).await {
            Ok(response) => response,
            Err(mut error) => {
                // It may have been closed meanwhile, and nothing was sent.
                if !is_kept || error.take_message().is_none() {
                    return Err(error.into_error().into());
                }
                sender = self.connect(&place).await?;
                sender.send_request(build()?).await?
            }
        };
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), self.reply_max);
        let body = body.collect().await.map_err(UpstreamError::Reply)?.to_bytes();
        self.keep(place, sender);
        Ok((status, body))
    }

    async fn kept(&self, place: &Place) -> Option<Sender> {
        loop {
            let mut sender = self.idle.lock().get_mut(place)?.pop()?;
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn keep(&self, place: Place, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() >= PLACES_MAX && !idle.contains_key(&place) {
            idle.clear();
        }
        let kept = idle.entry(place).or_default();
        if kept.len() < self.idle_max {
            kept.push(sender);
        }
    }

    async fn connect(&self, place: &Place) -> Result<Sender, UpstreamError> {
        let stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
        stream.set_nodelay(true)?;
        if !place.is_tls {
            return handshake(stream).await;
        }
        let name = ServerName::try_from(place.host.clone()).map_err(|_| UpstreamError::BadUrl)?;
        let stream = TlsConnector::from(self.tls()?).connect(name, stream).await?;
        handshake(stream).await
    }

    /// Made at the first call that needs it: reading the system's authorities takes a while.
    fn tls(&self) -> Result<Arc<ClientConfig>, UpstreamError> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(self.tls.get_or_init(|| Arc::new(config)).clone())
    }
}

async fn handshake<I>(io: I) -> Result<Sender, UpstreamError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to an upstream ended");
        }
    });
    Ok(sender)
}

fn place(uri: &Uri) -> Option<Place> {
    let is_tls = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(Place { is_tls, host, port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }) })
}

fn request(
    uri: &Uri,
    headers: &[(&'static str, String)],
    content_type: &'static str,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, UpstreamError> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let length = body.len();
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse().map_err(|_| UpstreamError::BadUrl)?;
    let map = request.headers_mut();
    map.insert(HOST, HeaderValue::from_str(authority).map_err(|_| UpstreamError::BadUrl)?);
    map.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    map.insert(CONTENT_LENGTH, HeaderValue::from(length));
    map.insert(USER_AGENT, HeaderValue::from_static("fleetline-realtime"));
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| UpstreamError::BadHeader)?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| UpstreamError::BadHeader)?;
        map.append(name, value);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let found = |url: &str| place(&url.parse().expect("url"));
        let expected = |is_tls, host: &str, port| Some(Place { is_tls, host: host.to_owned(), port });
        assert_eq!(found("https://a.b/x"), expected(true, "a.b", 443));
        assert_eq!(found("http://a.b:81/x"), expected(false, "a.b", 81));
        assert_eq!(found("http://[::1]:81/x"), expected(false, "::1", 81));
        assert_eq!(found("/x"), None);
    }
}
