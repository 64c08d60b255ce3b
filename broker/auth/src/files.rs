//! Certificates in a node's data folder.
//!
//! ```text
//!  certs/authority.pem   the authority's certificate
//!  certs/authority.key   its private key; only on nodes that may admit others      0600
//!  certs/node.pem        the node's certificate and private key, in one file       0600
//! ```
//!
//! Each file is written beside its place, synced and renamed, then the folder is synced: after a
//! crash a file is the old one or the new one. Certificate and key of the node share a file because
//! they must change together. `authority.key` is written before `authority.pem`, whose presence
//! says that the authority exists.
//!
//! Files of an own PKI lie where configuration says; [`read_pem`] reads them, and nothing here writes
//! them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fleetline_types::NodeId;

use crate::authority::{authority_cluster, certificate_of_pem};
use crate::{AuthError, Authority, Role, TlsBundle};

const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";
const NODE: &str = "node.pem";
/// No certificate or key file is as large.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The certificates of a node, as its data folder has them.
#[derive(Debug)]
pub struct DataCerts {
    /// The node's own.
    pub bundle: TlsBundle,
    /// The authority's key, on nodes that may admit others.
    pub authority: Option<Authority>,
}

impl DataCerts {
    /// The certificates in `dir`, made when there are none: a new authority for `cluster`, and a
    /// certificate for `node` with the `hosts` by which it is reached.
    ///
    /// # Errors
    /// When the files can't be read or written, don't fit each other, or are those of another
    /// cluster or node.
    pub fn load_or_create(
        dir: &Path,
        cluster: &str,
        node: NodeId,
        hosts: &[String],
    ) -> Result<DataCerts, AuthError> {
        if let Some(found) = Self::load(dir, cluster, node)? {
            return Ok(found);
        }
        let authority_path = dir.join(AUTHORITY);
        let authority = match read(&authority_path, false)? {
            // A crash came between the authority and the node's own certificate.
            Some(certificate) => {
                let key_path = dir.join(AUTHORITY_KEY);
                let key = read(&key_path, true)?.ok_or(AuthError::Incomplete(key_path))?;
                Authority::from_pem(&certificate, &key)?
            }
            None => Authority::create(cluster)?,
        };
        let bundle = authority.issue(&Role::Node(node), hosts)?;
        Self::store(dir, &bundle, Some(&authority))?;
        Ok(DataCerts { bundle, authority: Some(authority) })
    }

    /// The certificates in `dir`; `None` when the node has none yet.
    ///
    /// # Errors
    /// See [`DataCerts::load_or_create`].
    pub fn load(dir: &Path, cluster: &str, node: NodeId) -> Result<Option<DataCerts>, AuthError> {
        let authority_path = dir.join(AUTHORITY);
        let own = read(&dir.join(NODE), true)?;
        let Some(authority_pem) = read(&authority_path, false)? else {
            return if own.is_some() { Err(AuthError::Incomplete(authority_path)) } else { Ok(None) };
        };
        let found = authority_cluster(&certificate_of_pem(&authority_pem)?)?;
        if found != cluster {
            return Err(AuthError::WrongCluster { found, expected: cluster.to_owned() });
        }
        let Some(own) = own else { return Ok(None) };
        let bundle = TlsBundle {
            authority_pem,
            certificate_pem: sections(&own, "CERTIFICATE"),
            key_pem: sections(&own, "PRIVATE KEY"),
        };
        bundle.check(cluster, &Role::Node(node))?;
        let authority = match read(&dir.join(AUTHORITY_KEY), true)? {
            Some(key) => Some(Authority::from_pem(&bundle.authority_pem, &key)?),
            None => None,
        };
        Ok(Some(DataCerts { bundle, authority }))
    }

    /// Writes the certificates of a node that joined or whose certificate was renewed. A key of the
    /// authority that is there stays when `authority` is `None`.
    ///
    /// # Errors
    /// When a file can't be written.
    pub fn store(dir: &Path, bundle: &TlsBundle, authority: Option<&Authority>) -> Result<(), AuthError> {
        create_folder(dir)?;
        if let Some(authority) = authority {
            write(&dir.join(AUTHORITY_KEY), &authority.key_pem(), 0o600)?;
        }
        write(&dir.join(AUTHORITY), &bundle.authority_pem, 0o644)?;
        let own = format!("{}\n{}", bundle.certificate_pem.trim_end(), bundle.key_pem);
        write(&dir.join(NODE), &own, 0o600)
    }
}

/// The PEM sections with this label, as they are.
fn sections(pem: &str, label: &str) -> String {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut found = String::new();
    let mut inside = false;
    for line in pem.lines() {
        inside |= line.trim() == begin;
        if inside {
            found.push_str(line);
            found.push('\n');
        }
        inside &= line.trim() != end;
    }
    found
}

/// Reads a file of an own PKI. A file with a secret may be read by its group, not by everybody.
///
/// # Errors
/// When it can't be read, is too large, or is a secret that everybody can read.
pub fn read_pem(path: &Path, secret: bool) -> Result<String, AuthError> {
    let missing = || AuthError::File { path: path.to_owned(), source: ErrorKind::NotFound.into() };
    read_masked(path, if secret { 0o007 } else { 0 })?.ok_or_else(missing)
}

fn read(path: &Path, secret: bool) -> Result<Option<String>, AuthError> {
    read_masked(path, if secret { 0o077 } else { 0 })
}

