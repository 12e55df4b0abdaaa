//! What a host costs with thousands of devices, and how it takes many at once: a real host process, and from this one
//! program all the devices: each with its own key, network, authenticated connection, reservation and replication session.
//!
//! ```text
//! cargo build --release -p coffer && cargo run --release -p coffer-tests --example load -- target/release/coffer
//! ```
//!
//! Prints one JSON object a line: the host's memory at each step, the slope between the first and the last, what it uses at
//! rest, how long edits take from device to device, and how long until devices that come back at once are served again.
//! Fails if the host turned anybody away. `host.rs` is the process, `vault.rs` who is in a vault, `device.rs` one device.
//!
//! Bounds: one task and some 5 file descriptors a device; 8 devices connect at a time until all are there.

mod device;
mod host;
mod vault;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use device::{Arrived, Device};
use host::Host;
use vault::Vault;

type Failed = Box<dyn Error + Send + Sync>;

/// Devices that connect at a time until all are there: a host binds 16 vaults at a time.
const AT_A_TIME: usize = 8;
/// Rest before memory is read: the host gives free pages back 6 to 12 s after the last session came.
const REST: Duration = Duration::from_secs(20);
/// Longest wait for one edit, or for one device to be served.
const SOON: Duration = Duration::from_secs(60);

/// What devices dial.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Over {
    /// As devices do: the address that is preferred first, the others if it fails.
    Both,
    Tcp,
    Quic,
}

#[derive(Parser)]
struct Options {
    /// The program, of which `relay start` is run
    coffer: PathBuf,
    /// Numbers of devices at which memory is read; each vault has two
    #[arg(long, value_delimiter = ',', default_value = "500,1000,2000")]
    steps: Vec<usize>,
    /// Devices that come back at once in the end
    #[arg(long, default_value_t = 200)]
    reconnect: usize,
    /// Edits from one device of a vault to the other, one after the other
    #[arg(long, default_value_t = 200)]
    edits: usize,
    /// Seconds of rest in which the host's processor time is counted
    #[arg(long, default_value_t = 60)]
    idle: u64,
    #[arg(long, value_enum, default_value = "both")]
    over: Over,
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let options = Options::parse();
    raise_file_limit()?;
    let most = options.steps.last().copied().unwrap_or(0);
    if !options.steps.is_sorted() || most < 2 || options.reconnect > most {
        return Err("steps must be ascending, and no more can reconnect than there are".into());
    }
    let host = Host::start(&options.coffer, most).await?;
    let outcome = load(&options, most, &host).await;
    host.stop().await?;
    outcome
}

async fn load(options: &Options, most: usize, host: &Host) -> Result<(), Failed> {
    let (arrived, mut arrivals) = mpsc::channel(1024);
    let mut vaults = Vec::new();
    let mut devices: Vec<Arc<Device>> = Vec::new();
    say(&json!({"devices": 0, "host_kib": host.memory_kib("VmRSS")?}));
    let mut memory = BTreeMap::new();
    for step in &options.steps {
        let begun = Instant::now();
        while devices.len() < *step {
            let (vault, invitation) = Vault::invited(host).await?;
            let vault = Arc::new(vault);
            for which in 0..2 {
                let invitation = (which == 0).then(|| invitation.clone());
                let place = vaults.len();
                devices.push(Arc::new(
                    Device::new(vault.clone(), which, invitation, place, arrived.clone()).await?,
                ));
            }
            vaults.push(vault);
        }
        let new = devices.len() - memory.keys().last().copied().unwrap_or(0);
        // First those that bind the vaults: until then the others are strangers to the host.
        for which in 0..2 {
            let waiting = devices[devices.len() - new..].iter();
            let waiting = waiting.filter(|one| one.which == which).cloned();
            connect(options.over, host, waiting.collect(), AT_A_TIME).await?;
        }
        let took = begun.elapsed();
        tokio::time::sleep(REST).await;
        let kib = host.memory_kib("VmRSS")?;
        memory.insert(devices.len(), kib);
        say(&json!({
            "devices": devices.len(), "vaults": vaults.len(), "connections": host.figure("coffer_relay_connections").await?,
            "sessions": host.figure("coffer_relay_sessions").await?, "came_in_s": round(took), "host_kib": kib,
            "host_files": host.files()?, "own_kib": host::memory_kib(std::process::id(), "VmRSS")?,
            "own_files": host::files(std::process::id())?,
        }));
    }
    if let (Some((few, low)), Some((many, high))) =
        (memory.first_key_value(), memory.last_key_value())
        && many > few
    {
        let slope = (*high as f64 - *low as f64) / (many - few) as f64;
        say(
            &json!({"slope_kib_per_device": (slope * 10.0).round() / 10.0, "from": few, "to": many}),
        );
    }
    let before = host.processor_time()?;
    tokio::time::sleep(Duration::from_secs(options.idle)).await;
    let used = host.processor_time()? - before;
    say(&json!({"devices": most, "idle_s": options.idle, "cpu_s": used.as_secs_f64()}));
    while arrivals.try_recv().is_ok() {}
    say(&edits(options.edits, &vaults, &devices, &mut arrivals).await?);
    say(&reconnect(options, host, &devices).await?);
    let refused = host.refused().await?;
    say(
        &json!({"refused": refused, "host_peak_kib": host.memory_kib("VmHWM")?, "load": host::load_average()}),
    );
    for device in devices {
        device.leave().await;
    }
    if refused.values().any(|count| *count > 0.0) {
        return Err("the host has refused something".into());
    }
    Ok(())
}

