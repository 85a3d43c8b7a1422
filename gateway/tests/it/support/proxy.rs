//! A network between the gateway and Redis, or its clients, that can be made bad: silent, slow, or deaf to what is
//! published. The load tester's tests use it, too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::Redis;

/// Which connections a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    All,
    Publishing,
    Subscribing,
}

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    Good,
    /// Nothing passes, and nobody is told, as if packets were dropped. What was under way arrives when it is good again.
    Silent(Links),
    /// The same for connections that stand; new ones are good.
    Stuck,
    /// Everything takes that much longer, in each direction.
    Slow(Duration),
    /// What is published does not reach subscribers; all else does.
    Deaf,
    /// Redis hears everything and does it, but what it answers on connections to publish on does not arrive.
    Mute,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Calls,
    Answers,
}

/// What is known of a connection.
struct Nature {
    /// It was made while others were stuck.
    is_late: bool,
    subscribes: AtomicBool,
}

/// A proxy to one Redis; connections end when it is dropped.
pub struct Proxy {
    port: u16,
    target: Arc<AtomicU16>,
    network: watch::Sender<Network>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn to(redis: &Redis) -> Self {
        Self::to_port(redis.port()).await
    }

    /// To whatever listens there.
    pub async fn to_port(port: u16) -> Self {
        let target = Arc::new(AtomicU16::new(port));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (network, seen) = watch::channel(Network::Good);
        let to = Arc::clone(&target);
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Ok(far) = TcpStream::connect(("127.0.0.1", to.load(Ordering::Relaxed))).await else { continue };
                link(near, far, &seen);
            }
        });
        Self { port, target, network, task }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// From now on the network is like this, also for connections that stand.
    pub fn make(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// New connections go to another server; those that stand stay where they are.
    pub fn lead_to(&self, redis: &Redis) {
        self.target.store(redis.port(), Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn link(near: TcpStream, far: TcpStream, seen: &watch::Receiver<Network>) {
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
    let nature = Arc::new(Nature { is_late: *seen.borrow() == Network::Stuck, subscribes: AtomicBool::new(false) });
    tokio::spawn(pump(Way::Calls, from_near, to_far, seen.clone(), Arc::clone(&nature)));
    tokio::spawn(pump(Way::Answers, from_far, to_near, seen.clone(), nature));
}

async fn pump(
    way: Way,
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut network: watch::Receiver<Network>,
    nature: Arc<Nature>,
) {
    // Between reading and writing, so that a delay does not add up.
    let (chunks, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(4096);
    let seen = network.clone();
    let marks = Arc::clone(&nature);
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let chunk = buffer[..read].to_vec();
            if chunk.windows(9).any(|word| word == b"SUBSCRIBE") {
                marks.subscribes.store(true, Ordering::Relaxed);
            }
            let now = *seen.borrow();
            let late = if let Network::Slow(late) = now { late } else { Duration::ZERO };
            let lost = now == Network::Deaf && chunk.starts_with(b">3\r\n$7\r\nmessage");
            if !lost && chunks.send((Instant::now() + late, chunk)).await.is_err() {
                return;
            }
        }
    });
    while let Some((at, chunk)) = due.recv().await {
        sleep_until(at).await;
        let subscribes = || nature.subscribes.load(Ordering::Relaxed);
        let passes = |network: &Network| match network {
            Network::Silent(Links::All) => false,
            Network::Silent(Links::Subscribing) => !subscribes(),
            Network::Silent(Links::Publishing) => subscribes(),
            Network::Stuck => nature.is_late,
            Network::Mute => way == Way::Calls || subscribes(),
            _ => true,
        };
        if network.wait_for(passes).await.is_err() || to.write_all(&chunk).await.is_err() {
            return;
        }
    }
}
