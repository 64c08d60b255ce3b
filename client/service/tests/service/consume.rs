//! Reading: long-poll, credit, gaps, places, and nodes that go away.

use std::time::Duration;

use fleetline_client::model::ReadFrom;
use fleetline_client::{
    ConsumeError, ConsumerOptions, HubError, NodeId, Offset, PartitionId, ProducerOptions, Record,
    TimestampMs,
};
use futures::FutureExt;

use crate::nodes::Nodes;
use crate::produce::{numbers, send_numbers};

const P0: PartitionId = PartitionId(0);

/// A reader at the end waits and gets what is appended later, however often its wait is dropped.
#[tokio::test]
async fn a_reader_waits_for_records() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let mut consumer = client.consumer(P0, ReadFrom::Latest, ConsumerOptions::default());
    while consumer.position().is_none() {
        // Dropped at every await in turn: nothing may be lost by it.
        assert!(consumer.next_batch().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    let producer = client.producer(ProducerOptions::default()).unwrap();
    for number in 0..20u32 {
        let (sent, found) = tokio::join!(send_numbers(&producer, "d", number..number + 1), consumer.next());
        let ((), found) = (sent, found.unwrap());
        assert_eq!(numbers(&found), [number]);
    }
}

/// A node never pushes more than the reader's credit and one read, and credit that comes back keeps
/// the stream going to its end.
#[tokio::test]
async fn credit_bounds_what_is_pushed() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    let body = vec![b'x'; 10_000];
    for receipt in producer.send_many((0..600).map(|_| Record::new("d", &body))).await.unwrap() {
        receipt.await.unwrap();
    }
    let credit_bytes = 200_000;
    let options = ConsumerOptions { credit_bytes, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(P0, ReadFrom::Earliest, options);
    let (mut records, mut received) = (0, 0);
    while records < 600 {
        let batch = consumer.next_batch().await.unwrap();
        received += batch.records().map(|r| r.unwrap().body.len() as u64).sum::<u64>();
        records += batch.len();
        let pushed = nodes.store.bytes_read();
        let slack = credit_bytes + 200_000;
        // Heads of batches and records are a little more than bodies alone.
        assert!(pushed <= (received + slack) * 102 / 100, "{pushed} bytes pushed, {received} received");
    }
}

/// What retention removed is told with the new start, and never skipped silently.
#[tokio::test]
async fn a_gap_is_told() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    for number in 0..10 {
        send_numbers(&producer, "d", number..number + 1).await;
    }
    nodes.store.trim(P0, 4);
    let mut consumer = client.consumer(P0, ReadFrom::Offset(Offset(1)), ConsumerOptions::default());
    for _ in 0..2 {
        match consumer.next().await {
            Err(ConsumeError::OffsetGone { asked, start, .. }) => {
                assert_eq!((asked, start), (Offset(1), Offset(4)));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(consumer.position(), Some(Offset(1)), "an error does not move the position");
    }
    consumer.seek(ReadFrom::Offset(Offset(4)));
    assert_eq!(consumer.next().await.unwrap()[0].offset, Offset(4));
}

/// Reading may begin anywhere: inside a batch (what lies before is skipped), at a time, at the end.
#[tokio::test]
async fn reading_begins_at_any_place() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    nodes.store.script(vec![crate::fake::Fault::HangThenStore; 4]);
    for i in 0..4u64 {
        drop(producer.send(Record::new("d", &i.to_string())).await.unwrap());
        nodes.store.wait_appends(|appends| appends > i).await;
    }
    for number in 4..50 {
        drop(producer.send(Record::new("d", &number.to_string())).await.unwrap());
    }
    nodes.store.release();
    producer.flush().await;
    assert!(nodes.store.appends() < 10, "the last ones share a batch");
    let first =
        async |from| client.consumer(P0, from, ConsumerOptions::default()).next().await.unwrap().remove(0);
    for (from, expected) in
        [(ReadFrom::Earliest, 0), (ReadFrom::Offset(Offset(30)), 30), (ReadFrom::Time(TimestampMs(1_003)), 3)]
    {
        let record = first(from).await;
        assert_eq!(record.offset, Offset(expected), "{from:?}");
        assert_eq!(&record.body[..], expected.to_string().as_bytes());
    }
}

/// The node that serves a reader is killed: the reader goes on at another one, without a hole and
/// without a repetition.
#[tokio::test]
async fn a_reader_survives_its_node() {
    let mut nodes = Nodes::start(2, 1);
    let client = nodes.client().await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    send_numbers(&producer, "d", 0..100).await;
    let mut consumer = client.consumer(P0, ReadFrom::Earliest, ConsumerOptions::default());
    let mut found = Vec::new();
    while found.len() < 100 {
        found.extend(consumer.next().await.unwrap());
    }
    let nodes = tokio::task::spawn_blocking(move || {
        nodes.kill(1);
        nodes.store.set_leader(Some(NodeId(2)));
        nodes
    })
    .await
    .unwrap();
    send_numbers(&producer, "d", 100..200).await;
    while found.len() < 200 {
        found.extend(consumer.next().await.unwrap());
    }
    assert_eq!(numbers(&found), (0..200).collect::<Vec<_>>());
    assert!(found.iter().enumerate().all(|(at, r)| r.offset == Offset(at as u64)));
    drop(nodes);
}

/// What can't be read says so after a while: a partition that does not exist, a place behind the end.
#[tokio::test]
async fn what_cannot_be_read_says_so() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let options =
        ConsumerOptions { unreachable_timeout: Duration::from_millis(200), ..ConsumerOptions::default() };
    let mut consumer = client.consumer(PartitionId(9), ReadFrom::Earliest, options.clone());
    let error = consumer.next().await.unwrap_err();
    assert!(matches!(error, ConsumeError::Hub(HubError::NotFound(_))), "{error}");
    let mut consumer = client.consumer(P0, ReadFrom::Offset(Offset(77)), options);
    let error = consumer.next().await.unwrap_err();
    assert!(matches!(error, ConsumeError::Hub(HubError::OffsetBeyondEnd { .. })), "{error}");
}
