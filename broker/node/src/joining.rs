//! Joining a cluster: what a new node prepares before it asks to be taken in.
//!
//! The token names members and the fingerprint of their authority. [`fetch_authority`] connects to one
//! of them and takes the authority's certificate only if it has that fingerprint; from then on the
//! ordinary client of the cluster can be used to ask (`broker/server` does).

use std::net::ToSocketAddrs;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetline_auth::{CertificateRequest, DataCerts, Fingerprint, JoinToken, TlsBundle, join_client};
use fleetline_config::NodeConfig;
use fleetline_env::real::RealEntropy;
use fleetline_native::connection::ALPN;
use fleetline_native::model::{JoinReply, JoinRequest};
use rustls::pki_types::CertificateDer;

use crate::data_dir::{DataDir, Identity};
use crate::error::NodeError;
use crate::node::FEATURE_LEVEL;

fn join_error(reason: impl std::fmt::Display) -> NodeError {
    NodeError::Join(reason.to_string())
}

/// What a new node asks with, and what it keeps for the answer.
pub struct JoinPlan {
    /// The request.
    pub request: JoinRequest,
    /// `None` with an own PKI.
    key_pem: Option<String>,
    data: DataDir,
}

/// Prepares to join with the token `text`. `None` when the folder belongs to a cluster already.
///
/// # Errors
/// When the folder can't be used or a key can't be made.
pub fn prepare_join(config: &NodeConfig, text: &str) -> Result<Option<(JoinToken, JoinPlan)>, NodeError> {
    let token = JoinToken::parse(text).map_err(join_error)?;
    let data = DataDir::open(&config.data, &RealEntropy)?;
    if data.identity()?.is_some() {
        return Ok(None);
    }
    // A node of an own PKI has its certificate, or gets it when the cluster has said who it is.
    let csr = match config.has_own_pki() {
        true => None,
        false => Some(CertificateRequest::generate().map_err(join_error)?),
    };
    let (csr_pem, key_pem) = csr.map(|csr| (csr.csr_pem, csr.key_pem)).unzip();
    let host = config.host();
    let request = JoinRequest {
        secret: text.to_owned(),
        csr_pem: csr_pem.unwrap_or_default(),
        client_address: address(&host, config.listen.port()),
        peer_address: address(&host, config.peer_listen.port()),
        zone: config.zone.clone(),
        disk_id: data.disk_id().to_owned(),
        feature_level: FEATURE_LEVEL,
    };
    Ok(Some((token, JoinPlan { request, key_pem, data })))
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn address(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

impl JoinPlan {
    /// Writes what the cluster answered: after this the node starts as its member.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn accept(self, reply: &JoinReply) -> Result<(), NodeError> {
        if let Some(key_pem) = self.key_pem {
            let (authority_pem, certificate_pem) =
                (reply.authority_pem.clone(), reply.certificate_pem.clone());
            let bundle = TlsBundle { authority_pem, certificate_pem, key_pem };
            DataCerts::store(&self.data.path("certs"), &bundle, None).map_err(join_error)?;
        }
        let peers = reply.nodes.iter().map(|node| (node.node.0, node.peer_address.clone())).collect();
        self.data.write_identity(&Identity {
            format: 1,
            cluster: reply.cluster.clone(),
            node: reply.node.0,
            partitions: reply.partitions,
            peers,
        })
    }
}

/// The authority's certificate (PEM) of the cluster that a token invites to, from one of its members.
///
/// # Errors
/// When no member can be reached, or those that can belong to another authority.
pub async fn fetch_authority(token: &JoinToken) -> Result<String, NodeError> {
    let tls = join_client(token.authority_fingerprint, &[ALPN]).map_err(join_error)?;
    let mut reason = "the token names no address".to_owned();
    for address in &token.addresses {
        match fetch_from(address, tls.clone(), token.authority_fingerprint).await {
            Ok(pem) => return Ok(pem),
            Err(error) => reason = format!("{address}: {error}"),
        }
    }
    Err(join_error(format!("no member could be reached ({reason}); is it running?")))
}

async fn fetch_from(
    address: &str,
    tls: Arc<rustls::ClientConfig>,
    fingerprint: Fingerprint,
) -> Result<String, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let target = address.to_socket_addrs().map_err(|e| text(&e))?.next().ok_or("address has no host")?;
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).map_err(|e| text(&e))?;
    let local = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let endpoint = quinn::Endpoint::client(local.parse().map_err(|e: std::net::AddrParseError| text(&e))?)
        .map_err(|e| text(&e))?;
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let connecting = endpoint.connect_with(config, target, host).map_err(|e| text(&e))?;
    let connection = connecting.await.map_err(|e| text(&e))?;
    let chain =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    connection.close(0u32.into(), b"");
    let chain = chain.ok_or("member showed no certificate")?;
    let authority = chain.iter().find(|certificate| Fingerprint::of_der(certificate) == fingerprint);
    authority.map(|certificate| to_pem(certificate)).ok_or("member doesn't show its authority".to_owned())
}

/// PEM of a certificate: base64 in lines of 64.
fn to_pem(certificate: &[u8]) -> String {
    let lines: Vec<String> = certificate.chunks(48).map(|line| STANDARD.encode(line)).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
