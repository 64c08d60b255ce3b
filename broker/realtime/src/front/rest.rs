//! `/api/…`: what backends ask for.

use std::time::Duration;

use fleetline_gateway::http::Body;
use fleetline_signalr::limits::REST_BODY_BYTES_MAX;
use fleetline_signalr::rest::{
    Action, ERROR_CODE_HEADER, Notice, RestCall, RestError, RestMessage, RestRequest, Scope, ServiceResponse,
};
use http::header::HeaderName;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};

use super::{access, reply};
use crate::fanout;
use crate::groups::{GroupAction, GroupError};
use crate::key::{Destination, Key};
use crate::outgoing::Outgoing;
use crate::publish::PublishError;
use crate::settings::Settings;
use crate::tier::Realtime;

/// How long a body may take.
const BODY_WAIT: Duration = Duration::from_secs(60);

/// Why a request isn't done.
enum Refusal {
    Rest(RestError),
    Busy,
    Groups(GroupError),
    /// What is named isn't there.
    Missing(ServiceResponse),
    /// The same, for a question: nothing more is said.
    No,
    Body(&'static str),
}

impl From<RestError> for Refusal {
    fn from(error: RestError) -> Refusal {
        Refusal::Rest(error)
    }
}

impl From<PublishError> for Refusal {
    fn from(_: PublishError) -> Refusal {
        Refusal::Busy
    }
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Refusal {
        Refusal::Groups(error)
    }
}

/// What is said besides success.
type Said = Option<ServiceResponse>;

pub(super) async fn answer(
    tier: &Realtime,
    settings: &Settings,
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default();
    let parsed = RestRequest::parse(head.method.as_str(), head.uri.path(), query);
    if let Ok(RestRequest { call: RestCall::Health, .. }) = parsed {
        return reply::empty(StatusCode::OK);
    }
    if let Err(refusal) = access::backend(tier, settings, &head.uri, &head.headers) {
        return *refusal;
    }
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return refused(Refusal::Rest(error)),
    };
    let status = reply::status(parsed.success_status());
    match perform(tier, parsed, body).await {
        Ok(None) => reply::empty(status),
        Ok(Some(said)) if status == StatusCode::NO_CONTENT => noted(reply::empty(status), &said),
        Ok(Some(said)) => noted(reply::json(status, said.to_json()), &said),
        Err(refusal) => refused(refusal),
    }
}

fn noted(mut response: Response<Body>, said: &ServiceResponse) -> Response<Body> {
    reply::put(&mut response, HeaderName::from_static(ERROR_CODE_HEADER), &said.code);
    response
}

