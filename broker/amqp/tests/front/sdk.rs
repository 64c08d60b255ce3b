//! The client of another crate: CBS, telemetry, commands, events.

use fe2o3_amqp::link::receiver::CreditMode;
use fe2o3_amqp::{Connection, Receiver, Sender, Session};
use fe2o3_amqp_types::messaging::{AmqpValue, ApplicationProperties, Data, Message, Outcome, Properties};
use fe2o3_amqp_types::primitives::SimpleValue;
use fleetline_devices::CommandRow;

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn device_and_consumer() {
    let world = World::new().await;
    let (near, _served) = world.pipe(None);
    let mut connection =
        Connection::builder().container_id("c").hostname("hub.example").open_with_stream(near).await.unwrap();
    let mut session = Session::begin(&mut connection).await.unwrap();
    let mut requests = Sender::attach(&mut session, "cbs-out", "$cbs").await.unwrap();
    let mut answers = Receiver::attach(&mut session, "cbs-in", "$cbs").await.unwrap();
    for token in [world.token("a"), world.signed_by_text("sb://hub.example/telemetry", "service")] {
        let request = Message::builder()
            .properties(Properties::builder().message_id("m".to_owned()).build())
            .application_properties(
                ApplicationProperties::builder()
                    .insert("operation", "put-token")
                    .insert("type", "servicebus.windows.net:sastoken")
                    .insert("name", "x")
                    .build(),
            )
            .body(AmqpValue(token))
            .build();
        requests.send(request).await.unwrap();
        let answer = answers.recv::<AmqpValue<serde_amqp::Value>>().await.unwrap();
        let status = answer.message().application_properties.as_ref().unwrap().0.get("status-code").unwrap();
        assert_eq!(*status, SimpleValue::Int(200));
        answers.accept(&answer).await.unwrap();
    }
    let mut events = Sender::attach(&mut session, "events", "/devices/a/messages/events").await.unwrap();
    for at in 0..100u8 {
        let outcome = events.send(Message::builder().data(vec![at; 1000]).build()).await.unwrap();
        assert!(matches!(outcome, Outcome::Accepted(_)));
    }
    world.command("a", CommandRow { body: bytes::Bytes::from_static(b"go"), ..CommandRow::default() });
    let mut commands =
        Receiver::attach(&mut session, "commands", "/devices/a/messages/devicebound").await.unwrap();
    let command = commands.recv::<Data>().await.unwrap();
    assert_eq!(&command.body().0[..], b"go");
    commands.accept(&command).await.unwrap();

    let partition = world.hub.partition_of(&fleetline_devices::DeviceKey::device("a")).0;
    let address = format!("telemetry/ConsumerGroups/$Default/Partitions/{partition}");
    let mut consumer = Receiver::builder()
        .name("consumer")
        .source(address)
        .credit_mode(CreditMode::Auto(10))
        .attach(&mut session)
        .await
        .unwrap();
    for at in 0..100u8 {
        let event = consumer.recv::<Data>().await.unwrap();
        assert_eq!(event.body().0[..], vec![at; 1000][..]);
        consumer.accept(&event).await.unwrap();
    }
    connection.close().await.unwrap();
}
