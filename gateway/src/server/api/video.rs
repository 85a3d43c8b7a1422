//! Video: tokens with which a room's members enter its call on LiveKit, and what the page needs to know of it.
//!
//! A token is for one room, for one member, and for a short time. LiveKit itself is never called.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::body::Incoming;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use roomcast_protocol::{ClientId, RoomName};
use serde::{Deserialize, Serialize};

use super::body::object;
use super::problem::{Code, Problem};
use super::turns::Caller;
use super::{Api, Asked, Done, SMALL_BODY_BYTES};
use crate::access::{Denied, Grant, Right};
use crate::config::{PageModule, Settings, SocketUrl};
use crate::server::handshake::authorization;

/// How far LiveKit's clock may be behind ours.
const CLOCK_SKEW: Duration = Duration::from_secs(30);

/// LiveKit, as the settings have it.
pub struct Video {
    url: SocketUrl,
    module: Option<PageModule>,
    key: String,
    signer: EncodingKey,
    ttl: Duration,
}

/// What a token says, as LiveKit's documentation has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Claims<'a> {
    iss: &'a str,
    sub: String,
    name: &'a str,
    nbf: u64,
    exp: u64,
    video: VideoGrant<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "as LiveKit has it")]
struct VideoGrant<'a> {
    room: &'a str,
    room_join: bool,
    can_publish: bool,
    can_subscribe: bool,
    /// The room's messages go through us.
    can_publish_data: bool,
}

/// Who wants to enter.
struct Guest<'a> {
    client: ClientId,
    name: &'a str,
    may_publish: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Wanted {
    client_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenJson<'a> {
    url: &'a str,
    token: String,
    expires_at_ms: u64,
}

#[derive(Serialize)]
struct ConfigJson<'a> {
    video: Option<ConfigVideoJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigVideoJson<'a> {
    url: &'a str,
    client_url: Option<&'a str>,
}

impl Video {
    /// None if it is not configured; the settings are so as a whole or not at all.
    pub fn of(settings: &Settings) -> Option<Self> {
        let settings = &settings.http_api;
        let secret = settings.livekit_api_secret.as_ref()?;
        Some(Self {
            url: settings.livekit_url.clone()?,
            module: settings.livekit_client_url.clone(),
            key: settings.livekit_api_key.clone()?,
            signer: EncodingKey::from_secret(secret.expose().as_bytes()),
            ttl: settings.livekit_token_ttl,
        })
    }

    /// Where LiveKit is.
    pub fn url(&self) -> &SocketUrl {
        &self.url
    }

    /// Where its client is.
    pub fn module(&self) -> Option<&PageModule> {
        self.module.as_ref()
    }

    /// A token, and when it expires.
    fn token(&self, room: &RoomName, guest: &Guest<'_>, now: SystemTime) -> Result<(String, SystemTime), Problem> {
        let expires = now + self.ttl;
        let claims = Claims {
            iss: &self.key,
            sub: guest.client.to_string(),
            name: guest.name,
            nbf: seconds(now - CLOCK_SKEW),
            exp: seconds(expires),
            video: VideoGrant {
                room: room.as_str(),
                room_join: true,
                can_publish: guest.may_publish,
                can_subscribe: true,
                can_publish_data: false,
            },
        };
        let token = encode(&Header::new(Algorithm::HS256), &claims, &self.signer)
            .map_err(|_| Problem::new(Code::Internal, "the token could not be signed"))?;
        Ok((token, expires))
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Api {
    pub(super) fn client_config(&self) -> Result<Done, Problem> {
        let video = self.video.as_ref().map(|video| ConfigVideoJson {
            url: video.url.as_str(),
            client_url: video.module.as_ref().map(PageModule::as_str),
        });
        Done::ok(&ConfigJson { video })
    }

    pub(super) async fn video_token(&self, asked: &Asked<'_>, body: Incoming) -> Result<Done, Problem> {
        let unconfigured = || Problem::new(Code::NotFound, "video is not configured: see the setting livekit-url");
        let video = self.video.as_ref().ok_or_else(unconfigured)?;
        let room = asked.room()?;
        let grant = self.grant(asked)?;
        let body = self.body(asked, body, SMALL_BODY_BYTES).await?;
        let wanted: Wanted = object(&body)?;
        let client: ClientId = wanted
            .client_id
            .parse()
            .map_err(|_| Problem::new(Code::Invalid, "`clientId`: expected the UUID that welcome gave"))?;
        if !grant.may(Right::Join, &room) {
            return Err(Problem::new(Code::Forbidden, "this token does not let its holder into the room"));
        }
        self.gate.video.take(Caller::new(grant.user(), asked.client), Instant::now())?;
        let member = self.shard.member_of(&room, client).await?;
        let member =
            member.ok_or_else(|| Problem::new(Code::NotJoined, "the client is not a member of the room now"))?;
        // Whoever sees a member sees its id, too: only its user may be seen and heard under it.
        let is_own = grant.user().is_some() && member.user.as_ref() == grant.user();
        if !self.access.is_open() && !is_own {
            return Err(Problem::new(Code::Forbidden, "the client is another user's"));
        }
        let guest = Guest { client, name: &member.name, may_publish: grant.may(Right::Publish, &room) };
        let (token, expires) = video.token(&room, &guest, SystemTime::now())?;
        Done::ok(&TokenJson { url: video.url.as_str(), token, expires_at_ms: seconds(expires) * 1000 })
    }

    /// What the user may do that asks.
    fn grant(&self, asked: &Asked<'_>) -> Result<Grant, Problem> {
        if self.access.is_open() {
            return Ok(Grant::open());
        }
        let token = authorization(&asked.parts.headers).ok_or_else(|| {
            Problem::new(Code::Unauthorized, "expected one header Authorization: Bearer <the user's token>")
        })?;
        // Not counted as a wrong key: a signature is not guessed, and many users may be behind one address.
        self.access.verify(token).map_err(|denied| match denied {
            Denied::KeysUnavailable => Problem::new(Code::KeysUnavailable, denied.to_string()),
            _ => Problem::new(Code::Unauthorized, denied.to_string()),
        })
    }
}
