//! Puts a verified snapshot in the place of a group's rows and log.
//!
//! Order: rows (deleting the old ones first), flush, log. A crash between any two steps leaves a
//! mixture, which is why the `.install` file stays until everything is durable: doing it again
//! deletes what was there and comes to the same end.

use std::sync::mpsc::{Receiver, Sender, channel};

use fleetline_log::{Done, InstallPrefix, LogEntry, LogError, NodeLog};
use fleetline_state::{StateBatch, StateStore};

use crate::walk::{Chunk, SnapshotReader};
use crate::{SnapshotError, SnapshotMeta};

/// Batches of entries that may wait for the log at a time; each is one chunk.
const IN_FLIGHT_MAX: usize = 8;

pub(crate) fn install(
    mut reader: SnapshotReader,
    log: &dyn NodeLog,
    state: &dyn StateStore,
) -> Result<SnapshotMeta, SnapshotError> {
    let meta = reader.meta().clone();
    let mut clear = StateBatch::default();
    clear.delete_group(meta.group);
    state.write(clear)?;
    let first = write_rows(&mut reader, &meta, state)?;
    state.flush()?;
    write_entries(&mut reader, &meta, log, first)?;
    Ok(meta)
}

/// Writes all rows, a chunk a batch, and gives back the first chunk behind them.
fn write_rows(
    reader: &mut SnapshotReader,
    meta: &SnapshotMeta,
    state: &dyn StateStore,
) -> Result<Chunk, SnapshotError> {
    loop {
        match reader.next_chunk()? {
            Chunk::Rows(rows) => {
                let mut batch = StateBatch::default();
                for (kind, key, value) in rows {
                    batch.put(meta.group, kind, key, value);
                }
                state.write(batch)?;
            }
            other => return Ok(other),
        }
    }
}

fn write_entries(
    reader: &mut SnapshotReader,
    meta: &SnapshotMeta,
    log: &dyn NodeLog,
    first: Chunk,
) -> Result<(), SnapshotError> {
    let mut pending = Pending::new();
    let prefix = InstallPrefix { snapshot_last: meta.last, first_retained: meta.first_retained };
    log.install_begin(meta.group, prefix, pending.done())?;
    let mut chunk = first;
    loop {
        match chunk {
            Chunk::Entries(entries) => pending.add(log, meta, entries)?,
            Chunk::Rows(_) => {
                return Err(LogError::Misuse("rows behind the entries of a snapshot".to_owned()).into());
            }
            Chunk::End => return pending.wait_until(0),
        }
        chunk = reader.next_chunk()?;
    }
}

/// Requests of the log that have not been completed.
struct Pending {
    sender: Sender<Result<(), LogError>>,
    receiver: Receiver<Result<(), LogError>>,
    count: usize,
}

impl Pending {
    fn new() -> Pending {
        let (sender, receiver) = channel();
        Pending { sender, receiver, count: 0 }
    }

    /// The completion of one more request.
    fn done(&mut self) -> Done {
        self.count += 1;
        let guard = Completion { sender: Some(self.sender.clone()) };
        Box::new(move |result| guard.complete(result))
    }

    fn add(
        &mut self,
        log: &dyn NodeLog,
        meta: &SnapshotMeta,
        entries: Vec<LogEntry>,
    ) -> Result<(), SnapshotError> {
        self.wait_until(IN_FLIGHT_MAX - 1)?;
        let done = self.done();
        Ok(log.install_entries(meta.group, entries, done)?)
    }

    /// Waits until at most `open` requests are open.
    fn wait_until(&mut self, open: usize) -> Result<(), SnapshotError> {
        while self.count > open {
            let result = self.receiver.recv().expect("this side keeps a sender");
            self.count -= 1;
            result?;
        }
        Ok(())
    }
}

/// Says that the log failed if it drops a request without completing it, so that nobody waits for
/// ever.
struct Completion {
    sender: Option<Sender<Result<(), LogError>>>,
}

impl Completion {
    fn complete(mut self, result: Result<(), LogError>) {
        self.send(result);
    }

    fn send(&mut self, result: Result<(), LogError>) {
        if let Some(sender) = self.sender.take() {
            // Nobody listens any more when an earlier request failed.
            let _ = sender.send(result);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.send(Err(LogError::Io("the log dropped a request without an answer".to_owned())));
    }
}
