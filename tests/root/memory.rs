//! The memory of coffer is closed to other programs of the same user, and no core file is left of it.

use std::fs::File;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::device::{SOON, eventually, first_line};

/// A user of whom nobody has heard, without any rights.
const SOMEBODY: u32 = 54_322;

fn as_somebody(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .uid(SOMEBODY)
        .gid(SOMEBODY)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Whether somebody's other programs can read this of a process.
fn can_read(process: &Child, file: &str) -> bool {
    let path = format!("/proc/{}/{file}", process.id());
    let mut command = as_somebody(Path::new("/usr/bin/head"));
    let status = command.args(["-c", "1", &path]).status();
    status.expect("head runs").success()
}

/// The most that a process may leave in a core file, as the system says it.
fn core_limit(process: &Child) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = line.expect("a line").split_whitespace().collect();
    words[4..6].join(" ")
}

#[test]
fn other_programs_of_the_same_user_cannot_read_the_memory_of_coffer() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = crate::program_for_others(dir.path());
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    chown(&data, Some(SOMEBODY), Some(SOMEBODY)).unwrap();

    // Of another program they can: what is asked below is a question that can be answered with yes.
    let mut other = as_somebody(Path::new("/usr/bin/sleep"))
        .arg("1000")
        .spawn()
        .unwrap();
    eventually("another program's environment can be read", || {
        can_read(&other, "environ")
    });
    let other_limit = core_limit(&other);
    other.kill().unwrap();
    other.wait().unwrap();

    let mut node = as_somebody(&program)
        .env("COFFER_DATA_DIR", &data)
        .args(["start", "--no-discovery", "--listen=127.0.0.1", "--port=0"])
        .spawn()
        .unwrap();
    let line = first_line(node.stdout.take().unwrap(), SOON).unwrap_or_default();
    let readable: Vec<&str> = ["mem", "environ", "maps", "auxv"]
        .into_iter()
        .filter(|file| can_read(&node, file))
        .collect();
    let limit = core_limit(&node);
    // Root may, and what everybody may know of a process stays known.
    let root_may = File::open(format!("/proc/{}/mem", node.id())).is_ok();
    let known = can_read(&node, "cmdline");
    node.kill().unwrap();
    node.wait().unwrap();
    assert!(line.starts_with("ready:"), "{line}");
    assert_eq!(readable, [""; 0]);
    assert_eq!(limit, "0 0", "it was {other_limit} for another program");
    assert!(root_may && known);
}
