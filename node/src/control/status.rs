//! The honest sync state. A field is filled from what this device's store and other devices' signed statements say,
//! never from a guess; what is not known is absent.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::limits::LimitsRow;

/// The state of a running node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Program version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// How long it has been running, in seconds.
    pub uptime_s: u64,
    /// The data folder.
    pub data_dir: PathBuf,
    /// Whether this device is locked: nothing of the vault is known then, and nothing is in sync.
    #[serde(default)]
    pub locked: bool,
    /// What this device's keys are sealed with.
    #[serde(default)]
    pub protected_by: super::Protection,
    /// Bytes free on the data folder's file system, where it tells.
    pub free_bytes: Option<u64>,
    /// Addresses listened on, `HOST:PORT/transport`.
    pub listening: Vec<String>,
    /// The vault; absent on a node that waits to join one.
    pub vault: Option<VaultStatus>,
    /// All devices, this one first; hosts are apart.
    pub devices: Vec<DeviceStatus>,
    /// The relay hosts in use.
    #[serde(default)]
    pub hosts: Vec<super::HostRow>,
    /// Nothing is left to do here: no folder being looked through, nothing waiting to be read, committed, fetched or
    /// applied. Says nothing of other devices.
    pub idle: bool,
    /// `idle`, at least one other device is connected, and every device of the vault that counts is known (by its own signed statement) to hold all
    /// changes that this device holds, with all contents that it is to keep, and this one all that they hold.
    pub in_sync: bool,
    /// What this device holds and no other is known to.
    pub only_here: Missing,
    /// What this device is to hold and does not hold yet. What is on demand is not among it. Of large files under way only
    /// the bytes that have not come are counted.
    pub missing_here: Missing,
    /// What this device keeps, and what would be lost with it.
    #[serde(default)]
    pub storage: super::StorageStatus,
    /// Contents under way.
    pub transfers: Vec<Transfer>,
    /// What transfers are held to on this device.
    #[serde(default)]
    pub limits: LimitsRow,
    /// Folders kept in sync on this device.
    pub folders: Vec<FolderStatus>,
    /// Files of which two contents are kept, in the whole vault.
    #[serde(default)]
    pub conflicts: u64,
    /// Whether the 24 words are in a person's hands.
    pub recovery: RecoveryState,
    /// When the recovery kit was last found to work from this device, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsed_ms: Option<u64>,
    /// The lock: when it was changed, and how often it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<super::LockStatus>,
    /// The last backup that this device made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<super::BackupStatus>,
    /// What a person should know, most pressing first.
    pub warnings: Vec<Warning>,
}

/// What a vault holds, as far as this device knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultStatus {
    /// Vault id.
    pub id: String,
    /// When it was created.
    pub created_ms: u64,
    /// Documents that are not files.
    pub documents: u64,
    /// Files.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Bytes of the files' present contents.
    pub file_bytes: u64,
}

/// Who a device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    /// Device id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `owner`, `member`, `reader` or `relay`.
    pub role: String,
    /// Whether it is this one.
    pub this: bool,
    /// When it was admitted.
    pub admitted_ms: u64,
    /// Whether it is connected now (always, for this one).
    pub connected: bool,
    /// When it was last connected, where known.
    pub last_seen_ms: Option<u64>,
}

/// A device, how it is reached, and what it is known to hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Who it is.
    #[serde(flatten)]
    pub device: DeviceRow,
    /// How it is reached.
    pub reach: Reach,
    /// Bytes of sealed contents that came from it since coffer was started here.
    pub contents_in: u64,
    /// Bytes of sealed contents that went to it since coffer was started here.
    pub contents_out: u64,
    /// Whether it said, when it was asked for contents, that transfers are paused there, and not since that they go on.
    #[serde(default)]
    pub paused: bool,
    /// What it is known to hold, by its own latest signed statement; absent where none has arrived.
    pub holding: Option<Holding>,
}

/// How a device is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "state",
    rename_all = "kebab-case",
    rename_all_fields = "snake_case"
)]
pub enum Reach {
    /// It is this device.
    Here,
    /// Connected.
    Connected {
        /// `HOST:PORT/transport`; of a path through a host, that host's.
        address: String,
        /// `tcp` or `quic`.
        transport: String,
        /// Through a host of the person's own rather than directly.
        relayed: bool,
        /// The id of that host.
        through: Option<String>,
        /// Since when.
        since_ms: u64,
        /// Bytes per second arriving from it, over the last seconds.
        in_per_s: u64,
        /// Bytes per second going to it, over the last seconds.
        out_per_s: u64,
        /// Bytes that arrived since the connection began.
        bytes_in: u64,
        /// Bytes that went since the connection began.
        bytes_out: u64,
    },
    /// Not connected; being tried.
    Trying {
        /// Addresses known, `HOST:PORT/transport`.
        addresses: Vec<String>,
        /// Why the last try failed.
        last_error: Option<String>,
    },
    /// Not connected, and no address is known.
    Unknown,
}

