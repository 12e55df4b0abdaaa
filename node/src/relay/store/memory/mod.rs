//! The plain model of a store: maps in memory, nothing durable. Tests use it in a real one's place, and the
//! conformance suite compares the others with it. What happens to one vault is in `vault.rs`.

mod vault;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId, WriterId};
use coffer_protocol::log::Clock;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;

use super::{
    Appended, Blob, Change, Consumed, Freed, HeldStatement, Invitation, KeptRange, NewEntry,
    NewRange, Put, RelayStore, Released, Snapshot, StoreError, StoredEntry, Tidied, Totals,
    VaultRecord, bounds,
};
use vault::Vault;

/// A store in memory.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    closed: watch::Sender<bool>,
}

#[derive(Clone, Default)]
struct State {
    invitations: BTreeMap<Hash, Invitation>,
    vaults: BTreeMap<VaultId, Vault>,
    receipts: BTreeMap<VaultId, (u64, Bytes)>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another store with all that is in this one now, as a copied disk is one.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub fn copy(&self) -> Result<MemoryStore, StoreError> {
        let state = self.state()?.clone();
        Ok(MemoryStore {
            state: Mutex::new(state),
            closed: watch::channel(false).0,
        })
    }

    /// Does to a blob what no caller can: replaces its bytes, or loses them. Says whether it was there.
    ///
    /// # Errors
    /// [`StoreError::NoVault`], [`StoreError::Closed`].
    pub fn damage(
        &self,
        vault: VaultId,
        id: Hash,
        bytes: Option<Bytes>,
    ) -> Result<bool, StoreError> {
        self.within(vault, |vault| {
            let Some(kept) = vault.blobs.get_mut(&id) else {
                return Ok(false);
            };
            match bytes {
                Some(bytes) => kept.bytes = bytes,
                None => {
                    let len = kept.len;
                    vault.blobs.remove(&id);
                    vault.usage.remove_blob(len);
                }
            }
            Ok(true)
        })
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        match *self.closed.borrow() {
            true => Err(StoreError::Closed),
            false => Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn within<T>(
        &self,
        vault: VaultId,
        act: impl FnOnce(&mut Vault) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.state()?;
        act(state
            .vaults
            .get_mut(&vault)
            .ok_or(StoreError::NoVault(vault))?)
    }
}

/// Those above `after`, at most `max`.
fn page<K: Ord + Copy, V>(
    map: &BTreeMap<K, V>,
    after: Option<K>,
    max: usize,
) -> impl Iterator<Item = (&K, &V)> {
    use std::ops::Bound::{Excluded, Unbounded};
    map.range((after.map_or(Unbounded, Excluded), Unbounded))
        .take(bounds::page(max))
}

#[async_trait]
impl RelayStore for MemoryStore {
    async fn add_invitation(&self, invitation: Invitation) -> Result<(), StoreError> {
        let mut state = self.state()?;
        if !state.invitations.contains_key(&invitation.id) {
            bounds::one_more_invitation(state.invitations.len() as u64)?;
            state.invitations.insert(invitation.id, invitation);
        }
        Ok(())
    }

    async fn invitation(&self, id: Hash) -> Result<Option<Invitation>, StoreError> {
        Ok(self.state()?.invitations.get(&id).cloned())
    }

    async fn invitations(
        &self,
        after: Option<Hash>,
        max: usize,
    ) -> Result<Vec<Invitation>, StoreError> {
        let state = self.state()?;
        Ok(page(&state.invitations, after, max)
            .map(|(_, invitation)| invitation.clone())
            .collect())
    }

    async fn remove_invitation(&self, id: Hash) -> Result<bool, StoreError> {
        Ok(self.state()?.invitations.remove(&id).is_some())
    }

    async fn consume_invitation(
        &self,
        id: Hash,
        vault: VaultId,
        epoch: [u8; 16],
        now_ms: u64,
    ) -> Result<Consumed, StoreError> {
        let mut state = self.state()?;
        let State {
            invitations,
            vaults,
            ..
        } = &mut *state;
        let Some(invitation) = invitations.get_mut(&id) else {
            return Ok(Consumed::Unknown);
        };
        match invitation.used {
            Some((by, _)) => {
                return Ok(match vaults.get(&vault).filter(|_| by == vault) {
                    Some(kept) => Consumed::Before(kept.record(vault)),
                    None => Consumed::Spent,
                });
            }
            None if now_ms >= invitation.expires_ms => return Ok(Consumed::Expired),
            None => invitation.used = Some((vault, now_ms)),
        }
        let is_new = !vaults.contains_key(&vault);
        let kept = vaults
            .entry(vault)
            .or_insert_with(|| Vault::new(epoch, now_ms));
        if !is_new {
            kept.begin_anew(epoch, now_ms);
        }
        kept.quota = kept.quota.max(invitation.quota);
        Ok(Consumed::Now(kept.record(vault)))
    }

    async fn vault(&self, vault: VaultId) -> Result<Option<VaultRecord>, StoreError> {
        Ok(self
            .state()?
            .vaults
            .get(&vault)
            .map(|kept| kept.record(vault)))
    }

    async fn vaults(
        &self,
        after: Option<VaultId>,
        max: usize,
    ) -> Result<Vec<VaultRecord>, StoreError> {
        let state = self.state()?;
        Ok(page(&state.vaults, after, max)
            .map(|(vault, kept)| kept.record(*vault))
            .collect())
    }

    async fn set_quota(&self, vault: VaultId, quota: u64) -> Result<(), StoreError> {
        self.within(vault, |kept| {
            kept.quota = quota;
            Ok(())
        })
    }

    async fn set_members(&self, vault: VaultId, members: Vec<DeviceId>) -> Result<(), StoreError> {
        self.within(vault, |kept| {
            kept.members = members.into_iter().collect();
            Ok(())
        })
    }

    async fn vaults_of(&self, device: DeviceId) -> Result<Vec<VaultId>, StoreError> {
        let state = self.state()?;
        let named = state.vaults.iter();
        Ok(named
            .filter(|(_, kept)| kept.members.contains(&device))
            .map(|(vault, _)| *vault)
            .take(super::MAX_VAULTS_OF)
            .collect())
    }

    async fn note_seen(
        &self,
        vault: VaultId,
        device: DeviceId,
        at_ms: u64,
    ) -> Result<(), StoreError> {
        self.within(vault, |kept| {
            if !kept.seen.contains_key(&device) {
                bounds::one_more_device(kept.seen.len())?;
            }
            let last = kept.seen.entry(device).or_default();
            *last = at_ms.max(*last);
            Ok(())
        })
    }

    async fn seen(&self, vault: VaultId) -> Result<Vec<(DeviceId, u64)>, StoreError> {
        self.within(vault, |kept| {
            Ok(kept
                .seen
                .iter()
                .map(|(device, at)| (*device, *at))
                .collect())
        })
    }

    async fn erase(&self, vault: VaultId, receipt: Bytes, now_ms: u64) -> Result<bool, StoreError> {
        let mut state = self.state()?;
        let was = state.vaults.remove(&vault).is_some();
        if was {
            state.receipts.insert(vault, (now_ms, receipt));
        }
        Ok(was)
    }

    async fn receipt(&self, vault: VaultId) -> Result<Option<Bytes>, StoreError> {
        let state = self.state()?;
        Ok(state.receipts.get(&vault).map(|(_, bytes)| bytes.clone()))
    }

    async fn forget(&self, before_ms: u64) -> Result<u64, StoreError> {
        let mut state = self.state()?;
        let before = state.receipts.len() + state.invitations.len();
        state.receipts.retain(|_, (at, _)| *at >= before_ms);
        state
            .invitations
            .retain(|_, invitation| invitation.expires_ms >= before_ms);
        Ok((before - state.receipts.len() - state.invitations.len()) as u64)
    }

    async fn put_grants(
        &self,
        vault: VaultId,
        grants: Vec<(Hash, Bytes)>,
    ) -> Result<usize, StoreError> {
        self.within(vault, |kept| kept.put_grants(grants))
    }

    async fn grants(&self, vault: VaultId) -> Result<Vec<Bytes>, StoreError> {
        self.within(vault, |kept| {
            let grants = kept.grants.iter();
            Ok(grants.map(|(_, bytes)| bytes.clone()).collect())
        })
    }

    async fn append(
        &self,
        vault: VaultId,
        entries: Vec<NewEntry>,
    ) -> Result<Vec<Appended>, StoreError> {
        self.within(vault, |kept| {
            Ok(entries
                .into_iter()
                .map(|entry| kept.append(entry))
                .collect())
        })
    }

    async fn entries(
        &self,
        vault: VaultId,
        writer: WriterId,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        self.within(vault, |kept| Ok(kept.entries(&writer, from, to, max_bytes)))
    }

    async fn put_range(&self, vault: VaultId, range: NewRange) -> Result<Appended, StoreError> {
        self.within(vault, |kept| kept.put_range(range))
    }

    async fn drop_entries(
        &self,
        vault: VaultId,
        writer: WriterId,
        to: u64,
    ) -> Result<u64, StoreError> {
        self.within(vault, |kept| Ok(kept.drop_entries(&writer, to)))
    }

    async fn put_said(
        &self,
        vault: VaultId,
        writer: WriterId,
        to: u64,
        device: DeviceId,
        said: Bytes,
    ) -> Result<(), StoreError> {
        self.within(vault, |kept| {
            let log = kept.logs.get_mut(&writer);
            if let Some(range) = log.and_then(|log| log.ranges.get_mut(&to)) {
                range.said.insert(device, said);
            }
            Ok(())
        })
    }

    async fn ranges(&self, vault: VaultId) -> Result<Vec<KeptRange>, StoreError> {
        self.within(vault, |kept| Ok(kept.ranges()))
    }

    async fn range_of(
        &self,
        vault: VaultId,
        writer: WriterId,
        to: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        self.within(vault, |kept| {
            let log = kept.logs.get(&writer);
            let range = log.and_then(|log| log.ranges.get(&to));
            Ok(range.map(|range| range.bytes.clone()))
        })
    }

    async fn clock(&self, vault: VaultId) -> Result<Clock, StoreError> {
        self.within(vault, |kept| Ok(kept.clock()))
    }

    async fn put_held(&self, vault: VaultId, statement: HeldStatement) -> Result<bool, StoreError> {
        self.within(vault, |kept| kept.put_held(statement))
    }

    async fn held(&self, vault: VaultId) -> Result<Vec<HeldStatement>, StoreError> {
        self.within(vault, |kept| Ok(kept.held.values().cloned().collect()))
    }

    async fn snapshot(&self, vault: VaultId) -> Result<Option<Snapshot>, StoreError> {
        let state = self.state()?;
        Ok(state.vaults.get(&vault).map(|kept| Snapshot {
            record: kept.record(vault),
            clock: kept.clock(),
            counter: kept.counter,
            statement: kept.statement.clone(),
        }))
    }

    async fn put_host_statement(
        &self,
        vault: VaultId,
        counter: u64,
        statement: Bytes,
    ) -> Result<bool, StoreError> {
        self.within(vault, |kept| Ok(kept.state(counter, statement)))
    }

    async fn have(
        &self,
        vault: VaultId,
        ids: Vec<Hash>,
        claim: bool,
    ) -> Result<Vec<bool>, StoreError> {
        self.within(vault, |kept| Ok(kept.have(&ids, claim)))
    }

    async fn put(&self, vault: VaultId, blobs: Vec<(Hash, Bytes)>) -> Result<Vec<Put>, StoreError> {
        self.within(vault, |kept| {
            let put = blobs.into_iter().map(|(id, bytes)| kept.put(id, bytes));
            Ok(put.collect())
        })
    }

    fn get(&self, vault: VaultId, ids: Vec<Hash>) -> BoxStream<'static, Result<Blob, StoreError>> {
        let read = self.within(vault, |kept| {
            let bytes = |id| kept.blobs.get(id).map(|blob| blob.bytes.clone());
            Ok(ids.iter().map(bytes).collect::<Vec<_>>())
        });
        match read {
            Ok(all) => stream::iter(all.into_iter().enumerate())
                .map(|(index, bytes)| Ok(Blob { index, bytes }))
                .boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn range(
        &self,
        vault: VaultId,
        id: Hash,
        offset: u64,
        len: u32,
    ) -> Result<Option<Bytes>, StoreError> {
        self.within(vault, |kept| {
            Ok(kept.blobs.get(&id).map(|blob| {
                let range = bounds::part(blob.bytes.len() as u64, offset, len);
                blob.bytes.slice(range.start as usize..range.end as usize)
            }))
        })
    }

    async fn verify(&self, vault: VaultId, ids: Vec<Hash>) -> Result<Vec<Hash>, StoreError> {
        self.within(vault, |kept| Ok(kept.verify(ids)))
    }

    async fn list(
        &self,
        vault: VaultId,
        after: Option<Hash>,
        max: usize,
    ) -> Result<Vec<Hash>, StoreError> {
        self.within(vault, |kept| {
            Ok(page(&kept.blobs, after, max).map(|(id, _)| *id).collect())
        })
    }

    async fn release(
        &self,
        vault: VaultId,
        device: DeviceId,
        ids: Vec<Hash>,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        self.within(vault, |kept| kept.release(device, &ids, now_ms))
    }

    async fn released(
        &self,
        vault: VaultId,
        after: Option<Hash>,
        max: usize,
    ) -> Result<Vec<Released>, StoreError> {
        self.within(vault, |kept| Ok(kept.released(after, bounds::page(max))))
    }

    async fn free(&self, vault: VaultId, blobs: Vec<Released>) -> Result<Freed, StoreError> {
        self.within(vault, |kept| Ok(kept.free(blobs)))
    }

    async fn totals(&self) -> Result<Totals, StoreError> {
        let state = self.state()?;
        let mut totals = Totals::default();
        for kept in state.vaults.values() {
            totals.add(&kept.usage, kept.quota);
        }
        Ok(totals)
    }

    async fn tidy(&self) -> Result<Tidied, StoreError> {
        self.state().map(|_| Tidied::default())
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.state().map(|_| ())
    }

    fn changes(&self) -> BoxStream<'static, Change> {
        let mut closed = self.closed.subscribe();
        // There is no other process: the stream only ends.
        stream::once(async move {
            let _ = closed.wait_for(|closed| *closed).await;
        })
        .filter_map(|()| std::future::ready(None))
        .boxed()
    }

    async fn close(&self) {
        self.closed.send_replace(true);
    }
}

#[cfg(test)]
mod tests;
