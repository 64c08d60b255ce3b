//! Each row of the REST API, in both versions, with its status and what it does.

use crate::client::{Client, Reply, Wants, negotiate, request, rest, send};
use crate::world::{Node, World};

const V: &str = "api-version=2022-06-01";

struct Scene {
    world: std::sync::Arc<World>,
    nodes: Vec<Node>,
    /// In hub `chat`, of user `u`.
    client: Client,
    id: String,
}

impl Scene {
    async fn new(nodes: u64) -> Scene {
        let (world, nodes) = World::cluster(nodes).await;
        let (id, token) = negotiate(&world, &nodes[0], "chat", Some("u")).await;
        let wants = Wants { id: Some(&token), user: Some("u"), ..Wants::of("chat") };
        let client = Client::with(&world, &nodes[0], &wants).await;
        Scene { world, nodes, client, id }
    }

    /// Asks the last node, which is another than the client's if there are several.
    async fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        let node = self.nodes.last().expect("a node");
        rest(&self.world, node, method, &path.replace("{c}", &self.id), body).await
    }

    async fn status(&self, method: &str, path: &str) -> u16 {
        self.ask(method, path, "{\"target\":\"t\",\"arguments\":[9]}").await.status
    }

    async fn sends(&mut self, path: &str, number: u64) {
        let body = format!("{{\"target\":\"t\",\"arguments\":[{number}]}}");
        let reply = self.ask("POST", path, &body).await;
        assert_eq!(reply.status, 202, "{path} {:?}", reply.body);
        assert_eq!(self.client.number().await, number, "{path}");
    }
}

async fn version_2022(count: u64) {
    let mut scene = Scene::new(count).await;
    let hub = "/api/hubs/Chat";
    assert_eq!(scene.status("HEAD", &format!("/api/health?{V}")).await, 200);
    scene.sends(&format!("{hub}/:send?{V}"), 1).await;
    scene.sends(&format!("{hub}/users/u/:send?{V}"), 2).await;
    scene.sends(&format!("{hub}/connections/{{c}}/:send?{V}"), 3).await;
    for (method, path, status) in [
        ("HEAD", "users/u", 200),
        ("HEAD", "users/nobody", 404),
        ("HEAD", "connections/{c}", 200),
        ("HEAD", "connections/nobody", 404),
        ("HEAD", "groups/g", 404),
        ("PUT", "groups/g/connections/{c}", 200),
        ("PUT", "groups/g/connections/nobody", 404),
        ("HEAD", "groups/g", 200),
    ] {
        assert_eq!(scene.status(method, &format!("{hub}/{path}?{V}")).await, status, "{method} {path}");
    }
    scene.sends(&format!("{hub}/groups/g/:send?{V}"), 4).await;
    let excluded = format!("{hub}/:send?{V}&excluded=x&excluded={{c}}");
    assert_eq!(scene.status("POST", &excluded).await, 202);
    for (method, path, status) in [
        ("DELETE", "groups/g/connections/{c}", 200),
        ("DELETE", "groups/g/connections/nobody", 404),
        ("HEAD", "groups/g", 404),
        ("HEAD", "users/u/groups/ug", 404),
        ("PUT", "users/u/groups/ug", 200),
        ("PUT", "users/later/groups/ug", 200),
        ("HEAD", "users/u/groups/ug", 200),
        ("HEAD", "users/later/groups/ug", 200),
    ] {
        assert_eq!(scene.status(method, &format!("{hub}/{path}?{V}")).await, status, "{method} {path}");
    }
    scene.sends(&format!("{hub}/groups/ug/:send?{V}"), 5).await;
    for (method, path, status) in [
        ("DELETE", "users/u/groups/ug", 204),
        ("HEAD", "users/u/groups/ug", 404),
        ("PUT", "users/u/groups/a", 200),
        ("PUT", "users/u/groups/b", 200),
        ("DELETE", "users/u/groups", 204),
        ("HEAD", "users/u/groups/a", 404),
        ("PUT", "groups/g/connections/{c}", 200),
        ("DELETE", "connections/{c}/groups", 200),
        ("HEAD", "groups/g", 404),
    ] {
        assert_eq!(scene.status(method, &format!("{hub}/{path}?{V}")).await, status, "{method} {path}");
    }
    // Nobody is a member of either group any more: what is sent there comes nowhere.
    assert_eq!(scene.status("POST", &format!("{hub}/groups/g/:send?{V}")).await, 202);
    assert_eq!(scene.status("POST", &format!("{hub}/groups/ug/:send?{V}")).await, 202);
    scene.sends(&format!("{hub}/:send?{V}"), 6).await;
    closes(scene, &format!("{hub}/connections/{{c}}?{V}&reason=gone"), "DELETE", 200).await;
    for path in [":closeConnections", "users/u/:closeConnections"] {
        let scene = Scene::new(count).await;
        closes(scene, &format!("{hub}/{path}?{V}&reason=gone"), "POST", 204).await;
    }
    let scene = Scene::new(count).await;
    assert_eq!(scene.status("PUT", &format!("{hub}/groups/g/connections/{{c}}?{V}")).await, 200);
    closes(scene, &format!("{hub}/groups/g/:closeConnections?{V}&reason=gone"), "POST", 204).await;
}

