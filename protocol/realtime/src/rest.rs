//! The REST data plane: what a backend asks for, in both versions of the API.
//!
//! [`RestRequest::parse`] reads method, path and query and checks all names, so what it answers can be
//! done. A body, where one is wanted ([`RestRequest::has_message`]), is read by [`RestMessage::parse`].
//! Success has the status of [`RestRequest::success_status`]; an error that of [`RestError::status`].
//!
//! Not here: who may ask (`token.rs`), and whether what is named exists.

use thiserror::Error;

use crate::error::ValueError;
use crate::limits::{EXCLUDED_MAX, REST_TARGET_BYTES_MAX};
use crate::names::{self, HubName, NameError};
use crate::query;

mod message;

pub use message::{ERROR_CODE_HEADER, Notice, RestMessage, ServiceResponse};

/// Which API a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiVersion {
    /// `/api/v1/…`.
    V1,
    /// `/api/…?api-version=2022-06-01`.
    V20220601,
}

/// Why a request can't be done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RestError {
    /// No such path.
    #[error("no such resource")]
    NotFound,
    /// A path that is there, with a verb that it doesn't have.
    #[error("the resource does not support the method")]
    MethodNotAllowed,
    /// Neither `/api/v1/` nor a version that we have.
    #[error("the api version is missing or not supported")]
    ApiVersion,
    /// A name that can't be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A parameter of the query that isn't what it has to be.
    #[error("the parameter {name} is not valid")]
    Parameter {
        /// Which.
        name: &'static str,
    },
    /// Path and query are too long.
    #[error("the url has {bytes} bytes, at most {limit} are allowed")]
    TargetTooLong {
        /// What came.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The body is too long.
    #[error("the body has {bytes} bytes, at most {limit} are allowed")]
    BodyTooLong {
        /// What came.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The body isn't a message.
    #[error("the body is not a message with target and arguments: {detail}")]
    BadMessage {
        /// What the parser says: the place, never the text.
        detail: String,
    },
    /// The arguments can't be sent.
    #[error(transparent)]
    Arguments(#[from] ValueError),
}

impl RestError {
    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            RestError::NotFound => 404,
            RestError::MethodNotAllowed => 405,
            RestError::BodyTooLong { .. } => 413,
            RestError::TargetTooLong { .. } => 414,
            RestError::ApiVersion
            | RestError::Name(_)
            | RestError::Parameter { .. }
            | RestError::BadMessage { .. }
            | RestError::Arguments(_) => 400,
        }
    }
}

/// Which connections something concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of the hub.
    Hub,
    /// Those of a user.
    User(String),
    /// Those in a group.
    Group(String),
    /// One.
    Connection(String),
}

/// What a backend wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestCall {
    /// Is the service there?
    Health,
    /// Something with a hub.
    Hub {
        /// Which.
        hub: HubName,
        /// What.
        action: Action,
    },
}

/// What a backend wants with a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the message in the body. Nobody to send to is no error.
    Send {
        /// To whom.
        scope: Scope,
        /// Connections that don't get it.
        excluded: Vec<String>,
    },
    /// Close connections.
    CloseConnections {
        /// Of the hub, of a user or of a group.
        scope: Scope,
        /// Connections that stay.
        excluded: Vec<String>,
        /// What the clients are told.
        reason: Option<String>,
    },
    /// Close one connection.
    CloseConnection {
        /// Which.
        connection: String,
        /// What the client is told.
        reason: Option<String>,
    },
    /// Whether there is a connection: of a user, in a group, or this one. 404 if not.
    Exists {
        /// Where.
        scope: Scope,
    },
    /// Put a user into a group.
    AddUserToGroup {
        /// The user.
        user: String,
        /// The group.
        group: String,
        /// How long; 0 for as long as its present connections last, `None` for
        /// [`crate::limits::USER_GROUP_TTL_SECS_DEFAULT`].
        ttl_secs: Option<u64>,
    },
    /// Whether a user is in a group. 404 if not.
    IsUserInGroup {
        /// The user.
        user: String,
        /// The group.
        group: String,
    },
    /// Take a user out of a group.
    RemoveUserFromGroup {
        /// The user.
        user: String,
        /// The group.
        group: String,
    },
    /// Take a user out of all groups.
    RemoveUserFromAllGroups {
        /// The user.
        user: String,
    },
    /// Put a connection into a group. 404 if there is no such connection.
    AddConnectionToGroup {
        /// The connection.
        connection: String,
        /// The group.
        group: String,
    },
    /// Take a connection out of a group. 404 if there is no such connection.
    RemoveConnectionFromGroup {
        /// The connection.
        connection: String,
        /// The group.
        group: String,
    },
    /// Take a connection out of all groups.
    RemoveConnectionFromAllGroups {
        /// The connection.
        connection: String,
    },
}

