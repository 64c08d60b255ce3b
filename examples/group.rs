//! A member of a consumer group: shares the partitions with other runs of this example and goes on
//! where the group left off.
//!
//! `cargo run -p fleetline-client --example group -- <context folder> <group> [count]`

use fleetline_client::{Client, ClientOptions, GroupEvent, GroupOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: group <context folder> <group> [count]";
    let (context, group) = (args.next().ok_or(usage)?, args.next().ok_or(usage)?);
    let mut left: usize = args.next().map_or(Ok(usize::MAX), |count| count.parse())?;

    let client = Client::connect(ClientOptions::from_context(context)?).await?;
    let mut member = client.group(&group, GroupOptions::default()).await?;
    while left > 0 {
        match member.next().await? {
            GroupEvent::Assigned { partition, next } => println!("{partition} is mine, from {next:?}"),
            GroupEvent::Batch(batch) => {
                for record in batch.records() {
                    let record = record?;
                    println!(
                        "{} {} {}",
                        batch.partition(),
                        record.offset,
                        String::from_utf8_lossy(&record.body)
                    );
                }
                // Behind the work, so that a crash repeats records rather than losing them.
                if let Err(error) = member.checkpoint(batch.partition(), batch.next_offset()).await {
                    println!("checkpoint of {}: {error}", batch.partition());
                }
                left = left.saturating_sub(batch.len());
            }
            GroupEvent::Gap { partition, asked, start } => {
                println!("{partition}: records {asked} to {start} are gone");
            }
            // Nothing is left to finish here; the next call gives the partition back.
            GroupEvent::Revoking(partition) => println!("{partition} goes to another member"),
            GroupEvent::Lost(partition) => println!("{partition} was lost"),
        }
    }
    member.leave().await?;
    Ok(())
}
