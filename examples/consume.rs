//! Reads one partition from its beginning and prints every record.
//!
//! `cargo run -p fleetline-client --example consume -- <context folder> <partition> [count]`

use fleetline_client::model::ReadFrom;
use fleetline_client::{Client, ClientOptions, ConsumeError, ConsumerOptions, PartitionId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: consume <context folder> <partition> [count]";
    let context = args.next().ok_or(usage)?;
    let partition = PartitionId(args.next().ok_or(usage)?.parse()?);
    let mut left: usize = args.next().map_or(Ok(usize::MAX), |count| count.parse())?;

    let client = Client::connect(ClientOptions::from_context(context)?).await?;
    let mut consumer = client.consumer(partition, ReadFrom::Earliest, ConsumerOptions::default());
    while left > 0 {
        // Waits for records; a lost node is replaced by another one without a word.
        match consumer.next().await {
            Ok(records) => {
                for record in records.into_iter().take(left) {
                    let device = String::from_utf8_lossy(&record.device);
                    println!("{} {device} {}", record.offset, String::from_utf8_lossy(&record.body));
                    left -= 1;
                }
            }
            // Retention was faster. A gap is never silent: say so, and go on behind it.
            Err(ConsumeError::OffsetGone { asked, start, .. }) => {
                println!("records {asked} to {start} are gone");
                consumer.seek(ReadFrom::Offset(start));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
