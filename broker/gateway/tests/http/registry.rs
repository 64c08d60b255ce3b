//! Identities, bulk changes, keys and counters; who may ask for what.

use serde_json::json;

use crate::world::{DEVICE_KEY, World};

/// "3.3 Identity semantics", row by row.
#[tokio::test]
async fn identities() {
    let world = World::new();
    let made = world.owner("PUT", "/devices/d1", &[], "{\"deviceId\":\"d1\"}").await;
    assert_eq!((made.status, made.header("etag")), (200, Some("\"MQ==\"")));
    let json = made.json();
    assert_eq!(
        (&json["deviceId"], &json["etag"], &json["status"]),
        (&json!("d1"), &json!("MQ=="), &json!("enabled"))
    );
    let key = json["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap().to_owned();
    assert_eq!(key.len(), 44);
    assert_ne!(json["authentication"]["symmetricKey"]["secondaryKey"], json!(key));

    let again = world.owner("PUT", "/devices/d1", &[], "{}").await;
    assert_eq!((again.status, again.error().as_str()), (409, "DeviceAlreadyExists"));

    // Empty keys keep what is there; all spellings of an etag are taken.
    for (header, etag) in [
        ("If-Match: \"MQ==\"", "Mg=="),
        ("If-Match: Mg==", "Mw=="),
        ("If-Match: \"*\"", "NA=="),
        ("If-Match: *", "NQ=="),
    ] {
        let body = "{\"deviceId\":\"d1\",\"statusReason\":\"x\",\"status\":\"Enabled\"}";
        let changed = world.owner("PUT", "/devices/d1", &[header], body).await;
        assert_eq!((changed.status, changed.json()["etag"].clone()), (200, json!(etag)), "{header}");
        assert_eq!(changed.json()["authentication"]["symmetricKey"]["primaryKey"], json!(key));
    }
    for header in ["If-Match: \"MQ==\"", "If-Match: nonsense", "If-Match: "] {
        let refused = world.owner("PUT", "/devices/d1", &[header], "{}").await;
        assert_eq!((refused.status, refused.error().as_str()), (412, "PreconditionFailed"), "{header}");
        let refused = world.owner("DELETE", "/devices/d1", &[header], "").await;
        assert_eq!((refused.status, refused.error().as_str()), (412, "PreconditionFailed"), "{header}");
    }
    assert_eq!(world.owner("GET", "/Devices/d1/", &[], "").await.json()["etag"], json!("NQ=="));
    assert_eq!(world.owner("DELETE", "/devices/d1", &["If-Match: *"], "").await.status, 204);
    for method in ["GET", "DELETE"] {
        let gone = world.owner(method, "/devices/d1", &[], "").await;
        assert_eq!((gone.status, gone.error().as_str()), (404, "DeviceNotFound"));
    }
    let absent = world.owner("PUT", "/devices/d1", &["If-Match: *"], "{}").await;
    assert_eq!((absent.status, absent.error().as_str()), (404, "DeviceNotFound"));
    // Ids keep their case, and characters that need an escape in a path.
    assert_eq!(world.owner("PUT", "/devices/A%23b", &[], "{}").await.json()["deviceId"], json!("A#b"));
    assert_eq!(world.owner("GET", "/devices/a%23b", &[], "").await.status, 404);
}

/// What a body may not say.
#[tokio::test]
async fn wrong_bodies() {
    let world = World::new();
    let deep = format!("{{\"deviceId\":{}", "[".repeat(100_000));
    let rows = [
        ("", "IotHubFormatError"),
        ("[]", "IotHubFormatError"),
        ("{\"deviceId\":7}", "IotHubFormatError"),
        (&deep, "IotHubFormatError"),
        ("{\"deviceId\":\"other\"}", "ArgumentInvalid"),
        ("{\"authentication\":{\"symmetricKey\":{\"primaryKey\":\"not base64\"}}}", "ArgumentInvalid"),
        ("{\"authentication\":{\"x509Thumbprint\":{\"primaryThumbprint\":\"ab\"}}}", "ArgumentInvalid"),
    ];
    for (body, code) in rows {
        let refused = world.owner("PUT", "/devices/d", &[], body).await;
        let shown = body.get(..40).unwrap_or(body);
        assert_eq!((refused.status, refused.error().as_str()), (400, code), "{shown}");
    }
    let reason = format!("{{\"statusReason\":\"{}\"}}", "x".repeat(129));
    assert_eq!(world.owner("PUT", "/devices/d", &[], &reason).await.status, 413);
    let long = format!("{{\"statusReason\":\"{}\"}}", "x".repeat(2 << 20));
    assert_eq!(world.owner("PUT", "/devices/d", &[], &long).await.error(), "MessageTooLarge");
}

#[tokio::test]
async fn modules() {
    let world = World::new();
    let orphan = world.owner("PUT", "/devices/d/modules/m", &[], "{}").await;
    assert_eq!((orphan.status, orphan.error().as_str()), (404, "DeviceNotFound"));
    world.owner("PUT", "/devices/d", &[], "{\"capabilities\":{\"iotEdge\":true}}").await;
    let made = world.owner("PUT", "/devices/d/modules/m", &[], "{\"managedBy\":\"me\"}").await.json();
    assert_eq!(
        (&made["moduleId"], &made["deviceId"], &made["managedBy"]),
        (&json!("m"), &json!("d"), &json!("me"))
    );
    let again = world.owner("PUT", "/devices/d/modules/m", &[], "{}").await;
    assert_eq!((again.status, again.error().as_str()), (409, "ModuleAlreadyExistsOnDevice"));
    let list = world.owner("GET", "/devices/d/modules", &[], "").await.json();
    let names: Vec<&str> =
        list.as_array().unwrap().iter().map(|module| module["moduleId"].as_str().unwrap()).collect();
    assert_eq!(names, ["$edgeAgent", "$edgeHub", "m"]);
    let system = world.owner("DELETE", "/devices/d/modules/%24edgeHub", &["If-Match: *"], "").await;
    assert_eq!((system.status, system.error().as_str()), (401, "SystemModuleModifyUnauthorizedAccess"));
    assert_eq!(world.owner("DELETE", "/devices/d/modules/m", &[], "").await.status, 204);
    assert_eq!(world.owner("GET", "/devices/d/modules/m", &[], "").await.error(), "ModuleNotFound");
    assert_eq!(world.owner("GET", "/devices/none/modules", &[], "").await.error(), "DeviceNotFound");
}

/// Devices of all partitions, without modules; `top` within its range.
#[tokio::test]
async fn lists_and_counters() {
    let world = World::new();
    for number in 0..120 {
        world.add_device(&format!("d{number:03}")).await;
    }
    world.owner("PUT", "/devices/d000/modules/m", &[], "{}").await;
    world.disable("d001").await;
    for (target, count) in
        [("/devices/?top=7", 7), ("/devices", 120), ("/devices?top=0", 120), ("/devices?top=x", 120)]
    {
        let list = world.owner("GET", target, &[], "").await.json();
        let mut ids: Vec<String> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|device| device["deviceId"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count, "{target}");
    }
    let counts = world.owner("GET", "/statistics/devices", &[], "").await.json();
    assert_eq!(counts, json!({"totalDeviceCount": 120, "enabledDeviceCount": 119, "disabledDeviceCount": 1}));
    world.connect_device("d002").await;
    let connected = world.owner("GET", "/statistics/service", &[], "").await.json();
    assert_eq!(connected, json!({"connectedDeviceCount": 1}));
    let device = world.owner("GET", "/devices/d002", &[], "").await.json();
    assert_eq!(device["connectionState"], json!("Connected"));
}

/// Each item is answered for itself; modes come in any case.
#[tokio::test]
async fn bulk() {
    let world = World::new();
    let items = json!([
        {"id": "a", "importMode": "create", "tags": {"t": 1}, "properties": {"desired": {"p": 2}}},
        {"id": "b", "importMode": "CreateOrUpdate", "status": "disabled"},
        {"id": "b", "moduleId": "m", "importMode": "create"},
        {"id": "c", "importMode": "createOrUpdateIfMatchETag", "eTag": "MQ=="},
    ]);
    let made = world.owner("POST", "/devices", &[], &items.to_string()).await;
    assert_eq!(
        (made.status, made.json()),
        (200, json!({"isSuccessful": true, "errors": [], "warnings": []}))
    );
    let twin = world.owner("GET", "/twins/a", &[], "").await.json();
    assert_eq!((&twin["tags"], &twin["properties"]["desired"]["p"]), (&json!({"t": 1}), &json!(2)));
    assert_eq!(world.owner("GET", "/devices/b", &[], "").await.json()["status"], json!("disabled"));

    let items = json!([
        {"id": "a", "importMode": "Create"},
        {"id": "b", "importMode": "UpdateIfMatchETag", "eTag": "OQ=="},
        {"id": "none", "importMode": "update"},
        {"id": "c", "importMode": "DeleteIfMatchETag"},
        {"id": "b", "moduleId": "m", "importMode": "delete"},
        {"id": "no id", "importMode": "create"},
        {"id": "d", "importMode": "updateTwin", "tags": {}},
    ]);
    let mixed = world.owner("POST", "/devices", &[], &items.to_string()).await;
    assert_eq!((mixed.status, mixed.json()["isSuccessful"].clone()), (400, json!(false)));
    let errors = mixed.json()["errors"].clone();
    let codes: Vec<(&str, &str, &str)> = errors
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            let text = |name: &str| error[name].as_str().unwrap();
            (text("deviceId"), text("errorCode"), text("operation"))
        })
        .collect();
    let expected = [
        ("a", "DeviceAlreadyExists", "create"),
        ("b", "PreconditionFailed", "updateIfMatchETag"),
        ("none", "DeviceNotFound", "update"),
        ("c", "ArgumentInvalid", "deleteIfMatchETag"),
        ("no id", "ArgumentInvalid", "create"),
        ("d", "DeviceNotFound", "updateTwin"),
    ];
    assert_eq!(codes, expected);
    assert_eq!(world.owner("GET", "/devices/b/modules/m", &[], "").await.status, 404);

    let twice = json!([{"id": "x"}, {"id": "x"}]).to_string();
    assert_eq!(world.owner("POST", "/devices", &[], &twice).await.error(), "DeviceDefinedMultipleTimes");
    let many: Vec<_> = (0..101).map(|number| json!({"id": format!("x{number}")})).collect();
    assert_eq!(world.owner("POST", "/devices", &[], &json!(many).to_string()).await.status, 413);
    let etag = json!([{"id": "a", "importMode": "updateTwinIfMatchETag", "twinETag": twin["etag"], "tags": {"t": 2}}]);
    assert_eq!(world.owner("POST", "/devices", &[], &etag.to_string()).await.status, 200);
    assert_eq!(world.owner("POST", "/devices", &[], &etag.to_string()).await.status, 400);
}

