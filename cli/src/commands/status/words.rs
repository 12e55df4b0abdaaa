//! The sync state as a person reads it.

use coffer_node::control::{
    DeviceStatus, Direction, Holding, LimitsRow, Missing, Reach, Status, StorageMode,
};
use std::fmt::Write;

use super::folders::describe_folder;
use crate::output::shown;
use crate::units::{ago, bytes, count, date, duration, short};

/// Files at risk that are named; `storage show` names more.
const NAMED: usize = 3;

/// The whole state, several lines.
pub fn describe(state: &Status, now_ms: u64) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    match &state.vault {
        None => row(
            "Vault",
            "none yet; join one with `coffer join LINK`, or create one with `coffer init`"
                .to_owned(),
        ),
        Some(vault) => {
            row("Vault", short(&vault.id).to_owned());
            row(
                "Holds",
                format!(
                    "{}, {} in {} ({})",
                    count(vault.documents, "document", "documents"),
                    count(vault.files, "file", "files"),
                    count(vault.folders, "folder", "folders"),
                    bytes(vault.file_bytes)
                ),
            );
        }
    }
    row("Data", state.data_dir.display().to_string());
    row(
        "Running",
        format!(
            "for {}, version {}, process {}",
            duration(state.uptime_s),
            state.version,
            state.pid
        ),
    );
    if state.vault.is_some() {
        row("Sync", sync(state));
    }
    if let Some(paused) = describe_pause(&state.limits) {
        row("Paused", paused);
    }
    if let Some(limits) = describe_limits(&state.limits) {
        row("Limits", limits);
    }
    if state.only_here != Missing::default() {
        row(
            "Only here",
            format!(
                "{}, on no other device as far as known",
                missing(&state.only_here)
            ),
        );
    }
    if state.missing_here != Missing::default() {
        row(
            "Not here",
            format!("{}{}", missing(&state.missing_here), paused_on(state)),
        );
    }
    let storage = &state.storage;
    if storage.at_risk.nowhere.files > 0 && have_said_all(state) {
        let nowhere = &storage.at_risk.nowhere;
        row(
            "Nowhere",
            format!(
                "{} ({}) that no device is known to have; `coffer storage show` names some",
                count(nowhere.files, "file", "files"),
                bytes(nowhere.bytes)
            ),
        );
    }
    if storage.mode != StorageMode::Full {
        let limit = storage.limit.map(|limit| format!(" of {}", bytes(limit)));
        row(
            "On demand",
            format!(
                "{} on other devices only; {}{} used here",
                count(storage.elsewhere.files, "file", "files"),
                bytes(storage.used.bytes),
                limit.unwrap_or_default()
            ),
        );
    }
    // With one device and no host all is at risk: the warning says so.
    let risk = &storage.at_risk;
    if risk.all.files > 0 && (state.devices.len() > 1 || !state.hosts.is_empty()) {
        let names: Vec<_> = risk
            .names
            .iter()
            .take(NAMED)
            .map(|name| shown(name))
            .collect();
        row(
            "At risk",
            format!(
                "{} ({}) that too few other devices and hosts are known to keep: {}",
                count(risk.all.files, "file", "files"),
                bytes(risk.all.bytes),
                names.join(", ")
            ),
        );
    }
    for (name, value) in super::kept::rows(state, now_ms) {
        row(name, value);
    }
    if !state.devices.is_empty() {
        text.push_str("\nDevices\n");
        for device in &state.devices {
            describe_device(&mut text, device, state, now_ms);
        }
    }
    super::hosts::describe_hosts(&mut text, &state.hosts);
    if !state.transfers.is_empty() {
        text.push_str("\nTransfers\n");
    }
    for transfer in &state.transfers {
        let name = state
            .devices
            .iter()
            .find(|device| device.device.id == transfer.device);
        let name = name.map_or(short(&transfer.device), |device| {
            device.device.name.as_str()
        });
        let way = match transfer.direction {
            Direction::In => "from",
            Direction::Out => "to",
        };
        let _ = write!(text, "  {way} {}: {}/s", shown(name), bytes(transfer.per_s));
        if let (Some(left), Some(files)) = (transfer.bytes_left, transfer.files_left) {
            let files = count(files, "file", "files");
            let _ = write!(text, ", {} left in {files}", bytes(left));
        }
        text.push('\n');
    }
    if !state.folders.is_empty() {
        text.push_str("\nFolders\n");
        for folder in &state.folders {
            describe_folder(&mut text, folder);
        }
    }
    if !state.warnings.is_empty() {
        text.push('\n');
    }
    for warning in &state.warnings {
        let _ = writeln!(text, "Warning: {}", shown(&warning.text));
    }
    text
}

