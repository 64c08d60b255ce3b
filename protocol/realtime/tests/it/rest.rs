//! Every row of both REST versions, what is refused, and the bodies.

use bytes::Bytes;
use fleetline_signalr::names::NameError;
use fleetline_signalr::rest::{
    Action, ApiVersion, ERROR_CODE_HEADER, Notice, RestCall, RestError, RestMessage, RestRequest, Scope,
    ServiceResponse,
};

/// A request in one line: what it wants, and the status of success.
fn wish(method: &str, path: &str, query: &str) -> Result<(Action, u16), RestError> {
    let request = RestRequest::parse(method, path, query)?;
    let status = request.success_status();
    match request.call {
        RestCall::Hub { hub, action } => {
            assert_eq!(hub.as_str(), "h");
            Ok((action, status))
        }
        RestCall::Health => panic!("{path} asks for health"),
    }
}

fn own(text: &str) -> String {
    text.to_owned()
}

/// Of each list, what the two versions have in common.
fn rows(is_v1: bool) -> Vec<(&'static str, &'static str, Action, u16)> {
    let send = |scope| Action::Send { scope, excluded: Vec::new() };
    let exists = |scope| Action::Exists { scope };
    let close = |scope| Action::CloseConnections { scope, excluded: Vec::new(), reason: None };
    let (u, g, c) = (|| Scope::User(own("u")), || Scope::Group(own("g")), || Scope::Connection(own("c")));
    let (user, group, connection) = (own("u"), own("g"), own("c"));
    let close_one = Action::CloseConnection { connection: connection.clone(), reason: None };
    let add = Action::AddUserToGroup { user: user.clone(), group: group.clone(), ttl_secs: None };
    let is_in = Action::IsUserInGroup { user: user.clone(), group: group.clone() };
    let remove = Action::RemoveUserFromGroup { user: user.clone(), group: group.clone() };
    let remove_all = Action::RemoveUserFromAllGroups { user };
    let join = Action::AddConnectionToGroup { connection: connection.clone(), group: group.clone() };
    let leave = Action::RemoveConnectionFromGroup { connection: connection.clone(), group };
    let leave_all = Action::RemoveConnectionFromAllGroups { connection };
    if is_v1 {
        vec![
            ("POST", "", send(Scope::Hub), 202),
            ("POST", "/users/u", send(u()), 202),
            ("GET", "/users/u", exists(u()), 200),
            ("HEAD", "/users/u", exists(u()), 200),
            ("POST", "/connections/c", send(c()), 202),
            ("GET", "/connections/c", exists(c()), 200),
            ("HEAD", "/connections/c", exists(c()), 200),
            ("DELETE", "/connections/c", close_one, 202),
            ("POST", "/groups/g", send(g()), 202),
            ("GET", "/groups/g", exists(g()), 200),
            ("HEAD", "/groups/g", exists(g()), 200),
            ("PUT", "/groups/g/connections/c", join, 200),
            ("DELETE", "/groups/g/connections/c", leave, 200),
            ("GET", "/groups/g/users/u", is_in.clone(), 200),
            ("HEAD", "/groups/g/users/u", is_in.clone(), 200),
            ("PUT", "/groups/g/users/u", add.clone(), 202),
            ("DELETE", "/groups/g/users/u", remove.clone(), 202),
            ("HEAD", "/users/u/groups/g", is_in, 200),
            ("PUT", "/users/u/groups/g", add, 202),
            ("DELETE", "/users/u/groups/g", remove, 202),
            ("DELETE", "/users/u/groups", remove_all, 200),
        ]
    } else {
        vec![
            ("POST", "/:send", send(Scope::Hub), 202),
            ("POST", "/:closeConnections", close(Scope::Hub), 204),
            ("POST", "/users/u/:send", send(u()), 202),
            ("HEAD", "/users/u", exists(u()), 200),
            ("POST", "/users/u/:closeConnections", close(u()), 204),
            ("PUT", "/users/u/groups/g", add, 200),
            ("HEAD", "/users/u/groups/g", is_in, 200),
            ("DELETE", "/users/u/groups/g", remove, 204),
            ("DELETE", "/users/u/groups", remove_all, 204),
            ("POST", "/connections/c/:send", send(c()), 202),
            ("HEAD", "/connections/c", exists(c()), 200),
            ("DELETE", "/connections/c", close_one, 200),
            ("DELETE", "/connections/c/groups", leave_all, 200),
            ("POST", "/groups/g/:send", send(g()), 202),
            ("HEAD", "/groups/g", exists(g()), 200),
            ("POST", "/groups/g/:closeConnections", close(g()), 204),
            ("PUT", "/groups/g/connections/c", join, 200),
            ("DELETE", "/groups/g/connections/c", leave, 200),
        ]
    }
}

