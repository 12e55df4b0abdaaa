//! A user whom the system does not know: no `HOME`, no entry in the list of users, as in bare containers.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::device::{SOON, first_line};

/// A number that no user has.
const NOBODY_KNOWN: u32 = 54_321;

fn coffer(program: &Path, data: Option<&Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(data.map(|data| ("COFFER_DATA_DIR", data)))
        .args(arguments)
        .current_dir("/")
        .uid(NOBODY_KNOWN)
        .gid(NOBODY_KNOWN)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn ended(mut command: Command) -> Output {
    command.output().expect("coffer runs")
}

#[test]
fn without_any_home_it_asks_for_a_data_folder_and_works_with_one() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test runs coffer as another user and so needs root: run it with sudo, or leave out --features root-tests"
    );
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = crate::program_for_others(dir.path());
    for arguments in [&["start"][..], &["status"], &[]] {
        let output = ended(coffer(&program, None, arguments));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("COFFER_DATA_DIR"), "{arguments:?}: {said}");
    }
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    chown(&data, Some(NOBODY_KNOWN), Some(NOBODY_KNOWN)).unwrap();
    let start = ["start", "--no-discovery", "--listen=127.0.0.1", "--port=0"];
    let mut node = coffer(&program, Some(&data), &start).spawn().unwrap();
    let line = first_line(node.stdout.take().unwrap(), SOON).unwrap_or_default();
    let put = ended(coffer(
        &program,
        Some(&data),
        &["doc", "put", "t", "a", "{}"],
    ));
    let stop = ended(coffer(&program, Some(&data), &["stop"]));
    let status = node.wait().unwrap();
    assert!(line.starts_with("ready: "), "{line}");
    assert_eq!(put.status.code(), Some(0), "{put:?}");
    assert_eq!((stop.status.code(), status.code()), (Some(0), Some(0)));
}
