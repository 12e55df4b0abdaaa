//! What a node answers: the final [`Reply`], and what may come before it ([`Progress`], [`Item`]s).
//!
//! Times are milliseconds since 1970-01-01 UTC, sizes bytes, ids and revisions lower-case hex.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::check::CheckReport;
use super::documents::{Ack, DocumentReply, DocumentRow, Revision};
use super::events::Event;
use super::limits::LimitsRow;
use super::status::{ConflictRow, DeviceRow, FolderStatus, Status};

/// The last line of an answered request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "reply",
    rename_all = "kebab-case",
    rename_all_fields = "snake_case"
)]
pub enum Reply {
    /// It is done and there is nothing to add.
    Done,
    /// A vault was created.
    Created {
        /// Vault id.
        vault: String,
        /// This device, its first.
        device: DeviceRow,
    },
    /// The state of the node.
    Status(Box<Status>),
    /// A device was admitted.
    Paired {
        /// The new device.
        device: DeviceRow,
    },
    /// This device was admitted.
    Joined {
        /// Vault id.
        vault: String,
        /// This device.
        device: DeviceRow,
        /// The device that let it in.
        via: DeviceRow,
    },
    /// The device is locked.
    Locked {
        /// It was locked before.
        already: bool,
    },
    /// The device is unlocked.
    Unlocked {
        /// It was unlocked before.
        already: bool,
    },
    /// The device's keys are sealed so.
    Protected {
        /// With what.
        by: super::Protection,
        /// With what they were sealed before.
        before: super::Protection,
    },
    /// The words were typed back and are on no device any more.
    RecoveryConfirmed,
    /// The kit would work today.
    RecoveryRehearsed {
        /// Keys of the vault that its words open: all that this device has.
        keys: u64,
        /// Hosts that would hand out the vault for them.
        hosts: u64,
    },
    /// This device is in the vault again.
    Recovered {
        /// Vault id.
        vault: String,
        /// This device.
        device: DeviceRow,
        /// Devices and hosts that showed the vault, and took this device in.
        sources: u64,
        /// Whether more than one host alone showed it: what is newest may be missing otherwise.
        confirmed: bool,
    },
    /// The vault is in a backup.
    BackedUp(super::BackupDone),
    /// The runs of a backup.
    Backups {
        /// Oldest first.
        runs: Vec<super::BackupRun>,
    },
    /// A backup was read.
    BackupVerified(super::BackupVerified),
    /// Files of a backup were written.
    BackupRestored {
        /// The run that they are as of.
        run: super::BackupRun,
        /// Documents written.
        documents: u64,
        /// Files written.
        files: u64,
        /// Bytes written.
        bytes: u64,
        /// Where.
        dir: PathBuf,
        /// What was not written, and why.
        skipped: Vec<Skipped>,
    },
    /// All devices of the vault.
    Devices {
        /// This one first, then by name.
        devices: Vec<DeviceRow>,
    },
    /// A device is out.
    DeviceRevoked(super::DeviceRevoked),
    /// A device has this role.
    DeviceRole {
        /// Its name.
        name: String,
        /// Its id.
        device: String,
        /// `owner`, `member` or `reader`.
        role: String,
    },
    /// Who was let in, put out or given another role.
    DeviceLog {
        /// Oldest first.
        rows: Vec<super::LogRow>,
    },
    /// The vault is written under a new key from now on.
    KeyRotated {
        /// Devices that have it.
        devices: u64,
    },
    /// How often the key is changed by itself from now on.
    LockSchedule(super::LockStatus),
    /// The node ends, and this device's copy goes with it.
    CopyErased(super::ErasedCopy),
    /// One document.
    Document(DocumentReply),
    /// A document was written, durably.
    Written {
        /// Document type.
        doctype: String,
        /// Document id.
        id: String,
        /// The new revision; absent when nothing was different.
        revision: Option<String>,
    },
    /// A document was purged, durably.
    Purged {
        /// Document type.
        doctype: String,
        /// Document id.
        id: String,
        /// Other devices of the vault that may have it.
        devices: u64,
        /// How many of these are connected, and so forget it now.
        told: u64,
    },
    /// What was done with the lines of a `DocLines`.
    Lines {
        /// Lines that changed a document.
        written: u64,
        /// Lines that changed nothing.
        unchanged: u64,
        /// Lines that were refused; their acknowledgements say why.
        failed: u64,
    },
    /// The earlier states of a document.
    Revisions {
        /// Latest first.
        revisions: Vec<Revision>,
    },
    /// The end of a listing sent as items.
    Listed {
        /// How many rows were sent.
        count: u64,
        /// Whether the limit left some out.
        more: bool,
    },
    /// Files were added.
    FilesAdded {
        /// Files whose content was read.
        files: u64,
        /// Folders created.
        folders: u64,
        /// Bytes of content.
        bytes: u64,
        /// Files that the vault had already, unchanged.
        unchanged: u64,
        /// What could not be added.
        skipped: Vec<Skipped>,
    },
    /// Files were written to this machine.
    FilesGot {
        /// Files written.
        files: u64,
        /// Bytes written.
        bytes: u64,
        /// Where to.
        dest: PathBuf,
        /// What could not be written.
        skipped: Vec<Skipped>,
    },
    /// A file or folder after the change.
    File(FileRow),
    /// The earlier contents of a file.
    FileRevisions {
        /// Latest first.
        revisions: Vec<FileRevision>,
    },
    /// A content was tagged, or is so no longer.
    FileTagged {
        /// The content.
        revision: FileRevision,
    },
    /// Things came out of the trash.
    TrashRestored {
        /// How many.
        count: u64,
        /// Which; of very many only the first.
        items: Vec<super::TrashRestored>,
        /// Files whose contents did not come back: they are not here, and on no device that is connected.
        #[serde(default, skip_serializing_if = "super::is_zero")]
        lacking_count: u64,
        /// Which, and who has the content, if anybody; of very many only the first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lacking: Vec<Skipped>,
    },
    /// Things in the trash were purged.
    TrashEmptied {
        /// How many, a folder with all that is in it counting as one.
        count: u64,
        /// Files.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// How long earlier contents and the trash are kept.
    Versions(super::Versions),
    /// A folder is kept in sync from now on.
    FolderAdded {
        /// The folder.
        folder: FolderRow,
        /// How it was merged.
        merge: FolderMerge,
    },
    /// All folders kept in sync on this device.
    Folders {
        /// By path on this machine.
        folders: Vec<FolderStatus>,
    },
    /// The brake of a folder was taken off.
    FolderReleased {
        /// Absolute path of this machine.
        dir: PathBuf,
        /// Whether it is undone (`true`), or was meant.
        undone: bool,
        /// Files that had disappeared.
        gone: u64,
        /// Files that had been rewritten.
        rewritten: u64,
    },
    /// The conflicts that there are.
    Conflicts {
        /// By path.
        conflicts: Vec<ConflictRow>,
    },
    /// Conflicts were settled.
    ConflictsSettled {
        /// How they were.
        conflicts: Vec<ConflictRow>,
        /// Where the plain file and what was the copy are now, for each; absent for what is in the trash.
        now: Vec<SettledPaths>,
    },
    /// A folder is kept in sync no longer.
    FolderRemoved {
        /// The folder.
        folder: FolderRow,
    },
    /// What transfers are held to.
    Limits(LimitsRow),
    /// Everything was read.
    Checked(CheckReport),
    /// What the rules say of a path.
    FolderIgnored(IgnoredRow),
    /// What this device keeps.
    Storage(Box<super::StorageStatus>),
    /// A host keeps the vault from now on.
    HostAdded {
        /// The host.
        host: Box<super::HostRow>,
    },
    /// A host is not used any more.
    HostRemoved {
        /// The host.
        host: Box<super::HostRow>,
    },
    /// The hosts of the vault, those in use first.
    Hosts {
        /// By name.
        hosts: Vec<super::HostRow>,
    },
    /// Everything was written.
    Exported {
        /// Documents written as JSON.
        documents: u64,
        /// Files written.
        files: u64,
        /// Bytes of file content.
        bytes: u64,
        /// Where to.
        dir: PathBuf,
        /// What could not be exported (content that is on another device only, names the file system refuses).
        skipped: Vec<Skipped>,
    },
}

/// How far a long request is. Sent at most some ten times a second, and dropped rather than queued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// How much is done, in bytes or pieces as the stage has it.
    pub done: u64,
    /// Of how much, where known.
    pub total: Option<u64>,
    /// What is being worked on right now: a path, an address.
    pub about: Option<String>,
}

