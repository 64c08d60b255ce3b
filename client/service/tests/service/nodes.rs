//! Nodes of a test: certificates, QUIC fronts on loopback in runtimes of their own (so that one can
//! be killed without a word), and clients for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleetline_client::{Client, ClientOptions, NodeId};
use fleetline_gateway::access::{Access, Authorizer};
use fleetline_gateway::hub::Hub;
use fleetline_gateway::limits::QuicLimits;
use fleetline_gateway::quic::{QuicFront, QuicOptions};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::runtime::Runtime;

use crate::fake::{FakeNode, Store};

/// An authority, and what it signed.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
    server: (String, String),
    pub client: (String, String),
    pub admin: (String, String),
}

impl Authority {
    pub fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let sign = |names: &[&str]| {
            let key = KeyPair::generate().unwrap();
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            let cert = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
            (cert.pem(), key.serialize_pem())
        };
        let (server, client, admin) =
            (sign(&["localhost", "127.0.0.1"]), sign(&["client"]), sign(&["admin"]));
        Authority { pem, issuer, server, client, admin }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.pem)).unwrap();
        roots
    }

    fn server_tls(&self) -> rustls::ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider.clone())
            .allow_unauthenticated()
            .build()
            .unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.server.1.as_bytes()).unwrap();
        rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate(&self.server.0)], key)
            .unwrap()
    }
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// Knows the two certificates that the test's authority gave out.
struct Known {
    client: CertificateDer<'static>,
    admin: CertificateDer<'static>,
}

impl Authorizer for Known {
    fn identify(&self, certs: Option<&[CertificateDer<'_>]>) -> Access {
        match certs.and_then(|certs| certs.first()) {
            Some(cert) if *cert == self.admin => Access::Admin,
            Some(cert) if *cert == self.client => Access::Client,
            _ => Access::Anonymous,
        }
    }
}

/// One node: a front in a runtime of its own.
pub struct Node {
    pub id: NodeId,
    pub address: SocketAddr,
    running: Option<(Runtime, QuicFront)>,
}

/// A cluster of fronts over one store.
pub struct Nodes {
    pub store: Arc<Store>,
    pub authority: Authority,
    pub nodes: Vec<Node>,
}

impl Nodes {
    /// Starts `count` nodes for a hub of `partitions` partitions; the first leads all of them.
    pub fn start(count: u64, partitions: u32) -> Nodes {
        let mut nodes =
            Nodes { store: Store::new(partitions), authority: Authority::new(), nodes: Vec::new() };
        for id in 1..=count {
            nodes.launch(NodeId(id), "127.0.0.1:0".parse().unwrap());
        }
        nodes
    }

    fn launch(&mut self, id: NodeId, listen: SocketAddr) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let options = QuicOptions {
            listen,
            tls: Arc::new(self.authority.server_tls()),
            reset_secret: [id.0 as u8; 32],
            limits: QuicLimits { read_wait: Duration::from_millis(200), ..QuicLimits::default() },
        };
        let hub: Arc<dyn Hub> = Arc::new(FakeNode { node: id, store: self.store.clone() });
        let known = Known {
            client: certificate(&self.authority.client.0),
            admin: certificate(&self.authority.admin.0),
        };
        let front = {
            let _inside = runtime.enter();
            QuicFront::start(options, hub, Arc::new(known)).unwrap()
        };
        let address = front.local_addr();
        self.store.set_node(id, address);
        self.nodes.push(Node { id, address, running: Some((runtime, front)) });
    }

    fn take(&mut self, id: u64) -> (Runtime, QuicFront) {
        let node = self.nodes.iter_mut().find(|node| node.id == NodeId(id)).unwrap();
        node.running.take().unwrap()
    }

    /// Stops a node without a word to anybody, as kill -9 does; its socket is closed.
    pub fn kill(&mut self, id: u64) {
        let (runtime, front) = self.take(id);
        // Without its runtime the front can't send what its drop would like to say.
        runtime.shutdown_timeout(Duration::from_secs(10));
        drop(front);
        self.store.set_alive(NodeId(id), false);
    }

    /// Shuts a node down in the proper way; blocks until it is done.
    pub fn shut_down(&mut self, id: u64) {
        let (runtime, front) = self.take(id);
        runtime.block_on(front.shutdown(Duration::from_secs(10)));
        self.store.set_alive(NodeId(id), false);
    }

    /// Starts a killed node again, at the same address and with the same secret.
    pub fn restart(&mut self, id: u64) {
        let at = self.nodes.iter().position(|node| node.id == NodeId(id)).unwrap();
        let old = self.nodes.remove(at);
        self.launch(old.id, old.address);
    }

    /// Options of a client with the given identity. No test waits for a time-out of a silent
    /// connection: it is longer than any delivery time-out.
    pub fn options(&self, identity: Option<&(String, String)>) -> ClientOptions {
        let endpoints = self.nodes.iter().map(|n| format!("localhost:{}", n.address.port())).collect();
        let mut options = ClientOptions::new(endpoints, self.authority.pem.clone());
        options.identity = identity.cloned();
        options.idle_timeout = Duration::from_secs(120);
        options.keep_alive = Duration::from_millis(50);
        options.backoff_max = Duration::from_millis(100);
        options
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.options(Some(&self.authority.client))).await.unwrap()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some((runtime, _front)) = node.running.take() {
                runtime.shutdown_background();
            }
        }
    }
}

impl Authority {
    /// TLS of a bare QUIC client, with or without the known client's certificate.
    pub fn client_tls(&self, known: bool, alpn: &[u8]) -> rustls::ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots());
        let mut tls = if known {
            let key = PrivateKeyDer::from_pem_slice(self.client.1.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate(&self.client.0)], key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        tls.alpn_protocols = vec![alpn.to_vec()];
        tls
    }

    /// Another certificate of the same authority, which nobody knows.
    pub fn stranger(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["stranger".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}
