//! Carries a plan out: threads, phases, and what they tell, gathered into a report.
//!
//! Called by app, on a thread of its own runtime; the load is made by the workers, so that gathering and showing does
//! not delay it.

mod alarm;
mod control;
mod machine;
mod pacer;
mod scrape;
mod timeline;
mod worker;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use roomcast_protocol::Mode;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use self::control::Control;
use self::scrape::Scraped;
use self::timeline::Timeline;
use self::worker::{Seed, Tick};
use crate::audit::{Audit, Layout, log::Log};
use crate::client::Gauges;
use crate::clock::Clock;
use crate::plan::Plan;
use crate::record::Count;
use crate::report::{Collector, Generator, Happening, HappeningKind, Live, Report, RunInfo};
use crate::wire::Connector;

/// How often the run's progress is looked at.
const STEP: Duration = Duration::from_millis(20);
/// From the last client's arrival to the first publish.
const BREATH: Duration = Duration::from_millis(200);
/// How long nothing may have arrived before a run of several processes counts as settled: another process may still
/// have something for our clients.
const QUIET: Duration = Duration::from_secs(1);

/// Who looks on.
pub trait Watcher {
    /// A phase begins; `expected` is how long it will take, if that is known.
    fn phase(&mut self, name: &str, expected: Option<Duration>);
    /// Once a second.
    fn update(&mut self, live: &Live);
    /// An event of the timeline.
    fn note(&mut self, event: &Happening);
}

/// Ctrl-C, counted.
pub type Interrupts = UnboundedReceiver<()>;

/// Carries the plan out and reports. `interrupts` ends it early: the first one with all that is owed, the second at once.
///
/// # Errors
/// When it cannot even begin: threads, files, certificates. A cluster that cannot be reached is a report's verdict.
pub async fn run(plan: Plan, watcher: &mut dyn Watcher, interrupts: Interrupts) -> Result<Report> {
    let mut run = Run::start(plan, watcher, interrupts)?;
    let load = run.connect().await;
    if let Ok(load) = load {
        run.load(load).await;
        run.settle().await;
    }
    run.finish().await
}

/// Why there is no load: it was told to the collector.
struct Unready;

struct Run<'a> {
    plan: Arc<Plan>,
    clock: Clock,
    control: Control,
    gauges: Arc<Gauges>,
    audit: Arc<Audit>,
    threads: Vec<JoinHandle<Result<()>>>,
    ticks: UnboundedReceiver<Tick>,
    scraped: UnboundedReceiver<Scraped>,
    interrupts: Interrupts,
    watcher: &'a mut dyn Watcher,
    collector: Collector,
    timeline: Timeline,
    generator: Generator,
    info: RunInfo,
    interrupted: u32,
}

impl<'a> Run<'a> {
    fn start(plan: Plan, watcher: &'a mut dyn Watcher, interrupts: Interrupts) -> Result<Self> {
        let plan = Arc::new(plan);
        let clock = Clock::start();
        let layout = Layout {
            rooms: plan.rooms,
            members: plan.members,
            publishers: plan.publishers,
            mode: plan.mode,
            echo: plan.echo,
            share: plan.share,
        };
        let log = plan.log.as_deref().map(|path| Log::create(path, plan.run, layout)).transpose()?;
        let audit = Arc::new(Audit::new(plan.run, layout, log, clock));
        let gauges = Arc::new(Gauges::default());
        let control = Control::new(plan.workers);
        let connector = Connector::new(plan.ca.as_deref())?;
        let (scraped_out, scraped) = unbounded_channel();
        for url in &plan.scrape {
            tokio::spawn(scrape::scrape(url.clone(), clock, scraped_out.clone()));
        }
        let generator = generator(&plan);
        let (ticks_out, ticks) = unbounded_channel();
        let mut threads = Vec::new();
        for (index, members) in split(&plan).into_iter().enumerate() {
            let seed = Seed {
                index,
                plan: Arc::clone(&plan),
                audit: Arc::clone(&audit),
                gauges: Arc::clone(&gauges),
                clock,
                connector: connector.clone(),
                control: control.clone(),
                ticks: ticks_out.clone(),
                members,
            };
            let thread = std::thread::Builder::new().name(format!("load-{index}"));
            threads.push(thread.spawn(move || worker::run(seed)).context("cannot start a thread")?);
        }
        Ok(Self {
            info: info(&plan),
            plan,
            clock,
            control,
            gauges,
            audit,
            threads,
            ticks,
            scraped,
            interrupts,
            watcher,
            collector: Collector::new(),
            timeline: Timeline::default(),
            generator,
            interrupted: 0,
        })
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ns() / 1_000_000
    }

    fn event(&mut self, kind: HappeningKind, text: String) {
        let event = Happening { at_ms: self.now_ms(), kind, text };
        self.watcher.note(&event);
        self.collector.event(event);
    }