#[test]
fn every_row() {
    for (is_v1, start, query) in
        [(true, "/api/v1/hubs/H", ""), (false, "/api/hubs/H", "api-version=2022-06-01")]
    {
        let rows = rows(is_v1);
        for (method, path, action, status) in &rows {
            let found = wish(method, &format!("{start}{path}"), query);
            assert_eq!(found, Ok((action.clone(), *status)), "{method} {path} {query}");
        }
        // A path that is there has no other verbs.
        for (_, path, ..) in &rows {
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"] {
                if !rows.iter().any(|(known, other, ..)| (known, other) == (&method, path)) {
                    let found = RestRequest::parse(method, &format!("{start}{path}"), query);
                    let is_alias = is_v1 && (method, *path) == ("GET", "/users/u/groups/g");
                    let expected = if is_alias { None } else { Some(RestError::MethodNotAllowed) };
                    assert_eq!(found.err(), expected, "{method} {path} {query}");
                }
            }
        }
        for path in ["/x", "/users", "/users/u/x", "/groups/g/connections", "/groups/g/connections/c/x"] {
            for method in ["POST", "HEAD", "DELETE"] {
                let found = RestRequest::parse(method, &format!("{start}{path}"), query);
                assert_eq!(found, Err(RestError::NotFound), "{method} {path}");
            }
        }
    }
}

#[test]
fn health() {
    for (path, query, api_version) in [
        ("/api/v1/health", "", ApiVersion::V1),
        ("/api/health", "api-version=2022-06-01", ApiVersion::V20220601),
    ] {
        let request = RestRequest::parse("HEAD", path, query).unwrap();
        assert_eq!(request, RestRequest { api_version, call: RestCall::Health });
        assert_eq!((request.success_status(), request.has_message()), (200, false));
        assert_eq!(RestRequest::parse("POST", path, query), Err(RestError::MethodNotAllowed));
    }
}

#[test]
fn parameters() {
    let query = "api-version=2022-06-01&excluded=a&Excluded=b%2Bc&reason=too%20late+now&ttl=60&x=y";
    let expected = Action::CloseConnections {
        scope: Scope::Hub,
        excluded: vec![own("a"), own("b+c")],
        reason: Some(own("too late now")),
    };
    assert_eq!(wish("POST", "/api/hubs/h/:closeConnections", query), Ok((expected, 204)));
    let Ok((Action::AddUserToGroup { user, group, ttl_secs }, _)) =
        wish("PUT", "/api/hubs/h/users/a%20%2Fb/groups/%C3%A9", query)
    else {
        panic!("not a user and a group");
    };
    assert_eq!((user.as_str(), group.as_str(), ttl_secs), ("a /b", "é", Some(60)));
    let Ok((Action::Send { excluded, .. }, _)) = wish("POST", "/api/v1/hubs/h/groups/g", "excluded=a") else {
        panic!("nothing to send");
    };
    assert_eq!(excluded, ["a"]);
    let request = RestRequest::parse("POST", "/api/v1/hubs/Chat", "application=App").unwrap();
    assert!(matches!(request.call, RestCall::Hub { hub, .. } if hub.as_str() == "app_chat"));
}

