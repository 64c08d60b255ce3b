//! How many devices there are, and how many are connected: the counters of all partitions together.

use fleetline_devices::{DeviceHead, Request};
use fleetline_iothub::model::{RegistryStatistics, ServiceStatistics};
use fleetline_types::PartitionId;
use futures::future::try_join_all;

use super::super::call::Call;
use super::super::errors::HttpError;
use super::super::reply::{self, Answer};
use crate::devices::hub::answered;

async fn heads(call: &Call) -> Result<Vec<DeviceHead>, HttpError> {
    let ask = async |partition| -> Result<DeviceHead, HttpError> {
        let answer = answered(call.hub().ask(PartitionId(partition), Request::Head(true)).await?)?;
        Ok(answer.head.unwrap_or_default())
    };
    try_join_all((0..call.hub().partitions()).map(ask)).await
}

/// GET `/statistics/devices`.
pub(super) async fn registry(call: &Call) -> Answer {
    let heads = heads(call).await?;
    let total: u64 = heads.iter().map(|head| head.devices).sum();
    let disabled: u64 = heads.iter().map(|head| head.disabled).sum();
    reply::json(&RegistryStatistics {
        total_device_count: total,
        enabled_device_count: total.saturating_sub(disabled),
        disabled_device_count: disabled,
    })
}

/// GET `/statistics/service`.
pub(super) async fn service(call: &Call) -> Answer {
    let heads = heads(call).await?;
    let connected_device_count = heads.iter().map(|head| head.connected).sum();
    reply::json(&ServiceStatistics { connected_device_count })
}
