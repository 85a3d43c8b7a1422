//! One thread of the load: its clients, their pacer, storms and churn.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime::LocalRuntime;
use tokio::sync::mpsc::UnboundedSender;

use super::control::{Control, Phase};
use super::pacer::Pacer;
use crate::audit::Audit;
use crate::client::{self, Client, EndsRun, Floor, Gauges, Notes};
use crate::clock::Clock;
use crate::plan::{Churn, Plan, Storm};
use crate::record::Interval;
use crate::wire::Connector;

/// How often a settling thread looks whether anything is still owed to its clients.
const LOOK: Duration = Duration::from_millis(50);
/// Clients that are looked at before others get their turn.
const LOOKED_AT_ONCE: usize = 256;
/// How long goodbyes may take to leave.
const GOODBYE: Duration = Duration::from_millis(100);

/// What a thread did in the second that began at `at_s`. One message a second and thread: the channel needs no bound.
pub(super) struct Tick {
    pub(super) at_s: u64,
    pub(super) interval: Interval,
    pub(super) notes: Notes,
}

/// What a thread begins with.
pub(super) struct Seed {
    pub(super) index: usize,
    pub(super) plan: Arc<Plan>,
    pub(super) audit: Arc<Audit>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) clock: Clock,
    pub(super) connector: Connector,
    pub(super) control: Control,
    pub(super) ticks: UnboundedSender<Tick>,
    /// Room and member of each client, in the order of connecting.
    pub(super) members: Vec<(u32, u32)>,
}

/// Which thread of a process a member sits on. A room's members sit together if there are rooms enough, since a message
/// is parsed once per thread.
pub(super) fn thread_of(plan: &Plan, room: u32, member: u32) -> usize {
    if plan.rooms as usize >= 2 * plan.workers { room as usize % plan.workers } else { member as usize % plan.workers }
}

/// Runs until the run is finished.
pub(super) fn run(seed: Seed) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    let result = runtime.block_on(work(&runtime, seed));
    // Ends every client that still waits for something.
    drop(runtime);
    result
}

async fn work(runtime: &LocalRuntime, seed: Seed) -> Result<()> {
    let Seed { index, plan, audit, gauges, clock, connector, control, ticks, members } = seed;
    let floor = Rc::new(Floor::new(Arc::clone(&plan), audit, Arc::clone(&gauges), clock, connector));
    let clients = members.iter().enumerate().map(|(slot, (room, member))| Client::new(&floor, slot, *room, *member));
    let clients: Rc<[Rc<Client>]> = clients.collect::<Option<Vec<_>>>().context("a room name is not valid")?.into();
    runtime.spawn_local(report_each_second(Rc::clone(&floor), ticks.clone()));
    runtime.spawn_local(guarded(&gauges, watch(Rc::clone(&floor), Rc::clone(&clients))));
    let pacer = runtime.spawn_local(Pacer::new(Rc::clone(&floor), Rc::clone(&clients), control.clone()).run());
    runtime.spawn_local(guarded(&gauges, connect(Rc::clone(&floor), Rc::clone(&clients), control.clone())));
    if let Some(storm) = plan.storm {
        runtime.spawn_local(guarded(&gauges, storms(Rc::clone(&floor), Rc::clone(&clients), control.clone(), storm)));
    }
    if let Some(churn) = plan.churn {
        runtime.spawn_local(guarded(&gauges, churning(Rc::clone(&floor), Rc::clone(&clients), control.clone(), churn)));
    }
    tokio::select! {
        () = control.reached(Phase::Settling) => {}
        failed = pacer => return Ok(failed??),
    }
    // Who is away on purpose is needed back: what it lacks is only known once it has joined again.
    clients.iter().for_each(|client| client.come_back());
    while !control.has_reached(Phase::Finished) {
        control.set_settled(index, clients.iter().all(|client| client.is_settled()));
        tokio::select! {
            () = control.reached(Phase::Finished) => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    for client in clients.iter() {
        client.conclude();
    }
    tokio::time::sleep(GOODBYE).await;
    send_tick(&floor, &ticks, clock.now_ns() / 1_000_000_000);
    Ok(())
}

fn guarded<T: Future<Output = ()>>(gauges: &Arc<Gauges>, task: T) -> impl Future<Output = ()> + use<T> {
    let gauges = Arc::clone(gauges);
    async move {
        let _guard = EndsRun(&gauges);
        task.await;
    }
}

fn send_tick(floor: &Floor, ticks: &UnboundedSender<Tick>, at_s: u64) {
    // The main thread ends last.
    let _ = ticks.send(Tick { at_s, interval: floor.recorder.drain(), notes: floor.notes.take() });
}

async fn report_each_second(floor: Rc<Floor>, ticks: UnboundedSender<Tick>) {
    loop {
        let second = floor.clock.now_ns() / 1_000_000_000;
        tokio::time::sleep_until(floor.clock.instant((second + 1) * 1_000_000_000).into()).await;
        send_tick(&floor, &ticks, second);
    }
}

/// Looks at every client, again and again; a few at a time, so that nothing else is late.
async fn watch(floor: Rc<Floor>, clients: Rc<[Rc<Client>]>) {
    loop {
        tokio::time::sleep(client::LOOK).await;
        floor.look();
        for some in clients.chunks(LOOKED_AT_ONCE) {
            for client in some {
                client.watch();
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Starts each client when it is due, by its place among all clients of the run.
async fn connect(floor: Rc<Floor>, clients: Rc<[Rc<Client>]>, control: Control) {
    control.reached(Phase::Connecting).await;
    for client in clients.iter() {
        let after = f64::from(client.index) / floor.plan.connect_rate;
        let due = control.connect_ns() + (after * 1e9) as u64;
        if due > floor.clock.now_ns() {
            tokio::time::sleep_until(floor.clock.instant(due).into()).await;
        }
        tokio::task::spawn_local(Rc::clone(client).live(due));
    }
}

/// Breaks off a share of the connections, another one each time.
async fn storms(floor: Rc<Floor>, clients: Rc<[Rc<Client>]>, control: Control, storm: Storm) {
    control.reached(Phase::Load).await;
    let Some(start) = control.load_start_ns() else { return };
    for (wave, at) in storm.waves(floor.plan.duration).enumerate() {
        tokio::time::sleep_until(floor.clock.instant(start + at.as_nanos() as u64).into()).await;
        if control.has_reached(Phase::Settling) {
            return;
        }
        for client in clients.iter().filter(|client| storm.hits(client.index, wave as u32)) {
            client.break_off();
        }
    }
}

/// Has members leave, at this thread's share of the rate, and come back.
async fn churning(floor: Rc<Floor>, clients: Rc<[Rc<Client>]>, control: Control, churn: Churn) {
    control.reached(Phase::Load).await;
    let Some(start) = control.load_start_ns() else { return };
    let own: Vec<usize> = (0..clients.len()).filter(|slot| !clients[*slot].publishes()).collect();
    let rate = churn.rate * clients.len() as f64 / f64::from(floor.plan.clients());
    if own.is_empty() || rate <= 0.0 {
        return;
    }
    for turn in 0u64.. {
        let due = start + (turn as f64 / rate * 1e9) as u64;
        if due >= control.load_end_ns() {
            return;
        }
        tokio::time::sleep_until(floor.clock.instant(due).into()).await;
        let client = Rc::clone(&clients[own[turn as usize % own.len()]]);
        if control.has_reached(Phase::Settling) || !client.leave() {
            continue;
        }
        tokio::task::spawn_local(async move {
            tokio::time::sleep(churn.away).await;
            client.come_back();
        });
    }
}
