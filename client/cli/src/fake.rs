//! A hub for tests: a TLS listener that says what it was told to say, in order, and keeps what it was asked.
//!
//! It knows nothing of devices: what the real one answers is copied into the tests.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::ContextArgs;
use crate::hub::{Hub, HubArgs};
use crate::rest::Rest;

/// The key of the policy.
pub(crate) const KEY: &str = "c2VjcmV0LW9mLW93bmVy";

/// What the hub says to one request.
pub(crate) struct Said {
    status: u16,
    body: String,
    headers: HeaderMap,
    closes: bool,
}

/// An answer; status 0 ends the connection instead.
pub(crate) fn said(status: u16, body: &str) -> Said {
    Said { status, body: body.to_owned(), headers: HeaderMap::new(), closes: false }
}

impl Said {
    /// The connection ends behind it.
    pub(crate) fn closing(mut self) -> Said {
        self.closes = true;
        self
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Said {
        self.headers.insert(name, value.parse().unwrap());
        self
    }
}

/// What the hub was asked.
pub(crate) struct Asked {
    /// Method and target.
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Which connection it came over, from 0.
    pub(crate) connection: usize,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| std::str::from_utf8(value.as_bytes()).unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) struct FakeHub {
    port: u16,
    folder: tempfile::TempDir,
    asked: mpsc::UnboundedReceiver<Asked>,
}

impl FakeHub {
    /// Starts one that gives these answers.
    pub(crate) async fn start(answers: Vec<Said>) -> FakeHub {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("hub-authority.pem"), made.cert.pem()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, asked) = mpsc::unbounded_channel();
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), answers, sender));
        FakeHub { port, folder, asked }
    }

    fn hub(&self, trusted: &FakeHub, port: u16) -> Hub {
        let text = format!("HostName=localhost;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}");
        let args = HubArgs {
            connection_string: Some(text),
            https: Some(format!("127.0.0.1:{port}")),
            ..HubArgs::default()
        };
        args.find(&ContextArgs { context: trusted.folder.path().to_owned() }).unwrap()
    }

    pub(crate) fn rest(&self) -> Rest {
        self.rest_trusting(self)
    }

    pub(crate) fn rest_trusting(&self, trusted: &FakeHub) -> Rest {
        Rest::new(self.hub(trusted, self.port))
    }

    /// As if the hub weren't there.
    pub(crate) async fn rest_to_nobody(&self) -> Rest {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Rest::new(self.hub(self, listener.local_addr().unwrap().port()))
    }

    /// The next request that came.
    pub(crate) async fn asked(&mut self) -> Asked {
        self.asked.recv().await.expect("one request more")
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    answers: Vec<Said>,
    sender: mpsc::UnboundedSender<Asked>,
) {
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    for connection in 0.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        let Ok(stream) = acceptor.accept(stream).await else { continue };
        let service = service_fn(|request: Request<Incoming>| {
            let next = answers.lock().unwrap_or_else(PoisonError::into_inner).next();
            answer(request, next.expect("one answer more"), connection, sender.clone())
        });
        drop(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
        );
    }
}

async fn answer(
    request: Request<Incoming>,
    said: Said,
    connection: usize,
    sender: mpsc::UnboundedSender<Asked>,
) -> Result<Response<Full<Bytes>>, CutOff> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    let line = format!("{} {}", head.method, head.uri);
    drop(sender.send(Asked { line, headers: head.headers, body, connection }));
    if said.status == 0 {
        return Err(CutOff);
    }
    let mut response = Response::new(Full::new(Bytes::from(said.body)));
    *response.status_mut() = said.status.try_into().unwrap();
    *response.headers_mut() = said.headers;
    if said.closes {
        response.headers_mut().insert("connection", "close".parse().unwrap());
    }
    Ok(response)
}

/// Makes hyper end the connection without an answer.
#[derive(Debug)]
struct CutOff;

impl std::fmt::Display for CutOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut off")
    }
}

impl std::error::Error for CutOff {}
