//! One node as a process.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{fleetline_binary, http_get};

/// Where a node listens.
#[derive(Clone, Copy, Debug)]
pub struct NodeAddresses {
    /// Native front (QUIC).
    pub client: SocketAddr,
    /// Other nodes.
    pub peer: SocketAddr,
    /// Operations (HTTP).
    pub ops: SocketAddr,
}

/// A node of a [`crate::LocalCluster`]. Killed when dropped.
#[derive(Debug)]
pub struct NodeProcess {
    number: usize,
    folder: PathBuf,
    addresses: NodeAddresses,
    child: Option<Child>,
}

/// A port that was free a moment ago.
fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

impl NodeProcess {
    /// A node that isn't started yet.
    pub(crate) fn new(number: usize, folder: &Path) -> io::Result<NodeProcess> {
        let addresses = NodeAddresses { client: free_port()?, peer: free_port()?, ops: free_port()? };
        Ok(NodeProcess { number, folder: folder.to_owned(), addresses, child: None })
    }

    /// Where it listens.
    pub fn addresses(&self) -> NodeAddresses {
        self.addresses
    }

    /// Its data folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the process, with more arguments for `serve`. Its log goes to a file beside its folder.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(&mut self, arguments: &[&str]) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let child = Command::new(fleetline_binary()?)
            .arg("serve")
            .arg("--data")
            .arg(&self.folder)
            .args(["--listen", &self.addresses.client.to_string()])
            .args(["--peer-listen", &self.addresses.peer.to_string()])
            .args(["--ops-listen", &self.addresses.ops.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Errors
    /// When the process ends before.
    pub fn wait_ready(&mut self) -> io::Result<()> {
        loop {
            self.check_alive()?;
            if let Ok((200, _)) = http_get(self.addresses.ops, "/readyz") {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// An error when the process was started and has ended by itself.
    pub(crate) fn check_alive(&mut self) -> io::Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            let log = self.log();
            let tail = log.lines().rev().take(30).collect::<Vec<_>>();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            let text = format!("node {} ended ({status}):\n{}", self.number, tail.join("\n"));
            return Err(io::Error::other(text));
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid as i32));
        let pid = pid.ok_or_else(|| io::Error::other(format!("node {} doesn't run", self.number)))?;
        kill_process(pid, signal).map_err(io::Error::from)
    }

    /// Kills it at once, as the kernel would (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn kill(&mut self) -> io::Result<()> {
        self.signal(Signal::KILL)?;
        self.reap()
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn stop(&mut self) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        self.reap()
    }

    /// Freezes it (SIGSTOP).
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it doesn't run.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn reap(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
