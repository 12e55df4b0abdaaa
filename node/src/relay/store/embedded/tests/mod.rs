//! The embedded store: the conformance suite, and what is particular to it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use coffer_protocol::identity::{Hash, VaultId};
use tempfile::TempDir;

use super::EmbeddedStore;
use crate::relay::store::Bounded;
use crate::relay::store::conformance::{Bench, Damage, Store, conformance};

mod crash;
mod frozen;
mod repair;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Folder(TempDir::new().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

#[async_trait]
impl Bench for Folder {
    async fn open(&self) -> Store {
        let store = EmbeddedStore::open(self.path()).expect("a store");
        Arc::new(Bounded::new(store))
    }

    async fn damage(&self, _: VaultId, id: Hash, damage: Damage) {
        for vault in fs::read_dir(self.path().join("packs")).expect("packs") {
            for pack in fs::read_dir(vault.expect("a folder").path()).expect("packs") {
                let pack = pack.expect("a pack").path();
                let mut bytes = fs::read(&pack).expect("its bytes");
                let Some(at) = bytes.windows(32).position(|part| part == id.0) else {
                    continue;
                };
                match damage {
                    // Of the header too: nothing may rely on it.
                    Damage::Altered => bytes[at + 30..at + 40].fill(0xee),
                    Damage::Lost => {
                        fs::remove_file(pack).expect("it goes");
                        return;
                    }
                }
                fs::write(pack, bytes).expect("they are written");
            }
        }
    }
}

conformance!(async { Folder::new() }, 48);