/// Until when nothing is sent or fetched, if that is so.
pub fn describe_pause(limits: &LimitsRow) -> Option<String> {
    let until = match limits.paused?.until_ms {
        Some(until) => format!("until {}", date(i64::try_from(until).unwrap_or(i64::MAX))),
        None => "until `coffer resume`".to_owned(),
    };
    Some(format!("{until}; no contents of files are sent or fetched"))
}

/// How fast files go at most, if there is a limit.
pub fn describe_limits(limits: &LimitsRow) -> Option<String> {
    let rate = |way, limit: Option<u64>| limit.map(|limit| format!("{way} {}/s", bytes(limit)));
    let parts: Vec<String> = [rate("up", limits.up), rate("down", limits.down)]
        .into_iter()
        .flatten()
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn sync(state: &Status) -> String {
    let others = state.devices.iter().filter(|device| !device.device.this);
    let (count_all, connected) = others.fold((0, 0), |(all, connected), device| {
        (all + 1, connected + u64::from(device.device.connected))
    });
    if state.in_sync {
        return match state.storage.mode {
            StorageMode::Full if state.devices.iter().all(keeps_all) => {
                "in sync: every device holds everything".to_owned()
            }
            _ => "in sync: every device holds what it is to keep".to_owned(),
        };
    }
    if count_all == 0 {
        return "this is the only device; add another with `coffer pair`".to_owned();
    }
    let here = if state.idle {
        "nothing left to do here"
    } else {
        "working"
    };
    format!(
        "{here}; {connected} of {} connected",
        count(count_all, "other device", "other devices")
    )
}

fn keeps_all(device: &DeviceStatus) -> bool {
    let holding = device.holding.as_ref();
    holding.is_none_or(|holding| holding.keeps_all)
}

/// Whether every device that is connected has said what it holds of all that is known here: before, who has what is not
/// told by its silence.
fn have_said_all(state: &Status) -> bool {
    let others = state.devices.iter().filter(|device| !device.device.this);
    others
        .filter(|device| device.device.connected)
        .all(|device| {
            let holding = device.holding.as_ref();
            holding.is_some_and(|holding| holding.lacks.changes == 0)
        })
}

/// Other devices that give nothing now.
fn paused_on(state: &Status) -> String {
    let paused = state.devices.iter().filter(|device| device.paused);
    let names: Vec<_> = paused.map(|device| shown(&device.device.name)).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!("; transfers are paused on {}", names.join(", ")),
    }
}

/// How much is lacking, in words.
pub fn missing(missing: &Missing) -> String {
    let mut parts = Vec::new();
    if missing.changes > 0 {
        parts.push(count(missing.changes, "change", "changes"));
    }
    if missing.files > 0 {
        parts.push(format!(
            "{} ({})",
            count(missing.files, "file", "files"),
            bytes(missing.bytes)
        ));
    }
    if parts.is_empty() {
        bytes(missing.bytes)
    } else {
        parts.join(", ")
    }
}

