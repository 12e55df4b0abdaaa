//! What other processes on the same store did to a vault that is in memory here.

use coffer_protocol::grants::Membership;
use coffer_protocol::identity::{Hash, WriterId};

use super::{LoadError, Resident};
use crate::relay::host::Host;
use crate::relay::store::StoreError;

impl Resident {
    /// Another process on the same store stored entries.
    pub async fn reread_clock(&self, host: &Host) -> Result<(), StoreError> {
        let mut inner = self.inner.lock().await;
        let clock = host.store.clock(self.vault).await?;
        let known = inner.replicator.clock();
        let news: Vec<(WriterId, u64, Hash)> = clock
            .iter()
            .filter(|(writer, seq, _)| !known.covers(writer, *seq))
            .map(|(writer, seq, hash)| (*writer, seq, hash))
            .collect();
        let actions = inner.replicator.committed(&news, None);
        inner.enqueue(actions);
        Ok(())
    }

    /// Another process on the same store stored grants.
    pub async fn reread_grants(&self, host: &Host) -> Result<(), LoadError> {
        let mut inner = self.inner.lock().await;
        let grants = host.store.grants(self.vault).await?;
        let membership = Membership::from_bytes(self.vault, &grants)
            .map_err(|error| LoadError::Damaged(error.to_string()))?;
        if membership.heads() != inner.membership.heads() {
            self.goes_by(host, &mut inner, membership).await;
        }
        Ok(())
    }

    /// Another process on the same store took statements, or made one.
    pub async fn reread_statements(&self, host: &Host) -> Result<(), StoreError> {
        let mut inner = self.inner.lock().await;
        let mut actions = Vec::new();
        for statement in host.store.held(self.vault).await? {
            let known = inner.held.get(&statement.device);
            if known.is_none_or(|known| *known < statement.counter) {
                inner.held.insert(statement.device, statement.counter);
                let bytes = statement.bytes.to_vec();
                actions.extend(inner.replicator.held_changed(statement.device, bytes, None));
            }
        }
        if let Some(snapshot) = host.store.snapshot(self.vault).await?
            && let Some(statement) = snapshot.statement
        {
            actions.extend(
                inner
                    .replicator
                    .held_changed(host.id, statement.to_vec(), None),
            );
        }
        inner.enqueue(actions);
        Ok(())
    }
}
