//! The rows that have several fields, and how they are written.

use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::{Invitation, StoreError, Usage, VaultRecord};

/// The version byte in front of each row.
const VERSION: u8 = 1;

/// A vault that is served.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VaultRow {
    /// Stands for the vault in all other tables.
    pub number: u32,
    pub epoch: [u8; 16],
    pub quota: u64,
    pub added_ms: u64,
    pub usage: Usage,
    pub grants: u32,
    pub grant_bytes: u64,
    /// No pack of this vault ever had this number or a higher one.
    pub next_pack: u32,
}

impl VaultRow {
    pub fn record(&self, vault: VaultId) -> VaultRecord {
        VaultRecord {
            vault,
            epoch: self.epoch,
            quota: self.quota,
            added_ms: self.added_ms,
            usage: self.usage,
            grants: self.grants,
        }
    }
}

/// An invitation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InvitationRow {
    check: Vec<u8>,
    pub quota: u64,
    made_ms: u64,
    pub expires_ms: u64,
    pub used: Option<(VaultId, u64)>,
}

impl InvitationRow {
    pub fn new(invitation: Invitation) -> Self {
        InvitationRow {
            check: invitation.check.to_vec(),
            quota: invitation.quota,
            made_ms: invitation.made_ms,
            expires_ms: invitation.expires_ms,
            used: invitation.used,
        }
    }

    pub fn invitation(self, id: Hash) -> Invitation {
        Invitation {
            id,
            check: Bytes::from(self.check),
            quota: self.quota,
            made_ms: self.made_ms,
            expires_ms: self.expires_ms,
            used: self.used,
        }
    }
}

/// The bytes of a row.
pub fn encode(row: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    postcard::to_extend(row, vec![VERSION])
        .map_err(|error| StoreError::Failed(format!("a row cannot be written: {error}")))
}

/// Reads a row.
pub fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| damaged(what)),
        Some((&found, _)) if found > VERSION => Err(StoreError::Newer {
            found: u32::from(found),
            known: u32::from(VERSION),
        }),
        _ => Err(damaged(what)),
    }
}

pub fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!("a row of {what}"))
}

/// Where a blob's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub pack: u32,
    /// Where the bytes begin, after their header.
    pub offset: u32,
    pub len: u32,
}

impl Place {
    /// As reads are planned.
    pub fn whole(&self) -> super::super::runs::Place {
        super::super::runs::Place {
            pack: u64::from(self.pack),
            offset: self.offset,
            len: self.len,
        }
    }

    /// Where the bytes end.
    pub fn end(&self) -> u32 {
        self.offset.saturating_add(self.len)
    }

    pub fn encode(&self) -> [u8; 12] {
        super::tables::key(&[
            &self.pack.to_be_bytes(),
            &self.offset.to_be_bytes(),
            &self.len.to_be_bytes(),
        ])
    }

    pub fn decode(bytes: &[u8; 12]) -> Self {
        Place {
            pack: u32_at(bytes, 0),
            offset: u32_at(bytes, 4),
            len: u32_at(bytes, 8),
        }
    }
}

/// How full a pack is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackRow {
    /// Bytes of it that count: what comes after them in the file was never committed.
    pub len: u32,
    /// Bytes of these that blobs use, their headers included.
    pub live: u32,
}

impl PackRow {
    pub fn encode(&self) -> [u8; 8] {
        super::tables::key(&[&self.len.to_be_bytes(), &self.live.to_be_bytes()])
    }

    pub fn decode(bytes: &[u8; 8]) -> Self {
        PackRow {
            len: u32_at(bytes, 0),
            live: u32_at(bytes, 4),
        }
    }
}

/// Who released a blob, and when; ascending.
pub fn decode_released(bytes: &[u8]) -> Result<Vec<(DeviceId, u64)>, StoreError> {
    let (rows, rest) = bytes.as_chunks::<40>();
    if !rest.is_empty() {
        return Err(damaged("releases"));
    }
    Ok(rows
        .iter()
        .map(|row| (DeviceId(array_at(row, 0)), u64_at(row, 32)))
        .collect())
}

pub fn encode_released(by: &[(DeviceId, u64)]) -> Vec<u8> {
    by.iter()
        .flat_map(|(device, at)| device.0.into_iter().chain(at.to_be_bytes()))
        .collect()
}

/// `N` bytes from `at` on, which must be there.
pub fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array_at(bytes, at))
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array_at(bytes, at))
}
