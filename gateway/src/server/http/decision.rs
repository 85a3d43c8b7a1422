//! A handshake that waits for the word of the operator's service. Called by the parent, only where one is asked.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;

use crate::server::authorize::{Authorizer, Question, Verdict};
use crate::server::handshake::{Granted, check_rooms};
use crate::server::outcome::{HandshakeOutcome as Outcome, Refusal};

/// What a handshake is answered.
pub(super) type Answer = Result<Response<Full<Bytes>>, Refusal>;

/// How an answer comes.
pub(super) enum Step {
    /// It is there.
    Answer(Response<Full<Bytes>>),
    /// The operator's service has to be asked.
    Ask(Pin<Box<dyn Future<Output = Answer>>>),
}

/// Has the operator's service decide. The client's place among the connections is held meanwhile.
pub(super) async fn decide(
    authorizer: &Arc<Authorizer>,
    question: Question,
    granted: Granted,
) -> Result<Granted, Refusal> {
    let (verdict, asked) = authorizer.ask(question).await;
    let decision = match verdict {
        Verdict::Allowed(decision) => decision,
        Verdict::Denied(reason) => return Err(Refusal::new(Outcome::NotAuthorized, reason.to_string())),
        Verdict::Failed => {
            return Err(Refusal::new(Outcome::AuthorizeFailed, "nobody can say now whether you may: come back later"));
        }
        Verdict::Busy => {
            return Err(Refusal::new(Outcome::AuthorizeBusy, "too many ask to come in now: come back later"));
        }
    };
    let grant = granted.grant.decided(&decision);
    check_rooms(&grant, &granted.route)?;
    Ok(Granted { grant, asked: asked.min(granted.asked), ..granted })
}
