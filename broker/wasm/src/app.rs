//! Reads the folder of an app: which functions it has, and where their components lie.
//!
//! ```text
//!   app/host.json
//!   app/<function>/function.json    {"scriptFile":"function.wasm","bindings":[…],"retry":{…}}
//!   app/<function>/function.wasm    or elsewhere in the app: "scriptFile":"../app.wasm"
//! ```
//!
//! `worker.rs` calls it on a blocking thread. The form is that of all workers (`functions.md` §2); a folder
//! without a component isn't looked at further, so one app may hold functions of several kinds.
//!
//! Invariant: a component lies inside the app's folder, links followed. Everything read is bounded.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetline_worker::{Binding, FunctionMetadata, RetryPolicy, RetryStrategy};
use serde_json::{Map, Value as Json};

use crate::error::WasmError;
use crate::limits::{COMPONENT_BYTES_MAX, FUNCTION_JSON_BYTES_MAX, FUNCTIONS_MAX};

/// The component's name when `function.json` doesn't give one.
const SCRIPT: &str = "function.wasm";
/// Folders of an app that are looked at; more are no function app.
const FOLDERS_MAX: usize = 10_000;

/// A function as its folder says it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) metadata: FunctionMetadata,
    /// Where its component is, or why it can't be loaded.
    pub(crate) script: Result<PathBuf, String>,
}

/// Whether the app has a function of this crate.
pub(crate) fn has_components(root: &Path) -> bool {
    folders(root).is_ok_and(|folders| folders.iter().any(|folder| is_function(folder)))
}

/// The app's functions by name.
pub(crate) fn functions(root: &Path) -> Result<Vec<Found>, WasmError> {
    let root = root.canonicalize().map_err(WasmError::file(root))?;
    let folders: Vec<_> = folders(&root)?.into_iter().filter(|folder| is_function(folder)).collect();
    if folders.len() > FUNCTIONS_MAX {
        let reason = format!("{} functions are more than {FUNCTIONS_MAX}", folders.len());
        return Err(WasmError::FunctionJson { path: root, reason });
    }
    Ok(folders.iter().filter_map(|folder| found(&root, folder)).collect())
}

