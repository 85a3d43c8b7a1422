//! The servers of a Redis Cluster: which of them has which slots, and a link to each that has some.
//!
//! Used by `topology`. Every server has its own two connections with their own supervision, so the loss of one is felt
//! by its rooms only. One task keeps the map of slots: it asks now and then, at once when a call was sent on or a
//! subscription lost, and every second while a link is down. When slots move, so do the subscriptions to their rooms.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use ::redis::{AsyncConnectionConfig, Value, cmd};
use roomcast_protocol::RoomName;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::slots::{Address, Layout, slot};
pub(super) use self::slots::{Redirect, SLOTS, layout};
use super::commands::{Commands, Failure};
use super::connection::{Backoff, Endpoint, client, connect};
use super::subscription::{Topic, Waiter, acknowledgement};
use super::topology::{Link, Recipe};
use crate::broker::{BrokerError, Trouble};
use crate::config::RedisUrl;

mod slots;

/// How long a map is believed when nothing speaks against it. Each wait is drawn from the upper half.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// The same while a link is down.
const DOWN_INTERVAL: Duration = Duration::from_secs(1);
/// The first of these waits, after a subscription was lost, or a call failed or was sent on.
const DOUBT_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct Cluster {
    shared: Rc<Shared>,
    supervisor: JoinHandle<()>,
}

struct Shared {
    seeds: Vec<Address>,
    /// Makes the URLs of servers.
    url: RedisUrl,
    recipe: Recipe,
    map: RefCell<Map>,
    /// What is wanted in slots that nobody has.
    unplaced: RefCell<HashMap<Topic, Vec<Waiter>>>,
}

#[derive(Default)]
struct Map {
    links: Vec<(Address, Rc<Link>)>,
    /// For each slot the place of its link. Empty before the first look.
    owners: Vec<Option<u16>>,
}

impl Map {
    fn owner(&self, slot: u16) -> Option<&Rc<Link>> {
        let at = (*self.owners.get(usize::from(slot))?)?;
        self.links.get(usize::from(at)).map(|(_, link)| link)
    }

    /// Whether every slot has a server.
    fn is_complete(&self) -> bool {
        !self.owners.is_empty() && self.owners.iter().all(Option::is_some)
    }

    /// The links whose servers have slots, as far as we know.
    fn in_use(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().map(|(_, link)| &**link).filter(|link| link.nest().is_perched())
    }

    fn find(&self, address: &Address) -> Option<usize> {
        self.links.iter().position(|(known, _)| known == address)
    }
}

impl Cluster {
    pub(super) fn start(seeds: Vec<Address>, url: RedisUrl, recipe: Recipe) -> Result<Self, BrokerError> {
        // What is wrong with one is wrong with all: better said now than tried for ever.
        for (host, port) in &seeds {
            client(&url.server(host, *port), recipe.options.ca_pem.as_deref())?;
        }
        let shared = Rc::new(Shared { seeds, url, recipe, map: RefCell::default(), unplaced: RefCell::default() });
        let supervisor = tokio::task::spawn_local(supervise(Rc::clone(&shared)));
        Ok(Self { shared, supervisor })
    }

