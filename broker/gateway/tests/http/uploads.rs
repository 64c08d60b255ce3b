//! File uploads: the device's requests, and the storage endpoint.

use std::sync::Arc;

use fleetline_gateway::http::{HttpLimits, ObjectLimits};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use serde_json::{Value, json};

use crate::client::Reply;
use crate::world::World;

const FILES: &str = "/devices/d/files";

async fn begin(world: &World, name: &str) -> Value {
    let body = json!({ "blobName": name }).to_string();
    let begun = world.device("d", "POST", FILES, &[], body.as_bytes()).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    begun.json()
}

/// The address that SDKs make of the reply, without the host.
fn address(begun: &Value, more: &str) -> String {
    let text = |name: &str| begun[name].as_str().unwrap();
    format!("/{}/{}{}{more}", text("containerName"), text("blobName").replace(' ', "%20"), text("sasToken"))
}

async fn storage(world: &World, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Reply {
    world.connect().call(method, target, headers, body).await
}

const BLOCK_BLOB: &str = "x-ms-blob-type: BlockBlob";

/// The whole way, on a real folder: begin, put, read, say so, hear of it.
#[tokio::test]
async fn a_file_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let world = World::with(store, ObjectLimits::default(), HttpLimits::default());
    world.add_device("d").await;
    let begun = begin(&world, "logs/a b.txt").await;
    assert_eq!(
        (&begun["hostName"], &begun["blobName"]),
        (&json!("hub.example:8443"), &json!("d/logs/a b.txt"))
    );
    assert!(begun["sasToken"].as_str().unwrap().starts_with('?'));
    let target = address(&begun, "");
    let put = storage(&world, "PUT", &target, &[BLOCK_BLOB, "x-ms-version: 2020-10-02"], b"0123456789").await;
    assert_eq!((put.status, put.header("x-ms-version")), (201, Some("2020-10-02")), "{put:?}");
    for name in ["etag", "last-modified", "x-ms-request-id", "date"] {
        assert!(put.header(name).is_some(), "{name}");
    }
    assert!(put.header("last-modified").unwrap().ends_with(" GMT"));
    let got = storage(&world, "GET", &target, &[], b"").await;
    assert_eq!(
        (got.status, got.body.as_slice(), got.header("etag")),
        (200, &b"0123456789"[..], put.header("etag"))
    );
    let part = storage(&world, "GET", &target, &["x-ms-range: bytes=2-4"], b"").await;
    assert_eq!(
        (part.status, part.body.as_slice(), part.header("content-range")),
        (206, &b"234"[..], Some("bytes 2-4/10"))
    );
    let head = storage(&world, "HEAD", &target, &[], b"").await;
    assert_eq!(
        (head.status, head.header("content-length"), head.header("x-ms-blob-type")),
        (200, Some("10"), Some("BlockBlob"))
    );
    // A service reads it by its own right.
    let service = storage(&world, "GET", "/uploads/d/logs/a%20b.txt", &[&world.policy("service")], b"").await;
    assert_eq!(service.body, b"0123456789");

    let before = world.hub.events().len();
    let notify = json!({"correlationId": begun["correlationId"], "isSuccess": true, "statusCode": 200, "statusDescription": null});
    let done = world
        .device("d", "POST", &format!("{FILES}/notifications/"), &[], notify.to_string().as_bytes())
        .await;
    assert_eq!(done.status, 204, "{done:?}");
    let event = world.hub.events().pop().unwrap();
    assert_eq!(
        (world.hub.events().len(), event.endpoints),
        (before + 1, fleetline_devices::endpoints::EVENTS)
    );
    let body: Value = serde_json::from_slice(&event.body).unwrap();
    assert_eq!(body["blobUri"], json!("https://hub.example:8443/uploads/d/logs/a%20b.txt"));
    assert_eq!(
        (&body["deviceId"], &body["blobName"], &body["blobSizeInBytes"]),
        (&json!("d"), &json!("d/logs/a b.txt"), &json!(10))
    );
    // It is over.
    let twice = world
        .device("d", "POST", &format!("{FILES}/notifications"), &[], notify.to_string().as_bytes())
        .await;
    assert_eq!((twice.status, twice.error().as_str()), (400, "InvalidFileUploadCorrelationId"));
}

