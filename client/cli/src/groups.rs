//! `fleetline stream groups`: consumer groups and how far they are behind.

use fleetline_client::{Admin, PartitionId};

use crate::CliError;

/// Lists all consumer groups, or describes one.
pub(crate) async fn groups(admin: &Admin, group: Option<String>) -> Result<(), CliError> {
    let Some(group) = group else {
        let names = admin.groups().await?;
        if names.is_empty() {
            eprintln!("no consumer group has read yet; `fleetline stream consume --group NAME` makes one");
        }
        names.iter().for_each(|name| say!("{name}"));
        return Ok(());
    };
    let description = admin.group(&group).await?;
    say!("consumer group {group}, generation {}", description.generation);
    for (member, name, partitions) in &description.members {
        let owned: Vec<String> = partitions.iter().map(|partition| partition.0.to_string()).collect();
        say!("  member {} ({name}): partitions {}", member.0, owned.join(","));
    }
    say!("{:>9} {:>7} {:>12} {:>12} {:>10}", "partition", "epoch", "checkpoint", "end", "lag");
    for partition in (0..admin.metadata().await?.partitions).map(PartitionId) {
        let kept = admin.checkpoint(partition, &group).await?;
        let next = kept.next.map_or("-".to_owned(), |next| next.0.to_string());
        let lag = kept.high_watermark.0 - kept.next.map_or(0, |next| next.0.min(kept.high_watermark.0));
        say!("{:>9} {:>7} {next:>12} {:>12} {lag:>10}", partition.0, kept.epoch, kept.high_watermark.0);
    }
    Ok(())
}
