//! What a run of `coffer backup` says of itself, signed by its device, and which data files there are after it.

use coffer_protocol::codec::List;
use coffer_protocol::domain;
use coffer_protocol::identity::{DeviceId, Hash, VaultId};
use coffer_protocol::log::{CLOCK_MAX_LEN, Clock};
use coffer_protocol::signed::Signable;
use serde::{Deserialize, Serialize};

/// Data files that a backup may have: 4 TiB in files of 64 MiB.
pub(super) const MAX_PIECES: usize = 65_536;
/// Data files that wait to be removed.
const MAX_RETIRED: usize = MAX_PIECES;

/// One run: the vault as of a moment is in the backup. It lies among the records, so that any earlier state can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// 1.
    pub version: u16,
    /// The vault.
    pub vault: VaultId,
    /// Which device made it.
    pub device: DeviceId,
    /// Counted up in each backup, from 1.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What is in it of every log.
    pub clock: Clock,
    /// How many grants there were.
    pub grants: u32,
    /// Contents of files that were named then, present and earlier ones.
    pub contents: u64,
    /// Their bytes.
    pub content_bytes: u64,
    /// Of those, present contents that the device did not have and that are not in the backup.
    pub missing: u64,
    /// Their bytes.
    pub missing_bytes: u64,
    /// The same of earlier contents, which may be nowhere any more.
    pub missing_earlier: u64,
}

impl Run {
    /// The version written now.
    pub const VERSION: u16 = 1;
}

impl Signable for Run {
    const CONTEXT: &'static str = domain::BACKUP_RUN_SIGNATURE;
    const VERSION: u16 = Run::VERSION;
    const MAX_LEN: usize = CLOCK_MAX_LEN + 4096;

    fn signer(&self) -> DeviceId {
        self.device
    }
}

/// Which data files belong to a backup: so one that is missing is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lists {
    /// 1.
    pub version: u16,
    /// The vault.
    pub vault: VaultId,
    /// Which device wrote this.
    pub device: DeviceId,
    /// The last run that is in it.
    pub run: u64,
    /// Each data file by its number, and the seal at its end.
    #[serde(with = "List::<MAX_PIECES>")]
    pub pieces: Vec<(u32, Hash)>,
    /// Data files whose records are in others by now, or were given up.
    #[serde(with = "List::<MAX_RETIRED>")]
    pub retired: Vec<u32>,
    /// How much had been purged in the vault.
    pub purged: u64,
}

impl Lists {
    /// The version written now.
    pub const VERSION: u16 = 1;
}

impl Signable for Lists {
    const CONTEXT: &'static str = domain::BACKUP_LISTS_SIGNATURE;
    const VERSION: u16 = Lists::VERSION;
    const MAX_LEN: usize = MAX_PIECES * (5 + 32) + MAX_RETIRED * 5 + 256;

    fn signer(&self) -> DeviceId {
        self.device
    }
}
