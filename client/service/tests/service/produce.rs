//! Sending and reading back when nothing goes wrong, and the bounds of sending.

use std::collections::BTreeMap;

use fleetline_client::model::ReadFrom;
use fleetline_client::{
    Client, ConsumerOptions, Offset, PartitionId, Producer, ProducerOptions, ReceivedRecord, Record,
    SendError,
};
use futures::FutureExt;
use futures::future::join_all;

use crate::fake::Fault;
use crate::nodes::Nodes;

/// Reads `count` records of a partition from its beginning.
pub async fn read_all(client: &Client, partition: u32, count: usize) -> Vec<ReceivedRecord> {
    let options = ConsumerOptions::default();
    let mut consumer = client.consumer(PartitionId(partition), ReadFrom::Earliest, options);
    let mut records = Vec::new();
    while records.len() < count {
        records.extend(consumer.next().await.unwrap());
    }
    records
}

/// Sends `count` records of one device, numbered in their bodies, and waits for all receipts.
pub async fn send_numbers(producer: &Producer, device: &str, numbers: std::ops::Range<u32>) {
    let mut receipts = Vec::new();
    for number in numbers {
        let body = number.to_string();
        receipts.push(producer.send(Record::new(device, &body)).await.unwrap());
    }
    for receipt in join_all(receipts).await {
        receipt.unwrap();
    }
}

/// Bodies as the numbers that [`send_numbers`] wrote.
pub fn numbers(records: &[ReceivedRecord]) -> Vec<u32> {
    records.iter().map(|r| std::str::from_utf8(&r.body).unwrap().parse().unwrap()).collect()
}

/// Records of many devices over several partitions: each receipt's position holds exactly its
/// record, offsets are dense, and every device's records are in order.
#[tokio::test]
async fn what_was_sent_is_read_in_order() {
    let nodes = Nodes::start(1, 4);
    let client = nodes.client().await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    let mut sent = BTreeMap::new();
    let mut receipts = Vec::new();
    for i in 0..2_000u32 {
        let (device, body) = (format!("device-{}", i % 50), format!("{i}"));
        receipts.push((producer.send(Record::new(&device, &body)).await.unwrap(), device, body));
    }
    for (receipt, device, body) in receipts {
        let position = receipt.await.unwrap();
        assert_eq!(position.partition, producer.partition_of(&device));
        assert!(sent.insert(position, (device, body)).is_none(), "one position for two records");
    }
    for partition in 0..4 {
        let expected: Vec<_> = sent.iter().filter(|(p, _)| p.partition == PartitionId(partition)).collect();
        let found = read_all(&client, partition, expected.len()).await;
        let mut last = BTreeMap::new();
        for (at, (record, (position, (device, body)))) in found.iter().zip(expected).enumerate() {
            assert_eq!(record.offset, Offset(at as u64));
            assert_eq!(record.offset, position.offset);
            assert_eq!((&record.device[..], &record.body[..]), (device.as_bytes(), body.as_bytes()));
            let number: u32 = body.parse().unwrap();
            assert!(last.insert(device, number).is_none_or(|before| before < number), "order of {device}");
        }
    }
}

/// While batches are in flight, records gather: many records become few batches, without a timer.
#[tokio::test]
async fn batches_form_by_themselves() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    nodes.store.script(vec![Fault::HangThenStore; 4]);
    let producer = client.producer(ProducerOptions::default()).unwrap();
    for i in 0..4u64 {
        drop(producer.send(Record::new("d", "first")).await.unwrap());
        nodes.store.wait_appends(|appends| appends > i).await;
    }
    let body = vec![b'x'; 100];
    let receipts = producer.send_many((0..1000).map(|_| Record::new("d", &body))).await.unwrap();
    assert_eq!(nodes.store.appends(), 4, "all slots are taken");
    nodes.store.release();
    let positions: Vec<_> = join_all(receipts).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(positions.iter().map(|p| p.count).sum::<u32>(), 1000);
    assert_eq!(positions[0].first, Offset(4));
    assert!(nodes.store.appends() <= 4 + 3, "1000 records of 100 bytes fit three batches");
    producer.flush().await;
}

