//! Archives of apps (`tar.gz`): packing a folder, and unpacking what a stranger has packed.
//!
//! Invariants of unpacking:
//! 1. Nothing is written outside of the given folder: entries are plain files and folders with names of
//!    plain parts. Links, devices, absolute names and `..` refuse the whole archive.
//! 2. Bytes and entries are bounded while they are read, whatever their headers say.
//! 3. A folder is there whole or not at all: it gets its name by a rename at the end.
//!
//! Blocking; called on threads for that.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tar::{Archive, Builder, EntryType, Header};

use crate::error::FunctionsError;
use crate::options::FunctionsOptions;

/// Folders inside of each other.
const DEPTH_MAX: usize = 64;
/// Bytes of one name in an archive.
const NAME_BYTES_MAX: usize = 1024;

fn bad(text: impl Into<String>) -> FunctionsError {
    FunctionsError::Invalid(format!("the archive can't be used: {}", text.into()))
}

/// Unpacks an archive into `folder`, which appears once it is complete.
pub(crate) fn unpack(bytes: &[u8], folder: &Path, options: &FunctionsOptions) -> Result<(), FunctionsError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().ok_or_else(|| FunctionsError::Disk("no folder to unpack in".to_owned()))?;
    fs::create_dir_all(parent)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let unfinished = parent.join(format!(".{name}.{}", std::process::id()));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir(&unfinished)?;
    let outcome =
        unpack_into(bytes, &unfinished, options).and_then(|()| Ok(fs::rename(&unfinished, folder)?));
    if outcome.is_err() {
        // What was left is seen as unfinished at the next attempt, too.
        drop(fs::remove_dir_all(&unfinished));
        // Somebody else may have been faster.
        if folder.is_dir() {
            return Ok(());
        }
    }
    outcome
}

fn unpack_into(bytes: &[u8], folder: &Path, options: &FunctionsOptions) -> Result<(), FunctionsError> {
    // One byte more than allowed shows that it is too much. Headers and padding count too.
    let most = options.unpacked_bytes_max.saturating_add(options.unpacked_files_max as u64 * 2048);
    let mut archive = Archive::new(GzDecoder::new(bytes).take(most.saturating_add(1)));
    let mut left = options.unpacked_bytes_max;
    let mut made = BTreeSet::new();
    let mut count = 0;
    let entries = archive.entries().map_err(|error| bad(error.to_string()))?;
    for entry in entries {
        let mut entry = entry.map_err(|error| bad(error.to_string()))?;
        count += 1;
        if count > options.unpacked_files_max {
            return Err(bad(format!("more than {} entries", options.unpacked_files_max)));
        }
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            continue;
        }
        let name = entry.path().map_err(|error| bad(error.to_string()))?.into_owned();
        let path = inside(&name)?;
        match kind {
            EntryType::Directory => make_folders(folder, &path, &mut made, options)?,
            EntryType::Regular | EntryType::Continuous => {
                if path.as_os_str().is_empty() {
                    return Err(bad("a file without a name"));
                }
                if let Some(parent) = path.parent() {
                    make_folders(folder, parent, &mut made, options)?;
                }
                let is_executable = entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0);
                left = write_file(&folder.join(&path), &mut entry, left, is_executable)?;
            }
            other => return Err(bad(format!("{} is a link or a device ({other:?})", name.display()))),
        }
    }
    match count {
        0 => Err(bad("it is empty")),
        _ => Ok(()),
    }
}

/// The name as a path inside of a folder.
fn inside(name: &Path) -> Result<PathBuf, FunctionsError> {
    let text = name.to_str().ok_or_else(|| bad("a name that is not UTF-8"))?;
    let outside = || bad(format!("{text:?} would lie outside of the app"));
    if text.len() > NAME_BYTES_MAX || text.contains(['\0', '\\']) {
        return Err(outside());
    }
    let mut path = PathBuf::new();
    for component in name.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => path.push(part),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(outside()),
        }
    }
    match path.components().count() > DEPTH_MAX {
        true => Err(bad(format!("{text:?} lies too deep"))),
        false => Ok(path),
    }
}

