//! `/coffer/relay-join/1`: an invitation binds a vault, and a bound vault's devices make themselves known.
//!
//! `protocol::relay::HostSide` decides; this looks things up, stores, and keeps the bounds: joins at once, time, and
//! attempts from one address.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coffer_protocol::grants::Membership;
use coffer_protocol::identity::{DeviceId, Hash, StoreId, VaultId};
use coffer_protocol::relay::{
    BindError, Host as HostCard, HostSide, HostStep, JOIN_TIMEOUT_MS, JoinError, MAX_BIND,
    Standing, check_binding,
};
use futures::{AsyncReadExt, AsyncWriteExt};

use super::host::{Host, now_ms};
use super::resident::{LoadError, store_grants};
use super::serving::take_leave;
use super::stating;
use super::store::{Consumed, StoreError, VaultRecord};
use crate::net::{Stream, read_frame, write_frame};
use crate::service::random;

/// Carries one attempt to join to its end.
pub async fn join(host: &Arc<Host>, stream: Stream) {
    let device = DeviceId(stream.device());
    if !host.allows_join(device.0) {
        host.metrics.refused("join-rate");
        return;
    }
    let mut side = HostSide::new(host.id, device);
    let (mut reader, mut write) = stream.split();
    let mut epoch = [0; 16];
    rand::Rng::fill_bytes(&mut random(), &mut epoch);
    loop {
        let mut frame = Vec::new();
        let patience = Duration::from_millis(JOIN_TIMEOUT_MS);
        let limit = side.message_limit().min(MAX_BIND);
        let read = tokio::time::timeout(patience, read_frame(&mut reader, &mut frame, limit)).await;
        let mut steps = match read {
            Ok(Ok(true)) => side.on_message(&frame),
            _ => side.disconnected(),
        };
        drop(frame);
        while !steps.is_empty() {
            let mut next = Vec::new();
            for step in steps {
                match step {
                    HostStep::Send(bytes) => {
                        let sent = async {
                            write_frame(&mut write, &bytes, MAX_BIND).await?;
                            write.flush().await.map_err(crate::net::FrameError::from)
                        };
                        if !matches!(tokio::time::timeout(patience, sent).await, Ok(Ok(()))) {
                            return;
                        }
                    }
                    HostStep::LookUp { vault, invitation } => {
                        next.extend(side.stands(look_up(host, vault, invitation, epoch).await));
                    }
                    HostStep::Store {
                        vault,
                        invitation,
                        membership,
                    } => {
                        let outcome =
                            store(host, device, vault, invitation, &membership, epoch).await;
                        next.extend(side.stored(outcome));
                    }
                    HostStep::Bound => return take_leave(reader, write).await,
                    HostStep::Failed(why) => {
                        host.metrics.refused("join");
                        tracing::info!(device = %host.marks.device(device), %why, "a vault was not bound");
                        return take_leave(reader, write).await;
                    }
                }
            }
            steps = next;
        }
    }
}

fn failed(host: &Host, error: StoreError) -> JoinError {
    match error {
        StoreError::NoVault(_) => JoinError::NotInvited,
        error => {
            host.store_failed("bind a vault", &error);
            JoinError::Busy
        }
    }
}

async fn look_up(
    host: &Host,
    vault: VaultId,
    invitation: Option<Hash>,
    epoch: [u8; 16],
) -> Standing {
    let looked = standing(host, vault, invitation, epoch).await;
    looked.unwrap_or_else(|error| Standing::No(failed(host, error)))
}

