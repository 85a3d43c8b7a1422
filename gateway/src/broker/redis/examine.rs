//! What is wrong with the servers, in words for people: whether they can be reached, are the right ones, and are set up
//! so that rooms can be trusted to them. Called by `gateway check`, on connections of its own; a running node judges by
//! `inspect` alone. Whether rooms work there is for [`exercise`](super::super::examine::exercise) to try.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, RedisResult, Value, cmd, pipe};
use tokio::time::timeout;

use super::cluster::layout;
use super::connection::{client, connect};
use super::inspect::Inspection;
use super::{RedisOptions, sentinel};
use crate::broker::BrokerError;
use crate::broker::examine::{Finding, Standing};
use crate::config::{RedisTopology, RedisUrl};

/// Oldest release whose scripts and commands suffice; in a cluster channels must belong to slots.
const OLDEST: [u32; 2] = [6, 2];
const OLDEST_CLUSTER: [u32; 2] = [7, 0];
const SECTIONS: [&str; 5] = ["server", "memory", "replication", "persistence", "cluster"];

/// Looks at every server that the settings lead to.
///
/// # Errors
/// [`BrokerError::Misconfigured`] for options that can never work.
pub async fn examine(options: &RedisOptions) -> Result<Vec<Finding>, BrokerError> {
    let url: RedisUrl = options.url.parse().map_err(|error| BrokerError::Misconfigured(format!("redis: {error}")))?;
    let mut found = Vec::new();
    match url.topology() {
        RedisTopology::Standalone => look(url.as_str(), Role::Alone, options, &mut found).await?,
        RedisTopology::Sentinel { sentinels, master } => {
            if let Some((host, port)) = ask_sentinels(sentinels, master, options, &mut found).await? {
                look(&url.server(&host, port), Role::Watched, options, &mut found).await?;
            }
        }
        RedisTopology::Cluster { seeds } => {
            for (host, port) in masters(seeds, &url, options, &mut found).await? {
                look(&url.server(&host, port), Role::Member, options, &mut found).await?;
            }
        }
    }
    Ok(found)
}

/// What a server is to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Alone,
    Watched,
    Member,
}

/// Connects to the server of one URL, within the time that a node would take.
async fn open(
    url: &str,
    options: &RedisOptions,
) -> Result<(String, Result<MultiplexedConnection, String>), BrokerError> {
    let client = client(url, options.ca_pem.as_deref())?;
    let name = client.get_connection_info().addr().to_string();
    Ok((name, connect(&client, &AsyncConnectionConfig::new(), options.connect_timeout).await))
}

async fn look(url: &str, role: Role, options: &RedisOptions, found: &mut Vec<Finding>) -> Result<(), BrokerError> {
    let (name, connection) = open(url, options).await?;
    let subject = format!("redis {name}");
    match connection {
        Err(error) => found.push(unreachable(subject, &error)),
        Ok(mut connection) => match timeout(options.timeout, read(&mut connection)).await {
            Ok(Ok(info)) => found.extend(judge(&subject, &info, role)),
            Ok(Err(error)) => found.push(unreachable(subject, &error.to_string())),
            Err(_) => found.push(unreachable(subject, "connected, but does not answer in time")),
        },
    }
    Ok(())
}

/// What the server says of itself; empty where it does not tell.
async fn read(connection: &mut MultiplexedConnection) -> RedisResult<String> {
    let mut questions = pipe();
    for section in SECTIONS {
        questions.add_command(cmd("INFO").arg(section).clone());
    }
    let answers: Vec<RedisResult<String>> = questions.ignore_errors().query_async(connection).await?;
    Ok(answers.into_iter().flatten().collect())
}

fn unreachable(subject: String, error: &str) -> Finding {
    let has = |words: &[&str]| words.iter().any(|word| error.contains(word));
    let remedy = if has(&["NOAUTH", "WRONGPASS", "AuthenticationFailed", "authentication failed", "invalid username"]) {
        "check the user in --redis and --redis-password"
    } else if has(&["lookup", "resolve", "Name or service"]) {
        "the name is not known here: check it, and the DNS of this machine or pod"
    } else if has(&["ertificate", "tls", "TLS", "UnknownIssuer"]) {
        "check that the server speaks TLS (rediss:// or redis://), and --redis-ca"
    } else if has(&["cluster support disabled", "unknown command"]) {
        "another kind of server than --redis says: redis://, redis+sentinel:// and redis+cluster:// are three kinds"
    } else if has(&["timed out", "too long"]) {
        "check the address, what stands between (network policies, firewalls), and that both mean TLS (rediss) or neither"
    } else {
        "check the address, that the server runs, and what stands between (network policies, firewalls)"
    };
    Finding::problem(subject, error.to_owned(), remedy)
}

