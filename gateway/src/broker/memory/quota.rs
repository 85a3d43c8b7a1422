//! What a room or a user may take, on the memory broker. Part of it.

use std::sync::PoisonError;
use std::time::Instant;

use async_trait::async_trait;

use super::{MemoryBroker, now_us};
use crate::broker::quota::{Bucket, Claim, Quotas, Taken};
use crate::broker::stats::Command;
use crate::broker::{BrokerError, Incarnation, MAX_PAGE, Subject};
use crate::config::Rate;

#[async_trait(?Send)]
impl Quotas for MemoryBroker {
    async fn take(&self, bucket: &Bucket, rate: Rate, wanted: u32) -> Result<Taken, BrokerError> {
        self.counted(Command::Take, || {
            let mut meters = self.store.meters.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(meters.take(bucket, rate, wanted, now_us()))
        })
    }

    async fn claim(&self, incarnation: &Incarnation, claim: Claim) -> Result<u32, BrokerError> {
        self.counted(Command::Claim, || {
            let granted = self.store.leases().claim(incarnation, claim, Instant::now());
            granted.ok_or_else(|| BrokerError::Unavailable("no lease".into()))
        })
    }

    async fn set_users(&self, incarnation: &Incarnation, counts: &[(Subject, u32)]) -> Result<(), BrokerError> {
        self.counted(Command::SetUsers, || {
            if counts.len() > MAX_PAGE {
                return Err(BrokerError::Rejected("at most 512 users in one call".into()));
            }
            self.store.leases().set_users(incarnation, counts);
            Ok(())
        })
    }
}
