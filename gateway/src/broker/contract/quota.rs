//! Limits of the whole cluster: rates by the broker's clock, and connections counted over all that live.

use std::time::Instant;

use super::*;
use crate::broker::{Beat, BrokerError, Bucket, Claim, Farewell, Pulse, Quotas, Taken};
use crate::config::Rate;

everywhere!(
    a_burst_then_the_rate_over_both_nodes,
    buckets_do_not_know_each_other,
    a_rate_that_changes_holds_at_once,
    users_are_counted_over_all_that_live,
    two_nodes_at_once_never_take_more_than_there_are,
    counts_go_with_the_lease,
    users_are_set_whatever_they_were,
);

/// No test lasts that long.
const LONG: Duration = Duration::from_mins(10);
/// What runs out while a test waits for it.
const SHORT: Duration = Duration::from_secs(3);

fn ann() -> Subject {
    Subject::of("ann")
}

/// What may be had between two looks at a clock is bounded by that clock, however slow the machine is.
async fn a_burst_then_the_rate_over_both_nodes(pair: Pair) {
    for bucket in [Bucket::User(ann()), Bucket::Room(room("lobby"))] {
        let rate = Rate { per_second: 200, burst: 50 };
        let before = Instant::now();
        let first = pair.a.take(&bucket, rate, 50).await.expect("taken");
        assert_eq!(first, Taken { granted: 50, retry_after: Duration::ZERO });
        let (mut granted, mut refused) = (0, 0);
        let another_hundred = async {
            while granted < 100 || refused == 0 {
                for broker in [&pair.a, &pair.b] {
                    let taken = broker.take(&bucket, rate, 50).await.expect("taken");
                    granted += taken.granted;
                    refused += u32::from(taken.granted < 50);
                    assert!(taken.retry_after <= Duration::from_millis(6), "{taken:?}");
                    assert_eq!(taken.granted == 50, taken.retry_after.is_zero());
                }
            }
        };
        timeout(DEADLINE, another_hundred).await.expect("half a second's worth");
        let most = before.elapsed().as_secs_f64() * 200.0 + 1.0;
        assert!(f64::from(granted) <= most, "{granted}, expected {most} at most");
    }
}

async fn buckets_do_not_know_each_other(pair: Pair) {
    let rate = Rate { per_second: 1, burst: 2 };
    // A user that is called as a room is another bucket.
    for bucket in [Bucket::User(Subject::of("lobby")), Bucket::Room(room("lobby")), Bucket::User(ann())] {
        let before = Instant::now();
        assert_eq!(pair.a.take(&bucket, rate, 9).await.expect("taken").granted, 2);
        let taken = pair.b.take(&bucket, rate, 9).await.expect("taken");
        assert!(f64::from(taken.granted) <= before.elapsed().as_secs_f64(), "nothing but what was gained");
        assert!(taken.retry_after > Duration::ZERO && taken.retry_after <= Duration::from_secs(1));
    }
}

async fn a_rate_that_changes_holds_at_once(pair: Pair) {
    let bucket = Bucket::Room(room("lobby"));
    let taken = async |per_second, burst, wanted| {
        pair.a.take(&bucket, Rate { per_second, burst }, wanted).await.expect("taken").granted
    };
    let before = Instant::now();
    assert_eq!(taken(1, 1000, 1000).await, 1000);
    assert!(f64::from(taken(1, 10, 10).await) <= before.elapsed().as_secs_f64(), "nothing but what was gained");
    // Of the debt under a larger burst no more is kept than the smaller one allows: it would take minutes to pay.
    let mut granted = 0;
    let refilled = async {
        while granted < 100 {
            granted += taken(1000, 10, 10).await;
        }
    };
    timeout(DEADLINE, refilled).await.expect("a tenth of a second");
}

/// A node that lives.
struct Alive {
    incarnation: Incarnation,
    beats: u64,
    node: NodeId,
    expiry: Duration,
}

impl Alive {
    async fn new(broker: &dyn Broker, name: &str, expiry: Duration) -> Self {
        let mut alive = Self { incarnation: Incarnation::new(&node(name)), beats: 0, node: node(name), expiry };
        alive.beat(broker).await;
        alive
    }

    async fn beat(&mut self, broker: &dyn Broker) -> Pulse {
        let answered = self.beats;
        self.beats += 1;
        let beat = Beat {
            incarnation: &self.incarnation,
            expiry: self.expiry,
            number: self.beats,
            answered,
            note: note(&self.node),
            working_on: &[],
            most_claims: 4,
        };
        broker.beat(&beat).await.expect("a beat")
    }

    async fn claim(&self, broker: &dyn Broker, own: u32, wanted: u32) -> u32 {
        broker.claim(&self.incarnation, Claim { user: ann(), own, wanted, most: 5 }).await.expect("counted")
    }
}

async fn users_are_counted_over_all_that_live(pair: Pair) {
    let (one, two) = (Alive::new(&*pair.a, "node-a", LONG).await, Alive::new(&*pair.b, "node-b", LONG).await);
    assert_eq!(one.claim(&*pair.a, 0, 2).await, 2);
    assert_eq!(two.claim(&*pair.b, 0, 9).await, 3);
    assert_eq!((one.claim(&*pair.a, 2, 1).await, two.claim(&*pair.b, 3, 1).await), (0, 0));
    pair.a.set_users(&one.incarnation, &[(ann(), 1)]).await.expect("set");
    assert_eq!((two.claim(&*pair.b, 3, 2).await, one.claim(&*pair.a, 1, 1).await), (1, 0));
    // Others are not concerned, and neither is who has no name.
    let bob = Claim { user: Subject::of("bob"), own: 0, wanted: 9, most: 5 };
    assert_eq!(pair.a.claim(&one.incarnation, bob).await, Ok(5));
    // More than there may be, since the limit was lower than it was: nobody is sent away.
    assert_eq!(one.claim(&*pair.a, 7, 1).await, 0);
}

