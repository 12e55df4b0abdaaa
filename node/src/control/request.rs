//! What can be asked of a running node: one variant per command. What the node may ask back is in `question.rs`.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::credentials::{JoinWith, RecoverWith};
use super::documents::{LinesMode, Where};
use super::limits::RateChange;
use super::status::Keep;

/// One request, the first line of a connection.
///
/// Paths of this machine are absolute (the client resolves them: the node has another working directory); paths inside
/// the vault are `/`-separated, without a leading slash, empty for the vault's top folder.
///
/// `Debug` shows the command's name only: requests carry contents and pairing secrets, which belong in no log.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "command",
    rename_all = "kebab-case",
    rename_all_fields = "snake_case"
)]
pub enum Request {
    /// Create the vault on a node that was started without one ([`super::NewVault::Wait`]). → `Reply::Created`
    Init {
        /// What other devices will call this one; the host name if absent.
        device_name: Option<String>,
    },
    /// → `Reply::Status`
    Status,
    /// End the node. → `Reply::Done`, sent before it ends.
    Stop,
    /// Invite one device. Sends `Item::Invitation`, then asks `Question::AdmitDevice`. → `Reply::Paired`.
    /// Cancelled when the client hangs up: the invitation is void from then on.
    Pair {
        /// How long the invitation is valid, in seconds; the node's default if absent, and at most an hour.
        valid_for_s: Option<u64>,
    },
    /// Join the vault that an invitation names. Sends progress. → `Reply::Joined`. Cancelled when the client hangs up.
    ///
    /// Where this data folder belongs to a vault with something in it, or with other devices, the answer is `Conflict`;
    /// where the vault is new and empty, the node asks `Question::ReplaceEmptyVault`.
    Join {
        /// The link, or the typed code.
        with: JoinWith,
        /// Where to look, `HOST:PORT`, in addition to what the link says and the local network.
        at: Vec<String>,
        /// What other devices will call this one; the host name if absent.
        device_name: Option<String>,
    },
    /// Show the 24 words: `Item::RecoveryWords`, then `Question::RecoveryWords` until answered rightly (three tries).
    /// → `Reply::RecoveryConfirmed`; the words are then on no device. `Conflict` when they were confirmed before.
    RecoveryShow,
    /// Put other words in the place of the present ones, and change the key; then as `RecoveryShow`.
    RecoveryRenew {
        /// The present 24 words, where the person has them: then nobody can contest it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        words: Option<String>,
    },
    /// Try whether the kit would work today, and change nothing. → `Reply::RecoveryRehearsed`
    RecoveryRehearse {
        /// The kit.
        with: RecoverWith,
    },
    /// Get a vault back with its words. Sends progress; otherwise as `Join`. → `Reply::Recovered`
    Recover {
        /// The kit.
        with: RecoverWith,
        /// Where devices and hosts are, `HOST:PORT`, in addition to what the kit says and the local network.
        at: Vec<String>,
        /// What other devices will call this one; the host name if absent.
        device_name: Option<String>,
        /// Absolute path of a backup to take everything from. Devices and hosts that can be reached are shown the new device.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backup: Option<PathBuf>,
    },
    /// Write all of the vault that is not in a backup yet into it. Sends progress. → `Reply::BackedUp`
    Backup {
        /// Absolute path of a folder; made if it is not there, and must be a backup of this vault or empty.
        dir: PathBuf,
    },
    /// → `Reply::Backups`
    BackupList {
        /// Absolute path of a backup.
        dir: PathBuf,
    },
    /// Read all of a backup. Sends progress. → `Reply::BackupVerified`
    BackupVerify {
        /// Absolute path of a backup.
        dir: PathBuf,
        /// The recovery kit, where it is not of this device's vault.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        with: Option<RecoverWith>,
    },
    /// Write files out of a backup. Sends progress. → `Reply::BackupRestored`
    BackupRestore {
        /// Absolute path of a backup.
        dir: PathBuf,
        /// Absolute path to write to; created if need be.
        to: PathBuf,
        /// Paths in the vault; everything, documents too, if there are none.
        paths: Vec<String>,
        /// As of which run; the last one if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<super::BackupAt>,
        /// The recovery kit, where it is not of this device's vault.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        with: Option<RecoverWith>,
    },
    /// → `Reply::Devices`
    DeviceList,
    /// Put a device out of the vault, and change the key. Asks `Question::RevokeDevice`. → `Reply::DeviceRevoked`
    DeviceRevoke {
        /// Its name, or the beginning of its id.
        device: String,
        /// Ids as `DeviceLog` shows them, of what the device did and what shall not count any more.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        undo: Vec<String>,
        /// The 24 words, where no owner can do it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        words: Option<String>,
    },
    /// Give a device another role. → `Reply::DeviceRole`
    DeviceRole {
        /// Its name, or the beginning of its id.
        device: String,
        /// `owner`, `member` or `reader`.
        role: String,
        /// The 24 words, where no owner can do it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        words: Option<String>,
    },
    /// Who was let in, put out or given another role, by whom and when. → `Reply::DeviceLog`
    DeviceLog,
    /// Stop syncing and forget all keys, until `Unlock`. → `Reply::Locked`; `Conflict` where nothing seals the keys.
    Lock,
    /// Open what is locked. Asks `Question::Passphrase` where that is what locks it. → `Reply::Unlocked`
    Unlock,
    /// Seal this device's keys otherwise. Asks `Question::Passphrase` for the present passphrase and for a new one, where
    /// there are such. → `Reply::Protected`
    Protect {
        /// With what.
        by: super::Protection,
    },
    /// Change the key under which the vault is written from now on. → `Reply::KeyRotated`
    KeyRotate,
    /// Change the key by itself so often, in the whole vault (seconds). → `Reply::LockSchedule`
    KeySchedule {
        /// How often; none: never.
        every: super::Limit,
    },
    /// Erase this device's copy, as it was put out of the vault, and end. Asks `Question::EraseCopy`. → `Reply::CopyErased`;
    /// `Conflict` where it belongs to the vault, or holds what no other device is known to hold.
    Erase,