fn refused(refusal: Refusal) -> Response<Body> {
    match refusal {
        Refusal::Rest(error) => reply::text(reply::status(error.status()), error.to_string()),
        Refusal::Busy => reply::busy(),
        Refusal::Groups(error @ GroupError::Unavailable(_)) => {
            reply::text(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        Refusal::Groups(error @ GroupError::TooMany) => {
            reply::text(StatusCode::BAD_REQUEST, error.to_string())
        }
        Refusal::Missing(said) => noted(reply::json(StatusCode::NOT_FOUND, said.to_json()), &said),
        Refusal::No => reply::empty(StatusCode::NOT_FOUND),
        Refusal::Body(text) => reply::text(StatusCode::BAD_REQUEST, text),
    }
}

async fn perform(tier: &Realtime, request: RestRequest, body: Incoming) -> Result<Said, Refusal> {
    let RestCall::Hub { hub, action } = request.call else { return Ok(None) };
    let hub = hub.as_str();
    match action {
        Action::Send { scope, excluded } => {
            let message = RestMessage::parse(&read(body).await?)?;
            let said = notice(tier, hub, &scope);
            tier.stats.on_published();
            let message = fanout::Action::Send(Outgoing::new(message.invocation));
            tier.order(hub, &destination(scope, excluded), message)?;
            Ok(said)
        }
        Action::CloseConnections { scope, excluded, reason } => {
            close(tier, hub, scope, excluded, reason).await
        }
        Action::CloseConnection { connection, reason } => {
            close(tier, hub, Scope::Connection(connection), Vec::new(), reason).await
        }
        Action::Exists { scope } => exists(tier, hub, scope).await,
        Action::AddUserToGroup { user, group, ttl_secs } => {
            let ttl = ttl_secs.map(Duration::from_secs);
            tier.group_action(hub, GroupAction::AddUser { user, group, ttl }).await?;
            Ok(None)
        }
        Action::IsUserInGroup { user, group } => match tier.is_user_in_group(hub, &user, &group).await? {
            true => Ok(None),
            false => Err(Refusal::No),
        },
        Action::RemoveUserFromGroup { user, group } => {
            let action = GroupAction::RemoveUser { user: user.clone(), group };
            let was_in = tier.group_action(hub, action).await?;
            Ok((!was_in).then(|| ServiceResponse::new(Notice::UserNotInGroup, &user)))
        }
        Action::RemoveUserFromAllGroups { user } => {
            tier.group_action(hub, GroupAction::RemoveUserFromAll { user }).await?;
            Ok(None)
        }
        Action::AddConnectionToGroup { connection, group } => {
            let action = GroupAction::AddConnection { connection: connection.clone(), group };
            change_connection(tier, hub, action, &connection).await
        }
        Action::RemoveConnectionFromGroup { connection, group } => {
            let action = GroupAction::RemoveConnection { connection: connection.clone(), group };
            change_connection(tier, hub, action, &connection).await
        }
        Action::RemoveConnectionFromAllGroups { connection } => {
            let action = GroupAction::RemoveConnectionFromAll { connection: connection.clone() };
            match change_connection(tier, hub, action, &connection).await {
                // The table has no 404 for it.
                Err(Refusal::Missing(_)) => {
                    Ok(Some(ServiceResponse::new(Notice::ConnectionNotExisted, &connection)))
                }
                other => other,
            }
        }
    }
}

async fn change_connection(
    tier: &Realtime,
    hub: &str,
    action: GroupAction,
    connection: &str,
) -> Result<Said, Refusal> {
    match tier.group_action(hub, action).await? {
        true => Ok(None),
        false => Err(Refusal::Missing(ServiceResponse::new(Notice::ConnectionNotFound, connection))),
    }
}

async fn close(
    tier: &Realtime,
    hub: &str,
    scope: Scope,
    excluded: Vec<String>,
    reason: Option<String>,
) -> Result<Said, Refusal> {
    let said = notice(tier, hub, &scope);
    if let (Scope::User(user), false) = (&scope, excluded.is_empty()) {
        // Users have no list of exclusions of their own: their connections are few.
        tier.close_excluding(Key::user(hub, user), excluded, reason)?;
        return Ok(said);
    }
    tier.close(hub, &destination(scope, excluded), reason)?;
    Ok(said)
}

async fn exists(tier: &Realtime, hub: &str, scope: Scope) -> Result<Said, Refusal> {
    let found = match scope {
        Scope::Hub => tier.has_members(&Key::hub(hub)).await?,
        Scope::User(user) => tier.has_members(&Key::user(hub, &user)).await?,
        Scope::Group(group) => tier.has_members(&Key::group(hub, &group)).await?,
        Scope::Connection(connection) => tier.has_connection(hub, &connection).await?,
    };
    if found { Ok(None) } else { Err(Refusal::No) }
}

fn destination(scope: Scope, excluded: Vec<String>) -> Destination {
    match scope {
        Scope::Hub => Destination::All { excluded },
        Scope::User(user) => Destination::User(user),
        Scope::Group(name) => Destination::Group { name, excluded },
        Scope::Connection(connection) => Destination::Connection(connection),
    }
}

/// That nobody is there. Said only where it is known without asking other nodes: a message isn't worth that.
fn notice(tier: &Realtime, hub: &str, scope: &Scope) -> Said {
    if !tier.peers.is_alone() {
        return None;
    }
    let (is_there, notice, name) = match scope {
        Scope::Hub => return None,
        Scope::User(user) => (tier.registry.has(&Key::user(hub, user)), Notice::UserNotExisted, user),
        Scope::Group(group) => (tier.registry.has(&Key::group(hub, group)), Notice::GroupNotExisted, group),
        Scope::Connection(id) => {
            (tier.registry.connection_of(hub, id).is_some(), Notice::ConnectionNotExisted, id)
        }
    };
    (!is_there).then(|| ServiceResponse::new(notice, name))
}

async fn read(body: Incoming) -> Result<bytes::Bytes, Refusal> {
    let limit = REST_BODY_BYTES_MAX;
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let too_long = |bytes| Refusal::Rest(RestError::BodyTooLong { bytes, limit });
    if announced > limit {
        return Err(too_long(announced));
    }
    match tokio::time::timeout(BODY_WAIT, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_long(limit + 1)),
        Ok(Err(_)) => Err(Refusal::Body("the body can't be read")),
        Err(_) => Err(Refusal::Body("the body takes too long")),
    }
}