/// A request of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestRequest {
    /// Which API it speaks.
    pub api_version: ApiVersion,
    /// What it wants.
    pub call: RestCall,
}

impl RestRequest {
    /// Reads a request; `path` and `raw_query` (without its `?`) as they came.
    pub fn parse(method: &str, path: &str, raw_query: &str) -> Result<RestRequest, RestError> {
        let (bytes, limit) = (path.len() + raw_query.len(), REST_TARGET_BYTES_MAX);
        if bytes > limit {
            return Err(RestError::TargetTooLong { bytes, limit });
        }
        let path = path.strip_prefix("/api/").ok_or(RestError::NotFound)?;
        let parameters = Parameters::read(raw_query)?;
        let (api_version, path) = match path.strip_prefix("v1/") {
            Some(path) => (ApiVersion::V1, path),
            None => (parameters.api_version()?, path),
        };
        let segments: Vec<_> = path.trim_end_matches('/').split('/').map(query::decode).collect();
        let segments: Vec<&str> = segments.iter().map(|segment| &**segment).collect();
        let call = match &segments[..] {
            ["health"] => Verb::only(method, Verb::Exists).map(|()| RestCall::Health),
            ["hubs", hub, rest @ ..] => {
                let action = match api_version {
                    ApiVersion::V1 => action_v1(Verb::of_v1(method), rest, parameters.copy())?,
                    ApiVersion::V20220601 => action_2022(Verb::of_2022(method), rest, parameters.copy())?,
                };
                parameters.hub(hub).map(|hub| RestCall::Hub { hub, action })
            }
            _ => Err(RestError::NotFound),
        }?;
        Ok(RestRequest { api_version, call })
    }

    /// Whether the body is a message to send.
    pub fn has_message(&self) -> bool {
        matches!(self.call, RestCall::Hub { action: Action::Send { .. }, .. })
    }

    /// The status of an answer when all went well.
    pub fn success_status(&self) -> u16 {
        let RestCall::Hub { action, .. } = &self.call else { return 200 };
        let is_v1 = self.api_version == ApiVersion::V1;
        match action {
            Action::Send { .. } => 202,
            Action::CloseConnections { .. } => 204,
            Action::CloseConnection { .. } if is_v1 => 202,
            Action::AddUserToGroup { .. } if is_v1 => 202,
            Action::RemoveUserFromGroup { .. } if is_v1 => 202,
            Action::RemoveUserFromGroup { .. } => 204,
            Action::RemoveUserFromAllGroups { .. } if !is_v1 => 204,
            Action::CloseConnection { .. }
            | Action::Exists { .. }
            | Action::AddUserToGroup { .. }
            | Action::IsUserInGroup { .. }
            | Action::RemoveUserFromAllGroups { .. }
            | Action::AddConnectionToGroup { .. }
            | Action::RemoveConnectionFromGroup { .. }
            | Action::RemoveConnectionFromAllGroups { .. } => 200,
        }
    }
}

/// The verbs, by what they do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    /// HEAD; in version 1 GET as well.
    Exists,
    Post,
    Put,
    Delete,
    Other,
}

