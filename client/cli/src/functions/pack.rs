//! An app's folder as an archive (`tar.gz`): what the hub takes as a version of the app.
//!
//! What is left out: names that begin with a dot (but `.python_packages`), `__pycache__`,
//! `local.settings.json` (its secrets are of this machine), and what `.funcignore` names (`ignore`). Packages
//! (`node_modules`, `.python_packages`) are part of the app: nothing is installed on nodes.
//!
//! Invariant: the same files give the same bytes, so an app that hasn't changed is known by its hash.

use std::fs;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{SHA256, digest};
use tar::{Builder, EntryType, Header};

use super::ignore::Ignore;
use crate::CliError;

/// Bytes of an archive that a hub takes.
const ARCHIVE_BYTES_MAX: usize = 32 << 20;
/// Files of an app that a hub takes.
const FILES_MAX: usize = 50_000;
/// Folders inside of each other; also ends links that go round.
const DEPTH_MAX: usize = 64;
/// What is told when an app is too large.
const SMALLER: &str =
    "hint: name what the app doesn't need at run time in .funcignore (tests, caches, development packages)";

/// A packed app.
pub(crate) struct Packed {
    /// The archive.
    pub(crate) bytes: Vec<u8>,
    /// Its SHA-256, in hex: the hub knows versions by it.
    pub(crate) sha256: String,
    /// How many files are in it.
    pub(crate) files: usize,
}

/// Packs a folder. Blocking.
///
/// # Errors
/// When it is no app, can't be read, or is more than a hub takes.
pub(crate) fn pack(folder: &Path) -> Result<Packed, CliError> {
    if !folder.join("host.json").is_file() {
        return Err(CliError::Failed(format!(
            "{} is no function app: it has no host.json\nhint: name the app's folder; the smallest host.json is \
             {{\"version\": \"2.0\"}}",
            folder.display()
        )));
    }
    let ignore = Ignore::read(folder)?;
    let mut files = Vec::new();
    collect(folder, Path::new(""), &ignore, &mut files)?;
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (path, is_executable) in &files {
        let content = fs::read(folder.join(path)).map_err(|error| unreadable(&folder.join(path), &error))?;
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(if *is_executable { 0o755 } else { 0o644 });
        header.set_mtime(0);
        header.set_entry_type(EntryType::Regular);
        builder.append_data(&mut header, path, content.as_slice())?;
        check_size(builder.get_ref().get_ref().len())?;
    }
    let bytes = builder.into_inner()?.finish()?;
    check_size(bytes.len())?;
    let sha256 = digest(&SHA256, &bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Packed { bytes, sha256, files: files.len() })
}