/// The stages that long requests go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Looking through folders; counts files.
    Scanning,
    /// Reading contents; counts bytes.
    Reading,
    /// Getting contents from other devices; counts bytes.
    Fetching,
    /// Writing contents; counts bytes.
    Writing,
    /// Writing documents; counts documents.
    Documents,
    /// Making it durable; counts nothing.
    Saving,
    /// Looking for the other device; counts nothing.
    Looking,
    /// Talking to the other device; counts nothing.
    Connecting,
    /// Waiting until a person answers on the other device; counts nothing.
    WaitingForPerson,
    /// Getting what the vault holds; counts documents.
    Receiving,
    /// Reading what is kept, to find what is damaged; counts pieces.
    Checking,
}

/// Something sent before the final reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum Item {
    /// How to add a device. Holds a secret: show it, do not log it.
    Invitation {
        /// The link, also the content of the QR code.
        link: String,
        /// The short typed code; absent where none can be offered.
        code: Option<String>,
        /// When the link ends.
        expires_ms: u64,
        /// When the code ends.
        code_expires_ms: u64,
        /// Addresses of this device, `HOST:PORT/transport`; `join --at` takes them with and without the transport.
        addresses: Vec<String>,
    },
    /// The 24 words.
    RecoveryWords(Vec<String>),
    /// The kit with them, to be printed: show it, do not log it.
    RecoveryKit(super::RecoveryKit),
    /// Documents, up to some hundred at a time.
    Documents(Vec<DocumentRow>),
    /// Files and folders, up to some hundred at a time.
    Files(Vec<FileRow>),
    /// What is in the trash, up to some hundred at a time.
    Trash(Vec<super::TrashRow>),
    /// Acknowledgements of lines, in the order of the lines.
    Acks(Vec<Ack>),
    /// Something changed.
    Event(Event),
}

