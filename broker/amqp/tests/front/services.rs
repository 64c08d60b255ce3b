//! Commands of services, feedback on them, the redirect.

use std::time::Duration;

use fleetline_amqp::DeliveryState;
use fleetline_amqp::message::{Message, Properties};
use fleetline_amqp::performative::{Performative, Role};
use fleetline_amqp::value::Value;
use fleetline_batch::{BatchBuilder, Compression, Producer, RecordRef};
use fleetline_devices::{DeviceKey, OUTBOX_PRODUCER, endpoints};
use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_iothub::bag::SystemProperty;
use fleetline_types::{PartitionId, ProducerId};

use crate::client::{Client, Wish, body, data, message};
use crate::world::{POLICY_KEY, World};

fn command(to: &str, text: &str) -> Vec<u8> {
    message(|w| {
        w.properties(&Properties {
            to: Some(to),
            message_id: Value::String("m1"),
            absolute_expiry_time: Some(1_795_500_938_000 + 600_000),
            ..Properties::default()
        })
        .application_properties(|w| {
            w.string("iothub-ack");
            w.string("full");
        })
        .data(text.as_bytes());
    })
}

/// From a service to a device and back: the command, its completion, the feedback.
#[tokio::test(start_paused = true)]
async fn there_and_back() {
    let world = World::new().await;
    let mut service = world.service().await;
    let sender = service.sender("amqps://hub.example/messages/deviceBound").await;
    let wish = Wish { second: true, ..Wish::default() };
    let feedback =
        service.try_attach(0, Role::Receiver, "/messages/serviceBound/feedback", wish).await.unwrap();
    service.credit(0, feedback, 0, 1).await;
    assert_eq!(service.deliver(sender, &command("/devices/a/messages/devicebound", "go")).await, "accepted");
    let mut device = world.device("a").await;
    let commands = device.receiver("/devices/a/messages/devicebound", 5).await;
    let (id, _, payload) = device.delivery(commands).await;
    assert_eq!(body(&payload), "go");
    device.dispose(id, true, DeliveryState::Accepted).await;
    let (id, tag, payload) = service.delivery(feedback).await;
    assert_eq!(tag.len(), 16);
    let told = Message::parse(&payload).unwrap();
    let properties = told.properties().unwrap();
    assert_eq!(properties.content_type, Some("application/vnd.microsoft.iothub.feedback.json"));
    assert_eq!(properties.user_id, Some(&b"hub.example"[..]));
    assert!(matches!(told.message_annotations.get("iothub-enqueuedtime"), Some(Value::Timestamp(_))));
    let records: serde_json::Value = serde_json::from_str(&body(&payload)).unwrap();
    assert_eq!(
        (&records[0]["originalMessageId"], &records[0]["statusCode"]),
        (&"m1".into(), &"Success".into())
    );
    // Given back, it comes again; completed, it doesn't.
    service.dispose(id, false, DeliveryState::Released).await;
    assert_eq!(service.settled_by_server(id).await, "accepted");
    service.credit(0, feedback, 1, 2).await;
    let (id, _, _) = service.delivery(feedback).await;
    service.dispose(id, false, DeliveryState::Accepted).await;
    assert_eq!(service.settled_by_server(id).await, "accepted");
}

/// What a command is rejected with; the link lives on.
#[tokio::test(start_paused = true)]
async fn rejected_commands() {
    let world = World::new().await;
    let mut service = world.service().await;
    let sender = service.sender("/messages/devicebound").await;
    let to = "/devices/a/messages/devicebound";
    let ack = message(|w| {
        w.properties(&Properties { to: Some(to), ..Properties::default() })
            .application_properties(|w| {
                w.string("iothub-ack");
                w.string("maybe");
            })
            .data(b"");
    });
    for (payload, condition) in [
        (command("/devices/nobody/messages/devicebound", ""), "amqp:not-found"),
        (command("/devices/a/messages/events", ""), "com.microsoft:argument-error"),
        (data("no address"), "com.microsoft:argument-error"),
        (command(to, &"x".repeat(70_000)), "amqp:link:message-size-exceeded"),
        (ack, "com.microsoft:argument-error"),
    ] {
        assert_eq!(service.deliver(sender, &payload).await, condition);
    }
    for _ in 0..50 {
        assert_eq!(service.deliver(sender, &command(to, "x")).await, "accepted");
    }
    assert_eq!(service.deliver(sender, &command(to, "x")).await, "amqp:resource-limit-exceeded");
    assert_eq!(world.hub.view(&DeviceKey::device("a")).commands, 50);
}