fn check_size(bytes: usize) -> Result<(), CliError> {
    match bytes > ARCHIVE_BYTES_MAX {
        true => Err(CliError::Failed(format!(
            "the packed app is larger than {} MiB, which is what a hub takes\n{SMALLER}",
            ARCHIVE_BYTES_MAX >> 20
        ))),
        false => Ok(()),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::Failed(format!("{} can't be read: {error}", path.display()))
}

/// Whether a file or folder of this name belongs to an app.
fn belongs(name: &str) -> bool {
    let hidden = name.starts_with('.') && name != ".python_packages";
    !hidden && name != "__pycache__" && name != "local.settings.json"
}

/// Adds the files below `path`, in the order of their names, and whether they can be run.
fn collect(
    root: &Path,
    path: &Path,
    ignore: &Ignore,
    files: &mut Vec<(PathBuf, bool)>,
) -> Result<(), CliError> {
    let here = root.join(path);
    let read = || -> std::io::Result<Vec<fs::DirEntry>> { fs::read_dir(&here)?.collect() };
    let mut entries = read().map_err(|error| unreadable(&here, &error))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let path = path.join(&name);
        let name = name.to_str().ok_or_else(|| {
            CliError::Failed(format!("{}: only names in UTF-8 can be packed", entry.path().display()))
        })?;
        // Links are followed: what they point to is what the app needs.
        let metadata = fs::metadata(entry.path()).map_err(|error| unreadable(&entry.path(), &error))?;
        if !belongs(name) || ignore.matches(&path, metadata.is_dir()) {
            continue;
        }
        if metadata.is_dir() {
            if path.components().count() >= DEPTH_MAX {
                return Err(CliError::Failed(format!(
                    "{}: folders lie more than {DEPTH_MAX} deep; is there a link that goes round?",
                    entry.path().display()
                )));
            }
            collect(root, &path, ignore, files)?;
        } else if metadata.is_file() {
            files.push((path, is_executable(&metadata)));
        }
        if files.len() > FILES_MAX {
            return Err(CliError::Failed(format!("the app has more than {FILES_MAX} files\n{SMALLER}")));
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
pub(crate) mod tests {
    use std::io::Read;

    use super::*;

    /// A folder with these files.
    pub(crate) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    /// Names and contents of an archive.
    pub(crate) fn unpacked(bytes: &[u8]) -> Vec<(String, String)> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes));
        let content = |entry: std::io::Result<tar::Entry<'_, _>>| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            Read::read_to_string(&mut entry, &mut text).unwrap();
            (entry.path().unwrap().display().to_string(), text)
        };
        archive.entries().unwrap().map(content).collect()
    }

    /// The app and its packages are packed; what is of this machine, hidden or ignored isn't.
    #[test]
    fn what_is_packed() {
        let folder = folder(&[
            ("host.json", "{}"),
            ("function_app.py", "app"),
            ("node_modules/a/index.js", "a"),
            (".python_packages/lib/b.py", "b"),
            ("local.settings.json", "secret"),
            ("__pycache__/x.pyc", "x"),
            (".git/config", "x"),
            (".funcignore", "tests/\n*.md\n!KEEP.md\n"),
            ("tests/t.py", "x"),
            ("README.md", "x"),
            ("KEEP.md", "k"),
        ]);
        let packed = pack(folder.path()).unwrap();
        let names: Vec<String> = unpacked(&packed.bytes).into_iter().map(|(name, _)| name).collect();
        let expected = [
            ".python_packages/lib/b.py",
            "KEEP.md",
            "function_app.py",
            "host.json",
            "node_modules/a/index.js",
        ];
        assert_eq!(names, expected);
        assert_eq!(packed.files, 5);
    }

    /// The same files give the same archive, whenever they were written; another byte gives another one.
    #[test]
    fn repeats() {
        let (one, other) = (folder(&[("host.json", "{}")]), folder(&[("host.json", "{}")]));
        let sum = |folder: &tempfile::TempDir| pack(folder.path()).unwrap().sha256;
        assert_eq!(sum(&one), sum(&other));
        assert_eq!(sum(&one).len(), 64);
        fs::write(other.path().join("host.json"), "{ }").unwrap();
        assert_ne!(sum(&one), sum(&other));
    }

    /// What is no app, goes round or is too large is refused with a word on why.
    #[cfg(unix)]
    #[test]
    fn refusals() {
        let error = |folder: &tempfile::TempDir| pack(folder.path()).err().unwrap().to_string();
        assert!(error(&folder(&[("a.py", "")])).contains("no host.json"));
        let round = folder(&[("host.json", "{}")]);
        std::os::unix::fs::symlink(".", round.path().join("again")).unwrap();
        // Either the system or the bound on depth ends it.
        assert!(error(&round).contains("again/again/again"));
        let large = folder(&[("host.json", "{}")]);
        // Noise, which doesn't get smaller.
        let mut noise = vec![0; ARCHIVE_BYTES_MAX + 1];
        getrandom::fill(&mut noise).unwrap();
        fs::write(large.path().join("noise"), noise).unwrap();
        assert!(error(&large).contains("larger than 32 MiB"));
    }
}