fn make_folders(
    root: &Path,
    path: &Path,
    made: &mut BTreeSet<PathBuf>,
    options: &FunctionsOptions,
) -> Result<(), FunctionsError> {
    if path.as_os_str().is_empty() || made.contains(path) {
        return Ok(());
    }
    fs::create_dir_all(root.join(path)).map_err(|error| bad(format!("{}: {error}", path.display())))?;
    for folder in path.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
        made.insert(folder.to_owned());
    }
    match made.len() > options.unpacked_files_max {
        true => Err(bad(format!("more than {} folders", options.unpacked_files_max))),
        false => Ok(()),
    }
}

/// Writes a file, at most `left` bytes; gives what is left then.
fn write_file(
    path: &Path,
    from: &mut impl Read,
    left: u64,
    is_executable: bool,
) -> Result<u64, FunctionsError> {
    // A name that comes twice would be a way to write through something that was put there before.
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| bad(format!("{}: {error}", path.display())))?;
    let written = io::copy(&mut from.take(left.saturating_add(1)), &mut file)
        .map_err(|error| bad(format!("{}: {error}", path.display())))?;
    if written > left {
        return Err(bad("it is too large when it is unpacked"));
    }
    file.flush()?;
    set_mode(path, is_executable)?;
    Ok(left - written)
}

#[cfg(unix)]
fn set_mode(path: &Path, is_executable: bool) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(if is_executable { 0o755 } else { 0o644 }))
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: bool) -> io::Result<()> {
    Ok(())
}

/// Packs a folder. Files and folders only; what begins with a dot is left out, except
/// `.python_packages`, and so is `__pycache__` and `local.settings.json`. The same folder gives the same
/// bytes.
///
/// # Errors
/// When something can't be read, or there is more than an archive may have.
pub fn pack(folder: &Path, options: &FunctionsOptions) -> Result<Vec<u8>, FunctionsError> {
    let mut files = Vec::new();
    collect(folder, Path::new(""), &mut files, options)?;
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (path, is_executable) in files {
        let content = fs::read(folder.join(&path))?;
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(if is_executable { 0o755 } else { 0o644 });
        header.set_mtime(0);
        header.set_entry_type(EntryType::Regular);
        builder.append_data(&mut header, &path, content.as_slice())?;
    }
    let bytes = builder.into_inner()?.finish()?;
    match bytes.len() > options.archive_bytes_max {
        true => Err(FunctionsError::TooLarge(format!(
            "the packed app has {} bytes, at most {} are taken",
            bytes.len(),
            options.archive_bytes_max
        ))),
        false => Ok(bytes),
    }
}

/// Whether a file or folder of this name belongs to an app.
pub(crate) fn belongs(name: &str) -> bool {
    let hidden = name.starts_with('.') && name != ".python_packages";
    !hidden && name != "__pycache__" && name != "local.settings.json"
}

fn collect(
    root: &Path,
    path: &Path,
    files: &mut Vec<(PathBuf, bool)>,
    options: &FunctionsOptions,
) -> Result<(), FunctionsError> {
    let mut entries = fs::read_dir(root.join(path))?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        if !belongs(&name.to_string_lossy()) {
            continue;
        }
        let path = path.join(&name);
        // Links are followed: what they point to is what the app needs.
        let metadata = fs::metadata(entry.path())?;
        if metadata.is_dir() && path.components().count() < DEPTH_MAX {
            collect(root, &path, files, options)?;
        } else if metadata.is_file() {
            files.push((path, is_executable(&metadata)));
        }
        if files.len() > options.unpacked_files_max {
            return Err(FunctionsError::TooLarge(format!("more than {} files", options.unpacked_files_max)));
        }
    }
    Ok(())
}

