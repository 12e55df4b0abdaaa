//! What a person's commands ask of a running host, and its answers.

use serde::{Deserialize, Serialize};

/// Version of this conversation; both sides are of one installation.
pub(super) const VERSION: u32 = 1;

/// Most rows of one answer.
pub const MAX_ROWS: usize = 1000;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum HostRequest {
    /// How the host is.
    Status,
    /// A new invitation.
    Invite {
        /// Bytes that the vault may use; the configured quota if absent.
        quota: Option<u64>,
        /// How long it is valid, in seconds; as configured if absent.
        valid_seconds: Option<u64>,
    },
    /// The vaults with ids above `after`, at most [`MAX_ROWS`].
    Vaults {
        /// Where to go on.
        after: Option<String>,
    },
    /// The one vault whose id begins like this.
    FindVault {
        /// The beginning of an id, in hexadecimal.
        beginning: String,
    },
    /// Erases a vault.
    RemoveVault {
        /// Which.
        vault: String,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum HostReply {
    /// To [`HostRequest::Status`].
    Status(Box<HostStatus>),
    /// To [`HostRequest::Invite`].
    Invitation(InvitationRow),
    /// To [`HostRequest::Vaults`]; fewer than [`MAX_ROWS`] are the last.
    Vaults {
        /// In the order of their ids.
        rows: Vec<VaultRow>,
    },
    /// To [`HostRequest::FindVault`], and to [`HostRequest::RemoveVault`] with what it was.
    Vault(VaultRow),
}

/// An invitation, for the one who asked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationRow {
    /// The link: whoever has it can use it.
    pub link: String,
    /// Bytes that the vault may use.
    pub quota: u64,
    /// Until when it can be used, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Addresses that it names.
    pub addresses: Vec<String>,
    /// What a person should know of it.
    pub notes: Vec<String>,
}

impl std::fmt::Debug for InvitationRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the link.
        f.debug_struct("InvitationRow")
            .field("quota", &self.quota)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

/// A vault that is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultRow {
    /// Its id.
    pub vault: String,
    /// Whether devices have bound it; before that an invitation was used, and no more.
    pub bound: bool,
    /// Bytes that it may use.
    pub quota: u64,
    /// Bytes of entries.
    pub entry_bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of contents.
    pub blob_bytes: u64,
    /// Blobs.
    pub blobs: u64,
    /// Since when it is served, in milliseconds since 1970.
    pub added_ms: u64,
    /// Its devices that are connected now.
    pub connected: u64,
    /// When one was last here, in milliseconds since 1970.
    pub last_seen_ms: Option<u64>,
}

/// How a host is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// The host's id.
    pub host: String,
    /// What it calls itself.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Since when it runs, in milliseconds since 1970.
    pub started_ms: u64,
    /// Addresses listened on.
    pub listening: Vec<String>,
    /// Addresses that invitations name.
    pub announced: Vec<String>,
    /// Where metrics are, if anywhere.
    pub http: Option<String>,
    /// Whether it can serve now; if not, why.
    pub not_ready: Option<String>,
    /// Vaults served.
    pub vaults: u64,
    /// Vaults in memory.
    pub resident: u64,
    /// Connections.
    pub connections: u64,
    /// Devices with a session.
    pub sessions: u64,
    /// Invitations that can still be used.
    pub invitations: u64,
    /// Bytes of entries.
    pub entry_bytes: u64,
    /// Bytes of contents.
    pub blob_bytes: u64,
    /// All quotas together, in bytes.
    pub quota: u64,
    /// Bytes free on the disk of the data folder, where it tells.
    pub disk_free: Option<u64>,
    /// Resident memory in bytes, where it tells.
    pub memory: Option<u64>,
}
