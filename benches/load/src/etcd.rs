//! etcd, from Debian's package `etcd-server`; it syncs before it answers, always.
//!
//! Spoken to through its gRPC API. Only `Put` is needed, so its two messages are written here instead
//! of compiling etcd's protocol files, which would need a system `protoc`.

use std::sync::Arc;
use std::time::Duration;

use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use crate::Outcome;
use crate::load::{Flight, Load, Measured, Shape, Target, run};
use crate::process::{Servers, free_ports, version};

const CONNECTIONS: usize = 10;
/// Puts in flight at saturation, over all connections. 4,000 and 20,000 gave no more.
const IN_FLIGHT: usize = 1000;

/// `etcdserverpb.PutRequest`, the fields that are used.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`; nothing of it is used.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

async fn put(channel: &Channel, key: String, value: &[u8]) -> Outcome<()> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await?;
    let codec = tonic_prost::ProstCodec::<PutRequest, PutResponse>::default();
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let request = PutRequest { key: key.into_bytes(), value: value.to_vec() };
    grpc.unary(tonic::Request::new(request), path, codec).await?;
    Ok(())
}

#[derive(Clone)]
struct Puts {
    channels: Arc<Vec<Channel>>,
    body: Arc<Vec<u8>>,
}

impl Target for Puts {
    async fn send(&self, number: u64) -> Outcome<()> {
        let channel = &self.channels[number as usize % self.channels.len()];
        put(channel, format!("bench/{number}"), &self.body).await
    }
}

/// Puts to a cluster of `nodes`.
pub async fn append(nodes: usize, load: &Load) -> Outcome<Measured> {
    let binary = crate::install::debian("etcd-server", "/usr/bin/etcd")?;
    eprintln!("  {}", version(&binary));
    let mut servers = Servers::new()?;
    let ports = free_ports(2 * nodes)?;
    let (clients, peers) = ports.split_at(nodes);
    let url = |port: &u16| format!("http://127.0.0.1:{port}");
    let members: Vec<String> =
        peers.iter().enumerate().map(|(n, peer)| format!("n{n}={}", url(peer))).collect();
    for (number, (client, peer)) in clients.iter().zip(peers).enumerate() {
        let data = servers.root().join(format!("n{number}")).display().to_string();
        let arguments = [
            "--name".to_owned(),
            format!("n{number}"),
            "--data-dir".to_owned(),
            data,
            "--listen-client-urls".to_owned(),
            url(client),
            "--advertise-client-urls".to_owned(),
            url(client),
            "--listen-peer-urls".to_owned(),
            url(peer),
            "--initial-advertise-peer-urls".to_owned(),
            url(peer),
            "--initial-cluster".to_owned(),
            members.join(","),
            "--quota-backend-bytes".to_owned(),
            "8589934592".to_owned(),
        ];
        servers.start(&binary, arguments)?;
    }
    let urls: Vec<String> = clients.iter().map(url).collect();
    let mut channels = Vec::new();
    for n in 0..CONNECTIONS {
        channels.push(connect(&urls[n % urls.len()], &mut servers).await?);
    }
    let target = Puts { channels: Arc::new(channels), body: Arc::new(vec![b'x'; load.bytes]) };
    let shape = Shape::single(match load.flight {
        Flight::Eager => IN_FLIGHT,
        Flight::Thousand => 1000,
        Flight::One => 1,
    });
    run(load, shape, target, &mut servers).await
}

async fn connect(url: &str, servers: &mut Servers) -> Outcome<Channel> {
    let mut last = None;
    for _ in 0..300 {
        servers.check()?;
        let ready = async {
            let channel = Endpoint::from_shared(url.to_owned())?.connect().await?;
            put(&channel, "ready".to_owned(), b"yes").await?;
            Outcome::Ok(channel)
        };
        match ready.await {
            Ok(channel) => return Ok(channel),
            Err(error) => last = Some(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("etcd doesn't answer: {}", last.unwrap_or_default()).into())
}
