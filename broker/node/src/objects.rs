//! Opens the place where files that devices upload are kept: a folder, or a bucket or container elsewhere.
//!
//! `node` calls [`open`] once, before it takes part in anything. Which place, says the option `objects`;
//! endpoint, region and keys of a store come from the environment, under the names that its own tools use.
//!
//! Invariants:
//! 1. A store that refuses this node (no such bucket, wrong keys) stops the start, and the error says what
//!    to set. One that doesn't answer does not: messages of devices don't wait for their files.
//! 2. TLS is rustls with the provider that the program has chosen.
//!
//! Not here: names of files, who may write them (`gateway::http`). The check at start reads; that a key
//! may also write shows at the first upload.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use fleetline_config::ObjectPlace;
use fleetline_gateway::http::{ObjectFront, ObjectLimits};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as S3Key};
use object_store::azure::{AzureConfigKey as AzureKey, MicrosoftAzureBuilder};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientConfigKey as ClientKey, Error, ObjectStore, ObjectStoreExt, RetryConfig};

use crate::data_dir::DataDir;
use crate::error::NodeError;

/// How long a store may take to answer at start.
const CHECK: Duration = Duration::from_secs(5);

/// What no file and no block is called: asking for it shows whether the store knows us.
const NOBODY: &str = "blocks/-";

/// A request may last, with a large file and a slow reader; without a byte for half a minute it ends.
/// What the environment says goes before this.
const TIMES: [(ClientKey, &str); 2] = [(ClientKey::Timeout, "1h"), (ClientKey::ReadTimeout, "30s")];

const S3_FIX: &str = "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and AWS_ENDPOINT_URL for a \
                      store that isn't Amazon's; the key must be allowed to read, write, list and delete";

const AZURE_FIX: &str = "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, and \
                         AZURE_STORAGE_ENDPOINT for a store that isn't Azure's; the key must be allowed to \
                         read, write, list and delete";

type Store = Arc<dyn ObjectStore>;

/// What asking a store has shown.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Known,
    /// It knows us or the bucket not.
    Refused(String),
    /// It doesn't answer, or not now.
    Silent(String),
}

/// Opens `place`.
///
/// # Errors
/// What is missing or refused, with option, value and fix.
pub(crate) async fn open(place: &ObjectPlace, data: &DataDir) -> Result<Arc<ObjectFront>, NodeError> {
    let vars =
        || std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let wrong = |fix: &'static str| {
        move |error: String| NodeError::Config(format!("objects = {place}: {error}; {fix}"))
    };
    let store = match place {
        ObjectPlace::Data => {
            let path = data.path("objects");
            folder(&path).map_err(|error| NodeError::data(&path, error))?
        }
        ObjectPlace::Folder(path) => {
            folder(path).map_err(wrong("name a folder that can be made or is writable"))?
        }
        ObjectPlace::S3 { bucket, prefix } => {
            let store = s3(vars(), bucket, prefix).map_err(wrong(S3_FIX))?;
            known(check(&store).await, place).map_err(wrong(S3_FIX))?;
            store
        }
        ObjectPlace::Azure { container, prefix } => {
            let store = azure(vars(), container, prefix).map_err(wrong(AZURE_FIX))?;
            known(check(&store).await, place).map_err(wrong(AZURE_FIX))?;
            store
        }
    };
    Ok(ObjectFront::new(store, ObjectLimits::default()))
}

/// A folder, made when missing.
fn folder(path: &FilePath) -> Result<Store, String> {
    std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
    let trial = path.join(format!(".fleetline-{}", std::process::id()));
    std::fs::write(&trial, [])
        .and_then(|()| std::fs::remove_file(&trial))
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(LocalFileSystem::new_with_prefix(path).map_err(|error| error.to_string())?))
}

