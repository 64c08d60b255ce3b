//! What a leader answers about its devices.
//!
//! Reads wait for the group's read barrier, so they are linearizable. A proof is first checked against
//! what is applied here, which is right nearly always and costs no round: what it lets in is checked
//! once more where it is applied. Only a refusal waits for the barrier, because it must not rest on
//! old news.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_devices::{
    Ask, AskDocuments, Bulk, BulkItem, CloseSession, Connect, ConnectionPlace, DeviceAnswer, DeviceCommand,
    DeviceKey, DeviceReply, DeviceRow, DeviceView, DocumentRow, ErrorReply, List, NamedDocument, Op, Page,
    Proof, Request, Shown, Verified, Verify, check_proof, limits,
};
use fleetline_gateway::hub::HubError;
use fleetline_iothub::errors::ErrorCode;
use fleetline_partition::Partition;
use fleetline_state::StateError;
use fleetline_twins::Section;
use fleetline_types::PartitionId;
use prost::Message;

use super::NodeDevices;

/// How long a change that fences waits for its connections to be told.
const FENCED: Duration = Duration::from_secs(1);
/// Bytes of one page of documents; a frame between nodes has 16 MiB at the most.
const DOCUMENTS_BYTES_MAX: usize = 4 << 20;
/// Rows of one page at the most.
const PAGE_MAX: usize = 1000;
/// Bytes of one page at the most, or one row: an answer is held whole, and others wait behind it on the
/// peers' link. A row with its twin can have more than 100 KiB.
const PAGE_BYTES_MAX: usize = 1 << 20;

impl NodeDevices {
    /// Answers a question about a partition that this node leads.
    pub(super) async fn answer(
        &self,
        partition: PartitionId,
        request: Request,
    ) -> Result<DeviceAnswer, HubError> {
        let hosted = self.hosted(partition)?;
        match request {
            Request::Change(command) => self.change(&hosted, command).await,
            Request::Connect(connect) => self.connect(&hosted, connect).await,
            Request::Verify(verify) => self.verify(&hosted, verify).await,
            Request::Get(ask) => get(&hosted, &ask).await,
            Request::List(list) => self.list(&hosted, &list).await,
            Request::Commands(ask) => self.commands(&hosted, &ask).await,
            Request::Desired(ask) => desired(&hosted, &ask).await,
            Request::Fences(ask) => fences(&hosted, &ask).await,
            Request::Head(_) => {
                hosted.read_barrier().await?;
                Ok(DeviceAnswer { head: Some(hosted.device_head()), ..DeviceAnswer::default() })
            }
            Request::Sync(sync) => self.sync(&hosted, &sync.place).await,
            Request::Commit(commit) => {
                let committed = Some(hosted.commit(commit).await?);
                Ok(DeviceAnswer { committed, ..DeviceAnswer::default() })
            }
            Request::Documents(ask) => documents(&hosted, &ask).await,
        }
    }

    async fn change(
        &self,
        hosted: &Arc<Partition>,
        command: DeviceCommand,
    ) -> Result<DeviceAnswer, HubError> {
        let fences = command.op.as_ref().is_some_and(may_fence);
        let reply = hosted.change_devices(command).await?;
        if fences {
            // P11: connections are told before the call returns. One that can't be reached is
            // refused by the log itself.
            let effects = hosted.effects();
            drop(tokio::time::timeout(FENCED, effects.settled()).await);
        }
        Ok(replied(reply))
    }

    async fn connect(&self, hosted: &Arc<Partition>, connect: Connect) -> Result<DeviceAnswer, HubError> {
        let checked = match judge(hosted, &connect.open.key, &connect.proof).await? {
            Ok(checked) => checked,
            Err(refusal) => return Ok(refused(refusal)),
        };
        let mut open = connect.open;
        open.auth_version = checked.auth_version;
        let reply = hosted.change_devices(DeviceCommand::new(Op::OpenSession(open))).await?;
        let error = reply.error.clone();
        Ok(DeviceAnswer { error, reply: Some(reply), verified: Some(checked), ..DeviceAnswer::default() })
    }

    async fn verify(&self, hosted: &Arc<Partition>, verify: Verify) -> Result<DeviceAnswer, HubError> {
        Ok(match judge(hosted, &verify.key, &verify.proof).await? {
            Ok(checked) => DeviceAnswer { verified: Some(checked), ..DeviceAnswer::default() },
            Err(refusal) => refused(refusal),
        })
    }

