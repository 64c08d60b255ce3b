//! Compiled components on disk, so that an app starts without compiling again.
//!
//! `host.rs` asks for a component by its bytes; the cache answers with machine code that this engine
//! made of exactly these bytes, or with nothing. Runs on blocking threads.
//!
//! Machine code from a file is run as part of the node, so a file counts only when it carries a code
//! (HMAC-SHA256) made with the cache's own key over the component's hash, the engine's version and
//! settings, and the machine code. The key lies beside the files, readable for the node's user alone,
//! like the files. What fails the check is removed and compiled anew.
//!
//! ```text
//!   folder (0700)/key                   32 random bytes (0600)
//!   folder/<hash in hex>.cwasm          magic 8 | code 32 | machine code (0600)
//! ```
//!
//! Invariants:
//! 1. Bytes that are loaded are the bytes that were checked: the file is read once, into memory.
//! 2. A file appears whole or not at all (written beside, then renamed).
//! 3. At most [`CACHE_ENTRIES_MAX`] files; those used longest ago go.
//! 4. Trouble with the cache is never trouble of the app: it is logged, and the component compiled.

pub(crate) mod load;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};

use crate::error::WasmError;
use crate::limits::{CACHE_ENTRIES_MAX, CACHE_ENTRY_BYTES_MAX};

/// First bytes of a file, with the version of its form.
const MAGIC: &[u8; 8] = b"FLWASM\x00\x01";
/// Bytes of a code.
const TAG_BYTES: usize = 32;
/// Bytes of the key.
const KEY_BYTES: usize = 32;
/// Names of files end so.
const EXTENSION: &str = "cwasm";
/// Names of files that are being written end so.
const UNFINISHED: &str = "new";

/// What a compiled component was made of: the component, and the engine with its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CacheKey([u8; 32]);

impl CacheKey {
    pub(crate) fn new(engine: &wasmtime::Engine, component: &[u8]) -> Self {
        let mut hasher = Sha256(digest::Context::new(&digest::SHA256));
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let mut context = hasher.0;
        context.update(component);
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        Self(key)
    }

    fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Feeds what implements `Hash` to SHA-256.
struct Sha256(digest::Context);

impl Hasher for Sha256 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

/// A folder of compiled components.
pub(crate) struct Cache {
    folder: PathBuf,
    key: hmac::Key,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Cache {
    /// Opens the cache in `folder`, which is made when it isn't there.
    ///
    /// # Errors
    /// When the folder or the key in it can't be read or made.
    pub(crate) fn open(folder: &Path) -> Result<Self, WasmError> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(WasmError::file(folder))?;
        remove_unfinished(folder).map_err(WasmError::file(folder))?;
        let path = folder.join("key");
        let secret = match read_private(&path, KEY_BYTES as u64) {
            Ok(secret) if secret.len() == KEY_BYTES => secret,
            // Another key makes every file that was written before worthless, which is what is wanted
            // when somebody may have read or changed this one.
            Ok(_) | Err(_) => new_secret(folder, &path)?,
        };
        Ok(Self { folder: folder.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, &secret) })
    }