async fn closes(mut scene: Scene, path: &str, method: &str, status: u16) {
    // Those that are left out stay.
    let spared = format!("{path}&excluded={{c}}");
    if method == "POST" {
        assert_eq!(scene.status(method, &spared).await, status, "{spared}");
        scene.sends(&format!("/api/hubs/chat/:send?{V}"), 1).await;
    }
    assert_eq!(scene.status(method, path).await, status, "{path}");
    let end = scene.client.message().await;
    let expected =
        fleetline_signalr::Message::Close { error: Some("gone".to_owned()), allow_reconnect: false };
    assert_eq!(end, Ok(expected), "{path}");
}

async fn version_1(count: u64) {
    let mut scene = Scene::new(count).await;
    let hub = "/api/v1/hubs/chat";
    assert_eq!(scene.status("HEAD", "/api/v1/health").await, 200);
    scene.sends(hub, 1).await;
    scene.sends(&format!("{hub}/users/u"), 2).await;
    scene.sends(&format!("{hub}/connections/{{c}}"), 3).await;
    for (method, path, status) in [
        ("GET", "users/u", 200),
        ("HEAD", "users/nobody", 404),
        ("GET", "connections/{c}", 200),
        ("HEAD", "connections/nobody", 404),
        ("PUT", "groups/g/connections/{c}", 200),
        ("PUT", "groups/g/connections/nobody", 404),
        ("GET", "groups/g", 200),
        ("GET", "groups/none", 404),
    ] {
        assert_eq!(scene.status(method, &format!("{hub}/{path}")).await, status, "{method} {path}");
    }
    scene.sends(&format!("{hub}/groups/g"), 4).await;
    for (method, path, status) in [
        ("DELETE", "groups/g/connections/{c}", 200),
        ("DELETE", "groups/g/connections/nobody", 404),
        ("PUT", "groups/ug/users/u?ttl=60", 202),
        ("GET", "groups/ug/users/u", 200),
        ("HEAD", "users/u/groups/ug", 200),
    ] {
        assert_eq!(scene.status(method, &format!("{hub}/{path}")).await, status, "{method} {path}");
    }
    scene.sends(&format!("{hub}/groups/ug"), 5).await;
    for (method, path, status) in [
        ("DELETE", "groups/ug/users/u", 202),
        ("GET", "groups/ug/users/u", 404),
        ("PUT", "groups/ug/users/u", 202),
        ("DELETE", "users/u/groups", 200),
        ("GET", "groups/ug/users/u", 404),
        ("DELETE", "connections/{c}?reason=gone", 202),
    ] {
        assert_eq!(scene.status(method, &format!("{hub}/{path}")).await, status, "{method} {path}");
    }
    let end = scene.client.message().await;
    assert!(matches!(end, Ok(fleetline_signalr::Message::Close { .. })), "{end:?}");
}

