//! Rates and counts of the whole cluster, as one node keeps them: what costs a call, what waits, and what holds when the
//! broker does not answer.

use async_trait::async_trait;

use super::Faulty;
use crate::broker::{BrokerError, Bucket, Claim, Incarnation, Quotas, Subject, Taken};
use crate::config::Rate;

impl Faulty {
    fn quotas(&self) -> Result<(), BrokerError> {
        self.calls.set(self.calls.get() + 1);
        if self.quotas_fail.get() { Err(BrokerError::Undecided("away".into())) } else { Ok(()) }
    }
}

#[async_trait(?Send)]
impl Quotas for Faulty {
    async fn take(&self, bucket: &Bucket, rate: Rate, wanted: u32) -> Result<Taken, BrokerError> {
        self.quotas()?;
        self.inner.take(bucket, rate, wanted).await
    }

    async fn claim(&self, incarnation: &Incarnation, claim: Claim) -> Result<u32, BrokerError> {
        self.quotas()?;
        self.inner.claim(incarnation, claim).await
    }

    async fn set_users(&self, incarnation: &Incarnation, counts: &[(Subject, u32)]) -> Result<(), BrokerError> {
        self.quotas()?;
        self.inner.set_users(incarnation, counts).await
    }
}
