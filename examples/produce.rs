//! Sends numbered records of a few devices and prints where each was stored.
//!
//! `cargo run -p fleetline-client --example produce -- <context folder> [count]`

use fleetline_client::{Client, ClientOptions, ProducerOptions, Record, SendError};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let context = args.next().ok_or("usage: produce <context folder> [count]")?;
    let count: u32 = args.next().map_or(Ok(10), |count| count.parse())?;

    // The folder that `fleetline serve` writes holds endpoints, authority and identity.
    let client = Client::connect(ClientOptions::from_context(context)?).await?;
    let producer = client.producer(ProducerOptions::default())?;

    // `send` waits for room only. Receipts resolve later, so that records share batches.
    let mut receipts = Vec::new();
    for number in 0..count {
        let (device, body) = (format!("device-{}", number % 4), format!("{{\"number\":{number}}}"));
        receipts.push(producer.send(Record::new(&device, &body)).await?);
    }
    for (number, receipt) in receipts.into_iter().enumerate() {
        match receipt.await {
            Ok(position) => println!("{number} {} {}", position.partition, position.offset),
            Err(SendError::Failed(reason)) => println!("{number} failed: {reason}"),
            Err(SendError::Unknown(reason)) => println!("{number} unknown: {reason}"),
        }
    }
    Ok(())
}
