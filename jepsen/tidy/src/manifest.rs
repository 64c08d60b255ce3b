//! Rules on `Cargo.toml` files: which crate may see which.
//!
//! ```text
//!   protocol ◄── storage ◄── raft ◄── broker        client ──► protocol
//!                                        ▲            ▲
//!                                        └── server ──┘     jepsen, benches: anything
//! ```
//!
//! Test dependencies may not point upward either, with one exception: the client's tests speak to
//! the real front.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::Problem;

/// The layers, each with the layers that it may use.
const LAYERS: &[(&str, &[&str])] = &[
    ("protocol", &["protocol"]),
    ("storage", &["protocol", "storage"]),
    ("raft", &["protocol", "storage", "raft"]),
    ("broker", &["protocol", "storage", "raft", "broker"]),
    ("client", &["protocol", "client"]),
    ("jepsen", &["protocol", "storage", "raft", "broker", "client", "jepsen"]),
    ("benches", &["protocol", "storage", "raft", "broker", "client", "benches"]),
];

/// Arrows that are allowed although the layers forbid them: from, to a layer, in tests only, reason.
const ARROWS: &[(&str, &str, bool, &str)] = &[
    ("broker/server", "client", false, "the binary holds the command line too"),
    ("client/service", "broker", true, "its tests speak to the real front"),
];

/// Crates of others that only some of ours may name: the crate, and who may.
const RESERVED: &[(&str, &[&str])] = &[
    ("rocksdb", &["storage/state"]),
    ("openraft", &["raft/", "broker/node", "jepsen/sim"]),
    ("tokio", &["raft/", "broker/", "client/", "jepsen/", "benches/"]),
];

/// What must be the workspace's.
const INHERITED: &[&str] = &["version", "edition", "license", "rust-version"];

/// All problems of the workspace's manifests, given as (path, text); `Cargo.toml` is the root's.
pub fn check(manifests: &[(String, String)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut parsed = BTreeMap::new();
    for (path, text) in manifests {
        match text.parse::<Table>() {
            Ok(table) => drop(parsed.insert(path.as_str(), table)),
            Err(error) => problems.push(Problem::new(path, 0, format!("not TOML: {}", error.message()))),
        }
    }
    let Some(root) = parsed.remove("Cargo.toml") else {
        problems.push(Problem::new("Cargo.toml", 0, "the root manifest is missing"));
        return problems;
    };
    check_root(&root, &mut problems);
    let folders = crate_folders(&root);
    for (path, table) in &parsed {
        check_member(path, table, &folders, &mut problems);
    }
    problems
}

/// Crates with unsafe code in one file: `broker/wasm` loads machine code that it compiled and verified.
const UNSAFE_PLACES: [&str; 1] = ["broker/wasm/Cargo.toml"];

fn check_root(root: &Table, problems: &mut Vec<Problem>) {
    let mut want = |place: &[&str], wanted: &str| {
        if at(root, place).and_then(Value::as_str) != Some(wanted) {
            problems.push(Problem::new("Cargo.toml", 0, format!("`{}` must be {wanted:?}", place.join("."))));
        }
    };
    want(&["workspace", "lints", "rust", "unsafe_code"], "forbid");
    want(&["workspace", "lints", "clippy", "unwrap_used"], "deny");
    want(&["workspace", "package", "license"], "Apache-2.0");
}

/// Our crates by name, from the workspace's dependency table: `fleetline-log` → `storage/log`.
fn crate_folders(root: &Table) -> BTreeMap<String, String> {
    let dependencies = at(root, &["workspace", "dependencies"]).and_then(Value::as_table);
    let folder = |value: &Value| value.get("path").and_then(Value::as_str).map(str::to_owned);
    dependencies
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), folder(value)?)))
        .collect()
}

