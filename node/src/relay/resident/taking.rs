//! What devices bring: entries, grants, statements. All of it is checked, then durable, then told to the others.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use coffer_protocol::grants::{GrantBody, Membership, Role, SignedGrant};
use coffer_protocol::held::HeldStatement;
use coffer_protocol::identity::{DeviceId, Hash, SpaceId, VaultId, WriterId};
use coffer_protocol::relay::HostStatement;
use coffer_protocol::replication::{Action, Rejection};

use super::{Inner, Resident, roles_of};
use crate::relay::host::{Host, now_ms};
use crate::relay::store::{self, Appended, MAX_DEVICES, NewEntry, StoreError};
use crate::relay::verify::{self, Checked, Ground};
use crate::vault::SessionQueue;

impl Resident {
    pub(super) async fn carry_out(
        &self,
        host: &Host,
        inner: &mut Inner,
        action: Action,
    ) -> Result<(), StoreError> {
        match action {
            Action::IngestGrants { peer, grants } => {
                self.take_grants(host, inner, peer, &grants).await
            }
            Action::Ingest {
                peer,
                entries,
                round,
            } => self.take_entries(host, inner, peer, entries, round).await,
            Action::IngestHeld {
                peer,
                device,
                statement,
            } => self.take_held(host, inner, peer, device, statement).await,
            Action::IngestRange {
                peer,
                range,
                attestations,
                round,
            } => {
                let range = (range, attestations);
                self.take_range(host, inner, peer, range, round).await
            }
            Action::IngestAttestations { attestations, .. } => {
                self.take_said(host, inner, &attestations).await
            }
            Action::Fork { peer, seq, .. } => {
                let (vault, device) = (host.marks.vault(self.vault), host.marks.device(peer));
                tracing::warn!(%vault, %device, seq, "a log has forked");
                host.metrics.refused("fork");
                Ok(())
            }
            other => {
                inner.enqueue(vec![other]);
                Ok(())
            }
        }
    }

    async fn take_entries(
        &self,
        host: &Host,
        inner: &mut Inner,
        from: DeviceId,
        entries: Vec<Vec<u8>>,
        round: u32,
    ) -> Result<(), StoreError> {
        let begun = Instant::now();
        let ground = Ground {
            vault: self.vault,
            from,
            writing: verify::writing(&inner.membership, &entries),
            spaces: spaces_of(&inner.membership),
            clock: inner.replicator.clock().clone(),
        };
        // Signatures of a full message take some hundred milliseconds: not on the threads that carry streams.
        let checked = tokio::task::spawn_blocking(move || verify::check(&ground, entries)).await;
        let Checked { good, mut refused } =
            checked.map_err(|error| StoreError::Failed(error.to_string()))?;
        let places: Vec<(WriterId, u64, Hash)> = good.iter().map(place_of).collect();
        let mut durable = Vec::with_capacity(good.len());
        let mut starved = BTreeSet::new();
        if !good.is_empty() {
            let outcomes = host.store.append(self.vault, good).await?;
            for ((writer, seq, header), outcome) in places.into_iter().zip(outcomes) {
                match outcome {
                    Appended::Stored | Appended::Had => durable.push((writer, seq, header)),
                    // Behind one that found no room.
                    Appended::Gap { .. } if starved.contains(&writer) => {}
                    Appended::Gap { .. } => refused.push(Rejection::Gap),
                    Appended::Forked { seq, ours } => refused.push(Rejection::Forked {
                        writer,
                        seq,
                        ours,
                        theirs: header,
                    }),
                    Appended::Full | Appended::TooManyWriters => {
                        // Asking again would bring the same; the statement shows that there is no room.
                        starved.insert(writer);
                        inner.starved = true;
                        host.metrics.refused("over-quota");
                    }
                }
            }
        }
        if !durable.is_empty() {
            host.metrics.entries_in.inc_by(durable.len() as u64);
            host.metrics
                .append_seconds
                .observe(begun.elapsed().as_secs_f64());
            let actions = inner.replicator.committed(&durable, Some(from));
            inner.enqueue(actions);
            let actions = inner.replicator.announce_clock(from);
            inner.enqueue(actions);
            self.to_be_stated(host);
        }
        for why in refused {
            host.metrics.refused("entry");
            let actions = inner.replicator.rejected(from, round, why);
            inner.enqueue(actions);
        }
        Ok(())
    }

