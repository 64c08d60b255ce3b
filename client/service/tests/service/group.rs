//! Consumer groups: sharing, handing over, being replaced.

use std::collections::BTreeMap;

use fleetline_client::{
    Client, GroupConsumer, GroupError, GroupEvent, GroupOptions, Offset, PartitionId, Producer,
    ProducerOptions, Record,
};

use crate::nodes::Nodes;

/// Sends `count` records over all partitions.
async fn fill(producer: &Producer, from: u32, count: u32) {
    for number in from..from + count {
        let (device, body) = (format!("device-{number}"), number.to_string());
        producer.send_wait(Record::new(&device, &body)).await.unwrap();
    }
}

/// What a member saw.
#[derive(Default)]
struct Seen {
    /// How often each record came, by partition and offset.
    records: BTreeMap<(PartitionId, Offset), u32>,
    assigned: BTreeMap<PartitionId, Option<Offset>>,
    lost: Vec<PartitionId>,
}

impl Seen {
    /// Takes one event, and stores a checkpoint behind every batch.
    async fn take(&mut self, member: &mut GroupConsumer) {
        match member.next().await.unwrap() {
            GroupEvent::Assigned { partition, next } => {
                self.assigned.insert(partition, next);
            }
            GroupEvent::Batch(batch) => {
                assert!(self.assigned.contains_key(&batch.partition()), "a batch before its assignment");
                for record in batch.records() {
                    *self.records.entry((batch.partition(), record.unwrap().offset)).or_default() += 1;
                }
                match member.checkpoint(batch.partition(), batch.next_offset()).await {
                    Ok(()) => {}
                    // Revoked since: the batch was told before, so the member still owns it.
                    Err(error) => panic!("{error}"),
                }
            }
            GroupEvent::Revoking(partition) => {
                self.assigned.remove(&partition);
            }
            GroupEvent::Gap { .. } => panic!("nothing was removed"),
            GroupEvent::Lost(partition) => {
                self.assigned.remove(&partition);
                self.lost.push(partition);
            }
        }
    }
}

async fn member(client: &Client, options: GroupOptions) -> GroupConsumer {
    client.group("readers", options).await.unwrap()
}

/// A second member takes over half of the partitions, each from the first one's checkpoint; every
/// record is processed once. When one leaves, the other gets everything back.
#[tokio::test]
async fn members_share_and_hand_over() {
    let nodes = Nodes::start(2, 4);
    let client = nodes.client().await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    fill(&producer, 0, 100).await;
    let (mut seen_a, mut seen_b) = (Seen::default(), Seen::default());
    let mut a = member(&client, GroupOptions::default()).await;
    while seen_a.records.len() < 100 {
        seen_a.take(&mut a).await;
    }
    assert_eq!(a.owned().len(), 4);
    let mut b = member(&client, GroupOptions::default()).await;
    while seen_b.assigned.len() < 2 {
        tokio::select! {
            () = seen_a.take(&mut a) => {}
            () = seen_b.take(&mut b) => {}
        }
    }
    assert_eq!((a.owned().len(), b.owned().len()), (2, 2));
    assert!(seen_a.lost.is_empty() && seen_b.lost.is_empty());
    assert!(seen_b.assigned.values().all(Option::is_some), "handed over with a checkpoint");
    fill(&producer, 100, 100).await;
    while seen_a.records.len() + seen_b.records.len() < 200 {
        tokio::select! {
            () = seen_a.take(&mut a) => {}
            () = seen_b.take(&mut b) => {}
        }
    }
    for (place, count) in seen_a.records.iter().chain(&seen_b.records) {
        assert_eq!(*count, 1, "{place:?} was processed again");
        assert!(!(seen_a.records.contains_key(place) && seen_b.records.contains_key(place)));
    }
    a.leave().await.unwrap();
    while seen_b.assigned.len() < 4 {
        seen_b.take(&mut b).await;
    }
    fill(&producer, 200, 20).await;
    while seen_a.records.len() + seen_b.records.len() < 220 {
        seen_b.take(&mut b).await;
    }
    let description = client.admin().group("readers").await.unwrap();
    assert_eq!(description.members.len(), 1);
    assert_eq!(client.admin().groups().await.unwrap(), ["readers"]);
}

/// An owner that was replaced behind its back can't store a checkpoint, is told, and loses the
/// partition.
#[tokio::test]
async fn a_replaced_owner_is_fenced() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    fill(&producer, 0, 1).await;
    let mut a = member(&client, GroupOptions::default()).await;
    let batch = loop {
        if let GroupEvent::Batch(batch) = a.next().await.unwrap() {
            break batch;
        }
    };
    nodes.store.usurp(PartitionId(0), "readers");
    let fenced = a.checkpoint(batch.partition(), batch.next_offset()).await;
    assert!(matches!(fenced, Err(GroupError::Fenced(PartitionId(0)))), "{fenced:?}");
    assert!(matches!(a.next().await.unwrap(), GroupEvent::Lost(PartitionId(0))));
    let again = a.checkpoint(batch.partition(), batch.next_offset()).await;
    assert!(matches!(again, Err(GroupError::NotOwned(_))), "{again:?}");
    let checkpoint = client.admin().checkpoint(PartitionId(0), "readers").await.unwrap();
    assert_eq!(checkpoint.next, None, "the refused checkpoint was not stored");
}

/// A member whose session expired loses its partitions, joins again as a new member, and goes on
/// from its checkpoints.
#[tokio::test]
async fn an_expired_member_joins_again() {
    let nodes = Nodes::start(1, 2);
    let client = nodes.client().await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    fill(&producer, 0, 50).await;
    let mut seen = Seen::default();
    let mut a = member(&client, GroupOptions::default()).await;
    while seen.records.len() < 50 {
        seen.take(&mut a).await;
    }
    let before = a.member();
    nodes.store.expire_members("readers");
    while seen.lost.len() < 2 || seen.assigned.len() < 2 {
        seen.take(&mut a).await;
    }
    assert_ne!(a.member(), before);
    assert!(seen.assigned.values().all(Option::is_some), "it goes on from its checkpoints");
    fill(&producer, 50, 10).await;
    while seen.records.len() < 60 {
        seen.take(&mut a).await;
    }
    assert!(seen.records.values().all(|count| *count == 1));
}

/// A member that does not take its events holds a bounded number of batches, however much there is
/// to read, and loses none of them.
#[tokio::test]
async fn a_slow_member_reads_no_more_than_its_bound() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    let body = vec![b'x'; 10_000];
    for receipt in producer.send_many((0..600).map(|_| Record::new("d", &body))).await.unwrap() {
        receipt.await.unwrap();
    }
    let mut options = GroupOptions { batches_waiting: 1, ..GroupOptions::default() };
    options.consumer.credit_bytes = 100_000;
    let mut a = member(&client, options).await;
    let (mut records, mut bytes) = (0, 0);
    while records < 600 {
        if let GroupEvent::Batch(batch) = a.next().await.unwrap() {
            records += batch.len();
            bytes += batch.records().map(|r| r.unwrap().body.len() as u64).sum::<u64>();
            // Credit, one read beyond it, one batch in the channel and one on its way into it.
            let bound = bytes + 100_000 + 100_000 + 2 * 65_536;
            assert!(nodes.store.bytes_read() <= bound * 102 / 100);
        }
    }
}