fn judge(subject: &str, info: &str, role: Role) -> Vec<Finding> {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let problem = |words: String, remedy: &str| Finding::problem(subject.to_owned(), words, remedy);
    let warning = |words: String, remedy: &str| Finding::warning(subject.to_owned(), words, remedy);
    let Some(version) = field("redis_version") else {
        let words = "it may not be asked (INFO): a restored dataset, eviction and its version go unnoticed".to_owned();
        return vec![warning(words, "allow the user +info, if the provider does")];
    };
    let mut found = Vec::new();
    let oldest = if role == Role::Member { OLDEST_CLUSTER } else { OLDEST };
    if !is_at_least(version, oldest) {
        let needed = format!("{}.{} or later is needed: upgrade it", oldest[0], oldest[1]);
        found.push(problem(format!("is Redis {version}"), &needed));
    }
    let inspection = Inspection::read(info);
    if inspection.is_replica() {
        found.push(problem(
            "is a replica, which takes no writes".to_owned(),
            "name the master in --redis, or the sentinels: redis+sentinel://host:26379/master",
        ));
    }
    match (field("cluster_enabled"), role) {
        (Some("1"), Role::Alone | Role::Watched) => found.push(problem(
            "is part of a Redis Cluster".to_owned(),
            "write redis+cluster:// in --redis, so that rooms go to their own servers",
        )),
        (Some("0"), Role::Member) => {
            found.push(problem("is not part of a Redis Cluster".to_owned(), "write redis:// in --redis"));
        }
        _ => {}
    }
    if inspection.evicts() {
        let words = format!("drops rooms when its memory is full (maxmemory-policy {})", inspection.policy());
        found.push(problem(words, "CONFIG SET maxmemory-policy noeviction, and in redis.conf or the parameter group"));
    }
    if field("loading") == Some("1") {
        found.push(problem("is still loading its dataset".to_owned(), "wait until it has, and check again"));
    }
    let failing = ["aof_last_write_status", "rdb_last_bgsave_status", "aof_last_bgrewrite_status"];
    if failing.into_iter().any(|status| field(status) == Some("err")) {
        found.push(problem("cannot save to its disk".to_owned(), "make room on its disk, and look into its log"));
    }
    let keeps = field("aof_enabled") == Some("1");
    if field("aof_enabled") == Some("0") {
        found.push(warning(
            "keeps no append-only file: what was acknowledged since its last snapshot is lost when it restarts"
                .to_owned(),
            "appendonly yes, unless a replica takes over or history may be lost",
        ));
    }
    if found.iter().all(|finding| finding.standing != Standing::Problem) {
        let kept = if keeps { ", append-only file" } else { "" };
        let words = format!("Redis {version}, a master, {}{kept}", inspection.policy());
        found.insert(0, Finding::fine(subject.to_owned(), words));
    }
    found
}

fn is_at_least(version: &str, [major, minor]: [u32; 2]) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (major, minor)
}

/// Where most sentinels say that the master is.
async fn ask_sentinels(
    sentinels: &[String],
    master: &str,
    options: &RedisOptions,
    found: &mut Vec<Finding>,
) -> Result<Option<(String, u16)>, BrokerError> {
    let mut named: Vec<((String, u16), usize)> = Vec::new();
    for url in sentinels {
        let (name, connection) = open(url, options).await?;
        let subject = format!("sentinel {name}");
        match connection {
            Err(error) => found.push(unreachable(subject, &error)),
            Ok(mut connection) => match sentinel::master_of(&mut connection, master, options.timeout).await {
                Ok(Some(address)) => {
                    found.push(Finding::fine(subject, format!("{master} is at {}:{}", address.0, address.1)));
                    match named.iter_mut().find(|(known, _)| *known == address) {
                        Some((_, votes)) => *votes += 1,
                        None => named.push((address, 1)),
                    }
                }
                Ok(None) => {
                    let words = format!("knows no master called {master:?}");
                    found.push(Finding::problem(
                        subject,
                        words,
                        "the name behind the last / of --redis is the one of `sentinel monitor`",
                    ));
                }
                Err(error) => found.push(unreachable(subject, &error)),
            },
        }
    }
    named.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
    let Some((address, votes)) = named.into_iter().next() else { return Ok(None) };
    if votes * 2 <= sentinels.len() {
        found.push(Finding::problem(
            "sentinels".to_owned(),
            format!("only {votes} of {} name the same master", sentinels.len()),
            "more than half have to: bring the others back",
        ));
    } else {
        // Nodes do without a minority.
        for finding in found.iter_mut().filter(|finding| finding.standing == Standing::Problem) {
            finding.standing = Standing::Warning;
        }
    }
    Ok(Some(address))
}

