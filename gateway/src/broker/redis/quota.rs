//! Calls about what a room or a user may take of the cluster. Used by the broker.

use std::time::Duration;

use ::redis::{Cmd, cmd, pipe};
use async_trait::async_trait;

use super::RedisBroker;
use super::script::foreign;
use super::topology::WHOLE;
use crate::broker::quota::{Bucket, Claim, Quotas, Taken};
use crate::broker::stats::Command;
use crate::broker::{BrokerError, Incarnation, MAX_PAGE, Subject};
use crate::config::Rate;

#[async_trait(?Send)]
impl Quotas for RedisBroker {
    async fn take(&self, bucket: &Bucket, rate: Rate, wanted: u32) -> Result<Taken, BrokerError> {
        self.counted(Command::Take, take(self, bucket, rate, wanted)).await
    }

    async fn claim(&self, incarnation: &Incarnation, wish: Claim) -> Result<u32, BrokerError> {
        self.counted(Command::Claim, claim(self, incarnation, wish)).await
    }

    async fn set_users(&self, incarnation: &Incarnation, counts: &[(Subject, u32)]) -> Result<(), BrokerError> {
        self.counted(Command::SetUsers, set_users(self, incarnation, counts)).await
    }
}

/// The hash tag of a bucket: the room's own, or the user's. No room's name has a colon.
fn tag_of(bucket: &Bucket) -> String {
    match bucket {
        Bucket::Room(room) => room.as_str().to_owned(),
        Bucket::User(user) => format!("u:{}", user.tag()),
    }
}

async fn take(broker: &RedisBroker, bucket: &Bucket, rate: Rate, wanted: u32) -> Result<Taken, BrokerError> {
    let tag = tag_of(bucket);
    let key = broker.keys.tagged(&tag, ":r");
    let fill = |command: &mut Cmd| {
        command.arg(1).arg(&key).arg(rate.per_second.max(1)).arg(rate.burst.max(1)).arg(wanted);
    };
    let (granted, wait_us): (u64, u64) = broker.topology.script(&tag, &broker.scripts.take, 128, fill).await?;
    let granted = u32::try_from(granted).ok().filter(|granted| *granted <= wanted).ok_or_else(|| foreign("take"))?;
    Ok(Taken { granted, retry_after: Duration::from_micros(wait_us) })
}

fn users_key(broker: &RedisBroker, incarnation: &str) -> String {
    broker.keys.shared(&format!("users:{incarnation}"))
}

async fn claim(broker: &RedisBroker, incarnation: &Incarnation, claim: Claim) -> Result<u32, BrokerError> {
    let fill = |command: &mut Cmd| {
        command.arg(2).arg(broker.keys.shared("leases")).arg(broker.keys.shared("nodes"));
        command.arg(users_key(broker, "")).arg(incarnation.as_str()).arg(claim.user.tag());
        command.arg(claim.own).arg(claim.wanted).arg(claim.most);
    };
    let granted: i64 = broker.topology.script(WHOLE, &broker.scripts.claim, 256, fill).await?;
    match u32::try_from(granted) {
        Ok(granted) if granted <= claim.wanted => Ok(granted),
        _ if granted == -1 => Err(BrokerError::Unavailable("no lease".into())),
        _ => Err(foreign("claim")),
    }
}

async fn set_users(
    broker: &RedisBroker,
    incarnation: &Incarnation,
    counts: &[(Subject, u32)],
) -> Result<(), BrokerError> {
    if counts.len() > MAX_PAGE {
        return Err(BrokerError::Rejected("at most 512 users in one call".into()));
    }
    if counts.is_empty() {
        return Ok(());
    }
    let key = users_key(broker, incarnation.as_str());
    let (there, gone): (Vec<_>, Vec<_>) = counts.iter().partition(|(_, count)| *count > 0);
    let mut both = pipe();
    if !there.is_empty() {
        let set = both.cmd("HSET").arg(&key);
        for (user, count) in there {
            set.arg(user.tag()).arg(count);
        }
    }
    if !gone.is_empty() {
        let forget = both.cmd("HDEL").arg(&key);
        for (user, _) in gone {
            forget.arg(user.tag());
        }
    }
    broker.topology.query_all::<Vec<i64>>(WHOLE, both).await.map(|_| ())
}

/// What is left to do when an incarnation is buried.
pub(super) fn forget_users(broker: &RedisBroker, incarnation: &Incarnation) -> Cmd {
    // Freed beside the thread that others wait for: it may have as many fields as the node had clients.
    let mut command = cmd("UNLINK");
    command.arg(users_key(broker, incarnation.as_str()));
    command
}