fn describe_device(text: &mut String, status: &DeviceStatus, state: &Status, now_ms: u64) {
    let device = &status.device;
    let reach = match &status.reach {
        Reach::Here => "this device".to_owned(),
        Reach::Connected {
            address,
            relayed,
            through,
            in_per_s,
            out_per_s,
            ..
        } => {
            // The address names the transport.
            let mut reach = if *relayed {
                format!("connected through {}", host(through.as_deref(), state))
            } else {
                format!("connected, {}", shown(address))
            };
            if in_per_s + out_per_s > 0 {
                let _ = write!(
                    reach,
                    ", {}/s in, {}/s out",
                    bytes(*in_per_s),
                    bytes(*out_per_s)
                );
            }
            if status.paused {
                reach.push_str(", transfers are paused there");
            }
            reach
        }
        Reach::Trying {
            addresses,
            last_error,
        } => {
            let mut reach = format!("not connected, {}", seen(device.last_seen_ms, now_ms));
            let _ = write!(
                reach,
                "; trying {}",
                count(addresses.len() as u64, "address", "addresses")
            );
            if let Some(error) = last_error {
                let _ = write!(reach, " ({})", shown(error));
            }
            reach
        }
        Reach::Unknown => format!("not connected, {}", seen(device.last_seen_ms, now_ms)),
    };
    let _ = writeln!(text, "  {:<20} {reach}", shown(&device.name));
    match &status.holding {
        Some(holding) => {
            let _ = writeln!(text, "  {:<20} {}", "", holds(holding, now_ms));
        }
        None if !device.this => {
            let _ = writeln!(text, "  {:<20} has not said yet what it holds", "");
        }
        None => {}
    }
}

/// The host in the middle, by its name where that is known.
fn host(id: Option<&str>, state: &Status) -> String {
    let found = state
        .devices
        .iter()
        .find(|device| Some(device.device.id.as_str()) == id);
    found.map_or("a host".to_owned(), |device| {
        format!("the host {}", shown(&device.device.name))
    })
}

fn seen(last_seen_ms: Option<u64>, now_ms: u64) -> String {
    last_seen_ms.map_or("not seen yet".to_owned(), |at| {
        format!("last seen {}", ago(at, now_ms))
    })
}

fn holds(holding: &Holding, now_ms: u64) -> String {
    let lacks = &holding.lacks;
    let what = if *lacks == Missing::default() {
        "holds all that is here".to_owned()
    } else {
        format!("lacks {} of what is here", missing(lacks))
    };
    let keeps = match (holding.keeps_all, holding.awaits) {
        (true, 0) => "",
        (false, 0) => "; keeps some contents only",
        (_, 1..) => "; not done with what it is to keep, see `coffer status` there",
    };
    format!("{what} (said {}){keeps}", ago(holding.as_of_ms, now_ms))
}

#[cfg(test)]
pub(super) mod tests {
    use coffer_node::control::{
        DeviceRow, FolderIssue, FolderState, FolderStatus, HeldLog, PausedRow, RecoveryState,
        Transfer, VaultStatus, Warning,
    };

    use super::*;

    fn device(name: &str, this: bool, reach: Reach, holding: Option<Holding>) -> DeviceStatus {
        let connected = !matches!(reach, Reach::Trying { .. } | Reach::Unknown);
        let device = DeviceRow {
            id: format!("{name}-0123456789abcdef"),
            name: name.into(),
            role: "owner".into(),
            this,
            admitted_ms: 0,
            connected,
            last_seen_ms: Some(1_000_000),
        };
        DeviceStatus {
            device,
            reach,
            contents_in: 0,
            contents_out: 0,
            paused: false,
            holding,
        }
    }

