//! Machine code on disk: used when it is what was written, thrown away when it isn't.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fleetline_wasm::{WasmHost, WasmOptions};
use fleetline_worker::Outcome;

use crate::app::{App, all_outputs, event};
use crate::guest::{NOTHING, component, echo};

fn entries(cache: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "cwasm")).collect()
}

/// Starts and invokes an app on a new host with this cache.
async fn run_component(cache: &Path, component: &[u8]) {
    let options = WasmOptions { cache: Some(cache.to_owned()), ..WasmOptions::default() };
    let host = WasmHost::new(options).unwrap();
    let app = App::with(&host, "eventHubTrigger", &all_outputs(), component).await;
    assert_eq!(app.invoke(event("x")).await.unwrap().outcome, Outcome::Success);
}

async fn run(cache: &Path) {
    run_component(cache, &echo()).await;
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap())
}

/// Runs once, changes the entry with `spoil`, and says whether the next run wrote it anew.
async fn is_written_anew(spoil: impl FnOnce(&Path, &Path)) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    run(&cache).await;
    let [entry] = <[PathBuf; 1]>::try_from(entries(&cache)).unwrap();
    assert_eq!(fs::metadata(&entry).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    // Held open, so that its number isn't given to another file.
    let _held = fs::File::open(&entry).unwrap();
    let before = inode(&entry);
    spoil(&cache, &entry);
    run(&cache).await;
    assert_eq!(entries(&cache), [entry.as_path()]);
    inode(&entry) != before
}

#[tokio::test]
async fn what_was_written_is_used() {
    assert!(!is_written_anew(|_, _| {}).await);
}

#[tokio::test]
async fn changed_code_is_compiled_anew() {
    for place in [0, 8, 40, 2000] {
        let changed = is_written_anew(|_, entry| {
            let mut bytes = fs::read(entry).unwrap();
            bytes[place] ^= 1;
            fs::write(entry, bytes).unwrap();
        });
        assert!(changed.await, "byte {place}");
    }
}

#[tokio::test]
async fn cut_code_is_compiled_anew() {
    for size in [0, 7, 39, 4096] {
        let cut = is_written_anew(|_, entry| {
            let bytes = fs::read(entry).unwrap();
            fs::write(entry, &bytes[..size]).unwrap();
        });
        assert!(cut.await, "{size} bytes");
    }
}

/// Both entries are whole and ours, but one stands in the other's place.
#[tokio::test]
async fn code_of_another_component_is_compiled_anew() {
    let folder = tempfile::tempdir().unwrap();
    let other = component(&[], NOTHING);
    run(folder.path()).await;
    let first = entries(folder.path()).remove(0);
    run_component(folder.path(), &other).await;
    let second = entries(folder.path()).into_iter().find(|entry| *entry != first).unwrap();
    let (code, expected) = (fs::read(&first).unwrap(), fs::read(&second).unwrap());
    fs::write(&second, &code).unwrap();
    run_component(folder.path(), &other).await;
    assert_eq!(fs::read(&second).unwrap(), expected);
}

#[tokio::test]
async fn files_that_others_can_write_are_not_used() {
    let open = is_written_anew(|_, entry| {
        fs::set_permissions(entry, fs::Permissions::from_mode(0o666)).unwrap();
    });
    assert!(open.await);
    let linked = is_written_anew(|cache, entry| {
        let elsewhere = cache.parent().unwrap().join("elsewhere");
        fs::rename(entry, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, entry).unwrap();
    });
    assert!(linked.await);
    let key_open = is_written_anew(|cache, _| {
        fs::set_permissions(cache.join("key"), fs::Permissions::from_mode(0o644)).unwrap();
    });
    assert!(key_open.await, "a key that others could read counts no more");
}

#[tokio::test]
async fn a_cache_that_can_not_be_used_is_left_out() {
    let file = tempfile::NamedTempFile::new().unwrap();
    run(file.path()).await;
}

#[tokio::test]
async fn half_written_files_go() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join("0123.new");
    fs::write(&left, "half").unwrap();
    run(folder.path()).await;
    assert!(!left.exists());
}
