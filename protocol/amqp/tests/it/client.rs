//! The client of another crate against the engine, over a pipe.

use std::collections::VecDeque;

use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp::{Connection, Receiver, Sender, Session};
use fe2o3_amqp_types::messaging::{Data, Message, Outcome as TheirOutcome};
use fleetline_amqp::performative::Role;
use fleetline_amqp::sasl::{SaslCode, plain};
use fleetline_amqp::{
    Engine, EngineOptions, Error, Event, Limits, LinkId, Outcome, PeerOutcome, Send, condition,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::kit::accept;

#[derive(Default)]
struct Echo {
    queue: VecDeque<Vec<u8>>,
    out: Option<LinkId>,
    accepted: usize,
    given_back: usize,
}

impl Echo {
    fn on_event(&mut self, engine: &mut Engine, event: Event<'_>) {
        match event {
            Event::Sasl(init) => {
                let known = init.initial_response.and_then(plain) == Some(("user", "secret"));
                engine.sasl_outcome(if known { SaslCode::Ok } else { SaslCode::Auth });
                engine.authenticated();
            }
            Event::Attach(link, attach) => match (attach.address(), attach.role) {
                (Some("queue"), role) => {
                    engine.accept(link, &accept());
                    self.out = Some(link).filter(|_| role == Role::Receiver).or(self.out);
                }
                _ => engine.refuse(link, &Error::new(condition::NOT_FOUND, "no such node")),
            },
            Event::Received(received) => {
                let outcome = match received.payload.len() {
                    0..30 => Outcome::Rejected(Error::new(condition::NOT_ALLOWED, "too short")),
                    _ => {
                        self.queue.push_back(received.payload.to_vec());
                        Outcome::Accepted
                    }
                };
                engine.settle(received.receipt, &outcome);
            }
            Event::Outcome { outcome: PeerOutcome::Accepted, .. } => self.accepted += 1,
            Event::Outcome { outcome: PeerOutcome::Released, .. } => self.given_back += 1,
            _ => {}
        }
        let Some(out) = self.out else { return };
        while let Some(front) = self.queue.front() {
            let send = Send { tag: &[1; 16], format: 0, settled: false, parts: &[front] };
            if engine.send(out, &send).is_err() {
                return;
            }
            self.queue.pop_front();
        }
    }
}

async fn serve(mut io: DuplexStream) -> Echo {
    let options = EngineOptions {
        container_id: "server".into(),
        mechanisms: vec!["PLAIN"],
        limits: Limits { frame_bytes_max: 4096, ..Limits::default() },
    };
    let mut engine = Engine::new(options, 0);
    let mut echo = Echo::default();
    let mut kept: Vec<u8> = Vec::new();
    while !engine.is_over() {
        if io.read_buf(&mut kept).await.unwrap_or(0) == 0 {
            break;
        }
        loop {
            let mut input = &kept[..];
            let before = input.len();
            while let Some(event) = engine.next(0, &mut input) {
                echo.on_event(&mut engine, event);
            }
            let gone = before - input.len();
            kept.drain(..gone);
            if gone == 0 {
                break;
            }
        }
        let out = std::mem::take(engine.output());
        if io.write_all(&out).await.is_err() {
            break;
        }
    }
    echo
}

fn message(size: usize) -> Message<Data> {
    Message::builder().data(vec![size as u8; size]).build()
}

#[tokio::test]
async fn echo() {
    let (near, far) = tokio::io::duplex(64 << 10);
    let server = tokio::spawn(serve(far));
    let mut connection = Connection::builder()
        .container_id("client")
        .max_frame_size(2048)
        .sasl_profile(SaslProfile::Plain { username: "user".into(), password: "secret".into() })
        .open_with_stream(near)
        .await
        .unwrap();
    let mut session = Session::begin(&mut connection).await.unwrap();
    let mut sender = Sender::attach(&mut session, "s", "queue").await.unwrap();
    let sizes = [1, 100, 3000, 60_000];
    for size in sizes {
        let outcome = sender.send(message(size)).await.unwrap();
        assert_eq!(matches!(outcome, TheirOutcome::Accepted(_)), size > 1, "{size}");
    }
    for _ in 0..60 {
        sender.send(message(40)).await.unwrap();
    }
    let mut receiver = Receiver::attach(&mut session, "r", "queue").await.unwrap();
    for at in 0..63 {
        let delivery = receiver.recv::<Data>().await.unwrap();
        let size = sizes.get(at + 1).copied().unwrap_or(40);
        assert_eq!(delivery.body().0.len(), size);
        match at {
            0 => receiver.release(&delivery).await.unwrap(),
            _ => receiver.accept(&delivery).await.unwrap(),
        }
    }
    assert!(Sender::attach(&mut session, "n", "nowhere").await.is_err());
    sender.close().await.unwrap();
    receiver.close().await.unwrap();
    session.end().await.unwrap();
    connection.close().await.unwrap();
    let echo = server.await.unwrap();
    assert_eq!((echo.accepted, echo.given_back), (62, 1));
}

#[tokio::test]
async fn wrong_password() {
    let (near, far) = tokio::io::duplex(64 << 10);
    let server = tokio::spawn(serve(far));
    let opened = Connection::builder()
        .container_id("client")
        .sasl_profile(SaslProfile::Plain { username: "user".into(), password: "wrong".into() })
        .open_with_stream(near)
        .await;
    assert!(opened.is_err());
    server.await.unwrap();
}
