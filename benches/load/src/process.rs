//! Server processes: started, watched for CPU and memory, killed when dropped.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Outcome;

/// The processes of one system.
pub struct Servers {
    root: tempfile::TempDir,
    children: Vec<Child>,
}

impl Servers {
    /// None yet, with a folder for their data.
    pub fn new() -> Outcome<Servers> {
        Ok(Servers { root: tempfile::tempdir()?, children: Vec::new() })
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
        let log = File::create(self.root().join(format!("{}.log", self.children.len())))?;
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

    /// CPU seconds that all of them have used, user and system, all threads.
    pub fn cpu_seconds(&self) -> f64 {
        // Linux counts process times in hundredths of a second (USER_HZ), whatever the kernel's own tick.
        self.children.iter().map(|child| cpu_ticks(child.id()) as f64 / 100.0).sum()
    }

    /// Memory that all of them have resident, in MiB.
    pub fn rss_mib(&self) -> u64 {
        self.children.iter().map(|child| rss_kib(child.id())).sum::<u64>() / 1024
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

fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold spaces: fields are counted behind its closing bracket.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let tick = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    tick(11) + tick(12)
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}

/// A port that was free a moment ago.
pub fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A binary beside this one.
pub fn beside(name: &str) -> Outcome<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    match path.is_file() {
        true => Ok(path),
        false => Err(format!("{} is missing: build it first", path.display()).into()),
    }
}
