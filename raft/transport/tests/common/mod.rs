//! What the tests of both transports share: a recording handler and a throw-away authority.
#![allow(dead_code)] // each test binary uses its part

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::{BufMut, Bytes, BytesMut};
use fleetline_raft_transport::tcp::{Identify, Listen, TcpOptions, TcpTransport};
use fleetline_raft_transport::{Lane, PeerHandler, PeerMessage, Replier};
use fleetline_types::{GroupId, NodeId};
use parking_lot::{Condvar, Mutex};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

pub const CLUSTER: &str = "plant";

/// The handler answers at once with what it got.
pub const ECHO: u8 = 1;
/// The handler keeps the replier.
pub const HOLD: u8 = 2;
/// The handler answers with as many bytes as the request's head says (u32, little-endian).
pub const GROW: u8 = 3;

/// What a handler heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Request { from: u64, lane: Lane, number: u32, len: usize },
    Up(u64),
    Down(u64),
}

#[derive(Default)]
pub struct Recorder {
    heard: Mutex<Vec<Heard>>,
    pub held: Mutex<Vec<(PeerMessage, Replier)>>,
    count: watch::Sender<usize>,
    gate: Mutex<bool>,
    opened: Condvar,
}

impl Recorder {
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().clone()
    }

    /// Numbers of the requests on one lane from one node, in the order they came.
    pub fn numbers(&self, from: u64, lane: Lane) -> Vec<u32> {
        let heard = self.heard.lock();
        heard
            .iter()
            .filter_map(|heard| match heard {
                Heard::Request { from: f, lane: l, number, .. } if (*f, *l) == (from, lane) => Some(*number),
                _ => None,
            })
            .collect()
    }

    /// Waits until what was heard satisfies `done`.
    pub async fn until(&self, done: impl Fn(&[Heard]) -> bool) {
        let mut count = self.count.subscribe();
        while !done(&self.heard.lock()) {
            count.changed().await.unwrap();
        }
    }

    pub async fn until_heard(&self, what: Heard) {
        self.until(|heard| heard.contains(&what)).await;
    }

    /// Requests on Bulk block their connection's task until the gate opens.
    pub fn shut_gate(&self) {
        *self.gate.lock() = true;
    }

    pub fn open_gate(&self) {
        *self.gate.lock() = false;
        self.opened.notify_all();
    }

    fn record(&self, heard: Heard) {
        self.heard.lock().push(heard);
        self.count.send_modify(|count| *count += 1);
    }
}

impl PeerHandler for Recorder {
    fn on_request(&self, from: NodeId, lane: Lane, message: PeerMessage, replier: Replier) {
        if lane == Lane::Bulk {
            let mut shut = self.gate.lock();
            while *shut {
                self.opened.wait(&mut shut);
            }
        }
        self.record(Heard::Request { from: from.0, lane, number: message.group.0, len: message.len() });
        match message.kind {
            HOLD => self.held.lock().push((message, replier)),
            GROW => {
                let len = u32::from_le_bytes(message.head[..4].try_into().unwrap());
                let body = vec![Bytes::from(vec![7u8; len as usize])];
                replier.reply(PeerMessage { body, ..message });
            }
            _ => replier.reply(message),
        }
    }

    fn on_peer_up(&self, node: NodeId) {
        self.record(Heard::Up(node.0));
    }

    fn on_peer_down(&self, node: NodeId) {
        self.record(Heard::Down(node.0));
    }
}

pub fn message(kind: u8, number: u32, body: &[Bytes]) -> PeerMessage {
    PeerMessage {
        group: GroupId(number),
        kind,
        head: Bytes::copy_from_slice(&number.to_le_bytes()),
        body: body.to_vec(),
    }
}

/// A body as one piece.
pub fn joined(message: &PeerMessage) -> Bytes {
    let mut all = BytesMut::new();
    message.body.iter().for_each(|part| all.put_slice(part));
    all.freeze()
}

/// Polls a future once; whether it is still pending.
pub async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())).await
}

/// A certificate with its key.
pub struct Leaf {
    pub certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

/// An authority for tests, and the certificates it gave.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    names: Arc<Mutex<BTreeMap<Vec<u8>, NodeId>>>,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority { issuer, names: Arc::default() }
    }

    pub fn node(&self, node: u64) -> Leaf {
        let leaf = self.leaf(&format!("node-{node}.{CLUSTER}.fleetline"));
        self.names.lock().insert(leaf.certificate.to_vec(), NodeId(node));
        leaf
    }

    /// A certificate that names no node.
    pub fn leaf(&self, name: &str) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { certificate: certificate.der().clone(), key: key.serialize_der() }
    }

    pub fn identify(&self) -> Identify {
        let names = self.names.clone();
        Arc::new(move |certificate| names.lock().get(certificate.as_ref()).copied())
    }

    fn roots(&self) -> Arc<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Arc::new(roots)
    }

    pub fn client(&self, leaf: Option<&Leaf>) -> Arc<rustls::ClientConfig> {
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots());
        Arc::new(match leaf {
            Some(leaf) => builder.with_client_auth_cert(vec![leaf.certificate.clone()], leaf.key()).unwrap(),
            None => builder.with_no_client_auth(),
        })
    }

    /// Shows a certificate of this authority, and trusts another.
    pub fn client_that_trusts(&self, leaf: &Leaf, other: &Authority) -> Arc<rustls::ClientConfig> {
        other.client(Some(leaf))
    }

    pub fn server(&self, leaf: &Leaf) -> Arc<rustls::ServerConfig> {
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(self.roots(), provider())
            .build()
            .unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![leaf.certificate.clone()], leaf.key())
            .unwrap();
        Arc::new(config)
    }

    pub fn options(&self, node: u64) -> TcpOptions {
        let leaf = self.node(node);
        TcpOptions::new(
            NodeId(node),
            CLUSTER,
            format!("disk-{node}"),
            Listen::Address("127.0.0.1:0".parse().unwrap()),
            self.server(&leaf),
            self.client(Some(&leaf)),
            self.identify(),
        )
    }

    pub fn start(
        &self,
        node: u64,
        change: impl FnOnce(&mut TcpOptions),
    ) -> (Arc<TcpTransport>, Arc<Recorder>) {
        let mut options = self.options(node);
        change(&mut options);
        let recorder = Arc::new(Recorder::default());
        (TcpTransport::start(options, recorder.clone()).unwrap(), recorder)
    }
}

impl Leaf {
    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone().into())
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