/// What a device is known to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// When it said so, by its own clock.
    pub as_of_ms: u64,
    /// How far it holds each device's changes.
    pub changes: Vec<HeldLog>,
    /// What this device holds and that one is not known to.
    pub lacks: Missing,
    /// Whether it keeps all contents (`true`), or only some and may drop them.
    pub keeps_all: bool,
    /// Contents that it is to keep and lacks, as many as it counted, and folders of it that wait for a person.
    pub awaits: u64,
}

/// How far one device's changes are held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldLog {
    /// The device that made the changes.
    pub device: String,
    /// Which run of that device's data folder, from 0; it grows when the folder was copied or restored.
    pub incarnation: u32,
    /// Batches of changes held, all from the first to this one.
    pub upto: u64,
    /// Contents named up to this batch are held as well.
    pub contents_upto: u64,
}

/// How much is lacking somewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Batches of changes.
    pub changes: u64,
    /// Files whose content is lacking.
    pub files: u64,
    /// Bytes of content.
    pub bytes: u64,
}

/// Contents under way to or from one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Device id.
    pub device: String,
    /// Which way.
    pub direction: Direction,
    /// Files left; those that are worked on included. Absent where the receiving side alone knows.
    pub files_left: Option<u64>,
    /// Bytes of content left, of files under way those that have not come.
    pub bytes_left: Option<u64>,
    /// Bytes of content since coffer was started on this device, of earlier transfers too.
    pub bytes_done: u64,
    /// Bytes of content per second, over the last seconds.
    pub per_s: u64,
}

/// Which way contents go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// To this device.
    In,
    /// To the other device.
    Out,
}

/// A folder kept in sync on this device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderStatus {
    /// Absolute path of this machine.
    pub dir: PathBuf,
    /// Path in the vault; that which it had, where it is in the trash.
    pub to: String,
    /// Whether the vault's folder is in the trash.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_trash: bool,
    /// What it is doing.
    #[serde(flatten)]
    pub state: FolderState,
    /// Files in sync.
    pub files: u64,
    /// Folders in sync.
    pub folders: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Files found changed here, not yet recorded.
    pub to_record: u64,
    /// Files changed in the vault, not yet written here.
    pub to_write: u64,
    /// When it was last looked through in full; absent until that was done once since the start.
    pub scanned_ms: Option<u64>,
    /// What could not be done, at most some twenty.
    pub errors: Vec<FolderIssue>,
    /// How many there are altogether.
    pub error_count: u64,
    /// Paths of conflict copies, at most some twenty.
    pub conflicts: Vec<String>,
    /// How many there are altogether.
    pub conflict_count: u64,
    /// What the brake holds back, while the state is `braked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brake: Option<FolderBrake>,
}

/// What disappeared or was rewritten in a folder at once, and is not believed until a person says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderBrake {
    /// Files that disappeared.
    pub gone: u64,
    /// Files that were rewritten.
    pub rewritten: u64,
    /// Paths of some of them, relative to the folder; at most some twenty.
    pub names: Vec<String>,
}

/// Which content of a conflict stays under the plain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The one that has it.
    Mine,
    /// The copy's.
    Theirs,
    /// Each, as files of their own.
    Both,
}

/// A file of which two contents are kept, because two devices changed it apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictRow {
    /// Path in the vault of the file with the plain name.
    pub path: String,
    /// Path in the vault of the other one, named as a conflict.
    pub copy: String,
    /// Name of the device that wrote what is in the copy.
    pub device: String,
    /// When it did, by the copy's name: `2026-11-22`.
    pub date: String,
    /// When the copy was recorded, in milliseconds since 1970.
    pub at_ms: u64,
    /// Bytes of the file with the plain name; absent for a folder.
    pub size: Option<u64>,
    /// Bytes of the copy; absent for a folder.
    pub copy_size: Option<u64>,
    /// Id of the copy.
    pub id: String,
}

/// What a folder is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "state",
    rename_all = "kebab-case",
    rename_all_fields = "snake_case"
)]
pub enum FolderState {
    /// Looking through it.
    Scanning,
    /// Recording or writing changes.
    Working,
    /// Everything found is recorded, everything recorded is written; waiting for changes.
    InSync,
    /// The folder is not there (a disk that is not mounted?); nothing is concluded from that.
    NotThere,
    /// So much was deleted or rewritten at once that the folder rests until a person says that it was meant.
    Braked,
    /// Stopped until a person does something.
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Something in a folder that could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderIssue {
    /// Path relative to the folder; the folder's own, absolute, where all of it is meant.
    pub path: String,
    /// What, as a sentence without a full stop.
    pub text: String,
}

/// Whether the 24 words are in a person's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecoveryState {
    /// A person has seen and confirmed them.
    Confirmed,
    /// Nobody has, and this device can show them.
    Unconfirmed,
    /// Nobody has, as far as this device knows, and another device is the one that can show them.
    Elsewhere,
    /// There is no vault yet.
    NoVault,
}

/// Something a person should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// A short name for scripts, such as `recovery-unconfirmed`.
    pub code: String,
    /// One sentence.
    pub text: String,
}
