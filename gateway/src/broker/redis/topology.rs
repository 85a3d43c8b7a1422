//! Which servers there are. Used by the broker; must not know what is called on them.

use super::RedisOptions;
use super::connection::Endpoint;
use super::sentinel::Sentinels;
use crate::broker::BrokerError;
use crate::config::{RedisTopology, RedisUrl};

pub(super) fn endpoint(options: &RedisOptions) -> Result<Endpoint, BrokerError> {
    let url: RedisUrl = options.url.parse().map_err(|error| BrokerError::Misconfigured(format!("redis: {error}")))?;
    match url.topology() {
        RedisTopology::Standalone => Endpoint::fixed(url.as_str(), options),
        RedisTopology::Sentinel { sentinels, master } => {
            Ok(Endpoint::watched(Sentinels::new(sentinels, master, &url, options)?, options))
        }
        RedisTopology::Cluster { .. } => Err(BrokerError::Misconfigured("redis: no cluster yet".into())),
    }
}