    /// Make the document's JSON equal to `value`, creating it if need be. → `Reply::Written`
    DocPut {
        /// Document type, such as `io.cozy.contacts`.
        doctype: String,
        /// Document id.
        id: String,
        /// A JSON object.
        value: Value,
        /// JSON pointers of fields that are text which several people may type into, beyond those of the doctype.
        texts: Vec<String>,
        /// The revision that `value` was made from: what was written after it stays. `NotFound` where the document never
        /// had it. The present one if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base: Option<String>,
    },
    /// Change single fields by a JSON merge patch (RFC 7396). → `Reply::Written`; `NotFound` unless `create`.
    DocEdit {
        /// Document type.
        doctype: String,
        /// Document id.
        id: String,
        /// The merge patch, a JSON object; `null` removes a field.
        patch: Value,
        /// Declared texts, as in `DocPut`.
        texts: Vec<String>,
        /// The revision that the patch was made from, as in `DocPut`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base: Option<String>,
        /// Create the document if there is none.
        create: bool,
    },
    /// Many documents: the client sends [`super::FromClient::Lines`] until `End`, the node `Item::Acks`, one acknowledgement per line
    /// in order, each once its change is durable. → `Reply::Lines`. A client that hangs up ends it; what was acknowledged stays.
    DocLines {
        /// What each line's `value` is.
        mode: LinesMode,
        /// Declared texts, as in `DocPut`.
        texts: Vec<String>,
        /// For `Edit`: create documents that do not exist.
        create: bool,
    },
    /// → `Reply::Document`
    DocGet {
        /// Document type.
        doctype: String,
        /// Document id.
        id: String,
        /// A revision as `DocHistory` shows it (or an unambiguous beginning of one); the present state if absent.
        at: Option<String>,
    },
    /// Documents that match all conditions: `Item::Documents` with values. → `Reply::Listed`
    DocFind {
        /// Document type.
        doctype: String,
        /// Conditions on fields, all of which must hold.
        filters: Vec<Where>,
        /// Words that the document must contain.
        text: Option<String>,
        /// At most so many.
        limit: u64,
    },
    /// Documents without values, ordered by doctype and id: `Item::Documents`. → `Reply::Listed`
    DocList {
        /// Of this type only.
        doctype: Option<String>,
        /// At most so many; no limit if absent.
        limit: Option<u64>,
    },
    /// → `Reply::Written`
    DocDelete {
        /// Document type.
        doctype: String,
        /// Document id.
        id: String,
    },
    /// Forget a document for good, on every device. Asks `Question::PurgeDocument`. → `Reply::Purged`
    DocPurge {
        /// Document type.
        doctype: String,
        /// Document id.
        id: String,
    },
    /// → `Reply::Revisions`, latest first
    DocHistory {
        /// Document type.
        doctype: String,
        /// Document id.
        id: String,
    },

