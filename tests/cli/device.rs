//! A computer with coffer on it, as a test sees one: a home, a data folder, the commands, and the node as a child process.
//!
//! Nothing here reaches the home of whoever runs the tests: the environment is emptied and every folder that a program
//! may ask for lies in a temporary one. Nodes listen on 127.0.0.1 only and look for nobody, so that tests which run at
//! once do not meet. A node that a test leaves behind ends with its [`Device`].

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything that should take an instant; machines that run tests are busy.
pub const SOON: Duration = Duration::from_secs(40);
/// The promise for a first start.
pub const READY_WITHIN: Duration = Duration::from_secs(10);
/// How often a condition is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(15);

/// Starts coffer in the background as a person does, and finds nobody by itself.
pub const START: &[&str] = &[
    "start",
    "--background",
    "--no-discovery",
    "--listen",
    "127.0.0.1",
    "--port",
    "0",
];

/// One computer.
pub struct Device {
    /// Its name in the vault.
    pub name: &'static str,
    /// The data folder.
    pub data: PathBuf,
    home: TempDir,
    under: Vec<String>,
    node: Option<Child>,
    port: u16,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Outcome {
    /// What a command left.
    pub fn of(output: std::process::Output) -> Outcome {
        Outcome {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Checks the exit code, and that standard error names `about`.
    #[track_caller]
    pub fn fails(&self, code: i32, about: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(
            self.err.contains(about),
            "`{about}` is not said in {self:?}"
        );
    }
}

impl Device {
    /// A computer on which coffer never ran.
    pub fn new(name: &'static str) -> Device {
        let home = tempfile::tempdir().expect("a temporary folder");
        let data = home.path().join("data");
        Device {
            name,
            data,
            home,
            under: Vec::new(),
            node: None,
            port: 0,
        }
    }

    /// One whose every program is run by another: `ip netns exec NAME`, say.
    pub fn under(name: &'static str, program: &[&str]) -> Device {
        let mut device = Device::new(name);
        device.under = program.iter().map(|part| (*part).to_owned()).collect();
        device
    }

    /// One whose data folder is `data`.
    pub fn with_data_folder(name: &'static str, data: PathBuf) -> Device {
        let mut device = Device::new(name);
        device.data = data;
        device
    }

    /// One that has started, with a vault of its own.
    pub fn founded(name: &'static str) -> Device {
        let mut device = Device::new(name);
        device.start();
        device
    }

    /// One that has started and waits to join a vault.
    pub fn waiting(name: &'static str) -> Device {
        let mut device = Device::new(name);
        device.start_with(&["--without-vault"]);
        device
    }

    /// A place in its home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// `coffer` with the environment of this computer.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Command {
        let coffer = env!("CARGO_BIN_EXE_coffer");
        let mut command = Command::new(self.under.first().map_or(coffer, String::as_str));
        if !self.under.is_empty() {
            command.args(&self.under[1..]).arg(coffer);
        }
        command
            .env_clear()
            .env("COFFER_DATA_DIR", &self.data)
            .env("HOME", self.path("home"))
            .args(arguments)
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, folder) in [
            ("XDG_DATA_HOME", "xdg-data"),
            ("XDG_CONFIG_HOME", "xdg-config"),
            ("XDG_STATE_HOME", "xdg-state"),
            ("XDG_CACHE_HOME", "xdg-cache"),
            ("XDG_RUNTIME_DIR", "xdg-runtime"),
        ] {
            command.env(name, self.path(folder));
        }
        command
    }

    /// Runs a command to its end.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Outcome {
        Outcome::of(self.command(arguments).output().expect("coffer runs"))
    }

    /// Runs a command that must succeed, and gives what it printed.
    #[track_caller]
    pub fn ok<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(&self, arguments: &[S]) -> String {
        let outcome = self.run(arguments);
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {outcome:?}");
        outcome.out
    }

