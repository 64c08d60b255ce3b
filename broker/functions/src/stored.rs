//! What a worker has said of an app's functions, as the cluster keeps it: every node knows triggers and
//! routes of an app without starting its worker.

use std::time::Duration;

use bytes::Bytes;
use fleetline_worker::{Binding, FunctionMetadata, RetryPolicy, RetryStrategy};
use fleetline_workers::LoadedFunction;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::error::FunctionsError;
use crate::options::{FUNCTIONS_MAX, METADATA_BYTES_MAX};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredFunction {
    name: String,
    entry_point: String,
    script_file: String,
    directory: String,
    bindings: Vec<Map<String, Json>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<StoredRetry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_error: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredRetry {
    max: Option<u32>,
    /// Fixed: equal to `max_ms`.
    min_ms: u64,
    max_ms: u64,
    exponential: bool,
}

/// All about an app that its archive doesn't say at a glance.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct StoredApp {
    /// `host.json`.
    pub(crate) host: Json,
    functions: Vec<StoredFunction>,
}

impl StoredApp {
    /// Of what a worker has loaded.
    pub(crate) fn new(host: Json, functions: &[LoadedFunction]) -> Result<StoredApp, FunctionsError> {
        if functions.len() > FUNCTIONS_MAX {
            let text =
                format!("the app has {} functions, at most {FUNCTIONS_MAX} are taken", functions.len());
            return Err(FunctionsError::TooLarge(text));
        }
        for function in functions {
            check_name(&function.metadata.name)?;
        }
        let mut names: Vec<String> =
            functions.iter().map(|function| function.metadata.name.to_ascii_lowercase()).collect();
        names.sort();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(FunctionsError::Invalid(format!("two functions of the app are called {}", pair[0])));
        }
        let stored = |loaded: &LoadedFunction| {
            let metadata = &loaded.metadata;
            StoredFunction {
                name: metadata.name.clone(),
                entry_point: metadata.entry_point.clone(),
                script_file: metadata.script_file.clone(),
                directory: metadata.directory.clone(),
                bindings: metadata.bindings.iter().map(raw).collect(),
                retry: metadata.retry.map(store_retry),
                load_error: loaded.load_error.clone(),
            }
        };
        Ok(StoredApp { host, functions: functions.iter().map(stored).collect() })
    }

    /// The stored form.
    pub(crate) fn encode(&self) -> Result<Bytes, FunctionsError> {
        let bytes = serde_json::to_vec(self).map_err(|error| FunctionsError::Invalid(error.to_string()))?;
        match bytes.len() > METADATA_BYTES_MAX {
            true => Err(FunctionsError::TooLarge(format!(
                "all about the app's functions has {} bytes, at most {METADATA_BYTES_MAX} are kept",
                bytes.len()
            ))),
            false => Ok(bytes.into()),
        }
    }

    /// Reads it.
    pub(crate) fn decode(app: &str, bytes: &[u8]) -> Result<StoredApp, FunctionsError> {
        let failed = |error: serde_json::Error| FunctionsError::Damaged {
            app: app.to_owned(),
            reason: error.to_string(),
        };
        serde_json::from_slice(bytes).map_err(failed)
    }

    /// The functions, and why those didn't load that didn't.
    pub(crate) fn functions(&self) -> Vec<(FunctionMetadata, Option<String>)> {
        let read = |stored: &StoredFunction| {
            let bindings: Result<Vec<Binding>, _> =
                stored.bindings.iter().cloned().map(Binding::parse).collect();
            let (bindings, error) = match bindings {
                Ok(bindings) => (bindings, None),
                Err(error) => (Vec::new(), Some(error.to_string())),
            };
            let metadata = FunctionMetadata {
                id: String::new(),
                name: stored.name.clone(),
                entry_point: stored.entry_point.clone(),
                script_file: stored.script_file.clone(),
                directory: stored.directory.clone(),
                bindings,
                retry: stored.retry.map(read_retry),
            };
            (metadata, stored.load_error.clone().or(error))
        };
        self.functions.iter().map(read).collect()
    }
}

/// The binding with what the worker's own reading of it has added.
fn raw(binding: &Binding) -> Map<String, Json> {
    let mut raw = binding.raw.clone();
    raw.entry("name").or_insert_with(|| binding.name.clone().into());
    raw
}

/// Names of functions stand in names of consumer groups, documents and addresses.
fn check_name(name: &str) -> Result<(), FunctionsError> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match (1..=127).contains(&name.len()) && name.chars().all(is_good) {
        true => Ok(()),
        false => Err(FunctionsError::Invalid(format!(
            "{name:?} is no name of a function: 1 to 127 letters, digits, dashes and underscores"
        ))),
    }
}

fn store_retry(policy: RetryPolicy) -> StoredRetry {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    match policy.strategy {
        RetryStrategy::Fixed { delay } => {
            StoredRetry { max: policy.max, min_ms: ms(delay), max_ms: ms(delay), exponential: false }
        }
        RetryStrategy::Exponential { min, max } => {
            StoredRetry { max: policy.max, min_ms: ms(min), max_ms: ms(max), exponential: true }
        }
    }
}

fn read_retry(stored: StoredRetry) -> RetryPolicy {
    let (min, max) = (Duration::from_millis(stored.min_ms), Duration::from_millis(stored.max_ms));
    let strategy = match stored.exponential {
        true => RetryStrategy::Exponential { min, max },
        false => RetryStrategy::Fixed { delay: min },
    };
    RetryPolicy { max: stored.max, strategy }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn loaded(name: &str) -> LoadedFunction {
        let raw = json!({ "type": "httpTrigger", "name": "r", "direction": "IN" });
        let metadata = FunctionMetadata {
            id: "id".into(),
            name: name.into(),
            bindings: vec![Binding::parse(raw.as_object().unwrap().clone()).unwrap()],
            retry: Some(RetryPolicy {
                max: None,
                strategy: RetryStrategy::Exponential {
                    min: Duration::from_secs(1),
                    max: Duration::from_secs(9),
                },
            }),
            ..FunctionMetadata::default()
        };
        LoadedFunction { metadata, load_error: None }
    }

    #[test]
    fn there_and_back() {
        let stored = StoredApp::new(json!({ "version": "2.0" }), &[loaded("f")]).unwrap();
        let again = StoredApp::decode("a", &stored.encode().unwrap()).unwrap();
        let functions = again.functions();
        let expected = FunctionMetadata { id: String::new(), ..loaded("f").metadata };
        assert_eq!(functions, [(expected, None)]);
        assert_eq!(again.host["version"], "2.0");
    }

    #[test]
    fn names() {
        assert!(StoredApp::new(json!({}), &[loaded("a/b")]).is_err());
        assert!(StoredApp::new(json!({}), &[loaded("a"), loaded("A")]).is_err());
    }
}
