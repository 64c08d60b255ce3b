//! A worker process that takes invocations: what it has been given, its answers, its end.
//!
//! [`Session`] is the shared side (the pool's callers begin calls on it), [`run`] the one task that owns
//! the process and its stream. A call is in the table from before it is sent until its answer, its time
//! limit, or the end of the process: whichever comes first takes it out and answers it, so each is
//! answered once, whether its caller still waits or not.
//!
//! A call that has run out of time can't be stopped in a language's own terms, so its process is ended;
//! other calls of that process get a short time to finish first.

use std::collections::{BTreeSet, HashMap};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use fleetline_worker::convert::{invocation_request, invocation_result, log_line};
use fleetline_worker::rpc::{self, Content, StreamingMessage};
use fleetline_worker::{Capabilities, Invocation, InvocationResult};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::gate::Link;
use crate::lines::Lines;
use crate::memory::Watched;
use crate::options::{MESSAGE_MARGIN, Options};
use crate::process::{Process, describe};
use crate::start::Started;
use crate::worker::WorkerError;

/// Time in which the answers are read that a process wrote before it ended.
const DRAIN: Duration = Duration::from_secs(1);
/// §5, exit codes: "200 = restart me".
const RESTART_CODE: i32 = 200;

type Reply = oneshot::Sender<Result<InvocationResult, WorkerError>>;

/// The side of a process that callers see.
pub(crate) struct Session {
    outbound: mpsc::WeakSender<StreamingMessage>,
    capabilities: Capabilities,
    ids: HashMap<String, String>,
    in_flight: usize,
    message_bytes: usize,
    calls: Mutex<Calls>,
    /// Wakes the task: a nearer deadline, or the last call has ended.
    wake: Notify,
}

#[derive(Default)]
struct Calls {
    /// No further calls are begun.
    is_closed: bool,
    by_id: HashMap<String, Call>,
    /// Invariant: exactly the ids of `by_id`.
    deadlines: BTreeSet<(Instant, String)>,
}

struct Call {
    reply: Reply,
    deadline: Instant,
    limit: Duration,
}

impl Calls {
    fn insert(&mut self, id: String, call: Call) {
        self.deadlines.insert((call.deadline, id.clone()));
        self.by_id.insert(id, call);
    }

    fn remove(&mut self, id: &str) -> Option<Call> {
        let call = self.by_id.remove(id)?;
        self.deadlines.remove(&(call.deadline, id.to_owned()));
        Some(call)
    }