    pub(in crate::commands::status) fn state() -> Status {
        let lacks = Missing {
            changes: 3,
            files: 2,
            bytes: 1_200_000,
        };
        let holding = Holding {
            as_of_ms: 1_000_000,
            changes: vec![HeldLog {
                device: "laptop".into(),
                incarnation: 0,
                upto: 9,
                contents_upto: 9,
            }],
            lacks,
            keeps_all: true,
            awaits: 0,
        };
        let connected = Reach::Connected {
            address: "192.0.2.7:4100/tcp".into(),
            transport: "tcp".into(),
            relayed: false,
            through: None,
            since_ms: 0,
            in_per_s: 0,
            out_per_s: 84_000_000,
            bytes_in: 0,
            bytes_out: 0,
        };
        Status {
            hosts: Vec::new(),
            version: "0.1.0".into(),
            pid: 7,
            uptime_s: 130,
            data_dir: "/data".into(),
            locked: false,
            protected_by: Default::default(),
            free_bytes: None,
            listening: vec![],
            vault: Some(VaultStatus {
                id: "0123456789abcdef".into(),
                created_ms: 0,
                documents: 1234,
                files: 1,
                folders: 2,
                file_bytes: 999,
            }),
            devices: vec![
                device("laptop", true, Reach::Here, None),
                device("desktop", false, connected, Some(holding)),
                device("attic\u{1b}[2J", false, Reach::Unknown, None),
            ],
            idle: false,
            in_sync: false,
            only_here: lacks,
            missing_here: Missing::default(),
            storage: coffer_node::control::StorageStatus::default(),
            transfers: vec![Transfer {
                device: "desktop-0123456789abcdef".into(),
                direction: Direction::Out,
                files_left: Some(2),
                bytes_left: Some(1_200_000),
                bytes_done: 5_000,
                per_s: 84_000_000,
            }],
            conflicts: 1,
            limits: LimitsRow {
                up: Some(2_000_000),
                down: None,
                paused: Some(PausedRow {
                    until_ms: Some(1_795_392_270_000),
                }),
            },
            folders: vec![FolderStatus {
                dir: "/home/ana/Documents".into(),
                to: "Documents".into(),
                in_trash: false,
                state: FolderState::InSync,
                files: 1,
                folders: 2,
                bytes: 999,
                to_record: 0,
                to_write: 0,
                scanned_ms: None,
                errors: vec![FolderIssue {
                    path: "a:b".into(),
                    text: "this disk takes no colon in names".into(),
                }],
                error_count: 3,
                conflicts: vec![],
                conflict_count: 0,
                brake: None,
            }],
            recovery: RecoveryState::Unconfirmed,
            rehearsed_ms: Some(1_000_000),
            lock: None,
            backup: None,
            warnings: vec![Warning {
                code: "x".into(),
                text: "Nobody has the 24 words.".into(),
            }],
        }
    }

    #[test]
    fn a_path_through_a_host_names_the_host() {
        let mut state = state();
        let through = |id: Option<&str>| Reach::Connected {
            address: "192.0.2.9:26333/quic".into(),
            transport: "quic".into(),
            relayed: true,
            through: id.map(str::to_owned),
            since_ms: 0,
            in_per_s: 0,
            out_per_s: 0,
            bytes_in: 0,
            bytes_out: 0,
        };
        state.devices[0].reach = through(Some("desktop-0123456789abcdef"));
        state.devices[1].reach = through(Some("unknown"));
        let text = describe(&state, 1_180_000);
        for line in [
            "  laptop               connected through the host desktop\n",
            "  desktop              connected through a host\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn the_state_reads_as_a_page() {
        let expected = "\
Vault      0123456789ab
Holds      1,234 documents, 1 file in 2 folders (999 B)
Data       /data
Running    for 2 minutes, version 0.1.0, process 7
Sync       working; 1 of 2 other devices connected
Paused     until 2026-11-23 00:04 UTC; no contents of files are sent or fetched
Limits     up 2.0 MB/s
Only here  3 changes, 2 files (1.2 MB), on no other device as far as known
Kit        tried 3 minutes ago, and it worked

Devices
  laptop               this device
  desktop              connected, 192.0.2.7:4100/tcp, 0 B/s in, 84 MB/s out
                       lacks 3 changes, 2 files (1.2 MB) of what is here (said 3 minutes ago)
  attic\\u{1b}[2J       not connected, last seen 3 minutes ago
                       has not said yet what it holds

Transfers
  to desktop: 84 MB/s, 1.2 MB left in 2 files

Folders
  /home/ana/Documents <-> Documents: up to date; 1 file (999 B)
    could not: a:b: this disk takes no colon in names
    and 2 more

Warning: Nobody has the 24 words.
";
        assert_eq!(describe(&state(), 1_180_000), expected);
    }
}
