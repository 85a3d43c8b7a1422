//! Makes what calls the operator's services: webhooks, and who decides about connections. Called by the parent, once.
//!
//! All of it runs on main's runtime, not on the workers': their threads are for clients.

use crate::config::Settings;
use crate::events::{Events, WebhookOptions, Webhooks};
use crate::outbound::Outbound;
use crate::server::{AuthorizeOptions, Authorizer, HandshakeRules};
use crate::telemetry::metrics::Metrics;

/// Starts what the settings ask for, and has handshakes ask whom they are to ask.
pub(super) fn start(
    settings: &Settings,
    metrics: &Metrics,
    rules: HandshakeRules,
    outbound: Outbound,
) -> (HandshakeRules, (Events, Webhooks)) {
    let outward = &settings.outward;
    let options = WebhookOptions {
        node: settings.node_id.clone(),
        timeout: outward.webhook_timeout,
        queue: outward.webhook_queue,
        batch: outward.webhook_batch,
        linger: outward.webhook_linger,
        give_up: outward.webhook_give_up,
    };
    let told = Webhooks::start(&outward.webhooks, &options, &outbound, metrics);
    let authorizer = match (&outward.authorize_url, &outward.authorize_secret) {
        (Some(url), Some(secret)) => {
            let options = AuthorizeOptions {
                node: settings.node_id.clone(),
                url: url.as_str().to_owned(),
                secret: secret.expose().to_owned(),
                timeout: outward.authorize_timeout,
                cache: outward.authorize_cache,
            };
            Some(Authorizer::new(options, outbound, metrics.webhooks.authorize.clone()))
        }
        _ => None,
    };
    (HandshakeRules { authorizer, ..rules }, told)
}
