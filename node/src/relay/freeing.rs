//! What no device names any more goes, after its grace; and the store tidies up.
//!
//! Who must have released a blob is decided by `protocol::relay::freeing`: one device's word frees nothing that another
//! still names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coffer_protocol::grants::Membership;
use coffer_protocol::identity::{DeviceId, VaultId};
use coffer_protocol::ranges::{SignedAttestation, may_replace};
use coffer_protocol::relay::freeing::{Member, Word, may_free};
use tokio::sync::watch;

use super::host::{Host, now_ms, stopped};
use super::store::{Freed, Released, StoreError};
use super::{scrubbing, stating};

/// Between two looks at what may go, while graces are hours.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// The shortest time between two looks, for hosts that are set to a shorter grace.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at which vaults may leave memory.
const UNLOAD_EVERY: Duration = Duration::from_secs(30);
/// Blobs that are looked at in one step.
const STEP: usize = 1024;
/// Vaults that are read in one step.
const VAULTS_STEP: usize = 256;
/// How long receipts of erased vaults, and invitations that nobody used, are kept: a device may ask again for so long.
const FORGET_AFTER: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// Looks from time to time until `stop`.
pub async fn run(host: Arc<Host>, mut stop: watch::Receiver<bool>) {
    let look_every = host.config.grace.clamp(LOOK_AT_MOST_EVERY, LOOK_EVERY);
    let unload_every = host
        .config
        .resident_idle
        .clamp(Duration::from_secs(1), UNLOAD_EVERY);
    let mut looked = Instant::now();
    // What was interrupted last time goes on soon after the start.
    let mut due = true;
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(unload_every) => {}
        }
        let dropped = host
            .vaults
            .drop_idle(host.config.resident_idle, Instant::now());
        if dropped > 0 {
            tracing::debug!(dropped, "vaults left memory");
        }
        if due || looked.elapsed() >= look_every {
            due = false;
            looked = Instant::now();
            tokio::select! {
                () = stopped(&mut stop) => return,
                done = clean(&host) => if let Err(error) = done {
                    host.store_failed("free what is not named", &error);
                },
            }
        }
    }
}

/// Looks at every vault once, frees what may go, and tidies up.
pub async fn clean(host: &Host) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let vaults = host.store.vaults(after, VAULTS_STEP).await?;
        for record in &vaults {
            after = Some(record.vault);
            let freed = match free(host, record.vault).await {
                Err(StoreError::NoVault(_)) => continue,
                freed => freed?,
            };
            let dropped = match drop_entries(host, record.vault).await {
                Err(StoreError::NoVault(_)) => continue,
                dropped => dropped?,
            };
            if freed.blobs > 0 || dropped > 0 {
                host.metrics.blobs_freed.inc_by(freed.blobs);
                stating::state(host, record.vault).await?;
            }
            if let Some(resident) = host.vaults.get(&record.vault) {
                resident.retry_starved().await;
            }
        }
        if vaults.len() < VAULTS_STEP {
            break;
        }
    }
    let forgotten = u64::try_from(FORGET_AFTER.as_millis()).unwrap_or(u64::MAX);
    host.store
        .forget(now_ms().saturating_sub(forgotten))
        .await?;
    loop {
        let tidied = host.store.tidy().await?;
        for vault in tidied.damaged {
            // At least one, and the rest of the vault is read for it.
            scrubbing::found(host, vault, 1).await?;
        }
        if !tidied.more {
            break;
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Drops the entries of a vault for which ranges stand, where the rule allows it; gives what they counted, in bytes.
async fn drop_entries(host: &Host, vault: VaultId) -> Result<u64, StoreError> {
    let mut ranges = host.store.ranges(vault).await?;
    ranges.retain(|range| !range.alone);
    if ranges.is_empty() {
        return Ok(0);
    }
    let members = members_of(host, vault).await?;
    let mut dropped = 0;
    for range in ranges {
        let said = range.said.iter();
        let said: Vec<SignedAttestation> = said
            .filter_map(|(_, said)| SignedAttestation::decode(said).ok())
            .collect();
        if may_replace(&range.head, &said, &members, now_ms()) {
            let (writer, to) = (range.head.writer, range.head.to);
            dropped += host.store.drop_entries(vault, writer, to).await?;
        }
    }
    if let Some(resident) = host.vaults.get(&vault)
        && dropped > 0
    {
        resident.reread_ranges(host).await?;
    }
    Ok(dropped)
}

async fn free(host: &Host, vault: VaultId) -> Result<Freed, StoreError> {
    let mut total = Freed::default();
    let mut after = None;
    let mut members = None;
    loop {
        let released = host.store.released(vault, after, STEP).await?;
        let Some(last) = released.last().map(|blob| blob.id) else {
            return Ok(total);
        };
        let was_last = released.len() < STEP;
        if members.is_none() {
            members = Some(members_of(host, vault).await?);
        }
        let due = due(
            released,
            members.as_deref().unwrap_or_default(),
            host.config.grace,
        );
        if !due.is_empty() {
            let freed = host.store.free(vault, due).await?;
            total.blobs += freed.blobs;
            total.bytes += freed.bytes;
        }
        if was_last {
            return Ok(total);
        }
        after = Some(last);
    }
}

/// Those that may go now.
fn due(released: Vec<Released>, members: &[Member], grace: Duration) -> Vec<Released> {
    let (now, grace) = (
        now_ms(),
        u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
    );
    let may_go = |blob: &Released| {
        // A claim takes back all releases, so that those that are there came after it.
        let word = Word {
            claimed_ms: 0,
            released: &blob.by,
        };
        may_free(word, members, now, grace)
    };
    released.into_iter().filter(may_go).collect()
}

async fn members_of(host: &Host, vault: VaultId) -> Result<Vec<Member>, StoreError> {
    let grants = host.store.grants(vault).await?;
    let membership = Membership::from_bytes(vault, &grants)
        .map_err(|error| StoreError::Damaged(error.to_string()))?;
    let seen = host.store.seen(vault).await?;
    let heard = |device: &DeviceId| {
        let found = seen.iter().find(|(seen, _)| seen == device);
        // One of whom it is not known counts: that errs towards keeping.
        found.map_or_else(now_ms, |(_, at)| *at)
    };
    let devices = membership.devices().iter();
    Ok(devices
        .map(|(id, device)| Member {
            device: *id,
            role: device.role,
            heard_ms: heard(id),
        })
        .collect())
}