#[tokio::test]
async fn keys_are_changed_one_by_one() {
    let world = World::new();
    world.add_device("d").await;
    world.owner("PUT", "/devices/x", &[], "{\"authentication\":{\"type\":\"certificateAuthority\"}}").await;
    let body = json!({"policyKey": "primary", "devices": [{"id": "d"}, {"id": "x"}, {"id": "none"}]});
    let reply = world.owner("POST", "/devices/keys/regenerate", &[], &body.to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let json = reply.json();
    let rotated = &json["rotatedKeys"][0];
    assert_ne!(rotated["primaryKey"], json!(DEVICE_KEY));
    assert_eq!((&rotated["id"], &rotated["secondaryKey"]), (&json!("d"), &json!(DEVICE_KEY)));
    let codes: Vec<_> =
        json["errors"].as_array().unwrap().iter().map(|error| error["errorCode"].clone()).collect();
    assert_eq!(codes, [json!(400_003), json!(404_001)]);
    // The secondary key still signs.
    assert_eq!(world.device("d", "POST", "/devices/d/messages/events", &[], b"x").await.status, 204);
    let both = json!({"policyKey": "both", "devices": [{"id": "d"}]}).to_string();
    assert_eq!(world.owner("POST", "/devices/keys/regenerate", &[], &both).await.status, 200);
    assert_eq!(world.device("d", "POST", "/devices/d/messages/events", &[], b"x").await.status, 401);
}

/// Rights of the default policies; devices and strangers get 401 without a reason.
#[tokio::test]
async fn rights() {
    let world = World::new();
    world.add_device("d").await;
    let rows = [
        ("GET", "/devices/d", ["registryRead", "registryReadWrite"].as_slice()),
        ("GET", "/devices", &["registryRead", "registryReadWrite"]),
        ("GET", "/statistics/devices", &["registryRead", "registryReadWrite"]),
        ("PUT", "/devices/d", &["registryReadWrite"]),
        ("DELETE", "/devices/none", &["registryReadWrite"]),
        ("POST", "/devices", &["registryReadWrite"]),
        ("POST", "/devices/keys/regenerate", &["registryReadWrite"]),
        ("GET", "/twins/d", &["service"]),
        ("PATCH", "/twins/d", &["service"]),
        ("POST", "/twins/d/methods", &["service"]),
        ("POST", "/devices/query", &["service"]),
        ("DELETE", "/devices/d/commands", &["service"]),
        ("POST", "/devices/d/messages/devicebound", &["service"]),
        ("GET", "/messages/serviceBound/feedback", &["service"]),
        ("GET", "/statistics/service", &["service"]),
        ("GET", "/hub/settings/policies", &[]),
        ("PUT", "/hub/settings/policies", &[]),
    ];
    for (method, target, allowed) in rows {
        for policy in ["iothubowner", "service", "device", "registryRead", "registryReadWrite"] {
            let reply = world.request(&world.policy(policy), method, target, &[], b"").await;
            let may = policy == "iothubowner" || allowed.contains(&policy);
            assert_eq!(reply.status != 401, may, "{policy} {method} {target}: {reply:?}");
            if !may {
                assert_eq!(reply.error(), "IotHubUnauthorizedAccess");
            }
        }
        let strangers = [
            world.own("d"),
            "Authorization: Bearer e30.e30.x".to_owned(),
            "Authorization: SharedAccessSignature sr=hub.example&sig=eA%3D%3D&se=1&skn=iothubowner"
                .to_owned(),
            "X-Nothing: here".to_owned(),
        ];
        for login in strangers {
            let reply = world.request(&login, method, target, &[], b"").await;
            assert_eq!(
                (reply.status, reply.error().as_str()),
                (401, "IotHubUnauthorized"),
                "{login} {target}"
            );
            assert!(reply.json()["Message"].as_str().unwrap().ends_with("caller is not authorised"));
        }
    }
}

/// Policies may be limited to devices and to actions.
#[tokio::test]
async fn limited_policies() {
    let world = World::new();
    world.add_device("plant-1").await;
    world.add_device("other").await;
    world.hub.set(|settings| {
        let service = settings.policies.get_mut("service").unwrap();
        service.devices = vec!["plant-*".into()];
        service.actions = vec!["twins/read".into()];
    });
    let login = world.policy("service");
    let rows = [
        ("GET", "/twins/plant-1", 200),
        ("GET", "/twins/other", 401),
        ("PATCH", "/twins/plant-1", 401),
        // About all devices.
        ("POST", "/devices/query", 401),
        ("GET", "/statistics/service", 401),
    ];
    for (method, target, status) in rows {
        let reply =
            world.request(&login, method, target, &[], b"{\"query\":\"SELECT * FROM devices\"}").await;
        assert_eq!(reply.status, status, "{method} {target}");
    }
}

#[tokio::test]
async fn versions_paths_and_what_is_not_here() {
    let world = World::new();
    let owner = world.policy("iothubowner");
    let rows = [
        ("GET", "/devices", 400, "InvalidProtocolVersion"),
        ("GET", "/devices?api-version=2015-01-01", 400, "InvalidProtocolVersion"),
        ("GET", "/nothing?api-version=2021-04-12", 404, "GenericNotFound"),
        ("PATCH", "/devices?api-version=2021-04-12", 405, "GenericMethodNotAllowed"),
        ("GET", "/configurations/?top=20&api-version=2021-04-12", 404, "FeatureNotSupported"),
        ("PUT", "/jobs/v2/j?api-version=2021-04-12", 404, "FeatureNotSupported"),
        ("GET", "/digitaltwins/d?api-version=2021-04-12", 404, "FeatureNotSupported"),
        ("POST", "/devices/d/applyConfigurationContent?api-version=2021-04-12", 404, "FeatureNotSupported"),
    ];
    for (method, target, status, code) in rows {
        let reply = world.connect().call(method, target, &[&owner], b"").await;
        assert_eq!((reply.status, reply.error().as_str()), (status, code), "{target}");
        assert!(reply.header("x-ms-request-id").is_some());
    }
    let newer = world.connect().call("GET", "/devices?api-version=2099-01-01-preview", &[&owner], b"").await;
    assert_eq!((newer.status, newer.header("content-type")), (200, Some("application/json; charset=utf-8")));
}

/// What the hub can't say is told as such, with a time to come back where that makes sense.
#[tokio::test]
async fn failures_of_the_hub() {
    use fleetline_gateway::hub::HubError;
    let world = World::new();
    world.add_device("d").await;
    let rows = [
        (HubError::Unavailable("p0".into()), 503, "ServiceUnavailable", Some("1")),
        (HubError::NotLeader { what: "p0".into(), leader: None }, 503, "ServiceUnavailable", Some("1")),
        (
            HubError::Busy { reason: "full".into(), retry_after_ms: 4100 },
            503,
            "ServiceUnavailable",
            Some("5"),
        ),
        (HubError::DiskFull("n1".into()), 503, "ServiceUnavailable", Some("10")),
        (HubError::Unknown("no answer".into()), 500, "ServerError", None),
    ];
    for (error, status, code, retry) in rows {
        *world.hub.failing.lock() = Some(error.clone());
        let reply = world.owner("DELETE", "/devices/d", &["If-Match: *"], "").await;
        assert_eq!(
            (reply.status, reply.error().as_str(), reply.header("retry-after")),
            (status, code, retry)
        );
        let says_unknown = reply.json()["Message"].as_str().unwrap().contains("outcome unknown");
        assert_eq!(says_unknown, matches!(error, HubError::Unknown(_)));
    }
}

/// Address rules are for everything.
#[tokio::test]
async fn addresses() {
    let world = World::new();
    world.add_device("d").await;
    world.hub.set(|settings| {
        let rule = fleetline_gateway::devices::settings::IpRule { mask: "10.0.0.0/8".into(), allow: false };
        settings.access.ip_rules = vec![rule];
    });
    assert_eq!(world.owner("GET", "/devices/d", &[], "").await.error(), "IotHubUnauthorized");
    assert_eq!(world.device("d", "POST", "/devices/d/messages/events", &[], b"x").await.status, 401);
}
