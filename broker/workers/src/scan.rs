//! Finds functions that are defined by `function.json` files: the models of which the worker doesn't
//! index the app itself (§2, §6.1 step 5).

use std::fs;
use std::path::Path;

use fleetline_worker::FunctionMetadata;
use fleetline_worker::convert::function_json;

use crate::options::{LONGEST_FUNCTION_JSON, MOST_FUNCTIONS};

/// A function that was found: what it is and where its script lies, or why it can't be read.
pub(crate) struct Found {
    pub(crate) metadata: FunctionMetadata,
    pub(crate) script: Result<String, String>,
}

/// All functions below `root`, by name. Blocks.
pub(crate) fn functions(root: &Path) -> Result<Vec<Found>, String> {
    let entries = fs::read_dir(root).map_err(|error| format!("{}: {error}", root.display()))?;
    let mut folders: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("function.json").is_file())
        .collect();
    folders.sort();
    if folders.len() > MOST_FUNCTIONS {
        return Err(format!("the app has {} functions, allowed are {MOST_FUNCTIONS}", folders.len()));
    }
    Ok(folders.iter().filter_map(|folder| function(folder)).collect())
}

fn function(folder: &Path) -> Option<Found> {
    let name = folder.file_name()?.to_string_lossy().into_owned();
    let directory = folder.to_string_lossy().into_owned();
    match read(folder, &name, &directory) {
        Ok(Some(metadata)) => Some(Found { script: script(folder, &metadata.script_file), metadata }),
        Ok(None) => None,
        Err(reason) => {
            let metadata =
                FunctionMetadata { id: name.clone(), name, directory, ..FunctionMetadata::default() };
            Some(Found { metadata, script: Err(reason) })
        }
    }
}

fn read(folder: &Path, name: &str, directory: &str) -> Result<Option<FunctionMetadata>, String> {
    let path = folder.join("function.json");
    let length = fs::metadata(&path).map_err(|error| format!("function.json: {error}"))?.len();
    if length > LONGEST_FUNCTION_JSON {
        return Err(format!("function.json has {length} bytes, allowed are {LONGEST_FUNCTION_JSON}"));
    }
    let content = fs::read(&path).map_err(|error| format!("function.json: {error}"))?;
    function_json(name, directory, &content).map_err(|error| error.to_string())
}

/// The script that function.json names, else the only file of a language, else the usual name.
fn script(folder: &Path, named: &str) -> Result<String, String> {
    let usual = ["__init__.py", "index.js", "main.py"];
    let candidates: Vec<_> = if named.is_empty() { usual.to_vec() } else { vec![named] };
    let found = candidates.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let Some(path) = found else {
        return Err(format!("the script {} is missing", candidates.join(" or ")));
    };
    // `../shared/code.py` is allowed; the path that is sent has no `..`.
    let path = fs::canonicalize(&path).map_err(|error| format!("the script {}: {error}", path.display()))?;
    Ok(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_by_folder_and_faults_stay_with_theirs() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, json: &str, script: &str| {
            let folder = root.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("function.json"), json).unwrap();
            fs::write(folder.join(script), "").unwrap();
        };
        let bindings = r#"{"bindings":[{"type":"timerTrigger","name":"t","direction":"in"}]}"#;
        write("good", bindings, "__init__.py");
        write("broken", "{", "__init__.py");
        write("no_script", bindings, "other.txt");
        write("off", r#"{"disabled":true,"bindings":[]}"#, "__init__.py");
        fs::create_dir(root.path().join("shared")).unwrap();
        let found = functions(root.path()).unwrap();
        let names: Vec<_> = found.iter().map(|one| one.metadata.name.as_str()).collect();
        assert_eq!(names, ["broken", "good", "no_script"]);
        assert!(found[0].script.as_ref().unwrap_err().contains("not JSON"));
        assert!(found[1].script.as_ref().unwrap().ends_with("good/__init__.py"));
        assert!(found[2].script.as_ref().unwrap_err().contains("is missing"));
    }
}
