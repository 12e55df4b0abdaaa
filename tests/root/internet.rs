//! A small internet of namespaces: a backbone with public addresses, and homes behind routers that translate addresses.
//!
//! Nodes run in threads of this process. A thread enters the namespace of its machine before it starts its node, and all that
//! the node opens is opened by that thread; the handles work from anywhere.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use coffer_node::net::{Device, Incoming, Net, NetConfig, Protocol, Role, StreamProtocol};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

/// What the nodes in here speak.
pub const ECHO: StreamProtocol = StreamProtocol::new("/test/echo/1");

/// Where every node in here listens: routers keep the port where their kind does.
const PORT: u16 = 26333;

/// How a home's router translates what goes out, and what it lets in (the four usual kinds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// One outer port for an inner one; lets in whoever sends to it.
    FullCone,
    /// The same; lets in only machines to which something was sent.
    Restricted,
    /// The same; lets in only machines and ports to which something was sent.
    PortRestricted,
    /// An outer port for every destination; lets in only that.
    Symmetric,
}

impl Router {
    pub const ALL: [Router; 4] = [
        Router::FullCone,
        Router::Restricted,
        Router::PortRestricted,
        Router::Symmetric,
    ];

    /// As nftables takes it, for a router whose outer side is `outer` and whose home is 192.168.1.2.
    fn rules(self) -> String {
        let masquerade = match self {
            Router::Symmetric => "masquerade fully-random",
            _ => "masquerade",
        };
        // What was sent to, remembered as a home router does for a minute or two.
        let (set, remember, admit) = match self {
            Router::FullCone => ("", "", "dnat to 192.168.1.2"),
            Router::Restricted => (
                "set sent { type ipv4_addr; flags timeout; timeout 2m; }",
                "oifname outer update @sent { ip daddr }",
                "ip saddr @sent dnat to 192.168.1.2",
            ),
            Router::PortRestricted => (
                "set sent { type ipv4_addr . inet_service; flags timeout; timeout 2m; }",
                "oifname outer update @sent { ip daddr . th dport }",
                "ip saddr . th sport @sent dnat to 192.168.1.2",
            ),
            Router::Symmetric => ("", "", ""),
        };
        let admit = if admit.is_empty() {
            String::new()
        } else {
            format!("iifname outer meta l4proto {{ tcp, udp }} {admit}")
        };
        format!(
            "table ip home {{
                {set}
                chain out {{ type filter hook forward priority 0; {remember}; }}
                chain before {{ type nat hook prerouting priority -100; {admit}; }}
                chain after {{ type nat hook postrouting priority 100; oifname outer {masquerade}; }}
                chain own {{ type filter hook input priority 0; iifname outer meta l4proto {{ tcp, udp }} drop; }}
            }}\n"
        )
    }
}

/// A backbone, and the machines and homes on it; all of it is gone when this is dropped.
pub struct Internet {
    name: String,
    namespaces: Vec<String>,
    /// The backbone's ends of its cables, named after the machines at the other ends.
    cables: Vec<String>,
    homes: u8,
    forwarder: Option<Child>,
}

