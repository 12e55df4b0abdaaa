//! The bounds of arguments, checked alike by every store.

use std::ops::Range;

use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash};
use coffer_protocol::ranges::RANGE_MAX_LEN;

use super::{
    Invitation, MAX_APPEND, MAX_APPEND_BYTES, MAX_CHECK, MAX_DEVICES, MAX_GRANT_BYTES, MAX_GRANTS,
    MAX_GRANTS_BYTES, MAX_IDS, MAX_INVITATIONS, MAX_PUT_BLOBS, MAX_PUT_BYTES, MAX_RECEIPT,
    MAX_SAID, MAX_STATEMENT, MAX_VERIFY, NewEntry, NewRange, Released, StoreError,
};

fn at_most(what: &'static str, count: usize, max: usize) -> Result<(), StoreError> {
    match count <= max {
        true => Ok(()),
        false => Err(StoreError::TooLarge { what, max }),
    }
}

/// How many rows a page of `max` may have.
pub fn page(max: usize) -> usize {
    max.min(MAX_IDS)
}

pub fn invitation(invitation: &Invitation) -> Result<(), StoreError> {
    at_most("bytes of an invitation", invitation.check.len(), MAX_CHECK)
}

pub fn one_more_invitation(there: u64) -> Result<(), StoreError> {
    let there = usize::try_from(there).unwrap_or(usize::MAX);
    at_most("invitations", there.saturating_add(1), MAX_INVITATIONS)
}

pub fn members(members: &[DeviceId]) -> Result<(), StoreError> {
    at_most("members", members.len(), MAX_DEVICES)
}

pub fn one_more_device(there: usize) -> Result<(), StoreError> {
    at_most("devices", there.saturating_add(1), MAX_DEVICES)
}

pub fn receipt(receipt: &Bytes) -> Result<(), StoreError> {
    at_most("bytes of a receipt", receipt.len(), MAX_RECEIPT)
}

pub fn grants(grants: &[(Hash, Bytes)]) -> Result<(), StoreError> {
    let longest = grants.iter().map(|(_, bytes)| bytes.len()).max();
    at_most("bytes of a grant", longest.unwrap_or(0), MAX_GRANT_BYTES)?;
    let bytes = grants.iter().map(|(_, bytes)| bytes.len()).sum();
    all_grants(grants.len(), bytes)
}

pub fn all_grants(count: usize, bytes: usize) -> Result<(), StoreError> {
    at_most("grants", count, MAX_GRANTS)?;
    at_most("bytes of grants", bytes, MAX_GRANTS_BYTES)
}

pub fn append(entries: &[NewEntry]) -> Result<(), StoreError> {
    at_most("entries", entries.len(), MAX_APPEND)?;
    let bytes = entries.iter().map(|entry| entry.bytes.len()).sum();
    at_most("bytes of entries", bytes, MAX_APPEND_BYTES)
}

pub fn statement(bytes: &Bytes) -> Result<(), StoreError> {
    at_most("bytes of a statement", bytes.len(), MAX_STATEMENT)
}

pub fn range(range: &NewRange) -> Result<(), StoreError> {
    at_most("bytes of a range", range.bytes.len(), RANGE_MAX_LEN)
}

pub fn said(said: &Bytes) -> Result<(), StoreError> {
    at_most("bytes of an attestation", said.len(), MAX_SAID)
}

pub fn ids(ids: &[Hash]) -> Result<(), StoreError> {
    at_most("blobs", ids.len(), MAX_IDS)
}

pub fn verify(ids: &[Hash]) -> Result<(), StoreError> {
    at_most("blobs", ids.len(), MAX_VERIFY)
}

pub fn put(blobs: &[(Hash, Bytes)]) -> Result<(), StoreError> {
    at_most("blobs", blobs.len(), MAX_PUT_BLOBS)?;
    let bytes = blobs.iter().map(|(_, bytes)| bytes.len()).sum();
    at_most("bytes of blobs", bytes, MAX_PUT_BYTES)
}

pub fn free(blobs: &[Released]) -> Result<(), StoreError> {
    at_most("blobs", blobs.len(), MAX_IDS)
}

/// The part of `len` bytes from `offset` that is within something of `total` bytes.
pub fn part(total: u64, offset: u64, len: u32) -> Range<u64> {
    let start = offset.min(total);
    start..start.saturating_add(u64::from(len)).min(total)
}

/// What still fits into an answer of entries.
pub struct Room {
    bytes: usize,
    count: usize,
    first: bool,
}

impl Room {
    pub fn new(max_bytes: usize) -> Self {
        Room {
            bytes: max_bytes.min(MAX_APPEND_BYTES),
            count: MAX_APPEND,
            first: true,
        }
    }

    /// Whether one more of `len` bytes is taken: the first always is.
    pub fn takes(&mut self, len: usize) -> bool {
        let fits = self.first || (len <= self.bytes && self.count > 0);
        self.first = false;
        self.bytes = self.bytes.saturating_sub(len);
        self.count = self.count.saturating_sub(1);
        fits
    }
}
