//! Two processes of one host on one PostgreSQL and one S3-compatible storage, with a device on each.
//!
//! To the devices they are one host at one address. What stands there in front of the two processes is played by the test:
//! it hands each device to another process.

#[path = "../../node/src/relay/store/provider/tests/services.rs"]
#[allow(dead_code, reason = "the store's own tests need the rest of it")]
mod services;

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::device::{Device, eventually, noise, pair_of_devices, write};
use crate::host::Host;

/// What is promised for an entry from a device on one process to a device on the other.
const WITHIN: Duration = Duration::from_secs(1);
/// Entries that are sent.
const ENTRIES: usize = 15;

/// Hands every connection to one of the processes.
struct Balancer {
    port: u16,
    to: Arc<AtomicU16>,
}

impl Balancer {
    fn start() -> Balancer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let to = Arc::new(AtomicU16::new(0));
        let target = to.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for from in listener.incoming().flatten() {
                let Ok(to) = TcpStream::connect(("127.0.0.1", target.load(Ordering::Acquire)))
                else {
                    continue;
                };
                for (mut read, mut write) in [(both(&from), both(&to)), (both(&to), both(&from))] {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut read, &mut write);
                        let _ = write.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Balancer { port, to }
    }

    fn hands_to(&self, host: &Host) {
        self.to.store(host.port(), Ordering::Release);
    }
}

fn both(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a stream")
}

fn sessions(host: &Host) -> u64 {
    let said: Value = serde_json::from_str(&host.run(&["relay", "status", "--json"]).out).unwrap();
    said["sessions"].as_u64().unwrap()
}

#[test]
fn an_entry_that_one_process_stores_reaches_a_device_on_another_within_a_second() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(services::database());
    let objects = runtime.block_on(services::Objects::start());
    let balancer = Balancer::start();
    let announce = format!("/ip4/127.0.0.1/tcp/{}", balancer.port);
    let variables: Vec<(String, String)> = [
        ("PROVIDER_POSTGRES", &database[..]),
        ("PROVIDER_ENDPOINT", &objects.endpoint),
        ("PROVIDER_REGION", &objects.region),
        ("PROVIDER_BUCKET", &objects.bucket),
        ("PROVIDER_PREFIX", &objects.prefix),
        ("PROVIDER_ACCESS_KEY", &objects.access_key),
        ("PROVIDER_SECRET_KEY", &objects.secret_key),
        ("NETWORK_ANNOUNCE", &announce),
        // What goes from device to device is to go through the database.
        ("CIRCUITS_MAX", "0"),
    ]
    .map(|(name, value)| (format!("COFFER_RELAY_{name}"), value.to_owned()))
    .into();
    let mut one = Host::new(variables.clone());
    one.start();
    let mut two = Host::new(variables);
    std::fs::create_dir(&two.data).unwrap();
    std::fs::copy(one.data.join("identity"), two.data.join("identity")).unwrap();
    two.start();
    balancer.hands_to(&one);

    let (mut first, mut second) = pair_of_devices();
    first.ok(&["relay", "add", &one.invite("1GiB")]);
    eventually("the other device knows the host", || {
        second.status()["hosts"][0]["name"] == "attic"
    });
    first.in_sync();
    // From now on they do not find each other: both listen elsewhere than the other remembers.
    first.stop();
    second.stop();
    for device in [&mut first, &mut second] {
        device.listen_on(0);
    }
    first.start();
    eventually("the first device is on the first process", || {
        sessions(&one) == 1
    });
    balancer.hands_to(&two);
    second.start();
    eventually("the second device is on the second process", || {
        sessions(&two) == 1
    });
    assert_eq!(sessions(&one), 1);

    let mut waits = Vec::new();
    for n in 0..ENTRIES {
        let (name, text) = (format!("note{n}"), format!("{{\"n\":{n}}}"));
        let begun = Instant::now();
        first.ok(&["doc", "put", "notes", &name, &text]);
        eventually("the entry is there", || {
            second.run(&["doc", "get", "notes", &name]).code == Some(0)
        });
        waits.push(begun.elapsed());
    }
    waits.sort_unstable();
    println!("from device to device, the commands included: {waits:?}");
    // Nine of ten: machines that run tests are busy.
    assert!(waits[ENTRIES * 9 / 10] < WITHIN, "{waits:?}");

    // Contents come the same way.
    let (from, to) = (first.path("from.bin"), second.path("to.bin"));
    let bytes = noise(1, 3 << 20);
    write(&from, &bytes);
    first.ok(&["file", "add", from.to_str().unwrap()]);
    eventually("the content is there", || {
        second
            .run(&[
                "file",
                "get",
                "from.bin",
                to.to_str().unwrap(),
                "--overwrite",
            ])
            .code
            == Some(0)
    });
    assert_eq!(std::fs::read(&to).unwrap(), bytes);

    // A process ends in order: what it had is served by the other.
    one.stop();
    eventually("the first device is on the second process", || {
        sessions(&two) == 2
    });
    let connected: Vec<Device> = vec![first, second];
    drop(connected);
    two.stop();
}
