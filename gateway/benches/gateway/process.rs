//! Child processes of a run: pinned to a CPU, killed when dropped, and watched through /proc.
//!
//! Used by every benchmark. Must not know what the processes do.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The CPU of everything that is measured.
pub const SERVER_CPU: usize = 0;
/// The CPU of the client.
pub const CLIENT_CPU: usize = 1;

/// A running child, pinned to one CPU.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `program` on `cpu`. Its standard error stays visible, its output does not.
    pub fn spawn(cpu: usize, program: &Path, args: &[String]) -> Result<Self> {
        let child = Command::new("taskset")
            .args(["-c", &cpu.to_string()])
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {} under taskset", program.display()))?;
        Ok(Self { child })
    }

    /// Time spent on a CPU by all living threads, at the scheduler's precision.
    pub fn cpu(&self) -> Result<Duration> {
        cpu_of(self.child.id())
    }

    /// Resident memory, bytes.
    pub fn rss(&self) -> Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find(|line| line.starts_with("Rss:")).context("no Rss line")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no Rss value")?.parse()?;
        Ok(kib * 1024)
    }

    /// Waits until the process listens on `ip` and says where.
    pub fn listener(&mut self, ip: Ipv4Addr) -> Result<SocketAddr> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the process ended before it listened: {status}");
            }
            if let Some(address) = listening(self.child.id(), ip) {
                return Ok(address);
            }
            if Instant::now() > deadline {
                bail!("the process does not listen on {ip} after 10 s");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Time this process spent on a CPU.
pub fn own_cpu() -> Result<Duration> {
    cpu_of(std::process::id())
}

/// Pins this process, which must have one thread still.
pub fn pin_self(cpu: usize) -> Result<()> {
    let status = Command::new("taskset")
        .args(["-cp", &cpu.to_string(), &std::process::id().to_string()])
        .stdout(Stdio::null())
        .status()
        .context("taskset (util-linux) is needed")?;
    if !status.success() {
        bail!("cannot pin to CPU {cpu}: at least two CPUs are needed");
    }
    Ok(())
}

fn cpu_of(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/task");
    let mut nanos = 0;
    for task in fs::read_dir(&path).with_context(|| path.clone())? {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanos += text.split_whitespace().next().context("empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Joins the process's socket inodes with the kernel's table of listeners, so no log format has to be known.
fn listening(pid: u32, ip: Ipv4Addr) -> Option<SocketAddr> {
    let inodes: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let wanted = format!("{:08X}", u32::from_le_bytes(ip.octets()));
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(local), Some(&"0A"), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9)) else { continue };
        let Some((address, port)) = local.split_once(':') else { continue };
        if address == wanted && inodes.iter().any(|own| own == inode) {
            return Some(SocketAddrV4::new(ip, u16::from_str_radix(port, 16).ok()?).into());
        }
    }
    None
}