/// The file's text, unless its mode has a bit of `forbidden`.
fn read_masked(path: &Path, forbidden: u32) -> Result<Option<String>, AuthError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(AuthError::File { path: path.to_owned(), source }),
    };
    let at = |source| AuthError::File { path: path.to_owned(), source };
    let mode = file.metadata().map_err(at)?.permissions().mode() & 0o777;
    if mode & forbidden != 0 {
        return Err(AuthError::KeyExposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    let count = (&file).take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(at)?;
    if count as u64 == FILE_BYTES_MAX {
        return Err(at(io::Error::new(ErrorKind::InvalidData, "too large for a certificate")));
    }
    Ok(Some(text))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), AuthError> {
    let at = |source| AuthError::File { path: path.to_owned(), source };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // What a crash left there may have another mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).map_err(at)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at)?;
    fs::rename(&temporary, path).map_err(at)?;
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(at)
}

fn create_folder(dir: &Path) -> Result<(), AuthError> {
    let at = |source| AuthError::File { path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(at)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE_1: NodeId = NodeId(1);

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("certs");
        (root, dir)
    }

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// What was made is found again unchanged; keys are for their owner only.
    #[test]
    fn created_once() {
        let (_root, dir) = folder();
        assert!(DataCerts::load(&dir, "plant", NODE_1).unwrap().is_none());
        let made = DataCerts::load_or_create(&dir, "plant", NODE_1, &["hub.example".into()]).unwrap();
        let found = DataCerts::load_or_create(&dir, "plant", NODE_1, &[]).unwrap();
        assert_eq!(made.bundle, found.bundle);
        assert_eq!(found.authority.unwrap().key_pem(), made.authority.unwrap().key_pem());
        assert_eq!((mode_of(&dir.join(NODE)), mode_of(&dir.join(AUTHORITY_KEY))), (0o600, 0o600));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3, "no temporary file is left");
    }

    /// A crash after any number of files is mended by the next start, with one authority.
    #[test]
    fn crash_between_files() {
        let (_root, dir) = folder();
        let made = DataCerts::load_or_create(&dir, "plant", NODE_1, &[]).unwrap();
        fs::write(dir.join("node.pem.new"), "half").unwrap();
        fs::remove_file(dir.join(NODE)).unwrap();
        let mended = DataCerts::load_or_create(&dir, "plant", NODE_1, &[]).unwrap();
        assert_eq!(mended.bundle.authority_pem, made.bundle.authority_pem);
        // Only the authority's key was written: nothing was signed by it yet, so a new one is made.
        fs::remove_file(dir.join(NODE)).unwrap();
        fs::remove_file(dir.join(AUTHORITY)).unwrap();
        let fresh = DataCerts::load_or_create(&dir, "plant", NODE_1, &[]).unwrap();
        assert_ne!(fresh.bundle.authority_pem, made.bundle.authority_pem);
    }

    /// Files of another cluster or node, exposed keys, mixed and damaged files are refused.
    #[test]
    fn refused() {
        let (_root, dir) = folder();
        DataCerts::load_or_create(&dir, "plant", NODE_1, &[]).unwrap();
        let load = || DataCerts::load(&dir, "plant", NODE_1);
        assert!(matches!(DataCerts::load(&dir, "other", NODE_1), Err(AuthError::WrongCluster { .. })));
        assert!(matches!(DataCerts::load(&dir, "plant", NodeId(2)), Err(AuthError::WrongRole { .. })));
        let node = dir.join(NODE);
        fs::set_permissions(&node, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(), Err(AuthError::KeyExposed { mode: 0o640, .. })));
        fs::set_permissions(&node, fs::Permissions::from_mode(0o600)).unwrap();

        let (_other_root, other_dir) = folder();
        DataCerts::load_or_create(&other_dir, "plant", NODE_1, &[]).unwrap();
        fs::copy(other_dir.join(AUTHORITY_KEY), dir.join(AUTHORITY_KEY)).unwrap();
        assert!(matches!(load(), Err(AuthError::KeyMismatch("authority"))));
        fs::remove_file(dir.join(AUTHORITY_KEY)).unwrap();
        assert!(load().unwrap().unwrap().authority.is_none(), "a node without the authority's key");

        let own = fs::read_to_string(&node).unwrap();
        let theirs = fs::read_to_string(other_dir.join(NODE)).unwrap();
        let mixed = sections(&own, "CERTIFICATE") + &sections(&theirs, "PRIVATE KEY");
        for (text, what) in [(mixed, "mixed"), (String::new(), "empty"), (own[..own.len() / 2].into(), "cut")]
        {
            fs::write(&node, text).unwrap();
            assert!(load().is_err(), "{what}");
        }
        fs::remove_file(dir.join(AUTHORITY)).unwrap();
        assert!(matches!(load(), Err(AuthError::Incomplete(_))));
    }

    /// A renewed certificate replaces certificate and key together and keeps the authority's key.
    #[test]
    fn renewal() {
        let (_root, dir) = folder();
        let made = DataCerts::load_or_create(&dir, "plant", NODE_1, &[]).unwrap();
        let renewed = made.authority.unwrap().issue(&Role::Node(NODE_1), &[]).unwrap();
        DataCerts::store(&dir, &renewed, None).unwrap();
        let found = DataCerts::load(&dir, "plant", NODE_1).unwrap().unwrap();
        assert_eq!(found.bundle, renewed);
        assert!(found.authority.is_some());
    }
}