/// Has all of them served, so many at a time; how long each took.
async fn connect(
    over: Over,
    host: &Host,
    devices: Vec<Arc<Device>>,
    at_a_time: usize,
) -> Result<Vec<Duration>, Failed> {
    let places = Arc::new(Semaphore::new(at_a_time));
    let addresses = host.addresses(over);
    let mut tasks = JoinSet::new();
    for device in devices {
        let (places, addresses, id) = (places.clone(), addresses.clone(), host.id);
        tasks.spawn(async move {
            let _place = places.acquire_owned().await?;
            let begun = Instant::now();
            tokio::time::timeout(SOON, device.come(id, addresses)).await??;
            Ok::<_, Failed>(begun.elapsed())
        });
    }
    let mut took = Vec::new();
    while let Some(done) = tasks.join_next().await {
        took.push(done??);
    }
    Ok(took)
}

/// One edit after the other: from when one device sends it until the other has it, which the host passes on once it is
/// durable there.
async fn edits(
    count: usize,
    vaults: &[Arc<Vault>],
    devices: &[Arc<Device>],
    arrivals: &mut mpsc::Receiver<Arrived>,
) -> Result<serde_json::Value, Failed> {
    let mut took = Vec::new();
    for edit in 0..count {
        // A stride that meets all vaults before it meets one again.
        let place = (edit * 617) % vaults.len();
        let begun = Instant::now();
        devices[2 * place].send(vaults[place].next_entry()?).await?;
        let arrived = tokio::time::timeout(SOON, async {
            loop {
                match arrivals.recv().await {
                    Some(one) if one.place == place && one.which == 1 => return Ok(one.at),
                    Some(_) => {}
                    None => return Err("all devices have gone"),
                }
            }
        });
        took.push(arrived.await??.saturating_duration_since(begun));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(json!({"edits": count, "ms": spread(took)}))
}

/// Some devices lose their connections, and come back all at the same moment.
async fn reconnect(
    options: &Options,
    host: &Host,
    devices: &[Arc<Device>],
) -> Result<serde_json::Value, Failed> {
    let some = &devices[..options.reconnect];
    for device in some {
        device.cut(host.id).await;
    }
    let left = (devices.len() - some.len()) as f64;
    let waited = Instant::now();
    while host.figure("coffer_relay_sessions").await? > left {
        if waited.elapsed() > SOON {
            return Err("the host does not notice that devices have gone".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let before = host.processor_time()?;
    let begun = Instant::now();
    let took = connect(options.over, host, some.to_vec(), some.len()).await?;
    let all = begun.elapsed();
    let used = host.processor_time()? - before;
    Ok(json!({
        "reconnected": some.len(), "all_served_s": round(all), "ms": spread(took), "host_cpu_s": used.as_secs_f64(),
    }))
}

fn spread(mut took: Vec<Duration>) -> serde_json::Value {
    took.sort_unstable();
    let at = |share: f64| {
        let last = took.len().saturating_sub(1);
        let found = took.get((last as f64 * share).round() as usize);
        found.map(|one| (one.as_secs_f64() * 10_000.0).round() / 10.0)
    };
    json!({"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0)})
}

fn round(took: Duration) -> f64 {
    (took.as_secs_f64() * 100.0).round() / 100.0
}

fn say(line: &serde_json::Value) {
    println!("{line}");
}

/// As many files as this user may open; the host inherits it.
fn raise_file_limit() -> Result<(), Failed> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )?;
    Ok(())
}
