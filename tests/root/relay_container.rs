//! What the container file copies, run in a bare root: the program, its libraries, and nothing else.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::device::{SOON, first_line};

/// The user of the container file.
const USER: u32 = 65_532;

/// `/coffer` in the bare root, as the container file runs it.
fn coffer(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("/usr/sbin/chroot");
    command
        .arg(format!("--userspec={USER}:{USER}"))
        .arg("--groups=")
        .arg(root)
        .arg("/coffer")
        .args(arguments)
        .env_clear()
        .env("COFFER_DATA_DIR", "/data")
        .env("COFFER_RELAY_NETWORK_LISTEN", "127.0.0.1")
        .env("COFFER_RELAY_NETWORK_PORT", "0")
        .env("COFFER_RELAY_HTTP_LISTEN", "127.0.0.1:0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
fn what_the_container_file_copies_serves_in_a_bare_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test changes the root and so needs root: run it with sudo, or leave out --features root-tests"
    );
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let file = std::fs::read_to_string(top.join("docs/hosting/Containerfile")).unwrap();
    assert!(
        file.contains("docs/hosting/bare-root.sh target/release/coffer"),
        "it is another script now"
    );
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let laid = Command::new("sh")
        .arg(top.join("docs/hosting/bare-root.sh"))
        .arg(env!("CARGO_BIN_EXE_coffer"))
        .arg(&root)
        .status()
        .unwrap();
    assert!(laid.success());
    let mut host = coffer(&root, &["relay", "start", "--init"])
        .spawn()
        .unwrap();
    let line = first_line(host.stdout.take().unwrap(), SOON).unwrap_or_default();
    let invited = coffer(&root, &["relay", "invite"]).output().unwrap();
    let status = coffer(&root, &["relay", "status"]).output().unwrap();
    let sent = Command::new("kill")
        .args(["-TERM", &host.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let ended = host.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(line.starts_with("ready: /data"), "{line}; {log}");
    assert!(
        String::from_utf8_lossy(&invited.stdout).starts_with("coffer:relay/1/"),
        "{invited:?}"
    );
    assert!(
        String::from_utf8_lossy(&status.stdout).contains("It serves."),
        "{status:?}"
    );
    assert_eq!(ended.status.code(), Some(0), "{log}");
}
