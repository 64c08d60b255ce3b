//! A device's side of MQTT 3.1.1, as much as telemetry needs: log in with a token, publish at QoS 1, wait for
//! the acknowledgement.
//!
//! `replay` has one session per aircraft in flight. The bytes are `protocol/mqtt`'s.
//!
//! Invariants: one PUBLISH is in flight at a time; what comes that a device without subscriptions can't expect
//! ends the session. Not here: TCP and TLS, and what to do when a session ends.

use std::io;
use std::time::Duration;

use fleetline_mqtt::reason;
use fleetline_mqtt::{Connect, Limits, Packet, PacketId, Publish, PublishProperties, QoS, Version};
use fleetline_mqtt::{decode, encode, frame_len};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// After this many seconds without a packet the hub takes the device for gone (1.5 times it, [MQTT-3.1.2-24]).
const KEEP_ALIVE_S: u16 = 240;
/// A silent session says that it is there, well before that.
const PING_EVERY: Duration = Duration::from_secs(120);
/// How long the hub may take for an answer. A stalled disk is no reason to connect anew at once.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Bytes that are read at once: acknowledgements have four.
const READ_BYTES: usize = 512;
/// PINGREQ (3.12): complete as it is.
const PINGREQ: [u8; 2] = [0xc0, 0];

/// Why a session ended, or never began.
#[derive(Debug, Error)]
pub(super) enum MqttError {
    /// The hub doesn't let the device in: trying again is of no use.
    #[error("the hub refused the device (code {0})")]
    Refused(u8),
    /// The device has no key to prove itself with.
    #[error("the hub gave no key of the device")]
    NoKey,
    /// The hub can't take it now.
    #[error("the hub can't take the device now (code {0})")]
    Unavailable(u8),
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Ended(#[from] io::Error),
    /// The hub didn't answer.
    #[error("no answer within {} s", ANSWER_MAX.as_secs())]
    Silent,
    /// The hub said what it may not say.
    #[error("unexpected bytes from the hub: {0}")]
    Protocol(String),
}

/// Who logs in.
pub(super) struct Login<'a> {
    /// The hub's name.
    pub(super) hub: &'a str,
    /// The device.
    pub(super) device: &'a str,
    /// Its token.
    pub(super) token: &'a str,
}

/// An accepted connection.
pub(super) struct Session<S> {
    stream: S,
    /// What was read and isn't a whole packet yet.
    input: Vec<u8>,
    limits: Limits,
    last_id: u16,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Logs in: a clean session, so nothing is left of an earlier one.
    pub(super) async fn open(stream: S, login: &Login<'_>) -> Result<Session<S>, MqttError> {
        // A device has nothing to read that is longer: it subscribes to nothing.
        let limits = Limits { packet_bytes_max: 4096, ..Limits::from_server() };
        let mut session = Session { stream, input: Vec::new(), limits, last_id: 0 };
        let user = format!("{}/{}/?api-version=2021-04-12", login.hub, login.device);
        let mut connect = Connect::new(Version::V311, login.device);
        connect.keep_alive = KEEP_ALIVE_S;
        connect.username = Some(&user);
        connect.password = Some(login.token.as_bytes());
        let mut out = Vec::new();
        encode::connect(&mut out, &connect).map_err(|error| MqttError::Protocol(error.to_string()))?;
        session.write(&out).await?;
        let accepted = session.answer(|packet| match packet {
            Packet::ConnAck(connack) => Some(connack.code),
            _ => None,
        });
        match accepted.await? {
            0 => Ok(session),
            // 3.2.2.3: the server is unavailable; all others are about the client.
            3 => Err(MqttError::Unavailable(3)),
            code => Err(MqttError::Refused(code)),
        }
    }