/// The masters, by the map of the first seed that has one.
async fn masters(
    seeds: &[(String, u16)],
    url: &RedisUrl,
    options: &RedisOptions,
    found: &mut Vec<Finding>,
) -> Result<Vec<(String, u16)>, BrokerError> {
    let mut silent = Vec::new();
    for (host, port) in seeds {
        let (name, connection) = open(&url.server(host, *port), options).await?;
        match map(connection, host, options.timeout).await {
            Ok((masters, slots)) if slots == u32::from(super::cluster::SLOTS) => {
                found.push(Finding::fine(
                    format!("cluster, asked {name}"),
                    format!("{} masters for all slots", masters.len()),
                ));
                // Seeds that do not answer are no trouble while another does.
                found.extend(silent.into_iter().map(|finding| Finding { standing: Standing::Warning, ..finding }));
                return Ok(masters);
            }
            Ok((masters, slots)) => {
                let words = format!("{} masters have {slots} of the 16384 slots", masters.len());
                silent.push(Finding::problem(
                    format!("cluster, asked {name}"),
                    words,
                    "give every slot a master: redis-cli --cluster check",
                ));
            }
            Err(error) => silent.push(unreachable(format!("cluster, asked {name}"), &error)),
        }
    }
    found.append(&mut silent);
    Ok(Vec::new())
}

/// The masters that a server knows, and how many slots they have.
async fn map(
    connection: Result<MultiplexedConnection, String>,
    host: &str,
    limit: Duration,
) -> Result<(Vec<(String, u16)>, u32), String> {
    let mut connection = connection?;
    let mut question = cmd("CLUSTER");
    question.arg("SLOTS");
    let answer = timeout(limit, question.query_async::<Vec<Value>>(&mut connection)).await;
    let layout = layout(&answer.map_err(|_| "silent")?.map_err(|error| error.to_string())?, host);
    let slots = layout.iter().map(|(first, last, _)| u32::from(*last) - u32::from(*first) + 1).sum();
    let mut masters: Vec<(String, u16)> = layout.into_iter().map(|(_, _, address)| address).collect();
    masters.sort();
    masters.dedup();
    Ok((masters, slots))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(info: &str, role: Role) -> Vec<String> {
        let is_problem = |finding: &Finding| finding.standing == Standing::Problem;
        judge("redis h:1", info, role).into_iter().filter(is_problem).map(|finding| finding.words).collect()
    }

    #[test]
    fn versions_are_compared_by_number() {
        for (version, fits) in [
            ("6.2.14", true),
            ("6.0.16", false),
            ("10.0.0", true),
            ("7.0.15", true),
            ("5.9", false),
            ("unstable", false),
        ] {
            assert_eq!(is_at_least(version, OLDEST), fits, "{version}");
        }
        assert!(!is_at_least("6.2.14", OLDEST_CLUSTER));
    }

    #[test]
    fn each_thing_that_is_wrong_is_said() {
        let good = "redis_version:7.0.15\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\nrole:master\r\naof_enabled:1\r\n\
                    cluster_enabled:0\r\nloading:0\r\n";
        assert_eq!(problems(good, Role::Alone), Vec::<String>::new());
        for (is, becomes, role, word) in [
            ("7.0.15", "6.0.16", Role::Alone, "is Redis 6.0.16"),
            ("role:master", "role:slave", Role::Alone, "replica"),
            ("cluster_enabled:0", "cluster_enabled:1", Role::Alone, "part of a Redis Cluster"),
            ("", "", Role::Member, "not part of a Redis Cluster"),
            ("noeviction", "allkeys-lru", Role::Alone, "allkeys-lru"),
            ("loading:0", "loading:1", Role::Watched, "loading"),
            ("loading:0", "aof_last_write_status:err", Role::Alone, "disk"),
        ] {
            let found = problems(&good.replace(is, becomes), role);
            assert!(matches!(&found[..], [words] if words.contains(word)), "{word}: {found:?}");
        }
        let without_aof = judge("s", &good.replace("aof_enabled:1", "aof_enabled:0"), Role::Alone);
        assert!(without_aof.iter().any(|finding| finding.standing == Standing::Warning));
        assert!(judge("s", "", Role::Alone).iter().all(|finding| finding.standing == Standing::Warning));
    }
}
