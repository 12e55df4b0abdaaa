//! Whoever shows that they have the words of a vault that is kept here gets its grants, and a new device of theirs in.

use std::sync::Arc;

use coffer_protocol::grants::Membership;
use coffer_protocol::identity::{DeviceId, VaultId};
use coffer_protocol::recovery::RecoverError;

use super::host::Host;
use super::resident::LoadError;
use super::store::StoreError;
use crate::net::Stream;
use crate::recovering::{self, Keeps};

/// Carries one attempt to its end.
pub async fn serve(host: &Arc<Host>, stream: Stream) {
    let device = DeviceId(stream.device());
    if !host.allows_join(device.0) {
        host.metrics.refused("recover-rate");
        return;
    }
    if recovering::answer(&Kept(host), host.id, stream).await {
        tracing::info!(device = %host.marks.device(device), "a device was let in with a vault's words");
    }
}

struct Kept<'a>(&'a Arc<Host>);

impl Kept<'_> {
    fn failed(&self, error: StoreError) -> RecoverError {
        match error {
            StoreError::NoVault(_) => RecoverError::NotYours,
            error => {
                self.0
                    .store_failed("let a device in with a vault's words", &error);
                RecoverError::Busy
            }
        }
    }

    fn not_loaded(&self, error: LoadError) -> RecoverError {
        match error {
            LoadError::NotServed => RecoverError::NotYours,
            LoadError::Store(error) => self.failed(error),
            error => {
                tracing::warn!(%error, "a vault cannot be read for who has its words");
                RecoverError::Busy
            }
        }
    }
}

impl Keeps for Kept<'_> {
    async fn look_up(
        &self,
        vault: VaultId,
        recovery: DeviceId,
    ) -> Result<Vec<Vec<u8>>, RecoverError> {
        let resident = self.0.vaults.load(self.0, vault).await;
        let resident = resident.map_err(|error| self.not_loaded(error))?;
        resident
            .grants_for(&recovery)
            .await
            .ok_or(RecoverError::NotYours)
    }

    async fn store(
        &self,
        vault: VaultId,
        asker: DeviceId,
        grants: Vec<Vec<u8>>,
    ) -> Result<(), RecoverError> {
        let shown = Membership::from_bytes(vault, grants).map_err(|_| RecoverError::NotTaken)?;
        let resident = self.0.vaults.load(self.0, vault).await;
        let resident = resident.map_err(|error| self.not_loaded(error))?;
        let is_in = |all: &Membership| all.role(&asker).is_some_and(|role| role.holds_keys());
        match resident.merge(self.0, &shown, is_in).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(RecoverError::NotTaken),
            Err(error) => Err(self.failed(error)),
        }
    }
}
