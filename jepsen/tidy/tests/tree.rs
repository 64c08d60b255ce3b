//! The whole tree is tidy.
#![allow(clippy::unwrap_used)]

use fleetline_tidy::{Problem, links, manifest, source, tree};

/// Reads all files that end with `suffix`; fewer than `least` means that the walk missed the tree.
fn read(suffix: &str, least: usize) -> Vec<(String, String)> {
    let root = tree::root();
    let files = tree::files(&root, suffix).unwrap();
    assert!(files.len() >= least, "only {} files end with {suffix}", files.len());
    let text = |path: &String| std::fs::read_to_string(root.join(path)).unwrap();
    files.iter().map(|path| (path.clone(), text(path))).collect()
}

fn assert_tidy(problems: Vec<Problem>) {
    let list: String = problems.iter().map(|p| format!("\n{p}")).collect();
    assert!(problems.is_empty(), "{} problems:{list}", problems.len());
}

/// Headers, sizes, leftovers, determinism.
#[test]
fn sources() {
    assert_tidy(read(".rs", 100).iter().flat_map(|(path, text)| source::check(path, text)).collect());
}

/// Arrows, licences, lints.
#[test]
fn manifests() {
    let manifests = read("Cargo.toml", 20);
    assert!(manifests.iter().any(|(path, _)| path == "storage/log/Cargo.toml"));
    assert_tidy(manifest::check(&manifests));
}

/// Links in documents.
#[test]
fn documents() {
    let root = tree::root();
    assert_tidy(read(".md", 3).iter().flat_map(|(path, text)| links::check(&root, path, text)).collect());
}
