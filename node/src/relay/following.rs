//! What other processes on the same store did reaches the devices that are connected here.

use std::sync::Arc;

use coffer_protocol::identity::VaultId;
use futures::StreamExt;
use tokio::sync::watch;

use super::host::{Host, stopped};
use super::resident::{LoadError, Resident};
use super::store::{Change, StoreError, What};

/// Follows until `stop`, or until the store is closed.
pub async fn run(host: Arc<Host>, mut stop: watch::Receiver<bool>) {
    let mut changes = host.store.changes();
    loop {
        let change = tokio::select! {
            () = stopped(&mut stop) => return,
            change = changes.next() => change,
        };
        match change {
            None => return,
            Some(Change::In { vault, what }) => follow(&host, vault, what).await,
            Some(Change::Missed) => {
                for resident in host.vaults.all() {
                    for what in [What::Vault, What::Grants, What::Entries, What::Statements] {
                        follow(&host, resident.vault, what).await;
                    }
                }
            }
        }
    }
}

async fn follow(host: &Host, vault: VaultId, what: What) {
    let Some(resident) = host.vaults.get(&vault) else {
        return;
    };
    if let Err(error) = take(host, &resident, what).await {
        match error {
            LoadError::Store(StoreError::NoVault(_)) => {}
            LoadError::Store(error) => host.store_failed("follow another process", &error),
            error => tracing::warn!(%error, "another process left something that cannot be read"),
        }
        // Whatever was missed is read when the devices come back.
        leave(host, &resident).await;
    }
}

async fn take(host: &Host, resident: &Resident, what: What) -> Result<(), LoadError> {
    match what {
        What::Vault => {
            if host.store.vault(resident.vault).await?.is_none() {
                leave(host, resident).await;
            }
        }
        What::Grants => resident.reread_grants(host).await?,
        What::Entries => {
            resident.reread_clock(host).await?;
            resident.reread_ranges(host).await?;
        }
        What::Statements => resident.reread_statements(host).await?,
        // They are asked of the store each time; the statement about them comes by itself.
        What::Blobs => {}
    }
    Ok(())
}

async fn leave(host: &Host, resident: &Resident) {
    host.vaults.remove(&resident.vault);
    resident.close_all().await;
}
