//! Storing apps: versions, settings, removal, damage.

use fleetline_functions::FunctionsError;
use serde_json::{Value as Json, json};

use super::fakes::{Rig, handler, outputs};

fn app() -> Json {
    json!([{ "name": "f", "bindings": [{ "type": "httpTrigger", "name": "r" }] }])
}

fn archives(rig: &Rig) -> Vec<(String, usize)> {
    rig.world.documents("fn/a/")
}

/// Parts are small enough for documents, old versions go, and removal leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn versions() {
    let rig = Rig::new(1, 4, handler(|_, _| outputs(&[])));
    // Incompressible, so that the archive has several parts.
    let mut noise = 1u64;
    let mut draw = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{noise:016x}")
    };
    let text: String = (0..20_000).map(|_| draw()).collect();
    let archive = rig.archive(&app(), &json!({ "text": text }));
    assert_eq!(rig.tiers[0].deploy("app", archive.clone()).await.unwrap(), 1);
    let parts = archives(&rig);
    assert!(parts.len() > 3 && parts.iter().all(|(_, size)| *size <= 60 << 10), "{parts:?}");
    for version in 2..=7 {
        assert_eq!(rig.deploy_with("app", app(), json!({ "n": version })).await, version);
    }
    let status = rig.tiers[0].status("app").await.unwrap();
    let kept: Vec<u64> =
        status["versions"].as_array().unwrap().iter().map(|v| v["version"].as_u64().unwrap()).collect();
    assert_eq!((kept, &status["activeVersion"]), (vec![3, 4, 5, 6, 7], &json!(7)));
    // An archive and what is known about its functions, each.
    assert_eq!(archives(&rig).len(), 10);
    rig.tiers[0].rollback("app", 4).await.unwrap();
    assert_eq!(rig.tiers[0].status("app").await.unwrap()["activeVersion"], 4);
    assert_eq!(archives(&rig).len(), 10);
    let gone = rig.tiers[0].rollback("app", 1).await;
    assert!(matches!(gone, Err(FunctionsError::NotFound(_))), "{gone:?}");
    rig.tiers[0].delete("app").await.unwrap();
    assert_eq!(archives(&rig), []);
    assert!(matches!(rig.tiers[0].status("app").await, Err(FunctionsError::NotFound(_))));
    assert!(matches!(rig.tiers[0].delete("app").await, Err(FunctionsError::NotFound(_))));
    // Its number goes on where a name is used again.
    rig.deploy("app", app()).await;
}

/// Every node hosts an app, also one that was away when it was deployed.
#[tokio::test(flavor = "multi_thread")]
async fn other_nodes() {
    let rig = Rig::new(3, 4, handler(|_, _| outputs(&[])));
    rig.deploy("app", app()).await;
    for tier in &rig.tiers {
        while tier.list()["apps"][0]["functions"] != 1 {
            tokio::task::yield_now().await;
        }
    }
}

/// What can't be used is refused before anything is stored.
#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let rig = Rig::new(1, 4, handler(|_, _| outputs(&[])));
    let tier = &rig.tiers[0];
    let archive = rig.archive(&app(), &json!({}));
    let refused = |found: Result<u64, FunctionsError>, part: &str| {
        let text = found.unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    };
    refused(tier.deploy("Bad Name", archive.clone()).await, "no name of an app");
    refused(tier.deploy("app", "no archive".into()).await, "archive can't be used");
    refused(tier.deploy("app", vec![0; (32 << 20) + 1].into()).await, "at most");
    let twice = json!([{ "name": "f", "bindings": [] }, { "name": "F", "bindings": [] }]);
    refused(tier.deploy("app", rig.archive(&twice, &json!({}))).await, "two functions");
    *rig.workers.broken.lock() = Some("SyntaxError: line 3".into());
    refused(tier.deploy("app", archive.clone()).await, "SyntaxError: line 3");
    *rig.workers.broken.lock() = None;
    assert_eq!(archives(&rig), []);
    assert_eq!(tier.list(), json!({ "apps": [] }));
    let many = (0..300).map(|n| (format!("S{n}"), String::new())).collect();
    tier.deploy("app", archive).await.unwrap();
    assert!(matches!(tier.set_settings("app", many).await, Err(FunctionsError::TooLarge(_))));
    let bad = [("A=B".to_owned(), String::new())].into();
    assert!(matches!(tier.set_settings("app", bad).await, Err(FunctionsError::Invalid(_))));
}