    async fn take_grants(
        &self,
        host: &Host,
        inner: &mut Inner,
        from: DeviceId,
        grants: &[Vec<u8>],
    ) -> Result<(), StoreError> {
        let mut membership = inner.membership.clone();
        let (fresh, refused) = fresh_grants(&mut membership, grants);
        if refused {
            host.metrics.refused("grant");
            let device = host.marks.device(from);
            tracing::warn!(%device, "a grant was refused");
        }
        self.adopt(host, inner, membership, fresh).await
    }

    /// Stores new grants, and goes by them from then on.
    async fn adopt(
        &self,
        host: &Host,
        inner: &mut Inner,
        membership: Membership,
        fresh: Vec<(Hash, Bytes)>,
    ) -> Result<(), StoreError> {
        if fresh.is_empty() {
            return Ok(());
        }
        store_grants(host, self.vault, &inner.membership, &membership, fresh).await?;
        self.goes_by(host, inner, membership).await;
        Ok(())
    }

    /// Goes by other grants than before. Who is out by them is told so, and its connection closed.
    pub(super) async fn goes_by(&self, host: &Host, inner: &mut Inner, membership: Membership) {
        let before = self.roles();
        inner.membership = membership;
        let roles = roles_of(&inner.membership);
        *self.roles.write().unwrap_or_else(PoisonError::into_inner) = roles.clone();
        let actions = inner.replicator.grants_changed(inner.membership.heads());
        inner.enqueue(actions);
        for device in before.keys().filter(|device| !roles.contains_key(device)) {
            match inner.queues.remove(device) {
                // Its session ends once it has heard, and the connection with it.
                Some(queue) => {
                    for action in inner.replicator.send_off(*device) {
                        queue.push(action);
                    }
                }
                None => host.let_go(*device).await,
            }
        }
    }

    /// What a device that was put out is to be told; `None` if it was not.
    pub async fn part_with(&self, device: DeviceId) -> Option<Arc<SessionQueue>> {
        let mut inner = self.inner.lock().await;
        if !inner.membership.former().contains_key(&device) {
            return None;
        }
        let queue = Arc::new(SessionQueue::default());
        for action in inner.replicator.send_off(device) {
            queue.push(action);
        }
        Some(queue)
    }

    /// Merges whole lists of grants that a joining device showed, if the outcome is as `allowed` wants.
    pub async fn merge(
        &self,
        host: &Host,
        shown: &Membership,
        allowed: impl FnOnce(&Membership) -> bool,
    ) -> Result<bool, StoreError> {
        let mut inner = self.inner.lock().await;
        let mut membership = inner.membership.clone();
        let mut fresh = Vec::new();
        for (id, grant) in shown.grants() {
            if membership.get(&id).is_none() && membership.insert(grant.clone()).is_ok() {
                fresh.push((id, Bytes::copy_from_slice(grant.bytes())));
            }
        }
        if !allowed(&membership) {
            return Ok(false);
        }
        self.adopt(host, &mut inner, membership, fresh).await?;
        Ok(true)
    }