async fn standing(
    host: &Host,
    vault: VaultId,
    invitation: Option<Hash>,
    epoch: [u8; 16],
) -> Result<Standing, StoreError> {
    let record = host.store.vault(vault).await?;
    let bound = record.as_ref().filter(|record| record.grants > 0);
    let Some(id) = invitation else {
        return Ok(match bound {
            Some(record) => welcome(host, record.quota, record.epoch),
            None => Standing::No(JoinError::NotInvited),
        });
    };
    let Some(found) = host.store.invitation(id).await? else {
        return Ok(Standing::No(JoinError::NotInvited));
    };
    match (&found.used, &record) {
        (Some((by, _)), Some(record)) if *by == vault => {
            return Ok(welcome(host, record.quota, record.epoch));
        }
        (Some(_), _) => return Ok(Standing::No(JoinError::Used)),
        (None, _) if now_ms() >= found.expires_ms => {
            return Ok(Standing::No(JoinError::Expired));
        }
        _ => {}
    }
    if record.is_none() && host.store.totals().await?.vaults >= host.config.max_vaults {
        tracing::warn!("an invitation cannot be used: this host serves as many vaults as it may");
        return Ok(Standing::No(JoinError::Busy));
    }
    Ok(match record {
        // A new invitation begins another life of the vault here: who invites it anew may have put back its store.
        Some(record) => welcome(host, record.quota.max(found.quota), epoch),
        None => welcome(host, found.quota, epoch),
    })
}

fn welcome(host: &Host, quota_bytes: u64, epoch: [u8; 16]) -> Standing {
    Standing::Welcome(Box::new(HostCard {
        sealing: host.sealing.clone(),
        name: host.name.clone(),
        quota_bytes,
        store: StoreId(epoch),
    }))
}

/// Uses the invitation up and keeps the grants, or merges those of a bound vault.
async fn store(
    host: &Host,
    device: DeviceId,
    vault: VaultId,
    invitation: Option<Hash>,
    shown: &Membership,
    epoch: [u8; 16],
) -> Result<(), JoinError> {
    let bound_before = match host.vaults.load(host, vault).await {
        Ok(resident) => {
            let merged = resident
                .merge(host, shown, |all| {
                    check_binding(all, &device, &host.id, invitation.is_none()).is_ok()
                })
                .await
                .map_err(|error| failed(host, error))?;
            if !merged {
                return Err(JoinError::Refused(BindError::Device));
            }
            true
        }
        Err(LoadError::NotServed) => false,
        Err(LoadError::Store(error)) => return Err(failed(host, error)),
        Err(error) => {
            tracing::warn!(%error, "a vault cannot be bound");
            return Err(JoinError::Busy);
        }
    };
    let Some(id) = invitation else {
        return if bound_before {
            Ok(())
        } else {
            Err(JoinError::NotInvited)
        };
    };
    let record = consume(host, id, vault, epoch).await?;
    if !bound_before {
        bind(host, vault, shown)
            .await
            .map_err(|error| failed(host, error))?;
        host.metrics.vaults_bound.inc();
        tracing::info!(vault = %host.marks.vault(vault), quota = record.quota, "a vault was bound");
    }
    stating::state(host, vault)
        .await
        .map_err(|error| failed(host, error))
}

async fn consume(
    host: &Host,
    id: Hash,
    vault: VaultId,
    epoch: [u8; 16],
) -> Result<VaultRecord, JoinError> {
    let consumed = host
        .store
        .consume_invitation(id, vault, epoch, now_ms())
        .await;
    match consumed.map_err(|error| failed(host, error))? {
        Consumed::Now(record) | Consumed::Before(record) => Ok(record),
        Consumed::Unknown => Err(JoinError::NotInvited),
        Consumed::Expired => Err(JoinError::Expired),
        Consumed::Spent => Err(JoinError::Used),
    }
}

/// Keeps the first grants of a vault. Interrupted, it is done again with the same invitation.
async fn bind(host: &Host, vault: VaultId, shown: &Membership) -> Result<(), StoreError> {
    let grants = shown.grants();
    let grants = grants.map(|(id, grant)| (id, Bytes::copy_from_slice(grant.bytes())));
    let nobody = Membership::new(vault);
    store_grants(host, vault, &nobody, shown, grants.collect()).await
}
