//! A store that is asked for no more than the trait allows: the bounds of arguments, in one place for every store.
//!
//! What depends on what a store has already (invitations, devices and grants of a vault) it compares itself, within its own step.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId, WriterId};
use coffer_protocol::log::Clock;
use futures::stream::{self, BoxStream, StreamExt};

use super::{
    Appended, Blob, Change, Consumed, Freed, HeldStatement, Invitation, KeptRange, NewEntry,
    NewRange, Put, RelayStore, Released, Snapshot, StoreError, StoredEntry, Tidied, Totals,
    VaultRecord, bounds,
};

/// A store that sees only arguments within the bounds; others are refused with [`StoreError::TooLarge`].
pub struct Bounded<S>(Arc<S>);

impl<S: RelayStore> Bounded<S> {
    /// Puts the bounds before a store.
    pub fn new(store: S) -> Self {
        Bounded(Arc::new(store))
    }

    /// The same for one that somebody else has too.
    pub fn shared(store: Arc<S>) -> Self {
        Bounded(store)
    }
}

/// Each row is a method of the trait, with what it demands of its arguments.
macro_rules! bounded {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) -> $gives:ty $(, if $check:expr)?;)*) => {
        #[async_trait]
        impl<S: RelayStore> RelayStore for Bounded<S> {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$gives, StoreError> {
                $($check?;)?
                self.0.$name($($argument),*).await
            })*

            fn get(
                &self,
                vault: VaultId,
                ids: Vec<Hash>,
            ) -> BoxStream<'static, Result<Blob, StoreError>> {
                match bounds::ids(&ids) {
                    Ok(()) => self.0.get(vault, ids),
                    Err(error) => stream::iter([Err(error)]).boxed(),
                }
            }

            fn is_shared(&self) -> bool {
                self.0.is_shared()
            }

            fn lost_before(&self) -> u64 {
                self.0.lost_before()
            }

            fn changes(&self) -> BoxStream<'static, Change> {
                self.0.changes()
            }

            async fn close(&self) {
                self.0.close().await;
            }
        }
    };
}

bounded! {
    fn add_invitation(invitation: Invitation) -> (), if bounds::invitation(&invitation);
    fn invitation(id: Hash) -> Option<Invitation>;
    fn invitations(after: Option<Hash>, max: usize) -> Vec<Invitation>;
    fn remove_invitation(id: Hash) -> bool;
    fn consume_invitation(id: Hash, vault: VaultId, epoch: [u8; 16], now_ms: u64) -> Consumed;
    fn vault(vault: VaultId) -> Option<VaultRecord>;
    fn vaults(after: Option<VaultId>, max: usize) -> Vec<VaultRecord>;
    fn set_quota(vault: VaultId, quota: u64) -> ();
    fn set_members(vault: VaultId, members: Vec<DeviceId>) -> (), if bounds::members(&members);
    fn vaults_of(device: DeviceId) -> Vec<VaultId>;
    fn note_seen(vault: VaultId, device: DeviceId, at_ms: u64) -> ();
    fn seen(vault: VaultId) -> Vec<(DeviceId, u64)>;
    fn erase(vault: VaultId, receipt: Bytes, now_ms: u64) -> bool, if bounds::receipt(&receipt);
    fn receipt(vault: VaultId) -> Option<Bytes>;
    fn forget(before_ms: u64) -> u64;
    fn put_grants(vault: VaultId, grants: Vec<(Hash, Bytes)>) -> usize, if bounds::grants(&grants);
    fn grants(vault: VaultId) -> Vec<Bytes>;
    fn append(vault: VaultId, entries: Vec<NewEntry>) -> Vec<Appended>, if bounds::append(&entries);
    fn entries(vault: VaultId, writer: WriterId, from: u64, to: u64, max_bytes: usize) -> Vec<StoredEntry>;
    fn put_range(vault: VaultId, range: NewRange) -> Appended, if bounds::range(&range);
    fn drop_entries(vault: VaultId, writer: WriterId, to: u64) -> u64;
    fn put_said(vault: VaultId, writer: WriterId, to: u64, device: DeviceId, said: Bytes) -> (), if bounds::said(&said);
    fn ranges(vault: VaultId) -> Vec<KeptRange>;
    fn range_of(vault: VaultId, writer: WriterId, to: u64) -> Option<Bytes>;
    fn clock(vault: VaultId) -> Clock;
    fn put_held(vault: VaultId, statement: HeldStatement) -> bool, if bounds::statement(&statement.bytes);
    fn held(vault: VaultId) -> Vec<HeldStatement>;
    fn snapshot(vault: VaultId) -> Option<Snapshot>;
    fn put_host_statement(vault: VaultId, counter: u64, statement: Bytes) -> bool, if bounds::statement(&statement);
    fn have(vault: VaultId, ids: Vec<Hash>, claim: bool) -> Vec<bool>, if bounds::ids(&ids);
    fn put(vault: VaultId, blobs: Vec<(Hash, Bytes)>) -> Vec<Put>, if bounds::put(&blobs);
    fn range(vault: VaultId, id: Hash, offset: u64, len: u32) -> Option<Bytes>;
    fn verify(vault: VaultId, ids: Vec<Hash>) -> Vec<Hash>, if bounds::verify(&ids);
    fn list(vault: VaultId, after: Option<Hash>, max: usize) -> Vec<Hash>;
    fn release(vault: VaultId, device: DeviceId, ids: Vec<Hash>, now_ms: u64) -> (), if bounds::ids(&ids);
    fn released(vault: VaultId, after: Option<Hash>, max: usize) -> Vec<Released>;
    fn free(vault: VaultId, blobs: Vec<Released>) -> Freed, if bounds::free(&blobs);
    fn totals() -> Totals;
    fn tidy() -> Tidied;
    fn ready() -> ();
}