#[tokio::test]
async fn rows_of_2022_06_01_on_one_node() {
    version_2022(1).await;
}

#[tokio::test]
async fn rows_of_2022_06_01_across_nodes() {
    version_2022(3).await;
}

#[tokio::test]
async fn rows_of_version_1_on_one_node() {
    version_1(1).await;
}

#[tokio::test]
async fn rows_of_version_1_across_nodes() {
    version_1(3).await;
}

#[tokio::test]
async fn errors_and_notices() {
    let scene = Scene::new(1).await;
    for (method, path, body, status) in [
        ("POST", "/api/hubs/chat/:send".to_owned(), "{\"target\":\"t\"}", 400),
        ("POST", format!("/api/hubs/1/:send?{V}"), "{\"target\":\"t\"}", 400),
        ("POST", format!("/api/hubs/chat/:send?{V}"), "", 400),
        ("POST", format!("/api/hubs/chat/:send?{V}"), "{\"target\":\"t\",\"arguments\":{}}", 400),
        ("PUT", format!("/api/hubs/chat/:send?{V}"), "", 405),
        ("POST", format!("/api/hubs/chat/nothing?{V}"), "", 404),
        ("PUT", format!("/api/hubs/chat/users/u/groups/g?{V}&ttl=x"), "", 400),
    ] {
        assert_eq!(scene.ask(method, &path, body).await.status, status, "{method} {path}");
    }
    let message = "{\"target\":\"t\",\"arguments\":[1]}";
    for (path, code) in [
        ("users/nobody", "Warning.User.NotExisted"),
        ("groups/nobody", "Warning.Group.NotExisted"),
        ("connections/nobody", "Warning.Connection.NotExisted"),
    ] {
        let reply = scene.ask("POST", &format!("/api/v1/hubs/chat/{path}"), message).await;
        assert_eq!((reply.status, reply.header("x-ms-error-code")), (202, code));
        assert_eq!(reply.json()["code"], code);
    }
    let reply = scene.ask("PUT", "/api/v1/hubs/chat/groups/g/connections/nobody", "").await;
    assert_eq!((reply.status, reply.header("x-ms-error-code")), (404, "Error.Connection.NotExisted"));
    let reply = scene.ask("DELETE", &format!("/api/hubs/chat/users/u/groups/none?{V}"), "").await;
    assert_eq!((reply.status, reply.header("x-ms-error-code")), (204, "Info.User.NotInGroup"));
    let reply = send(&scene.nodes[0].tier, request("HEAD", &format!("/api/health?{V}"), None, "")).await;
    assert_eq!(reply.status, 200, "health needs no token");
}

#[tokio::test]
async fn applications_have_hubs_of_their_own() {
    let (world, nodes) = World::cluster(1).await;
    let mut client = Client::join(&world, &nodes[0], "app_chat", None).await;
    let path = format!("/api/hubs/chat/:send?{V}&application=App");
    let reply = rest(&world, &nodes[0], "POST", &path, "{\"target\":\"t\",\"arguments\":[1]}").await;
    assert_eq!(reply.status, 202);
    assert_eq!(client.number().await, 1);
}

#[tokio::test]
async fn partitions_without_a_leader_are_said() {
    let scene = Scene::new(1).await;
    *scene.world.failing.lock() = Some(fleetline_gateway::hub::HubError::Unavailable("partition".to_owned()));
    assert_eq!(scene.status("PUT", &format!("/api/hubs/chat/users/u/groups/g?{V}")).await, 503);
    *scene.world.failing.lock() = None;
    assert_eq!(scene.status("PUT", &format!("/api/hubs/chat/users/u/groups/g?{V}")).await, 200);
}
