//! The API's paths and methods: one table, which the description in `openapi.json` is held to.

use std::borrow::Cow;

use hyper::Method;

use super::problem::{Code, Problem};
use crate::config::Scope;
use crate::server::handshake::decode;

/// In front of every path of the table.
pub(super) const BASE: &str = "/api/v1";

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Anyone: nothing is told that is not public.
    Nothing,
    /// Whoever has a user's token, where users have tokens.
    Token,
    /// An API key with this scope.
    Key(Scope),
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Description,
    ClientConfig,
    Rooms,
    Room,
    History,
    Publish,
    PublishMany,
    Members,
    RemoveUser,
    RemoveClient,
    DisconnectUser,
    DisconnectClient,
    Nodes,
    VideoToken,
}

/// One method of one path.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) method: Method,
    /// Below [`BASE`]; `{...}` stands for one segment.
    pub(super) path: &'static str,
    /// In metrics and, as `operationId`, in the description.
    pub(super) label: &'static str,
    pub(super) needs: Needs,
    pub(super) call: Call,
}

const fn endpoint(method: Method, path: &'static str, label: &'static str, needs: Needs, call: Call) -> Endpoint {
    Endpoint { method, path, label, needs, call }
}

const READ: Needs = Needs::Key(Scope::Read);
const PUBLISH: Needs = Needs::Key(Scope::Publish);
const ADMIN: Needs = Needs::Key(Scope::Admin);

/// Every endpoint.
pub(super) const ENDPOINTS: &[Endpoint] = &[
    endpoint(Method::GET, "/openapi.json", "describe", Needs::Nothing, Call::Description),
    endpoint(Method::GET, "/client-config", "clientConfig", Needs::Nothing, Call::ClientConfig),
    endpoint(Method::GET, "/rooms", "listRooms", READ, Call::Rooms),
    endpoint(Method::GET, "/rooms/{room}", "getRoom", READ, Call::Room),
    endpoint(Method::GET, "/rooms/{room}/messages", "listMessages", READ, Call::History),
    endpoint(Method::POST, "/rooms/{room}/messages", "publish", PUBLISH, Call::Publish),
    endpoint(Method::POST, "/messages", "publishToMany", PUBLISH, Call::PublishMany),
    endpoint(Method::GET, "/rooms/{room}/members", "listMembers", READ, Call::Members),
    endpoint(Method::DELETE, "/rooms/{room}/members", "removeUser", ADMIN, Call::RemoveUser),
    endpoint(Method::DELETE, "/rooms/{room}/members/{clientId}", "removeMember", ADMIN, Call::RemoveClient),
    endpoint(Method::POST, "/users/{user}/disconnect", "disconnectUser", ADMIN, Call::DisconnectUser),
    endpoint(Method::DELETE, "/connections/{clientId}", "disconnectClient", ADMIN, Call::DisconnectClient),
    endpoint(Method::GET, "/nodes", "listNodes", ADMIN, Call::Nodes),
    endpoint(Method::POST, "/rooms/{room}/video-token", "videoToken", Needs::Token, Call::VideoToken),
];

/// What a path and method lead to.
pub(super) enum Found<'a> {
    /// An endpoint, with the text of its `{...}` in order.
    Endpoint(&'static Endpoint, Vec<Cow<'a, str>>),
    /// The methods of the path, for OPTIONS.
    Methods(String),
}

/// Looks a path up. HEAD is answered as GET is.
///
/// # Errors
/// 404, 405, or 400 for malformed percent-encoding.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Result<Found<'a>, Problem> {
    let nothing = || Problem::new(Code::NotFound, "nothing here: /api/v1/openapi.json describes what is");
    let below = path.strip_prefix(BASE).ok_or_else(nothing)?;
    let here: Vec<&Endpoint> = ENDPOINTS.iter().filter(|endpoint| fits(endpoint.path, below)).collect();
    if here.is_empty() {
        return Err(nothing());
    }
    let wanted = if *method == Method::HEAD { &Method::GET } else { method };
    if let Some(endpoint) = here.iter().find(|endpoint| endpoint.method == *wanted) {
        return Ok(Found::Endpoint(endpoint, captures(endpoint.path, below)?));
    }
    let mut methods: Vec<&str> = here.iter().map(|endpoint| endpoint.method.as_str()).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.push("OPTIONS");
    let methods = methods.join(", ");
    if *method == Method::OPTIONS { Ok(Found::Methods(methods)) } else { Err(Problem::method(methods)) }
}

fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{')
}

fn fits(template: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    template.split('/').all(|part| {
        segments.next().is_some_and(|segment| if is_parameter(part) { !segment.is_empty() } else { segment == part })
    }) && segments.next().is_none()
}

fn captures<'a>(template: &str, path: &'a str) -> Result<Vec<Cow<'a, str>>, Problem> {
    let pairs = template.split('/').zip(path.split('/'));
    pairs
        .filter(|(part, _)| is_parameter(part))
        .map(|(_, segment)| decode(segment, false).map_err(|refusal| Problem::new(Code::BadRequest, refusal.detail)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(method: &Method, path: &str) -> Result<(&'static str, Vec<String>), Code> {
        match find(method, path) {
            Ok(Found::Endpoint(endpoint, captures)) => {
                Ok((endpoint.label, captures.iter().map(ToString::to_string).collect()))
            }
            Ok(Found::Methods(methods)) => Ok(("methods", vec![methods])),
            Err(problem) => Err(problem.code),
        }
    }

    #[test]
    fn paths_lead_to_their_endpoints() {
        assert_eq!(label(&Method::GET, "/api/v1/rooms"), Ok(("listRooms", vec![])));
        assert_eq!(label(&Method::HEAD, "/api/v1/rooms/a"), Ok(("getRoom", vec!["a".to_owned()])));
        assert_eq!(label(&Method::POST, "/api/v1/rooms/%61/messages"), Ok(("publish", vec!["a".to_owned()])));
        assert_eq!(
            label(&Method::DELETE, "/api/v1/rooms/a%2Fb/members/c"),
            Ok(("removeMember", vec!["a/b".to_owned(), "c".to_owned()]))
        );
        assert_eq!(label(&Method::OPTIONS, "/api/v1/rooms"), Ok(("methods", vec!["GET, HEAD, OPTIONS".to_owned()])));
    }

    #[test]
    fn others_lead_nowhere() {
        for path in
            ["/api", "/api/", "/api/v2/rooms", "/api/v1", "/api/v1/", "/api/v1/rooms/", "/api/v1/rooms//messages"]
        {
            assert_eq!(label(&Method::GET, path), Err(Code::NotFound), "{path}");
        }
        assert_eq!(label(&Method::PUT, "/api/v1/rooms"), Err(Code::MethodNotAllowed));
        assert_eq!(label(&Method::OPTIONS, "/api/v1/nothing"), Err(Code::NotFound));
        assert_eq!(label(&Method::GET, "/api/v1/rooms/%zz"), Err(Code::BadRequest));
        assert_eq!(label(&Method::GET, "/api/v1/rooms/%ff"), Err(Code::BadRequest));
    }
}