/// Blocks are put together in the order of the list; nothing is visible before, nothing is left after.
#[tokio::test]
async fn blocks() {
    let store = Arc::new(InMemory::new());
    // Small parts, so that several are written.
    let limits = ObjectLimits { part_bytes: 1000, ..ObjectLimits::default() };
    let world = World::with(store.clone(), limits, HttpLimits::default());
    world.add_device("d").await;
    let begun = begin(&world, "big").await;
    let (first, second) = (vec![b'1'; 2500], vec![b'2'; 700]);
    for (id, block) in [("YjI%3D", &second), ("YjE%3D", &first), ("dW51c2Vk", &first)] {
        let put =
            storage(&world, "PUT", &address(&begun, &format!("&comp=block&blockid={id}")), &[], block).await;
        assert_eq!(put.status, 201, "{put:?}");
    }
    assert_eq!(storage(&world, "GET", &address(&begun, ""), &[], b"").await.status, 404);
    let list = address(&begun, "&comp=blocklist");
    let missing = b"<BlockList><Latest>YjE=</Latest><Latest>bm9uZQ==</Latest></BlockList>";
    let refused = storage(&world, "PUT", &list, &[], missing).await;
    assert_eq!((refused.status, refused.header("x-ms-error-code")), (400, Some("InvalidBlockList")));
    assert_eq!(storage(&world, "GET", &address(&begun, ""), &[], b"").await.status, 404);
    let xml =
        b"<?xml version='1.0'?><BlockList><Latest>YjE=</Latest><Uncommitted>YjI=</Uncommitted></BlockList>";
    let done = storage(&world, "PUT", &list, &[], xml).await;
    assert_eq!(done.status, 201, "{done:?}");
    let got = storage(&world, "GET", &address(&begun, ""), &[], b"").await;
    assert_eq!(got.body, [first, second].concat());
    let left: Vec<_> =
        futures::StreamExt::collect(object_store::ObjectStore::list(store.as_ref(), None)).await;
    let left: Vec<String> = left
        .into_iter()
        .map(|meta: object_store::Result<object_store::ObjectMeta>| meta.unwrap().location.to_string())
        .collect();
    assert_eq!(left, ["uploads/d/big"]);
}

