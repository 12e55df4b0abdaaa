//! Everyday life of a synced folder, scenario by scenario, on two real devices.
//!
//! ```text
//! moves.rs     each kind of move, from either side, with the other side running, stopped, or out of reach
//! meetings.rs  what two devices did apart: an edit against a deletion, twins, a restore
//! saving.rs    how programs save, and files that grow while they are read
//! storm.rs     more events than anybody can follow
//! kills.rs     `kill -9` again and again
//! ```

mod kills;
mod meetings;
mod moves;
mod saving;
mod storm;

use std::path::Path;

use crate::device::Device;
use crate::folders::Synced;

/// One of the two devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    First,
    Second,
}

impl Side {
    const BOTH: [Side; 2] = [Side::First, Side::Second];

    fn other(self) -> Side {
        match self {
            Side::First => Side::Second,
            Side::Second => Side::First,
        }
    }
}

fn device(synced: &mut Synced, side: Side) -> &mut Device {
    match side {
        Side::First => &mut synced.first,
        Side::Second => &mut synced.second,
    }
}

fn folder(synced: &Synced, side: Side) -> &Path {
    match side {
        Side::First => &synced.here,
        Side::Second => &synced.there,
    }
}

/// Bytes of contents that came from other devices since this one was started.
fn carried(device: &Device) -> u64 {
    device.status()["devices"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|other| other["contents_in"].as_u64().expect("a number"))
        .sum()
}

/// Has a device look through its folder, and waits until it has recorded what it found.
fn noticed(device: &Device) {
    device.ok(&["folder", "rescan"]);
    device.idle();
}

/// Both devices running, without a connection: each listens where the other does not know. Gives their old ports.
fn part(synced: &mut Synced) -> [u16; 2] {
    let ports = [synced.first.port(), synced.second.port()];
    synced.first.stop();
    synced.second.stop();
    for device in [&mut synced.first, &mut synced.second] {
        device.listen_on(0);
        device.start();
    }
    for device in [&synced.first, &synced.second] {
        let others = device.status()["devices"].as_array().unwrap().clone();
        assert_eq!(others[1]["connected"], false, "{others:?}");
    }
    ports
}

/// Ends what [`part`] began.
fn meet(synced: &mut Synced, ports: [u16; 2]) {
    synced.first.stop();
    synced.second.stop();
    for (device, port) in [&mut synced.first, &mut synced.second]
        .into_iter()
        .zip(ports)
    {
        device.listen_on(port);
        device.start();
    }
}

/// A number from the environment, for runs that are longer than those that everybody does.
fn setting(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, not {text}")),
        Err(_) => usual,
    }
}
