//! What every store must do, as tests that are generic over the store.
//!
//! A store under test gives a [`Bench`] and says `conformance!(bench)`; each behaviour is then a test of its own. The
//! last of them compares it with the [plain model](super::memory) over random histories.

mod blobs;
mod entries;
mod grants;
mod invitations;
mod model;
mod ranges;
mod vaults;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, Hash, VaultId, WriterId};
use futures::{StreamExt, TryStreamExt};

use super::{Blob, Bounded, Consumed, Invitation, NewEntry, RelayStore, StoreError};

pub use blobs::*;
pub use entries::*;
pub use grants::*;
pub use invitations::*;
pub use model::*;
pub use ranges::*;
pub use vaults::*;

pub type Store = Arc<dyn RelayStore>;

/// What happens to the bytes of a blob behind a store's back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Some of them are others.
    Altered,
    /// What they lie in is gone.
    Lost,
}

/// Where a store under test keeps what it keeps: nothing at first, and gone with the bench.
#[async_trait]
pub trait Bench: Send + Sync {
    /// Opens the store. Every one that was opened before has been closed.
    async fn open(&self) -> Store;
    /// A second store of another process on the same records, where there can be one.
    async fn open_beside(&self) -> Option<Store> {
        None
    }
    /// Damages what is kept of a blob that was put by itself.
    async fn damage(&self, vault: VaultId, id: Hash, damage: Damage);
}

/// Makes each behaviour a test. `$bench` is an expression that awaits a new bench; `$cases` is how many random histories
/// are compared with the model.
macro_rules! conformance {
    ($bench:expr, $cases:expr) => {
        conformance!(@ $bench;
            an_invitation_is_used_by_one_vault
            of_two_who_ask_at_once_one_gets_it
            using_an_invitation_again_changes_nothing
            an_invitation_expires_and_is_forgotten
            a_vault_that_is_served_keeps_the_larger_quota
            a_new_invitation_begins_another_life_of_a_vault
            invitations_are_listed_and_removed
            vaults_are_listed_in_pages
            members_and_their_visits_are_kept
            what_is_not_served_is_refused
            an_erased_vault_leaves_only_its_receipt
            erasing_hinders_no_other_vault
            everything_survives_reopening
            a_closed_store_refuses
            what_was_only_dropped_opens_again
            grants_are_kept_once_and_in_order
            too_many_grants_are_refused_as_a_whole
            the_newest_held_statement_stays
            a_host_states_each_number_once
            entries_are_read_as_they_were_appended
            appending_again_changes_nothing
            another_entry_at_a_number_is_refused
            a_gap_is_refused_and_named
            an_entry_needs_its_predecessor
            entries_have_a_reserve_beyond_the_quota
            answers_of_entries_are_bounded
            logs_are_bounded_in_number
            entries_of_any_size_come_back
            two_who_append_one_log_at_once_agree
            a_range_lies_beside_its_entries_until_they_are_dropped
            a_log_goes_on_after_a_range
            a_range_of_another_history_is_refused
            a_range_takes_the_place_of_those_that_it_overlaps_but_not_of_one_that_is_alone
            blobs_come_back
            every_id_is_answered_once
            a_blob_is_kept_once
            blobs_stop_at_the_quota
            puts_at_once_stay_within_the_quota
            a_release_alone_frees_nothing
            a_claim_takes_releases_back
            a_put_takes_releases_back
            what_changed_since_is_not_freed
            freed_room_is_used_again
            what_stays_is_read_after_tidying
            parts_of_blobs_are_read
            damaged_bytes_are_forgotten_and_put_again
            what_is_whole_survives_tidying_beside_what_is_damaged
            too_much_at_once_is_refused
        );
        #[test]
        fn it_does_what_the_model_does() {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            crate::relay::store::conformance::compare_with_the_model(&runtime, $cases, || async { $bench.await });
        }
    };
    (@ $bench:expr; $($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let bench = $bench.await;
            crate::relay::store::conformance::$name(&bench).await;
        }
    )*};
}
pub(super) use conformance;

/// A time.
pub const NOW: u64 = 1_790_000_000_000;
/// A quota for tests that do not care.
pub const PLENTY: u64 = 1 << 40;

pub fn hash(n: u64) -> Hash {
    Hash(*blake3::hash(&n.to_be_bytes()).as_bytes())
}

pub fn vault(n: u64) -> VaultId {
    VaultId(hash(n ^ 0x0076_6175_6c74).0)
}

pub fn device(n: u64) -> DeviceId {
    DeviceId(hash(n ^ 0xdef1_ce00).0)
}

pub fn writer(n: u64) -> WriterId {
    WriterId {
        device: device(n),
        incarnation: n as u32,
    }
}

/// Bytes that say which they are.
pub fn content(n: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&n.to_be_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes.into()
}

pub fn invitation(n: u64, quota: u64) -> Invitation {
    Invitation {
        id: hash(n),
        check: content(n, 32),
        quota,
        made_ms: NOW,
        expires_ms: NOW + 1000,
        used: None,
    }
}

/// Entry `seq` of the log of writer `n`; `version` tells entries of one number apart.
pub fn entry(n: u64, seq: u64, version: u64, len: usize) -> NewEntry {
    let header = |seq: u64, version: u64| match seq {
        0 => Hash::ZERO,
        _ => hash(n << 40 ^ seq << 8 ^ version ^ 0xe47),
    };
    NewEntry {
        writer: writer(n),
        seq,
        prev: header(seq - 1, version),
        header: header(seq, version),
        bytes: content(n << 40 ^ seq << 8 ^ version, len),
    }
}

pub fn blob(n: u64, len: usize) -> (Hash, Bytes) {
    let bytes = content(n, len);
    (Hash(*blake3::hash(&bytes).as_bytes()), bytes)
}

/// Has a vault served, by an invitation of its own.
pub async fn serve(store: &Store, vault: VaultId, quota: u64) {
    let id = Hash(vault.0);
    let made = Invitation {
        id,
        ..invitation(0, quota)
    };
    store.add_invitation(made).await.expect("an invitation");
    let used = store.consume_invitation(id, vault, [1; 16], NOW).await;
    assert!(matches!(used, Ok(Consumed::Now(_))), "{used:?}");
}

/// A store that serves `vault(0)`.
pub async fn serving(bench: &dyn Bench, quota: u64) -> Store {
    let store = bench.open().await;
    serve(&store, vault(0), quota).await;
    store
}

/// Everything that a stream of blobs gives, by index.
pub async fn all(store: &Store, vault: VaultId, ids: Vec<Hash>) -> Result<Vec<Blob>, StoreError> {
    let mut blobs: Vec<Blob> = store.get(vault, ids).boxed().try_collect().await?;
    blobs.sort_by_key(|blob| blob.index);
    Ok(blobs)
}