    fn nearest(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

/// Why a process takes no more calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It ended by itself.
    Failed(String),
    /// It ended by itself and asks to be started again.
    AskedRestart,
    /// It was ended because a call has run out of time.
    TimedOut,
    /// It was told to end.
    Stopped,
}

/// Tells all processes of an app to end: until when their calls may run.
pub(crate) type StopSignal = watch::Receiver<Option<Instant>>;

impl Session {
    fn new(started: &Started, options: &Options) -> Self {
        Self {
            outbound: started.link.outbound.downgrade(),
            capabilities: started.capabilities,
            ids: started.ids.clone(),
            in_flight: options.in_flight,
            message_bytes: options.message_bytes,
            calls: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Calls that it has.
    pub(crate) fn load(&self) -> usize {
        self.calls.lock().by_id.len()
    }

    /// Sends an invocation; the receiver gets its result.
    pub(crate) fn begin(
        &self,
        invocation: Invocation,
        limit: Duration,
    ) -> Result<oneshot::Receiver<Result<InvocationResult, WorkerError>>, WorkerError> {
        let Some(own_id) = self.ids.get(&invocation.function) else {
            return Err(WorkerError::Refused(format!(
                "there is no function {} to call",
                invocation.function
            )));
        };
        let id = invocation.id.clone();
        let request = invocation_request(invocation, own_id, self.capabilities);
        let message = StreamingMessage::from(Content::InvocationRequest(request));
        let (size, most) = (message.encoded_len(), self.message_bytes - MESSAGE_MARGIN);
        if size > most {
            return Err(WorkerError::Refused(format!("it has {size} bytes, allowed are {most}")));
        }
        let (reply, result) = oneshot::channel();
        let deadline = after(Instant::now(), limit);
        self.enter(&id, Call { reply, deadline, limit })?;
        let sent = self.outbound.upgrade().is_some_and(|outbound| outbound.try_send(message).is_ok());
        if !sent {
            self.calls.lock().remove(&id);
            return Err(not_sent("the worker takes no more messages"));
        }
        Ok(result)
    }

    fn enter(&self, id: &str, call: Call) -> Result<(), WorkerError> {
        let mut calls = self.calls.lock();
        if calls.is_closed {
            return Err(not_sent("the process is ending"));
        }
        if calls.by_id.len() >= self.in_flight {
            return Err(not_sent(&format!("all processes have {} invocations", self.in_flight)));
        }
        if calls.by_id.contains_key(id) {
            return Err(WorkerError::Refused(format!("an invocation with the id {id} is running")));
        }
        let is_nearer = calls.nearest().is_none_or(|nearest| call.deadline < nearest);
        calls.insert(id.to_owned(), call);
        drop(calls);
        if is_nearer {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Answers a call, if it is still there.
    fn answer(&self, id: &str, result: Result<InvocationResult, WorkerError>) {
        let call = self.calls.lock().remove(id);
        if let Some(call) = call {
            // The caller may have gone; then nobody wants the result.
            let _ = call.reply.send(result);
        }
    }

    /// Answers all calls whose time is over, and says whether there were any.
    fn end_overdue(&self, now: Instant) -> bool {
        let mut overdue = Vec::new();
        {
            let mut calls = self.calls.lock();
            while let Some((deadline, id)) = calls.deadlines.first().cloned() {
                if deadline > now {
                    break;
                }
                overdue.extend(calls.remove(&id));
            }
        }
        let found = !overdue.is_empty();
        for call in overdue {
            let _ = call.reply.send(Err(WorkerError::TimedOut { limit: call.limit }));
        }
        found
    }

    fn close(&self) {
        self.calls.lock().is_closed = true;
    }

    /// Answers what is left.
    fn abandon(&self, reason: &str) {
        let calls = {
            let mut calls = self.calls.lock();
            calls.is_closed = true;
            calls.deadlines.clear();
            std::mem::take(&mut calls.by_id)
        };
        for call in calls.into_values() {
            let _ = call.reply.send(Err(WorkerError::Exited { reason: reason.to_owned() }));
        }
    }
}

/// The instant so much later. A limit beyond what the clock can hold is as good as none.
pub(crate) fn after(now: Instant, time: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    now + time.min(YEAR)
}

fn not_sent(reason: &str) -> WorkerError {
    WorkerError::NotSent { reason: reason.to_owned() }
}

/// The task's side of a process.
pub(crate) struct Runner {
    pub(crate) session: Arc<Session>,
    process: Process,
    link: Link,
    lines: Arc<Lines>,
    watched: Watched,
    stop: StopSignal,
    terminate: Duration,
    /// The process has ended.
    exited: Option<ExitStatus>,
    /// Nothing more comes from it.
    is_silent: bool,
    /// The pool has said that it ends.
    is_told: bool,
}

/// What the task waits for next, once the end has come.
struct Ending {
    end: End,
    until: Instant,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Calls may finish.
    Calls,
    /// The process was told to end.
    Told,
    /// It has ended, or its stream has: the rest is read.
    Rest,
}

impl Runner {
    pub(crate) fn new(
        started: Started,
        options: &Options,
        lines: Arc<Lines>,
        watched: Watched,
        stop: StopSignal,
    ) -> Self {
        let session = Arc::new(Session::new(&started, options));
        let Started { process, link, .. } = started;
        let terminate = options.limits.terminate;
        Self {
            session,
            process,
            link,
            lines,
            watched,
            stop,
            terminate,
            exited: None,
            is_silent: false,
            is_told: false,
        }
    }

    /// Runs until the process has ended, for whatever reason; all its calls are answered then.
    pub(crate) async fn run(mut self) -> End {
        let mut ending: Option<Ending> = None;
        loop {
            if let Some(ending) = &mut ending
                && self.is_over(ending)
            {
                break;
            }
            let deadline = ending.as_ref().map(|ending| ending.until);
            let step = self.next(deadline).await;
            self.handle(step, &mut ending);
        }
        let end = ending.map_or(End::Stopped, |ending| ending.end);
        let reason = self.reason(&end);
        self.session.abandon(&reason);
        drop(self.link);
        self.process.finish().await;
        match end {
            End::Failed(_) => End::Failed(reason),
            other => other,
        }
    }

    /// Why calls that are left have no result.
    fn reason(&self, end: &End) -> String {
        match end {
            End::Failed(reason) => self.process.tail.explain(reason),
            End::AskedRestart => "the worker asked to be started again".to_owned(),
            End::TimedOut => "another invocation of the same process ran out of time".to_owned(),
            End::Stopped => "the app was stopped".to_owned(),
        }
    }

    /// Whether nothing is left to wait for. Goes on to the next phase where there is one.
    fn is_over(&mut self, ending: &mut Ending) -> bool {
        let now = Instant::now();
        match ending.phase {
            Phase::Calls if now >= ending.until || self.session.load() == 0 => {
                if ending.end != End::Stopped || !self.session.capabilities.terminates {
                    return true;
                }
                self.tell_to_end();
                *ending = Ending { end: End::Stopped, until: now + self.terminate, phase: Phase::Told };
                false
            }
            Phase::Calls => false,
            Phase::Told => self.exited.is_some() || now >= ending.until,
            Phase::Rest => (self.is_silent && self.exited.is_some()) || now >= ending.until,
        }
    }

    fn tell_to_end(&self) {
        let seconds = i64::try_from(self.terminate.as_secs()).unwrap_or(i64::MAX);
        let grace_period = Some(rpc_duration(seconds));
        let message = Content::WorkerTerminate(rpc::WorkerTerminate { grace_period });
        // A full queue means that the worker reads nothing: it is killed when its time is over.
        let _ = self.link.outbound.try_send(StreamingMessage::from(message));
    }

    async fn next(&mut self, until: Option<Instant>) -> Step {
        let far = Instant::now() + Duration::from_secs(3600);
        let overdue = self.session.calls.lock().nearest().unwrap_or(far);
        tokio::select! {
            message = self.link.inbound.message(), if !self.is_silent => match message {
                Ok(Some(message)) => Step::Message(Box::new(message)),
                Ok(None) | Err(_) => Step::Silent,
            },
            status = self.process.ended(), if self.exited.is_none() => Step::Exited(status),
            () = self.watched.exceeded.notified() => Step::OutOfMemory,
            // An error means that the pool is gone, which is the same as being told to stop at once.
            told = self.stop.wait_for(Option::is_some), if !self.is_told => {
                Step::Stop(told.ok().and_then(|until| *until))
            }
            () = sleep_until(overdue) => Step::Tick,
            () = sleep_until(until.unwrap_or(far)) => Step::Tick,
            () = self.session.wake.notified() => Step::Tick,
        }
    }

    fn handle(&mut self, step: Step, ending: &mut Option<Ending>) {
        let now = Instant::now();
        let overdue = self.session.end_overdue(now);
        if overdue && ending.is_none() {
            self.begin_end(ending, End::TimedOut, Phase::Calls, now + self.terminate);
        }
        match step {
            Step::Message(message) => self.take(*message),
            Step::Tick => {}
            Step::Silent => {
                self.is_silent = true;
                let reason = "the worker closed its stream".to_owned();
                self.begin_end(ending, End::Failed(reason), Phase::Rest, now + DRAIN);
            }
            Step::Exited(status) => {
                self.exited = Some(status);
                let end = match status.code() {
                    Some(RESTART_CODE) => End::AskedRestart,
                    _ => End::Failed(format!("the worker process {}", describe(status))),
                };
                self.process_ended(ending, end, now);
            }
            Step::OutOfMemory => {
                let reason = "the worker process held more memory than it may".to_owned();
                self.begin_end(ending, End::Failed(reason), Phase::Rest, now);
            }
            Step::Stop(until) => {
                self.is_told = true;
                self.begin_end(ending, End::Stopped, Phase::Calls, until.unwrap_or(now));
            }
        }
    }

    fn begin_end(&self, ending: &mut Option<Ending>, end: End, phase: Phase, until: Instant) {
        self.session.close();
        match ending {
            None => *ending = Some(Ending { end, until, phase }),
            // Told to stop while it ends for another reason: it isn't started again, and not later.
            Some(old) if end == End::Stopped => {
                old.end = End::Stopped;
                old.until = old.until.min(until);
            }
            Some(old) if phase == Phase::Rest && old.phase == Phase::Calls => {
                old.phase = Phase::Rest;
                old.until = old.until.min(until);
            }
            Some(_) => {}
        }
    }

    /// The exit says more than the stream's end, which comes a moment earlier.
    fn process_ended(&self, ending: &mut Option<Ending>, end: End, now: Instant) {
        if let Some(old) = ending
            && matches!(old.end, End::Failed(_))
            && old.phase == Phase::Rest
        {
            old.end = end;
            return;
        }
        self.begin_end(ending, end, Phase::Rest, now + DRAIN);
    }

    fn take(&self, message: StreamingMessage) {
        match message.content {
            Some(Content::RpcLog(log)) => {
                if let Some(line) = log_line(log, self.lines.line_bytes()) {
                    self.lines.take(line);
                }
            }
            Some(Content::InvocationResponse(response)) => {
                let id = response.invocation_id.clone();
                self.session.answer(&id, Ok(invocation_result(response)));
            }
            _ => {}
        }
    }
}

enum Step {
    Message(Box<StreamingMessage>),
    Silent,
    Exited(ExitStatus),
    OutOfMemory,
    /// Until when calls may run; `None`: not at all.
    Stop(Option<Instant>),
    Tick,
}

fn rpc_duration(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}
