//! Fleetline as a hub: nodes with MQTT and HTTPS listeners, devices made through REST.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetline_client::{Client, PartitionId};
use serde::Deserialize;

use super::brokers::{Brokers, Store, Transport, Wanted};
use super::dial::{self, Login};
use super::rest::Owner;
use crate::Outcome;
use crate::fleetline::{self, PARTITIONS};
use crate::process::Servers;

/// What a node writes into `client/hub.json`, the fields that are used.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hub {
    /// File with the authority's certificate.
    authority: String,
    connection_strings: ConnectionStrings,
}

#[derive(Deserialize)]
struct ConnectionStrings {
    iothubowner: String,
}

/// Starts a hub and makes its devices.
///
/// # Errors
/// When a node ends, has no hub, or refuses the devices.
pub async fn start(wanted: Wanted) -> Outcome<Brokers> {
    let listener = match wanted.transport {
        Transport::Plain => "--mqtt-plain-listen",
        Transport::Tls => "--mqtt-listen",
    };
    let mut cluster = fleetline::start(wanted.nodes, PARTITIONS, &[listener, "--https-listen"]).await?;
    let hub = read(&cluster.context, &mut cluster.servers).await?;
    let pem = std::fs::read_to_string(cluster.context.join(&hub.authority))?;
    let owner = Owner::parse(&hub.connection_strings.iothubowner)?;
    // A key of 32 bytes, as IoT Hub makes them; what it is doesn't matter to what is measured.
    let key = STANDARD.encode([7; 32]);
    let https = cluster.listeners[0][1].parse()?;
    owner.make_devices(https, &dial::trust(&pem)?, wanted.devices, &key).await?;
    let addresses = cluster.listeners.iter().map(|node| node[0].parse()).collect::<Result<_, _>>()?;
    Ok(Brokers {
        servers: cluster.servers,
        addresses,
        login: Login::Sas { host: owner.host, key },
        authority_pem: (wanted.transport == Transport::Tls).then_some(pem),
        store: Store::Fleetline(cluster.client),
    })
}

/// Waits for the file.
async fn read(context: &Path, servers: &mut Servers) -> Outcome<Hub> {
    let file = context.join("hub.json");
    for _ in 0..300 {
        servers.check()?;
        if let Ok(text) = std::fs::read(&file)
            && let Ok(hub) = serde_json::from_slice(&text)
        {
            return Ok(hub);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("no {} that can be read", file.display()).into())
}

/// How many records readers may see, over all partitions.
///
/// # Errors
/// When a partition doesn't say.
pub async fn kept(client: &Client) -> Outcome<u64> {
    let mut count = 0;
    for partition in (0..PARTITIONS).map(PartitionId) {
        count += client.admin().partition(partition).await?.high_watermark.0;
    }
    Ok(count)
}