fn s3(vars: impl Iterator<Item = (String, String)>, bucket: &str, prefix: &str) -> Result<Store, String> {
    let mut builder = AmazonS3Builder::new().with_retry(retries());
    for (key, value) in TIMES {
        builder = builder.with_config(S3Key::Client(key), value);
    }
    for (name, value) in vars.filter(|(name, _)| name.starts_with("AWS_")) {
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, value);
        }
    }
    let endpoint = [S3Key::S3Endpoint, S3Key::Endpoint].iter().find_map(|key| builder.get_config_value(key));
    let allows_http = builder.get_config_value(&S3Key::Client(ClientKey::AllowHttp));
    check_endpoint("AWS", "AWS_ENDPOINT_URL", endpoint, allows_http)?;
    choose_tls_provider();
    let store = builder.with_bucket_name(bucket).build().map_err(|error| error.to_string())?;
    Ok(prefixed(store, prefix))
}

fn azure(
    vars: impl Iterator<Item = (String, String)>,
    container: &str,
    prefix: &str,
) -> Result<Store, String> {
    let mut builder = MicrosoftAzureBuilder::new().with_retry(retries());
    for (key, value) in TIMES {
        builder = builder.with_config(AzureKey::Client(key), value);
    }
    // IDENTITY_ENDPOINT: where a machine in Azure asks for its own token.
    for (name, value) in vars.filter(|(name, _)| name.starts_with("AZURE_") || name == "IDENTITY_ENDPOINT") {
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, value);
        }
    }
    let endpoint = builder.get_config_value(&AzureKey::Endpoint);
    let allows_http = builder.get_config_value(&AzureKey::Client(ClientKey::AllowHttp));
    check_endpoint("AZURE", "AZURE_STORAGE_ENDPOINT", endpoint, allows_http)?;
    choose_tls_provider();
    let store = builder.with_container_name(container).build().map_err(|error| error.to_string())?;
    Ok(prefixed(store, prefix))
}

/// A device waits for the answer, so trying again ends before its patience does.
fn retries() -> RetryConfig {
    RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(20), ..RetryConfig::default() }
}

fn prefixed(store: impl ObjectStore, prefix: &str) -> Store {
    match prefix.is_empty() {
        true => Arc::new(store),
        false => Arc::new(PrefixStore::new(store, Path::from(prefix))),
    }
}

/// What the store's client would only say at the first request, and then not by name.
fn check_endpoint(
    family: &str,
    name: &str,
    endpoint: Option<String>,
    allows_http: Option<String>,
) -> Result<(), String> {
    let Some(endpoint) = endpoint else {
        return Ok(());
    };
    let is_yes =
        |text: String| matches!(text.to_ascii_lowercase().as_str(), "1" | "true" | "on" | "yes" | "y");
    match endpoint.split_once("://") {
        Some(("https", host)) if !host.is_empty() => Ok(()),
        Some(("http", host)) if !host.is_empty() => match allows_http.is_some_and(is_yes) {
            true => Ok(()),
            false => Err(format!("{name} = {endpoint}: without TLS only with {family}_ALLOW_HTTP=true")),
        },
        _ => Err(format!("{name} = {endpoint}: begins neither with https:// nor with http://")),
    }
}

/// `main` has done this; whoever runs a node without it gets the same.
fn choose_tls_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none()
        && rustls::crypto::ring::default_provider().install_default().is_err()
    {
        tracing::debug!("another part has chosen the TLS provider meanwhile");
    }
}

/// Asks a store for what isn't there.
async fn check(store: &Store) -> Finding {
    match tokio::time::timeout(CHECK, store.get(&Path::from(NOBODY))).await {
        Ok(answer) => finding(answer.err()),
        Err(_) => Finding::Silent(format!("no answer within {} s", CHECK.as_secs())),
    }
}