    /// Machine code made of what `key` says, when the cache has it and it is unchanged.
    pub(crate) fn read(&self, key: &CacheKey) -> Option<Vec<u8>> {
        let path = self.path(key);
        let file = match read_private(&path, CACHE_ENTRY_BYTES_MAX) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return self.give_up(&path, &error.to_string()),
        };
        let Some(code) = self.checked(key, file) else {
            return self.give_up(&path, "it is not what was written");
        };
        // Used now, so it goes last. Only the order of going depends on it.
        drop(File::open(&path).and_then(|file| file.set_modified(SystemTime::now())));
        Some(code)
    }

    /// Keeps `code`, made of what `key` says.
    pub(crate) fn write(&self, key: &CacheKey, code: &[u8]) {
        let size = (MAGIC.len() + TAG_BYTES + code.len()) as u64;
        if size > CACHE_ENTRY_BYTES_MAX {
            return;
        }
        let tag = self.tag(key, code);
        if let Err(error) = write_private(&self.folder, &self.path(key), &[MAGIC, tag.as_ref(), code]) {
            tracing::warn!(folder = %self.folder.display(), %error, "a compiled component can't be kept");
        }
        if let Err(error) = self.make_room() {
            tracing::warn!(folder = %self.folder.display(), %error, "old compiled components can't be removed");
        }
    }

    fn checked(&self, key: &CacheKey, mut file: Vec<u8>) -> Option<Vec<u8>> {
        let (magic, rest) = file.split_at_checked(MAGIC.len())?;
        let (tag, code) = rest.split_at_checked(TAG_BYTES)?;
        let is_ours = magic == MAGIC && hmac::verify(&self.key, &signed(key, code), tag).is_ok();
        is_ours.then(|| file.split_off(MAGIC.len() + TAG_BYTES))
    }

    fn tag(&self, key: &CacheKey, code: &[u8]) -> hmac::Tag {
        hmac::sign(&self.key, &signed(key, code))
    }

    fn give_up(&self, path: &Path, reason: &str) -> Option<Vec<u8>> {
        tracing::warn!(path = %path.display(), reason, "a compiled component was thrown away");
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "it can't be removed");
        }
        None
    }

    fn path(&self, key: &CacheKey) -> PathBuf {
        self.folder.join(key.hex()).with_extension(EXTENSION)
    }

    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                files.push((fs::metadata(&path)?.modified()?, path));
            }
        }
        files.sort();
        let excess = files.len().saturating_sub(CACHE_ENTRIES_MAX);
        files[..excess].iter().try_for_each(|(_, path)| fs::remove_file(path))
    }
}

/// What the code is made over: the hash of what went in, and the hash of what came out.
fn signed(key: &CacheKey, code: &[u8]) -> [u8; 64] {
    let mut both = [0; 64];
    both[..32].copy_from_slice(&key.0);
    both[32..].copy_from_slice(digest::digest(&digest::SHA256, code).as_ref());
    both
}

/// Reads a file that only this user can read or write. A link isn't followed.
fn read_private(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(path)?;
    let metadata = file.metadata()?;
    let is_private = metadata.is_file() && metadata.permissions().mode() & 0o077 == 0;
    if !is_private || metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is open to other users"));
    }
    if metadata.len() > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `O_NOFOLLOW`.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// Removes what a node that died left half written. Nobody else uses the folder.
fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Writes a file that only this user can read, whole or not at all.
fn write_private(folder: &Path, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let beside = folder.join(format!("{}.{UNFINISHED}", random_name()?));
    let mut options = OpenOptions::new();
    let written = options.write(true).create_new(true).mode(0o600).open(&beside).and_then(|mut file| {
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_data()
    });
    let done = written.and_then(|()| fs::rename(&beside, path));
    if done.is_err() {
        drop(fs::remove_file(&beside));
    }
    done
}

fn random_name() -> io::Result<String> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random bytes"))?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

fn new_secret(folder: &Path, path: &Path) -> Result<Vec<u8>, WasmError> {
    let mut secret = vec![0; KEY_BYTES];
    let filled = SystemRandom::new().fill(&mut secret).map_err(|_| io::Error::other("no random bytes"));
    filled.and_then(|()| write_private(folder, path, &[&secret])).map_err(WasmError::file(path))?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> CacheKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        CacheKey(key)
    }

    #[test]
    fn those_used_longest_ago_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        for number in 0..CACHE_ENTRIES_MAX {
            cache.write(&key(number), &[number as u8]);
            // Written in the order of their numbers, long ago.
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number as u64);
            File::open(cache.path(&key(number))).and_then(|file| file.set_modified(time)).unwrap();
        }
        assert_eq!(cache.read(&key(0)), Some(vec![0]));
        cache.write(&key(1000), b"new");
        assert_eq!(cache.read(&key(1)), None, "used longest ago");
        assert_eq!(cache.read(&key(0)), Some(vec![0]), "used just now");
        assert_eq!(cache.read(&key(1000)), Some(b"new".to_vec()));
        let files = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, CACHE_ENTRIES_MAX + 1, "with the key");
    }

    #[test]
    fn a_new_key_is_made_when_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        Cache::open(folder.path()).unwrap().write(&key(1), b"code");
        assert_eq!(Cache::open(folder.path()).unwrap().read(&key(1)), Some(b"code".to_vec()));
        fs::remove_file(folder.path().join("key")).unwrap();
        assert_eq!(Cache::open(folder.path()).unwrap().read(&key(1)), None);
    }
}
