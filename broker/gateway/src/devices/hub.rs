//! The broker as fronts for devices and services see it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_devices::{
    ConnectionPlace, DeviceAnswer, DeviceCommand, DeviceKey, DeviceReply, ErrorReply, Op, Request, Wake,
};
use fleetline_types::{NodeId, PartitionId, Term};
use tokio::sync::watch;

use super::settings::HubSettings;
use crate::hub::{Appended, HubError};

/// Who leads each partition, as far as this node knows.
pub type Leaders = Arc<Vec<(Option<NodeId>, Term)>>;

/// Requests about devices, to whichever node leads their partition. The implementation looks for the
/// leader and tries again, within a bound, as long as nothing can have been done.
#[async_trait]
pub trait DeviceHub: Send + Sync + 'static {
    /// How many partitions there are.
    fn partitions(&self) -> u32;

    /// This node and its incarnation (the connection is 0).
    fn place(&self) -> ConnectionPlace;

    /// The hub's settings as this node knows them.
    fn settings(&self) -> Arc<HubSettings>;

    /// Changes a setting of the hub, from the version that was read.
    async fn put_setting(&self, name: &str, value: Bytes, expected_version: u64) -> Result<(), HubError>;

    /// Wall time, in milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// Fills `bytes` with random ones.
    fn random(&self, bytes: &mut [u8]);

    /// Appends a gateway's batch; answers with the partition's current fence too.
    async fn append(&self, partition: PartitionId, batch: Bytes) -> Result<(Appended, u32), HubError>;

    /// Asks the leader of a partition.
    async fn ask(&self, partition: PartitionId, request: Request) -> Result<DeviceAnswer, HubError>;

    /// Calls the gateway of another node, or this node's own.
    async fn call_gateway(&self, node: NodeId, call: GatewayCall) -> Result<GatewayAnswer, HubError>;

    /// Who leads, as a value to wait on.
    fn leaders(&self) -> watch::Receiver<Leaders>;

    /// Proposes a change and gives its reply; a refusal is an error.
    async fn change(&self, partition: PartitionId, op: Op) -> Result<DeviceReply, AskError> {
        let answer = self.ask(partition, Request::Change(DeviceCommand::new(op))).await?;
        let reply = answered(answer)?.reply.unwrap_or_default();
        match reply.error {
            Some(error) => Err(AskError::Refused(error)),
            None => Ok(reply),
        }
    }
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The leader refused.
    #[error("{}", .0.text)]
    Refused(ErrorReply),
    /// It could not be asked, or its answer is unknown.
    #[error(transparent)]
    Hub(#[from] HubError),
}

/// The answer, or the leader's refusal.
pub fn answered(answer: DeviceAnswer) -> Result<DeviceAnswer, AskError> {
    match answer.error {
        Some(error) => Err(AskError::Refused(error)),
        None => Ok(answer),
    }
}

/// What one node asks the gateway of another.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GatewayCall {
    /// Look at these sessions.
    #[prost(message, repeated, tag = "1")]
    pub wakes: Vec<WakeCall>,
    /// Call a method of a connected device.
    #[prost(message, optional, tag = "2")]
    pub method: Option<MethodCall>,
}

/// Look at a session.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WakeCall {
    /// Which connection.
    #[prost(message, required, tag = "1")]
    pub place: ConnectionPlace,
    /// Its session's epoch.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Why: 1 fenced, 2 desired properties, 3 commands.
    #[prost(uint32, tag = "3")]
    pub wake: u32,
}

impl WakeCall {
    /// The number of a reason.
    pub fn number(wake: Wake) -> u32 {
        match wake {
            Wake::Fenced => 1,
            Wake::Desired => 2,
            Wake::Commands => 3,
        }
    }

    /// The reason.
    pub fn reason(&self) -> Option<Wake> {
        match self.wake {
            1 => Some(Wake::Fenced),
            2 => Some(Wake::Desired),
            3 => Some(Wake::Commands),
            _ => None,
        }
    }
}

/// Calls a method of a connected device.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MethodCall {
    /// Whom.
    #[prost(message, required, tag = "1")]
    pub key: DeviceKey,
    /// Its connection.
    #[prost(message, required, tag = "2")]
    pub place: ConnectionPlace,
    /// Its session's epoch.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// The method's name.
    #[prost(string, tag = "4")]
    pub name: String,
    /// JSON text.
    #[prost(bytes = "bytes", tag = "5")]
    pub payload: Bytes,
    /// How long the device may take.
    #[prost(uint64, tag = "6")]
    pub timeout_ms: u64,
}

/// What a gateway answers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GatewayAnswer {
    /// The method's outcome.
    #[prost(message, optional, tag = "1")]
    pub method: Option<MethodAnswer>,
}

/// What became of a method call.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MethodAnswer {
    /// See the constants.
    #[prost(uint32, tag = "1")]
    pub outcome: u32,
    /// The device's status.
    #[prost(int32, tag = "2")]
    pub status: i32,
    /// The device's payload, JSON text; may be empty.
    #[prost(bytes = "bytes", tag = "3")]
    pub payload: Bytes,
}

impl MethodAnswer {
    /// The device answered.
    pub const DONE: u32 = 0;
    /// The device isn't connected here, or doesn't listen for methods: it was not called.
    pub const NOT_ONLINE: u32 = 1;
    /// It did not answer in time; it may have been called.
    pub const TIMED_OUT: u32 = 2;
    /// Its connection broke; it may have been called.
    pub const BROKEN: u32 = 3;
    /// Too many calls are open; it was not called.
    pub const BUSY: u32 = 4;

    /// An answer without a payload.
    pub fn without(outcome: u32) -> MethodAnswer {
        MethodAnswer { outcome, ..MethodAnswer::default() }
    }
}
