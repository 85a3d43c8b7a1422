//! Rooms that are given up and wanted back at any moment: who is told that a subscription stands, hears the room.

use futures_util::future::join_all;

use super::*;

everywhere!(a_room_that_is_wanted_back_is_heard);

async fn a_room_that_is_wanted_back_is_heard(mut pair: Pair) {
    let back = room("back");
    pair.b.subscribe(&back).await.expect("subscribed");
    for turns in 0..40 {
        // So many that some are on the same server as the one that is given up.
        let others: Vec<RoomName> = (0..8).map(|number| room(&format!("other-{turns}-{number}"))).collect();
        pair.b.unsubscribe(&back);
        let wanted = join_all(others.iter().map(|room| pair.b.subscribe(room)));
        let wanted_back = async {
            // Anywhere between the look at what is wanted and the last answer of the server.
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            pair.b.subscribe(&back).await
        };
        let (others, back_again) = tokio::join!(wanted, wanted_back);
        others.into_iter().chain([back_again]).for_each(|subscribed| subscribed.expect("subscribed"));
        // What was under way is done once these are there.
        for number in 0..8 {
            pair.b.subscribe(&room(&format!("behind-{turns}-{number}"))).await.expect("subscribed");
        }
        pair.a.broadcast(&back, &plains(turns..turns + 1)).await.expect("sent");
        let heard = timeout(DEADLINE, pair.from_b.messages()).await;
        let heard = heard.unwrap_or_else(|_| panic!("deaf after {turns} turns"));
        assert_eq!((&heard.room, &*heard.records[0].data), (&back, format!("\"{turns}\"").as_bytes()));
    }
}
