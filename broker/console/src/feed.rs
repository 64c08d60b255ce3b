//! The live feed: what has come since the last tick, told to whoever watches.
//!
//! One task a node ([`Feed::run`]). While somebody watches it reads new records of the partitions that it
//! follows ([`FeedScope`]), and publishes to the realtime hub:
//!
//! ```text
//! tick       {node, at, seconds, in, bytesIn, out, bytesOut, connections,
//!             partitions: [[partition, end, start, bytes, leader, term, replicationLag, applyLag], …]}
//!            in, out: records a second; bytesIn: estimated where not all were read; out, bytesOut,
//!            connections: null where nobody counts them
//! positions  {node, at, rows: [[device, latitude, longitude, heading, altitude, speed, at, label], …]}
//! records    {node, rows: [{device, partition, offset, at, bytes, text, event}, …]}, newest last
//! ```
//!
//! Invariants:
//! 1. Rates come from the streams' ends, so they are right however little of the records is read.
//! 2. A tick reads about [`TICK_BYTES_MAX`] at the most, from partitions in turn, and keeps of it one
//!    position a device and a small sample. A reader that is too far behind leaps to the end: the page
//!    shows now, not all.
//! 3. Nothing is read while nobody watches; the first tick then begins a little before the end.

mod follow;
mod position;

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_gateway::hub::{Hub, PartitionInfo};
use fleetline_types::{NodeId, PartitionId};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};

use crate::limits::{
    POSITIONS_KEPT_MAX, TICK, TICK_BYTES_MAX, TICK_PARTITION_BYTES_MIN, TICK_PARTITIONS_MAX,
};
use crate::live::{Counters, FeedScope, Live, Meters};
use follow::{Follow, News};
use position::Position;

/// The feed of a node.
pub(crate) struct Feed {
    hub: Arc<dyn Hub>,
    devices: Arc<dyn DeviceHub>,
    meters: Option<Arc<dyn Meters>>,
    scope: FeedScope,
    /// The last position of each device, for pages that open later.
    last: Mutex<BTreeMap<String, Position>>,
}

/// What a feed remembers between ticks.
struct Run {
    follows: BTreeMap<PartitionId, Follow>,
    at: Instant,
    counters: Option<Counters>,
    /// Bytes of a record, as lately read.
    record_bytes: f64,
    /// Which of the partitions is the first to be read: where the last tick's bytes were used up.
    turn: usize,
}

impl Feed {
    pub(crate) fn new(
        hub: Arc<dyn Hub>,
        devices: Arc<dyn DeviceHub>,
        meters: Option<Arc<dyn Meters>>,
        scope: FeedScope,
    ) -> Feed {
        Feed { hub, devices, meters, scope, last: Mutex::default() }
    }

    /// Last positions of devices, as far as this node has fed them.
    pub(crate) fn positions(&self) -> Value {
        let rows: Vec<Value> = self.last.lock().iter().map(|(device, at)| at.row(device)).collect();
        json!({ "rows": rows })
    }

    /// Feeds for ever.
    pub(crate) async fn run(&self, live: &dyn Live) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut run = None;
        loop {
            ticks.tick().await;
            if live.watchers() == 0 {
                run = None;
                continue;
            }
            let run = run.get_or_insert_with(|| Run {
                follows: BTreeMap::new(),
                at: Instant::now(),
                counters: self.meters.as_ref().map(|meters| meters.read()),
                record_bytes: 0.0,
                turn: 0,
            });
            self.tick(run, live).await;
        }
    }

    /// One round: reads, and publishes what is new.
    async fn tick(&self, run: &mut Run, live: &dyn Live) {
        let node = self.hub.metadata().node;
        let infos = self.followed(node).await;
        run.follows.retain(|partition, _| infos.iter().any(|info| info.partition == *partition));
        let share = TICK_BYTES_MAX / (infos.len() as u64).max(1);
        let mut news = News::default();
        let first = run.turn % infos.len().max(1);
        for (at, info) in infos.iter().enumerate().cycle().skip(first).take(infos.len()) {
            let follow = run.follows.entry(info.partition).or_insert_with(|| Follow::begin(info));
            news.records_in += follow.count(info);
            if news.bytes_read < TICK_BYTES_MAX {
                follow.read(self.hub.as_ref(), share.max(TICK_PARTITION_BYTES_MIN), &mut news).await;
                run.turn = at + 1;
            }
        }
        self.publish(run, node, &infos, news, live);
    }

    /// The partitions that this feed speaks of.
    async fn followed(&self, node: NodeId) -> Vec<PartitionInfo> {
        let mut infos = self.hub.local_partitions().await;
        if self.scope == FeedScope::Led {
            infos.retain(|info| info.leader == Some(node));
        }
        infos.sort_unstable_by_key(|info| info.partition);
        infos
    }

    fn publish(&self, run: &mut Run, node: NodeId, infos: &[PartitionInfo], news: News, live: &dyn Live) {
        let now = Instant::now();
        let seconds = now.duration_since(run.at).as_secs_f64();
        run.at = now;
        let counters = self.meters.as_ref().map(|meters| meters.read());
        let before = std::mem::replace(&mut run.counters, counters);
        if news.records_read > 0 {
            run.record_bytes = news.bytes_read as f64 / news.records_read as f64;
        }
        let at = self.devices.now_ms();
        // The first round has no time behind it, so it has no rates: it only brings what is there.
        if seconds > 0.0 {
            let rate = |count: u64| count as f64 / seconds;
            let out = |of: fn(&Counters) -> u64| {
                Some(rate(of(counters.as_ref()?).saturating_sub(of(before.as_ref()?))))
            };
            let partitions: Vec<Value> = infos.iter().take(TICK_PARTITIONS_MAX).map(partition_row).collect();
            let tick = json!([{
                "node": node.0, "at": at, "seconds": seconds,
                "in": rate(news.records_in),
                "bytesIn": rate(news.records_in) * run.record_bytes,
                "out": out(|counters| counters.records_out),
                "bytesOut": out(|counters| counters.bytes_out),
                "connections": counters.map(|counters| counters.connections),
                "partitions": partitions,
            }]);
            live.publish("tick", tick);
        }
        if !news.positions.is_empty() {
            let rows: Vec<Value> = news.positions.iter().map(|(device, at)| at.row(device)).collect();
            live.publish("positions", json!([{ "node": node.0, "at": at, "rows": rows }]));
            self.remember(news.positions);
        }
        if !news.sample.is_empty() {
            let rows: Vec<Value> = news.sample.into();
            live.publish("records", json!([{ "node": node.0, "rows": rows }]));
        }
    }

    /// Keeps last positions; when there are too many, those that are oldest go.
    fn remember(&self, positions: BTreeMap<String, Position>) {
        let mut last = self.last.lock();
        last.extend(positions);
        if last.len() > POSITIONS_KEPT_MAX {
            let mut times: Vec<u64> = last.values().map(|position| position.at).collect();
            times.sort_unstable();
            let oldest_kept = times[times.len() - POSITIONS_KEPT_MAX * 9 / 10];
            last.retain(|_, position| position.at >= oldest_kept);
        }
        while last.len() > POSITIONS_KEPT_MAX {
            last.pop_last();
        }
    }
}

fn partition_row(info: &PartitionInfo) -> Value {
    json!([
        info.partition.0,
        info.high_watermark.0,
        info.start.0,
        info.bytes,
        info.leader.map(|node| node.0),
        info.term.0,
        info.replication_lag,
        info.apply_lag,
    ])
}
