//! The model does what it is a model of.

use std::sync::Arc;

use async_trait::async_trait;
use coffer_protocol::identity::{Hash, VaultId};

use super::MemoryStore;
use crate::relay::store::Bounded;
use crate::relay::store::conformance::{self, Bench, Damage, Store};

/// One store: every opening begins anew.
#[derive(Default)]
struct Once(std::sync::Mutex<Option<Arc<MemoryStore>>>);

#[async_trait]
impl Bench for Once {
    async fn open(&self) -> Store {
        let store = Arc::new(MemoryStore::new());
        *self.0.lock().unwrap() = Some(Arc::clone(&store));
        Arc::new(Bounded::shared(store))
    }

    async fn damage(&self, vault: VaultId, id: Hash, damage: Damage) {
        let store = self.0.lock().unwrap().clone().expect("an open store");
        let bytes = match damage {
            Damage::Altered => b"something else".as_slice(),
            Damage::Lost => b"",
        };
        assert_eq!(store.damage(vault, id, Some(bytes.into())), Ok(true));
    }
}

#[tokio::test]
async fn the_model_does_what_the_suite_says() {
    let once = Once::default();
    conformance::what_is_not_served_is_refused(&once).await;
    conformance::an_erased_vault_leaves_only_its_receipt(&once).await;
    conformance::a_new_invitation_begins_another_life_of_a_vault(&once).await;
    conformance::entries_have_a_reserve_beyond_the_quota(&once).await;
    conformance::blobs_stop_at_the_quota(&once).await;
    conformance::a_release_alone_frees_nothing(&once).await;
    conformance::what_changed_since_is_not_freed(&once).await;
    conformance::damaged_bytes_are_forgotten_and_put_again(&once).await;
    conformance::a_closed_store_refuses(&once).await;
}
