//! What one transaction is asked to do, what it leaves to be done once it is durable, and how an attempt at it fails.

use std::collections::BTreeSet;

use coffer_crdt::files::{FileId, FileState, Purge};
use coffer_protocol::identity::{DeviceId, Hash, WriterId};
use coffer_protocol::pairing::Welcome;
use coffer_protocol::replication::Rejection;

use super::core::{Admission, Ticket};
use super::members::Manage;
use super::request::{CommitError, CommitRequest, Committed};
use crate::store::StoreError;

/// One thing to do within the transaction.
pub(super) enum Step {
    Commit(Ticket, Box<CommitRequest>),
    Admit(Ticket, Admission),
    Manage(Ticket, Box<Manage>),
    Ingest(DeviceId, Vec<Vec<u8>>, u32),
    Grants(DeviceId, Vec<Vec<u8>>),
    Held(DeviceId, DeviceId, Vec<u8>),
    /// From whom, the range, what was said of it, and the round.
    Range(DeviceId, Vec<u8>, Vec<Vec<u8>>, u32),
    Attestations(Vec<Vec<u8>>),
    StateHeld,
}

impl Step {
    /// Whether this device writes something of its own with it.
    pub fn is_own(&self) -> bool {
        match self {
            Step::Commit(_, request) => !request.operations.is_empty(),
            Step::Admit(..) | Step::Manage(..) => true,
            Step::Ingest(..)
            | Step::Grants(..)
            | Step::Held(..)
            | Step::Range(..)
            | Step::Attestations(..)
            | Step::StateHeld => false,
        }
    }
}

/// What a finished transaction leaves to be done after it is durable.
#[derive(Default)]
pub(super) struct Done {
    pub files: Vec<(FileId, FileState)>,
    /// Those of them whose contents count as not here now.
    pub still_wanted: BTreeSet<FileId>,
    pub purges: Vec<(FileId, Purge)>,
    /// See [`Changes::outdone`](super::core::Changes::outdone).
    pub outdone: Vec<(FileId, [u8; 32])>,
    /// See [`Changes::arrived`](super::core::Changes::arrived).
    pub arrived: Vec<FileId>,
    pub documents: Vec<(String, String)>,
    pub committed: Vec<(Ticket, Committed)>,
    pub admitted: Vec<(Ticket, Welcome)>,
    pub managed: Vec<Ticket>,
    /// More of a closed log counts than before.
    pub more_counts: bool,
    pub appended: Vec<(Option<DeviceId>, WriterId, u64, Hash)>,
    pub rejected: Vec<(DeviceId, u32, Rejection)>,
    pub members_changed: bool,
    pub held_changed: bool,
    pub wanted_changed: bool,
    pub own_held: Option<Vec<u8>>,
    pub others_held: Vec<(DeviceId, Vec<u8>, DeviceId)>,
    /// Ranges that are new, or of which more was said: log and last entry.
    pub ranges: BTreeSet<(WriterId, u64)>,
    /// What is known of hosts changed.
    pub hosts_changed: bool,
    /// Whether anything was written at all.
    pub wrote: bool,
}

impl Done {
    pub fn is_empty(&self) -> bool {
        !self.wrote
    }
}

/// Why an attempt at a batch ended.
pub(super) enum Failure {
    /// The request at this place in the batch cannot be carried out.
    Request(usize, CommitError),
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Store(error)
    }
}

/// Why one request failed within an attempt.
pub(super) enum Refusal {
    Request(CommitError),
    Store(StoreError),
}

impl Refusal {
    pub fn at(self, index: usize) -> Failure {
        match self {
            Refusal::Request(error) => Failure::Request(index, error),
            Refusal::Store(error) => Failure::Store(error),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Refusal::Store(error)
    }
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Self {
        Refusal::Request(error)
    }
}

impl From<&StoreError> for CommitError {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::DiskFull => CommitError::DiskFull,
            other => CommitError::Storage(other.to_string()),
        }
    }
}
