//! Calls: one request, one answer.
//!
//! The only place where requests of the native protocol meet the [`crate::hub::Hub`]. A call whose
//! connection is lost is dropped where it is: to its caller the outcome is unknown either way.

use fleetline_native::frame::{Frame, FrameKind, frame_bytes};
use fleetline_native::{HubError, Reply, Request, proto};
use quinn::SendStream;

use super::connection::StreamContext;
use super::stream::{StreamEnd, error_frame, finish_with};
use crate::access::{Access, required};
use crate::hub::Hub;

/// Answers the call in `first` and ends the stream.
pub(super) async fn run(
    context: &StreamContext,
    first: Frame,
    mut send: SendStream,
) -> Result<(), StreamEnd> {
    let request = Request::from_wire(first.decode_head::<proto::Call>()?)?;
    let (name, needs) = (request.name(), required(&request));
    let result = if context.access < needs {
        context.shared.meters.forbidden.increment(1);
        Err(forbidden(name, needs, context.access))
    } else {
        dispatch(&*context.shared.hub, request).await
    };
    let bytes = match result {
        Ok(reply) => frame_bytes(FrameKind::Answer, &reply.into_wire(), 0),
        Err(error) => {
            tracing::debug!(call = name, %error, "call failed");
            error_frame(&error)
        }
    };
    finish_with(&mut send, bytes).await
}

fn forbidden(name: &str, needs: Access, has: Access) -> HubError {
    HubError::Forbidden(format!("{name} needs {} access, the caller has {}", needs.name(), has.name()))
}

/// Has a hub do what is asked.
///
/// # Errors
/// As the hub says.
pub async fn dispatch(hub: &dyn Hub, request: Request) -> Result<Reply, HubError> {
    Ok(match request {
        Request::Metadata => Reply::Metadata(hub.metadata()),
        Request::Resolve { partition, from } => Reply::Offset(hub.resolve(partition, from).await?),
        Request::PartitionInfo(partition) => Reply::PartitionInfo(hub.partition_info(partition).await?),
        Request::LocalPartitions => Reply::Partitions(hub.local_partitions().await),
        Request::GroupJoin { group, member, client_name, session_timeout } => {
            Reply::Assignment(hub.group_join(&group, member, &client_name, session_timeout).await?)
        }
        Request::GroupHeartbeat { group, member, generation, released } => {
            Reply::Assignment(hub.group_heartbeat(&group, member, generation, &released).await?)
        }
        Request::GroupLeave { group, member } => {
            hub.group_leave(&group, member).await?;
            Reply::Done
        }
        Request::GroupDescribe { group } => Reply::Group(hub.group_describe(&group).await?),
        Request::GroupList(partition) => Reply::GroupNames(hub.group_list(partition).await?),
        Request::Claim { partition, group, member, epoch } => {
            Reply::Checkpoint(hub.claim(partition, &group, member, epoch).await?)
        }
        Request::Checkpoint { partition, group, epoch, next } => {
            hub.checkpoint(partition, &group, epoch, next).await?;
            Reply::Done
        }
        Request::CheckpointRead { partition, group } => {
            Reply::Checkpoint(hub.checkpoint_read(partition, &group).await?)
        }
        Request::Change(change) => {
            hub.change(change).await?;
            Reply::Done
        }
        Request::CreateJoinToken { valid_for } => Reply::Token(hub.create_join_token(valid_for).await?),
        Request::Join(join) => Reply::Joined(hub.join(join).await?),
    })
}
