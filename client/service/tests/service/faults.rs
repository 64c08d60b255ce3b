//! What a producer makes of errors, lost answers and dead nodes: every record once and in order, or
//! an honest outcome.

use std::time::Duration;

use fleetline_client::{
    Client, ClientError, Compression, HubError, NodeId, Offset, PartitionId, Producer, ProducerOptions,
    Record, SendError,
};

use crate::fake::Fault;
use crate::nodes::Nodes;
use crate::produce::{numbers, read_all, send_numbers};

fn busy() -> Fault {
    Fault::Refuse(HubError::Busy { reason: "scripted".into(), retry_after_ms: 1 })
}

fn no_leader() -> HubError {
    HubError::NotLeader { what: "p0".into(), leader: None }
}

/// A producer whose batches hold a few records, so that several are in flight.
fn small_batches(client: &Client, delivery_timeout: Duration) -> Producer {
    let options = ProducerOptions {
        batch_bytes: 1024,
        batches_in_flight: 4,
        delivery_timeout,
        compression: Compression::None,
        ..ProducerOptions::default()
    };
    client.producer(options).unwrap()
}

const LONG: Duration = Duration::from_secs(60);

/// Errors and lost answers at many batches, of all kinds that are worth another try: each record is
/// stored once, in order.
#[tokio::test]
async fn resent_batches_are_stored_once() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let producer = small_batches(&client, LONG);
    nodes.store.script([
        Fault::StoreThenUnknown,
        busy(),
        Fault::LoseThenUnknown,
        Fault::StoreThenUnknown,
        Fault::StoreThenUnknown,
        Fault::Refuse(HubError::Unavailable("p0".into())),
        Fault::Refuse(no_leader()),
        busy(),
        Fault::StoreThenUnknown,
        Fault::Refuse(HubError::DiskFull("scripted".into())),
        Fault::LoseThenUnknown,
    ]);
    send_numbers(&producer, "d", 0..500).await;
    assert_eq!(numbers(&read_all(&client, 0, 500).await), (0..500).collect::<Vec<_>>());
}

/// The leader changes while batches are in flight: the old one names the new one, which gets the
/// same batches and recognises those it has.
#[tokio::test]
async fn a_new_leader_is_followed() {
    let nodes = Nodes::start(2, 1);
    let client = nodes.client().await;
    let producer = small_batches(&client, LONG);
    send_numbers(&producer, "d", 0..100).await;
    nodes.store.script([Fault::StoreThenUnknown]);
    for round in 1..6u32 {
        nodes.store.set_leader(Some(NodeId(u64::from(1 + round % 2))));
        send_numbers(&producer, "d", round * 100..(round + 1) * 100).await;
    }
    assert_eq!(numbers(&read_all(&client, 0, 600).await), (0..600).collect::<Vec<_>>());
}

/// The leader is killed with batches stored but not answered, and others not stored. Its silence is
/// noticed (no idle time-out is shorter than the delivery time-out here), and the new leader stores
/// each once.
#[tokio::test]
async fn a_killed_leader_loses_and_repeats_nothing() {
    let mut nodes = Nodes::start(2, 1);
    let client = nodes.client().await;
    let producer = small_batches(&client, LONG);
    send_numbers(&producer, "d", 0..10).await;
    nodes.store.script([Fault::StoreThenHang, Fault::StoreThenHang, Fault::HangThenStore]);
    let before = nodes.store.appends();
    let sending = {
        let producer = producer.clone();
        tokio::spawn(async move { send_numbers(&producer, "d", 10..1000).await })
    };
    nodes.store.wait_appends(|appends| appends >= before + 4).await;
    let nodes = tokio::task::spawn_blocking(move || {
        nodes.kill(1);
        nodes.store.set_leader(Some(NodeId(2)));
        nodes.store.release();
        nodes
    })
    .await
    .unwrap();
    sending.await.unwrap();
    assert_eq!(numbers(&read_all(&client, 0, 1000).await), (0..1000).collect::<Vec<_>>());
    drop(nodes);
}

/// A node that is killed and starts again at the same address resets the connections of its former
/// life, so clients come back at once.
#[tokio::test]
async fn a_restarted_node_is_found_again() {
    let mut nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let producer = small_batches(&client, LONG);
    send_numbers(&producer, "d", 0..10).await;
    let nodes = tokio::task::spawn_blocking(move || {
        nodes.kill(1);
        nodes.restart(1);
        nodes
    })
    .await
    .unwrap();
    send_numbers(&producer, "d", 10..20).await;
    assert_eq!(numbers(&read_all(&client, 0, 20).await), (0..20).collect::<Vec<_>>());
    drop(nodes);
}

