//! What operators put right: taking somebody out of a room, or off all nodes.
//!
//! Every node is told and answers. An answer is 200 when all of them did and 202 when some did not in time, since it may
//! still happen there; the counts say so. Nothing is retried: asking again is safe.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::body::Incoming;
use roomcast_protocol::{ClientId, check_user};
use serde::{Deserialize, Serialize};

use super::body::{Query, object};
use super::problem::{Code, Problem};
use super::{Api, Asked, Done, SMALL_BODY_BYTES};
use crate::broker::{Target, check_words};
use crate::hub::Carried;

#[derive(Serialize)]
struct NodesJson {
    living: usize,
    answered: usize,
}

#[derive(Serialize)]
struct RemovedJson {
    removed: u64,
    nodes: NodesJson,
}

#[derive(Serialize)]
struct DisconnectedJson {
    disconnected: u64,
    nodes: NodesJson,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Disconnect {
    #[serde(default)]
    reconnect: bool,
    #[serde(default)]
    reason: Option<String>,
}

impl Api {
    pub(super) async fn remove_user(&self, asked: &Asked<'_>) -> Result<Done, Problem> {
        let query = Query::read(asked.parts.uri.query(), &["user", "reason"])?;
        let user = query.text("user").ok_or_else(|| Problem::new(Code::BadRequest, "expected ?user="))?;
        self.remove(asked, user_target(user)?, query.text("reason")).await
    }

    pub(super) async fn remove_client(&self, asked: &Asked<'_>) -> Result<Done, Problem> {
        let query = Query::read(asked.parts.uri.query(), &["reason"])?;
        self.remove(asked, client_target(asked.segment(1))?, query.text("reason")).await
    }

    pub(super) async fn disconnect_user(&self, asked: &Asked<'_>, body: Incoming) -> Result<Done, Problem> {
        let target = user_target(asked.segment(0))?;
        let body = self.body(asked, body, SMALL_BODY_BYTES).await?;
        let Disconnect { reconnect, reason } = object(&body)?;
        if let Some(reason) = &reason {
            check_words(reason).map_err(|words| Problem::new(Code::Invalid, format!("`reason`: {words}")))?;
        }
        self.disconnect(asked, target, reconnect, reason.as_deref()).await
    }

    pub(super) async fn disconnect_client(&self, asked: &Asked<'_>) -> Result<Done, Problem> {
        let query = Query::read(asked.parts.uri.query(), &["reconnect", "reason"])?;
        let reconnect = match query.text("reconnect") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Problem::new(Code::BadRequest, "reconnect: expected true or false")),
        };
        let reason = checked_reason(query.text("reason"))?;
        self.disconnect(asked, client_target(asked.segment(0))?, reconnect, reason).await
    }

    async fn remove(&self, asked: &Asked<'_>, target: Target, reason: Option<&str>) -> Result<Done, Problem> {
        let (room, reason) = (asked.room()?, checked_reason(reason)?);
        let carried = self.shard.remove_member(&room, target, reason).await?;
        tracing::info!(key = asked.key_name(), room = %room, removed = carried.hit, "members removed over the API");
        done(carried, |hit, nodes| RemovedJson { removed: hit, nodes })
    }

    async fn disconnect(
        &self,
        asked: &Asked<'_>,
        target: Target,
        may_return: bool,
        reason: Option<&str>,
    ) -> Result<Done, Problem> {
        let carried = self.shard.disconnect_everywhere(target, may_return, reason).await?;
        tracing::info!(key = asked.key_name(), disconnected = carried.hit, may_return, "disconnected over the API");
        done(carried, |hit, nodes| DisconnectedJson { disconnected: hit, nodes })
    }
}

fn done<T: Serialize>(carried: Carried, json: impl FnOnce(u64, NodesJson) -> T) -> Result<Done, Problem> {
    let status = if carried.is_complete() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Done::json(status, &json(carried.hit, NodesJson { living: carried.nodes, answered: carried.answered }))
}

fn client_target(text: &str) -> Result<Target, Problem> {
    let client: Result<ClientId, _> = text.parse();
    client.map(Target::Client).map_err(|error| Problem::new(Code::BadRequest, error.to_string()))
}

fn user_target(text: &str) -> Result<Target, Problem> {
    check_user(text).map_err(|error| Problem::new(Code::BadRequest, error.to_string()))?;
    Ok(Target::User(Arc::from(text)))
}

fn checked_reason(reason: Option<&str>) -> Result<Option<&str>, Problem> {
    if let Some(reason) = reason {
        check_words(reason).map_err(|words| Problem::new(Code::BadRequest, format!("reason: {words}")))?;
    }
    Ok(reason)
}
