//! The honest sync state: what this device's store and other devices' signed statements say, and nothing else.

mod known;
mod reach;

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_protocol::grants::Role;
use coffer_protocol::held::Held;
use coffer_protocol::identity::{DeviceId, WriterId};

use super::Node;
use super::figures::{self, Look};
use super::running::{Running, commit_error};
use super::storage::Due;
use crate::control::{
    ControlError, DeviceRow, DeviceStatus, Direction, ErrorKind, FolderState, FolderStatus,
    HeldLog, Holding, LimitsRow, Missing, Reach, RecoveryState, Reply, Status, StorageStatus,
    Transfer, VaultStatus, Warning,
};
use crate::net::Net;

pub use known::Known;
pub use reach::{reach, show_address};

use known::{beyond, changes_only_here, first_device, missing_changes};
use reach::last_addresses;

/// Free space under which a person is warned, in bytes.
const LOW_SPACE: u64 = 256 << 20;

/// Whether nothing is left to do here, and whether every device is known to agree.
pub async fn sync_state(
    node: &Arc<Node>,
    running: &Arc<Running>,
) -> Result<(bool, bool), ControlError> {
    let settled = is_settled(running).await;
    let known = running
        .vault
        .glance(Known::read)
        .await
        .map_err(commit_error)?;
    Ok(judge(node, running, settled, &known))
}

/// Whether folders and contents are at rest. To be asked before the core is: what a folder records while it is asked is
/// then seen in the core, and counts as not known to be elsewhere. The other way about it would be overlooked.
async fn is_settled(running: &Arc<Running>) -> bool {
    running.folders.all_settled().await && !running.keeper.is_busy()
}

fn judge(node: &Arc<Node>, running: &Arc<Running>, settled: bool, known: &Known) -> (bool, bool) {
    let me = running.vault.device();
    let behind = known
        .announced
        .values()
        .any(|clock| !known.clock.covers_clock(clock));
    let has_all = || known.wanted == 0 || Due::any(running, &known.storage).is_ok_and(|any| !any);
    let idle = settled && !known.stale && !behind && has_all();
    // What one said in an earlier session is not what it has by now.
    let (greeted, silent): (Vec<_>, Vec<_>) = known
        .others(me)
        .map(|(device, _)| device)
        .partition(|device| known.greeted.contains(device));
    let is_speechless = node
        .net()
        .is_some_and(|net| silent.iter().any(|device| net.is_connected(&device.0)));
    let connected = !greeted.is_empty() && !is_speechless;
    let agree = known
        .others(me)
        .all(|(_, held)| held.is_some_and(|held| known.agrees(held)));
    (idle, idle && connected && agree)
}

/// Whether several nodes have the keys of a device.
fn is_several(net: &Net, device: &str) -> bool {
    let id = hex::decode(device).ok().and_then(|id| id.try_into().ok());
    id.is_some_and(|id| net.is_several(&id))
}

/// `status`.
pub async fn status(node: &Arc<Node>) -> Result<Reply, ControlError> {
    let net = node.net();
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        uptime_s: node.started.elapsed().as_secs(),
        data_dir: node.data_dir().to_path_buf(),
        locked: node.awake().is_err(),
        protected_by: node.locking.protected_by(),
        free_bytes: free_bytes(node.data_dir()),
        listening: net
            .map(|net| net.listen_addresses().iter().map(show_address).collect())
            .unwrap_or_default(),
        vault: None,
        devices: Vec::new(),
        hosts: Vec::new(),
        idle: true,
        in_sync: false,
        only_here: Missing::default(),
        missing_here: Missing::default(),
        storage: StorageStatus::default(),
        transfers: Vec::new(),
        limits: LimitsRow::default(),
        folders: Vec::new(),
        conflicts: 0,
        recovery: RecoveryState::NoVault,
        rehearsed_ms: None,
        lock: None,
        backup: None,
        warnings: Vec::new(),
    };
    match node.vault().await {
        Ok(running) => fill(node, &running, &mut status).await?,
        Err(error) if matches!(error.kind, ErrorKind::NoVault | ErrorKind::Locked) => {}
        Err(error) => return Err(error),
    }
    if status.free_bytes.is_some_and(|free| free < LOW_SPACE) {
        status.warnings.push(Warning {
            code: "low-space".into(),
            text: "The disk of the vault is nearly full.".into(),
        });
    }
    Ok(Reply::Status(Box::new(status)))
}