impl Internet {
    pub fn new() -> Internet {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes networks and so needs root: run it with sudo, or leave out --features root-tests"
        );
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut internet = Internet {
            name: format!("cf{}-{count}", std::process::id()),
            namespaces: Vec::new(),
            cables: Vec::new(),
            homes: 0,
            forwarder: None,
        };
        internet.add("world");
        internet.routes("world");
        internet
    }

    /// The full name of a machine's namespace.
    pub fn full(&self, machine: &str) -> String {
        format!("{}-{machine}", self.name)
    }

    fn add(&mut self, machine: &str) {
        let full = self.full(machine);
        ip(&format!("netns add {full}"));
        self.namespaces.push(full.clone());
        ip(&format!("-n {full} link set lo up"));
    }

    fn routes(&self, machine: &str) {
        let line = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        self.run(machine, &["sh", "-c", line], "");
    }

    /// Joins two machines by a cable.
    fn cable(&self, (from, near, here): (&str, &str, &str), (to, far, there): (&str, &str, &str)) {
        let (from, to) = (self.full(from), self.full(to));
        ip(&format!(
            "link add {near} netns {from} type veth peer name {far} netns {to}"
        ));
        for (machine, side, address) in [(from, near, here), (to, far, there)] {
            ip(&format!("-n {machine} addr add {address}/24 dev {side}"));
            ip(&format!("-n {machine} link set dev {side} up"));
        }
    }

    /// A machine with a public address; gives the address.
    pub fn machine(&mut self, machine: &str) -> String {
        let net = self.next();
        self.add(machine);
        let (near, far) = (format!("{net}.2"), format!("{net}.1"));
        self.cable((machine, "outer", &near), ("world", machine, &far));
        self.cables.push(machine.to_owned());
        let full = self.full(machine);
        ip(&format!("-n {full} route add default via {far}"));
        near
    }

    /// A machine at home, behind a router with a public address (which is given).
    pub fn home(&mut self, machine: &str, router: Router) -> String {
        let door = format!("{machine}-r");
        let outer = self.machine(&door);
        self.add(machine);
        self.routes(&door);
        self.cable(
            (machine, "outer", "192.168.1.2"),
            (&door, "inner", "192.168.1.1"),
        );
        let full = self.full(machine);
        ip(&format!("-n {full} route add default via 192.168.1.1"));
        self.filter(&door, &router.rules());
        outer
    }

    /// Adds rules of nftables on a machine.
    pub fn filter(&self, machine: &str, rules: &str) {
        self.run(machine, &["nft", "-f", "-"], rules);
    }

    /// Plugs a machine's cable to the backbone in or out.
    pub fn plug(&self, machine: &str, is_in: bool) {
        let world = self.full("world");
        let state = if is_in { "up" } else { "down" };
        ip(&format!("-n {world} link set dev {machine} {state}"));
    }

    /// Makes the backbone so slow, one way, and lose such a part of the packets. After all machines are there.
    pub fn slow(&mut self, delay_ms: u32, loss: f32, seed: u32) {
        let world = self.full("world");
        ip(&format!("-n {world} tuntap add mode tun name slow"));
        ip(&format!("-n {world} link set slow up"));
        ip(&format!("-n {world} route add default dev slow table 100"));
        // Whatever comes by a cable goes into the tunnel, and where it goes to once it comes out of there.
        for cable in &self.cables {
            ip(&format!("-n {world} rule add iif {cable} lookup 100"));
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/root/forward.py");
        let numbers = [delay_ms.to_string(), loss.to_string(), seed.to_string()];
        let [delay, loss, seed] = numbers.each_ref().map(String::as_str);
        let command = ["python3", script, "slow", delay, loss, seed];
        let mut forwarder = self.spawn("world", &command);
        let mut line = String::new();
        let out = forwarder.stdout.as_mut().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("readable");
        assert_eq!(line, "ready\n", "the forwarder starts");
        self.forwarder = Some(forwarder);
    }

    fn next(&mut self) -> String {
        self.homes += 1;
        format!("5.5.{}", self.homes)
    }

    /// Runs a command on a machine, with this as its input.
    pub fn run(&self, machine: &str, command: &[&str], input: &str) {
        let mut child = self.spawn(machine, command);
        let mut pipe = child.stdin.take().expect("piped");
        pipe.write_all(input.as_bytes()).expect("written");
        drop(pipe);
        let output = child.wait_with_output().expect("waited for");
        assert!(output.status.success(), "{command:?} {input}: {output:?}");
    }

    /// Starts a command on a machine. Not by `ip netns exec`: that makes a copy of all mounts, which keeps the disks of
    /// other tests mounted.
    pub fn spawn(&self, machine: &str, command: &[&str]) -> Child {
        let network = format!("--net=/run/netns/{}", self.full(machine));
        Command::new("nsenter")
            .arg(network)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("nsenter is needed: {error}"))
    }

    /// Starts a node on a machine.
    pub async fn node(&self, machine: &str, seed: u8, role: Role) -> Node {
        let namespace = format!("/run/netns/{}", self.full(machine));
        let (tell, told) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let file = File::open(&namespace).expect("the namespace is there");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("is entered");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let config = NetConfig {
                    key: Box::new([seed; 32]),
                    listen: NetConfig::default_listen(PORT)[..2].to_vec(),
                    mdns: false,
                    door: None,
                    protocols: vec![Protocol {
                        name: ECHO,
                        queue: 16,
                        per_device: 16,
                    }],
                    role,
                };
                let (net, incoming) = Net::start(config).await.expect("starts");
                let (stop, stopped) = oneshot::channel::<()>();
                let shut = net.clone();
                tell.send((net, incoming, stop)).ok();
                stopped.await.ok();
                shut.shutdown().await;
            });
        });
        let (net, incoming, stop) = told.await.expect("the node starts");
        Node {
            device: net.local_device(),
            net,
            incoming: Some(incoming),
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        if let Some(mut forwarder) = self.forwarder.take() {
            drop(forwarder.stdin.take());
            let _ = forwarder.wait();
        }
        let mut lines = String::new();
        for namespace in &self.namespaces {
            let _ = writeln!(lines, "netns del {namespace}");
        }
        let batch = Command::new("ip")
            .args(["-force", "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn();
        if let Ok(mut batch) = batch {
            if let Some(mut pipe) = batch.stdin.take() {
                let _ = pipe.write_all(lines.as_bytes());
            }
            let _ = batch.wait();
        }
    }
}

/// A node in a thread of its own; ends with this.
pub struct Node {
    pub net: Net,
    pub device: Device,
    pub incoming: Option<Incoming>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ip(line: &str) {
    let output = Command::new("ip").args(line.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("ip is needed: {error}"));
    assert!(output.status.success(), "ip {line}: {output:?}");
}
