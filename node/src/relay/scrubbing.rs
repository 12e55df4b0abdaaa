//! Reads again what is kept, so that bytes which a disk has damaged are found, and brought anew by the devices.
//!
//! Whatever is read for a device is compared with its hash on the way ([`doubt`]). Where one blob turns out to be damaged,
//! all of its vault is read at once: disks lose bytes in runs. Apart from that everything is read once in
//! `[vaults] check_every`, slowly. What is damaged is no longer said to be here, and a new statement says that there is
//! less: devices ask again about everything then, and leave what is lacking.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coffer_protocol::identity::{Hash, VaultId};
use rand::{Rng, RngExt};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::host::{Host, stopped};
use super::stating;
use super::store::{MAX_VERIFY, StoreError};
use crate::service::random;

/// After a start, when everything begins to be read: who looks what a host costs at rest is not to meet it.
const FIRST: Duration = Duration::from_secs(60 * 60);
/// Bytes a second that are read of everything: a terabyte in a day and a half, and little of any disk's time.
const PACE: u64 = 8 << 20;
/// The same for a vault in which something was found.
const SUSPECT_PACE: u64 = 32 << 20;
/// Vaults that wait to be read whole. One for which there is no place is read with all others.
const MAX_SUSPECTS: usize = 1024;

/// Vaults in which something damaged was found.
#[derive(Default)]
pub struct Suspects {
    vaults: Mutex<BTreeSet<VaultId>>,
    more: Notify,
}

impl Suspects {
    fn add(&self, vault: VaultId) {
        let mut vaults = self.vaults.lock().unwrap_or_else(PoisonError::into_inner);
        if vaults.len() < MAX_SUSPECTS && vaults.insert(vault) {
            self.more.notify_one();
        }
    }

    fn take(&self) -> Option<VaultId> {
        let mut vaults = self.vaults.lock().unwrap_or_else(PoisonError::into_inner);
        vaults.pop_first()
    }
}

/// Blobs of a vault seemed damaged when they were read: those that are go.
pub async fn doubt(host: &Host, vault: VaultId, ids: &[Hash]) -> Result<(), StoreError> {
    let mut damaged = 0;
    for ids in ids.chunks(MAX_VERIFY) {
        damaged += host.store.verify(vault, ids.to_vec()).await?.len();
    }
    found(host, vault, damaged).await
}

/// Some of a vault's blobs turned out to be damaged, and are forgotten: it is said, and the others are looked at.
pub async fn found(host: &Host, vault: VaultId, damaged: usize) -> Result<(), StoreError> {
    if damaged == 0 {
        return Ok(());
    }
    host.suspects.add(vault);
    tell(host, vault, damaged).await
}

async fn tell(host: &Host, vault: VaultId, damaged: usize) -> Result<(), StoreError> {
    host.metrics.blobs_damaged.inc_by(damaged as u64);
    let mark = host.marks.vault(vault);
    tracing::warn!(vault = %mark, blobs = damaged, "the disk has damaged contents; devices are asked to bring them again");
    match host.vaults.get(&vault) {
        Some(resident) => resident.to_be_stated(host),
        None => stating::state(host, vault).await?,
    }
    Ok(())
}

/// Reads vaults in which something was found, and everything from time to time, until `stop`.
pub async fn run(host: Arc<Host>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        () = stopped(&mut stop) => {}
        () = look(&host) => {}
    }
}