    /// Clients of this process.
    fn own_clients(&self) -> u64 {
        self.generator.connections
    }

    /// Connects everyone. Gives when the load begins, ns since the epoch.
    async fn connect(&mut self) -> Result<u64, Unready> {
        let now = self.clock.now_ns();
        let begin =
            self.plan.start_at.map_or(now, |at| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64);
        if begin > now {
            self.watcher.phase("waiting for the start", Some(Duration::from_nanos(begin - now)));
            self.until(begin).await;
        }
        let needed = Duration::from_secs_f64(f64::from(self.plan.clients()) / self.plan.connect_rate);
        self.info.started_ms = self.now_ms();
        self.event(HappeningKind::Phase, format!("connecting {} clients", self.own_clients()));
        self.watcher.phase("connecting", Some(self.plan.ramp.unwrap_or(needed)));
        self.control.connect(begin);
        let load_begin = self.plan.ramp.map(|ramp| begin + ramp.as_nanos() as u64);
        let patience = needed + self.plan.connect_timeout * 2 + Duration::from_secs(5);
        let deadline = load_begin.unwrap_or(begin + patience.as_nanos() as u64);
        loop {
            let joined = u64::from(self.gauges.joined.load(Relaxed));
            let now = self.clock.now_ns();
            if self.must_stop() {
                return Err(Unready);
            }
            if load_begin.is_none() && joined == self.own_clients() {
                return Ok(now + BREATH.as_nanos() as u64);
            }
            if now >= deadline || self.is_unreachable(begin) {
                self.tell_who_is_missing(joined);
                return load_begin.filter(|_| joined > 0).ok_or(Unready);
            }
            self.step(deadline).await;
        }
    }

    /// Nobody got through for as long as one attempt may take, and someone tried.
    fn is_unreachable(&self, begin: u64) -> bool {
        let live = self.collector.live();
        let long = self.clock.now_ns() > begin + self.plan.connect_timeout.as_nanos() as u64;
        long && live.total(Count::Connected) == 0 && live.total(Count::ConnectFailed) > 0
    }

    fn tell_who_is_missing(&mut self, joined: u64) {
        let all = self.own_clients();
        if joined == all {
            return;
        }
        let reason = self.collector.main_connect_failure().unwrap_or_else(|| "no answer in time".to_owned());
        let targets = self.info.targets.join(", ");
        self.collector.problem(match self.gauges.connections.load(Relaxed) {
            0 => format!("nobody could connect to {targets}: {reason}"),
            _ => format!("{} of {all} clients are not in their rooms at {targets}: {reason}", all - joined),
        });
    }

    async fn load(&mut self, start_ns: u64) {
        let end_ns = start_ns + self.plan.duration.as_nanos() as u64;
        self.generator.resident_connected_bytes = machine::resident_bytes();
        let cpu_before = machine::cpu_seconds();
        self.control.load(start_ns, end_ns);
        self.info.load_started_ms = start_ns / 1_000_000;
        self.event(HappeningKind::Phase, "load begins".to_owned());
        self.watcher.phase("load", Some(self.plan.duration));
        let waves: Vec<u64> = self.plan.storm.map_or_else(Vec::new, |storm| {
            storm.waves(self.plan.duration).map(|at| start_ns + at.as_nanos() as u64).collect()
        });
        let mut waves = waves.into_iter().peekable();
        while self.clock.now_ns() < end_ns && !self.must_stop() {
            if waves.next_if(|at| *at <= self.clock.now_ns()).is_some() {
                let share = self.plan.storm.map_or(0.0, |storm| storm.share * 100.0);
                self.event(HappeningKind::Storm, format!("storm: {share:.0} % of the connections broken off"));
            }
            self.step(end_ns.min(waves.peek().copied().unwrap_or(u64::MAX))).await;
        }
        self.generator.load_cpu_seconds = machine::cpu_seconds() - cpu_before;
        self.info.load_ended_ms = self.now_ms();
    }

    /// Waits for what is on its way.
    async fn settle(&mut self) {
        self.control.settle(self.clock.now_ns());
        self.event(HappeningKind::Phase, "load ends, waiting for what is on its way".to_owned());
        self.watcher.phase("settling", None);
        let deadline = self.clock.now_ns() + self.plan.settle.as_nanos() as u64;
        // Each worker looks at its clients at least once in this phase.
        self.until(self.clock.now_ns() + BREATH.as_nanos() as u64).await;
        while self.clock.now_ns() < deadline && self.interrupted < 2 {
            let quiet_since = self.gauges.last_received_ns.load(Relaxed);
            let quiet = self.clock.now_ns().saturating_sub(quiet_since) > QUIET.as_nanos() as u64;
            if self.control.all_settled() && (quiet || self.plan.share.of == 1) {
                return;
            }
            self.step(deadline).await;
        }
        if self.interrupted < 2 {
            let settle = humantime::format_duration(self.plan.settle);
            self.event(HappeningKind::Phase, format!("something was still on its way after {settle}"));
        }
    }

