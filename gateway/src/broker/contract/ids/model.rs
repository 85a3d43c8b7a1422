//! Random publishes, retries, holes and rollbacks, held against a model that forgets nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use roomcast_protocol::Term;

use super::*;

on_both!(numbers_agree_with_a_model);

/// Everything that was ever stored of one producer.
#[derive(Clone, Default)]
struct Everything {
    places: HashMap<u64, (Term, u64)>,
    order: Vec<u64>,
    numbers: BTreeSet<u64>,
    /// Below it, a broker may have lost count.
    floor: u64,
    /// The next number of one who counts.
    next: u64,
}

impl Everything {
    fn store(&mut self, number: u64, term: &Term, seq: u64) {
        self.places.insert(number, (term.clone(), seq));
        self.order.push(number);
        self.numbers.insert(number);
        let (mut ranges, mut before) = (0, None);
        for &number in self.numbers.iter().rev() {
            if before != Some(number + 1) {
                ranges += 1;
            }
            if ranges > RANGES {
                self.floor = self.floor.max(number + 1);
                return;
            }
            before = Some(number);
        }
    }

    fn is_recent(&self, number: u64) -> bool {
        self.order.iter().rev().take(RESULTS).any(|&recent| recent == number)
    }

    /// Whether an answer is right. `next_seq` is that of the next message.
    fn allows(&self, number: u64, answer: &Outcome, next_seq: u64) -> bool {
        let lost_count = number < self.floor;
        match (answer, self.places.get(&number)) {
            (Outcome::Stored { seq }, None) => *seq == next_seq,
            (Outcome::Duplicate { term, seq }, Some(place)) => (term, seq) == (&place.0, &place.1),
            (Outcome::Known, Some(_)) => !self.is_recent(number),
            (Outcome::Stale, Some(_)) => lost_count && !self.is_recent(number),
            (Outcome::Stale, None) => lost_count,
            _ => false,
        }
    }
}

#[derive(Clone, Default)]
struct World {
    producers: BTreeMap<(usize, usize), Everything>,
    ids: HashMap<(usize, u64), (Term, u64)>,
    top: u64,
}

fn user(at: usize) -> Subject {
    if at == 0 { Subject::NOBODY } else { Subject::of("ann") }
}

/// What a client does with its numbers.
fn choose(random: &mut StdRng, everything: &mut Everything, style: usize) -> u64 {
    let next = everything.next;
    let number = match (style, random.random_range(0..20)) {
        // A retry of one of the last, or of any.
        (_, 0..3) => next.saturating_sub(random.random_range(0..40)),
        (_, 3) => random.random_range(0..=next),
        // A hole, for good or for a while; many of them in the wild style.
        (1, 4..12) => next + random.random_range(1..4),
        (_, 4) => next + random.random_range(1..3),
        (2, 5) => random.random_range(0..1 << 53),
        _ => next,
    };
    if number >= next && number < (1 << 52) {
        everything.next = number + 1;
    }
    number
}

/// `IDS_SEED` has it try another world.
async fn numbers_agree_with_a_model(pair: Pair) {
    let seed = std::env::var("IDS_SEED").map_or(7, |seed| seed.parse().expect("IDS_SEED is a number"));
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let lobby = room("lobby");
    let mut world = World::default();
    let mut saved = None;
    for _ in 0..400 {
        match random.random_range(0..40) {
            0 => saved = Some((pair.save(&lobby).await, world.clone())),
            1 => {
                if let Some((saved, then)) = &saved {
                    pair.restore(saved);
                    // Clients go on counting where they were: their numbers are holes now, and new.
                    for (key, mut before) in then.clone().producers {
                        before.next = world.producers[&key].next;
                        world.producers.insert(key, before);
                    }
                    world.producers.retain(|key, _| then.producers.contains_key(key));
                    (world.ids, world.top) = (then.ids.clone(), then.top);
                }
            }
            _ => one_call(&pair, &mut world, &mut random).await,
        }
    }
    let history = pair.a.history(&lobby, Range::Latest { limit: 1 }).await.expect("history");
    assert_eq!(history.top, world.top);
    let counts: Vec<usize> = world.producers.values().map(|everything| everything.order.len()).collect();
    println!("stored {counts:?}");
}

async fn one_call(pair: &Pair, world: &mut World, random: &mut StdRng) {
    let mut records = Vec::new();
    let mut meant = Vec::new();
    for _ in 0..random.random_range(1..90) {
        let who = (random.random_range(0..2), random.random_range(0..3));
        if random.random_bool(0.1) {
            let id = random.random_range(0..500);
            records.push(Record { subject: user(who.0), ..idempotent(&format!("id-{id}"), "x") });
            meant.push((who, None, id));
        } else {
            let number = choose(random, world.producers.entry(who).or_default(), who.1);
            records.push(Record { subject: user(who.0), ..numbered(&format!("p{}", who.1), number) });
            meant.push((who, Some(number), 0));
        }
    }
    let broker = if random.random_bool(0.5) { &pair.a } else { &pair.b };
    let published = publish(&**broker, &records).await;
    assert_eq!(published.outcomes.len(), records.len());
    for ((who, number, id), answer) in meant.into_iter().zip(&published.outcomes) {
        let right = match number {
            Some(number) => world.producers[&who].allows(number, answer, world.top + 1),
            None => match (answer, world.ids.get(&(who.0, id))) {
                (Outcome::Stored { seq }, None) => *seq == world.top + 1,
                (Outcome::Duplicate { term, seq }, Some(place)) => (term, seq) == (&place.0, &place.1),
                _ => false,
            },
        };
        assert!(right, "{who:?} {number:?} {id}: {answer:?}, {} stored", world.top);
        let Outcome::Stored { seq } = answer else { continue };
        world.top = *seq;
        match number {
            Some(number) => world.producers.get_mut(&who).expect("there").store(number, &published.term, *seq),
            None => drop(world.ids.insert((who.0, id), (published.term.clone(), *seq))),
        }
    }
}
