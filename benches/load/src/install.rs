//! Peers from Debian's packages, installed on first use.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;

/// The program at `path`, from that package when it is missing (as root only).
///
/// # Errors
/// When it can't be installed.
pub fn debian(package: &str, path: &'static str) -> Outcome<PathBuf> {
    let path = Path::new(path);
    if !path.is_file() {
        eprintln!("installing {package} …");
        // The package must not start its service: the policy file forbids it for the time of the install.
        let script = "set -e; policy=/usr/sbin/policy-rc.d; made=0; \
            if [ ! -e $policy ]; then printf '#!/bin/sh\\nexit 101\\n' > $policy; chmod +x $policy; made=1; fi; \
            export DEBIAN_FRONTEND=noninteractive; install=\"apt-get install -y --no-install-recommends $0\"; \
            { $install || { apt-get update && $install; }; } >/dev/null || code=$?; \
            if [ $made = 1 ]; then rm -f $policy; fi; exit ${code:-0}";
        let output = Command::new("bash").args(["-c", script, package]).output()?;
        if !output.status.success() {
            return Err(format!("{package}: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
    }
    match path.is_file() {
        true => Ok(path.to_owned()),
        false => Err(format!("{package} brought no {}", path.display()).into()),
    }
}