impl Verb {
    fn of_v1(method: &str) -> Verb {
        if method == "GET" { Verb::Exists } else { Verb::of_2022(method) }
    }

    fn of_2022(method: &str) -> Verb {
        match method {
            "HEAD" => Verb::Exists,
            "POST" => Verb::Post,
            "PUT" => Verb::Put,
            "DELETE" => Verb::Delete,
            _ => Verb::Other,
        }
    }

    fn only(method: &str, verb: Verb) -> Result<(), RestError> {
        if Verb::of_2022(method) == verb { Ok(()) } else { Err(RestError::MethodNotAllowed) }
    }
}

/// The parameters of a query that some call has.
#[derive(Clone, Debug, Default)]
struct Parameters {
    api_version: Option<String>,
    application: Option<String>,
    reason: Option<String>,
    ttl_secs: Option<u64>,
    excluded: Vec<String>,
}

impl Parameters {
    fn read(raw_query: &str) -> Result<Parameters, RestError> {
        let mut read = Parameters::default();
        for (name, value) in query::pairs(raw_query) {
            match &*name.to_ascii_lowercase() {
                "api-version" => read.api_version = Some(value.into_owned()),
                "application" => read.application = Some(value.into_owned()).filter(|name| !name.is_empty()),
                "reason" => read.reason = Some(value.into_owned()).filter(|reason| !reason.is_empty()),
                "ttl" => {
                    let ttl = value.parse().map_err(|_| RestError::Parameter { name: "ttl" })?;
                    read.ttl_secs = Some(ttl);
                }
                "excluded" if read.excluded.len() < EXCLUDED_MAX => read.excluded.push(value.into_owned()),
                "excluded" => return Err(RestError::Parameter { name: "excluded" }),
                _ => {}
            }
        }
        Ok(read)
    }

    fn copy(&self) -> Parameters {
        self.clone()
    }

    fn api_version(&self) -> Result<ApiVersion, RestError> {
        match self.api_version.as_deref() {
            Some("2022-06-01") => Ok(ApiVersion::V20220601),
            _ => Err(RestError::ApiVersion),
        }
    }

    fn hub(&self, hub: &str) -> Result<HubName, RestError> {
        match &self.application {
            Some(application) => Ok(HubName::of_application(application, hub)?),
            None => Ok(HubName::parse(hub)?),
        }
    }
}

fn user(text: &str) -> Result<String, RestError> {
    names::check_user(text)?;
    Ok(text.to_owned())
}

fn group(text: &str) -> Result<String, RestError> {
    names::check_group(text)?;
    Ok(text.to_owned())
}

fn connection(text: &str) -> Result<String, RestError> {
    names::check_connection(text)?;
    Ok(text.to_owned())
}

/// The rows of version 2022-06-01, behind the hub.
fn action_2022(verb: Verb, path: &[&str], parameters: Parameters) -> Result<Action, RestError> {
    let Parameters { excluded, reason, ttl_secs, .. } = parameters;
    Ok(match (verb, path) {
        (Verb::Post, [":send"]) => Action::Send { scope: Scope::Hub, excluded },
        (Verb::Post, ["users", u, ":send"]) => {
            Action::Send { scope: Scope::User(user(u)?), excluded: Vec::new() }
        }
        (Verb::Post, ["groups", g, ":send"]) => Action::Send { scope: Scope::Group(group(g)?), excluded },
        (Verb::Post, ["connections", c, ":send"]) => {
            Action::Send { scope: Scope::Connection(connection(c)?), excluded: Vec::new() }
        }
        (Verb::Post, [":closeConnections"]) => {
            Action::CloseConnections { scope: Scope::Hub, excluded, reason }
        }
        (Verb::Post, ["users", u, ":closeConnections"]) => {
            Action::CloseConnections { scope: Scope::User(user(u)?), excluded, reason }
        }
        (Verb::Post, ["groups", g, ":closeConnections"]) => {
            Action::CloseConnections { scope: Scope::Group(group(g)?), excluded, reason }
        }
        (Verb::Delete, ["connections", c]) => Action::CloseConnection { connection: connection(c)?, reason },
        (Verb::Exists, ["users", u]) => Action::Exists { scope: Scope::User(user(u)?) },
        (Verb::Exists, ["groups", g]) => Action::Exists { scope: Scope::Group(group(g)?) },
        (Verb::Exists, ["connections", c]) => Action::Exists { scope: Scope::Connection(connection(c)?) },
        (verb, ["users", u, "groups", g]) => user_group(verb, u, g, ttl_secs)?,
        (Verb::Delete, ["users", u, "groups"]) => Action::RemoveUserFromAllGroups { user: user(u)? },
        (verb, ["groups", g, "connections", c]) => connection_group(verb, c, g)?,
        (Verb::Delete, ["connections", c, "groups"]) => {
            Action::RemoveConnectionFromAllGroups { connection: connection(c)? }
        }
        (
            _,
            [":send" | ":closeConnections"]
            | ["users" | "groups", _, ":send" | ":closeConnections"]
            | ["connections", _, ":send"]
            | ["users" | "groups" | "connections", _]
            | ["users" | "connections", _, "groups"],
        ) => return Err(RestError::MethodNotAllowed),
        _ => return Err(RestError::NotFound),
    })
}

