//! A network of a test's own, in which the kernel drops packets: for all connections between all processes in it.

use std::{io::Write as _, process::Stdio};

use tokio::process::Command;

use super::within;

/// Set inside.
const INSIDE: &str = "INSIDE_A_LOSSY_NETWORK";
/// Brings the loopback device up, loses packets on it, and runs the rest of the line.
const MAKE: &str = "ip link set lo up && iptables -w -A INPUT -i lo -m statistic --mode random \
                    --probability \"$0\" -j DROP && exec \"$@\"";

/// Ways to a network of one's own: as root, and as anybody who may have users of their own.
const WAYS: [&[&str]; 2] = [&["--net"], &["--net", "--map-root-user"]];

/// Runs the test `name` again in a network that drops that share of packets. True in there, where the test goes on.
///
/// Without the right to make such a network nothing is shown, and that is said aloud; in CI it is a failure.
pub async fn in_a_lossy_network(name: &str, share: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut way = None;
    for one in WAYS {
        let mut probe = unshared(one, share);
        probe.arg("true").stdout(Stdio::null()).stderr(Stdio::null());
        if way.is_none() && probe.status().await.is_ok_and(|status| status.success()) {
            way = Some(one);
        }
    }
    let Some(way) = way else {
        let words = "no network namespace with iptables: needs root or user namespaces, and scripts/need.sh network";
        assert!(std::env::var_os("CI_STRICT").is_none(), "{words}");
        // Past the harness, which hides what a test that passes prints.
        std::io::stderr().write_all(format!("SKIPPED {name}: {words}\n").as_bytes()).unwrap();
        return false;
    };
    let mut run = unshared(way, share);
    run.arg(std::env::current_exe().unwrap()).args([name, "--exact", "--nocapture"]).env(INSIDE, "1");
    let outcome = within("the test in its network", run.output()).await.unwrap();
    let words = [outcome.stdout, outcome.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    eprintln!("{words}");
    assert!(outcome.status.success() && words.contains("1 passed"), "it failed in there");
    false
}

/// Segments that this network's TCP had to send again.
pub fn sent_again() -> u64 {
    let text = std::fs::read_to_string("/proc/net/snmp").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: ")).map(|line| line.split(' '));
    let (mut names, mut values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.position(|name| name == "RetransSegs").unwrap();
    values.nth(at).unwrap().parse().unwrap()
}

fn unshared(way: &[&str], share: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(way).args(["sh", "-c", MAKE, share]).stdin(Stdio::null()).kill_on_drop(true);
    // Root of a user namespace may not write the usual one.
    command.env("XTABLES_LOCKFILE", "/dev/null");
    command
}
