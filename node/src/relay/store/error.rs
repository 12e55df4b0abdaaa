//! Why a store could not do as asked.

use coffer_protocol::identity::VaultId;

/// Why a host's store could not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The vault is not served here: it never was, or it was erased.
    #[error("this host does not serve vault {0}")]
    NoVault(VaultId),
    /// An argument is over its bound, or would make the vault exceed one.
    #[error("{what}: more than {max}")]
    TooLarge {
        /// Of what there is too much.
        what: &'static str,
        /// How much there may be.
        max: usize,
    },
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull,
    /// The system, the database or the object storage refused access.
    #[error("no permission: {0}")]
    Permission(String),
    /// Another process has the store open.
    #[error("another host process uses this data folder")]
    InUse,
    /// Written by a newer program.
    #[error("written by a newer coffer (layout {found}, this one knows {known})")]
    Newer {
        /// Layout found.
        found: u32,
        /// Highest layout that this program knows.
        known: u32,
    },
    /// What is stored cannot be what was written.
    #[error("damaged data: {0}")]
    Damaged(String),
    /// The database or the object storage does not answer; later it may.
    #[error("not reachable: {0}")]
    Unavailable(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// It failed in another way.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// Whether asking again later may help without anybody doing anything.
    pub fn is_passing(&self) -> bool {
        matches!(self, StoreError::Unavailable(_))
    }
}
