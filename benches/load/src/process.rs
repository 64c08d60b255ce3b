//! Server processes: started, watched for CPU and memory, killed when dropped.
//!
//! Used by each system's module. Data lies in a folder beside the build, never in the system's folder
//! for temporary files: that may be memory, and then every sync would be free.
//!
//! Invariant: a figure is of all processes or an error; one that has ended is never counted as idle.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Outcome;

/// Bytes of a log that an error shows.
const LOG_TAIL_BYTES: usize = 600;

/// The processes of one system.
pub struct Servers {
    root: tempfile::TempDir,
    children: Vec<Child>,
}

impl Servers {
    /// None yet, with a folder for their data.
    pub fn new() -> Outcome<Servers> {
        let dir = std::env::current_exe()?.with_file_name("../bench-data");
        std::fs::create_dir_all(&dir)?;
        let root = tempfile::tempdir_in(dir.canonicalize()?)?;
        Ok(Servers { root, children: Vec::new() })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Starts a process; its output goes to a file in the folder.
    pub fn start(
        &mut self,
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Outcome<()> {
        let log = File::create(self.log_of(self.children.len()))?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        self.children.push(child);
        Ok(())
    }

    /// Fails when one has ended, with the end of what it wrote.
    pub fn check(&mut self) -> Outcome<()> {
        for number in 0..self.children.len() {
            if let Some(status) = self.children[number].try_wait()? {
                let log = std::fs::read(self.log_of(number)).unwrap_or_default();
                let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES)..];
                let tail = String::from_utf8_lossy(tail);
                return Err(format!("server {number} has ended ({status}): {}", tail.trim()).into());
            }
        }
        Ok(())
    }

    /// CPU seconds that all of them have used, user and system, all threads.
    ///
    /// # Errors
    /// When one has ended.
    pub fn cpu_seconds(&mut self) -> Outcome<f64> {
        self.check()?;
        let mut ticks = 0;
        for child in &self.children {
            let file = format!("/proc/{}/stat", child.id());
            ticks +=
                cpu_ticks(&std::fs::read_to_string(&file)?).ok_or_else(|| format!("{file} is strange"))?;
        }
        // Linux counts process times in hundredths of a second (USER_HZ), whatever the kernel's own tick.
        Ok(ticks as f64 / 100.0)
    }

    /// Memory that all of them have resident, in MiB.
    ///
    /// # Errors
    /// When one has ended.
    pub fn rss_mib(&mut self) -> Outcome<u64> {
        Ok(self.rss_kib()? / 1024)
    }

    /// The same in KiB.
    ///
    /// # Errors
    /// When one has ended.
    pub fn rss_kib(&mut self) -> Outcome<u64> {
        self.check()?;
        let mut kib = 0;
        for child in &self.children {
            let file = format!("/proc/{}/status", child.id());
            kib += rss_kib(&std::fs::read_to_string(&file)?).ok_or_else(|| format!("{file} has no VmRSS"))?;
        }
        Ok(kib)
    }

    fn log_of(&self, number: usize) -> PathBuf {
        self.root().join(format!("{number}.log"))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// User and system time in `/proc/PID/stat`.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name may hold spaces and brackets: fields are counted behind the last closing one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let tick = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(tick(11)? + tick(12)?)
}

/// Resident KiB in `/proc/PID/status`.
fn rss_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Ports that were free a moment ago, for TCP and UDP, all different.
pub fn free_ports(count: usize) -> Outcome<Vec<u16>> {
    let mut held = Vec::new();
    for _ in 0..100 * count {
        if held.len() == count {
            break;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) {
            // Both are kept until all are chosen, so that none is chosen twice.
            held.push((port, listener, socket));
        }
    }
    match held.len() == count {
        true => Ok(held.into_iter().map(|(port, _, _)| port).collect()),
        false => Err("no free ports on 127.0.0.1".into()),
    }
}

/// A binary beside this one.
pub fn beside(name: &str) -> Outcome<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    match path.is_file() {
        true => Ok(path),
        false => Err(format!("{} is missing: build it first", path.display()).into()),
    }
}

/// The first line that a program prints about its version, for the protocol of the run.
pub fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("of unknown version").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times are found behind a name that looks like more fields; what is cut off is no zero.
    #[test]
    fn times_are_found() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 700 55 0 0 20 0 9 0 1";
        assert_eq!(cpu_ticks(stat), Some(755));
        assert_eq!(cpu_ticks("42 (a) S 1 2 3"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    /// Resident memory is read in KiB; a process without any (a zombie) is no zero.
    #[test]
    fn memory_is_found() {
        assert_eq!(rss_kib("Name:\tx\nVmRSS:\t  2048 kB\nThreads:\t1\n"), Some(2048));
        assert_eq!(rss_kib("Name:\tx\nThreads:\t1\n"), None);
    }

    /// A process that runs has figures; one that has ended is an error with its last words; both are gone
    /// after the drop.
    #[test]
    fn processes_are_watched_and_killed() {
        let mut servers = Servers::new().unwrap();
        servers.start(Path::new("/bin/sleep"), ["600"]).unwrap();
        servers.check().unwrap();
        assert!(servers.cpu_seconds().unwrap() < 60.0);
        servers.rss_mib().unwrap();
        servers.start(Path::new("/bin/sh"), ["-c", "echo port taken; exit 3"]).unwrap();
        servers.children[1].wait().unwrap();
        let error = servers.check().unwrap_err().to_string();
        assert!(error.contains("server 1") && error.contains("port taken"), "{error}");
        assert!(servers.cpu_seconds().is_err());
        let (pid, root) = (servers.children[0].id(), servers.root().to_owned());
        drop(servers);
        assert!(!Path::new(&format!("/proc/{pid}")).exists() && !root.exists());
    }

    /// Ports are different and can be bound.
    #[test]
    fn ports_are_free() {
        let mut ports = free_ports(20).unwrap();
        TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0])).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}