fn check_member(path: &str, table: &Table, folders: &BTreeMap<String, String>, problems: &mut Vec<Problem>) {
    for key in INHERITED {
        if at(table, &["package", key, "workspace"]).and_then(Value::as_bool) != Some(true) {
            problems.push(Problem::new(path, 0, format!("`package.{key}` must be the workspace's")));
        }
    }
    if UNSAFE_PLACES.contains(&path) {
        // The lints can't be the workspace's: what is forbidden can't be allowed in one file.
        for (place, wanted) in
            [(["lints", "rust", "unsafe_code"], "deny"), (["lints", "clippy", "unwrap_used"], "deny")]
        {
            if at(table, &place).and_then(Value::as_str) != Some(wanted) {
                problems.push(Problem::new(path, 0, format!("`{}` must be {wanted:?}", place.join("."))));
            }
        }
    } else if at(table, &["lints", "workspace"]).and_then(Value::as_bool) != Some(true) {
        problems.push(Problem::new(
            path,
            0,
            "`lints.workspace` must be true: unsafe code is forbidden there",
        ));
    }
    let from = path.strip_suffix("/Cargo.toml").unwrap_or(path);
    for (name, value, test) in dependencies(table) {
        let package = value.get("package").and_then(Value::as_str).unwrap_or(name);
        let local = value.get("path").and_then(Value::as_str);
        if let Some(local) = local {
            let message = format!("`{name}` has a path of its own ({local}): name it in the root's table");
            problems.push(Problem::new(path, 0, message));
        }
        match folders.get(package) {
            Some(to) => arrow(path, (from, to), test, problems),
            None => reserved(path, from, package, test, problems),
        }
    }
}

