//! Looking at a cluster and changing it, and who may.

use std::time::Duration;

use fleetline_client::model::{ClusterChange, JoinRequest, ReadFrom};
use fleetline_client::{
    Client, ClientError, ClientOptions, HubError, NodeId, Offset, PartitionId, ProducerOptions, join,
};

use crate::nodes::Nodes;
use crate::produce::send_numbers;

fn is_forbidden<T>(result: Result<T, ClientError>) -> bool {
    matches!(result, Err(ClientError::Hub(HubError::Forbidden(_))))
}

fn join_request(secret: &str) -> JoinRequest {
    JoinRequest {
        secret: secret.into(),
        csr_pem: "csr".into(),
        client_address: "a:1".into(),
        peer_address: "a:2".into(),
        zone: String::new(),
        disk_id: "disk".into(),
        feature_level: 1,
    }
}

/// An admin sees all nodes and partitions, and its changes reach the hub.
#[tokio::test]
async fn an_admin_looks_and_changes() {
    let nodes = Nodes::start(2, 4);
    let client = Client::connect(nodes.options(Some(&nodes.authority.admin))).await.unwrap();
    let admin = client.admin();
    let metadata = admin.metadata().await.unwrap();
    assert_eq!((metadata.cluster.as_str(), metadata.partitions, metadata.nodes.len()), ("test", 4, 2));
    send_numbers(&client.producer(ProducerOptions::default()).unwrap(), "d", 0..5).await;
    let at = client.producer(ProducerOptions::default()).unwrap().partition_of("d");
    assert_eq!(admin.partition(at).await.unwrap().high_watermark, Offset(5));
    assert_eq!(admin.resolve(at, ReadFrom::Latest).await.unwrap(), Offset(5));
    let mut counts = Vec::new();
    for node in admin.partitions().await.unwrap() {
        counts.push(node.partitions.unwrap().len());
    }
    assert_eq!(counts, [4, 0], "the first node leads all");
    admin.change(ClusterChange::Drain(NodeId(2))).await.unwrap();
    let transfer = ClusterChange::TransferLeader { partition: PartitionId(1), to: NodeId(2) };
    admin.change(transfer.clone()).await.unwrap();
    assert_eq!(nodes.store.changes(), [ClusterChange::Drain(NodeId(2)), transfer]);
    assert_eq!(admin.create_join_token(Duration::from_secs(60)).await.unwrap(), "token");
}

/// A client may not do an admin's work; a caller without identity may only join, and only with a
/// good token.
#[tokio::test]
async fn access_is_checked() {
    let nodes = Nodes::start(1, 1);
    let admin = nodes.client().await.admin();
    assert!(is_forbidden(admin.change(ClusterChange::Drain(NodeId(1))).await));
    assert!(is_forbidden(admin.create_join_token(Duration::from_secs(60)).await));
    assert!(admin.partitions().await.unwrap().remove(0).partitions.is_err());
    assert!(nodes.store.changes().is_empty());
    let stranger = nodes.authority.stranger();
    for identity in [None, Some(&stranger)] {
        assert!(is_forbidden(Client::connect(nodes.options(identity)).await));
        let joined = join(nodes.options(identity), join_request("token")).await.unwrap();
        assert_eq!(joined.node, NodeId(9));
        assert!(is_forbidden(join(nodes.options(identity), join_request("guess")).await));
    }
}

/// A node of another cluster, and one of another authority, are not talked to.
#[tokio::test]
async fn foreign_nodes_are_refused() {
    let nodes = Nodes::start(1, 1);
    let patient = nodes.options(Some(&nodes.authority.client));
    let options = ClientOptions { request_timeout: Duration::from_millis(300), ..patient };
    let other_cluster = ClientOptions { cluster: Some("other".into()), ..options.clone() };
    let error = Client::connect(other_cluster).await.err().unwrap().to_string();
    assert!(error.contains("this is cluster test, not other"), "{error}");
    let other = crate::nodes::Authority::new();
    let error = Client::connect(ClientOptions { authority_pem: other.pem, ..options }).await.err().unwrap();
    assert!(error.to_string().contains("certificate"), "{error}");
}

/// A context folder as `fleetline serve` writes it is all that a client needs.
#[tokio::test]
async fn a_context_folder_is_enough() {
    let nodes = Nodes::start(1, 1);
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let port = nodes.nodes[0].address.port();
    write("endpoints", &format!("# nodes\n\nlocalhost:{port} # the first\n"));
    write("authority.pem", &nodes.authority.pem);
    write("client.pem", &nodes.authority.client.0);
    assert!(ClientOptions::from_context(dir.path()).is_err(), "a certificate without its key");
    write("client.key", &nodes.authority.client.1);
    let options = ClientOptions::from_context(dir.path()).unwrap();
    assert_eq!(options.endpoints, [format!("localhost:{port}")]);
    let client = Client::connect(options).await.unwrap();
    assert_eq!(client.metadata().cluster, "test");
}
