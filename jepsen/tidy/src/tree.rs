//! The files of the tree: everything below the root except build output and hidden folders.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The root of the workspace that this crate is built in.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Relative paths (with `/`) of all files whose name ends with `suffix`, sorted. Build output is any
/// folder that cargo has marked as a cache, whatever its name.
///
/// # Errors
/// What the file system says; a folder that vanishes meanwhile is one.
pub fn files(root: &Path, suffix: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_dir() && !name.starts_with('.') && !entry.path().join("CACHEDIR.TAG").exists() {
                folders.push(path);
            } else if kind.is_file() && name.ends_with(suffix) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds files at any depth, and none in hidden folders or caches.
    #[test]
    fn walks_what_belongs_to_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a.rs", "b/c/d.rs", "b/e.md", ".git/f.rs", "target/g.rs"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::write(dir.path().join("target/CACHEDIR.TAG"), "").unwrap();
        assert_eq!(files(dir.path(), ".rs").unwrap(), ["a.rs", "b/c/d.rs"]);
        assert!(files(&dir.path().join("absent"), ".rs").is_err());
    }
}
