//! The client of Fleetline: produce, read, share reading in groups, look after a cluster.
//!
//! ```no_run
//! use fleetline_client::{Client, ClientOptions, Record};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(ClientOptions::from_context("data/context")?).await?;
//! let producer = client.producer(Default::default())?;
//! let position = producer.send_wait(Record::new("thermostat-7", b"21.5")).await?;
//! println!("stored at {position:?}");
//! # Ok(())
//! # }
//! ```
//!
//! - [`Client`]: the way in; bootstraps from a few endpoints, keeps one QUIC connection per node.
//! - [`Producer`]: batches by itself, pipelines, stores once.
//! - [`Consumer`]: reads one partition from any place; [`GroupConsumer`]: shares partitions with
//!   other members and goes on from checkpoints.
//! - [`Admin`]: metadata, partitions, groups, changes of the cluster; [`join`] for new nodes.
//!
//! Every request has three outcomes: ok, failed (it did not happen), unknown (the answer was lost;
//! it may have happened once). Time-outs are the caller's, in options. What happens when a future
//! is dropped is said at each method.
#![deny(missing_docs)]

mod admin;
mod backoff;
mod batching;
mod cluster;
mod consumer;
mod error;
mod frames;
mod group;
mod link;
mod options;
mod producer;
mod record;

use std::sync::Arc;

pub use fleetline_native::HubError;
pub use fleetline_native::model;
pub use fleetline_types::{MemberId, NodeId, Offset, PartitionId, TimestampMs, partition_of_key};

pub use admin::{Admin, NodePartitions, join};
pub use consumer::{ConsumeError, Consumer, ConsumerOptions, ReceivedBatch};
pub use error::{ClientError, SendError};
pub use group::{GroupConsumer, GroupError, GroupEvent, GroupOptions};
pub use options::{ClientOptions, OptionsError};
pub use producer::{BatchReceipt, Compression, Position, Positions, Producer, ProducerOptions, SendReceipt};
pub use record::{ReceivedRecord, Record, Records};

use cluster::Cluster;
use fleetline_native::model::{Metadata, ReadFrom};

/// A connected client. Cheap to clone; clones share connections. Needs a tokio runtime.
#[derive(Clone)]
pub struct Client {
    cluster: Arc<Cluster>,
}

impl Client {
    /// Connects to the first endpoint that answers and learns the cluster from it.
    ///
    /// Cancel-safe: dropping it closes what was opened.
    ///
    /// # Errors
    /// [`ClientError`] when the options can't work or no endpoint answers within
    /// [`ClientOptions::request_timeout`].
    pub async fn connect(options: ClientOptions) -> Result<Client, ClientError> {
        Ok(Client { cluster: Cluster::connect(options).await? })
    }

    /// The cluster as last heard; [`Admin::metadata`] asks again.
    pub fn metadata(&self) -> Arc<Metadata> {
        self.cluster.metadata()
    }

    /// A new producer, with an id of its own. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Options`] when the options can't work.
    pub fn producer(&self, options: ProducerOptions) -> Result<Producer, ClientError> {
        Producer::new(self.cluster.clone(), options)
    }

    /// A reader of one partition.
    pub fn consumer(&self, partition: PartitionId, from: ReadFrom, options: ConsumerOptions) -> Consumer {
        Consumer::new(self.cluster.clone(), partition, from, options)
    }

    /// Joins a consumer group.
    ///
    /// When dropped before it is done, the member may exist until its session expires.
    ///
    /// # Errors
    /// [`GroupError::Client`] when the group's coordinator can't be reached.
    pub async fn group(&self, group: &str, options: GroupOptions) -> Result<GroupConsumer, GroupError> {
        GroupConsumer::join(self.cluster.clone(), group.to_owned(), options).await
    }

    /// The operator's view.
    pub fn admin(&self) -> Admin {
        Admin::new(self.cluster.clone())
    }
}