    /// Of any server. One that rooms depend on is enough.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.shared.trouble()
    }

    #[cfg(test)]
    pub(super) fn paths_up(&self) -> (bool, bool) {
        self.shared.paths_up()
    }

    /// Runs `call` on the server that has the tag's slot, wherever that turns out to be. A call that is sent on did
    /// nothing where it was, so it can be made again.
    pub(super) async fn call<T>(
        &self,
        tag: &str,
        call: impl AsyncFn(&Commands, bool) -> Result<T, Failure>,
    ) -> Result<T, BrokerError> {
        let (slot, deadline) = (slot(tag), Instant::now() + self.shared.recipe.options.timeout);
        let Some(mut link) = self.shared.owner(slot) else {
            return Err(BrokerError::Unavailable("no server has the room's slot".into()));
        };
        // The first attempt has the same bound of its own, which must not be cut short: it also finds who hangs.
        let mut result = call(&link.commands, false).await;
        loop {
            let failure = match result {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            if matches!(failure.meaning, BrokerError::Unavailable(_)) {
                self.shared.recipe.doubt.notify_one();
            }
            let Some(redirect) = failure.redirect else { return Err(failure.meaning) };
            let asking;
            match timeout_at(deadline, self.shared.follow(redirect, slot)).await {
                Ok(Some(next)) => (link, asking) = next,
                Ok(None) | Err(_) => return Err(failure.meaning),
            }
            result = match timeout_at(deadline, call(&link.commands, asking)).await {
                Ok(result) => result,
                Err(_) => return Err(BrokerError::Undecided("timed out".into())),
            };
        }
    }

    /// The places of rooms in groups of one server each.
    pub(super) fn together(&self, rooms: &[RoomName]) -> Vec<Vec<usize>> {
        let map = self.shared.map.borrow();
        let mut groups = HashMap::<_, Vec<usize>>::new();
        for (place, room) in rooms.iter().enumerate() {
            let owner = map.owners.get(usize::from(slot(room.as_str()))).copied().flatten();
            groups.entry(owner).or_default().push(place);
        }
        groups.into_values().collect()
    }

    pub(super) async fn subscribe(&self, topic: &Topic) -> Result<(), BrokerError> {
        let (waiter, acknowledged) = oneshot::channel();
        match self.shared.owner(slot(topic.tag())) {
            Some(link) => link.subscription.want(topic, vec![waiter]),
            None => self.shared.unplaced.borrow_mut().entry(topic.clone()).or_default().push(waiter),
        }
        acknowledgement(acknowledged, self.shared.recipe.options.timeout).await
    }

    pub(super) fn unsubscribe(&self, topic: &Topic) {
        self.shared.unplaced.borrow_mut().remove(topic);
        // On all of them: it may be on its way from one to another.
        for (_, link) in &self.shared.map.borrow().links {
            link.subscription.unsubscribe(topic);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Shared {
    fn owner(&self, slot: u16) -> Option<Rc<Link>> {
        self.map.borrow().owner(slot).cloned()
    }

    /// Publishing and subscription: true if they work for every room.
    fn paths_up(&self) -> (bool, bool) {
        let map = self.map.borrow();
        let all = |up: fn(&Link) -> bool| map.is_complete() && map.in_use().all(up);
        (all(|link| link.commands.is_up()), all(|link| link.subscription.is_up()))
    }

    fn trouble(&self) -> Option<Trouble> {
        let map = self.map.borrow();
        if !map.is_complete() {
            return Some(Trouble::Publishing);
        }
        map.in_use().find_map(Link::trouble)
    }

    /// Where to make a call again, as soon as there is a connection, and whether to ask for it.
    async fn follow(&self, redirect: Redirect, slot: u16) -> Option<(Rc<Link>, bool)> {
        // Servers that send each other's calls back and forth must not keep us busy.
        sleep(Duration::from_millis(10)).await;
        let (link, asking) = match redirect {
            Redirect::Ask(address) => (self.link(&address)?.1, true),
            Redirect::Moved(Some((moved, address))) if moved == slot => {
                let (at, link) = self.link(&address)?;
                if let Some(owner) = self.map.borrow_mut().owners.get_mut(usize::from(slot)) {
                    *owner = Some(at);
                }
                (link, false)
            }
            Redirect::Moved(_) | Redirect::TryAgain => (self.owner(slot)?, false),
        };
        while !link.commands.is_up() {
            sleep(Duration::from_millis(5)).await;
        }
        Some((link, asking))
    }

    /// The link to an address, started if there is none, and its place in the map.
    fn link(&self, address: &Address) -> Option<(u16, Rc<Link>)> {
        let mut map = self.map.borrow_mut();
        let at = if let Some(at) = map.find(address) {
            at
        } else {
            map.links.push((address.clone(), self.open(address)?));
            map.links.len() - 1
        };
        Some((u16::try_from(at).ok()?, Rc::clone(&map.links[at].1)))
    }

    fn open(&self, (host, port): &Address) -> Option<Rc<Link>> {
        match Endpoint::fixed(&self.url.server(host, *port), &self.recipe.options) {
            Ok(endpoint) => Some(Rc::new(Link::start(endpoint, &self.recipe))),
            Err(error) => {
                tracing::warn!(%error, "redis: a server of the cluster has an address that cannot be used");
                None
            }
        }
    }

    /// Takes over a new layout: links to new masters, none to former ones, and every wanted room where it belongs.
    fn adopt(&self, layout: &Layout) {
        let old = self.map.take();
        let mut map = Map { links: Vec::new(), owners: vec![None; usize::from(SLOTS)] };
        for (first, last, address) in layout {
            let at = map.find(address).or_else(|| {
                let link = old.find(address).map(|at| Rc::clone(&old.links[at].1)).or_else(|| self.open(address))?;
                map.links.push((address.clone(), link));
                Some(map.links.len() - 1)
            });
            map.owners[usize::from(*first)..=usize::from(*last)].fill(at.and_then(|at| u16::try_from(at).ok()));
        }
        for (at, (_, link)) in map.links.iter().enumerate() {
            let at = u16::try_from(at).ok();
            link.nest().perch(|tag| at.is_some() && map.owners[usize::from(slot(tag))] == at);
        }
        let addresses = |map: &Map| map.links.iter().map(|(address, _)| address.clone()).collect::<Vec<_>>();
        if map.owners != old.owners || addresses(&map) != addresses(&old) {
            tracing::info!(servers = map.links.len(), "redis: a new map of the cluster");
        }
        let has_gone = |(address, link): &(Address, Rc<Link>)| link.nest().is_perched() && map.find(address).is_none();
        if old.links.iter().any(has_gone) {
            // Another has all of its slots now: what that one had not heard of yet is lost.
            self.recipe.signs.upheaval();
        }
        let mut moving: Vec<_> = self.unplaced.borrow_mut().drain().collect();
        for (_, link) in &old.links {
            let stays = |topic: &Topic| map.owner(slot(topic.tag())).is_some_and(|owner| Rc::ptr_eq(owner, link));
            moving.extend(link.subscription.release(stays));
        }
        for (topic, waiters) in moving {
            match map.owner(slot(topic.tag())) {
                Some(link) => link.subscription.take_over(&topic, waiters),
                None => self.unplaced.borrow_mut().entry(topic).or_default().extend(waiters),
            }
        }
        *self.map.borrow_mut() = map;
    }

    /// Asks for the layout: those who are known to answer, then everyone we ever heard of.
    async fn look(&self) -> Result<Layout, String> {
        let known = self.map.borrow().links.clone();
        let mut question = cmd("CLUSTER");
        question.arg("SLOTS");
        for (address, link) in in_any_order(known.iter().filter(|(_, link)| link.is_up()).cloned().collect()) {
            if let Ok(answer) = link.commands.query::<Vec<Value>>(&question, 64, false).await
                && let found = layout(&answer, &address.0)
                && !found.is_empty()
            {
                return Ok(found);
            }
        }
        let mut why = "no server of the cluster answers".to_owned();
        let down = known.into_iter().filter(|(_, link)| !link.is_up()).map(|(address, _)| address);
        for address in in_any_order(self.seeds.iter().cloned().chain(down).collect()) {
            match self.ask(&address).await {
                Ok(found) if !found.is_empty() => return Ok(found),
                Ok(_) => why = format!("{}:{} knows of no slots", address.0, address.1),
                Err(error) => why = format!("{}:{}: {error}", address.0, address.1),
            }
        }
        Err(why)
    }

    async fn ask(&self, (host, port): &Address) -> Result<Layout, String> {
        let options = &self.recipe.options;
        let server = client(&self.url.server(host, *port), options.ca_pem.as_deref());
        let server = server.map_err(|error| error.to_string())?;
        let mut connection = connect(&server, &AsyncConnectionConfig::new(), options.connect_timeout).await?;
        let mut question = cmd("CLUSTER");
        question.arg("SLOTS");
        match timeout(options.connect_timeout, question.query_async::<Vec<Value>>(&mut connection)).await {
            Ok(Ok(answer)) => Ok(layout(&answer, host)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("silent".into()),
        }
    }
}

/// One after another, beginning anywhere: nodes do not all ask the same server.
fn in_any_order<T>(mut all: Vec<T>) -> Vec<T> {
    if !all.is_empty() {
        let first = rand::random_range(0..all.len());
        all.rotate_left(first);
    }
    all
}

async fn supervise(shared: Rc<Shared>) {
    let (mut backoff, mut wait) = (Backoff::new(), DOUBT_INTERVAL);
    loop {
        match shared.look().await {
            Ok(layout) => {
                backoff = Backoff::new();
                shared.adopt(&layout);
            }
            Err(error) => {
                if backoff.is_news(&error) {
                    tracing::warn!(%error, "redis: cannot read the map of the cluster");
                }
                backoff.wait().await;
                continue;
            }
        }
        // A first sign of a change comes before the servers agree on it: so ask again soon, and then less and less.
        sleep(DOUBT_INTERVAL).await;
        match timeout(rand::random_range(wait / 2..=wait), shared.recipe.doubt.notified()).await {
            Ok(()) => wait = DOUBT_INTERVAL,
            Err(_) if shared.paths_up() == (true, true) => wait = (wait * 2).min(LOOK_INTERVAL),
            Err(_) => wait = (wait * 2).min(DOWN_INTERVAL),
        }
    }
}