/// A producer accepts only what its buffer holds while nothing is acknowledged, and goes on when
/// room comes back. A send that is dropped while it waits has not happened.
#[tokio::test]
async fn memory_is_bounded() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    nodes.store.script(vec![Fault::HangThenStore; 4]);
    let options = ProducerOptions {
        batch_bytes: 16 * 1024,
        buffer_bytes: 256 * 1024,
        batches_in_flight: 4,
        ..ProducerOptions::default()
    };
    let producer = client.producer(options).unwrap();
    let body = vec![b'x'; 1000];
    let mut receipts = Vec::new();
    let mut refusals = 0;
    while refusals < 100 {
        match producer.send(Record::new("d", &body)).now_or_never() {
            Some(receipt) => {
                receipts.push(receipt.unwrap());
                refusals = 0;
            }
            None => refusals += 1,
        }
        assert!(receipts.len() * body.len() <= 256 * 1024, "more than the buffer was accepted");
        // Gives the pipeline its turn, and this task a new share of the scheduler's patience.
        tokio::task::yield_now().await;
    }
    assert!(receipts.len() * body.len() > 192 * 1024, "the buffer is used: {}", receipts.len());
    let accepted = receipts.len();
    nodes.store.release();
    for result in join_all(receipts).await {
        result.unwrap();
    }
    send_numbers(&producer, "d", 0..100).await;
    let found = read_all(&client, 0, accepted + 100).await;
    assert_eq!(numbers(&found[accepted..]), (0..100).collect::<Vec<_>>());
}

/// A record that can never fit is refused at once; what follows is not disturbed.
#[tokio::test]
async fn too_large_a_record_is_refused() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    let body = vec![0u8; 100 * 1024];
    let refused = producer.send(Record::new("d", &body)).await;
    assert!(
        matches!(&refused, Err(SendError::Failed(reason)) if reason.contains("over the limit")),
        "{refused:?}"
    );
    send_numbers(&producer, "d", 0..10).await;
    assert_eq!(numbers(&read_all(&client, 0, 10).await), (0..10).collect::<Vec<_>>());
}

/// When the last producer is dropped, what it accepted is still sent.
#[tokio::test]
async fn dropping_the_producer_sends_the_rest() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    nodes.store.script([Fault::HangThenStore]);
    let producer = client.producer(ProducerOptions::default()).unwrap();
    let first = producer.send(Record::new("d", "0")).await.unwrap();
    nodes.store.wait_appends(|appends| appends == 1).await;
    let second = producer.send(Record::new("d", "1")).await.unwrap();
    drop(producer);
    nodes.store.release();
    assert_eq!(first.await.unwrap().offset, Offset(0));
    assert_eq!(second.await.unwrap().offset, Offset(1));
}

/// Batches that a caller built are stamped by the producer: stored once, in order with the rest,
/// even when the same bytes are sent twice on purpose.
#[tokio::test]
async fn built_batches_are_stamped() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    send_numbers(&producer, "d", 0..3).await;
    nodes.store.script([Fault::StoreThenUnknown]);
    let built = crate::fake::build(&[("d", "3"), ("d", "4")]);
    let one = producer.send_batch(PartitionId(0), built.clone()).await.unwrap();
    let two = producer.send_batch(PartitionId(0), built).await.unwrap();
    assert_eq!(one.await.unwrap().first, Offset(3));
    assert_eq!(two.await.unwrap().first, Offset(5));
    send_numbers(&producer, "d", 5..6).await;
    assert_eq!(numbers(&read_all(&client, 0, 8).await), [0, 1, 2, 3, 4, 3, 4, 5]);
    let refused = producer.send_batch(PartitionId(0), "no batch".into()).await;
    assert!(matches!(refused, Err(SendError::Failed(_))));
    let refused = producer.send_batch(PartitionId(7), crate::fake::build(&[("d", "x")])).await;
    assert!(matches!(refused, Err(SendError::Failed(_))));
}

/// Options that can't work are refused before anything is sent.
#[tokio::test]
async fn bad_options_are_refused() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    for options in [
        ProducerOptions { batches_in_flight: 0, ..ProducerOptions::default() },
        ProducerOptions { batches_in_flight: 9, ..ProducerOptions::default() },
        ProducerOptions { batch_bytes: 10, ..ProducerOptions::default() },
    ] {
        assert!(client.producer(options).is_err());
    }
}