    async fn list(&self, hosted: &Arc<Partition>, list: &List) -> Result<DeviceAnswer, HubError> {
        hosted.read_barrier().await?;
        let hosted = hosted.clone();
        let list = list.clone();
        blocking(move || {
            let query = hosted.devices();
            let limit = (list.limit as usize).clamp(1, PAGE_MAX);
            let page = match list.device.is_empty() {
                true => query.devices(&list.from, limit).map_err(state)?,
                false => {
                    let mut rows = query.modules(&list.device).map_err(state)?;
                    rows.retain(|row| *row.key.row_key() >= *list.from);
                    Page { rows, next: None }
                }
            };
            let (views, next) = whole_views(page, PAGE_BYTES_MAX, |row| view(&hosted, row))?;
            Ok(DeviceAnswer { views, next, ..DeviceAnswer::default() })
        })
        .await
    }

    async fn commands(&self, hosted: &Arc<Partition>, ask: &Ask) -> Result<DeviceAnswer, HubError> {
        hosted.read_barrier().await?;
        if let Some(over) = session_over(hosted, ask)? {
            return Ok(over);
        }
        let limit = (ask.limit as usize).clamp(1, limits::QUEUE_MAX as usize);
        let now = self.clock.wall().0;
        let commands = hosted.devices().commands(&ask.key, ask.after, now, limit).map_err(state)?;
        Ok(DeviceAnswer { commands, ..DeviceAnswer::default() })
    }

    /// A gateway has started: sessions of its earlier lives are over.
    async fn sync(&self, hosted: &Arc<Partition>, place: &ConnectionPlace) -> Result<DeviceAnswer, HubError> {
        hosted.read_barrier().await?;
        self.end_sessions(hosted, |found| found.node == place.node && found.incarnation != place.incarnation)
            .await?;
        Ok(DeviceAnswer { head: Some(hosted.device_head()), ..DeviceAnswer::default() })
    }

    /// Ends the sessions of connections that are gone.
    pub(super) async fn end_sessions(
        &self,
        hosted: &Arc<Partition>,
        gone: impl Fn(&ConnectionPlace) -> bool,
    ) -> Result<usize, HubError> {
        let (mut from, mut ended) = (Bytes::new(), 0);
        loop {
            let page = hosted.devices().connected(&from, limits::BULK_MAX).map_err(state)?;
            let close = |(key, session): (DeviceKey, fleetline_devices::SessionRow)| {
                let close = CloseSession { key, epoch: session.epoch, graceful: false };
                BulkItem { op: Some(Op::CloseSession(close)) }
            };
            let ops: Vec<BulkItem> =
                page.rows.into_iter().filter(|(_, session)| gone(&session.place)).map(close).collect();
            if !ops.is_empty() {
                ended += ops.len();
                hosted.change_devices(DeviceCommand::new(Op::Bulk(Bulk { ops }))).await?;
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(ended),
            }
        }
    }
}

/// Whether a change may take rights away.
fn may_fence(op: &Op) -> bool {
    match op {
        Op::PutDevice(_) | Op::DeleteDevice(_) | Op::OpenSession(_) => true,
        Op::Bulk(bulk) => bulk.ops.iter().filter_map(|item| item.op.as_ref()).any(may_fence),
        _ => false,
    }
}

fn replied(reply: DeviceReply) -> DeviceAnswer {
    DeviceAnswer { reply: Some(reply), ..DeviceAnswer::default() }
}

fn refused((code, text): (ErrorCode, String)) -> DeviceAnswer {
    DeviceAnswer { error: Some(ErrorReply { code: code.number(), text }), ..DeviceAnswer::default() }
}

pub(super) fn state(error: StateError) -> HubError {
    HubError::Internal(error.to_string())
}

/// Runs what may wait for the disk where it harms nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HubError> + Send + 'static,
) -> Result<T, HubError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(HubError::Internal(error.to_string())))
}

type Judged = Result<Verified, (ErrorCode, String)>;

