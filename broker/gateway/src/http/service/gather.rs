//! Identities of all partitions, in order of partition and key.

use bytes::Bytes;
use fleetline_devices::{DeviceKey, DeviceView, List, Request};
use fleetline_types::PartitionId;

use super::super::call::Call;
use super::super::errors::HttpError;
use crate::devices::hub::answered;

/// Identities that are asked for at a time: with full twins they are some megabytes.
const PAGE: u32 = 50;

/// A place in the order of all identities: the first that isn't looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partition: u32,
    pub(super) from: Bytes,
}

impl Place {
    /// Behind this identity.
    pub(super) fn behind(partition: u32, key: &DeviceKey) -> Place {
        let mut from = key.row_key();
        from.push(0);
        Place { partition, from: from.into() }
    }
}

/// A walk over all identities.
#[derive(Debug)]
pub(super) struct Walk {
    next: Place,
    /// The partition of the page that was given last.
    pub(super) partition: u32,
}

impl Walk {
    pub(super) fn from_start() -> Walk {
        Walk::from_place(Place { partition: 0, from: Bytes::new() })
    }

    pub(super) fn from_place(next: Place) -> Walk {
        Walk { partition: next.partition, next }
    }

    /// Where the next page begins; `None` at the end.
    pub(super) fn place(&self, call: &Call) -> Option<Place> {
        (self.next.partition < call.hub().partitions()).then(|| self.next.clone())
    }

    /// The next identities, maybe none; `None` at the end.
    pub(super) async fn next(&mut self, call: &Call) -> Result<Option<Vec<DeviceView>>, HttpError> {
        let Some(Place { partition, from }) = self.place(call) else {
            return Ok(None);
        };
        let list = Request::List(List { from, limit: PAGE, device: String::new() });
        let answer = answered(call.hub().ask(PartitionId(partition), list).await?)?;
        self.partition = partition;
        self.next = match answer.next.is_empty() {
            true => Place { partition: partition + 1, from: Bytes::new() },
            false => Place { partition, from: answer.next },
        };
        Ok(Some(answer.views))
    }
}