    async fn take_held(
        &self,
        host: &Host,
        inner: &mut Inner,
        from: DeviceId,
        device: DeviceId,
        statement: Vec<u8>,
    ) -> Result<(), StoreError> {
        // The host's own comes back from devices that compare; it knows what it said.
        if device == host.id {
            return Ok(());
        }
        let Some(counter) = statement_counter(&inner.membership, device, &statement) else {
            host.metrics.refused("statement");
            return Ok(());
        };
        let known = inner.held.get(&device).copied();
        if known.is_some_and(|known| known >= counter) {
            // Of two different statements of one moment only one is kept. The other proves that a host lies: those who
            // are here are to see it.
            let is_host = inner.membership.role(&device) == Some(Role::Relay);
            if is_host && known == Some(counter) {
                let kept = host.store.held(self.vault).await?.into_iter();
                let mut kept = kept.filter(|kept| kept.device == device);
                if kept.any(|kept| kept.bytes != statement) {
                    inner.pass_on(from, device, &statement);
                }
            }
            return Ok(());
        }
        let record = store::HeldStatement {
            device,
            counter,
            bytes: Bytes::from(statement.clone()),
        };
        if host.store.put_held(self.vault, record).await? {
            inner.held.insert(device, counter);
            let actions = inner.replicator.held_changed(device, statement, Some(from));
            inner.enqueue(actions);
        }
        Ok(())
    }
}

/// Stores grants, who is in the vault by them, and that those who are new count from now on.
pub async fn store_grants(
    host: &Host,
    vault: VaultId,
    before: &Membership,
    after: &Membership,
    fresh: Vec<(Hash, Bytes)>,
) -> Result<(), StoreError> {
    let members: Vec<DeviceId> = after.devices().keys().take(MAX_DEVICES).copied().collect();
    host.store.set_members(vault, members.clone()).await?;
    for device in members {
        if !before.is_member(&device) {
            host.store.note_seen(vault, device, now_ms()).await?;
        }
    }
    // Last: what was interrupted before this is done again, as the grants are still new then.
    host.store.put_grants(vault, fresh).await?;
    Ok(())
}

/// Takes in grants, up to the first that is refused; gives those that are new, and whether one was refused. Grants come
/// parents first. One whose parents are not here is not kept waiting in memory: it comes again.
pub fn fresh_grants(membership: &mut Membership, grants: &[Vec<u8>]) -> (Vec<(Hash, Bytes)>, bool) {
    let mut fresh = Vec::new();
    for bytes in grants {
        let Ok(grant) = SignedGrant::decode(bytes) else {
            return (fresh, true);
        };
        if membership.get(&grant.id()).is_some() || !membership.knows(&grant.value().parents) {
            continue;
        }
        let id = grant.id();
        if membership.insert(grant).is_err() {
            return (fresh, true);
        }
        fresh.push((id, Bytes::copy_from_slice(bytes)));
    }
    (fresh, false)
}

/// By what the newer of two statements of this device is told, if it is a statement of this device. That of another host
/// has a counter that begins anew with each store; its time does not.
pub fn statement_counter(
    membership: &Membership,
    device: DeviceId,
    statement: &[u8],
) -> Option<u64> {
    let vault = membership.vault();
    match membership.role(&device)? {
        Role::Relay => HostStatement::read(statement, &vault, &device)
            .ok()
            .map(|statement| statement.value().at_ms),
        _ => HeldStatement::read(statement, &vault)
            .ok()
            .filter(|statement| statement.value().device == device)
            .map(|statement| statement.value().counter),
    }
}

fn place_of(entry: &NewEntry) -> (WriterId, u64, Hash) {
    (entry.writer, entry.seq, entry.header)
}

/// The spaces in which entries may be written: those that grants began.
pub fn spaces_of(membership: &Membership) -> BTreeSet<SpaceId> {
    membership
        .grants()
        .filter_map(|(_, grant)| match &grant.value().body {
            GrantBody::Epoch(epoch) => Some(epoch.space),
            GrantBody::Genesis { .. }
            | GrantBody::Admit { .. }
            | GrantBody::Revoke(_)
            | GrantBody::Role(_)
            | GrantBody::Replace { .. } => None,
        })
        .collect()
}
