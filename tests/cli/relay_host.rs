//! A host as its person meets it: made, started, asked, ended.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::device::{Device, SOON, eventually, first_line, tree};

/// A host that runs.
struct Host {
    /// Where it lives, and how its commands are run.
    place: Device,
    process: Option<Child>,
    ready: Value,
}

impl Host {
    fn start(variables: &[(&str, &str)]) -> Host {
        let place = Device::new("host");
        place.ok(&["relay", "init"]);
        Host::start_in(place, variables)
    }

    fn start_in(place: Device, variables: &[(&str, &str)]) -> Host {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(place.path("node.log"))
            .expect("a log file");
        let mut process = place
            .command(&["relay", "start", "--json"])
            .env("COFFER_RELAY_NETWORK_LISTEN", "127.0.0.1")
            .env("COFFER_RELAY_NETWORK_PORT", "0")
            .env("COFFER_RELAY_HTTP_LISTEN", "127.0.0.1:0")
            .env("COFFER_RELAY_LOG_LEVEL", "debug")
            .envs(variables.iter().copied())
            .stderr(log)
            .spawn()
            .expect("coffer starts");
        let out = process.stdout.take().expect("a pipe");
        let line = first_line(out, SOON).unwrap_or_else(|| panic!("not ready: {}", place.log()));
        let said: Value = serde_json::from_str(&line).expect("JSON");
        Host {
            place,
            process: Some(process),
            ready: said["ready"].clone(),
        }
    }