/// The rows of version 1, behind the hub.
fn action_v1(verb: Verb, path: &[&str], parameters: Parameters) -> Result<Action, RestError> {
    let Parameters { excluded, reason, ttl_secs, .. } = parameters;
    Ok(match (verb, path) {
        (Verb::Post, []) => Action::Send { scope: Scope::Hub, excluded },
        (Verb::Post, ["users", u]) => Action::Send { scope: Scope::User(user(u)?), excluded: Vec::new() },
        (Verb::Post, ["groups", g]) => Action::Send { scope: Scope::Group(group(g)?), excluded },
        (Verb::Post, ["connections", c]) => {
            Action::Send { scope: Scope::Connection(connection(c)?), excluded: Vec::new() }
        }
        (Verb::Delete, ["connections", c]) => Action::CloseConnection { connection: connection(c)?, reason },
        (Verb::Exists, ["users", u]) => Action::Exists { scope: Scope::User(user(u)?) },
        (Verb::Exists, ["groups", g]) => Action::Exists { scope: Scope::Group(group(g)?) },
        (Verb::Exists, ["connections", c]) => Action::Exists { scope: Scope::Connection(connection(c)?) },
        (verb, ["groups", g, "users", u] | ["users", u, "groups", g]) => user_group(verb, u, g, ttl_secs)?,
        (Verb::Delete, ["users", u, "groups"]) => Action::RemoveUserFromAllGroups { user: user(u)? },
        (verb, ["groups", g, "connections", c]) => connection_group(verb, c, g)?,
        (_, [] | ["users" | "groups" | "connections", _] | ["users", _, "groups"]) => {
            return Err(RestError::MethodNotAllowed);
        }
        _ => return Err(RestError::NotFound),
    })
}

fn user_group(verb: Verb, u: &str, g: &str, ttl_secs: Option<u64>) -> Result<Action, RestError> {
    let (user, group) = (user(u)?, group(g)?);
    match verb {
        Verb::Put => Ok(Action::AddUserToGroup { user, group, ttl_secs }),
        Verb::Exists => Ok(Action::IsUserInGroup { user, group }),
        Verb::Delete => Ok(Action::RemoveUserFromGroup { user, group }),
        Verb::Post | Verb::Other => Err(RestError::MethodNotAllowed),
    }
}

fn connection_group(verb: Verb, c: &str, g: &str) -> Result<Action, RestError> {
    let (connection, group) = (connection(c)?, group(g)?);
    match verb {
        Verb::Put => Ok(Action::AddConnectionToGroup { connection, group }),
        Verb::Delete => Ok(Action::RemoveConnectionFromGroup { connection, group }),
        Verb::Exists | Verb::Post | Verb::Other => Err(RestError::MethodNotAllowed),
    }
}