fn finding(error: Option<Error>) -> Finding {
    let Some(error) = error else {
        return Finding::Silent(
            "the endpoint has files that nobody stores, it may be another service's".into(),
        );
    };
    let text = with_cause(&error);
    // Both kinds of store answer 404 for a file and for its container; the body tells them apart.
    let says = |codes: [&str; 2]| codes.iter().any(|code| text.contains(code));
    match error {
        Error::NotFound { .. } if says(["NoSuchBucket", "ContainerNotFound"]) => {
            Finding::Refused("there is no such bucket or container, make it first".to_owned())
        }
        Error::NotFound { .. } if says(["NoSuchKey", "BlobNotFound"]) => Finding::Known,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            Finding::Refused(format!("the store refuses the keys: {text}"))
        }
        _ => Finding::Silent(text),
    }
}

/// An error with what began it, which those in between don't always repeat.
fn with_cause(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let causes = std::iter::successors(error.source(), |error| error.source());
    match causes.last().map(ToString::to_string) {
        Some(cause) if !text.contains(&cause) => format!("{text}: {cause}"),
        _ => text,
    }
}

fn known(finding: Finding, place: &ObjectPlace) -> Result<(), String> {
    match finding {
        Finding::Known => Ok(()),
        Finding::Refused(why) => Err(why),
        Finding::Silent(why) => {
            tracing::warn!(objects = %place, why, "uploads will fail until the store of files answers");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> std::vec::IntoIter<(String, String)> {
        let owned = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        owned.collect::<Vec<_>>().into_iter()
    }

    /// A store that gives one answer; gives its address, and the head of the request that it got.
    async fn double(status: &'static str, body: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            socket.write_all(answer.as_bytes()).await.unwrap();
            socket.flush().await.unwrap();
            String::from_utf8(head).unwrap().to_ascii_lowercase()
        });
        (address, served)
    }

    fn s3_at(address: &str, prefix: &str) -> Store {
        let set = vars(&[
            ("AWS_ACCESS_KEY_ID", "fleet-key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "eu-north-1"),
            ("AWS_ENDPOINT_URL", address),
            ("AWS_ALLOW_HTTP", "true"),
        ]);
        s3(set, "fleet", prefix).unwrap()
    }

    fn azure_at(address: &str) -> Store {
        let set = vars(&[
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0"),
            ("AZURE_STORAGE_ENDPOINT", address),
            ("AZURE_ALLOW_HTTP", "true"),
        ]);
        azure(set, "files", "hub").unwrap()
    }

    /// Asks S3's double, and gives what is made of its answer.
    async fn asked(status: &'static str, body: &'static str) -> Finding {
        let (address, served) = double(status, body).await;
        let finding = check(&s3_at(&address, "")).await;
        served.await.unwrap();
        finding
    }

    /// The request goes to the bucket and prefix, signed with the key of the environment, for its region.
    #[tokio::test]
    async fn environment_decides_where_and_who() {
        let (address, served) = double("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>").await;
        assert_eq!(check(&s3_at(&address, "hub-1/files")).await, Finding::Known);
        let head = served.await.unwrap();
        assert!(head.starts_with("get /fleet/hub-1/files/blocks/- http/1.1"), "{head}");
        assert!(head.contains("credential=fleet-key/") && head.contains("/eu-north-1/s3/"), "{head}");

        let (address, served) = double("404 Not Found", "<Error><Code>BlobNotFound</Code></Error>").await;
        assert_eq!(check(&azure_at(&address)).await, Finding::Known);
        let head = served.await.unwrap();
        assert!(head.starts_with("get /files/hub/blocks/- http/1.1"), "{head}");
        assert!(head.contains("authorization: sharedkey account:"), "{head}");
    }

    /// A bucket that isn't there and keys that aren't known are told apart from a file that isn't there.
    #[tokio::test]
    async fn refusals() {
        let refused = |finding: Finding| match finding {
            Finding::Refused(why) => why,
            other => panic!("{other:?}"),
        };
        let missing = asked("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>").await;
        assert!(refused(missing).contains("make it first"));
        let stranger = asked("403 Forbidden", "<Error><Code>InvalidAccessKeyId</Code></Error>").await;
        assert!(refused(stranger).contains("InvalidAccessKeyId"));
        assert!(refused(asked("401 Unauthorized", "who?").await).contains("keys"));

        let (address, served) =
            double("404 Not Found", "<Error><Code>ContainerNotFound</Code></Error>").await;
        assert!(refused(check(&azure_at(&address)).await).contains("make it first"));
        served.await.unwrap();
    }

    /// What isn't a refusal doesn't keep the node from starting.
    #[tokio::test]
    async fn a_silent_store_stops_nothing() {
        let moved = asked("301 Moved Permanently", "<Error><Code>PermanentRedirect</Code></Error>").await;
        assert!(matches!(&moved, Finding::Silent(why) if why.contains("region")), "{moved:?}");
        let stranger = asked("404 Not Found", "<html>no such page</html>").await;
        assert!(matches!(&stranger, Finding::Silent(why) if why.contains("no such page")), "{stranger:?}");
        let page = asked("200 OK\r\netag: a\r\nlast-modified: Tue, 24 Nov 2026 14:00:00 GMT", "hello").await;
        assert!(matches!(&page, Finding::Silent(why) if why.contains("another service")), "{page:?}");
        let closed = s3_at(
            &{
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                format!("http://{}", listener.local_addr().unwrap())
            },
            "",
        );
        let closed = check(&closed).await;
        assert!(matches!(&closed, Finding::Silent(why) if why.contains("refused")), "{closed:?}");
        let place = ObjectPlace::S3 { bucket: "fleet".to_owned(), prefix: String::new() };
        assert_eq!(known(moved, &place), Ok(()));
        assert!(known(Finding::Refused("no".to_owned()), &place).is_err());
    }

    /// What is missing in the environment is found before the first request.
    #[test]
    fn incomplete_environments() {
        let id = ("AWS_ACCESS_KEY_ID", "key");
        let secret = ("AWS_SECRET_ACCESS_KEY", "secret");
        for (set, hint) in [
            (vec![id], "SecretAccessKey"),
            (vec![secret], "AccessKeyId"),
            (vec![id, secret, ("AWS_ENDPOINT_URL", "minio:9000")], "AWS_ENDPOINT_URL = minio:9000"),
            (vec![id, secret, ("AWS_ENDPOINT_URL", "https://")], "AWS_ENDPOINT_URL"),
            (vec![id, secret, ("AWS_ENDPOINT", "http://minio:9000")], "AWS_ALLOW_HTTP=true"),
            (vec![id, secret, ("AWS_ALLOW_HTTP", "perhaps")], "perhaps"),
        ] {
            let error = s3(vars(&set), "fleet", "").unwrap_err();
            assert!(error.contains(hint), "{set:?}: {error}");
        }
        s3(vars(&[id, secret, ("AWS_ENDPOINT_URL_S3", "https://minio:9000")]), "fleet", "").unwrap();
        for (set, hint) in [
            (vec![], "Account"),
            (
                vec![("AZURE_STORAGE_ACCOUNT_NAME", "a"), ("AZURE_STORAGE_ENDPOINT", "http://azurite")],
                "AZURE_ALLOW_HTTP=true",
            ),
        ] {
            let error = azure(vars(&set), "files", "").unwrap_err();
            assert!(error.contains(hint), "{set:?}: {error}");
        }
    }

    /// A folder is made when missing, and one that can't be is refused with the option and its value.
    #[tokio::test]
    async fn folders() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::open(&root.path().join("data"), &fleetline_env::real::RealEntropy).unwrap();
        open(&ObjectPlace::Data, &data).await.unwrap();
        assert!(root.path().join("data/objects").is_dir());
        let share = root.path().join("share/files");
        open(&ObjectPlace::Folder(share.clone()), &data).await.unwrap();
        assert_eq!(std::fs::read_dir(&share).unwrap().count(), 0);
        let taken = ObjectPlace::Folder(root.path().join("data/disk-id"));
        let error = open(&taken, &data).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("configuration: objects = {taken}: ")), "{error}");
        assert!(error.contains("writable"), "{error}");
    }
}