/// An app that needs a setting while it is loaded gets it with its first deployment; it stays with the next.
#[tokio::test(flavor = "multi_thread")]
async fn settings_come_with_the_archive() {
    let rig = Rig::new(1, 1, handler(|_, _| outputs(&[])));
    *rig.workers.needed.lock() = Some("LIMIT".into());
    let (tier, archive) = (&rig.tiers[0], rig.archive(&app(), &json!({})));
    let refused = tier.deploy("app", archive.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("KeyError: LIMIT"), "{refused}");
    let with = |name: &str| [(name.to_owned(), "1".to_owned())].into();
    assert!(matches!(
        tier.deploy_with("app", archive.clone(), with("A=B")).await,
        Err(FunctionsError::Invalid(_))
    ));
    assert_eq!(tier.deploy_with("app", archive.clone(), with("LIMIT")).await.unwrap(), 1);
    assert_eq!(tier.deploy_with("app", archive, with("OTHER")).await.unwrap(), 2);
}

/// One function that doesn't load, or has a trigger that isn't known, leaves the others; both say why.
#[tokio::test(flavor = "multi_thread")]
async fn broken_functions() {
    let rig = Rig::new(1, 1, handler(|_, _| outputs(&[])));
    let functions = json!([
        { "name": "good", "bindings": [{ "type": "httpTrigger", "name": "r", "route": "x/{id}" }] },
        { "name": "unloaded", "bindings": [{ "type": "httpTrigger", "name": "r" }], "loadError": "ImportError" },
        { "name": "blob", "bindings": [{ "type": "blobTrigger", "name": "b" }] },
    ]);
    rig.deploy("app", functions).await;
    while rig.tiers[0].list()["apps"][0]["functions"] != 3 {
        tokio::task::yield_now().await;
    }
    rig.tiers[0].set_enabled("app", "good", false).await.unwrap();
    let mut status = Json::Null;
    while status["functions"][0]["state"] != "disabled" {
        status = rig.tiers[0].status("app").await.unwrap();
        tokio::task::yield_now().await;
    }
    let found: Vec<(&str, &str)> = status["functions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|function| {
            (function["state"].as_str().unwrap(), function["reason"].as_str().unwrap_or_default())
        })
        .collect();
    let expected = [
        ("disabled", ""),
        ("broken", "ImportError"),
        ("broken", "triggers of type blobTrigger are not supported"),
    ];
    assert_eq!(found, expected);
}

/// An app that is being written: loaded from its folder, and again when a file changes.
#[tokio::test(flavor = "multi_thread")]
async fn local_development() {
    let rig = Rig::new(1, 1, handler(|_, _| outputs(&[])));
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    let function =
        |name: &str| json!([{ "name": name, "bindings": [{ "type": "httpTrigger", "name": "r" }] }]);
    write("functions.json", function("one").to_string());
    write("local.settings.json", json!({ "Values": { "A": "b" } }).to_string());
    let (lines, mut printed) = tokio::sync::mpsc::unbounded_channel();
    let print = std::sync::Arc::new(move |line: &fleetline_functions::KeptLine| {
        let _ = lines.send(line.message.clone());
    });
    let task = tokio::spawn(rig.tiers[0].clone().run_local("dev", folder.path().to_owned(), print));
    assert_eq!(printed.recv().await.unwrap(), "loaded 1 functions: one");
    write("functions.json", function("another").to_string());
    assert_eq!(printed.recv().await.unwrap(), "files have changed, the app is loaded again");
    assert_eq!(printed.recv().await.unwrap(), "loaded 1 functions: another");
    write("functions.json", "[{".to_owned());
    assert_eq!(printed.recv().await.unwrap(), "files have changed, the app is loaded again");
    task.abort();
    let bad = rig.tiers[0]
        .clone()
        .run_local("Bad Name", folder.path().to_owned(), std::sync::Arc::new(|_| {}))
        .await;
    assert!(matches!(bad, Err(FunctionsError::Invalid(_))));
}
