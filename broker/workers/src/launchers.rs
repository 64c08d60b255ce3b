//! The launchers of other languages, which lie in this binary and are written where they run.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fleetline_worker::rpc::{DESCRIPTOR, PROTO};

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        [$(($path, include_str!(concat!("../launchers/", $path)))),*]
    };
}

const FILES: [(&str, &str); 16] = files![
    "python/worker.py",
    "python/fleetline_worker/__init__.py",
    "python/fleetline_worker/calls.py",
    "python/fleetline_worker/engine.py",
    "python/fleetline_worker/index.py",
    "python/fleetline_worker/link.py",
    "python/fleetline_worker/logs.py",
    "python/fleetline_worker/messages.py",
    "python/fleetline_worker/official.py",
    "python/fleetline_worker/own.py",
    "python/fleetline_worker/values.py",
    "node/worker.js",
    "node/app.js",
    "node/core.js",
    "node/link.js",
    "node/resolve.mjs",
];

/// Writes all launchers and the protocol's definition below `folder`, readable for every user.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    for (path, content) in &FILES {
        write_file(folder, path, content.as_bytes())?;
    }
    write_file(folder, "python/worker.descriptor", DESCRIPTOR)?;
    write_file(folder, "node/worker.proto", PROTO.as_bytes())
}

fn write_file(folder: &Path, path: &str, content: &[u8]) -> io::Result<()> {
    let whole = folder.join(path);
    if let Some(parent) = whole.parent() {
        fs::create_dir_all(parent)?;
        for step in parent.ancestors().take_while(|step| *step != folder) {
            fs::set_permissions(step, fs::Permissions::from_mode(0o755))?;
        }
    }
    fs::write(&whole, content)?;
    fs::set_permissions(&whole, fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A launcher file that isn't in the lists would be missing on every node.
    #[test]
    fn every_launcher_is_embedded() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("launchers");
        let mut found = Vec::new();
        let mut folders = vec![source.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.extend((!path.ends_with("__pycache__")).then_some(path));
                } else {
                    found.push(path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        found.sort();
        let mut embedded: Vec<_> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        embedded.sort();
        assert_eq!(embedded, found);
    }
}