    /// Copy files and whole trees of this machine into the vault. Sends progress. → `Reply::FilesAdded`
    FileAdd {
        /// Absolute paths of this machine.
        locals: Vec<PathBuf>,
        /// The vault folder to put them in, created if need be. With one local *file*, and a `to` that is no folder
        /// and does not end in `/`, `to` is the file's own path.
        to: String,
    },
    /// `Item::Files`. → `Reply::Listed`
    FileList {
        /// A folder (its children), or a file (itself).
        path: String,
        /// Everything beneath, not only the children.
        recursive: bool,
        /// What is in the trash instead.
        trash: bool,
    },
    /// Write a file or a tree to this machine. Sends progress. → `Reply::FilesGot`. Cancelled when the client hangs up.
    FileGet {
        /// Path in the vault.
        path: String,
        /// Absolute path to write; what is there already is not overwritten unless `overwrite`.
        dest: PathBuf,
        /// A revision as `FileHistory` shows it; the present content if absent.
        at: Option<String>,
        /// Replace existing files.
        overwrite: bool,
    },
    /// → `Reply::File`
    FileMove {
        /// Path in the vault.
        from: String,
        /// New path; an existing folder means *into* it.
        to: String,
    },
    /// Move to the trash. → `Reply::File`
    FileDelete {
        /// Path in the vault.
        path: String,
    },
    /// Take out of the trash, or (with `at`) bring an earlier content back. → `Reply::File`
    FileRestore {
        /// Path in the vault as `FileList` shows it.
        path: String,
        /// A revision as `FileHistory` shows it.
        at: Option<String>,
    },
    /// → `Reply::FileRevisions`, latest first
    FileHistory {
        /// Path in the vault.
        path: String,
    },
    /// Keep one of the contents that a file had for ever. → `Reply::FileTagged`
    FileTag {
        /// Path in the vault.
        path: String,
        /// A revision as `FileHistory` shows it.
        revision: String,
        /// What it is to be called, perhaps nothing; absent to leave it called as it is.
        label: Option<String>,
    },
    /// Keep it as the rule says again. → `Reply::FileTagged`
    FileUntag {
        /// Path in the vault.
        path: String,
        /// A revision as `FileHistory` shows it.
        revision: String,
    },
    /// What is in the trash: `Item::Trash`. → `Reply::Listed`
    TrashList,
    /// Take out of the trash. → `Reply::TrashRestored`
    TrashRestore {
        /// Path or id as `TrashList` shows it, or of something below; everything if absent.
        path: Option<String>,
    },
    /// Purge what is in the trash, on every device and for good. Asks `Question::EmptyTrash`. → `Reply::TrashEmptied`
    TrashEmpty {
        /// Paths or ids as `TrashList` shows them; everything if there are none.
        paths: Vec<String>,
    },
    /// How long earlier contents and the trash are kept. → `Reply::Versions`
    VersionsShow,
    /// Change that, for the whole vault. Asks `Question::EmptyTrash` where it purges something. → `Reply::Versions`
    VersionsSet {
        /// What is to change.
        change: super::RuleChange,
    },

