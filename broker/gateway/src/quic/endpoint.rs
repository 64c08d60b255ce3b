//! The QUIC endpoint: socket, transport settings, keys. Why each setting: `docs`, transport
//! measurements (segmentation offload and packet size matter, the rest hardly does).

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use fleetline_native::connection::ALPN;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    TransportConfig, VarInt,
};
use ring::rand::{SecureRandom, SystemRandom};
use socket2::{Domain, Protocol, Socket, Type};

use super::{QuicOptions, StartError};
use crate::limits::QuicLimits;

/// Bytes of the connection ids that this node gives.
const CONNECTION_ID_BYTES: usize = 8;

/// Streams that a caller may have open before it is known.
const STREAMS_BEFORE_HELLO: u32 = 2;

/// Opens the socket and the endpoint.
pub(super) fn open(options: &QuicOptions) -> Result<Endpoint, StartError> {
    let server = server_config(options)?;
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &options.reset_secret);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(|| Box::new(NodeIds));
    config
        .max_udp_payload_size(options.limits.mtu_upper_bound.max(1472))
        .map_err(|error| StartError::Tls(error.to_string()))?;
    let in_socket = |error| StartError::Socket { listen: options.listen, error };
    let socket = socket(options.listen, options.limits.socket_buffer_bytes).map_err(in_socket)?;
    Endpoint::new(config, Some(server), socket, Arc::new(quinn::TokioRuntime)).map_err(in_socket)
}

fn server_config(options: &QuicOptions) -> Result<quinn::ServerConfig, StartError> {
    let mut tls = (*options.tls).clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.max_early_data_size = 0;
    let tls = Arc::new(tls);
    // What doesn't fit QUIC would otherwise come out at the first connection.
    rustls::quic::ServerConnection::new(tls.clone(), rustls::quic::Version::V1, Vec::new())
        .map_err(|error| StartError::Tls(error.to_string()))?;
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| StartError::Tls(error.to_string()))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport(&options.limits))).migration(true);
    Ok(config)
}

fn transport(limits: &QuicLimits) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(limits.mtu_upper_bound);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_BEFORE_HELLO))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(limits.stream_window))
        .receive_window(VarInt::from_u32(limits.anonymous_window))
        .send_window(limits.connection_window.into())
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(limits.idle_timeout).ok())
        .mtu_discovery_config(Some(mtu))
        .enable_segmentation_offload(true);
    transport
}

/// A UDP socket with large buffers, as far as the kernel allows: with its default buffers bulk
/// traffic loses packets even on one machine.
fn socket(listen: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    for (direction, result) in [
        ("receive", socket.set_recv_buffer_size(buffer_bytes)),
        ("send", socket.set_send_buffer_size(buffer_bytes)),
    ] {
        if let Err(error) = result {
            tracing::warn!(direction, buffer_bytes, %error, "udp buffer could not be set");
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

/// Random connection ids. Every id is taken as possibly one of ours: packets of a former life of
/// this node must be answered with a stateless reset, and that life's ids are not known.
struct NodeIds;

impl ConnectionIdGenerator for NodeIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0u8; CONNECTION_ID_BYTES];
        SystemRandom::new().fill(&mut id).expect("the system gives random bytes");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}