async fn look(host: &Host) {
    let every = host.config.check_every;
    // Several processes on one storage would each read all of it; and such a storage looks after its bytes.
    let all = !every.is_zero() && !host.store.is_shared();
    let mut begin = Instant::now() + FIRST.min(every);
    let mut round: Option<Round> = None;
    loop {
        if let Some(vault) = host.suspects.take() {
            if let Err(error) = read_whole(host, vault).await {
                host.store_failed("read a vault again", &error);
            }
            continue;
        }
        if let Some(under_way) = &mut round {
            match under_way.step(host).await {
                Ok(true) => {}
                Ok(false) => {
                    round = None;
                    begin = Instant::now() + every;
                }
                Err(error) => {
                    host.store_failed("read everything again", &error);
                    round = None;
                    begin = Instant::now() + FIRST.min(every);
                }
            }
            continue;
        }
        tokio::select! {
            () = host.suspects.more.notified() => {}
            () = tokio::time::sleep_until(begin), if all => round = Some(Round::begin()),
        }
    }
}

/// Everything, read once: from a random vault on, so that a host which is restarted often comes to all of them.
struct Round {
    start: VaultId,
    vault: Option<VaultId>,
    after: Option<Hash>,
    /// Whether the vaults after the start were read, and those before it are.
    wrapped: bool,
}

impl Round {
    fn begin() -> Round {
        let mut start = [0; VaultId::LEN];
        random().fill_bytes(&mut start);
        Round {
            start: VaultId(start),
            vault: None,
            after: None,
            wrapped: false,
        }
    }

    /// Reads some blobs; `false` at the end.
    async fn step(&mut self, host: &Host) -> Result<bool, StoreError> {
        let Some(vault) = self.vault else {
            return self.next_vault(host, Some(self.start)).await;
        };
        match read_some(host, vault, self.after, PACE).await {
            Ok((damaged, after)) => {
                found(host, vault, damaged).await?;
                self.after = after;
                if after.is_some() {
                    return Ok(true);
                }
            }
            // It left meanwhile.
            Err(StoreError::NoVault(_)) => {}
            Err(error) => return Err(error),
        }
        self.next_vault(host, Some(vault)).await
    }

    async fn next_vault(
        &mut self,
        host: &Host,
        after: Option<VaultId>,
    ) -> Result<bool, StoreError> {
        let next = host.store.vaults(after, 1).await?;
        let next = next.first().map(|record| record.vault);
        (self.vault, self.after) = (next, None);
        match next {
            Some(vault) if self.wrapped => Ok(vault <= self.start),
            Some(_) => Ok(true),
            None if self.wrapped => Ok(false),
            None => {
                self.wrapped = true;
                let first = host.store.vaults(None, 1).await?;
                self.vault = first.first().map(|record| record.vault);
                Ok(self.vault.is_some_and(|vault| vault <= self.start))
            }
        }
    }
}

/// Reads all of a vault.
async fn read_whole(host: &Host, vault: VaultId) -> Result<(), StoreError> {
    let (mut after, mut damaged) = (None, 0);
    loop {
        match read_some(host, vault, after, SUSPECT_PACE).await {
            Ok((more, next)) => {
                damaged += more;
                after = next;
            }
            Err(StoreError::NoVault(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
        if after.is_none() {
            break;
        }
    }
    match damaged {
        0 => Ok(()),
        damaged => tell(host, vault, damaged).await,
    }
}

/// Reads some blobs of a vault and takes its time; gives how many were damaged, and where to go on.
async fn read_some(
    host: &Host,
    vault: VaultId,
    after: Option<Hash>,
    pace: u64,
) -> Result<(usize, Option<Hash>), StoreError> {
    let Some(record) = host.store.vault(vault).await? else {
        return Err(StoreError::NoVault(vault));
    };
    let ids = host.store.list(vault, after, MAX_VERIFY).await?;
    let next = ids.last().copied().filter(|_| ids.len() == MAX_VERIFY);
    let usage = record.usage;
    let bytes = usage.blob_bytes / usage.blobs.max(1) * ids.len() as u64;
    let damaged = host.store.verify(vault, ids).await?.len();
    if next.is_some() {
        // Not in step with others that read.
        let millis = bytes.saturating_mul(1000) / pace;
        let pause = millis + random().random_range(0..=millis / 4);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    Ok((damaged, next))
}
