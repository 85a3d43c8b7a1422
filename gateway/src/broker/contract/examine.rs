//! What `gateway check` finds: nothing wrong where nothing is, in each topology and on both brokers.

use super::*;
use crate::broker::examine::{Finding, Standing, exercise};
use crate::broker::redis::examine;

async fn is_fine(options: &RedisOptions, fine: usize) {
    let found = examine(options).await.expect("good options");
    let wrong: Vec<&Finding> = found.iter().filter(|finding| finding.standing == Standing::Problem).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(found.iter().filter(|finding| finding.standing == Standing::Fine).count(), fine, "{found:?}");
    let (broker, mut events) = connect(options, 64).await;
    let outcome = exercise(&broker, &mut events.channel, &node("check-1"), DEADLINE).await;
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[tokio::test(flavor = "local")]
async fn one_server() {
    let server = Server::start(&[]);
    is_fine(&server.options("node-a"), 1).await;
}

#[tokio::test(flavor = "local")]
async fn sentinels_and_their_master() {
    let group = Watched::shared();
    is_fine(&group.options("node-a"), 1 + group.sentinels.len()).await;
}

#[tokio::test(flavor = "local")]
async fn all_masters_of_a_cluster() {
    let group = Sharded::shared();
    let options = group.options("node-a");
    let found = examine(&options).await.expect("good options");
    let servers = found.iter().filter(|finding| finding.subject.starts_with("redis ")).count();
    assert!(servers >= 3, "{found:?}");
    is_fine(&options, 1 + 3).await;
}

#[tokio::test(flavor = "local")]
async fn a_minority_of_sentinels_may_be_away_and_a_majority_may_not() {
    let mut group = Watched::start_ready();
    let options = group.options("node-a");
    let worst = async || examine(&options).await.expect("good options").iter().map(|found| found.standing).max();
    group.sentinels[0].kill();
    assert_eq!(worst().await, Some(Standing::Warning));
    group.sentinels[1].kill();
    assert_eq!(worst().await, Some(Standing::Problem));
}