fn folders(root: &Path) -> Result<Vec<PathBuf>, WasmError> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(root).map_err(WasmError::file(root))?.take(FOLDERS_MAX) {
        let path = entry.map_err(WasmError::file(root))?.path();
        if path.join("function.json").is_file() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Whether a folder with a `function.json` has a component. One that can't be read counts when a
/// component lies beside it, so that its owner hears of it.
fn is_function(folder: &Path) -> bool {
    let script = read_json(folder)
        .ok()
        .and_then(|json| json.get("scriptFile").and_then(Json::as_str).map(String::from));
    match script {
        Some(script) => script.to_ascii_lowercase().ends_with(".wasm"),
        None => folder.join(SCRIPT).is_file(),
    }
}

/// `None` for a function that is switched off.
fn found(root: &Path, folder: &Path) -> Option<Found> {
    let name = folder.file_name()?.to_string_lossy().into_owned();
    let directory = folder.to_string_lossy().into_owned();
    let mut metadata = FunctionMetadata { id: name.clone(), name, directory, ..FunctionMetadata::default() };
    let json = match read_json(folder) {
        Ok(json) => json,
        Err(error) => return Some(Found { metadata, script: Err(error.to_string()) }),
    };
    if json.get("disabled") == Some(&Json::Bool(true)) {
        return None;
    }
    let script_file = json.get("scriptFile").and_then(Json::as_str).unwrap_or(SCRIPT);
    script_file.clone_into(&mut metadata.script_file);
    let script = fill(&mut metadata, &json).and_then(|()| inside(root, &folder.join(script_file)));
    Some(Found { metadata, script })
}

fn fill(metadata: &mut FunctionMetadata, json: &Map<String, Json>) -> Result<(), String> {
    let Some(Json::Array(bindings)) = json.get("bindings") else {
        return Err("function.json has no bindings".into());
    };
    for binding in bindings {
        let raw = binding.as_object().ok_or("a binding is not an object")?;
        metadata.bindings.push(Binding::parse(raw.clone()).map_err(|error| error.to_string())?);
    }
    metadata.retry = json.get("retry").filter(|retry| !retry.is_null()).map(retry).transpose()?;
    Ok(())
}

fn inside(root: &Path, script: &Path) -> Result<PathBuf, String> {
    let found = script.canonicalize().map_err(|error| format!("{}: {error}", script.display()))?;
    match found.starts_with(root) {
        true => Ok(found),
        false => Err(format!("{} lies outside the app", script.display())),
    }
}

/// Reads `retry` (`functions.md` §7).
fn retry(json: &Json) -> Result<RetryPolicy, String> {
    let text =
        |name: &str| json.get(name).and_then(Json::as_str).ok_or_else(|| format!("retry has no {name}"));
    let duration = |name: &str| {
        let found = text(name)?;
        time_span(found).ok_or_else(|| format!("retry has {name} {found}"))
    };
    let strategy = match text("strategy")?.to_ascii_lowercase().as_str() {
        "fixeddelay" => RetryStrategy::Fixed { delay: duration("delayInterval")? },
        "exponentialbackoff" => RetryStrategy::Exponential {
            min: duration("minimumInterval")?,
            max: duration("maximumInterval")?,
        },
        other => return Err(format!("retry has strategy {other}")),
    };
    let max = match json.get("maxRetryCount").and_then(Json::as_i64) {
        Some(-1) => None,
        Some(count) => Some(u32::try_from(count).map_err(|_| format!("retry has maxRetryCount {count}"))?),
        None => return Err("retry has no maxRetryCount".into()),
    };
    Ok(RetryPolicy { max, strategy })
}

/// Reads `hh:mm:ss`.
fn time_span(text: &str) -> Option<Duration> {
    let parts: Vec<u64> = text.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    match parts.as_slice() {
        &[hours, minutes, seconds] if hours < 24 && minutes < 60 && seconds < 60 => {
            Some(Duration::from_secs((hours * 60 + minutes) * 60 + seconds))
        }
        _ => None,
    }
}

fn read_json(folder: &Path) -> Result<Map<String, Json>, WasmError> {
    let path = folder.join("function.json");
    let text = read(&path, FUNCTION_JSON_BYTES_MAX)?;
    // Editors of Windows put a mark first, which isn't JSON.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    serde_json::from_slice(text).map_err(|error| WasmError::FunctionJson { path, reason: error.to_string() })
}

/// Reads a component.
pub(crate) fn read_component(path: &Path) -> Result<Vec<u8>, WasmError> {
    read(path, COMPONENT_BYTES_MAX)
}

fn read(path: &Path, max: u64) -> Result<Vec<u8>, WasmError> {
    let file = File::open(path).map_err(WasmError::file(path))?;
    let metadata = file.metadata().map_err(WasmError::file(path))?;
    if !metadata.is_file() {
        return Err(WasmError::file(path)(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")));
    }
    let mut bytes = Vec::new();
    // One byte more, so that a file that grows meanwhile is noticed too.
    file.take(max + 1).read_to_end(&mut bytes).map_err(WasmError::file(path))?;
    match bytes.len() as u64 > max {
        true => Err(WasmError::TooLarge { path: path.to_owned(), found: metadata.len(), max }),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    const TIMER: &str = r#"{"bindings":[{"type":"timerTrigger","name":"t","direction":"in"}]}"#;

    #[test]
    fn functions_are_found_by_their_folders() {
        let retry = r#"{"strategy":"fixedDelay","maxRetryCount":-1,"delayInterval":"00:01:05"}"#;
        let shared = TIMER.replacen('{', r#"{"scriptFile":"../all.wasm","retry":R,"#, 1);
        let app = app(&[
            ("b/function.json", TIMER),
            ("b/function.wasm", ""),
            ("a/function.json", &shared.replace('R', retry)),
            ("all.wasm", ""),
            ("python/function.json", r#"{"scriptFile":"__init__.py","bindings":[]}"#),
            ("old/function.json", r#"{"bindings":[]}"#),
            ("off/function.json", r#"{"disabled":true,"scriptFile":"x.wasm","bindings":[]}"#),
            ("static/index.html", ""),
        ]);
        assert!(has_components(app.path()));
        let found = functions(app.path()).unwrap();
        let names: Vec<_> = found.iter().map(|found| found.metadata.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let strategy = RetryStrategy::Fixed { delay: Duration::from_secs(65) };
        assert_eq!(found[0].metadata.retry, Some(RetryPolicy { max: None, strategy }));
        assert!(found[0].script.as_ref().unwrap().ends_with("all.wasm"));
        assert_eq!(found[1].metadata.trigger().unwrap().name, "t");
    }

    #[test]
    fn a_function_that_can_not_be_read_says_why() {
        let bad = r#"{"strategy":"fixedDelay","maxRetryCount":1,"delayInterval":"1m"}"#;
        let app = app(&[
            ("text/function.json", "no"),
            ("text/function.wasm", ""),
            ("none/function.json", r#"{"scriptFile":"none.wasm","bindings":[]}"#),
            ("out/function.json", r#"{"scriptFile":"../../../../../../etc/x.wasm","bindings":[]}"#),
            ("link/function.json", r#"{"scriptFile":"link.wasm","bindings":[]}"#),
            ("retry/function.json", &format!(r#"{{"scriptFile":"x.wasm","bindings":[],"retry":{bad}}}"#)),
        ]);
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), app.path().join("link/link.wasm")).unwrap();
        let found = functions(app.path()).unwrap();
        let errors =
            found.iter().map(|found| (found.metadata.name.as_str(), found.script.clone().unwrap_err()));
        for ((name, error), expected) in
            errors.zip(["outside the app", "No such file", "No such", "delayInterval 1m", "expected"])
        {
            assert!(error.contains(expected), "{name}: {error}");
        }
    }

    #[test]
    fn other_apps_do_not_fit() {
        let python = app(&[("f/function.json", r#"{"scriptFile":"__init__.py","bindings":[]}"#)]);
        assert!(!has_components(python.path()));
        assert!(!has_components(&python.path().join("nowhere")));
    }
}
