//! One worker process: its environment, its group, its output, its end.
//!
//! The process begins with an environment that holds nothing of the node's, in a process group of its
//! own, as another user where possible, and waits for its secret on standard input. Limits are set before
//! the secret is given, so nothing of the app runs without them. The pipe stays open as its life line.
//!
//! Invariant: when a [`Process`] is dropped, its whole group is killed. What has left the group (a
//! daemon of the app's own) is held by the user's limits alone.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, prlimit};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;

use crate::lines::{Lines, Pipe, Tail, read_output};
use crate::options::MOST_THREADS;

/// Time for the output of a process that has ended to be read: a child of it may hold the pipe open.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// What a process is started with.
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) folder: PathBuf,
    /// Home and place for temporary files; removed with the process.
    pub(crate) home: PathBuf,
    pub(crate) user: Option<(u32, u32)>,
    pub(crate) secret: String,
    pub(crate) memory: u64,
}

/// A process that runs.
pub(crate) struct Process {
    child: Child,
    group: Pid,
    home: PathBuf,
    status: Option<ExitStatus>,
    output: Vec<JoinHandle<()>>,
    pub(crate) tail: Arc<Tail>,
    /// Dropped last: when it closes, what is left of the process ends by itself.
    life_line: ChildStdin,
}

impl Process {
    pub(crate) async fn start(launch: Launch, lines: Arc<Lines>) -> io::Result<Self> {
        make_home(launch.home.clone(), launch.user).await?;
        let mut command = Command::new(&launch.program);
        command
            .args(&launch.arguments)
            .env_clear()
            .envs(&launch.environment)
            .current_dir(&launch.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some((uid, gid)) = launch.user {
            // As root, further groups are given up along with the user.
            command.uid(uid).gid(gid);
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                remove_home(launch.home);
                return Err(error);
            }
        };
        let pieces = (child.stdin.take(), child.stdout.take(), child.stderr.take(), pid_of(&child));
        let (Some(life_line), Some(out), Some(err), Some(group)) = pieces else {
            remove_home(launch.home);
            return Err(io::Error::other("the process has no pipes"));
        };
        let tail = Arc::new(Tail::default());
        let output = vec![
            tokio::spawn(read_output(out, Pipe::Out, Arc::clone(&lines), Arc::clone(&tail))),
            tokio::spawn(read_output(err, Pipe::Err, lines, Arc::clone(&tail))),
        ];
        let home = launch.home;
        let mut process = Self { child, group, home, status: None, output, tail, life_line };
        process.limit(launch.memory)?;
        process.greet(&launch.secret).await;
        Ok(process)
    }

    /// Sets what the system itself holds the process to. The watch over memory (`memory.rs`) is exact
    /// but late; the limit on data ends one that takes everything at once.
    fn limit(&self, memory: u64) -> io::Result<()> {
        let data = memory.saturating_mul(2).saturating_add(2 << 30);
        let limits = [(Resource::Core, 0), (Resource::Data, data), (Resource::Nproc, MOST_THREADS)];
        for (resource, bound) in limits {
            let limit = Rlimit { current: Some(bound), maximum: Some(bound) };
            match prlimit(Some(self.group), resource, limit) {
                // It has ended already: that is found where its stream is waited for.
                Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                // A lower hard limit of the node's own holds as well.
                Err(rustix::io::Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives the secret. A process that has ended doesn't take it; its exit says why.
    async fn greet(&mut self, secret: &str) {
        let line = format!("{secret}\n");
        let _ = self.life_line.write_all(line.as_bytes()).await;
    }

    /// The process's group, which is its own id.
    pub(crate) fn group(&self) -> i32 {
        self.group.as_raw_nonzero().get()
    }

    /// Waits for its end. May be dropped and called again.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        if let Some(status) = self.status {
            return status;
        }
        // An error means that someone else has waited for it, which nobody does: then its status is
        // lost, not its end.
        let status = self.child.wait().await.unwrap_or_default();
        self.status = Some(status);
        status
    }

    /// Ends it with everything it has started, and waits until its output is read.
    pub(crate) async fn finish(mut self) -> ExitStatus {
        self.kill();
        let status = self.ended().await;
        let output = std::mem::take(&mut self.output);
        for task in output {
            let abort = task.abort_handle();
            if tokio::time::timeout(OUTPUT_GRACE, task).await.is_err() {
                abort.abort();
            }
        }
        status
    }

    fn kill(&self) {
        // No such group: all of it has ended.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        for task in &self.output {
            task.abort();
        }
        remove_home(std::mem::take(&mut self.home));
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

async fn make_home(home: PathBuf, user: Option<(u32, u32)>) -> io::Result<()> {
    let work = move || {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(0o700).create(&home)?;
        match user {
            Some((uid, gid)) => std::os::unix::fs::chown(&home, Some(uid), Some(gid)),
            None => Ok(()),
        }
    };
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Removes a home in the background: it may hold much. What can't be removed goes at the next start.
fn remove_home(home: PathBuf) {
    let remove = move || {
        let _ = std::fs::remove_dir_all(&home);
    };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(remove)),
        Err(_) => remove(),
    }
}

/// `exited with code 1`, `was killed by signal 9`.
pub(crate) fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// What `program --version` prints. Says early and clearly when an interpreter is missing.
pub(crate) async fn version_of(program: &Path) -> Result<String, String> {
    let output = Command::new(program).arg("--version").env_clear().kill_on_drop(true).output().await;
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
            Ok(digits.split('.').take(2).collect::<Vec<_>>().join("."))
        }
        Ok(output) => Err(format!("{} {}", program.display(), describe(output.status))),
        Err(error) => Err(format!("{} can't be run: {error}", program.display())),
    }
}
