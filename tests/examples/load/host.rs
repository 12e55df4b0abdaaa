//! The host's process: its start, what it says of itself, and what the system says of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use coffer_node::net::Multiaddr;
use coffer_node::relay::control::{HostReply, HostRequest, ask};
use coffer_protocol::identity::DeviceId;
use coffer_protocol::relay::HostInvitation;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{Failed, Over};

/// Quota of each vault: the smallest.
const QUOTA: u64 = 16 << 20;

/// A running host.
pub struct Host {
    pub id: DeviceId,
    process: Child,
    pid: u32,
    http: String,
    addresses: Vec<Multiaddr>,
    folder: tempfile::TempDir,
}

impl Host {
    /// Starts one on loopback for so many devices, which all come from one address: limits by address are out of the way.
    pub async fn start(coffer: &Path, devices: usize) -> Result<Host, Failed> {
        let folder = tempfile::tempdir()?;
        let many = (2 * devices).max(64).to_string();
        let mut process = Command::new(coffer)
            .arg("--data-dir")
            .arg(folder.path())
            .args(["relay", "start", "--init", "--json"])
            .env("COFFER_RELAY_NETWORK_LISTEN", "127.0.0.1")
            .env("COFFER_RELAY_NETWORK_PORT", "0")
            .env("COFFER_RELAY_HTTP_LISTEN", "127.0.0.1:0")
            .env("COFFER_RELAY_MEMORY_VAULTS", &many)
            .env("COFFER_RELAY_LIMITS_CONNECTIONS", &many)
            .env("COFFER_RELAY_LIMITS_CONNECTIONS_PER_ADDRESS", &many)
            .env("COFFER_RELAY_LIMITS_CONNECTS_PER_MINUTE", "1000000")
            .env("COFFER_RELAY_LIMITS_JOINS_PER_MINUTE", "1000000")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = process.id().ok_or("the host has ended")?;
        let out = process.stdout.take().ok_or("no output")?;
        let mut lines = BufReader::new(out).lines();
        let line = lines.next_line().await?.ok_or("the host did not start")?;
        let ready: serde_json::Value = serde_json::from_str(&line)?;
        let ready = ready.get("ready").unwrap_or(&ready);
        let http = ready["http"].as_str().ok_or("no monitoring")?.to_owned();
        let mut host = Host {
            id: DeviceId([0; 32]),
            process,
            pid,
            http,
            addresses: Vec::new(),
            folder,
        };
        let invitation = host.invite().await?;
        host.id = invitation.host;
        let addresses = invitation.addresses.iter();
        host.addresses = addresses.map(|one| one.parse()).collect::<Result<_, _>>()?;
        Ok(host)
    }

    /// What `coffer relay invite` gives.
    pub async fn invite(&self) -> Result<HostInvitation, Failed> {
        let request = HostRequest::Invite {
            quota: Some(QUOTA),
            valid_seconds: Some(3600),
        };
        let reply = ask(self.folder.path(), &request).await;
        let HostReply::Invitation(row) = reply.map_err(|error| error.message)? else {
            return Err("no invitation".into());
        };
        Ok(HostInvitation::parse(&row.link, 0)?)
    }

    /// Where it is dialled.
    pub fn addresses(&self, over: Over) -> Vec<Multiaddr> {
        let of_kind = |address: &&Multiaddr| {
            let is_tcp = address.to_string().contains("/tcp/");
            over == Over::Both || is_tcp == (over == Over::Tcp)
        };
        self.addresses.iter().filter(of_kind).cloned().collect()
    }

    /// Ends it as a service manager does.
    pub async fn stop(mut self) -> Result<(), Failed> {
        let pid = i32::try_from(self.pid)?;
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let status = tokio::time::timeout(Duration::from_secs(60), self.process.wait()).await??;
        if !status.success() {
            return Err(format!("the host ended with {status}").into());
        }
        Ok(())
    }

    async fn metrics(&self) -> Result<String, Failed> {
        let mut stream = TcpStream::connect(&self.http).await?;
        let request = "GET /metrics HTTP/1.1\r\nHost: host\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    /// One of its metrics.
    pub async fn figure(&self, name: &str) -> Result<f64, Failed> {
        let text = self.metrics().await?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.ok_or("no such metric")?.trim().parse()?)
    }

    /// What it has refused, by reason.
    pub async fn refused(&self) -> Result<BTreeMap<String, f64>, Failed> {
        let text = self.metrics().await?;
        let begin = "coffer_relay_refused_total{reason=\"";
        let lines = text.lines().filter_map(|line| line.strip_prefix(begin));
        let pairs = lines.filter_map(|line| line.split_once("\"} "));
        pairs
            .map(|(reason, count)| Ok((reason.to_owned(), count.trim().parse()?)))
            .collect()
    }

    /// Of `/proc/PID/status`, in KiB.
    pub fn memory_kib(&self, what: &str) -> Result<u64, Failed> {
        memory_kib(self.pid, what)
    }

    /// Files that it has open.
    pub fn files(&self) -> Result<usize, Failed> {
        files(self.pid)
    }

    /// Processor time since its start.
    pub fn processor_time(&self) -> Result<Duration, Failed> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // Behind the name, which may hold anything: user and system time are the 12th and 13th.
        let fields = text.rsplit_once(") ").ok_or("no times")?.1;
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|one| one.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }
}

/// Of `/proc/PID/status`, in KiB.
pub fn memory_kib(pid: u32, what: &str) -> Result<u64, Failed> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    let value = line.ok_or("no such figure")?.trim();
    Ok(value.trim_end_matches(" kB").parse()?)
}

/// Files that a process has open.
pub fn files(pid: u32) -> Result<usize, Failed> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Of the last minute.
pub fn load_average() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}