/// Bounds hold for blobs, blocks together, and what a list makes of them.
#[tokio::test]
async fn files_are_bounded() {
    let limits =
        ObjectLimits { part_bytes: 100, blob_bytes_max: 1000, blocks_max: 3, ..ObjectLimits::default() };
    let world = World::with(Arc::new(InMemory::new()), limits, HttpLimits::default());
    world.add_device("d").await;
    let begun = begin(&world, "f").await;
    let large = storage(&world, "PUT", &address(&begun, ""), &[BLOCK_BLOB], &[b'x'; 1001]).await;
    assert_eq!((large.status, large.header("x-ms-error-code")), (413, Some("RequestBodyTooLarge")));
    // One that doesn't say how long it is.
    let chunked = format!(
        "PUT {} HTTP/1.1\r\nhost: h\r\n{BLOCK_BLOB}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
        address(&begun, "")
    );
    let chunks = "64\r\n".to_owned() + &"x".repeat(100) + "\r\n";
    let reply = world.connect().raw((chunked + &chunks.repeat(11) + "0\r\n\r\n").as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
    assert_eq!(storage(&world, "GET", &address(&begun, ""), &[], b"").await.status, 404);
    for (id, bytes, status) in [
        ("MQ%3D%3D", 600, 201),
        ("Mg%3D%3D", 500, 413),
        ("Mw%3D%3D", 400, 201),
        ("NA%3D%3D", 0, 201),
        ("NQ%3D%3D", 0, 400),
    ] {
        let put = storage(
            &world,
            "PUT",
            &address(&begun, &format!("&comp=block&blockid={id}")),
            &[],
            &vec![b'x'; bytes],
        )
        .await;
        assert_eq!(put.status, status, "{id}");
    }
    let twice = b"<BlockList><Latest>MQ==</Latest><Latest>MQ==</Latest></BlockList>";
    assert_eq!(storage(&world, "PUT", &address(&begun, "&comp=blocklist"), &[], twice).await.status, 413);
}

#[tokio::test]
async fn storage_refusals() {
    let world = World::new();
    world.add_device("d").await;
    let begun = begin(&world, "f").await;
    let good = address(&begun, "");
    let rows = [
        ("PUT", good.replace("/f?", "/g?"), BLOCK_BLOB, 403, "AuthenticationFailed"),
        ("PUT", good.replace("se=2026", "se=2027"), BLOCK_BLOB, 403, "AuthenticationFailed"),
        ("PUT", "/uploads/d/f".to_owned(), BLOCK_BLOB, 403, "AuthenticationFailed"),
        ("GET", "/uploads/d/f".to_owned(), "x: y", 403, "AuthenticationFailed"),
        ("PUT", "/uploads/d/../e/f".to_owned(), BLOCK_BLOB, 400, "InvalidUri"),
        ("PUT", "/uploads/d/%2e%2e/f".to_owned(), BLOCK_BLOB, 400, "InvalidUri"),
        ("PUT", good.clone(), "x-ms-blob-type: PageBlob", 400, "InvalidHeaderValue"),
        ("PUT", format!("{good}&comp=appendblock"), BLOCK_BLOB, 400, "InvalidQueryParameterValue"),
        ("PUT", format!("{good}&comp=block"), BLOCK_BLOB, 400, "InvalidBlockId"),
        ("PUT", format!("{good}&comp=blocklist"), "x: y", 400, "InvalidXmlDocument"),
        ("GET", good.clone(), "x: y", 404, "BlobNotFound"),
        ("DELETE", good.clone(), "x: y", 405, "UnsupportedHttpVerb"),
    ];
    for (method, target, header, status, code) in rows {
        let reply = storage(&world, method, &target, &[header], b"").await;
        assert_eq!(
            (reply.status, reply.header("x-ms-error-code")),
            (status, Some(code)),
            "{method} {target}"
        );
        let body = String::from_utf8(reply.body).unwrap();
        assert!(body.starts_with("<?xml") && body.contains(&format!("<Code>{code}</Code>")), "{body}");
    }
    assert_eq!(storage(&world, "PUT", &good, &[BLOCK_BLOB], b"1").await.status, 201);
    let again = storage(&world, "PUT", &good, &[BLOCK_BLOB, "If-None-Match: *"], b"2").await;
    assert_eq!((again.status, again.header("x-ms-error-code")), (409, Some("BlobAlreadyExists")));
    assert_eq!(storage(&world, "GET", &good, &["range: bytes=5-9"], b"").await.status, 416);
    world.hub.advance(60 * 60 * 1000);
    assert_eq!(storage(&world, "GET", &good, &[], b"").await.status, 403);
}

/// Ten at a time; the id may be in the path; a failure tells nobody and frees a place.
#[tokio::test]
async fn uploads_end() {
    let world = World::new();
    world.add_device("d").await;
    let mut begun = Vec::new();
    for number in 0..10 {
        begun.push(begin(&world, &format!("f{number}")).await);
    }
    let full = world.device("d", "POST", FILES, &[], b"{\"blobName\":\"more\"}").await;
    assert_eq!((full.status, full.error().as_str()), (403, "DeviceMaximumActiveFileUploadLimitExceeded"));
    let events = world.hub.events().len();
    let id = begun[0]["correlationId"].as_str().unwrap();
    let failed = b"{\"isSuccess\":false,\"statusCode\":500,\"statusDescription\":\"x\"}";
    let path = format!("{FILES}/notifications/{id}");
    assert_eq!(world.device("d", "POST", &path, &[], failed).await.status, 204);
    assert_eq!(world.hub.events().len(), events);
    begin(&world, "more").await;
    // It never came.
    let claimed = json!({"correlationId": begun[1]["correlationId"], "isSuccess": true, "statusCode": 200});
    let refused = world
        .device("d", "POST", &format!("{FILES}/notifications"), &[], claimed.to_string().as_bytes())
        .await;
    assert_eq!((refused.status, refused.error().as_str()), (400, "InvalidFileUploadCompletionStatus"));
    // Another device's upload.
    world.add_device("e").await;
    let path = format!("/devices/e/files/notifications/{}", begun[2]["correlationId"].as_str().unwrap());
    assert_eq!(world.device("e", "POST", &path, &[], failed).await.error(), "InvalidFileUploadCorrelationId");
    for body in ["", "{}", "{\"blobName\":\"\"}", "{\"blobName\":\"../e/f\"}", "{\"blobName\":7}"] {
        assert_eq!(world.device("d", "POST", FILES, &[], body.as_bytes()).await.status, 400, "{body}");
    }
}