/// Judges a proof; a refusal rests on what was committed when it was asked for.
async fn judge(hosted: &Arc<Partition>, key: &DeviceKey, proof: &Proof) -> Result<Judged, HubError> {
    if !hosted.group().is_leader() {
        hosted.read_barrier().await?;
    }
    if let Ok(checked) = judge_once(hosted, key, proof)? {
        return Ok(Ok(checked));
    }
    hosted.read_barrier().await?;
    judge_once(hosted, key, proof)
}

fn judge_once(hosted: &Partition, key: &DeviceKey, proof: &Proof) -> Result<Judged, HubError> {
    // Before the rows are read: what is applied between is held against the session as a fence.
    let applied = hosted.group().status().applied.map_or(0, |index| index.0);
    let fence = hosted.device_head().fence;
    let query = hosted.devices();
    let Some(row) = query.device(key).map_err(state)? else {
        // Who has proved nothing doesn't learn which ids there are.
        let code = match proof.shown {
            Some(Shown::Policy(true)) if key.is_module() => ErrorCode::ModuleNotFound,
            Some(Shown::Policy(true)) => ErrorCode::DeviceNotFound,
            _ => ErrorCode::IotHubUnauthorized,
        };
        return Ok(Err((code, format!("{} is not registered", key.text()))));
    };
    if let Err(error) = check_proof(&row, proof) {
        return Ok(Err((ErrorCode::IotHubUnauthorized, error.to_string())));
    }
    let mut disabled = row.spec.disabled;
    if key.is_module() {
        let device = query.device(&DeviceKey::device(&key.device)).map_err(state)?;
        disabled |= device.is_none_or(|device| device.spec.disabled);
    }
    if disabled {
        return Ok(Err((ErrorCode::DeviceDisabled, format!("{} is disabled", key.text()))));
    }
    Ok(Ok(Verified {
        auth_version: query.auth_version(&row).map_err(state)?,
        generation: row.generation.clone(),
        fence,
        epoch: (applied << 8) | 0xff,
        kind: row.spec.auth.kind,
        method: proof.method().to_owned(),
    }))
}

/// The views of a page's rows, in order, as many as `bytes_max` has room for and one at least; and where
/// the next page begins (empty at the end).
fn whole_views(
    page: Page<DeviceRow>,
    bytes_max: usize,
    mut view: impl FnMut(DeviceRow) -> Result<DeviceView, HubError>,
) -> Result<(Vec<DeviceView>, Bytes), HubError> {
    let mut views = Vec::with_capacity(page.rows.len());
    let mut bytes = 0;
    for row in page.rows {
        let key = row.key.row_key();
        let view = view(row)?;
        bytes += view.encoded_len();
        if bytes > bytes_max && !views.is_empty() {
            return Ok((views, key.into()));
        }
        views.push(view);
    }
    Ok((views, page.next.unwrap_or_default()))
}

fn view(hosted: &Partition, device: DeviceRow) -> Result<DeviceView, HubError> {
    let query = hosted.devices();
    let key = device.key.clone();
    Ok(DeviceView {
        device,
        twin: query.twin(&key).map_err(state)?.unwrap_or_default(),
        session: query.session(&key).map_err(state)?,
        commands: query.command_count(&key).map_err(state)?,
    })
}

/// The answer that a session is over, when the question names one that is.
fn session_over(hosted: &Partition, ask: &Ask) -> Result<Option<DeviceAnswer>, HubError> {
    if ask.epoch == 0 {
        return Ok(None);
    }
    let session = hosted.devices().session(&ask.key).map_err(state)?;
    let live = session.is_some_and(|session| session.connected && session.epoch == ask.epoch);
    Ok((!live).then(|| {
        let text = format!("session {} of {} is over", ask.epoch, ask.key.text());
        refused((ErrorCode::DeviceConnectionClosedRemotely, text))
    }))
}

async fn get(hosted: &Arc<Partition>, ask: &Ask) -> Result<DeviceAnswer, HubError> {
    hosted.read_barrier().await?;
    if let Some(over) = session_over(hosted, ask)? {
        return Ok(over);
    }
    let row = hosted.devices().device(&ask.key).map_err(state)?;
    let views = row.into_iter().map(|row| view(hosted, row)).collect::<Result<Vec<_>, _>>()?;
    Ok(DeviceAnswer { views, ..DeviceAnswer::default() })
}

