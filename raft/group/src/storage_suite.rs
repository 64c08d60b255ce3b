//! openraft's own suite for log storage and state machine, run over our adapters: on the log in memory,
//! and on the log on files over a disk in memory.
//!
//! What of it isn't ours:
//!
//! - It appends to an empty log from index 1 or 2 on. Our log refuses holes (so does openraft's engine,
//!   whose first entry is 0): [`Padded`] fills them with blank entries, which no rule looks at.
//! - It applies entries that it never appended. Ours waits until an entry is durable in the log, so the
//!   state machine here has a mark of its own, that says that everything is.
//! - `get_initial_state_log_ids` isn't run: it purges entries that were never applied, and then wants a
//!   snapshot up to there. Our snapshots are of what is applied, and retention purges nothing else; a
//!   state machine that made one of nothing would lose those entries. What the rule says of term ends is
//!   tested in `log_store`.
//! - `transfer_snapshot` isn't run: it hands the snapshot that one state machine made to another as
//!   openraft's handle. Our handle is no bytes: they come by `raft/driver`'s transfer, and
//!   `install_snapshot` takes what has arrived. `raft/driver/tests/cluster.rs` does it the real way.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use fleetline_env::memory::{ManualClock, MemDisk};
use fleetline_log::memory::MemLog;
use fleetline_log::{LogEntry, LogOptions, NodeLog, SegLog};
use fleetline_types::{GroupId, LogId, LogIndex, TimestampMs};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, OptionalSend, StorageError};

use crate::convert::{log_id_from_raft, log_id_to_raft};
use crate::durable::DurableMark;
use crate::kit::{GROUP, TestMachine, state_machine};
use crate::log_store::{EntryFetcher, LogStore};
use crate::state_machine::StateMachine;
use crate::types::{Entry, LogIdOf, TypeConfig, Vote};

/// Nothing is damaged here.
#[derive(Debug)]
struct NoPeers;

#[async_trait]
impl EntryFetcher for NoPeers {
    async fn fetch(&self, _group: GroupId, index: LogIndex) -> Result<LogEntry, String> {
        Err(format!("entry {index} is damaged"))
    }
}

/// The log store under test; blank entries fill the hole before an append that leaves one.
struct Padded(LogStore);

impl Padded {
    async fn fill(&mut self, first: &Entry) -> Result<(), io::Error> {
        let next = self.0.log.state(GROUP).last.map_or(0, |last| last.index.0 + 1);
        let id = log_id_from_raft(&first.log_id);
        let blank = |index| Entry {
            log_id: log_id_to_raft(LogId::new(id.term.0, index)),
            payload: EntryPayload::Blank,
        };
        self.0.append((next..id.index.0).map(blank).collect::<Vec<_>>(), IOFlushed::noop()).await
    }
}

impl RaftLogStorage<TypeConfig> for Padded {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.0.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.0.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.0.save_vote(vote).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        if let Some(first) = entries.first() {
            self.fill(first).await?;
        }
        self.0.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf>) -> Result<(), io::Error> {
        self.0.truncate_after(last).await
    }

    async fn purge(&mut self, upto: LogIdOf) -> Result<(), io::Error> {
        self.0.purge(upto).await
    }
}

struct Builder(fn() -> Arc<dyn NodeLog>);

impl StoreBuilder<TypeConfig, Padded, StateMachine> for Builder {
    async fn build(&self) -> Result<((), Padded, StateMachine), StorageError<TypeConfig>> {
        let log = (self.0)();
        let machine = state_machine(log.clone(), TestMachine::default());
        let durable = Arc::new(DurableMark::new(None));
        let fetcher = Arc::new(NoPeers);
        let store = LogStore { group: GROUP, log, durable, fetcher, append_bytes_max: 1 << 20 };
        Ok(((), Padded(store), machine))
    }
}

fn on_files() -> Arc<dyn NodeLog> {
    let clock = Arc::new(ManualClock::new(TimestampMs(0)));
    let options = LogOptions { reserve_bytes: 0, segment_bytes: 4096, ..LogOptions::new(Path::new("/log")) };
    SegLog::open(Arc::new(MemDisk::new()), clock, options).expect("an empty folder in memory").0
}

fn in_memory() -> Arc<dyn NodeLog> {
    Arc::new(MemLog::new())
}

type Ours = Suite<TypeConfig, Padded, StateMachine, Builder, ()>;

/// Runs each named rule of the suite on a new store.
macro_rules! rules {
    ($builder:expr, $($rule:ident)*) => {
        $({
            let ((), log, state) = $builder.build().await.unwrap();
            let done: Result<_, io::Error> = Ours::$rule(log, state).await.map(drop);
            done.unwrap_or_else(|error| panic!("{}: {error}", stringify!($rule)));
        })*
    };
}

/// All rules of `Suite::test_store` but those two, in its order.
async fn run(builder: Builder) {
    rules!(
        builder,
        last_membership_in_log_initial
        last_membership_in_log
        last_membership_in_log_multi_step
        get_membership_initial
        get_membership_from_log_and_empty_sm
        get_membership_from_empty_log_and_sm
        get_membership_from_log_le_sm_last_applied
        get_membership_from_log_gt_sm_last_applied_1
        get_membership_from_log_gt_sm_last_applied_2
        get_initial_state_without_init
        get_initial_state_membership_from_empty_log_and_sm
        get_initial_state_membership_from_sm_inlog_is_smaller
        get_initial_state_membership_from_log_insm_is_smaller
        get_initial_state_with_state
        get_initial_state_last_log_gt_sm
        get_initial_state_last_log_lt_sm
        get_initial_state_inverted_log_order
        get_initial_state_conflict_at_same_index
        get_initial_state_re_apply_committed
        save_vote
        get_log_entries
        limited_get_log_entries
        leader_bounded_stream
        entries_stream
        try_get_log_entry
        log_reader_reads_new_entries
        initial_logs
        get_log_state
        get_log_id
        last_id_in_log
        last_applied_state
        purge_logs_upto_0
        purge_logs_upto_5
        purge_logs_upto_20
        delete_logs_after_11
        delete_logs_after_5
        delete_logs_after_0
        delete_logs_after_none
        append_to_log
        snapshot_meta
        snapshot_meta_optional
        apply_single
        apply_multiple
    );
}

#[tokio::test]
async fn on_the_log_in_memory() {
    run(Builder(in_memory)).await;
}

#[tokio::test]
async fn on_the_log_on_files() {
    run(Builder(on_files)).await;
}