async fn fill(
    node: &Arc<Node>,
    running: &Arc<Running>,
    status: &mut Status,
) -> Result<(), ControlError> {
    let settled = is_settled(running).await;
    let known = running.vault.glance(Known::read).await;
    let known = Arc::new(known.map_err(commit_error)?);
    let me = running.vault.device();
    (status.idle, status.in_sync) = judge(node, running, settled, &known);
    let index = running.index.clone();
    let documents = tokio::task::spawn_blocking(move || index.count())
        .await
        .ok()
        .and_then(Result::ok)
        .unwrap_or(0);
    let look = running.figures.look(running, &known, status.idle).await?;
    status.vault = Some(VaultStatus {
        id: known.vault.to_string(),
        created_ms: known.created_ms,
        documents,
        files: look.files.files,
        folders: look.folders,
        file_bytes: look.files.bytes,
    });
    let mut due = look.due;
    // What came of a file that is not whole yet is not to come any more.
    due.bytes = due
        .bytes
        .saturating_sub(Due::come(running, &known.storage)?);
    let rates = running.blobs.rates();
    let paused = running.blobs.paused_elsewhere().borrow().devices.clone();
    for (device, ..) in known
        .devices
        .iter()
        .filter(|(_, role, ..)| role.holds_keys())
    {
        let row = row(node, &known, *device, me, running);
        let rate = rates.get(device).copied().unwrap_or_default();
        let reach = if *device == me {
            Reach::Here
        } else {
            reach(node, *device, rate, last_addresses(running, *device))
        };
        let holding = known
            .held
            .get(device)
            .filter(|_| *device != me)
            .map(|held| holding(&known, held, &look));
        let lacks_files = holding
            .as_ref()
            .is_some_and(|holding: &Holding| holding.lacks.files > 0);
        let entry = DeviceStatus {
            device: row,
            reach,
            contents_in: rate.received,
            contents_out: rate.sent,
            paused: paused.contains(device),
            holding,
        };
        if *device == me {
            status.devices.insert(0, entry)
        } else {
            status.devices.push(entry)
        }
        // Bytes of some moments ago are no transfer: something is on its way, or was and more is to come.
        if rate.is_receiving || rate.received_per_second > 0 && !status.idle && due.files > 0 {
            status.transfers.push(Transfer {
                device: device.to_string(),
                direction: Direction::In,
                files_left: (due.files > 0).then_some(due.files),
                bytes_left: (due.files > 0).then_some(due.bytes),
                bytes_done: rate.received,
                per_s: rate.received_per_second,
            });
        }
        if rate.is_sending || rate.sent_per_second > 0 && lacks_files {
            status.transfers.push(Transfer {
                device: device.to_string(),
                direction: Direction::Out,
                files_left: None,
                bytes_left: None,
                bytes_done: rate.sent,
                per_s: rate.sent_per_second,
            });
        }
    }
    status.hosts = super::hosts::rows(node, running).await?;
    status.only_here = figures::missing(
        changes_only_here(&known, me, &BTreeMap::new()),
        look.only_here,
    );
    status.missing_here = figures::missing(missing_changes(&known), due);
    status.limits = running.limiting.row();
    status.storage = look.storage.clone();
    status.folders = running.folders.statuses(running, &look.conflicts);
    status.conflicts = look.conflicts.len() as u64;
    status.recovery = if known.has_recovery {
        RecoveryState::Unconfirmed
    } else if first_device(&known) == Some(me) {
        RecoveryState::Confirmed
    } else {
        RecoveryState::Elsewhere
    };
    let recovery = super::recovery::known(running)?;
    status.rehearsed_ms = recovery.rehearsed_ms;
    status.lock = Some(super::relocking::status(running)?);
    status.backup = super::backup::status(running, &known.clock)?;
    status.warnings.extend(recovery.warning(me, &known.held));
    if known.has_recovery {
        status.warnings.push(Warning {
            code: "recovery-unconfirmed".into(),
            text: "If all your devices are lost, nobody can bring your data back: write down the recovery words with \"coffer recovery show\"."
                .into(),
        });
    }
    if status.devices.len() == 1 && status.hosts.is_empty() {
        status.warnings.push(Warning {
            code: "one-device".into(),
            text: "This is the only device of the vault, so what it holds is nowhere else.".into(),
        });
    }
    if running.moved {
        status.warnings.push(Warning {
            code: "data-folder-moved".into(),
            text: "This data folder was moved or copied since coffer last ran on it; where the other copy runs as well, both go on by themselves and agree in the end."
                .into(),
        });
    }
    for device in &status.devices {
        let net = node.net();
        if net.is_some_and(|net| is_several(&net, &device.device.id)) {
            status.warnings.push(Warning {
                code: "device-twice".into(),
                text: format!(
                    "Two computers run with the keys of the device \"{}\": one has a copy of the other's data folder. They are talked to by turns. Keep one of them: stop coffer on the other once this says \"in sync\", remove its data folder, and pair it as a device of its own.",
                    device.device.name
                ),
            });
        }
    }
    for folder in &status.folders {
        match &folder.state {
            FolderState::Braked => status.warnings.push(Warning {
                code: "folder-braked".into(),
                text: braked(folder),
            }),
            FolderState::NotThere => status.warnings.push(Warning {
                code: "folder-missing".into(),
                text: format!(
                    "The folder {dir} is not there; nothing is taken as deleted. Connect its disk or move it back; \
                     if it is gone for good, end its syncing with \"coffer folder remove {dir}\".",
                    dir = folder.dir.display()
                ),
            }),
            FolderState::Stopped { reason } => status.warnings.push(Warning {
                code: "folder-stopped".into(),
                text: format!(
                    "The folder {} is not kept in sync: {reason}.",
                    folder.dir.display()
                ),
            }),
            _ => {}
        }
    }
    if status.conflicts > 0 {
        status.warnings.push(Warning {
            code: "conflicts".into(),
            text: format!(
                "Two devices changed the same file apart ({} to settle): see \"coffer folder conflicts\".",
                status.conflicts
            ),
        });
    }
    status
        .warnings
        .extend(super::hosts::warnings(&status.hosts));
    status
        .warnings
        .extend(running.checking.warnings(running).await);
    status
        .warnings
        .extend(super::devices::warnings(running).await?);
    Ok(())
}