/// One file or folder of the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRow {
    /// Path in the vault. In the trash: the path that it had.
    pub path: String,
    /// Its id.
    pub id: String,
    /// Content of a file, absent for a folder.
    pub content: Option<Content>,
    /// Whether it is in the trash.
    #[serde(default)]
    pub trashed: bool,
}

/// What is known of a file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Size in bytes.
    pub size: u64,
    /// Modification time.
    pub modified_ms: i64,
    /// Whether it may be run as a program.
    #[serde(default)]
    pub executable: bool,
    /// Where it leads, for a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Whether its bytes are on this device.
    pub here: bool,
}

/// Another device, or a host, that has a content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its name.
    pub name: String,
    /// Whether it is connected now. Else it is as it said last.
    pub connected: bool,
    /// Whether it gives nothing now, because transfers are paused there.
    #[serde(default)]
    pub paused: bool,
}

/// One earlier content of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRevision {
    /// What `file get --at` and `file restore --at` take.
    pub revision: String,
    /// When it was recorded.
    pub at_ms: i64,
    /// Name of the device that recorded it.
    pub device: String,
    /// The content.
    pub content: Content,
    /// Other devices and hosts that have what is not here of it; empty where all of it is here.
    #[serde(default)]
    pub on: Vec<Holder>,
    /// Names of those that may have it, and cannot be asked now. Where this and `on` are empty and it is not here, no
    /// device and no host has it.
    #[serde(default)]
    pub perhaps_on: Vec<String>,
    /// For how long it is kept.
    pub kept: super::KeptAs,
    /// Until when, where that is not for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_until_ms: Option<u64>,
    /// What a person called it when tagging it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// Where the two of a conflict are after it was settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettledPaths {
    /// Path in the vault of what had the plain name.
    pub path: Option<String>,
    /// Path in the vault of what was the copy.
    pub copy: Option<String>,
}

/// What the rules say of a path in a folder that is kept in sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredRow {
    /// The path, within the synced folder.
    pub path: String,
    /// The synced folder.
    pub dir: PathBuf,
    /// Whether it is ignored.
    pub ignored: bool,
    /// The rule that decides; absent where none speaks of it.
    pub rule: Option<IgnoreRule>,
    /// Whether the vault has a file or folder of this path all the same.
    pub in_vault: bool,
}

/// A rule of what is ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoreRule {
    /// The ignore file, within the synced folder; absent for a rule that coffer brings along.
    pub file: Option<String>,
    /// Its line there, from 1.
    pub line: Option<u64>,
    /// The pattern.
    pub pattern: String,
    /// The path that it matches: the one asked about, or a folder above it.
    pub matches: String,
}

/// A folder of this machine and its folder of the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderRow {
    /// Absolute path of this machine.
    pub dir: PathBuf,
    /// Path in the vault.
    pub to: String,
}

/// What merging a folder that is not empty would do, or did. Counts files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderMerge {
    /// Absolute path of this machine.
    pub dir: PathBuf,
    /// Path in the vault.
    pub to: String,
    /// The same on both sides: nothing to do.
    pub same: u64,
    /// Only on this machine: will be added to the vault.
    pub new_here: u64,
    /// Only in the vault: will be written to this machine.
    pub new_there: u64,
    /// Different on both sides: both are kept.
    pub conflicting: u64,
    /// A few of the conflicting paths.
    pub examples: Vec<String>,
}

/// Something that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Which file.
    pub path: String,
    /// Why, as a sentence without a full stop.
    pub reason: String,
}
