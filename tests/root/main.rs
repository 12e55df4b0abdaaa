//! What needs root: cutting the power of a file system, filling one, pulling out the disk of a backup, being a user whom
//! nobody knows or another one, a network without multicast, and paths through routers. Runs with
//! `cargo test -p coffer --features root-tests --test root`, as root; without root it fails and says so.
//!
//! Tests make file systems of their own in files (ext4 on a loop device), mounted in temporary folders, and networks of
//! their own, and take them down again. They need `mkfs.ext4`, `mount`, `perl`, `ip`, `nft`, `python3` and `ldd`.

mod backup;
#[path = "../cli/device.rs"]
#[allow(dead_code, reason = "each of the two targets needs a part of it")]
mod device;
mod disk;
mod full_disk;
mod internet;
mod memory;
mod no_home;
mod no_multicast;
mod paths;
mod power_loss;
mod relay_container;
mod unplugged;

/// Copies the program into a folder that others may enter: the one it was built in may be closed to them.
fn program_for_others(dir: &std::path::Path) -> std::path::PathBuf {
    let program = dir.join("coffer");
    // By a process of its own: one that another test starts meanwhile would inherit this one's open file, and a program
    // that is open for writing cannot be run.
    let copied = std::process::Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_coffer"))
        .arg(&program)
        .status();
    assert!(copied.is_ok_and(|status| status.success()), "cp");
    program
}