/// A node that shuts down answers what it has taken; what it has not taken goes to the next leader.
#[tokio::test]
async fn a_shutdown_loses_nothing() {
    let mut nodes = Nodes::start(2, 1);
    let client = nodes.client().await;
    let producer = small_batches(&client, LONG);
    nodes.store.script([Fault::HangThenStore, Fault::HangThenStore]);
    let sending = {
        let producer = producer.clone();
        tokio::spawn(async move { send_numbers(&producer, "d", 0..300).await })
    };
    nodes.store.wait_appends(|appends| appends >= 2).await;
    let store = nodes.store.clone();
    let stopping = tokio::task::spawn_blocking(move || {
        nodes.shut_down(1);
        nodes
    });
    store.release();
    let nodes = stopping.await.unwrap();
    nodes.store.set_leader(Some(NodeId(2)));
    sending.await.unwrap();
    assert_eq!(numbers(&read_all(&client, 0, 300).await), (0..300).collect::<Vec<_>>());
    drop(nodes);
}

/// A batch whose answer never comes is *unknown* after the delivery time-out, and so are those
/// behind it. The producer goes on under a new epoch; nothing of the old one lands behind the new.
#[tokio::test]
async fn a_lost_answer_is_unknown() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let producer = small_batches(&client, Duration::from_millis(300));
    send_numbers(&producer, "d", 0..1).await;
    nodes.store.script([Fault::StoreThenHang]);
    let result = producer.send_wait(Record::new("d", "1")).await;
    assert!(matches!(result, Err(SendError::Unknown(_))), "{result:?}");
    send_numbers(&producer, "d", 2..20).await;
    // It had been stored after all; unknown was the truth.
    assert_eq!(numbers(&read_all(&client, 0, 20).await), (0..20).collect::<Vec<_>>());
}

/// A batch that every attempt definitely refused is *failed* after the delivery time-out, and later
/// ones are not stored in its place.
#[tokio::test]
async fn a_refused_batch_is_failed() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let producer = small_batches(&client, Duration::from_millis(300));
    send_numbers(&producer, "d", 0..1).await;
    nodes.store.set_leader(None);
    let result = producer.send_wait(Record::new("d", "1")).await;
    assert!(
        matches!(&result, Err(SendError::Failed(reason)) if reason.contains("does not lead")),
        "{result:?}"
    );
    nodes.store.set_leader(Some(NodeId(1)));
    send_numbers(&producer, "d", 2..20).await;
    let expected: Vec<u32> = [0].into_iter().chain(2..20).collect();
    assert_eq!(numbers(&read_all(&client, 0, 19).await), expected);
}

/// With no node left, nothing is ever sent: *failed*, with the obstacle in the reason.
#[tokio::test]
async fn without_nodes_sending_fails() {
    let mut nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let producer = small_batches(&client, Duration::from_millis(500));
    let nodes = tokio::task::spawn_blocking(move || {
        nodes.kill(1);
        nodes
    })
    .await
    .unwrap();
    let result = producer.send_wait(Record::new("d", "1")).await;
    assert!(matches!(&result, Err(SendError::Failed(_))), "{result:?}");
    let error = Client::connect(fleetline_client::ClientOptions {
        request_timeout: Duration::from_millis(300),
        ..nodes.options(Some(&nodes.authority.client))
    })
    .await
    .err()
    .unwrap();
    assert!(error.is_definite() && matches!(error, ClientError::Unreachable { .. }), "{error}");
}

/// A batch that is refused for good fails alone, in the middle of a pipeline: those behind it fail
/// or are stored, as their receipts say, and the producer goes on.
#[tokio::test]
async fn a_bad_batch_fails_honestly() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let producer = small_batches(&client, LONG);
    nodes.store.script([Fault::Refuse(HubError::Invalid("scripted".into()))]);
    let mut receipts = Vec::new();
    for number in 0..200u32 {
        let body = number.to_string();
        receipts.push((number, producer.send(Record::new("d", &body)).await.unwrap()));
    }
    let mut stored = Vec::new();
    for (number, receipt) in receipts {
        match receipt.await {
            Ok(position) => stored.push((position.offset, number)),
            Err(SendError::Failed(_)) => {}
            Err(error) => panic!("nothing is unknown here: {error}"),
        }
    }
    assert!(stored.len() < 200);
    send_numbers(&producer, "d", 200..210).await;
    let found = read_all(&client, 0, stored.len() + 10).await;
    let expected: Vec<u32> = stored.iter().map(|(_, n)| *n).chain(200..210).collect();
    assert_eq!(numbers(&found), expected, "what is stored is what receipts said, in order");
}

/// A partition that has forgotten the producer refuses its sequence; the producer starts a new epoch
/// and goes on.
#[tokio::test]
async fn a_forgotten_producer_starts_over() {
    let nodes = Nodes::start(1, 1);
    let client = nodes.client().await;
    let producer = small_batches(&client, LONG);
    send_numbers(&producer, "d", 0..10).await;
    nodes.store.forget_producers();
    let result = producer.send_wait(Record::new("d", "10")).await;
    assert!(matches!(&result, Err(SendError::Failed(_))), "{result:?}");
    let position = producer.send_wait(Record::new("d", "11")).await.unwrap();
    assert_eq!((position.partition, position.offset), (PartitionId(0), Offset(10)));
}