#[test]
fn refused() {
    let version = "api-version=2022-06-01";
    let many = format!("{version}{}", "&excluded=c".repeat(513));
    let long = "x".repeat(16_385);
    let name = RestError::Name;
    for (method, path, query, error, status) in [
        ("POST", "/", version, RestError::NotFound, 404),
        ("POST", "/api", version, RestError::NotFound, 404),
        ("POST", "/api/hubs", version, RestError::NotFound, 404),
        ("POST", "/client/", version, RestError::NotFound, 404),
        ("POST", "/api/hubs/h/:send", "", RestError::ApiVersion, 400),
        ("POST", "/api/hubs/h/:send", "api-version=2020-01-01", RestError::ApiVersion, 400),
        ("POST", "/api/v2/hubs/h", "", RestError::ApiVersion, 400),
        ("POST", "/api/hubs/1h/:send", version, name(NameError::Hub), 400),
        ("POST", "/api/hubs//:send", version, name(NameError::Hub), 400),
        ("POST", "/api/v1/hubs/h", "application=1", name(NameError::Application), 400),
        ("POST", "/api/hubs/h/groups/a%20b/:send", version, name(NameError::Group), 400),
        ("POST", "/api/hubs/h/users//:send", version, name(NameError::User), 400),
        (
            "HEAD",
            &format!("/api/hubs/h/connections/{}", &long[..129]),
            version,
            name(NameError::Connection),
            400,
        ),
        (
            "PUT",
            "/api/hubs/h/users/u/groups/g",
            "api-version=2022-06-01&ttl=-1",
            RestError::Parameter { name: "ttl" },
            400,
        ),
        ("PUT", "/api/v1/hubs/h/users/u/groups/g", "ttl=1.5", RestError::Parameter { name: "ttl" }, 400),
        ("POST", "/api/hubs/h/:send", &many, RestError::Parameter { name: "excluded" }, 400),
        ("POST", &long, "", RestError::TargetTooLong { bytes: 16_385, limit: 16_384 }, 414),
        ("PATCH", "/api/v1/hubs/h", "", RestError::MethodNotAllowed, 405),
    ] {
        assert_eq!(RestRequest::parse(method, path, query), Err(error.clone()), "{method} {path} {query}");
        assert_eq!(error.status(), status, "{error}");
    }
}

#[test]
fn messages() {
    for (body, json) in [
        (r#"{"target":"t","arguments":[1,"a"]}"#, r#"{"type":1,"target":"t","arguments":[1,"a"]}"#),
        (r#"{"Target":"t","Arguments":[ ]}"#, r#"{"type":1,"target":"t","arguments":[ ]}"#),
        ("\u{feff} {\"target\":\"t\"}", r#"{"type":1,"target":"t","arguments":[]}"#),
        (
            r#"{"arguments":null,"rawBytes":"AA==","target":"t\""}"#,
            r#"{"type":1,"target":"t\"","arguments":[]}"#,
        ),
    ] {
        let message = RestMessage::parse(&Bytes::from(body)).unwrap();
        assert_eq!(message.invocation.json(), format!("{json}\x1e"));
    }
    for body in [
        "",
        "[]",
        "{}",
        r#"{"target":1,"arguments":[]}"#,
        r#"{"target":"","arguments":[]}"#,
        r#"{"target":"t","arguments":[]"#,
        r#"["t",[]]"#,
    ] {
        let error = RestMessage::parse(&Bytes::from(body)).unwrap_err();
        assert!(matches!(error, RestError::BadMessage { .. }), "{body}: {error:?}");
        assert_eq!(error.status(), 400);
    }
    for body in [r#"{"target":"t","arguments":{}}"#, r#"{"target":"t","arguments":[1e999]}"#] {
        let error = RestMessage::parse(&Bytes::from(body)).unwrap_err();
        assert!(matches!(error, RestError::Arguments(_)), "{body}: {error:?}");
        assert_eq!(error.status(), 400);
    }
    let error = RestMessage::parse(&vec![b' '; 1_048_577].into()).unwrap_err();
    assert_eq!(
        (error.clone(), error.status()),
        (RestError::BodyTooLong { bytes: 1_048_577, limit: 1_048_576 }, 413)
    );
}

#[test]
fn notices() {
    for (notice, code, is_success) in [
        (Notice::ConnectionNotExisted, "Warning.Connection.NotExisted", true),
        (Notice::UserNotExisted, "Warning.User.NotExisted", true),
        (Notice::GroupNotExisted, "Warning.Group.NotExisted", true),
        (Notice::UserNotInGroup, "Info.User.NotInGroup", true),
        (Notice::ConnectionNotFound, "Error.Connection.NotExisted", false),
    ] {
        let response = ServiceResponse::new(notice, "x\"");
        assert_eq!((response.code.as_str(), response.is_success), (code, is_success));
        let json: serde_json::Value = serde_json::from_slice(&response.to_json()).unwrap();
        let [level, scope, kind] = code.split('.').collect::<Vec<_>>()[..] else { panic!("{code}") };
        assert_eq!((&json["code"], &json["level"]), (&code.into(), &level.into()));
        assert_eq!((&json["scope"], &json["errorKind"]), (&scope.into(), &kind.into()));
        assert_eq!(json["isSuccess"], is_success);
    }
    assert_eq!(ERROR_CODE_HEADER, "x-ms-error-code");
}
