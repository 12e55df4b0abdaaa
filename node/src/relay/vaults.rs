//! Which vaults are in memory: read when somebody comes, dropped when nobody was there for a while, and never more than
//! were configured.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coffer_protocol::identity::VaultId;
use tokio::sync::OnceCell;

use super::host::Host;
use super::resident::{LoadError, Resident};

type Slot = Arc<OnceCell<Arc<Resident>>>;

/// The table.
pub struct Vaults {
    slots: Mutex<HashMap<VaultId, Slot>>,
    max: usize,
}

impl Vaults {
    /// An empty table for so many.
    pub fn new(max: usize) -> Self {
        Self {
            slots: Mutex::new(HashMap::new()),
            max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VaultId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are in memory.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// All that are in memory.
    pub fn all(&self) -> Vec<Arc<Resident>> {
        self.lock()
            .values()
            .filter_map(|slot| slot.get().cloned())
            .collect()
    }

    /// The vault if it is in memory.
    pub fn get(&self, vault: &VaultId) -> Option<Arc<Resident>> {
        self.lock().get(vault)?.get().cloned()
    }

    /// The vault, read if need be. Of several who ask at once one reads. Makes room if it must, and can.
    pub async fn load(&self, host: &Host, vault: VaultId) -> Result<Arc<Resident>, LoadError> {
        let slot = {
            let mut slots = self.lock();
            if !slots.contains_key(&vault) && slots.len() >= self.max && !make_room(&mut slots) {
                return Err(LoadError::Crowded);
            }
            slots.entry(vault).or_default().clone()
        };
        let loaded = slot
            .get_or_try_init(|| Resident::load(host, vault))
            .await
            .cloned();
        if loaded.is_err() {
            let mut slots = self.lock();
            let is_ours = slots
                .get(&vault)
                .is_some_and(|known| Arc::ptr_eq(known, &slot));
            if is_ours && slot.get().is_none() {
                slots.remove(&vault);
            }
        }
        loaded
    }

    /// Takes a vault out of memory. Who still holds it may finish; its sessions are the caller's to end.
    pub fn remove(&self, vault: &VaultId) -> Option<Arc<Resident>> {
        self.lock().remove(vault)?.get().cloned()
    }

    /// Takes out those with which nobody was connected for so long. Returns how many.
    pub fn drop_idle(&self, idle: Duration, now: Instant) -> usize {
        let mut slots = self.lock();
        let before = slots.len();
        slots.retain(|_, slot| {
            !is_unused(slot, |since| now.saturating_duration_since(since) >= idle)
        });
        slots.shrink_to_fit();
        before - slots.len()
    }
}

/// Whether nobody holds or uses it, since a moment that `long_enough` accepts.
fn is_unused(slot: &Slot, long_enough: impl Fn(Instant) -> bool) -> bool {
    let held_elsewhere = Arc::strong_count(slot) > 1;
    let resident = slot.get();
    !held_elsewhere
        && resident.is_some_and(|resident| {
            Arc::strong_count(resident) == 1 && resident.idle_since().is_some_and(long_enough)
        })
}

/// Takes out the vault that has been idle for longest.
fn make_room(slots: &mut HashMap<VaultId, Slot>) -> bool {
    let idlest = slots
        .iter()
        .filter(|(_, slot)| is_unused(slot, |_| true))
        .filter_map(|(vault, slot)| Some((slot.get()?.idle_since()?, *vault)))
        .min_by_key(|(since, _)| *since);
    match idlest {
        Some((_, vault)) => slots.remove(&vault).is_some(),
        None => false,
    }
}