/// Desired changes behind a version, without a hole; a view instead when some are forgotten.
async fn desired(hosted: &Arc<Partition>, ask: &Ask) -> Result<DeviceAnswer, HubError> {
    hosted.read_barrier().await?;
    if let Some(over) = session_over(hosted, ask)? {
        return Ok(over);
    }
    let query = hosted.devices();
    let Some(twin) = query.twin(&ask.key).map_err(state)? else {
        return Ok(DeviceAnswer::default());
    };
    let version =
        Section::decode(&twin.desired).map_err(|error| HubError::Internal(error.to_string()))?.version;
    let changes: Vec<_> = twin.recent.iter().filter(|change| change.version > ask.after).cloned().collect();
    let complete = version.saturating_sub(ask.after) == changes.len() as u64;
    match complete || version <= ask.after {
        true => Ok(DeviceAnswer { changes, ..DeviceAnswer::default() }),
        false => get(hosted, ask).await,
    }
}

/// Documents by name, at most [`DOCUMENTS_BYTES_MAX`] of them, at least one.
async fn documents(hosted: &Arc<Partition>, ask: &AskDocuments) -> Result<DeviceAnswer, HubError> {
    hosted.read_barrier().await?;
    let (hosted, ask) = (hosted.clone(), ask.clone());
    blocking(move || {
        let query = hosted.devices();
        let found = match ask.all {
            false => query
                .document(&ask.name)
                .map_err(state)?
                .map(|row| (ask.name.clone(), row))
                .into_iter()
                .collect(),
            true => {
                let limit = (ask.limit as usize).clamp(1, PAGE_MAX);
                query.documents(&ask.name, &ask.from, limit).map_err(state)?
            }
        };
        let mut bytes = 0;
        let fits = |(_, row): &(String, DocumentRow)| {
            let is_first = bytes == 0;
            bytes += row.value.len();
            is_first || bytes <= DOCUMENTS_BYTES_MAX
        };
        let documents = found.into_iter().take_while(fits).map(|(name, row)| NamedDocument { name, row });
        Ok(DeviceAnswer { documents: documents.collect(), ..DeviceAnswer::default() })
    })
    .await
}

async fn fences(hosted: &Arc<Partition>, ask: &Ask) -> Result<DeviceAnswer, HubError> {
    hosted.read_barrier().await?;
    let head = hosted.device_head();
    let after = u32::try_from(ask.after).unwrap_or(u32::MAX - 1);
    let listed = hosted.devices().fences(after, (ask.limit as usize).min(10_000)).map_err(state)?;
    Ok(DeviceAnswer {
        fences_forgotten: listed.is_none(),
        fences: listed.unwrap_or_default(),
        head: Some(head),
        ..DeviceAnswer::default()
    })
}

#[cfg(test)]
mod tests {
    use fleetline_devices::TwinRow;

    use super::*;

    fn row(device: &str) -> DeviceRow {
        DeviceRow { key: DeviceKey::device(device), ..DeviceRow::default() }
    }

    /// A view with a twin of so many bytes.
    fn view(device: DeviceRow, bytes: usize) -> DeviceView {
        let twin = TwinRow { desired: vec![0; bytes].into(), ..TwinRow::default() };
        DeviceView { device, twin, ..DeviceView::default() }
    }

    /// Pages of any size give every row once, in order; a row larger than a page has one of its own.
    #[test]
    fn pages_are_bounded_by_bytes() {
        let names = ["a", "b", "c", "d", "e"];
        let sizes = |name: &str| if name == "c" { 5000 } else { 400 };
        let mut pages = Vec::new();
        let mut from = Bytes::new();
        loop {
            let rows = names.into_iter().map(row).filter(|row| *row.key.row_key() >= *from).collect();
            let page = Page { rows, next: None };
            let found = whole_views(page, 1000, |row| {
                let bytes = sizes(&row.key.device);
                Ok(view(row, bytes))
            });
            let (views, next) = found.unwrap();
            pages.push(views.into_iter().map(|view| view.device.key.device).collect::<Vec<_>>().concat());
            from = next;
            if from.is_empty() {
                break;
            }
        }
        assert_eq!(pages, ["ab", "c", "de"]);
        let next = Some(Bytes::from_static(b"z"));
        let page = Page { rows: vec![row("a"), row("b")], next: next.clone() };
        let (views, place) = whole_views(page, 1000, |row| Ok(view(row, 10))).unwrap();
        assert_eq!((views.len(), Some(place)), (2, next));
    }
}