    /// Sends a message and waits until the hub has it for good.
    pub(super) async fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<(), MqttError> {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let id = PacketId::new(self.last_id);
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic,
            packet_id: id,
            properties: PublishProperties::default(),
            payload,
        };
        let mut out = Vec::new();
        encode::publish(&mut out, Version::V311, &publish)
            .map_err(|error| MqttError::Protocol(error.to_string()))?;
        self.write(&out).await?;
        let acknowledged = self.answer(|packet| match packet {
            Packet::PubAck(ack) => Some(ack.packet_id),
            _ => None,
        });
        match acknowledged.await? {
            found if Some(found) == id => Ok(()),
            found => Err(MqttError::Protocol(format!("PUBACK for {}, not {}", found.get(), self.last_id))),
        }
    }

    /// Keeps the session while there is nothing to send; ends with it. May be dropped at any point.
    pub(super) async fn idle(&mut self) -> MqttError {
        loop {
            let done = match timeout(
                PING_EVERY,
                self.packet(|packet| matches!(packet, Packet::PingResp).then_some(())),
            )
            .await
            {
                Ok(done) => done,
                Err(_) => self.ping().await,
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    /// Says goodbye. The hub may have gone already.
    pub(super) async fn close(mut self) {
        let mut out = Vec::new();
        encode::disconnect(&mut out, Version::V311, reason::SUCCESS);
        if self.write(&out).await.is_ok() {
            drop(self.stream.shutdown().await);
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), MqttError> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// In one call, so that a caller who is dropped has written all of it or nothing.
    async fn ping(&mut self) -> Result<(), MqttError> {
        match self.stream.write(&PINGREQ).await? {
            2 => Ok(self.stream.flush().await?),
            _ => Err(MqttError::Ended(io::ErrorKind::WriteZero.into())),
        }
    }

    /// The next packet that `take` takes; PINGRESP may come before it, nothing else.
    async fn answer<T>(&mut self, take: impl Fn(&Packet<'_>) -> Option<T>) -> Result<T, MqttError> {
        timeout(ANSWER_MAX, self.packet(take)).await.map_err(|_| MqttError::Silent)?
    }

    async fn packet<T>(&mut self, take: impl Fn(&Packet<'_>) -> Option<T>) -> Result<T, MqttError> {
        let wrong = |error: &dyn std::fmt::Display| MqttError::Protocol(error.to_string());
        loop {
            let found = frame_len(&self.input, &self.limits).map_err(|error| wrong(&error))?;
            let Some(length) = found.filter(|length| *length <= self.input.len()) else {
                let mut bytes = [0; READ_BYTES];
                match self.stream.read(&mut bytes).await? {
                    0 => return Err(MqttError::Ended(io::ErrorKind::UnexpectedEof.into())),
                    count => self.input.extend_from_slice(&bytes[..count]),
                }
                continue;
            };
            let packet = decode(&self.input[..length], Some(Version::V311), &self.limits)
                .map_err(|error| wrong(&error))?;
            let taken = match (take(&packet), &packet) {
                (None, Packet::PingResp) => None,
                (None, packet) => return Err(wrong(&format_args!("{packet:?}"))),
                (taken, _) => taken,
            };
            self.input.drain(..length);
            if let Some(taken) = taken {
                return Ok(taken);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    const LOGIN: Login<'_> = Login { hub: "h", device: "d", token: "t" };

    /// A hub that answers CONNECT with these bytes; gives what it was sent.
    async fn opened(connack: &[u8]) -> (Result<Session<DuplexStream>, MqttError>, DuplexStream, Vec<u8>) {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(connack).await.unwrap();
        let session = Session::open(ours, &LOGIN).await;
        let mut sent = vec![0; 4096];
        let count = theirs.read(&mut sent).await.unwrap();
        sent.truncate(count);
        (session, theirs, sent)
    }

    /// The login is that of a device with a token; only "accepted" opens the session.
    #[tokio::test]
    async fn login() {
        let (session, _theirs, sent) = opened(b"\x20\x02\0\0").await;
        session.unwrap();
        let expected = b"\x10\x2d\0\x04MQTT\x04\xc2\0\xf0\0\x01d\0\x1bh/d/?api-version=2021-04-12";
        assert_eq!(sent, [expected.as_slice(), b"\0\x01t"].concat());
        let refused = |bytes: &'static [u8]| async move { opened(bytes).await.0.err().unwrap() };
        assert!(matches!(refused(b"\x20\x02\0\x05").await, MqttError::Refused(5)));
        assert!(matches!(refused(b"\x20\x02\0\x03").await, MqttError::Unavailable(3)));
        assert!(matches!(refused(b"\x40\x02\0\x01").await, MqttError::Protocol(_)));
        assert!(matches!(refused(b"HTTP/1.1 400").await, MqttError::Protocol(_)));
    }

    /// A message counts once its own acknowledgement is there, also when that comes in pieces.
    #[tokio::test]
    async fn publishing() {
        let (session, mut theirs, _) = opened(b"\x20\x02\0\0").await;
        let mut session = session.unwrap();
        theirs.write_all(b"\xd0\0\x40\x02\0").await.unwrap();
        {
            let mut sending = std::pin::pin!(session.publish("a/", b"xyz"));
            assert!(futures::poll!(sending.as_mut()).is_pending());
            theirs.write_all(b"\x01").await.unwrap();
            sending.await.unwrap();
        }
        let mut sent = [0; 11];
        theirs.read_exact(&mut sent).await.unwrap();
        assert_eq!(&sent, b"\x32\x09\0\x02a/\0\x01xyz");
        theirs.write_all(b"\x40\x02\0\x07").await.unwrap();
        let error = session.publish("a/", b"").await.unwrap_err().to_string();
        assert!(error.contains("PUBACK for 7, not 2"), "{error}");
    }

    /// A hub that says nothing isn't waited for without end; one that goes ends the session.
    #[tokio::test(start_paused = true)]
    async fn silence() {
        let (session, mut theirs, _) = opened(b"\x20\x02\0\0").await;
        let mut session = session.unwrap();
        assert!(matches!(session.publish("a/", b"").await, Err(MqttError::Silent)));
        let mut sent = [0; 8];
        theirs.read_exact(&mut sent).await.unwrap();
        let pinged = async {
            let mut ping = [0; 2];
            theirs.read_exact(&mut ping).await.unwrap();
            assert_eq!(ping, PINGREQ);
            drop(theirs);
        };
        let (error, ()) = tokio::join!(session.idle(), pinged);
        assert!(matches!(error, MqttError::Ended(_)), "{error}");
    }

    /// The last word is DISCONNECT.
    #[tokio::test]
    async fn goodbye() {
        let (session, mut theirs, _) = opened(b"\x20\x02\0\0").await;
        session.unwrap().close().await;
        let mut sent = Vec::new();
        theirs.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, b"\xe0\0");
    }
}