/// What the brake of a folder holds, and the ways out.
fn braked(folder: &FolderStatus) -> String {
    let brake = folder.brake.clone().unwrap_or_default();
    let what = match (brake.gone, brake.rewritten) {
        (gone, 0) => format!("{gone} files disappeared"),
        (0, rewritten) => format!("{rewritten} files were rewritten"),
        (gone, rewritten) => format!("{gone} files disappeared and {rewritten} were rewritten"),
    };
    let dir = folder.dir.display();
    format!(
        "In the folder {dir} {what} at once, so it rests and no more of that is done elsewhere. \
         If it was meant, say so with \"coffer folder confirm {dir}\"; \
         to bring the files back, \"coffer folder undo {dir}\"."
    )
}

fn holding(known: &Known, held: &Held, look: &Look) -> Holding {
    let changes = held.entries.iter().map(|(writer, seq, _)| HeldLog {
        device: writer.device.to_string(),
        incarnation: writer.incarnation,
        upto: seq,
        contents_upto: held.chunks.seq(writer),
    });
    let behind = beyond(&known.clock, |writer| held.entries.seq(writer));
    Holding {
        as_of_ms: held.at_ms,
        changes: changes.collect(),
        lacks: look.lacks(&held.device, behind),
        keeps_all: held.pinned,
        awaits: held.awaited,
    }
}

/// What no other device is known to hold: changes, and files with those in the trash, by statements. Of logs in `taken` others
/// are known to have so many entries besides.
pub(super) async fn only_here(
    running: &Arc<Running>,
    taken: &BTreeMap<WriterId, u64>,
) -> Result<Missing, ControlError> {
    let known = running
        .vault
        .glance(Known::read)
        .await
        .map_err(commit_error)?;
    let changes = changes_only_here(&known, running.vault.device(), taken);
    let of = running.clone();
    let files = tokio::task::spawn_blocking(move || figures::only_here(&of, &known));
    let files = files
        .await
        .map_err(|error| ControlError::internal(error.to_string()))?;
    Ok(figures::missing(changes, files))
}

fn row(node: &Node, known: &Known, device: DeviceId, me: DeviceId, running: &Running) -> DeviceRow {
    let found = known.devices.iter().find(|(id, ..)| *id == device);
    let name = if device == me {
        Some(running.vault.device_label())
    } else {
        found.and_then(|(_, _, name, _)| name.clone())
    };
    DeviceRow {
        id: device.to_string(),
        name: name.unwrap_or_else(|| "unknown".into()),
        role: match found.map(|(_, role, ..)| *role) {
            Some(Role::Owner) => "owner",
            Some(Role::Member) => "member",
            Some(Role::Reader) => "reader",
            Some(Role::Relay) => "relay",
            None => "unknown",
        }
        .into(),
        this: device == me,
        admitted_ms: found.map_or(0, |(.., admitted)| *admitted),
        connected: device == me
            || node
                .net()
                .as_ref()
                .is_some_and(|net| net.is_connected(&device.0)),
        last_seen_ms: known.held.get(&device).map(|held| held.at_ms),
    }
}

/// One device, as lists show it.
pub async fn device_row(
    node: &Arc<Node>,
    running: &Arc<Running>,
    device: DeviceId,
) -> Result<DeviceRow, ControlError> {
    let known = running
        .vault
        .glance(Known::read)
        .await
        .map_err(commit_error)?;
    Ok(row(node, &known, device, running.vault.device(), running))
}

/// `device list`.
pub async fn devices(node: &Arc<Node>) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let known = running
        .vault
        .glance(Known::read)
        .await
        .map_err(commit_error)?;
    let me = running.vault.device();
    let mut devices: Vec<DeviceRow> = known
        .devices
        .iter()
        .filter(|(_, role, ..)| role.holds_keys())
        .map(|(device, ..)| row(node, &known, *device, me, &running))
        .collect();
    devices.sort_by_key(|device| (!device.this, device.admitted_ms));
    Ok(Reply::Devices { devices })
}

/// Bytes free on the disk of a path, where it tells.
pub fn free_bytes(path: &std::path::Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}