    /// Runs a command that must succeed with `--json`, and gives every line of it.
    #[track_caller]
    pub fn rows(&self, arguments: &[&str]) -> Vec<Value> {
        let out = self.ok(&[arguments, &["--json"]].concat());
        out.lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
            })
            .collect()
    }

    /// The same for a command that prints one object.
    #[track_caller]
    pub fn row(&self, arguments: &[&str]) -> Value {
        let mut rows = self.rows(arguments);
        assert_eq!(rows.len(), 1, "{arguments:?}: {rows:?}");
        rows.remove(0)
    }

    /// The sync state.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.row(&["status"])
    }

    /// Starts the node and waits until it says `ready:`; on the port that it had before, so that others find it again.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same with more options. Gives what the node said of itself.
    pub fn start_with(&mut self, options: &[&str]) -> Value {
        assert!(self.node.is_none(), "{} runs already", self.name);
        let port = self.port.to_string();
        let arguments = [
            &[
                "start",
                "--json",
                "--name",
                self.name,
                "--listen",
                "127.0.0.1",
                "--no-discovery",
                "--port",
                &port,
            ],
            options,
        ]
        .concat();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("node.log"))
            .expect("a log file");
        let begun = Instant::now();
        let mut child = self
            .command(&arguments)
            .env("COFFER_LOG", "info")
            .stderr(log)
            .spawn()
            .expect("coffer starts");
        let out = child.stdout.take().expect("standard output is a pipe");
        self.node = Some(child);
        let line = first_line(out, SOON)
            .unwrap_or_else(|| panic!("{} does not get ready: {}", self.name, self.log()));
        assert!(
            begun.elapsed() < READY_WITHIN,
            "ready only after {:?}",
            begun.elapsed()
        );
        let said: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error} in {line}; {}", self.log()));
        if said["ready"]["locked"] != true {
            self.port = port_of(&said["ready"]);
        }
        said["ready"].clone()
    }

    /// Has the next start ask for this port.
    pub fn listen_on(&mut self, port: u16) {
        self.port = port;
    }

    /// The port that the node listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the node wrote to its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("node.log")).unwrap_or_default()
    }

    /// Ends the node as a power button does not: at once.
    pub fn kill(&mut self) {
        if let Some(mut node) = self.node.take() {
            node.kill().expect("it can be killed");
            node.wait().expect("it ends");
        }
    }

    /// Does something while the node is halted: to the node all of it happens at once.
    pub fn at_once(&self, act: impl FnOnce()) {
        let node = self.node.as_ref().expect("a running node");
        send(node, "STOP");
        act();
        send(node, "CONT");
    }

    /// Ends the node with a signal (`INT`, `TERM`) and gives how it ended and how long that took.
    pub fn signal(&mut self, name: &str) -> (ExitStatus, Duration) {
        let mut node = self.node.take().expect("a running node");
        let begun = Instant::now();
        send(&node, name);
        let status = node.wait().expect("it ends");
        (status, begun.elapsed())
    }

    /// Ends the node as a person does.
    pub fn stop(&mut self) {
        self.ok(&["stop"]);
        let status = self
            .node
            .take()
            .expect("a running node")
            .wait()
            .expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    /// The bytes that contents take in the data folder.
    pub fn stored(&self) -> u64 {
        let files = std::fs::read_dir(self.data.join("blobs/data")).unwrap();
        let files = files.flatten();
        files
            .filter_map(|file| Some(file.metadata().ok()?.len()))
            .sum()
    }

    /// Waits until every device is known to hold everything.
    #[track_caller]
    pub fn in_sync(&self) {
        self.wait_for("in-sync");
    }

    /// Waits until nothing is left to do here.
    #[track_caller]
    pub fn idle(&self) {
        self.wait_for("idle");
    }

    #[track_caller]
    fn wait_for(&self, state: &str) {
        let outcome = self.run(&["status", "--wait", state, "--timeout", "40", "--json"]);
        assert_eq!(
            outcome.code,
            Some(0),
            "{} does not get {state}: {}",
            self.name,
            self.run(&["status", "--json"]).out
        );
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(node) = &mut self.node {
            let _ = node.kill();
            let _ = node.wait();
        }
        // A command may have started another in the background.
        let _ = self.run(&["stop"]);
        if std::thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.name, self.log());
        }
    }
}