    /// Keep a folder of this machine in sync with a folder of the vault. When `dir` is not empty, asks
    /// `Question::MergeFolder` before anything happens. → `Reply::FolderAdded`
    FolderAdd {
        /// Absolute path of this machine, an existing folder.
        dir: PathBuf,
        /// The vault folder; created if need be.
        to: String,
    },
    /// → `Reply::Folders`
    FolderList,
    /// Stop keeping the folder in sync; deletes nothing on either side. → `Reply::FolderRemoved`
    FolderRemove {
        /// Absolute path of this machine.
        dir: PathBuf,
    },
    /// Look at the folder now instead of at the next change or interval; answers when it was looked at and what was
    /// found is recorded. → `Reply::Folders`
    FolderRescan {
        /// Absolute path of this machine; all folders if absent.
        dir: Option<PathBuf>,
    },

    /// Say that what the brake of a folder holds back was meant. → `Reply::FolderReleased`
    FolderConfirm {
        /// Absolute path of this machine.
        dir: PathBuf,
    },
    /// Bring back what the brake of a folder holds back. → `Reply::FolderReleased`
    FolderUndo {
        /// Absolute path of this machine.
        dir: PathBuf,
    },
    /// → `Reply::Conflicts`
    FolderConflicts {
        /// Absolute path of this machine, a folder kept in sync; the whole vault if absent.
        dir: Option<PathBuf>,
    },
    /// Settle the conflict that a file has part in. → `Reply::ConflictsSettled`
    FolderSettle {
        /// Path in the vault: the plain one, or the copy's.
        path: String,
        /// The same as a path of this machine; tried first.
        local: PathBuf,
        /// Which content stays.
        keep: Keep,
    },
    /// Limits and pauses of transfers on this device. → `Reply::Limits`
    LimitsShow,
    /// Limit how fast contents of files go; what is absent stays as it is. → `Reply::Limits`
    LimitsSet {
        /// Bytes a second to all other devices together.
        up: Option<RateChange>,
        /// Bytes a second from all other devices together.
        down: Option<RateChange>,
    },
    /// Send and fetch no contents of files. Survives a restart. → `Reply::Limits`
    Pause {
        /// For so many seconds; until `Resume` if absent.
        for_s: Option<u64>,
    },
    /// End a pause. → `Reply::Limits`
    Resume,
    /// Read everything that this device keeps, find what is damaged, and fetch it again where that is possible. Sends
    /// progress. → `Reply::Checked`. Cancelled when the client hangs up.
    Check,
    /// Whether a path in a folder that is kept in sync is ignored, and by which rule. → `Reply::FolderIgnored`
    FolderIgnored {
        /// Absolute path of this machine; need not be there.
        path: PathBuf,
        /// Whether it means a folder, where nothing is at the path.
        is_folder: bool,
    },
    /// What this device keeps of the vault. → `Reply::Storage`
    StorageShow,
    /// Keep a folder or file of the vault so. → `Reply::Storage`
    StorageSet {
        /// Path in the vault; empty for all of it.
        path: String,
        /// How.
        keep: super::KeepAs,
    },
    /// How much room contents on demand may take. → `Reply::Storage`
    StorageLimit {
        /// Bytes; no limit if absent.
        bytes: Option<u64>,
    },

    /// Let a host keep the vault. → `Reply::HostAdded`
    HostAdd {
        /// The host's invitation.
        invitation: String,
        /// What to call it; by default what it calls itself.
        name: Option<String>,
        /// Where it is reached, as `HOST[:PORT]`, beside what the invitation says.
        #[serde(default)]
        at: Option<String>,
    },
    /// Use a host no longer, and have it erase what it keeps. → `Reply::HostRemoved`
    HostRemove {
        /// Its name, or the beginning of its id.
        host: String,
        /// Do not ask it to erase anything: it is gone, or out of reach for good.
        without_erasing: bool,
    },
    /// → `Reply::Hosts`
    HostList,

    /// Write everything as plain files and JSON. Sends progress. → `Reply::Exported`. Cancelled when the client hangs up.
    Export {
        /// Absolute path; created if need be, and must be empty.
        dir: PathBuf,
    },
    /// `Item::Event` for everything that changes from now on, the first one `Event::Listening`. Ends when the client
    /// hangs up, or with `Cancelled` when the node ends.
    Events {
        /// Documents of this type only (other kinds of events are sent all the same).
        doctype: Option<String>,
        /// Send the new JSON of a changed document along.
        values: bool,
    },
}