/// A policy that is limited to devices and actions is so by message, and when it changes at once.
#[tokio::test(start_paused = true)]
async fn limited_policies() {
    let world = World::new().await;
    world.hub.set(|settings| {
        let policy = settings.policies.get_mut("service").unwrap();
        policy.devices = vec!["a*".into()];
        policy.actions = vec!["cloudToDeviceMessages/send/action".into()];
    });
    let mut service = world.service().await;
    let refused =
        service.try_attach(0, Role::Receiver, "/messages/serviceBound/feedback", Wish::default()).await;
    assert_eq!(refused.unwrap_err(), "amqp:unauthorized-access");
    let sender = service.sender("/messages/devicebound").await;
    assert_eq!(service.deliver(sender, &command("/devices/a/messages/devicebound", "")).await, "accepted");
    let foreign = command("/devices/b/messages/devicebound", "");
    assert_eq!(service.deliver(sender, &foreign).await, "amqp:unauthorized-access");
    world.hub.set(|settings| drop(settings.policies.remove("service")));
    let own = command("/devices/a/messages/devicebound", "");
    assert_eq!(service.deliver(sender, &own).await, "amqp:unauthorized-access");
}

/// A client that waits for feedback is told that there is none, and nothing is locked for it.
#[tokio::test(start_paused = true)]
async fn no_feedback() {
    let world = World::new().await;
    let mut service = world.service().await;
    let feedback = service.attach(Role::Receiver, "/messages/serviceBound/feedback").await;
    service.flow(0, feedback, 0, 1, true).await;
    let flow = service
        .find(|seen| match seen.performative {
            Performative::Flow(flow) if flow.handle == Some(feedback) => Some(flow),
            _ => None,
        })
        .await;
    assert_eq!((flow.link_credit, flow.delivery_count), (Some(0), Some(1)));
    service.credit(0, feedback, 1, 1).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
}

/// A notification of a file, as the hub's outbox appends it.
async fn file(world: &World, partition: u32, name: &str) {
    let source = [(SystemProperty::MessageSource.number(), &b"fileNotifications"[..])];
    let body = format!("{{\"blobName\":\"{name}\"}}");
    let note = RecordRef {
        device: b"a",
        endpoints: endpoints::EVENTS,
        system: &source,
        body: body.as_bytes(),
        ..RecordRef::default()
    };
    let telemetry = RecordRef { endpoints: endpoints::TELEMETRY, ..note };
    for (producer, record) in [(0, telemetry), (OUTBOX_PRODUCER, note)] {
        let mut builder = BatchBuilder::new(1 << 20);
        builder.push(&record).unwrap();
        let producer = Producer { id: ProducerId(producer), ..Producer::default() };
        let batch = builder.finish(producer, Compression::None).unwrap();
        DeviceHub::append(world.hub.as_ref(), PartitionId(partition), batch).await.unwrap();
    }
}

/// File notifications of all partitions; what is given back comes again, what was completed doesn't, also
/// for the next receiver.
#[tokio::test(start_paused = true)]
async fn file_notifications() {
    let world = World::new().await;
    file(&world, 0, "one").await;
    file(&world, 1, "two").await;
    let address = "amqps://hub.example:5671/messages/serviceBound/filenotifications";
    let mut service = world.service().await;
    let files = service.receiver(address, 10).await;
    let name = |payload: &[u8]| {
        let json: serde_json::Value = serde_json::from_str(&body(payload)).unwrap();
        json["blobName"].as_str().unwrap().to_owned()
    };
    let (first, tag, payload) = service.delivery(files).await;
    assert_eq!((name(&payload).as_str(), tag.len()), ("one", 16));
    let properties = Message::parse(&payload).unwrap().properties().unwrap();
    assert_eq!(properties.content_type, Some("application/vnd.microsoft.iothub.filenotification.json"));
    let (second, _, payload) = service.delivery(files).await;
    assert_eq!(name(&payload), "two");
    service.dispose(first, true, DeliveryState::Accepted).await;
    service.dispose(second, true, DeliveryState::Released).await;
    let (again, _, payload) = service.delivery(files).await;
    assert_eq!(name(&payload), "two");
    file(&world, 0, "three").await;
    let (_, _, payload) = service.delivery(files).await;
    assert_eq!(name(&payload), "three");
    service.dispose(again, true, DeliveryState::Accepted).await;
    service.detach(files).await;
    // "three" was never completed.
    let files = service.attach(Role::Receiver, address).await;
    service.flow(0, files, 0, 10, true).await;
    let (_, _, payload) = service.delivery(files).await;
    assert_eq!(name(&payload), "three");
    let flow = service
        .find(|seen| match seen.performative {
            Performative::Flow(flow) if flow.handle == Some(files) => Some(flow),
            _ => None,
        })
        .await;
    assert_eq!((flow.link_credit, flow.delivery_count), (Some(0), Some(10)));
}

/// The built-in endpoint by its old name: clients are told where it is.
#[tokio::test(start_paused = true)]
async fn redirect() {
    let world = World::new().await;
    let mut client: Client = world.service().await;
    for address in ["amqps://hub.example/messages/events/$management", "/messages/events/"] {
        let name = address.to_owned();
        let refused = client.try_attach(0, Role::Receiver, &name, Wish::default()).await;
        assert_eq!(refused.unwrap_err(), "amqp:link:redirect");
    }
    let stranger = world.signed("hub.example", POLICY_KEY, 3600, Some("device"));
    let mut client = world.client_of(&[stranger]).await;
    let refused = client.try_attach(0, Role::Receiver, "/messages/events", Wish::default()).await;
    assert_eq!(refused.unwrap_err(), "amqp:unauthorized-access");
}
