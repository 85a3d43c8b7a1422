//! A master with a replica, and three sentinels that call the master `main`.

use super::{Redis, eventually};

/// What keeps a replica from following, and what lets it follow again.
const CUT_OFF: [&str; 2] = ["ACL SETUSER default -sync -psync", "CLIENT KILL TYPE replica"];

pub struct Watched {
    /// The first is the master at the start.
    pub servers: [Redis; 2],
    sentinels: Vec<Redis>,
}

impl Watched {
    /// A group that is able to agree on a failover. Its servers keep what they have on disk.
    pub async fn start() -> Self {
        let args = ["--repl-diskless-sync-delay", "0", "--appendonly", "yes", "--appendfsync", "everysec"];
        let master = Redis::start_with(&args).await;
        let port = master.port().to_string();
        let replica = Redis::start_with(&[&["--replicaof", "127.0.0.1", &port][..], &args].concat()).await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(Redis::start_sentinel(master.port()).await);
        }
        for sentinel in &sentinels {
            sentinel.answers("SENTINEL SENTINELS main", "runid", 2).await;
            sentinel.answers("SENTINEL REPLICAS main", "runid", 1).await;
            // One that stood still while it started, for its disk or a core, does nothing for the next 30 s.
            sentinel.answers("INFO sentinel", "sentinel_tilt:0", 1).await;
        }
        replica.answers("INFO replication", "master_link_status:up", 1).await;
        Self { servers: [master, replica], sentinels }
    }

    /// For `--redis`.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|it| format!("127.0.0.1:{}", it.port())).collect();
        format!("redis+sentinel://{}/main", hosts.join(","))
    }

    /// Which of the servers the first sentinel takes for the master.
    pub async fn master(&self) -> usize {
        let said = self.sentinels[0].command("SENTINEL GET-MASTER-ADDR-BY-NAME main").await;
        usize::from(!said.contains(&self.servers[0].port().to_string()))
    }

    /// From now on the replica is left behind. Sentinels promote it all the same, if they are to within some seconds.
    pub async fn cut_off_replica(&self) {
        for line in CUT_OFF {
            self.servers[0].command(line).await;
        }
        self.servers[1].answers("INFO replication", "master_link_status:down", 1).await;
    }

    /// A failover that somebody asks for: the master lives, and has replicated what it could.
    pub async fn fail_over(&self) {
        let before = self.master().await;
        // Refused while another is under way, or while the replica is not known to be fit; and it may be given up.
        eventually("the other server to lead", || async {
            if self.master().await != before {
                return Some(());
            }
            self.sentinels[0].command("SENTINEL FAILOVER main").await;
            None
        })
        .await;
    }

    /// Waits until all sentinels agree on who leads, and the other server follows that one. Who leads is asked each
    /// time: a master that came back may be put back in its place by a second failover, while this waits.
    pub async fn is_whole(&self) {
        eventually("the group to be whole", || async {
            let leader = self.agreed().await?;
            let port = self.servers[leader].port();
            let led = self.servers[leader].ask("INFO replication").await.ok()?;
            let following = self.servers[1 - leader].ask("INFO replication").await.ok()?;
            let wanted = ["role:slave\r\n", "master_link_status:up\r\n", &format!("master_port:{port}\r\n")];
            (led.contains("role:master\r\n") && wanted.iter().all(|it| following.contains(it))).then_some(())
        })
        .await;
    }

    /// Which of the servers leads, if all sentinels say the same and none of them is about to say something else.
    async fn agreed(&self) -> Option<usize> {
        let leader = self.master().await;
        let port = self.servers[leader].port().to_string();
        for sentinel in &self.sentinels {
            let said = sentinel.ask("SENTINEL MASTER main").await.ok()?;
            let is = |key: &str, value: &str| said.contains(&format!("\r\n{key}\r\n${}\r\n{value}\r\n", value.len()));
            // It is also down, or in a failover, if it has more flags.
            (is("port", &port) && is("flags", "master")).then_some(())?;
        }
        Some(leader)
    }

    /// Messages that the master has, in all rooms.
    pub async fn stored(&self) -> u64 {
        let script = "local n = 0; for _, k in ipairs(redis.call('KEYS', '*:m')) do \
                      n = n + redis.call('HGET', k, 's') end; return n";
        let answer = self.servers[self.master().await].command(&format!("EVAL \"{script}\" 0")).await;
        answer.trim().trim_start_matches(':').parse().unwrap_or_else(|_| panic!("{answer}"))
    }
}
