//! The user that a worker runs as.
//!
//! An app is code of someone else: it must not read the hub's keys and data, which belong to the node's
//! user. A node that is root gives its workers away to `nobody`; one that isn't can't.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::options::RunAs;

/// `nobody` and its group, on every Linux.
const NOBODY: (u32, u32) = (65534, 65534);

/// Whom to run as, and what the operator should know about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// User and group; `None`: as the node.
    pub(crate) user: Option<(u32, u32)>,
    pub(crate) remark: Option<String>,
}

/// Decides for an app that needs `paths`. Reads the file system: call it where blocking is allowed.
pub(crate) fn decide(run_as: RunAs, paths: &[&Path]) -> Result<Identity, String> {
    let own = |remark: Option<String>| Ok(Identity { user: None, remark });
    let is_root = rustix::process::geteuid().is_root();
    match run_as {
        RunAs::Node => own(None),
        RunAs::User { uid, gid } => match unreachable(paths, (uid, gid)) {
            None => Ok(Identity { user: Some((uid, gid)), remark: None }),
            Some(path) => Err(format!("user {uid} can't reach {path}")),
        },
        RunAs::Auto if !is_root => {
            own(Some("the node is not root, so apps run as its own user and can read what it can".to_owned()))
        }
        RunAs::Auto => match unreachable(paths, NOBODY) {
            None => Ok(Identity { user: Some(NOBODY), remark: None }),
            Some(path) => own(Some(format!(
                "the app runs as root, and can read what the node can, because user nobody can't reach {path}"
            ))),
        },
    }
}

/// The first path that the user can't get to and read.
fn unreachable(paths: &[&Path], user: (u32, u32)) -> Option<String> {
    paths.iter().find_map(|path| {
        // The link that is given and what it leads to: both are gone through.
        let whole = fs::canonicalize(path).ok();
        let steps = path.ancestors().skip(1).chain(whole.iter().flat_map(|whole| whole.ancestors()));
        let mut steps = steps.filter(|step| !step.as_os_str().is_empty());
        let blocked = steps.find(|step| !is_open(step, user));
        blocked.map(|step| step.display().to_string())
    })
}

/// Whether the user may search a folder, or read a file.
fn is_open(path: &Path, (uid, gid): (u32, u32)) -> bool {
    let Ok(found) = fs::metadata(path) else { return false };
    let needed = if found.is_dir() { 0o1 } else { 0o4 };
    let shift = match () {
        () if found.uid() == uid => 6,
        () if found.gid() == gid => 3,
        () => 0,
    };
    (found.mode() >> shift) & needed == needed
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_that_is_closed_makes_its_content_unreachable() {
        let root = tempfile::tempdir().unwrap();
        let (open, closed) = (root.path().join("open"), root.path().join("closed"));
        let stranger = (60_001, 60_001);
        for (folder, mode) in [(&open, 0o755), (&closed, 0o700)] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("file"), "x").unwrap();
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
            fs::set_permissions(folder.join("file"), fs::Permissions::from_mode(0o644)).unwrap();
        }
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(unreachable(&[&open.join("file")], stranger), None);
        let found = unreachable(&[&open.join("file"), &closed.join("file")], stranger);
        assert_eq!(found, Some(closed.display().to_string()));
        assert_eq!(unreachable(&[&open.join("none")], stranger), None, "reported when it is started");
    }
}
