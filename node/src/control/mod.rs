//! How a command line, a script or a page talks to the running node: requests and replies as JSON lines over a Unix
//! socket inside the data folder.
//!
//! One connection carries one request. Most are answered by one [`Reply`]; long ones also send [`Progress`] and
//! [`Item`]s, and some ask a person a [`Question`] midway (pairing, the first merge of a folder). What a request *means*
//! is decided behind [`Service`]; this module only carries it, bounds it, and says who may speak: the user who owns the
//! data folder, and root.
//!
//! Nothing here prints, and nothing here knows of vault, network or folders. `docs/ARCHITECTURE.md` shows the room in
//! the whole; the command line is the only client shipped.

mod backup;
mod check;
mod client;
mod credentials;
mod devices;
mod documents;
mod error;
mod events;
mod hosts;
mod keeping;
mod launch;
mod limits;
pub(crate) mod lines;
mod lock;
mod locking;
mod question;
mod reply;
mod request;
pub(crate) mod server;
mod session;
pub(crate) mod socket;
mod status;
mod storage;
#[cfg(test)]
mod tests;
mod wiped;

/// Left out of JSON where nothing is to be said.
fn is_zero(count: &u64) -> bool {
    *count == 0
}

pub use backup::{
    BackupAt, BackupDone, BackupFlaw, BackupInside, BackupRun, BackupStatus, BackupVerified,
};
pub use check::{CheckReport, Damage, DamageKind};
pub use client::{Call, CallReader, CallWriter, Client};
pub use credentials::{JoinWith, RecoverWith};
pub use devices::{DeviceRevoked, ErasedCopy, LockStatus, LogRow, RecoveryKit};
pub use documents::{
    Ack, AckResult, DocLine, DocumentReply, DocumentRow, LinesMode, Revision, Where,
};
pub use error::{ControlError, ErrorKind};
pub use events::{Event, FileEvent};
pub use hosts::{HostFill, HostHolding, HostReceipt, HostRow, HostTrouble};
pub use keeping::{KeptAs, Limit, RuleChange, TrashRestored, TrashRow, Versions};
pub use launch::{NewVault, Options, Ready, StartError, default_data_dir, leave_session};
pub use limits::{LimitsRow, PausedRow, RateChange};
pub use lines::{FromClient, FromNode, MAX_DOCUMENT_TEXT, MAX_LINE, PROTOCOL};
pub use lock::DataLock;
pub use locking::{MAX_PASSPHRASE, Passphrase, Protection};
pub use question::{Answer, Ask, Question};
pub use reply::{
    Content, FileRevision, FileRow, FolderMerge, FolderRow, Holder, IgnoreRule, IgnoredRow, Item,
    Progress, Reply, SettledPaths, Skipped, Stage,
};
pub use request::Request;
pub use server::{Server, Service};
pub use session::{Gone, Session};
pub use socket::socket_path;
pub use status::{
    ConflictRow, DeviceRow, DeviceStatus, Direction, FolderBrake, FolderIssue, FolderState,
    FolderStatus, HeldLog, Holding, Keep, Missing, Reach, RecoveryState, Status, Transfer,
    VaultStatus, Warning,
};
pub use storage::{Amount, AtRisk, KeepAs, StorageMode, StorageRule, StorageStatus};