    async fn finish(mut self) -> Result<Report> {
        self.control.finish();
        self.watcher.phase("closing", None);
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().map(JoinHandle::join).collect::<Vec<_>>());
        for ended in joined.await? {
            // What the others and it did so far is still worth a report.
            let why = match ended {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "it panicked".to_owned(),
            };
            self.collector.problem(format!("a load thread ended: {why}"));
        }
        while let Ok(tick) = self.ticks.try_recv() {
            self.take_tick(&tick);
        }
        if let Some(reason) = self.gauges.fatal.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            self.collector.problem(reason);
        }
        if let Err(error) = self.audit.flush_log() {
            self.collector.problem(format!("{error:#}"));
        }
        self.info.finished_ms = self.now_ms();
        self.info.interrupted = self.interrupted > 0;
        self.generator.cpu_seconds = machine::cpu_seconds();
        self.generator.peak_resident_bytes = machine::peak_resident_bytes();
        Ok(self.collector.finish(self.info, self.generator, self.audit.report(), &self.plan.thresholds))
    }

    fn must_stop(&self) -> bool {
        let fatal = self.gauges.fatal.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_some();
        fatal || self.interrupted > 0 || self.threads.iter().any(JoinHandle::is_finished)
    }

    async fn until(&mut self, ns: u64) {
        while self.clock.now_ns() < ns && self.interrupted < 2 {
            self.step(ns).await;
        }
    }

    /// Takes in what is told, for one step or until `ns`.
    async fn step(&mut self, ns: u64) {
        let left = Duration::from_nanos(ns.saturating_sub(self.clock.now_ns())).min(STEP);
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            Some(tick) = self.ticks.recv() => self.take_tick(&tick),
            Some(scraped) = self.scraped.recv() => self.take_scraped(scraped),
            Some(()) = self.interrupts.recv() => {
                self.interrupted += 1;
                self.event(HappeningKind::Phase, "interrupted".to_owned());
            }
        }
    }

    fn take_tick(&mut self, tick: &Tick) {
        self.collector.connections(u64::from(self.gauges.connections.load(Relaxed)));
        self.collector.interval(tick.at_s, &tick.interval);
        for event in self.timeline.take(tick.at_s, &tick.notes) {
            self.watcher.note(&event);
            self.collector.event(event);
        }
        self.collector.findings(self.now_ms(), &self.audit.findings());
        self.watcher.update(&self.collector.live());
    }

    fn take_scraped(&mut self, scraped: Scraped) {
        let Scraped { url, sample } = scraped;
        if let Some(text) = self.timeline.scraped(&url, sample.as_ref().err()) {
            self.event(HappeningKind::Scrape, text);
        }
        if let Ok(sample) = sample {
            self.collector.sample(&url, sample);
        }
    }
}

/// The members of each thread, in the order of connecting.
fn split(plan: &Plan) -> Vec<Vec<(u32, u32)>> {
    let mut threads = vec![Vec::new(); plan.workers];
    for (room, member) in (0..plan.rooms).flat_map(|room| (0..plan.members).map(move |member| (room, member))) {
        if (room + member) % plan.share.of == plan.share.index {
            threads[worker::thread_of(plan, room, member)].push((room, member));
        }
    }
    threads
}

/// How many of the run's clients are this process's.
pub fn own_clients(plan: &Plan) -> u64 {
    split(plan).iter().map(|members| members.len() as u64).sum()
}

fn generator(plan: &Plan) -> Generator {
    Generator {
        index: plan.share.index,
        host: machine::host(),
        kernel: machine::kernel(),
        cpu: machine::cpu_model(),
        cores: std::thread::available_parallelism().map_or(1, usize::from) as u32,
        memory_bytes: machine::memory_bytes(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cpu_seconds: 0.0,
        load_cpu_seconds: 0.0,
        peak_resident_bytes: 0,
        resident_before_bytes: machine::resident_bytes(),
        resident_connected_bytes: 0,
        connections: own_clients(plan),
    }
}

fn info(plan: &Plan) -> RunInfo {
    RunInfo {
        id: format!("{:08x}", plan.run),
        scenario: plan.scenario.to_owned(),
        commands: vec![plan.command.clone()],
        targets: plan.targets.iter().map(|target| target.url.clone()).collect(),
        started_ms: 0,
        load_started_ms: 0,
        load_ended_ms: 0,
        finished_ms: 0,
        rooms: plan.rooms,
        members: plan.members,
        publishers: plan.publishers,
        clients: plan.clients(),
        rate: plan.rate,
        mode: if plan.mode == Mode::Durable { "durable" } else { "ephemeral" }.to_owned(),
        processes: plan.share.of,
        max_lag_ms: plan.max_lag.as_secs_f64() * 1000.0,
        interrupted: false,
    }
}

#[cfg(test)]
mod tests;