/// All dependencies of a manifest, those of targets included: name, value, whether for tests only.
fn dependencies(table: &Table) -> Vec<(&str, &Value, bool)> {
    let mut places = vec![table];
    places.extend(
        table.get("target").and_then(Value::as_table).into_iter().flatten().filter_map(|(_, t)| t.as_table()),
    );
    let mut found = Vec::new();
    for place in places {
        for (kind, test) in
            [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
        {
            let of_kind = place.get(kind).and_then(Value::as_table);
            found.extend(of_kind.into_iter().flatten().map(|(name, value)| (name.as_str(), value, test)));
        }
    }
    found
}

fn arrow(path: &str, ends: (&str, &str), test: bool, problems: &mut Vec<Problem>) {
    let layer = |folder: &str| folder.split('/').next().unwrap_or_default().to_owned();
    let (from, to) = (layer(ends.0), layer(ends.1));
    let downward = LAYERS.iter().any(|(name, below)| *name == from && below.contains(&to.as_str()));
    let excepted = ARROWS.iter().any(|a| a.0 == ends.0 && a.1 == to && (test || !a.2));
    if !downward && !excepted {
        let message =
            format!("{} may not depend on {}: arrows between layers point downward", ends.0, ends.1);
        problems.push(Problem::new(path, 0, message));
    }
}

fn reserved(path: &str, from: &str, package: &str, test: bool, problems: &mut Vec<Problem>) {
    for (name, allowed) in RESERVED {
        // A runtime to drive a test is no dependency of the code.
        let test_runtime = test && *name == "tokio";
        if package == *name && !test_runtime && !allowed.iter().any(|place| from.starts_with(place)) {
            let message = format!("{from} may not name `{name}`; only {} may", allowed.join(", "));
            problems.push(Problem::new(path, 0, message));
        }
    }
}

fn at<'t>(table: &'t Table, place: &[&str]) -> Option<&'t Value> {
    let (first, rest) = place.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = r#"
        [workspace.package]
        license = "Apache-2.0"
        [workspace.dependencies]
        x-types = { path = "protocol/types" }
        x-log = { path = "storage/log" }
        x-group = { path = "raft/group" }
        x-node = { path = "broker/node" }
        x-client = { path = "client/service" }
        x-sim = { path = "jepsen/sim" }
        tokio = "1"
        [workspace.lints.rust]
        unsafe_code = "forbid"
        [workspace.lints.clippy]
        unwrap_used = "deny"
    "#;

    const HEAD: &str = "package.version.workspace = true\npackage.edition.workspace = true\n\
        package.license.workspace = true\npackage.rust-version.workspace = true\nlints.workspace = true\n";

    fn problems(root: &str, folder: &str, member: &str) -> Vec<String> {
        let of = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        let manifests = [of("Cargo.toml", root), of(&format!("{folder}/Cargo.toml"), member)];
        check(&manifests).into_iter().map(|p| p.message).collect()
    }

    /// How many problems a crate in `folder` has with these lines behind a good head.
    fn count(folder: &str, lines: &str) -> usize {
        problems(ROOT, folder, &format!("{HEAD}{lines}")).len()
    }

    /// Every arrow between layers, and whether it is allowed.
    #[test]
    fn arrows_point_downward() {
        let crates = [
            ("protocol", "x-types"),
            ("storage", "x-log"),
            ("raft", "x-group"),
            ("broker", "x-node"),
            ("client", "x-client"),
            ("jepsen", "x-sim"),
        ];
        for (from, allowed) in LAYERS {
            for (to, name) in crates {
                let expected = usize::from(!allowed.contains(&to));
                for kind in [
                    "dependencies",
                    "dev-dependencies",
                    "build-dependencies",
                    "target.'cfg(unix)'.dependencies",
                ] {
                    let line = format!("{kind}.{name}.workspace = true\n");
                    assert_eq!(count(&format!("{from}/a"), &line), expected, "{from} {line}");
                }
            }
        }
        assert_eq!(
            count("protocol/a", "[dependencies]\ny = { workspace = true, package = \"x-log\" }\n"),
            1,
            "renamed"
        );
        assert_eq!(count("broker/a", "[dependencies]\ny = { path = \"../b\" }\n"), 1, "around the table");
    }

    /// Exceptions hold for the crates they name, and for tests where they say so.
    #[test]
    fn exceptions_are_narrow() {
        assert_eq!(count("broker/server", "dependencies.x-client.workspace = true\n"), 0);
        assert_eq!(count("broker/node", "dependencies.x-client.workspace = true\n"), 1);
        assert_eq!(count("client/service", "dev-dependencies.x-node.workspace = true\n"), 0);
        assert_eq!(count("client/service", "dependencies.x-node.workspace = true\n"), 1);
    }

    #[test]
    fn reserved_crates_are_named_by_few() {
        for (name, folder, allowed) in [
            ("rocksdb", "storage/state", true),
            ("rocksdb", "storage/log", false),
            ("rocksdb", "broker/node", false),
            ("openraft", "raft/group", true),
            ("openraft", "broker/node", true),
            ("openraft", "broker/partition", false),
            ("tokio", "protocol/native", false),
            ("tokio", "storage/log", false),
            ("tokio", "client/service", true),
        ] {
            let found = count(folder, &format!("dependencies.{name}.workspace = true\n"));
            assert_eq!(found, usize::from(!allowed), "{name} in {folder}");
        }
        assert_eq!(count("protocol/native", "dev-dependencies.tokio.workspace = true\n"), 0);
        assert_eq!(count("storage/log", "dev-dependencies.rocksdb.workspace = true\n"), 1);
    }

    #[test]
    fn licence_and_lints_are_inherited() {
        for line in HEAD.lines() {
            let without = HEAD.replace(&format!("{line}\n"), "");
            assert_eq!(problems(ROOT, "raft/a", &without).len(), 1, "without {line}");
        }
        assert_eq!(
            problems(ROOT, "raft/a", &HEAD.replace("license.workspace = true", "license = \"MIT\"")).len(),
            1
        );
        for line in ["unsafe_code = \"forbid\"", "unwrap_used = \"deny\"", "license = \"Apache-2.0\""] {
            assert_eq!(problems(&ROOT.replace(line, ""), "raft/a", HEAD).len(), 1, "root without {line}");
        }
        assert_eq!(problems(ROOT, "raft/a", "not toml").len(), 1);
        assert_eq!(check(&[]).len(), 1, "no root");
    }
}
