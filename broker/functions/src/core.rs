//! What all parts of the tier on one node share.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_gateway::hub::Hub;
use fleetline_gateway::tiers::Cluster;
use fleetline_types::PartitionId;
use fleetline_worker::{LogLevel, LogLine};
use fleetline_workers::WorkerKind;
use parking_lot::Mutex;

use crate::ids::hex;
use crate::logs::{AppLogs, KeptLine};
use crate::options::FunctionsOptions;
use crate::realtime::RealtimeOut;
use crate::stats::FunctionStats;

/// Shows lines as they come, for local development.
pub type Printer = Arc<dyn Fn(&KeptLine) + Send + Sync>;

pub(crate) struct Core {
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) hub: Arc<dyn Hub>,
    pub(crate) devices: Arc<dyn DeviceHub>,
    pub(crate) realtime: Arc<dyn RealtimeOut>,
    pub(crate) kinds: Vec<Arc<dyn WorkerKind>>,
    pub(crate) options: FunctionsOptions,
    /// This run of this node: tells its own work from that of an earlier run.
    pub(crate) run: String,
    pub(crate) printer: OnceLock<Printer>,
    stats: Mutex<BTreeMap<(String, String), Arc<FunctionStats>>>,
    logs: Mutex<BTreeMap<String, Arc<AppLogs>>>,
}

impl Core {
    pub(crate) fn new(
        cluster: Arc<dyn Cluster>,
        realtime: Arc<dyn RealtimeOut>,
        kinds: Vec<Arc<dyn WorkerKind>>,
        options: FunctionsOptions,
    ) -> Arc<Core> {
        let (hub, devices) = (cluster.hub(), cluster.devices());
        let mut random = [0; 8];
        devices.random(&mut random);
        let run = hex(&random);
        let printer = OnceLock::new();
        let (stats, logs) = (Mutex::default(), Mutex::default());
        Arc::new(Core { cluster, hub, devices, realtime, kinds, options, run, printer, stats, logs })
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.devices.now_ms()
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..self.devices.partitions()).map(PartitionId)
    }

    /// A random GUID.
    pub(crate) fn guid(&self) -> String {
        crate::ids::guid_of(&["random", &self.random_number().to_string(), &self.random_number().to_string()])
    }

    pub(crate) fn random_number(&self) -> u64 {
        let mut random = [0; 8];
        self.devices.random(&mut random);
        u64::from_le_bytes(random)
    }

    /// The host name that the hub has for itself.
    pub(crate) fn host_name(&self) -> String {
        self.devices.settings().host_name.clone()
    }

    pub(crate) fn stats(&self, app: &str, function: &str) -> Arc<FunctionStats> {
        let key = (app.to_owned(), function.to_owned());
        let mut stats = self.stats.lock();
        stats.entry(key).or_insert_with(|| Arc::new(FunctionStats::new(app, function))).clone()
    }

    pub(crate) fn logs(&self, app: &str) -> Arc<AppLogs> {
        let FunctionsOptions { log_lines, log_line_bytes, .. } = self.options;
        let make = || Arc::new(AppLogs::new(self.cluster.node().0, log_lines, log_line_bytes));
        self.logs.lock().entry(app.to_owned()).or_insert_with(make).clone()
    }

    /// Drops what is kept about functions that aren't there any more.
    pub(crate) fn keep_only(&self, is_there: impl Fn(&str, Option<&str>) -> bool) {
        self.stats.lock().retain(|(app, function), _| is_there(app, Some(function)));
        self.logs.lock().retain(|app, _| is_there(app, None));
    }

    /// Keeps a line, and prints it where lines are printed.
    pub(crate) fn log(&self, app: &str, function: &str, line: LogLine) {
        if let Some(print) = self.printer.get() {
            print(&KeptLine {
                number: 0,
                at_ms: self.now_ms(),
                node: self.cluster.node().0,
                function: function.to_owned(),
                level: crate::logs::level_name(line.level).to_owned(),
                invocation: line.invocation.clone(),
                message: line.message.clone(),
            });
        }
        self.logs(app).push(self.now_ms(), function, line);
    }

    /// A line of the engine's own.
    pub(crate) fn say(&self, app: &str, function: &str, level: LogLevel, message: impl Into<String>) {
        let category = "Host".to_owned();
        self.log(
            app,
            function,
            LogLine { invocation: None, level, category, message: message.into(), is_system: true },
        );
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff { next: self.options.backoff.0, range: self.options.backoff }
    }
}

/// Waits that double.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    range: (Duration, Duration),
}

impl Backoff {
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.range.1);
        wait
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.range.0;
    }
}