async fn two_nodes_at_once_never_take_more_than_there_are(pair: Pair) {
    let (one, two) = (Alive::new(&*pair.a, "node-a", LONG).await, Alive::new(&*pair.b, "node-b", LONG).await);
    for round in 0..50 {
        let user = Subject::of(&format!("user-{round}"));
        let claim = Claim { user, own: 0, wanted: 3, most: 5 };
        let (a, b) = tokio::join!(pair.a.claim(&one.incarnation, claim), pair.b.claim(&two.incarnation, claim));
        assert_eq!(a.expect("counted") + b.expect("counted"), 5);
    }
}

async fn counts_go_with_the_lease(pair: Pair) {
    let (mut one, dead) = (Alive::new(&*pair.a, "node-a", LONG).await, Alive::new(&*pair.b, "node-b", SHORT).await);
    assert_eq!(dead.claim(&*pair.b, 0, 5).await, 5);
    assert_eq!(one.claim(&*pair.a, 0, 1).await, 0);
    let back = async {
        while one.claim(&*pair.a, 0, 1).await == 0 {
            one.beat(&*pair.a).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, back).await.expect("what a dead node had");
    let gone = Claim { user: ann(), own: 0, wanted: 1, most: 5 };
    let error = pair.b.claim(&dead.incarnation, gone).await;
    assert!(matches!(error, Err(BrokerError::Unavailable(_))), "who has no lease counts nobody: {error:?}");
    // While it is taken over, and after.
    assert_eq!(one.claim(&*pair.a, 1, 9).await, 4);
    pair.a.bury(&dead.incarnation, Farewell::Clean).await.expect("buried");
    pair.a.set_users(&one.incarnation, &[(ann(), 0)]).await.expect("set");
    assert_eq!(one.claim(&*pair.a, 0, 9).await, 5);
    // One that goes takes its own along.
    let two = Alive::new(&*pair.b, "node-b", LONG).await;
    pair.a.bury(&one.incarnation, Farewell::InHaste).await.expect("buried");
    assert_eq!(two.claim(&*pair.b, 0, 9).await, 5);
}

async fn users_are_set_whatever_they_were(pair: Pair) {
    let (one, two) = (Alive::new(&*pair.a, "node-a", LONG).await, Alive::new(&*pair.b, "node-b", LONG).await);
    let counts: Vec<(Subject, u32)> =
        (0..600).map(|number: u32| (Subject::of(&number.to_string()), number % 3)).collect();
    let error = pair.a.set_users(&one.incarnation, &counts).await;
    assert!(matches!(error, Err(BrokerError::Rejected(_))), "{error:?}");
    pair.a.set_users(&one.incarnation, &[]).await.expect("nothing to do");
    for page in counts.chunks(500) {
        pair.a.set_users(&one.incarnation, page).await.expect("set");
    }
    for (user, count) in [counts[0], counts[1], counts[2], counts[599]] {
        let claim = Claim { user, own: 0, wanted: 9, most: 5 };
        assert_eq!(pair.b.claim(&two.incarnation, claim).await, Ok(5 - count));
    }
}

#[tokio::test(flavor = "local")]
async fn nothing_is_left_in_redis() {
    let server = Server::start(&[]);
    let (broker, _events) = connect(&server.options("node-a"), 16).await;
    let one = Alive::new(&broker, "node-a", LONG).await;
    assert_eq!(one.claim(&broker, 0, 2).await, 2);
    let users = format!("rc:{{!}}:users:{}", one.incarnation);
    assert_eq!(server.command::<String>(&["HGET", &users, &ann().tag()]), "2");
    pair_of_takes(&broker).await;
    let tags = [format!("rc:{{u:{}}}:r", ann().tag()), "rc:{lobby}:r".to_owned()];
    for key in &tags {
        let left: i64 = server.command(&["PTTL", key]);
        assert!((1..=3002).contains(&left), "{key} is to go when its debt is paid: {left}");
    }
    broker.bury(&one.incarnation, Farewell::Clean).await.expect("buried");
    // What others wrote there is no debt, and does no harm.
    for nonsense in ["", "x", "1 2", "nan 1", "-1.0 5", "9.9", "1.0 2 3"] {
        let _: String = server.command(&["SET", &tags[1], nonsense]);
        let rate = Rate { per_second: 1000, burst: 3 };
        let taken = broker.take(&Bucket::Room(room("lobby")), rate, 9).await.expect("taken");
        assert_eq!(taken.granted, 3, "{nonsense:?}");
    }
    let gone = async {
        while !server.command::<Vec<String>>(&["KEYS", "*"]).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, gone).await.expect("an empty store");
}

async fn pair_of_takes(broker: &dyn Broker) {
    for bucket in [Bucket::User(ann()), Bucket::Room(room("lobby"))] {
        broker.take(&bucket, Rate { per_second: 2, burst: 9 }, 6).await.expect("taken");
    }
}
