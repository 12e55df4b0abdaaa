//! A machine that runs a relay host, as a test sees one.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::device::{Outcome, SOON, first_line};

/// A host.
pub struct Host {
    /// Its data folder.
    pub data: PathBuf,
    home: TempDir,
    process: Option<Child>,
    port: u16,
    variables: Vec<(String, String)>,
}

impl Host {
    /// A host that has begun to serve.
    pub fn started() -> Host {
        let mut host = Host::new(Vec::new());
        host.start();
        host
    }

    /// One that does not run yet, with these variables in its environment.
    pub fn new(variables: Vec<(String, String)>) -> Host {
        let home = tempfile::tempdir().expect("a temporary folder");
        Host {
            data: home.path().join("host"),
            home,
            process: None,
            port: free_port(),
            variables,
        }
    }

    /// `coffer` with the environment of this machine.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
        command
            .env_clear()
            .env("COFFER_DATA_DIR", &self.data)
            .env("HOME", self.home.path())
            .env("COFFER_RELAY_NETWORK_PORT", self.port.to_string())
            .env("COFFER_RELAY_NETWORK_LISTEN", "127.0.0.1")
            .env("COFFER_RELAY_HOST_NAME", "attic")
            .env("COFFER_RELAY_HTTP_LISTEN", "off")
            .envs(self.variables.iter().cloned())
            .args(arguments)
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Serves, on the port that it had before.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same with more variables in its environment.
    pub fn start_with(&mut self, variables: &[(&str, &str)]) {
        assert!(self.process.is_none(), "the host runs already");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.home.path().join("host.log"))
            .expect("a log file");
        let mut child = self
            .command(&["relay", "start", "--init", "--json"])
            .env("COFFER_LOG", "info")
            .envs(variables.iter().copied())
            .stderr(log)
            .spawn()
            .expect("coffer starts");
        let out = child.stdout.take().expect("standard output is a pipe");
        self.process = Some(child);
        let ready = first_line(out, SOON);
        assert!(
            ready.is_some(),
            "the host does not get ready: {}",
            self.log()
        );
    }

    /// Makes its key and data folder, for whoever runs it otherwise.
    pub fn prepare(&self) {
        let made = self.run(&["relay", "init"]);
        assert_eq!(made.code, Some(0), "{made:?}");
    }

    /// Ends it as a service manager does.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("a running host");
        let sent = Command::new("kill")
            .args(["-TERM", &process.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(sent.success());
        let status = process.wait().expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    /// The process that serves.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running host").id()
    }

    /// An invitation for one vault.
    pub fn invite(&self, quota: &str) -> String {
        let outcome = self.run(&["relay", "invite", "--quota", quota, "--json"]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let said: Value = serde_json::from_str(&outcome.out).expect("JSON");
        let link = said["invitation"]["link"].as_str();
        link.expect("an invitation").to_owned()
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs a command on this machine.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let output = self.command(arguments).output().expect("coffer runs");
        Outcome {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What it wrote to its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("host.log")).unwrap_or_default()
    }

    /// A place on this machine.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the host:\n{}", self.log());
        }
    }
}

/// A port that nobody listens on now. A host must know its port before it starts: invitations name it.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
