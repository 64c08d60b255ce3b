//! An app's worker: its processes, which of them gets a call, and what is done when one ends.
//!
//! The first process is up before the app counts as started; the others follow one by one (§5: "started
//! 10 s apart"). A call goes to the process with the fewest. One that ends is replaced after a wait that
//! grows, until there were too many failures: then the app is given up, and [`Worker::exited`] says so.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fleetline_worker::{Invocation, InvocationResult, LogLevel};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::host::{Host, Language};
use crate::lines::Lines;
use crate::options::MOST_PROCESSES;
use crate::restarts::History;
use crate::session::{End, Runner, Session, after};
use crate::worker::{AppFolder, LoadedFunction, Worker, WorkerError};

/// An app that runs in processes.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    functions: Vec<LoadedFunction>,
    /// Aborted, and so killed, when the pool is dropped.
    slots: Mutex<JoinSet<()>>,
}

struct Shared {
    host: Arc<Host>,
    language: Language,
    app: AppFolder,
    lines: Arc<Lines>,
    sessions: RwLock<Vec<Option<Arc<Session>>>>,
    history: Mutex<History>,
    stop: watch::Sender<Option<Instant>>,
    exited: watch::Sender<Option<String>>,
}

impl Pool {
    pub(crate) async fn start(
        host: Arc<Host>,
        language: Language,
        app: AppFolder,
        lines: Arc<Lines>,
    ) -> Result<Self, WorkerError> {
        let count = process_count(&app);
        let history = Mutex::new(History::new(host.options.restarts, count));
        let shared = Arc::new(Shared {
            host,
            language,
            app,
            lines,
            sessions: RwLock::new(vec![None; count]),
            history,
            stop: watch::channel(None).0,
            exited: watch::channel(None).0,
        });
        let (runner, functions) = shared.start_one().await.map_err(|reason| shared.not_started(reason))?;
        // Before the app counts as started: a call must not come ahead of the slot's task.
        shared.publish(0, Some(Arc::clone(&runner.session)));
        let mut slots = JoinSet::new();
        slots.spawn(Arc::clone(&shared).run_slot(0, Some(runner)));
        if count > 1 {
            slots.spawn(Arc::clone(&shared).start_others(count));
        }
        Ok(Self { shared, functions, slots: Mutex::new(slots) })
    }
}

/// `FUNCTIONS_WORKER_PROCESS_COUNT` of the app's settings, 1 to 10, default 1 (§5).
fn process_count(app: &AppFolder) -> usize {
    let setting = app.settings.get("FUNCTIONS_WORKER_PROCESS_COUNT");
    setting.and_then(|text| text.trim().parse().ok()).unwrap_or(1).clamp(1, MOST_PROCESSES)
}

impl Shared {
    fn not_started(&self, reason: String) -> WorkerError {
        WorkerError::NotStarted { kind: self.language.name(), reason }
    }

    async fn start_one(&self) -> Result<(Runner, Vec<LoadedFunction>), String> {
        self.host.start_process(self.language, &self.app, &self.lines, self.stop.subscribe()).await
    }

    async fn start_others(self: Arc<Self>, count: usize) {
        let mut slots = JoinSet::new();
        for slot in 1..count {
            if self.wait(self.host.options.limits.between).await {
                break;
            }
            slots.spawn(Arc::clone(&self).run_slot(slot, None));
        }
        while slots.join_next().await.is_some() {}
    }

    /// Keeps one process up until the app is stopped or given up.
    async fn run_slot(self: Arc<Self>, slot: usize, mut first: Option<Runner>) {
        loop {
            // The first is there already: when the app is stopped by now, it still has to be told.
            let end = match first.take() {
                Some(runner) => self.run_one(slot, runner).await,
                None if self.is_over() => return,
                None => {
                    let mut stop = self.stop.subscribe();
                    let started = tokio::select! {
                        started = self.start_one() => started,
                        _ = stop.wait_for(Option::is_some) => return,
                    };
                    match started {
                        Ok((runner, _)) => self.run_one(slot, runner).await,
                        Err(reason) => End::Failed(reason),
                    }
                }
            };
            let Some(wait) = self.judge(&end) else { return };
            if self.wait(wait).await {
                return;
            }
        }
    }

    /// Waits, and says whether the app was stopped or given up meanwhile.
    async fn wait(&self, time: Duration) -> bool {
        let mut stop = self.stop.subscribe();
        tokio::select! {
            () = sleep(time) => false,
            _ = stop.wait_for(Option::is_some) => true,
        }
    }

    async fn run_one(&self, slot: usize, runner: Runner) -> End {
        self.publish(slot, Some(Arc::clone(&runner.session)));
        let end = runner.run().await;
        self.publish(slot, None);
        end
    }

    fn publish(&self, slot: usize, session: Option<Arc<Session>>) {
        if let Some(place) = self.sessions.write().get_mut(slot) {
            *place = session;
        }
    }

    fn is_over(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Wait before the next process; `None` when there is none.
    fn judge(&self, end: &End) -> Option<Duration> {
        match end {
            End::Stopped => None,
            // The process was well, one of its functions was slow.
            End::TimedOut => Some(Duration::ZERO),
            End::AskedRestart => Some(self.history.lock().asked()),
            End::Failed(reason) => {
                let wait = self.history.lock().failed(std::time::Instant::now());
                match wait {
                    Some(wait) => {
                        let text = format!("a worker is started again in {wait:?}: {reason}");
                        self.lines.say(LogLevel::Warning, text);
                    }
                    None => self.give_up(reason),
                }
                wait
            }
        }
    }

    fn give_up(&self, reason: &str) {
        let text = format!("the app is given up after too many failures: {reason}");
        self.lines.say(LogLevel::Error, text.clone());
        self.stop.send_replace(Some(Instant::now()));
        self.exited.send_if_modified(|exited| {
            let is_first = exited.is_none();
            exited.get_or_insert(text);
            is_first
        });
    }

    /// The process with the fewest calls.
    fn least_loaded(&self) -> Option<Arc<Session>> {
        let sessions = self.sessions.read();
        sessions.iter().flatten().min_by_key(|session| session.load()).map(Arc::clone)
    }
}

#[async_trait]
impl Worker for Pool {
    fn kind(&self) -> &'static str {
        self.shared.language.name()
    }

    fn functions(&self) -> &[LoadedFunction] {
        &self.functions
    }

    async fn invoke(&self, invocation: Invocation, limit: Duration) -> Result<InvocationResult, WorkerError> {
        let Some(session) = self.shared.least_loaded() else {
            return Err(WorkerError::NotSent { reason: "no worker process is up".to_owned() });
        };
        let result = session.begin(invocation, limit)?;
        match result.await {
            Ok(result) => result,
            Err(_) => Err(WorkerError::Exited { reason: "the worker was ended".to_owned() }),
        }
    }

    fn exited(&self) -> watch::Receiver<Option<String>> {
        self.shared.exited.subscribe()
    }

    async fn stop(&self, grace: Duration) {
        self.shared.stop.send_if_modified(|stop| {
            let is_first = stop.is_none();
            stop.get_or_insert(after(Instant::now(), grace));
            is_first
        });
        let mut slots = std::mem::take(&mut *self.slots.lock());
        while slots.join_next().await.is_some() {}
        let text = "the app was stopped".to_owned();
        self.shared.exited.send_if_modified(|exited| {
            let is_first = exited.is_none();
            exited.get_or_insert(text);
            is_first
        });
    }
}