    /// Asks the monitoring for a path: status and body.
    fn http(&self, path: &str) -> (u16, String) {
        let address = self.ready["http"].as_str().expect("monitoring");
        let mut stream = TcpStream::connect(address).expect("it listens");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let status = text
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status.expect("a status"), body.expect("a body"))
    }

    /// Ends it with SIGTERM: exit code and how long that took.
    fn end(&mut self) -> (Option<i32>, Duration) {
        let mut process = self.process.take().expect("a running host");
        let begun = Instant::now();
        let sent = Command::new("kill")
            .args(["-TERM", &process.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
        (process.wait().expect("it ends").code(), begun.elapsed())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[test]
fn a_host_is_made_once_and_its_file_documents_every_value() {
    let place = Device::new("host");
    let made = place.row(&["relay", "init"]);
    assert_eq!(made["created"], true);
    let again = place.row(&["relay", "init"]);
    assert_eq!(
        (&again["created"], &again["host"]),
        (&Value::Bool(false), &made["host"])
    );
    let file = std::fs::read_to_string(place.data.join("relay.toml")).unwrap();
    assert_eq!(file, place.ok(&["relay", "init", "--print-config"]));
    for part in ["[network]", "#port = 26333", "[log]", "#identities = false"] {
        assert!(file.contains(part), "{part}");
    }
}

#[test]
fn an_invitation_a_list_and_a_status_are_had_from_the_running_host_only() {
    let place = Device::new("host");
    place.run(&["relay", "start"]).fails(3, "coffer relay init");
    place.ok(&["relay", "init"]);
    place
        .run(&["relay", "invite"])
        .fails(10, "coffer relay start");
    let mut host = Host::start_in(place, &[]);
    let row = host
        .place
        .row(&["relay", "invite", "--quota", "20MiB", "--valid", "1h"]);
    let link = row["invitation"]["link"].as_str().unwrap().to_owned();
    assert!(link.starts_with("coffer:relay/1/"), "{row}");
    assert_eq!(row["invitation"]["quota"], 20 << 20);
    host.place
        .run(&["relay", "invite", "--quota", "1KiB"])
        .fails(2, "16 MiB");
    assert!(host.place.rows(&["relay", "vault", "list"]).is_empty());
    host.place
        .run(&["relay", "vault", "remove", "abcdef", "--yes"])
        .fails(3, "abcdef");
    host.place
        .run(&["relay", "vault", "remove", "xyz", "--yes"])
        .fails(2, "xyz");
    let status = host.place.row(&["relay", "status"]);
    assert_eq!(
        (&status["invitations"], &status["vaults"]),
        (&Value::from(1), &Value::from(0))
    );
    assert_eq!(status["not_ready"], Value::Null);
    assert!(host.place.ok(&["relay", "status"]).contains("It serves."));
    // A second one on the same folder is refused.
    host.place
        .command(&["relay", "start"])
        .env("COFFER_RELAY_NETWORK_PORT", "0")
        .output()
        .map(|output| assert_eq!(output.status.code(), Some(9)))
        .unwrap();
    let (code, took) = host.end();
    assert_eq!(code, Some(0), "{}", host.place.log());
    assert!(took < SOON);
    // The secret is in no file and in no log, in none of its usual forms.
    let secret = link.rsplit('/').next().unwrap().to_owned();
    let everything = tree(&host.place.data);
    assert!(everything.len() > 2);
    for (path, bytes) in everything {
        let bytes = bytes.unwrap_or_default();
        assert!(
            !contains(&bytes, &secret[..24]),
            "the invitation stands in {path}"
        );
        assert!(
            !contains(&bytes, &secret[24..48]),
            "the invitation stands in {path}"
        );
    }
    assert!(!host.place.log().contains(&secret[..24]));
    // It is still good after a restart.
    let place = std::mem::replace(&mut host.place, Device::new("nobody"));
    let host = Host::start_in(place, &[]);
    assert_eq!(host.place.row(&["relay", "status"])["invitations"], 1);
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

#[test]
fn a_wrong_configuration_is_refused_with_what_was_meant() {
    let place = Device::new("host");
    place.ok(&["relay", "init"]);
    let config = place.data.join("relay.toml");
    std::fs::write(&config, "[network]\nprot = 1\n").unwrap();
    place
        .run(&["relay", "start"])
        .fails(2, "did you mean `network.port`?");
    std::fs::write(&config, "[vaults]\nquota = \"1KiB\"\n").unwrap();
    place.run(&["relay", "start"]).fails(2, "vaults.quota");
    std::fs::remove_file(&config).unwrap();
    place.run(&["relay", "start"]).fails(3, "relay.toml");
    place.ok(&["relay", "init"]);
    let wrong = place
        .command(&["relay", "start", "--json"])
        .env("COFFER_RELAY_LOG_FROMAT", "json")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(said.contains("COFFER_RELAY_LOG_FORMAT"), "{said}");
    let device = Device::founded("device");
    device
        .run(&["relay", "init"])
        .fails(4, "data folder of a device");
}

#[test]
fn monitoring_tells_how_it_is_and_not_who() {
    let mut host = Host::start(&[("COFFER_RELAY_LOG_FORMAT", "json")]);
    assert_eq!(host.http("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(host.http("/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(host.http("/other").0, 404);
    let (status, metrics) = host.http("/metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("coffer_relay_vaults 0"), "{metrics}");
    host.place.ok(&["relay", "invite"]);
    let id = host.ready["host"].as_str().unwrap().to_owned();
    assert!(!metrics.contains(&id));
    assert_eq!(host.end().0, Some(0));
    let log = host.place.log();
    assert!(!log.contains(&id), "{log}");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(
        lines
            .iter()
            .any(|line| line["message"] == "the host serves"),
        "{log}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line["message"] == "the host has ended"),
        "{log}"
    );
}

#[test]
fn two_devices_that_never_meet_share_a_vault_through_a_host() {
    // The device's side is tested where it is; here is only that the host ends while somebody is connected.
    let mut host = Host::start(&[("COFFER_RELAY_STOP_DRAIN", "2s")]);
    let address = host.ready["addresses"][0].as_str().unwrap().to_owned();
    let place = address.split('/').next().unwrap();
    let mut idle = TcpStream::connect(place).expect("it listens");
    eventually("the host is reached", || host.http("/readyz").0 == 200);
    let (code, took) = host.end();
    assert_eq!(code, Some(0), "{}", host.place.log());
    assert!(took < SOON);
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest);
}

#[test]
fn the_unit_is_one_that_systemd_takes_and_finds_safe() {
    let place = Device::new("host");
    let folder = std::path::Path::new("/var/lib/coffer-relay");
    let mut host = place.command(&["relay", "init", "--print-systemd"]);
    let printed = host.env("COFFER_DATA_DIR", folder).output().unwrap();
    assert_eq!(printed.status.code(), Some(0));
    // A path of the machine that is there, as `verify` looks for it.
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(
        text.contains("\nDynamicUser=yes\n") && text.contains("/var/lib/coffer-relay"),
        "{text}"
    );
    let unit = place.path("coffer-relay.service");
    std::fs::write(&unit, &text).unwrap();
    let analyze = |arguments: &[&str]| {
        Command::new("systemd-analyze")
            .args(arguments)
            .arg(&unit)
            .output()
    };
    let Ok(verified) = analyze(&["verify", "--man=no", "--recursive-errors=no"]) else {
        eprintln!("systemd-analyze is not installed: the unit was not verified");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(
        verified.status.success() && !said.contains("coffer-relay.service:"),
        "{said}"
    );
    let secure = analyze(&["security", "--offline=true", "--threshold=20", "--no-pager"]).unwrap();
    let said = String::from_utf8_lossy(&secure.stdout).into_owned();
    assert!(
        secure.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&secure.stderr)
    );
}