#[cfg(unix)]
fn is_executable(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> FunctionsOptions {
        FunctionsOptions {
            unpacked_bytes_max: 10_000,
            unpacked_files_max: 20,
            ..FunctionsOptions::new("/nowhere")
        }
    }

    /// An archive of entries with these raw names and kinds.
    fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, kind, content) in entries {
            let mut header = Header::new_gnu();
            // Set as bytes: the crate itself refuses to write bad names.
            let bytes = name.as_bytes();
            header.as_old_mut().name[..bytes.len()].copy_from_slice(bytes);
            header.set_size(content.len() as u64);
            header.set_mode(0o4755);
            header.set_entry_type(*kind);
            if matches!(kind, EntryType::Symlink | EntryType::Link) {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    #[track_caller]
    fn refused(bytes: &[u8], part: &str) {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("in/app");
        let error = unpack(bytes, &folder, &options()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        // Nothing is left, and nothing lies beside.
        assert!(!folder.exists());
        assert_eq!(fs::read_dir(scratch.path().join("in")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn attacks() {
        let file = EntryType::Regular;
        refused(&archive(&[("../evil", file, b"x")]), "outside");
        refused(&archive(&[("a/../../evil", file, b"x")]), "outside");
        refused(&archive(&[("/etc/evil", file, b"x")]), "outside");
        refused(&archive(&[("a\\..\\evil", file, b"x")]), "outside");
        refused(&archive(&[("link", EntryType::Symlink, b"")]), "link");
        refused(&archive(&[("link", EntryType::Link, b"")]), "link");
        refused(&archive(&[("pipe", EntryType::Fifo, b"")]), "link or a device");
        refused(&archive(&[("disk", EntryType::Block, b"")]), "link or a device");
        refused(&archive(&[("a", file, b"x"), ("a", file, b"y")]), "a:");
        refused(&archive(&[("a", file, b"x"), ("a/b", file, b"y")]), "a");
        refused(&archive(&[("big", file, &[0; 10_001])]), "too large");
        refused(&archive(&[("a", file, &[0; 6_000]), ("b", file, &[0; 6_000])]), "too large");
        let many: Vec<String> = (0..21).map(|number| format!("f{number}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), file, &b""[..])).collect();
        refused(&archive(&many), "more than 20 entries");
        let deep = "d/".repeat(30);
        refused(&archive(&[(&format!("{deep}f"), file, b"")]), "more than 20 folders");
        refused(b"no archive at all", "archive");
        refused(&archive(&[]), "empty");
        let mut cut = archive(&[("a", file, &[7; 9_000])]);
        cut.truncate(cut.len() / 2);
        refused(&cut, "archive");
    }

    /// A few kilobytes that unpack to gigabytes are stopped at the bound, not at the end.
    #[test]
    fn a_bomb_is_stopped() {
        let zeros = vec![0; 1 << 20];
        let mut gz = GzEncoder::new(Vec::new(), Compression::best());
        let mut header = Header::new_gnu();
        header.set_path("bomb").unwrap();
        header.set_size(64 << 20);
        header.set_entry_type(EntryType::Regular);
        header.set_cksum();
        gz.write_all(header.as_bytes()).unwrap();
        (0..64).for_each(|_| gz.write_all(&zeros).unwrap());
        refused(&gz.finish().unwrap(), "too large");
    }

    #[test]
    fn there_and_back() {
        let scratch = tempfile::tempdir().unwrap();
        let app = scratch.path().join("app");
        fs::create_dir_all(app.join("fn/sub")).unwrap();
        fs::create_dir_all(app.join(".git")).unwrap();
        fs::write(app.join("host.json"), "{}").unwrap();
        fs::write(app.join("fn/sub/code.py"), "x").unwrap();
        fs::write(app.join(".git/config"), "x").unwrap();
        fs::write(app.join("local.settings.json"), "secret").unwrap();
        let bytes = pack(&app, &options()).unwrap();
        assert_eq!(bytes, pack(&app, &options()).unwrap());
        let folder = scratch.path().join("out");
        unpack(&bytes, &folder, &options()).unwrap();
        assert_eq!(fs::read(folder.join("fn/sub/code.py")).unwrap(), b"x");
        assert!(!folder.join(".git").exists() && !folder.join("local.settings.json").exists());
        // Again: it is there.
        unpack(b"", &folder, &options()).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn no_file_keeps_more_rights_than_it_needs() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("out");
        unpack(&archive(&[("run", EntryType::Regular, b"x")]), &folder, &options()).unwrap();
        assert_eq!(fs::metadata(folder.join("run")).unwrap().permissions().mode() & 0o7777, 0o755);
    }
}
