//! Blobs: archives of apps, in parts, as documents of a partition.
//!
//! ```text
//! fn/a/<sha256>-<8 hex digits>/<number of the part, 4 digits>     at most 60 KiB each
//! ```
//!
//! A blob lies in the partition of its hash. Its name has a random end, so each belongs to one version of
//! one app, and removing it can't take away what somebody else stores at that moment. What is read is
//! checked against its hash. A store that was cut off before its app's setting named the blob leaves parts
//! behind that nothing names.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fleetline_devices::{AskDocuments, Condition, Op, PutDocument, Request};
use fleetline_gateway::devices::hub::{AskError, DeviceHub, answered};
use fleetline_gateway::hub::HubError;
use fleetline_types::{PartitionId, partition_of_key};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::error::{FunctionsError, is_passing};
use crate::ids::{hex, sha256_hex};
use crate::options::{CHUNK_BYTES, CHUNKS_AT_ONCE};

/// Tries of one part while a partition changes its leader, and the pause between them.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);
/// Parts that are on their way at once.
const WRITES_AT_ONCE: usize = 8;

/// Where a blob is and what it must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BlobRef {
    pub(crate) id: String,
    pub(crate) sha256: String,
    pub(crate) size: u64,
}

impl BlobRef {
    fn partition(&self, devices: &dyn DeviceHub) -> PartitionId {
        partition_of_key(self.sha256.as_bytes(), devices.partitions())
    }

    fn chunks(&self) -> u64 {
        self.size.div_ceil(CHUNK_BYTES as u64)
    }

    fn document(&self, number: u64) -> String {
        format!("fn/a/{}/{number:04}", self.id)
    }
}

/// Stores bytes.
pub(crate) async fn put(devices: &dyn DeviceHub, bytes: &Bytes) -> Result<BlobRef, FunctionsError> {
    let mut random = [0; 4];
    devices.random(&mut random);
    let sha256 = sha256_hex(bytes);
    let blob = BlobRef { id: format!("{sha256}-{}", hex(&random)), sha256, size: bytes.len() as u64 };
    let partition = blob.partition(devices);
    let writes = (0..blob.chunks()).map(|number| {
        let from = number as usize * CHUNK_BYTES;
        let value = bytes.slice(from..bytes.len().min(from + CHUNK_BYTES));
        let put =
            PutDocument { name: blob.document(number), value, condition: Condition::upsert(), delete: false };
        change(devices, partition, put)
    });
    let mut writes = futures::stream::iter(writes).buffer_unordered(WRITES_AT_ONCE);
    let mut outcome = Ok(());
    while let Some(written) = writes.next().await {
        if written.is_err() {
            outcome = written;
            break;
        }
    }
    drop(writes);
    match outcome {
        Ok(()) => Ok(blob),
        Err(error) => {
            remove(devices, &blob).await;
            Err(error)
        }
    }
}

/// Reads a blob and checks it.
pub(crate) async fn get(devices: &dyn DeviceHub, app: &str, blob: &BlobRef) -> Result<Bytes, FunctionsError> {
    let damaged = |reason: String| FunctionsError::Damaged { app: app.to_owned(), reason };
    let partition = blob.partition(devices);
    let mut bytes = BytesMut::new();
    let mut number = 0;
    while number < blob.chunks() {
        let ask = AskDocuments {
            name: format!("fn/a/{}/", blob.id),
            all: true,
            from: blob.document(number),
            limit: CHUNKS_AT_ONCE as u32,
        };
        let answer = ask_again(|| devices.ask(partition, Request::Documents(ask.clone()))).await?;
        let answer = answered(answer)?;
        if answer.documents.is_empty() {
            return Err(damaged(format!("part {number} of {} is missing", blob.chunks())));
        }
        for document in answer.documents {
            if document.name != blob.document(number) || bytes.len() as u64 >= blob.size {
                return Err(damaged(format!("part {number} of {} is missing", blob.chunks())));
            }
            bytes.extend_from_slice(&document.row.value);
            number += 1;
        }
    }
    match bytes.len() as u64 == blob.size && sha256_hex(&bytes) == blob.sha256 {
        true => Ok(bytes.freeze()),
        false => Err(damaged("its hash is another one".to_owned())),
    }
}

/// Removes a blob as far as that can be done now.
pub(crate) async fn remove(devices: &dyn DeviceHub, blob: &BlobRef) {
    let partition = blob.partition(devices);
    let removals = (0..blob.chunks()).map(|number| {
        let put = PutDocument {
            name: blob.document(number),
            value: Bytes::new(),
            condition: Condition::upsert(),
            delete: true,
        };
        change(devices, partition, put)
    });
    let mut removals = futures::stream::iter(removals).buffer_unordered(WRITES_AT_ONCE);
    while let Some(removed) = removals.next().await {
        if let Err(error) = removed {
            tracing::warn!(blob = blob.id, %error, "parts of a function app stay behind");
            return;
        }
    }
}

/// All of these are the same when they are done twice.
async fn change(
    devices: &dyn DeviceHub,
    partition: PartitionId,
    put: PutDocument,
) -> Result<(), FunctionsError> {
    let once = || async {
        match devices.change(partition, Op::PutDocument(put.clone())).await {
            Ok(_) => Ok(Ok(())),
            Err(AskError::Hub(error)) => Err(error),
            Err(refused) => Ok(Err(refused)),
        }
    };
    ask_again(once).await?.map_err(FunctionsError::from)
}

/// Asks until there is an answer, for a while.
pub(crate) async fn ask_again<T, F, Fut>(mut ask: F) -> Result<T, HubError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, HubError>>,
{
    let mut tries = 0;
    loop {
        match ask().await {
            Err(error) if is_passing(&error) && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}
