//! What needs root: cutting the power of a file system, and filling one. Runs with
//! `cargo test -p coffer --features root-tests --test root`, as root; without root it fails and says so.
//!
//! Each test makes a file system of its own in a file (ext4 on a loop device), mounted in a temporary folder, and takes
//! it down again. It needs `mkfs.ext4`, `mount` and `perl`.

#[path = "../cli/device.rs"]
#[allow(dead_code, reason = "each of the two targets needs a part of it")]
mod device;
mod disk;
mod full_disk;
mod no_home;
mod power_loss;