/// Two devices of one vault, connected and in sync.
pub fn pair_of_devices() -> (Device, Device) {
    let first = Device::founded("first");
    let second = Device::waiting("second");
    pair(&first, &second);
    (first, second)
}

/// Lets `second` into the vault of `first`.
pub fn pair(first: &Device, second: &Device) {
    let invitation = Invitation::of(first, &["--accept"]);
    second.ok(&["join", &invitation.link, "--name", second.name, "--yes"]);
    assert_eq!(invitation.end().code, Some(0));
    first.in_sync();
    second.in_sync();
}

/// A `coffer pair` that waits for a device.
pub struct Invitation {
    /// The link.
    pub link: String,
    /// The short code.
    pub code: String,
    /// All that was told.
    pub said: Value,
    process: Option<Child>,
}

impl Invitation {
    /// Runs `coffer pair --json` with these options, up to the invitation.
    pub fn of(device: &Device, options: &[&str]) -> Invitation {
        let arguments = [&["pair", "--json"], options].concat();
        let mut process = device.command(&arguments).spawn().expect("coffer runs");
        let mut out = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut line = String::new();
        out.read_line(&mut line).expect("an invitation");
        process.stdout = Some(out.into_inner());
        let said: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"));
        let text = |name: &str| {
            said["invitation"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        Invitation {
            link: text("link"),
            code: text("code"),
            said: said["invitation"].clone(),
            process: Some(process),
        }
    }

    /// Waits for its end.
    pub fn end(mut self) -> Outcome {
        let process = self.process.take().expect("a running command");
        let output = process.wait_with_output().expect("it ends");
        Outcome {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Takes it back.
    pub fn take_back(self) {
        drop(self);
    }
}

impl Drop for Invitation {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Looks until it is so; fails after [`SOON`].
#[track_caller]
pub fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    eventually_within(SOON, what, is_so);
}

/// The same for what takes longer.
#[track_caller]
pub fn eventually_within(patience: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(
            begun.elapsed() < patience,
            "it never came about that {what}"
        );
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The same for what takes minutes by its nature: that is waited for with long looks.
#[track_caller]
pub fn in_time(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < within, "it never came about that {what}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Everything beneath a folder: relative path and content, folders with `None`. What coffer keeps for itself is left out.
pub fn tree(dir: &Path) -> std::collections::BTreeMap<String, Option<Vec<u8>>> {
    fn walk(
        top: &Path,
        dir: &Path,
        found: &mut std::collections::BTreeMap<String, Option<Vec<u8>>>,
    ) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if name.to_string_lossy().starts_with('.') {
                continue;
            }
            let relative = path
                .strip_prefix(top)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                found.insert(relative, None);
                walk(top, &path, found);
            } else if let Ok(bytes) = std::fs::read(&path) {
                found.insert(relative, Some(bytes));
            }
        }
    }
    let mut found = Default::default();
    walk(dir, dir, &mut found);
    found
}

/// Sends a signal to a node.
fn send(node: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), &node.id().to_string()])
        .status()
        .expect("kill runs");
    assert!(sent.success());
}

/// Bytes that do not compress and differ for each seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Writes a file, with the folders above it.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).expect("a folder");
    }
    std::fs::write(path, bytes).expect("a file");
}

/// The first line that comes within the time. The rest is read and thrown away, so that the writer is never held up.
pub fn first_line(from: impl Read + Send + 'static, within: Duration) -> Option<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = String::new();
        if lines.read_line(&mut line).is_ok_and(|read| read > 0) {
            let _ = sender.send(line);
        }
        let _ = std::io::copy(&mut lines, &mut std::io::sink());
    });
    receiver.recv_timeout(within).ok()
}

fn port_of(ready: &Value) -> u16 {
    ready["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter_map(|address| address.split('/').next()?.rsplit(':').next()?.parse().ok())
        .next()
        .unwrap_or_else(|| panic!("no address in {ready}"))
}