impl Request {
    /// The command's name, safe to log.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Init { .. } => "init",
            Request::Status => "status",
            Request::Stop => "stop",
            Request::Pair { .. } => "pair",
            Request::Join { .. } => "join",
            Request::RecoveryShow => "recovery-show",
            Request::RecoveryRenew { .. } => "recovery-renew",
            Request::RecoveryRehearse { .. } => "recovery-rehearse",
            Request::Recover { .. } => "recover",
            Request::Backup { .. } => "backup",
            Request::BackupList { .. } => "backup-list",
            Request::BackupVerify { .. } => "backup-verify",
            Request::BackupRestore { .. } => "backup-restore",
            Request::DeviceList => "device-list",
            Request::DeviceRevoke { .. } => "device-revoke",
            Request::DeviceRole { .. } => "device-role",
            Request::DeviceLog => "device-log",
            Request::Lock => "lock",
            Request::Unlock => "unlock",
            Request::Protect { .. } => "protect",
            Request::KeyRotate => "key-rotate",
            Request::KeySchedule { .. } => "key-schedule",
            Request::Erase => "erase",
            Request::DocPut { .. } => "doc-put",
            Request::DocEdit { .. } => "doc-edit",
            Request::DocLines { .. } => "doc-lines",
            Request::DocGet { .. } => "doc-get",
            Request::DocFind { .. } => "doc-find",
            Request::DocList { .. } => "doc-list",
            Request::DocDelete { .. } => "doc-delete",
            Request::DocPurge { .. } => "doc-purge",
            Request::DocHistory { .. } => "doc-history",
            Request::FileAdd { .. } => "file-add",
            Request::FileList { .. } => "file-list",
            Request::FileGet { .. } => "file-get",
            Request::FileMove { .. } => "file-move",
            Request::FileDelete { .. } => "file-delete",
            Request::FileRestore { .. } => "file-restore",
            Request::FileHistory { .. } => "file-history",
            Request::FileTag { .. } => "file-tag",
            Request::FileUntag { .. } => "file-untag",
            Request::TrashList => "trash-list",
            Request::TrashRestore { .. } => "trash-restore",
            Request::TrashEmpty { .. } => "trash-empty",
            Request::VersionsShow => "versions-show",
            Request::VersionsSet { .. } => "versions-set",
            Request::FolderAdd { .. } => "folder-add",
            Request::FolderList => "folder-list",
            Request::FolderRemove { .. } => "folder-remove",
            Request::FolderRescan { .. } => "folder-rescan",
            Request::FolderConfirm { .. } => "folder-confirm",
            Request::FolderUndo { .. } => "folder-undo",
            Request::FolderConflicts { .. } => "folder-conflicts",
            Request::FolderSettle { .. } => "folder-settle",
            Request::LimitsShow => "limits-show",
            Request::LimitsSet { .. } => "limits-set",
            Request::Pause { .. } => "pause",
            Request::Resume => "resume",
            Request::Check => "check",
            Request::FolderIgnored { .. } => "folder-ignored",
            Request::StorageShow => "storage-show",
            Request::StorageSet { .. } => "storage-set",
            Request::StorageLimit { .. } => "storage-limit",
            Request::HostAdd { .. } => "host-add",
            Request::HostRemove { .. } => "host-remove",
            Request::HostList => "host-list",
            Request::Export { .. } => "export",
            Request::Events { .. } => "events",
        }
    }

    /// Whether the work is dropped when the client hangs up. All others run to their end, so that nobody's Ctrl-C
    /// leaves a write half described; their session methods report [`super::Gone`].
    pub fn ends_with_client(&self) -> bool {
        matches!(
            self,
            Request::Pair { .. }
                | Request::Join { .. }
                | Request::RecoveryShow
                | Request::RecoveryRehearse { .. }
                | Request::Recover { .. }
                | Request::Backup { .. }
                | Request::BackupVerify { .. }
                | Request::BackupRestore { .. }
                | Request::DocFind { .. }
                | Request::DocList { .. }
                | Request::FileList { .. }
                | Request::FileGet { .. }
                | Request::Check
                | Request::TrashList
                | Request::Export { .. }
                | Request::Events { .. }
        )
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({})", self.name())
    }
}
